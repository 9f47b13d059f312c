"""XML from strangers, parsed without entities, network or DTD."""

from typing import Any
from xml.parsers import expat

from lxml import etree

MAX_XML_BYTES = 64 * 1024 * 1024
_PIECE_BYTES = 64 * 1024


class _Found(Exception):  # noqa: N818  not an error: it ends the scan at the root element
    def __init__(self, doctype: bool) -> None:
        super().__init__()
        self.doctype = doctype


# huge_tree lifts limits that a base64 PDF in a nonXMLBody exceeds; the size cap and the DTD check stand in for them
_OPTIONS: dict[str, Any] = {
    "resolve_entities": False,
    "no_network": True,
    "load_dtd": False,
    "huge_tree": True,
    "recover": True,
    "remove_comments": True,
    "remove_pis": True,
}


def parse_xml(data: bytes, max_bytes: int = MAX_XML_BYTES) -> "etree._Element | None":
    """The root element, or None for what is not well-formed, has a document type declaration, or is too large.

    Comments and processing instructions are left out.
    Undeclared prefixes are forgiven: such files exist, and XML 1.0 itself does not forbid them.
    """
    if len(data) > max_bytes or _has_doctype(data):
        return None
    parser = etree.XMLParser(**_OPTIONS)
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError):
        return None
    # recover=True gives None for an empty document, which lxml-stubs does not say
    if root is None or _has_errors(parser.error_log) or root.getroottree().docinfo.internalDTD is not None:
        return None
    return root


def parse_start(data: bytes, until: str) -> "etree._Element | None":
    """The root element with what stands before the first element `until`, of a document that begins with `data`.

    None if `data` holds no such element, or what `parse_xml` refuses before it. What comes 64 KiB after it, or later,
    is not looked at.
    """
    if _has_doctype(data):
        return None
    parser = etree.XMLPullParser(events=("start",), tag=until, **_OPTIONS)
    try:
        for at in range(0, len(data), _PIECE_BYTES):
            parser.feed(data[at : at + _PIECE_BYTES])
            for _, element in parser.read_events():
                if isinstance(element, etree._Element):
                    return None if _has_errors(parser.feed_error_log) else element.getroottree().getroot()
    except (etree.XMLSyntaxError, ValueError):
        return None
    return None


def _has_errors(log: "etree._ListErrorLog") -> bool:
    return any(entry.domain_name != "NAMESPACE" and entry.level > 1 for entry in log)


def _has_doctype(data: bytes) -> bool:
    """Whether a document type declaration stands before the root element; True also if no root element is found.

    It is looked for before lxml sees the data, since a declaration can do harm while it is read.
    """
    scanner = expat.ParserCreate()

    def on_doctype(*_: object) -> None:
        raise _Found(doctype=True)

    def on_root(*_: object) -> None:
        raise _Found(doctype=False)

    scanner.StartDoctypeDeclHandler = on_doctype
    scanner.StartElementHandler = on_root
    try:
        scanner.Parse(data, True)
    except _Found as found:
        return found.doctype
    except (expat.ExpatError, LookupError, ValueError):
        return True
    return True
