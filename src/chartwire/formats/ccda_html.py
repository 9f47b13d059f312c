"""A C-CDA document as one HTML page that can do nothing but be read and printed."""

import base64
from collections.abc import Iterable, Iterator
from hashlib import sha256

from lxml import etree

from chartwire.formats.ccda_document import Fact, ReadableDocument, read_document
from chartwire.formats.ccda_narrative import Block, Cell, Listing, Paragraph, Preformatted, Run, Section, Style, Table

_STYLE = """
:root { color-scheme: light; }
body {
  font: 16px/1.5 system-ui, sans-serif; color: #1a1f27; background: #fff;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
}
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 1rem; }
h2, h3, h4, h5, h6 { line-height: 1.25; margin: 1.8rem 0 .6rem; break-after: avoid; }
h2 { font-size: 1.2rem; border-bottom: 2px solid #0b6e69; padding-bottom: .2rem; }
h3, h4, h5, h6 { font-size: 1rem; }
dl {
  display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem;
  margin: 0 0 1.5rem; padding: .8rem 1rem; background: #f2f6f6;
}
dt { color: #4a5560; }
dd { margin: 0; }
table { border-collapse: collapse; margin: .6rem 0; max-width: 100%; }
th, td { border: 1px solid #c5ced6; padding: .3rem .55rem; text-align: left; vertical-align: top; }
th { background: #f2f6f6; }
td > :first-child, th > :first-child { margin-top: 0; }
td > :last-child, th > :last-child { margin-bottom: 0; }
caption, .caption { font-weight: 600; text-align: left; margin: .4rem 0; }
p { margin: .5rem 0; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; font: inherit; font-family: ui-monospace, monospace; font-size: .9rem; }
.underline { text-decoration: underline; }
@media print {
  body { font-size: 10.5pt; margin: 0; max-width: none; }
  dl { background: none; border: 1px solid #c5ced6; }
  thead { display: table-header-group; }
  tr { break-inside: avoid; }
}
"""
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'"
)
"""What the page needs: its own style, and nothing else."""

_DEEPEST_HEADING = 6
_STYLE_TAGS = {Style.BOLD: "strong", Style.ITALIC: "em", Style.SUBSCRIPT: "sub", Style.SUPERSCRIPT: "sup"}


def render_html(xml: bytes) -> bytes:
    """The document as an HTML page in UTF-8 that runs and fetches nothing. Raises `CcdaError` if it is not CDA.

    The page is built as a tree from plain records, so the document's text can only ever be text.
    """
    page = _page(read_document(xml))
    return etree.tostring(page, encoding="utf-8", method="html", doctype="<!DOCTYPE html>")


def _element(tag: str, *content: "str | etree._Element", **attributes: str) -> "etree._Element":
    """An element that holds either text or elements; `class_` is the attribute `class`."""
    element = etree.Element(tag, {name.rstrip("_"): value for name, value in attributes.items()})
    for part in content:
        if isinstance(part, str):
            element.text = part
        else:
            element.append(part)
    return element


def _page(document: ReadableDocument) -> "etree._Element":
    policy = _element("meta", content=CONTENT_SECURITY_POLICY)
    policy.set("http-equiv", "Content-Security-Policy")
    head = _element(
        "head",
        _element("meta", charset="utf-8"),
        policy,
        _element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _element("title", document.title),
        _element("style", _STYLE),
    )
    sections = [_section(section, 2) for section in document.sections]
    body = _element("body", _element("h1", document.title), _facts(document.facts), *sections)
    return _element("html", head, body, lang="en")


def _facts(facts: Iterable[Fact]) -> "etree._Element":
    pairs = [(_element("dt", fact.label), _element("dd", fact.value)) for fact in facts]
    return _element("dl", *[part for pair in pairs for part in pair])


def _section(section: Section, level: int) -> "etree._Element":
    heading = [_element(f"h{min(level, _DEEPEST_HEADING)}", section.title)] if section.title else []
    inner = [_section(nested, level + 1) for nested in section.sections]
    return _element("section", *heading, *map(_block, section.blocks), *inner)


def _block(block: Block) -> "etree._Element":
    match block:
        case Paragraph():
            return _element("p", *_inline(block.runs))
        case Preformatted():
            return _element("pre", block.text)
        case Listing():
            return _listing(block)
        case Table():
            return _table(block)


def _inline(runs: Iterable[Run]) -> Iterator["etree._Element"]:
    for run in runs:
        element = _element("span", run.text)
        if Style.UNDERLINE in run.styles:
            element.set("class", "underline")
        for style, tag in _STYLE_TAGS.items():
            if style in run.styles:
                element = _element(tag, element)
        yield element
        if run.line_break:
            yield _element("br")


def _listing(listing: Listing) -> "etree._Element":
    items = [_element("li", *map(_block, item)) for item in listing.items]
    element = _element("ol" if listing.ordered else "ul", *items)
    return _element("div", _element("p", listing.caption, class_="caption"), element) if listing.caption else element


def _table(table: Table) -> "etree._Element":
    caption = [_element("caption", table.caption)] if table.caption else []
    parts = (("thead", table.rows[: table.heading_rows]), ("tbody", table.rows[table.heading_rows :]))
    groups = [_element(tag, *[_element("tr", *map(_cell, row)) for row in rows]) for tag, rows in parts if rows]
    return _element("table", *caption, *groups)


def _cell(cell: Cell) -> "etree._Element":
    element = _element("th" if cell.heading else "td", *map(_block, cell.blocks))
    if cell.columns > 1:
        element.set("colspan", str(cell.columns))
    if cell.rows > 1:
        element.set("rowspan", str(cell.rows))
    return element
