"""The readable part of a CDA document, as plain records that can be laid out as HTML or PDF.

Of the narrative block (CDA R2 §4.3.5) only an allow-list of elements means something; of everything else the text is
kept and nothing more, so that no link, script or style of a document's author gets through.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from lxml import etree

from chartwire.formats.ccda import HL7

_DEEPEST = 40
"""Elements nested deeper than this are read as text: no honest document gets there, and recursion has an end."""


class Style(StrEnum):
    """How a run of text is set."""

    BOLD = "bold"
    ITALIC = "italic"
    UNDERLINE = "underline"
    SUBSCRIPT = "subscript"
    SUPERSCRIPT = "superscript"


@dataclass(frozen=True, slots=True)
class Run:
    """Text of one style; `line_break` is a new line after it."""

    text: str
    styles: frozenset[Style] = frozenset()
    line_break: bool = False


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Text that is wrapped."""

    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Preformatted:
    """Text whose line ends are its author's."""

    text: str


@dataclass(frozen=True, slots=True)
class Listing:
    """A list; each item is a sequence of blocks."""

    items: tuple[tuple["Block", ...], ...]
    ordered: bool = False
    caption: str | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """A table cell."""

    blocks: tuple["Block", ...]
    heading: bool = False
    columns: int = 1
    rows: int = 1


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the first `heading_rows` rows repeat on each printed page."""

    rows: tuple[tuple[Cell, ...], ...]
    heading_rows: int = 0
    caption: str | None = None


Block = Paragraph | Preformatted | Listing | Table


@dataclass(frozen=True, slots=True)
class Section:
    """A titled part with its text and the parts within it."""

    title: str | None
    blocks: tuple[Block, ...] = ()
    sections: tuple["Section", ...] = ()


def read_section(element: "etree._Element", depth: int = 0) -> Section:
    """A `section` with its narrative and nested sections."""
    title = element.find(f"{HL7}title")
    texts = element.findall(f"{HL7}text")
    nested = element.findall(f"{HL7}component/{HL7}section")
    blocks = [block for text in texts for block in read_blocks(text)]
    if depth >= _DEEPEST:
        blocks += [paragraph for inner in nested for paragraph in _flat(inner)]
        nested = []
    return Section(
        title=squeeze("".join(map(str, title.itertext()))) or None if title is not None else None,
        blocks=tuple(blocks),
        sections=tuple(read_section(inner, depth + 1) for inner in nested),
    )


def read_blocks(element: "etree._Element") -> tuple[Block, ...]:
    """The blocks of a narrative element (`text`, `td`, `item` …)."""
    reader = _Reader()
    reader.read(element, frozenset(), 0)
    return tuple(reader.finish())


def squeeze(text: str) -> str:
    """`text` with blanks collapsed and cut from its ends."""
    return " ".join(text.split())


@dataclass(slots=True)
class _Reader:
    """Turns mixed content into blocks: inline text gathers in `runs` until a block begins or ends."""

    blocks: list[Block] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    def finish(self) -> list[Block]:
        self.flush()
        return self.blocks

    def flush(self) -> None:
        if runs := tuple(_tidy(self.runs)):
            self.blocks.append(Paragraph(runs))
        self.runs = []

    def read(self, element: "etree._Element", styles: frozenset[Style], depth: int) -> None:
        """What is in `element`."""
        self.add(element.text, styles)
        for child in element:
            self.enter(child, styles, depth + 1)
            self.add(child.tail, styles)

    def add(self, text: str | None, styles: frozenset[Style]) -> None:
        if text:
            self.runs.append(Run(text, styles))

    def add_block(self, block: Block) -> None:
        self.flush()
        self.blocks.append(block)

    def enter(self, element: "etree._Element", styles: frozenset[Style], depth: int) -> None:
        """`element` itself, by its kind."""
        kind = str(element.tag).rpartition("}")[2]
        if depth > _DEEPEST:
            self.add(_all_text(element), styles)
        elif kind in {"paragraph", "list", "table", "footnote"}:
            self.flush()
            self.enter_block(kind, element, styles, depth)
            self.flush()
        elif kind == "br":
            self.runs.append(Run("", styles, line_break=True))
        elif kind == "renderMultiMedia":
            self.add(" [picture] ", styles | {Style.ITALIC})
            self.read(element, styles, depth)
        else:
            self.read(element, styles | _styles(kind, element), depth)
            self.add(_link_target(kind, element), styles)

    def enter_block(self, kind: str, element: "etree._Element", styles: frozenset[Style], depth: int) -> None:
        if kind in {"list", "table"}:
            self.add(_stray_text(element), styles)
            self.add_block((_listing if kind == "list" else _table)(element, styles, depth))
        else:
            self.read(element, styles | _styles(kind, element), depth)


def _listing(element: "etree._Element", styles: frozenset[Style], depth: int) -> Listing:
    items = [
        _within(child, styles, depth) for child in element if _name(child) != "caption" and _all_text(child).strip()
    ]
    return Listing(tuple(items), element.get("listType") == "ordered", _caption(element))


def _table(element: "etree._Element", styles: frozenset[Style], depth: int) -> Table:
    head = [_row(row, styles, depth) for row in _rows(element, within={"thead"})]
    body = [_row(row, styles, depth) for row in _rows(element, within={"", "tbody", "tfoot"})]
    rows = tuple(row for row in (*head, *body) if row)
    return Table(rows, heading_rows=len([row for row in head if row]), caption=_caption(element))


def _rows(table: "etree._Element", within: set[str]) -> Iterator["etree._Element"]:
    """The rows of a table's groups named in `within`; the empty name stands for rows outside of any group.

    What is neither row, group nor caption (CDA allows nothing else) is read as a row of one cell.
    """
    for child in table:
        name = _name(child)
        if name in {"thead", "tbody", "tfoot"}:
            if name in within:
                yield from child
        elif "" in within and name not in {"caption", "col", "colgroup"}:
            yield child


def _row(element: "etree._Element", styles: frozenset[Style], depth: int) -> tuple[Cell, ...]:
    if _name(element) != "tr":
        return (Cell(_within(element, styles, depth)),)
    return tuple(_cell(child, styles, depth) for child in element)


def _cell(element: "etree._Element", styles: frozenset[Style], depth: int) -> Cell:
    return Cell(
        blocks=_within(element, styles, depth),
        heading=_name(element) == "th",
        columns=_span(element, "colspan"),
        rows=_span(element, "rowspan"),
    )


def _within(element: "etree._Element", styles: frozenset[Style], depth: int) -> tuple[Block, ...]:
    reader = _Reader()
    reader.read(element, styles | _styles(_name(element), element), depth + 2)
    return tuple(reader.finish())


def _stray_text(element: "etree._Element") -> str:
    """Text directly within a list, or a table's groups and rows, where CDA allows none but writers may put some."""
    holders = [element, *element.iter(f"{HL7}thead", f"{HL7}tbody", f"{HL7}tfoot", f"{HL7}tr")]
    own = [holder for holder in holders if holder is element or _name(element) == "table"]
    return " ".join(text for holder in own for text in (holder.text, *(child.tail for child in holder)) if text)


