"""Recognises C-CDA documents by their header (HL7 C-CDA R2.1; CDA R2 §4.2)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from lxml import etree

from chartwire.formats.safe_xml import parse_start, parse_xml
from chartwire.model.document import CodeableConcept, Coding, normalise_identifier
from chartwire.model.matching import Stated
from chartwire.model.registry import Gender

HL7 = "{urn:hl7-org:v3}"
_ROOT = f"{HL7}ClinicalDocument"
_MAX_TEXT = 4096  # characters
_MAX_CODINGS = 20
LOINC_OID = "2.16.840.1.113883.6.1"
LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"

_SYSTEMS = {LOINC_OID: LOINC, "2.16.840.1.113883.6.96": SNOMED}
_TEMPLATE_ROOT = "2.16.840.1.113883.10.20.22.1."
_GENDERS = {"F": Gender.F, "M": Gender.M}
_FULL_DATE = len("YYYYMMDD")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TIME = re.compile(r"(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:\.\d+)?([+-]\d{4}|Z)?")


@dataclass(frozen=True, slots=True)
class CcdaKind:
    """A document template of C-CDA: its number under 2.16.840.1.113883.10.20.22.1 and the types it goes by."""

    template: int
    name: str
    loinc: str | None
    snomed: Coding | None = None


def _kind(template: int, name: str, loinc: str | None, snomed: str, artifact: str) -> CcdaKind:
    return CcdaKind(template, name, loinc, Coding(SNOMED, snomed, artifact))


CCD = _kind(2, "Summarization of Episode Note", "34133-9", "422735006", "Summary clinical document")
HISTORY_AND_PHYSICAL = _kind(3, "History and physical note", "34117-2", "371529009", "History and physical report")
CONSULTATION_NOTE = _kind(4, "Consult note", "11488-4", "371530004", "Clinical consultation report")
IMAGING_REPORT = _kind(5, "Diagnostic imaging study", "18748-4", "371527006", "Radiology report")
PROCEDURE_NOTE = _kind(6, "Procedure note", "28570-0", "371525003", "Clinical procedure report")
OPERATIVE_NOTE = _kind(7, "Surgical operation note", "11504-8", "371526002", "Operative report")
DISCHARGE_SUMMARY = _kind(8, "Discharge summary", "18842-5", "373942005", "Discharge summary")
PROGRESS_NOTE = _kind(9, "Progress note", "11506-3", "371532007", "Progress report")
UNSTRUCTURED = CcdaKind(10, "Unstructured document", None)
TRANSFER_SUMMARY = _kind(13, "Transfer summary note", "18761-7", "371535009", "Transfer summary report")
REFERRAL_NOTE = _kind(14, "Referral note", "57133-1", "721927009", "Referral note")
CARE_PLAN = _kind(15, "Care plan", "52521-2", "734163000", "Care plan")

KINDS = (
    *(CCD, HISTORY_AND_PHYSICAL, CONSULTATION_NOTE, IMAGING_REPORT, PROCEDURE_NOTE, OPERATIVE_NOTE),
    *(DISCHARGE_SUMMARY, PROGRESS_NOTE, UNSTRUCTURED, TRANSFER_SUMMARY, REFERRAL_NOTE, CARE_PLAN),
)
_BY_TEMPLATE = {f"{_TEMPLATE_ROOT}{kind.template}": kind for kind in KINDS}
_BY_LOINC = {kind.loinc: kind for kind in KINDS if kind.loinc}


@dataclass(frozen=True, slots=True)
class CcdaHeader:
    """What a document says of itself.

    `kind` is None for a CDA document of no C-CDA kind. `type` holds the kind's LOINC and SNOMED codings and the
    document's own. Identifiers are master identifiers (`root^extension` or `root`), normalised. `effective_time` has
    the document's precision: a time without an offset is cut to its date, at midnight UTC.
    """

    kind: CcdaKind | None
    type: CodeableConcept
    title: str | None = None
    master_identifier: str | None = None
    set_id: str | None = None
    version: int | None = None
    replaces: tuple[str, ...] = ()
    effective_time: datetime | None = None
    confidentiality: str | None = None
    patient: Stated | None = None


def recognise(xml: bytes) -> CcdaHeader | None:
    """The header of a CDA document, C-CDA or not; None if the bytes are not one. Never raises."""
    root = parse_clinical_document(xml)
    return None if root is None else read_header(root)


def recognise_start(xml: bytes) -> CcdaHeader | None:
    """The header of a CDA document of which only the beginning is given, or all; see `recognise`.

    However long the body is, it need not be read: it may be large, and it may be made to be costly.
    """
    root = parse_start(xml, until=f"{HL7}component")
    if root is None:
        return recognise(xml)
    return read_header(root) if root.tag == _ROOT else None


def parse_clinical_document(xml: bytes) -> "etree._Element | None":
    """The root of a CDA document, None if the bytes are not one."""
    root = parse_xml(xml)
    return root if root is not None and root.tag == _ROOT else None


def plain_text(element: "etree._Element | None") -> str | None:
    """All text within, blanks collapsed; None if there is none."""
    if element is None:
        return None
    return " ".join("".join(map(str, element.itertext())).split()) or None


def parse_time(value: str | None) -> datetime | None:
    """An HL7 timestamp (`YYYYMMDDhhmmss+hhmm`, cut anywhere) in UTC; without an offset its date at midnight UTC."""
    match = _TIME.fullmatch((value or "").strip())
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) if part else None for part in match.groups()[:6])
    zone = _zone(match.group(7))
    try:
        if zone is None or hour is None:
            return datetime(year or 0, month or 1, day or 1, tzinfo=UTC)
        return datetime(year or 0, month or 1, day or 1, hour, minute or 0, second or 0, tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):  # the 31st of February; the year 0; a leap second
        return None


def identifier(element: "etree._Element | None") -> str | None:
    """An II (`root` and `extension`) as a normalised master identifier, None without a root."""
    root = "" if element is None else element.get("root", "").strip()
    if element is None or not root:
        return None
    bare = normalise_identifier(root)
    bare = bare.lower() if _UUID.fullmatch(bare) else bare
    extension = element.get("extension", "").strip()
    return f"{bare}^{extension}" if extension else bare


def read_header(root: "etree._Element") -> CcdaHeader:
    """The header of a document that `parse_clinical_document` gave."""
    kind = _kind_of(root)
    version = (_value(root, "versionNumber") or "").strip()
    return CcdaHeader(
        kind=kind,
        type=_type(root, kind),
        title=plain_text(root.find(f"{HL7}title")),
        master_identifier=identifier(root.find(f"{HL7}id")),
        set_id=identifier(root.find(f"{HL7}setId")),
        version=int(version) if version.isascii() and version.isdigit() and len(version) < 10 else None,
        replaces=tuple(_replaced(root)),
        effective_time=parse_time(_value(root, "effectiveTime")),
        confidentiality=_value(root, "confidentialityCode", "code"),
        patient=_patient(root),
    )


def _patient(root: "etree._Element") -> Stated | None:
    """Of whom the document is (CDA R2 §4.2.2.11); None if it names nobody, or several."""
    roles = root.findall(f"{HL7}recordTarget/{HL7}patientRole/{HL7}patient")
    if len(roles) != 1:
        return None
    (patient,) = roles
    born = _value(patient, "birthTime") or ""
    moment = parse_time(born[:8]) if len(born) >= _FULL_DATE else None
    return Stated(
        family_name=_names(patient, "family"),
        given_names=_names(patient, "given"),
        dob=None if moment is None else moment.date(),
        gender=_GENDERS.get(_value(patient, "administrativeGenderCode", "code") or ""),
    )


def _names(patient: "etree._Element", part: str) -> str:
    found = (plain_text(element) for element in patient.iterfind(f"{HL7}name/{HL7}{part}"))
    return " ".join(name for name in found if name)[:_MAX_TEXT]


def _kind_of(root: "etree._Element") -> CcdaKind | None:
    templates = (element.get("root", "").strip() for element in root.findall(f"{HL7}templateId"))
    by_template = next((_BY_TEMPLATE[template] for template in templates if template in _BY_TEMPLATE), None)
    return by_template or _BY_LOINC.get(_value(root, "code", "code") or "")


def _type(root: "etree._Element", kind: CcdaKind | None) -> CodeableConcept:
    """The kind's LOINC code first (a document's own may be mistyped), then what the document says, then SNOMED."""
    code = root.find(f"{HL7}code")
    elements = [] if code is None else [code, *code.findall(f"{HL7}translation")]
    codings = [coding for element in elements[:_MAX_CODINGS] if (coding := _coding(element)) is not None]
    if kind is not None and kind.loinc:
        codings = [coding for coding in codings if (coding.system, coding.code) != (LOINC, kind.loinc)]
        codings.insert(0, Coding(LOINC, kind.loinc, kind.name))
    if kind is not None and kind.snomed is not None and kind.snomed.code not in [coding.code for coding in codings]:
        codings.append(kind.snomed)
    display = codings[0].display if codings else None
    return CodeableConcept(tuple(codings), (kind.name if kind else None) or display)


def _coding(element: "etree._Element") -> Coding | None:
    code = element.get("code", "").strip()[:_MAX_TEXT]
    if not code:
        return None
    oid = element.get("codeSystem", "").strip()[:_MAX_TEXT]
    system = _SYSTEMS.get(oid, f"urn:oid:{oid}" if oid else None)
    display = element.get("displayName")
    return Coding(system, code, None if display is None else display[:_MAX_TEXT])


def _replaced(root: "etree._Element") -> Iterator[str]:
    for related in root.findall(f"{HL7}relatedDocument"):
        if related.get("typeCode") == "RPLC":
            for element in related.findall(f"{HL7}parentDocument/{HL7}id"):
                if (replaced := identifier(element)) is not None:
                    yield replaced


def _value(root: "etree._Element", name: str, attribute: str = "value") -> str | None:
    element = root.find(f"{HL7}{name}")
    return None if element is None else element.get(attribute) or None


def _zone(text: str | None) -> timezone | None:
    if text is None:
        return None
    if text == "Z":
        return UTC
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:5]))
    return timezone(-offset if text[0] == "-" else offset) if offset < timedelta(days=1) else None
