"""What kind of file some bytes are, and what customers are told it is.

Health networks often declare a wrong type or none (networks.md §1.5), so the bytes are asked first.
"""

import re
from mimetypes import MimeTypes

import puremagic

HEAD_SIZE = 4096
"""`sniff` looks at no more than this many bytes."""

UNKNOWN = "application/octet-stream"

_SIGNATURES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),
    (b"MM\x00+", "image/tiff"),
    (b"{\\rtf", "application/rtf"),
    (b"MSH|^~\\&", "x-application/hl7-v2+er7"),
)
_OFFICE = "application/vnd.openxmlformats-officedocument."
_ZIP_MEMBERS = (
    (b"word/", _OFFICE + "wordprocessingml.document"),
    (b"xl/", _OFFICE + "spreadsheetml.sheet"),
    (b"ppt/", _OFFICE + "presentationml.presentation"),
)
_PROLOG = re.compile(
    r"(?:\s|<\?.*?\?>|<!--.*?-->|<!doctype[^>\[]*(?:\[.*?\]\s*)?>)*", re.IGNORECASE | re.DOTALL
)  # matches everything, if only the empty text: no backtracking
_HTML_DOCTYPE = re.compile(r"<!doctype\s+html\b", re.IGNORECASE)
_ROOT = re.compile(r"<(?:[A-Za-z_][\w.-]*:)?([A-Za-z_][\w.-]*)[\s/>]")
_HTML_TAGS = {
    *("head", "body", "div", "p", "span", "table", "h1", "h2", "h3", "h4"),
    *("ul", "ol", "pre", "font", "center", "b", "i", "br", "a"),
}
_JSON_START = re.compile(r'\s*(?:\{\s*["}]|\[\s*[\[{"\]])')
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_TOKEN = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+")

_ALIASES = {
    "text/xml": "application/xml",
    "application/cda+xml": "application/xml",
    "application/fhir+xml": "application/xml",
    "application/hl7-cda+xml": "application/xml",
    "application/hl7-sdwg+xml": "application/xml",
    "application/hl7-v3+xml": "application/xml",
    "application/x-hl7": "x-application/hl7-v2+er7",
    "application/hl7-v2": "x-application/hl7-v2+er7",
    "application/hl7-v2+er7": "x-application/hl7-v2+er7",
    "application/x-pdf": "application/pdf",
    "application/xhtml+xml": "text/html",
    "application/x-zip-compressed": "application/zip",
    "binary/octet-stream": UNKNOWN,
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/tif": "image/tiff",
    "image/x-ms-bmp": "image/bmp",
    "text/rtf": "application/rtf",
}
_EXTENSIONS = {
    "application/dicom": ".dcm",
    "application/json": ".json",
    "application/pdf": ".pdf",
    "application/rtf": ".rtf",
    "application/xml": ".xml",
    "application/zip": ".zip",
    "image/jpeg": ".jpeg",
    "image/png": ".png",
    "image/tiff": ".tif",
    "text/html": ".html",
    "text/plain": ".txt",
    "x-application/hl7-v2+er7": ".hl7",
    UNKNOWN: ".bin",
}
_REGISTRY = MimeTypes(filenames=())  # Python's own table: the same on every machine

_ALWAYS_SEEN = {kind for _, kind in _SIGNATURES} | {
    "application/dicom",
    "application/pdf",
    "application/xml",
    "application/zip",
}
"""Types whose files `sniff` never misses: where it saw something else, a declaration of them is wrong."""


def sniff(head: bytes) -> str | None:
    """The media type of a file by its first bytes (at most `HEAD_SIZE` count); None if nothing is recognised."""
    head = head[:HEAD_SIZE]
    return _signature(head) or _text_kind(head) or _rarer(head)


def effective_type(declared: str | None, sniffed: str | None) -> str:
    """What customers see as `mimeType`: the bytes win, unless they only show a container or generic text.

    `declared` may carry parameters, which are dropped. XML kinds of FHIR and CDA are all `application/xml`.
    """
    stated = _normalise(declared)
    if sniffed is None:
        return stated or UNKNOWN
    return stated if stated is not None and _refines(stated, sniffed) else sniffed


def extension(media_type: str) -> str:
    """The file name ending with its dot, `.bin` for what has none."""
    normal = _normalise(media_type) or UNKNOWN
    return _EXTENSIONS.get(normal) or _REGISTRY.guess_extension(normal) or ".bin"


def _signature(head: bytes) -> str | None:
    for magic, media_type in _SIGNATURES:
        if head.startswith(magic):
            return media_type
    if b"%PDF-" in head[:1024]:  # readers accept junk before it (ISO 32000-2 annex I)
        return "application/pdf"
    if head[128:132] == b"DICM":  # after a preamble of 128 bytes (DICOM PS3.10 §7.1)
        return "application/dicom"
    if head.startswith(b"BM") and head[6:10] == bytes(4):  # BITMAPFILEHEADER's reserved fields
        return "image/bmp"
    return _zip_kind(head) if head.startswith((b"PK\x03\x04", b"PK\x05\x06")) else None


def _zip_kind(head: bytes) -> str:
    return next((kind for member, kind in _ZIP_MEMBERS if member in head), "application/zip")


def _text_kind(head: bytes) -> str | None:
    text = _decode(head)
    if not text or _CONTROL.search(text):
        return None
    return _markup_kind(text) or ("application/json" if _JSON_START.match(text) else "text/plain")


def _markup_kind(text: str) -> str | None:
    prolog = match.group() if (match := _PROLOG.match(text)) else ""
    root = _ROOT.match(text, len(prolog))
    name = root.group(1).lower() if root else ""
    declared = prolog.lstrip().startswith("<?xml")
    if name == "html" or _HTML_DOCTYPE.search(prolog) or (name in _HTML_TAGS and not declared):
        return "text/html"
    if name == "svg":
        return "image/svg+xml"
    return "application/xml" if root or declared else None


def _decode(head: bytes) -> str | None:
    """Text of a head that may end within a character: UTF-8 or UTF-16 by its mark, else UTF-8, else Latin-1."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return head[: len(head) // 2 * 2].decode("utf-16", errors="ignore")
    head = head.removeprefix(b"\xef\xbb\xbf")
    if b"\x00" in head:
        return None
    for cut in range(min(4, len(head))):
        try:
            return head[: len(head) - cut].decode()
        except UnicodeDecodeError:
            continue
    return None if re.search(rb"[\x80-\x9f]{2}", head) else head.decode("latin-1")


def _rarer(head: bytes) -> str | None:
    try:
        matches = puremagic.magic_string(head) if head else []
    except puremagic.PureError:
        return None
    kind = next((match.mime_type for match in matches if match.mime_type and match.confidence >= 0.5), None)
    return _normalise(kind)


def _normalise(declared: str | None) -> str | None:
    bare = (declared or "").partition(";")[0].strip().lower()
    return _ALIASES.get(bare, bare) if _TOKEN.fullmatch(bare) else None


def _refines(stated: str, sniffed: str) -> bool:
    """Whether the declared type says more than the bytes show, without contradicting them."""
    if sniffed == "text/plain":
        return stated not in _ALWAYS_SEEN and stated != UNKNOWN
    if sniffed == "application/zip":
        return stated.startswith("application/vnd.") or stated.endswith("+zip")
    if sniffed == "application/json":
        return stated.endswith("+json")
    return False