def _span(element: "etree._Element", attribute: str) -> int:
    value = element.get(attribute, "").strip()
    return min(max(int(value), 1), 100) if value.isascii() and value.isdigit() and len(value) < 5 else 1


def _caption(element: "etree._Element") -> str | None:
    return squeeze(" ".join(_all_text(child) for child in element if _name(child) == "caption")) or None


def _name(element: "etree._Element") -> str:
    return str(element.tag).rpartition("}")[2]


def _all_text(element: "etree._Element") -> str:
    return "".join(map(str, element.itertext()))


def _flat(element: "etree._Element") -> Iterable[Paragraph]:
    text = squeeze(" ".join(map(str, element.itertext())))
    return (Paragraph((Run(text),)),) if text else ()


_STYLE_CODES = {
    "bold": Style.BOLD,
    "emphasis": Style.ITALIC,
    "italics": Style.ITALIC,
    "underline": Style.UNDERLINE,
}
_STYLE_TAGS = {"sub": Style.SUBSCRIPT, "sup": Style.SUPERSCRIPT, "caption": Style.BOLD}


def _styles(kind: str, element: "etree._Element") -> frozenset[Style]:
    codes = element.get("styleCode", "").lower().split()
    found = {_STYLE_CODES[code] for code in codes if code in _STYLE_CODES}
    return frozenset(found | ({_STYLE_TAGS[kind]} if kind in _STYLE_TAGS else set()))


def _link_target(kind: str, element: "etree._Element") -> str | None:
    """A link's address as text, where it is a web address and its text does not say it already."""
    target = squeeze(element.get("href", "")) if kind == "linkHtml" else ""
    known = target.lower().startswith(("http://", "https://"))
    return f" ({target})" if known and target not in _all_text(element) else None


def _tidy(runs: list[Run]) -> Iterator[Run]:
    """Blanks collapsed over the borders of runs, line breaks only between text."""
    kept: list[Run] = []
    gap = False
    for run in runs:
        text = squeeze(run.text)
        gap = gap or run.text[:1].isspace()
        if text:
            between = " " if gap and kept and not kept[-1].line_break else ""
            kept.append(replace(run, text=between + text))
        elif run.line_break and kept:
            kept[-1] = replace(kept[-1], line_break=True)
        gap = run.text[-1:].isspace() or (gap and not text)
    if kept:
        kept[-1] = replace(kept[-1], line_break=False)
    return iter(kept)
