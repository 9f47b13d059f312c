"""The C-CDA R2.1 documents of a chart: header and body."""

from dataclasses import dataclass
from datetime import date, datetime

from lxml import etree

from chartwire.formats.ccda import CCD, CONSULTATION_NOTE, DISCHARGE_SUMMARY, PROGRESS_NOTE, CcdaKind
from chartwire.networks.sandbox import ccda_sections as sections
from chartwire.networks.sandbox.ccda_people import address, assigned
from chartwire.networks.sandbox.cda import OID, between, coded, element, identifier, stamp, template, write
from chartwire.networks.sandbox.records import Chart, Clinician, Code, Consultation, Encounter, HospitalStay
from chartwire.networks.sandbox.view import as_of, on_day

_NORMAL = Code("confidentiality", "N", "Normal")
_HOME = Code("discharge", "01", "Discharged to home or self care (routine discharge)")
_GENDERS = {"F": "Female", "M": "Male"}


@dataclass(frozen=True, slots=True)
class Header:
    """What the headers of a chart's documents differ in.

    `replaces` is the id of the version before, as an arc under the sandbox's OID.
    """

    kind: CcdaKind
    title: str
    made: datetime
    author: Clinician
    encounter: Encounter | None = None
    replaces: str | None = None


def summary(chart: Chart) -> bytes:
    """The Continuity of Care Document: everything, as of the day it was made."""
    view = as_of(chart, chart.summarised.date())
    return _document(
        view,
        Header(CCD, "Continuity of Care Document", chart.summarised, chart.clinician),
        [
            sections.allergies(view),
            sections.medications(view),
            sections.problems(view),
            sections.procedures(view),
            sections.results(view),
            sections.vital_signs(view),
            sections.immunizations(view),
            sections.encounters(view),
            sections.social_history(view),
            sections.plan(view, chart.visit.plans),
        ],
    )


def progress_note(chart: Chart, replaces: str) -> bytes:
    """The note of the last office visit; it replaces the unsigned summary that was given to the patient."""
    note = chart.visit
    view = on_day(chart, note.encounter.start.date())
    return _document(
        view,
        Header(PROGRESS_NOTE, "Progress Note", note.signed, note.encounter.clinician, note.encounter, replaces),
        [
            sections.section(sections.SUBJECTIVE, note.subjective),
            sections.section(sections.OBJECTIVE, note.objective),
            sections.allergies(view),
            sections.medications(view),
            sections.problems(view),
            sections.results(view),
            sections.vital_signs(view),
            sections.section(sections.ASSESSMENT, note.assessment),
            sections.plan(view, note.plans),
        ],
    )


def consultation_note(chart: Chart, note: Consultation) -> bytes:
    """A specialist's answer to a referral."""
    view = on_day(chart, note.encounter.start.date())
    return _document(
        view,
        Header(CONSULTATION_NOTE, "Consultation Note", note.signed, note.encounter.clinician, note.encounter),
        [
            sections.section(sections.REFERRAL, note.referral),
            sections.section(sections.PRESENT_ILLNESS, note.history),
            sections.section(sections.EXAMINATION, note.examination),
            sections.allergies(view),
            sections.medications(view),
            sections.problems(view),
            sections.results(view),
            sections.vital_signs(view),
            sections.section(sections.ASSESSMENT, note.assessment),
            sections.plan(view, note.plans),
        ],
    )


def discharge_summary(chart: Chart, stay: HospitalStay) -> bytes:
    """The story of a hospital stay, told at its end."""
    view = as_of(chart, stay.encounter.end.date())
    return _document(
        view,
        Header(DISCHARGE_SUMMARY, "Discharge Summary", stay.signed, stay.encounter.clinician, stay.encounter),
        [
            sections.allergies(view),
            sections.section(sections.HOSPITAL_COURSE, stay.course),
            sections.discharge_diagnosis(view, stay.encounter.diagnoses),
            sections.discharge_medications(view, stay.discharge_medications),
            sections.problems(view),
            sections.procedures(view),
            sections.section(sections.DISCHARGE_INSTRUCTIONS, stay.instructions),
            sections.plan(view, stay.plans),
        ],
    )


def other_note(chart: Chart) -> bytes:
    """The consultation note or discharge summary of the chart."""
    note = chart.other
    return consultation_note(chart, note) if isinstance(note, Consultation) else discharge_summary(chart, note)


def document_id(chart: Chart, kind: CcdaKind) -> tuple[str, str]:
    """Root (an arc under the sandbox's OID) and extension of the chart's document of that kind."""
    return f"3.{chart.number}", f"{kind.loinc}-1"


def master_identifier(chart: Chart, kind: CcdaKind) -> str:
    """The same as health networks write it."""
    arc, extension = document_id(chart, kind)
    return f"{OID}.{arc}^{extension}"


def _document(chart: Chart, header: Header, body: list["etree._Element"]) -> bytes:
    root = element("ClinicalDocument")
    root.extend(_identity(chart, header))
    root.append(_record_target(chart))
    root.append(element("author", element("time", value=stamp(header.made)), assigned("assignedAuthor", header.author)))
    root.append(_custodian(header.author))
    root.append(_signature(header))
    if header.kind == CONSULTATION_NOTE:
        root.append(_order(chart))
    root.append(_service(chart, header))
    if header.replaces is not None:
        parent = element("parentDocument", identifier(header.replaces), _set_id(chart, header), _version("1"))
        root.append(element("relatedDocument", parent, typeCode="RPLC"))
    if header.encounter is not None:
        root.append(_encompassing(chart, header.encounter, header.kind))
    root.append(element("component", element("structuredBody", *body)))
    return write(root)


