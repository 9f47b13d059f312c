"""The pictures of a chart, drawn: a scanned pathology report and a photograph."""

import io
import math
import random
import textwrap

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from chartwire.networks.sandbox.cda import day
from chartwire.networks.sandbox.records import Chart

_PAGE = (1700, 2200)  # letter size at 200 dots per inch, as fax machines and scanners make
_PHOTO = (960, 720)


def pathology_report(chart: Chart) -> bytes:
    """The report as a fax of one page: a bilevel TIFF in many strips."""
    page = Image.new("1", _PAGE, 1)
    draw = ImageDraw.Draw(page)
    organization = chart.pathology.pathologist.organization
    draw.text((150, 140), organization.name, font=_font(56), fill=0)
    draw.text((150, 215), f"{organization.street}, {organization.city}, {organization.state}", font=_font(32), fill=0)
    draw.line((150, 275, _PAGE[0] - 150, 275), fill=0, width=4)
    top = 330
    for label, text in _pathology_lines(chart):
        draw.text((150, top), label, font=_font(34), fill=0)
        for line in textwrap.wrap(text, 62):
            draw.text((520, top), line, font=_font(34), fill=0)
            top += 50
        top += 26
    buffer = io.BytesIO()
    page.save(buffer, "TIFF", compression="group4", dpi=(200, 200))
    return buffer.getvalue()


def photograph(chart: Chart) -> bytes:
    """The photograph as a JPEG."""
    picture = _retina(chart) if chart.photograph.subject == "retina" else _insurance_card(chart)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85, dpi=(200, 200))
    return buffer.getvalue()


def _pathology_lines(chart: Chart) -> list[tuple[str, str]]:
    report = chart.pathology
    return [
        ("PATHOLOGY REPORT", report.accession),
        ("Patient", f"{chart.name}, born {day(chart.demographics.dob)}"),
        ("Reported", f"{report.reported:%Y-%m-%d %H:%M}"),
        ("Specimen", report.specimen),
        ("Clinical history", report.history),
        ("Gross", report.gross),
        ("Microscopic", report.microscopic),
        ("DIAGNOSIS", report.diagnosis),
        ("Signed", report.pathologist.name),
    ]


def _insurance_card(chart: Chart) -> Image.Image:
    picture = Image.new("RGB", _PHOTO, "#6b5a48")  # a table top
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle((70, 120, 890, 620), 36, fill="#f4f7fb", outline="#cdd6e0", width=3)
    draw.rounded_rectangle((70, 120, 890, 230), 36, fill="#1f4e79", corners=(True, True, False, False))
    draw.text((110, 148), "Evergreen Health Plan", font=_font(50), fill="white")
    lines = (
        ("Member", chart.name.upper()),
        ("Member ID", f"EHP 0000 {chart.number:04d}"),
        ("Group", "SAMPLE-01"),
        ("Effective", "2024-01-01"),
    )
    for row, (label, value) in enumerate(lines):
        draw.text((110, 275 + row * 78), label, font=_font(26), fill="#5b6b7b")
        draw.text((330, 268 + row * 78), value, font=_font(38), fill="#1c2733")
    return picture.rotate(-2.5, Image.Resampling.BICUBIC, fillcolor="#6b5a48")


def _retina(chart: Chart) -> Image.Image:
    """An eye's background: disc, macula, branching vessels and a few dot hemorrhages."""
    source = random.Random(chart.number)  # noqa: S311  draws a picture, the same one each time
    picture = Image.new("RGB", _PHOTO, "black")
    draw = ImageDraw.Draw(picture)
    center = (_PHOTO[0] // 2, _PHOTO[1] // 2)
    for radius in range(340, 0, -4):
        shade = 1 - radius / 500
        draw.ellipse(_circle(center, radius), fill=(int(150 + 80 * shade), int(50 + 60 * shade), int(20 + 20 * shade)))
    disc = (center[0] + 170, center[1] - 10)
    for angle in (-2.4, -1.9, 1.9, 2.4, -0.9, 0.9):
        _vessel(draw, disc, angle, 11, 150, source)
    draw.ellipse(_circle((center[0] - 60, center[1]), 42), fill=(150, 58, 24))
    draw.ellipse(_circle(disc, 48), fill=(246, 206, 130))
    for _ in range(14):
        spot = (center[0] + source.randint(-220, 120), center[1] + source.randint(-200, 200))
        draw.ellipse(_circle(spot, source.randint(2, 5)), fill=(110, 14, 10))
    field = Image.new("L", _PHOTO, 0)
    ImageDraw.Draw(field).ellipse(_circle(center, 340), fill=255)
    seen = Image.composite(picture, Image.new("RGB", _PHOTO, "black"), field)
    return seen.filter(ImageFilter.GaussianBlur(1.6))


def _vessel(
    draw: ImageDraw.ImageDraw, start: tuple[float, float], angle: float, width: int, length: int, source: random.Random
) -> None:
    point = start
    for _ in range(length // 10):
        angle += source.uniform(-0.16, 0.16)
        following = (point[0] + 10 * math.cos(angle), point[1] + 10 * math.sin(angle))
        draw.line((*point, *following), fill=(124, 20, 14), width=width)
        point = following
    if width > 3:
        _vessel(draw, point, angle - 0.45, width - 3, int(length * 0.85), source)
        _vessel(draw, point, angle + 0.35, width - 3, int(length * 0.85), source)


def _circle(center: tuple[float, float], radius: int) -> tuple[float, float, float, float]:
    return (center[0] - radius, center[1] - radius, center[0] + radius, center[1] + radius)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
