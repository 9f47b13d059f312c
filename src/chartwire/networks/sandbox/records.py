"""What the invented charts are made of. Every document of a patient is written from one `Chart`."""

from dataclasses import dataclass
from datetime import date, datetime

from chartwire.model.registry import Demographics


@dataclass(frozen=True, slots=True)
class Code:
    """A coded term; `system` is a key of `terms.SYSTEMS`."""

    system: str
    code: str
    display: str


@dataclass(frozen=True, slots=True)
class Organization:
    """Where care is given; `number` is its arc under the sandbox's OID."""

    number: int
    name: str
    street: str
    city: str
    state: str
    zip: str
    phone: str
    kind: Code = Code("hsloc", "1141-1", "Physician's Office")


@dataclass(frozen=True, slots=True)
class Clinician:
    """Who gives care. NPIs begin with 2, a range that no real clinician's is from."""

    npi: str
    given: str
    family: str
    suffix: str
    specialty: Code
    organization: Organization

    @property
    def name(self) -> str:
        """As it is signed."""
        return f"{self.given} {self.family}, {self.suffix}"


@dataclass(frozen=True, slots=True)
class Problem:
    """A diagnosis; `resolved` is None while it lasts."""

    code: Code
    icd10: Code
    onset: date
    resolved: date | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Medication:
    """A drug as prescribed: `dose` units every `hours`."""

    drug: Code
    dose: str
    hours: int
    instructions: str
    started: date
    reason: Problem
    stopped: date | None = None
    unit: str | None = None
    """UCUM unit of the dose; None for tablets, which are counted."""
    route: Code = Code("nci", "C38288", "ORAL")


@dataclass(frozen=True, slots=True)
class Allergy:
    """An intolerance, what it did and how badly."""

    substance: Code
    kind: Code
    reaction: Code
    severity: Code
    onset: date


@dataclass(frozen=True, slots=True)
class Result:
    """A measured value with its UCUM unit and reference range; a missing bound is None."""

    test: Code
    value: str
    unit: str
    low: str | None = None
    high: str | None = None

    @property
    def flag(self) -> str:
        """`L`, `H` or `N` by the reference range."""
        if self.low is not None and float(self.value) < float(self.low):
            return "L"
        return "H" if self.high is not None and float(self.value) > float(self.high) else "N"

    @property
    def range(self) -> str:
        """As reports print it."""
        if self.low is None:
            return f"<= {self.high}" if self.high is not None else ""
        return f">= {self.low}" if self.high is None else f"{self.low} - {self.high}"


@dataclass(frozen=True, slots=True)
class Panel:
    """Results of one specimen or questionnaire."""

    code: Code
    taken: datetime
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Vitals:
    """Vital signs of one moment: cm, kg, mm[Hg], per minute, degrees Celsius, percent."""

    taken: datetime
    height: str
    weight: str
    systolic: str
    diastolic: str
    pulse: str
    breaths: str
    temperature: str
    oxygen: str

    @property
    def body_mass_index(self) -> str:
        """kg/m2 with one decimal."""
        return f"{float(self.weight) / (float(self.height) / 100) ** 2:.1f}"


@dataclass(frozen=True, slots=True)
class Immunization:
    """A vaccination given."""

    vaccine: Code
    given: date
    lot: str
    maker: str


@dataclass(frozen=True, slots=True)
class Procedure:
    """Something done."""

    code: Code
    done: date


@dataclass(frozen=True, slots=True)
class Encounter:
    """A contact with care, `key` its name within the chart."""

    key: str
    code: Code
    start: datetime
    end: datetime
    clinician: Clinician
    reason: str
    diagnoses: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Something planned: a test or a visit, and what the patient is told."""

    code: Code
    due: date
    text: str


@dataclass(frozen=True, slots=True)
class VisitNote:
    """An office visit, told the way progress notes are: subjective, objective, assessment, plan."""

    encounter: Encounter
    subjective: str
    objective: str
    assessment: str
    plans: tuple[Plan, ...]
    signed: datetime


@dataclass(frozen=True, slots=True)
class Consultation:
    """A specialist's answer to a referral."""

    encounter: Encounter
    referral: str
    history: str
    examination: str
    assessment: str
    plans: tuple[Plan, ...]
    signed: datetime


@dataclass(frozen=True, slots=True)
class HospitalStay:
    """A stay in hospital, told at its end."""

    encounter: Encounter
    course: str
    discharge_medications: tuple[Medication, ...]
    instructions: str
    plans: tuple[Plan, ...]
    signed: datetime


@dataclass(frozen=True, slots=True)
class Pathology:
    """What a pathologist saw."""

    pathologist: Clinician
    reported: datetime
    accession: str
    specimen: str
    history: str
    gross: str
    microscopic: str
    diagnosis: str


@dataclass(frozen=True, slots=True)
class Photograph:
    """A picture in the chart; `subject` says what `images` draws."""

    subject: str
    title: str
    taken: datetime


@dataclass(frozen=True, slots=True)
class Chart:
    """A patient and all that is known of the patient. `number` is the patient's arc under the sandbox's OID."""

    number: int
    demographics: Demographics
    race: Code
    ethnicity: Code
    marital_status: Code
    smoking: Code
    clinician: Clinician
    problems: tuple[Problem, ...]
    medications: tuple[Medication, ...]
    allergies: tuple[Allergy, ...]
    panels: tuple[Panel, ...]
    vitals: tuple[Vitals, ...]
    immunizations: tuple[Immunization, ...]
    procedures: tuple[Procedure, ...]
    encounters: tuple[Encounter, ...]
    visit: VisitNote
    other: Consultation | HospitalStay
    pathology: Pathology
    photograph: Photograph
    summarised: datetime
    """When the continuity of care document was made."""

    @property
    def name(self) -> str:
        """Given and family name."""
        return f"{self.demographics.first_name} {self.demographics.last_name}"

    @property
    def key(self) -> str:
        """The patient's id in the sandbox: the first name, by which it matches."""
        return self.demographics.first_name.lower()