def _identity(chart: Chart, header: Header) -> list["etree._Element"]:
    loinc = Code("loinc", header.kind.loinc or "", header.kind.name)
    return [
        element("realmCode", code="US"),
        element("typeId", root="2.16.840.1.113883.1.3", extension="POCD_HD000040"),
        template("1.1", "2015-08-01"),
        template(f"1.{header.kind.template}", "2015-08-01"),
        identifier(*document_id(chart, header.kind)),
        coded("code", loinc),
        element("title", f"{header.title}: {chart.name}"),
        element("effectiveTime", value=stamp(header.made)),
        coded("confidentialityCode", _NORMAL),
        element("languageCode", code="en-US"),
        _set_id(chart, header),
        _version("2" if header.replaces is not None else "1"),
    ]


def _set_id(chart: Chart, header: Header) -> "etree._Element":
    return identifier(f"3.{chart.number}.1", header.kind.loinc, tag="setId")


def _version(number: str) -> "etree._Element":
    return element("versionNumber", value=number)


def _record_target(chart: Chart) -> "etree._Element":
    person = chart.demographics
    home = person.address[0]
    numbers = [contact.phone for contact in person.contact if contact.phone]
    role = element(
        "patientRole",
        identifier("1", f"{chart.number:06d}"),
        element(
            "addr",
            element("streetAddressLine", home.address_line1),
            element("city", home.city),
            element("state", home.state),
            element("postalCode", home.zip),
            element("country", "US"),
            use="HP",
        ),
        *[element("telecom", use="HP", value=f"tel:+1{number}") for number in numbers],
        _patient(chart),
        _provider(chart.clinician),
    )
    return element("recordTarget", role)


def _patient(chart: Chart) -> "etree._Element":
    person = chart.demographics
    sex = person.gender_at_birth.value
    language = element(
        "languageCommunication", element("languageCode", code="en"), element("preferenceInd", value="true")
    )
    return element(
        "patient",
        element("name", element("given", person.first_name), element("family", person.last_name), use="L"),
        coded("administrativeGenderCode", Code("gender", sex, _GENDERS[sex])),
        element("birthTime", value=stamp(person.dob)),
        coded("maritalStatusCode", chart.marital_status),
        coded("raceCode", chart.race),
        coded("ethnicGroupCode", chart.ethnicity),
        language,
    )


def _provider(clinician: Clinician) -> "etree._Element":
    organization = clinician.organization
    return element(
        "providerOrganization",
        identifier(f"2.{organization.number}"),
        element("name", organization.name),
        element("telecom", use="WP", value=f"tel:{organization.phone}"),
        address(organization),
    )


def _custodian(author: Clinician) -> "etree._Element":
    organization = author.organization
    represented = element(
        "representedCustodianOrganization",
        identifier(f"2.{organization.number}"),
        element("name", organization.name),
        element("telecom", use="WP", value=f"tel:{organization.phone}"),
        address(organization),
    )
    return element("custodian", element("assignedCustodian", represented))


def _signature(header: Header) -> "etree._Element":
    return element(
        "legalAuthenticator",
        element("time", value=stamp(header.made)),
        element("signatureCode", code="S"),
        assigned("assignedEntity", header.author),
    )


def _order(chart: Chart) -> "etree._Element":
    """The referral that a consultation answers."""
    return element("inFulfillmentOf", element("order", identifier(f"6.{chart.number}", "referral-1")))


def _service(chart: Chart, header: Header) -> "etree._Element":
    """What care the document is about: all of it for a summary, the encounter for a note."""
    encounter = header.encounter
    first: date | datetime = encounter.start if encounter else min(problem.onset for problem in chart.problems)
    performer = element(
        "performer",
        coded("functionCode", Code("function", "PCP", "primary care physician")) if encounter is None else None,
        assigned("assignedEntity", header.author),
        typeCode="PRF",
    )
    event = element(
        "serviceEvent",
        template("2.16.840.1.113883.10.20.21.3.1") if header.kind == PROGRESS_NOTE else None,
        between(first, encounter.end if encounter else header.made),
        performer,
        classCode="PCPR",
    )
    return element("documentationOf", event)


def _encompassing(chart: Chart, encounter: Encounter, kind: CcdaKind) -> "etree._Element":
    responsible = element("responsibleParty", assigned("assignedEntity", encounter.clinician))
    organization = encounter.clinician.organization
    facility = element(
        "healthCareFacility",
        identifier(f"2.{organization.number}"),
        coded("code", organization.kind),
        element("location", element("name", organization.name), address(organization)),
    )
    return element(
        "componentOf",
        element(
            "encompassingEncounter",
            identifier(f"1.{chart.number}", f"encounter-{encounter.key}"),
            coded("code", encounter.code),
            between(encounter.start, encounter.end),
            coded("dischargeDispositionCode", _HOME) if kind == DISCHARGE_SUMMARY else None,
            responsible,
            element("location", facility),
        ),
    )
