"""The seven documents of each chart: what they are called, what they are, and how each is made."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TypedDict

from chartwire.formats.ccda import CCD, CONSULTATION_NOTE, DISCHARGE_SUMMARY, LOINC, PROGRESS_NOTE, SNOMED, CcdaKind
from chartwire.model.document import CodeableConcept, Coding, DocumentStatus
from chartwire.networks.sandbox import ccda_writer, images, reports
from chartwire.networks.sandbox.cda import OID
from chartwire.networks.sandbox.charts import chart_of
from chartwire.networks.sandbox.records import Chart, Clinician, Consultation

_LAB_REPORT = Coding(LOINC, "11502-2", "Laboratory report")
_OUTPATIENT_NOTE = Coding(LOINC, "34108-1", "Outpatient Note")
_ENCOUNTER_REPORT = Coding(SNOMED, "371531000", "Report of clinical encounter")
_PATHOLOGY_STUDY = Coding(LOINC, "11526-1", "Pathology study")
_PHOTOGRAPH = Coding(LOINC, "72170-4", "Photographic image")
_CCDA_FORMAT = Coding(
    "urn:oid:1.3.6.1.4.1.19376.1.2.3", "urn:hl7-org:sdwg:ccda-structuredBody:2.1", "C-CDA R2.1 structured body"
)


@dataclass(frozen=True, slots=True)
class SandboxDocument:
    """A document as the sandbox declares it. `name` is its key within the chart."""

    name: str
    title: str
    description: str
    mime_type: str
    types: tuple[Coding, ...]
    indexed: datetime
    master_identifier: str
    author: Clinician
    make: Callable[[Chart], bytes]
    status: DocumentStatus = DocumentStatus.CURRENT
    replaces: tuple[str, ...] = ()
    format: Coding | None = None
    period: tuple[datetime, datetime] | None = None

    @property
    def type(self) -> CodeableConcept:
        """The codings with the first one's display as text."""
        return CodeableConcept(self.types, self.types[0].display)


def documents_of(chart: Chart) -> tuple[SandboxDocument, ...]:
    """The seven documents, in the order in which they arrive."""
    return (
        _summary(chart),
        _laboratory_report(chart),
        _progress_note(chart),
        _visit_summary(chart),
        _photograph(chart),
        _other_note(chart),
        _pathology_report(chart),
    )


@lru_cache(maxsize=64)
def content(key: str, name: str) -> bytes:
    """The bytes of a document, made once; raises `KeyError` if there is none of that name."""
    chart = chart_of(key)
    documents = {document.name: document for document in documents_of(chart)} if chart else {}
    if chart is None or name not in documents:
        raise KeyError(name)
    return documents[name].make(chart)


def _summary(chart: Chart) -> SandboxDocument:
    first = min(problem.onset for problem in chart.problems)
    started = datetime.combine(first, datetime.min.time(), chart.summarised.tzinfo)
    return SandboxDocument(
        name="summary",
        title=f"{chart.demographics.first_name}{chart.demographics.last_name}.xml",
        description="C-CDA R2.1 Patient Record",
        indexed=chart.summarised,
        author=chart.clinician,
        make=ccda_writer.summary,
        period=(started, chart.summarised),
        **_ccda(chart, CCD),
    )


def _progress_note(chart: Chart) -> SandboxDocument:
    note = chart.visit
    replaced = _oid(chart, "visit-summary")
    return SandboxDocument(
        name="progress-note",
        title="ProgressNote.xml",
        description="Progress note",
        indexed=note.signed,
        author=note.encounter.clinician,
        make=lambda chart: ccda_writer.progress_note(chart, replaced.removeprefix(f"{OID}.")),
        replaces=(replaced,),
        period=(note.encounter.start, note.encounter.end),
        **_ccda(chart, PROGRESS_NOTE),
    )


def _other_note(chart: Chart) -> SandboxDocument:
    note = chart.other
    kind = CONSULTATION_NOTE if isinstance(note, Consultation) else DISCHARGE_SUMMARY
    return SandboxDocument(
        name="other-note",
        title="ConsultationNote.xml" if kind is CONSULTATION_NOTE else "DischargeSummary.xml",
        description=note.encounter.reason,
        indexed=note.signed,
        author=note.encounter.clinician,
        make=ccda_writer.other_note,
        period=(note.encounter.start, note.encounter.end),
        **_ccda(chart, kind),
    )


def _laboratory_report(chart: Chart) -> SandboxDocument:
    return SandboxDocument(
        name="laboratory-report",
        title="LaboratoryReport.pdf",
        description="Laboratory report",
        mime_type="application/pdf",
        types=(_LAB_REPORT,),
        indexed=chart.visit.signed,
        master_identifier=_oid(chart, "laboratory-report"),
        author=chart.clinician,
        make=reports.laboratory_report,
    )


def _visit_summary(chart: Chart) -> SandboxDocument:
    """The unsigned summary of the visit; the signed progress note has replaced it."""
    encounter = chart.visit.encounter
    return SandboxDocument(
        name="visit-summary",
        title="VisitSummary.pdf",
        description="Encounter",
        mime_type="application/pdf",
        types=(_OUTPATIENT_NOTE, _ENCOUNTER_REPORT),
        indexed=encounter.end,
        master_identifier=_oid(chart, "visit-summary"),
        author=encounter.clinician,
        make=reports.visit_summary,
        status=DocumentStatus.SUPERSEDED,
        period=(encounter.start, encounter.end),
    )


def _photograph(chart: Chart) -> SandboxDocument:
    return SandboxDocument(
        name="photograph",
        title="Photograph.jpeg",
        description=chart.photograph.title,
        mime_type="image/jpeg",
        types=(_PHOTOGRAPH,),
        indexed=chart.photograph.taken,
        master_identifier=_oid(chart, "photograph"),
        author=chart.clinician,
        make=images.photograph,
    )


def _pathology_report(chart: Chart) -> SandboxDocument:
    return SandboxDocument(
        name="pathology-report",
        title="PathologyReport.tif",
        description="Pathology Report",
        mime_type="image/tiff",
        types=(_PATHOLOGY_STUDY,),
        indexed=chart.pathology.reported,
        master_identifier=_oid(chart, "pathology-report"),
        author=chart.pathology.pathologist,
        make=images.pathology_report,
    )


class _Ccda(TypedDict):
    """What the kind of a C-CDA document says about it."""

    mime_type: str
    types: tuple[Coding, ...]
    master_identifier: str
    format: Coding


def _ccda(chart: Chart, kind: CcdaKind) -> _Ccda:
    codings = (Coding(LOINC, kind.loinc, kind.name), kind.snomed)
    return _Ccda(
        mime_type="application/xml",
        types=tuple(coding for coding in codings if coding is not None),
        master_identifier=ccda_writer.master_identifier(chart, kind),
        format=_CCDA_FORMAT,
    )


_ARCS = {"laboratory-report": 1, "visit-summary": 2, "photograph": 3, "pathology-report": 4}


def _oid(chart: Chart, name: str) -> str:
    return f"{OID}.4.{chart.number}.{_ARCS[name]}"
