"""The document inside an answer: servers send it raw, as a FHIR Binary in JSON or XML, or as bare Base64.

The wrapper is recognised in the first 64 KiB and taken off while the rest streams by, so that a document of any size
costs the same memory. What is not surely a wrapper is the document itself and is left as it is.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass

import orjson
import pybase64

from chartwire.errors import IssueCode, TemporaryNetworkError
from chartwire.networks.fhir.decoding import CHUNK_BYTES

_HEAD_BYTES = 64 * 1024
_BASE64_TEXT = re.compile(rb"[A-Za-z0-9+/=\s]{16,}")
_SIGNATURES = (
    b"<", b"\xef\xbb\xbf<", b"%PDF", b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\x00", b"MM\x00*", b"{\\rtf",
    b"PK\x03\x04",
)  # fmt: skip
_JSON_MEMBER = re.compile(rb'\s*"((?:[^"\\]|\\.)*+)"\s*:\s*', re.DOTALL)
_JSON_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+\\?(?:"|\Z)|[\[\]{},]', re.DOTALL)  # a string may be cut off by the head
_JSON_SEPARATOR = re.compile(rb"\s*,")
_XML_PROLOG = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?.*?\?>\s*|<!--.*?-->\s*)*", re.DOTALL)
_XML_ROOT = re.compile(rb"<(?:([\w.-]+):)?Binary\b([^>]*)>", re.DOTALL)
_XML_ATTRIBUTE = rb"<(?:[\w.-]+:)?%s\s+(?:[^>]{0,200}?\s)?value\s*=\s*([\"'])"
_XML_REFERENCE = re.compile(rb"&#(x[0-9a-fA-F]+|[0-9]+);")
_BINARY_MEMBERS = frozenset(
    {b"resourceType", b"id", b"meta", b"implicitRules", b"language", b"contentType", b"securityContext", b"data"}
)


@dataclass(frozen=True, slots=True)
class Wrapper:
    """Base64 of the document begins at byte `start` of the answer and ends before the byte `end`.

    `unescape` takes the wrapper's own escapes out of a piece; `escape` is the byte that begins one, and an escape is at
    most `escape_length` bytes long. `end` None: the Base64 ends with the answer.
    """

    start: int
    end: bytes | None
    unescape: Callable[[bytes], bytes]
    escape: bytes = b"\\"
    escape_length: int = 6
    content_type: str | None = None


async def read_head(stream: AsyncIterator[bytes]) -> bytes:
    """The first 64 KiB of a stream or a little more; less if there is no more."""
    head = bytearray()
    async for chunk in stream:
        head += chunk
        if len(head) >= _HEAD_BYTES:
            break
    return bytes(head)


def find_wrapper(head: bytes, answered_type: str, declared_type: str | None) -> Wrapper | None:
    """The wrapper that `head` begins; None if the answer is the document itself.

    `answered_type` is the answer's Content-Type, `declared_type` what the DocumentReference promised.
    """
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if start == b"{":
        expected = "fhir+json" in answered_type or (declared_type is not None and "json" not in declared_type)
        return _find_in_json(head, members_suffice=expected)
    if start == b"<":
        return _find_in_xml(head)
    return _find_bare(head)


async def unwrapped(wrapper: Wrapper, head: bytes, rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The document's bytes. An answer that breaks off, or holds no Base64, raises INVALID_ANSWER."""
    waiting = b""
    async for piece in _base64_pieces(wrapper, head, rest):
        ready = waiting + re.sub(rb"\s+", b"", piece)
        usable = len(ready) // 4 * 4
        waiting = ready[usable:]
        if usable:
            yield _decode(ready[:usable])
    if waiting:  # a sender that leaves the padding out
        yield _decode(waiting.ljust(4, b"="))


