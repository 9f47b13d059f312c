"""A C-CDA document as a PDF, laid out from the same records as the HTML page."""

import io
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.pagesizes import letter
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import inch
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Flowable, ListFlowable, SimpleDocTemplate, Spacer
from reportlab.platypus import Paragraph as TextFlowable
from reportlab.platypus import Table as TableFlowable

from chartwire.formats.ccda_document import Fact, ReadableDocument, read_document
from chartwire.formats.ccda_narrative import Block, Cell, Listing, Paragraph, Preformatted, Run, Section, Style, Table

_INK = colors.HexColor("#1a1f27")
_ACCENT = colors.HexColor("#0b6e69")
_RULE = colors.HexColor("#c5ced6")
_SHADE = colors.HexColor("#f2f6f6")
_MARGIN = 0.8 * inch
_WIDTH = letter[0] - 2 * _MARGIN
_HIGHEST_CELL = 7 * inch
"""A table with a cell higher than this is laid out as text: its row would not fit on a page."""
_INDENT = 18.0
_NARROWEST_COLUMN = 0.4 * inch
_TAGS = {Style.BOLD: "b", Style.ITALIC: "i", Style.UNDERLINE: "u", Style.SUBSCRIPT: "sub", Style.SUPERSCRIPT: "super"}


def render_pdf(xml: bytes) -> bytes:
    """The document as a PDF of letter pages, always the same bytes. Raises `CcdaError` if it is not CDA."""
    document = read_document(xml)
    _register_fonts()
    buffer = io.BytesIO()
    template = SimpleDocTemplate(
        buffer,
        pagesize=letter,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        title=document.title,
        invariant=1,
    )
    template.build(list(_story(document)), onFirstPage=_page_number, onLaterPages=_page_number)
    return buffer.getvalue()


@cache
def _register_fonts() -> None:
    """The fonts that reportlab brings: embedded, and with more letters than the PDF standard's own."""
    for name, file in (("Vera", "Vera"), ("Vera-B", "VeraBd"), ("Vera-I", "VeraIt"), ("Vera-BI", "VeraBI")):
        pdfmetrics.registerFont(TTFont(name, f"{file}.ttf"))
    pdfmetrics.registerFontFamily("Vera", normal="Vera", bold="Vera-B", italic="Vera-I", boldItalic="Vera-BI")


@cache
def _style(name: str) -> ParagraphStyle:
    body = ParagraphStyle(
        "body", fontName="Vera", fontSize=9, leading=12.5, textColor=_INK, spaceAfter=4, splitLongWords=1
    )
    heading = ParagraphStyle("heading", body, fontName="Vera-B", keepWithNext=1, spaceBefore=10)
    cell = ParagraphStyle("cell", body, fontSize=8, leading=10.5, spaceAfter=0)
    return {
        "body": body,
        "cell": cell,
        "heading cell": ParagraphStyle("heading cell", cell, fontName="Vera-B"),
        "title": ParagraphStyle("title", heading, fontSize=16, leading=20, spaceBefore=0, spaceAfter=10),
        "section": ParagraphStyle("section", heading, fontSize=11.5, leading=15, textColor=_ACCENT, spaceBefore=14),
        "subsection": heading,
        "caption": ParagraphStyle("caption", body, fontName="Vera-B", keepWithNext=1),
    }[name]


def _page_number(canvas: Any, _: object) -> None:
    canvas.setFont("Vera", 7.5)
    canvas.setFillColor(_INK)
    canvas.drawCentredString(letter[0] / 2, _MARGIN / 2, f"Page {canvas.getPageNumber()}")


def _story(document: ReadableDocument) -> Iterator[Flowable]:
    yield TextFlowable(escape(document.title), _style("title"))
    if document.facts:
        yield _facts(document.facts)
    yield Spacer(0, 6)
    for section in document.sections:
        yield from _section(section, "section")


def _facts(facts: Iterable[Fact]) -> Flowable:
    rows = [
        [TextFlowable(f"<b>{escape(fact.label)}</b>", _style("cell")), TextFlowable(escape(fact.value), _style("cell"))]
        for fact in facts
    ]
    style = [("BACKGROUND", (0, 0), (-1, -1), _SHADE), ("VALIGN", (0, 0), (-1, -1), "TOP")]
    return TableFlowable(rows, colWidths=[1.2 * inch, _WIDTH - 1.2 * inch], style=style, splitInRow=1)


def _section(section: Section, style: str) -> Iterator[Flowable]:
    if section.title:
        yield TextFlowable(escape(section.title), _style(style))
    for block in section.blocks:
        yield from _block(block, _style("body"), _WIDTH)
    for inner in section.sections:
        yield from _section(inner, "subsection")


def _block(block: Block, style: ParagraphStyle, width: float) -> Iterator[Flowable]:
    match block:
        case Paragraph():
            yield TextFlowable(_markup(block.runs), style)
        case Preformatted():
            for line in block.text.splitlines():
                yield TextFlowable(escape(line).replace("  ", "&nbsp; ") or "&nbsp;", style)
        case Listing():
            yield from _listing(block, style, width)
        case Table():
            yield from _table(block, width)


def _markup(runs: Iterable[Run]) -> str:
    return "".join(_run_markup(run) for run in runs)


