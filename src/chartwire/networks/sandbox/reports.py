"""The PDF documents of a chart: a laboratory report and the summary that a patient takes home from a visit."""

import io
from collections.abc import Iterable
from functools import partial
from typing import Any
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.pagesizes import letter
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import inch
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table

from chartwire.networks.sandbox.ccda_sections import vital_values
from chartwire.networks.sandbox.cda import day, shown_unit
from chartwire.networks.sandbox.records import Chart, Organization, Panel
from chartwire.networks.sandbox.view import on_day

_INK = colors.HexColor("#1c2733")
_BLUE = colors.HexColor("#1f4e79")
_PALE = colors.HexColor("#e9eff5")
_BODY = ParagraphStyle("body", fontName="Helvetica", fontSize=9.5, leading=13, textColor=_INK, spaceAfter=6)
_CELL = ParagraphStyle("cell", _BODY, fontSize=8.5, leading=11, spaceAfter=0)
_TITLE = ParagraphStyle("title", _BODY, fontName="Helvetica-Bold", fontSize=17, leading=21, textColor=_BLUE)
_HEADING = ParagraphStyle(
    "heading", _BODY, fontName="Helvetica-Bold", fontSize=11, leading=15, textColor=_BLUE, spaceBefore=6
)
_GRID: list[Any] = [("GRID", (0, 0), (-1, -1), 0.4, colors.HexColor("#b9c6d3")), ("VALIGN", (0, 0), (-1, -1), "TOP")]
_MARGIN = 0.9 * inch
_WIDTH = letter[0] - 2 * _MARGIN


def laboratory_report(chart: Chart) -> bytes:
    """Results of the last visit, with reference ranges and flags."""
    view = on_day(chart, chart.visit.encounter.start.date())
    organization = chart.clinician.organization
    story = [
        Paragraph("Laboratory Report", _TITLE),
        _facts(
            ("Patient", chart.name),
            ("Date of birth", day(chart.demographics.dob)),
            ("Ordered by", chart.clinician.name),
            ("Collected", f"{view.panels[-1].taken:%Y-%m-%d %H:%M}"),
            ("Reported", f"{chart.visit.signed:%Y-%m-%d %H:%M}"),
            ("Status", "Final"),
        ),
    ]
    for panel in view.panels:
        story += [Spacer(0, 8), Paragraph(escape(panel.code.display), _HEADING), _results(panel)]
    story += [Spacer(0, 10), Paragraph("L: below, H: above the reference range.", _CELL)]
    return _build(story, "Laboratory Report", organization)


def visit_summary(chart: Chart) -> bytes:
    """What was said and decided at the last visit, before it was signed."""
    note = chart.visit
    view = on_day(chart, note.encounter.start.date())
    taken = [drug for drug in view.medications if drug.stopped is None]
    story = [
        Paragraph("Visit Summary", _TITLE),
        Paragraph("PRELIMINARY: not yet signed by the clinician.", _HEADING),
        _facts(
            ("Patient", chart.name),
            ("Date of birth", day(chart.demographics.dob)),
            ("Visit", f"{note.encounter.start:%Y-%m-%d %H:%M}, {note.encounter.reason}"),
            ("Clinician", note.encounter.clinician.name),
        ),
        *_part("What you told us", note.subjective),
        *_part("What we found", note.objective),
        Paragraph("Vital signs", _HEADING),
        _vital_signs(view),
        *_part("What we think", note.assessment),
        *_list("Your medications", (f"{drug.drug.display}: {drug.instructions}" for drug in taken)),
        *_list("What comes next", (f"{plan.text} ({day(plan.due)})" for plan in note.plans)),
    ]
    return _build(story, "Visit Summary", note.encounter.clinician.organization)


def _build(story: list[Flowable], title: str, organization: Organization) -> bytes:
    buffer = io.BytesIO()
    template = SimpleDocTemplate(
        buffer,
        pagesize=letter,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=1.2 * inch,
        bottomMargin=_MARGIN,
        title=title,
        author=organization.name,
        invariant=1,
    )
    head = partial(_letterhead, organization)
    template.build(story, onFirstPage=head, onLaterPages=head)
    return buffer.getvalue()


def _letterhead(organization: Organization, canvas: Any, _: object) -> None:
    top = letter[1] - 0.6 * inch
    canvas.setFillColor(_BLUE)
    canvas.setFont("Helvetica-Bold", 12)
    canvas.drawString(_MARGIN, top, organization.name)
    canvas.setFillColor(_INK)
    canvas.setFont("Helvetica", 8.5)
    where = f"{organization.street}, {organization.city}, {organization.state} {organization.zip}, {organization.phone}"
    canvas.drawString(_MARGIN, top - 13, where)
    canvas.setStrokeColor(_BLUE)
    canvas.line(_MARGIN, top - 20, letter[0] - _MARGIN, top - 20)
    canvas.drawRightString(letter[0] - _MARGIN, 0.5 * inch, f"Page {canvas.getPageNumber()}")


def _facts(*facts: tuple[str, str]) -> Flowable:
    rows = [[_cell(f"<b>{label}</b>"), _cell(escape(value))] for label, value in facts]
    return Table(rows, colWidths=[1.2 * inch, _WIDTH - 1.2 * inch], style=[("BACKGROUND", (0, 0), (-1, -1), _PALE)])


def _results(panel: Panel) -> Flowable:
    headings = ("Test", "Value", "Unit", "Reference range", "Flag")
    rows = [[_cell(f"<b>{heading}</b>") for heading in headings]]
    for result in panel.results:
        flag = "" if result.flag == "N" else result.flag
        value = f"<b>{result.value}</b>" if flag else result.value
        parts = (result.test.display, shown_unit(result.unit), result.range, flag)
        name, unit, expected, shown = (_cell(escape(part)) for part in parts)
        rows.append([name, _cell(value), unit, expected, shown])
    shares = (0.46, 0.11, 0.19, 0.16, 0.08)
    return Table(
        rows,
        colWidths=[_WIDTH * share for share in shares],
        repeatRows=1,
        style=[*_GRID, ("BACKGROUND", (0, 0), (-1, 0), _PALE)],
    )


def _vital_signs(chart: Chart) -> Flowable:
    rows = [
        [_cell(name), _cell(f"{value} {shown_unit(unit)}")] for _, value, unit, name in vital_values(chart.vitals[0])
    ]
    return Table(rows, colWidths=[2 * inch, 1.5 * inch], style=_GRID, hAlign="LEFT")


def _part(heading: str, text: str) -> list[Flowable]:
    return [Paragraph(heading, _HEADING), Paragraph(escape(text), _BODY)]


def _list(heading: str, lines: Iterable[str]) -> list[Flowable]:
    return [Paragraph(heading, _HEADING), *[Paragraph(f"• {escape(line)}", _BODY) for line in lines]]


def _cell(markup: str) -> Paragraph:
    return Paragraph(markup, _CELL)