async def _base64_pieces(wrapper: Wrapper, head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    waiting = b""
    async for chunk in _from(head, wrapper.start, rest):
        piece, found, _ = (waiting + chunk).partition(wrapper.end) if wrapper.end else (waiting + chunk, b"", b"")
        cut = len(piece) if found else _before_cut_escape(piece, wrapper)
        waiting = piece[cut:]
        if piece[:cut]:
            yield _checked(wrapper.unescape, piece[:cut])
        if found:
            await _drain(rest)
            return
    if wrapper.end is not None or waiting:
        raise _broken()


async def _from(head: bytes, start: int, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    for at in range(start, len(head), CHUNK_BYTES):
        yield head[at : at + CHUNK_BYTES]
    async for chunk in rest:
        yield chunk


async def _drain(rest: AsyncIterator[bytes]) -> None:
    """Read what closes the wrapper, so that the connection can be used again; a body that is cut off raises here."""
    total = 0
    async for chunk in rest:
        total += len(chunk)
        if total > _HEAD_BYTES:
            return


def _before_cut_escape(piece: bytes, wrapper: Wrapper) -> int:
    """Where to cut `piece` so that no escape is torn apart: it may end in the middle of one."""
    last = piece.rfind(wrapper.escape, max(0, len(piece) - wrapper.escape_length))
    return len(piece) if last < 0 else last


def _decode(text: bytes) -> bytes:
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        raise _broken() from None


def _checked(unescape: Callable[[bytes], bytes], piece: bytes) -> bytes:
    try:
        return unescape(piece)
    except (ValueError, OverflowError):  # a character reference beyond every character
        raise _broken() from None


def _broken() -> TemporaryNetworkError:
    return TemporaryNetworkError(IssueCode.INVALID_ANSWER, "the answer's Base64 is broken or cut off")


def _find_in_json(head: bytes, *, members_suffice: bool) -> Wrapper | None:
    """A Binary's `data` member.

    Some servers sort members, so that `data` comes before `resourceType`; then the members met so far must all be a
    Binary's, and `members_suffice` say that a resource is to be expected.
    """
    kind = content_type = None
    names: set[bytes] = set()
    at = head.index(b"{") + 1
    while (member := _JSON_MEMBER.match(head, at)) is not None:
        name, at = member[1], member.end()
        names.add(name)
        if name == b"data" and head[at : at + 1] == b'"':
            is_binary = kind == "Binary" or (kind is None and members_suffice and names <= _BINARY_MEMBERS)
            return Wrapper(at + 1, b'"', _unescape_json, content_type=content_type) if is_binary else None
        value_end = _end_of_json_value(head, at)
        value = _json_text(head[at:value_end])
        if name == b"resourceType":
            kind = value
        if name == b"contentType":
            content_type = value
        separator = _JSON_SEPARATOR.match(head, value_end)
        if separator is None:
            break
        at = separator.end()
    return None


def _end_of_json_value(head: bytes, at: int) -> int:
    """Where the value that begins at `at` ends, strings and nesting respected."""
    depth = 0
    for token in _JSON_TOKEN.finditer(head, at):
        mark = token[0]
        if depth == 0 and mark in {b",", b"}", b"]"}:
            return token.start()
        depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(mark, 0)
        if depth == 0 and mark != b",":
            return token.end()
    return len(head)


def _json_text(value: bytes) -> str | None:
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    return parsed if isinstance(parsed, str) else None


def _unescape_json(piece: bytes) -> bytes:
    return orjson.loads(b'"%s"' % piece).encode() if b"\\" in piece else piece


def _find_in_xml(head: bytes) -> Wrapper | None:
    """The `value` of the `data` element of a root `Binary` in the FHIR namespace (FHIR R4 §2.6.1)."""
    prolog = _XML_PROLOG.match(head)
    root = _XML_ROOT.match(head, prolog.end() if prolog else 0)
    if root is None:
        return None
    attribute = b"xmlns:" + root[1] if root[1] else b"xmlns"
    if re.search(rb"(?:^|\s)" + re.escape(attribute) + rb"\s*=\s*[\"']http://hl7\.org/fhir[\"']", root[2]) is None:
        return None
    data = re.compile(_XML_ATTRIBUTE % b"data").search(head, root.end())
    if data is None:
        return None
    kind = re.compile(_XML_ATTRIBUTE % b"contentType" + rb"([^\"'<]*)").search(head, root.end(), data.start())
    content_type = kind[2].decode("utf-8", "replace") if kind else None
    return Wrapper(data.end(), data[1], _unescape_xml, b"&", 8, content_type)


def _unescape_xml(piece: bytes) -> bytes:
    if b"&" not in piece:
        return piece
    return _XML_REFERENCE.sub(lambda found: chr(_code_point(found[1])).encode(), piece)


def _code_point(digits: bytes) -> int:
    return int(digits[1:], 16) if digits[:1] == b"x" else int(digits)


def _find_bare(head: bytes) -> Wrapper | None:
    """Nothing but Base64, perhaps in quotes, that decodes to the beginning of a known kind of file."""
    stripped = head.lstrip()
    quote = stripped[:1] if stripped[:1] == b'"' else None
    text = stripped.strip(b'" \t\r\n')
    if _BASE64_TEXT.fullmatch(text) is None:
        return None
    sample = re.sub(rb"\s+", b"", text)[:64]
    try:
        decoded = pybase64.b64decode(sample[: len(sample) // 4 * 4], validate=True)
    except ValueError:
        return None
    if not decoded.lstrip().startswith(_SIGNATURES):
        return None
    return Wrapper(head.index(text[:1]), quote, _as_it_is)


def _as_it_is(piece: bytes) -> bytes:
    return piece
