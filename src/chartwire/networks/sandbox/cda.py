"""Small parts that CDA documents are built from: elements, codes, ids, times, narrative tables."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime

from lxml import etree

from chartwire.networks.sandbox.records import Code
from chartwire.networks.sandbox.terms import SYSTEMS

HL7 = "urn:hl7-org:v3"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
_PREFIXES: dict[str | None, str] = {None: HL7, "xsi": XSI}

OID = "2.999.3161"
"""The sandbox's arc, under the arc that is reserved for examples."""


def element(tag: str, *content: "str | etree._Element | None", **attributes: str) -> "etree._Element":
    """A CDA element; content that is None is left out, `xsi_type` is the attribute `xsi:type`."""
    made = etree.Element(f"{{{HL7}}}{tag}", nsmap=_PREFIXES)  # type: ignore[arg-type]  # None is the default prefix
    for key, value in attributes.items():
        made.set(f"{{{XSI}}}type" if key == "xsi_type" else key, value)
    for part in content:
        _append(made, part)
    return made


def _append(parent: "etree._Element", part: "str | etree._Element | None") -> None:
    if part is None:
        return
    if not isinstance(part, str):
        parent.append(part)
    elif len(parent):
        parent[-1].tail = (parent[-1].tail or "") + part
    else:
        parent.text = (parent.text or "") + part


def write(root: "etree._Element") -> bytes:
    """The document's bytes."""
    etree.cleanup_namespaces(root, keep_ns_prefixes=["xsi"])
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=True)


def template(root: str, extension: str | None = None) -> "etree._Element":
    """A templateId. A `root` of few arcs, such as `4.7`, stands under C-CDA's own."""
    full = root if root.count(".") > 3 else f"2.16.840.1.113883.10.20.22.{root}"
    return element("templateId", root=full, **({"extension": extension} if extension else {}))


def coded(tag: str, code: Code, *content: "str | etree._Element | None", **attributes: str) -> "etree._Element":
    """A code with its system, both by object identifier and by name."""
    system, name = SYSTEMS[code.system]
    parts = {"code": code.code, "codeSystem": system, "codeSystemName": name, "displayName": code.display}
    return element(tag, *content, **attributes, **parts)


def identifier(arc: str, extension: str | None = None, tag: str = "id") -> "etree._Element":
    """An id under the sandbox's arc."""
    return element(tag, root=f"{OID}.{arc}", **({"extension": extension} if extension else {}))


def status(code: str) -> "etree._Element":
    """A statusCode."""
    return element("statusCode", code=code)


def stamp(moment: date | datetime) -> str:
    """HL7's spelling of a day, or of a minute with its offset."""
    return moment.strftime("%Y%m%d%H%M%z" if isinstance(moment, datetime) else "%Y%m%d")


def at(moment: date | datetime) -> "etree._Element":
    """An effectiveTime that is a moment."""
    return element("effectiveTime", value=stamp(moment))


def between(low: date | datetime, high: date | datetime | None, **attributes: str) -> "etree._Element":
    """An effectiveTime from `low` on, to `high` if it has ended."""
    end = element("high", value=stamp(high)) if high is not None else None
    return element("effectiveTime", element("low", value=stamp(low)), end, **attributes)


def text_at(anchor: str, tag: str = "text") -> "etree._Element":
    """A pointer to the narrative with the ID `anchor`."""
    return element(tag, element("reference", value=f"#{anchor}"))


def quantity(tag: str, value: str, unit: str, **attributes: str) -> "etree._Element":
    """A number with its UCUM unit."""
    return element(tag, value=value, unit=unit, **attributes)


def linked(kind: str, *content: "etree._Element | None", **attributes: str) -> "etree._Element":
    """An entryRelationship."""
    return element("entryRelationship", *content, typeCode=kind, **attributes)


def table(headings: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> "etree._Element":
    """A narrative table; each row comes with its ID."""
    head = element("thead", element("tr", *[element("th", heading) for heading in headings]))
    body = [element("tr", *[element("td", cell) for cell in cells], ID=anchor) for anchor, cells in rows]
    return element("table", head, element("tbody", *body), border="1", width="100%")


def day(moment: date | datetime | None) -> str:
    """A date as the narrative writes it."""
    return f"{moment:%B} {moment.day}, {moment.year}" if moment is not None else ""


_UNITS = {"Cel": "°C", "mm[Hg]": "mmHg", "kg/m2": "kg/m²", "{score}": "", "mL/min/{1.73_m2}": "mL/min/1.73 m²"}


def shown_unit(unit: str) -> str:
    """A UCUM unit as readers know it."""
    return _UNITS.get(unit, unit)
