"""A CDA document as a reader sees it: title, who and when, sections. What the HTML and the PDF are made from."""

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pybase64
from lxml import etree

from chartwire.errors import CcdaError
from chartwire.formats.ccda import HL7, parse_clinical_document, plain_text, read_header
from chartwire.formats.ccda_narrative import Paragraph, Preformatted, Run, Section, Style, read_section, squeeze

_SECTIONS = f"{HL7}component/{HL7}structuredBody/{HL7}component/{HL7}section"
_GENDERS = {"F": "Female", "M": "Male", "UN": "Undifferentiated"}
_TIME = re.compile(r"(\d{4})(\d\d)?(\d\d)?(?:(\d\d)(\d\d))?(?:\d\d)?(?:\.\d+)?([+-]\d\d)?(\d\d)?")


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of the header, such as "Date of birth" and the date."""

    label: str
    value: str


@dataclass(frozen=True, slots=True)
class ReadableDocument:
    """A document ready to be laid out; a body that is not XML is a single section without title."""

    title: str
    facts: tuple[Fact, ...]
    sections: tuple[Section, ...]


def read_document(xml: bytes) -> ReadableDocument:
    """Raises `CcdaError` if the bytes are not a CDA document."""
    root = parse_clinical_document(xml)
    if root is None:
        raise CcdaError
    header = read_header(root)
    sections = [read_section(section) for section in root.iterfind(_SECTIONS)]
    other = [_other_body(body) for body in root.iterfind(f"{HL7}component/{HL7}nonXMLBody/{HL7}text")]
    return ReadableDocument(
        title=header.title or header.type.text or "Clinical document",
        facts=tuple(Fact(label, value) for label, value in _facts(root) if value),
        sections=(*sections, *other),
    )


def _facts(root: "etree._Element") -> Iterator[tuple[str, str | None]]:
    for role in root.iterfind(f"{HL7}recordTarget/{HL7}patientRole"):
        yield "Patient", _name(role.find(f"{HL7}patient"))
        yield "Date of birth", _time(role.find(f"{HL7}patient/{HL7}birthTime"))
        yield "Sex", _gender(role.find(f"{HL7}patient/{HL7}administrativeGenderCode"))
        yield "Address", _address(role.find(f"{HL7}addr"))
        yield (
            "Patient ids",
            ", ".join(id_.get("extension", "") for id_ in role.iterfind(f"{HL7}id") if id_.get("extension")),
        )
    yield "Date", _time(root.find(f"{HL7}effectiveTime"))
    yield "Encounter", _period(root.find(f"{HL7}componentOf/{HL7}encompassingEncounter/{HL7}effectiveTime"))
    yield "Author", "; ".join(_authors(root))
    yield "Signed by", _name(root.find(f"{HL7}legalAuthenticator/{HL7}assignedEntity/{HL7}assignedPerson"))
    yield (
        "Kept by",
        plain_text(root.find(f"{HL7}custodian/{HL7}assignedCustodian/{HL7}representedCustodianOrganization/{HL7}name")),
    )


def _authors(root: "etree._Element") -> Iterator[str]:
    for author in root.iterfind(f"{HL7}author/{HL7}assignedAuthor"):
        person = _name(author.find(f"{HL7}assignedPerson"))
        device = plain_text(author.find(f"{HL7}assignedAuthoringDevice/{HL7}softwareName"))
        organization = plain_text(author.find(f"{HL7}representedOrganization/{HL7}name"))
        if shown := ", ".join(part for part in (person or device, organization) if part):
            yield shown


def _name(person: "etree._Element | None") -> str | None:
    """The first name of a person, or the one marked legal, its parts in the order they are written."""
    names = [] if person is None else person.findall(f"{HL7}name")
    chosen = next((name for name in names if name.get("use") == "L"), names[0] if names else None)
    return None if chosen is None else squeeze(" ".join(map(str, chosen.itertext()))) or None


def _address(address: "etree._Element | None") -> str | None:
    parts = [] if address is None else [squeeze("".join(map(str, part.itertext()))) for part in address]
    return ", ".join(part for part in parts if part) or plain_text(address)


def _gender(code: "etree._Element | None") -> str | None:
    if code is None:
        return None
    return _GENDERS.get(code.get("code", "")) or code.get("displayName")


def _time(element: "etree._Element | None") -> str | None:
    return None if element is None else show_time(element.get("value", ""))


def _period(element: "etree._Element | None") -> str | None:
    if element is None:
        return None
    ends = [_time(element.find(f"{HL7}{end}")) for end in ("low", "high")]
    return " to ".join(end for end in ends if end) or _time(element)


def show_time(value: str) -> str | None:
    """An HL7 timestamp as `2025-03-01 09:30 UTC-05:00`, with no more precision than it has; as it is if it is none."""
    match = _TIME.fullmatch(value.strip())
    if match is None:
        return value.strip() or None
    year, month, day, hour, minute, zone, zone_minutes = match.groups()
    shown = "-".join(part for part in (year, month, day) if part)
    if hour is not None:
        shown += f" {hour}:{minute}"
    if hour is not None and zone is not None:
        shown += f" UTC{zone}:{zone_minutes or '00'}"
    return shown


def _other_body(text: "etree._Element") -> Section:
    """A nonXMLBody: text is shown, another file is named."""
    media_type = text.get("mediaType", "").strip().lower()
    reference = text.find(f"{HL7}reference")
    if reference is not None:
        return _note(f"The content of this document ({media_type or 'a file'}) is kept elsewhere and not part of it.")
    if text.get("representation") != "B64":
        return Section(None, (Preformatted("".join(map(str, text.itertext())).strip("\r\n")),))
    try:
        content = pybase64.b64decode(b"".join("".join(map(str, text.itertext())).encode().split()), validate=True)
    except (binascii.Error, ValueError):
        return _note("The content of this document cannot be read.")
    if media_type.startswith("text/plain"):
        return Section(None, (Preformatted(_printable(content)),))
    described = f"{media_type or 'type unknown'}, {len(content):,} bytes"
    return _note(f"The content of this document is a file embedded in it: {described}.")


def _printable(content: bytes) -> str:
    """Text without the control characters that neither HTML nor PDF can hold."""
    text = content.decode("utf-8", errors="replace").removeprefix("\ufeff")
    return "".join(character for character in text if character in "\n\t" or ord(character) >= 32)


def _note(text: str) -> Section:
    return Section(None, (Paragraph((Run(text, frozenset({Style.ITALIC})),)),))