def _run_markup(run: Run) -> str:
    text = escape(run.text)
    for style, tag in _TAGS.items():
        if style in run.styles:
            text = f"<{tag}>{text}</{tag}>"
    return text + ("<br/>" if run.line_break else "")


def _listing(listing: Listing, style: ParagraphStyle, width: float) -> Iterator[Flowable]:
    if listing.caption:
        yield TextFlowable(escape(listing.caption), _style("caption"))
    items: list[Flowable | Sequence[Flowable]] = [
        [flowable for block in item for flowable in _block(block, style, width - _INDENT)] for item in listing.items
    ]
    if listing.ordered:
        yield ListFlowable(items, leftIndent=_INDENT, bulletFontName="Vera", bulletFontSize=8)
    elif items:
        yield ListFlowable(items, leftIndent=_INDENT, bulletFontName="Vera", bulletType="bullet", start="•")


def _table(table: Table, width: float) -> Iterator[Flowable]:
    if table.caption:
        yield TextFlowable(escape(table.caption), _style("caption"))
    grid = _place(table)
    widths = _column_widths(grid, width)
    if not grid:
        return
    if min(widths) < _NARROWEST_COLUMN or _highest(grid, widths) > _HIGHEST_CELL:
        yield from _as_text(table, width)
    else:
        yield _grid_flowable(grid, widths, table.heading_rows)
    yield Spacer(0, 6)


def _as_text(table: Table, width: float) -> Iterator[Flowable]:
    """Each cell as a paragraph after its column's heading, for tables that no page can hold."""
    headings = [_text(cell) for cell in table.rows[0]] if table.heading_rows else []
    for row in table.rows[1 if headings else 0 :]:
        for index, cell in enumerate(row):
            if index < len(headings) and headings[index] and cell.blocks:
                yield TextFlowable(escape(headings[index]), _style("caption"))
            for block in cell.blocks:
                yield from _block(block, _style("body"), width)
        yield Spacer(0, 6)


def _place(table: Table) -> list[list[Cell | None]]:
    """The cells on a full grid; None where a cell spans from the left or from above."""
    taken: dict[tuple[int, int], Cell | None] = {}
    for row_index, row in enumerate(table.rows):
        column = 0
        for cell in row:
            while (row_index, column) in taken:
                column += 1
            rows = range(row_index, min(row_index + cell.rows, len(table.rows)))
            taken.update({(below, column + right): None for below in rows for right in range(cell.columns)})
            taken[row_index, column] = cell
    columns = max((column for _, column in taken), default=-1) + 1
    return [[taken.get((row, column)) for column in range(columns)] for row in range(len(table.rows))]


def _column_widths(grid: list[list[Cell | None]], width: float) -> list[float]:
    """Shares of `width` by the length of what the columns hold, within bounds so that none starves."""
    columns = zip(*grid, strict=True)
    weights = [max(min(max(_length(cell) for cell in column), 60), 9) for column in columns]
    return [width * weight / sum(weights) for weight in weights]


def _length(cell: Cell | None) -> int:
    return len(_text(cell)) if cell is not None and cell.columns == 1 else 0


def _highest(grid: list[list[Cell | None]], widths: list[float]) -> float:
    """The height of the highest cell, roughly, in points."""
    return max(_height(cell, widths[index]) for row in grid for index, cell in enumerate(row))


def _height(cell: Cell | None, width: float) -> float:
    style = _style("cell")
    per_line = max((width - 12) / (style.fontSize * 0.62), 1)
    lengths = [len(_block_text(block)) for block in cell.blocks] if cell else []
    return sum((length // per_line + 2) * style.leading for length in lengths)


def _grid_flowable(grid: list[list[Cell | None]], widths: list[float], heading_rows: int) -> Flowable:
    """Cells that span rows are not joined, only left empty below: joined ones could not be split over pages."""
    style: list[Any] = [
        ("GRID", (0, 0), (-1, -1), 0.5, _RULE),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("TOPPADDING", (0, 0), (-1, -1), 2),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
    ]
    content: list[list[Any]] = []
    for row_index, row in enumerate(grid):
        content.append([_cell(cell, widths[index]) for index, cell in enumerate(row)])
        for index, cell in enumerate(row):
            if cell is not None and cell.heading:
                style.append(("BACKGROUND", (index, row_index), (index, row_index), _SHADE))
            if cell is not None and cell.columns > 1:
                style.append(("SPAN", (index, row_index), (index + cell.columns - 1, row_index)))
    repeated = heading_rows if heading_rows < min(len(grid), 4) else 0
    return TableFlowable(content, colWidths=widths, repeatRows=repeated, style=style)


def _cell(cell: Cell | None, width: float) -> list[Flowable]:
    if cell is None:
        return []
    style = _style("heading cell" if cell.heading else "cell")
    return [flowable for block in cell.blocks for flowable in _block(block, style, width - 12)]


def _text(cell: Cell) -> str:
    return " ".join(_block_text(block) for block in cell.blocks)


def _block_text(block: Block) -> str:
    match block:
        case Paragraph():
            return "".join(run.text for run in block.runs)
        case Preformatted():
            return block.text
        case Listing():
            return " ".join(_block_text(inner) for item in block.items for inner in item)
        case Table():
            return " ".join(_text(cell) for row in block.rows for cell in row)
