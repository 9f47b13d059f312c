"""The sections of C-CDA R2.1 documents: each a template, a narrative table and the entries that say the same."""

from collections.abc import Iterable
from dataclasses import dataclass

from lxml import etree

from chartwire.networks.sandbox import ccda_entries as entries
from chartwire.networks.sandbox.cda import coded, day, element, linked, shown_unit, table, template
from chartwire.networks.sandbox.records import Allergy, Chart, Code, Medication, Plan, Problem, Vitals


@dataclass(frozen=True, slots=True)
class Kind:
    """A section template and the LOINC code it demands."""

    root: str
    extension: str | None
    code: str
    display: str
    title: str
    translation: Code | None = None


ALLERGIES = Kind("2.6.1", "2015-08-01", "48765-2", "Allergies and adverse reactions Document", "Allergies")
MEDICATIONS = Kind("2.1.1", "2014-06-09", "10160-0", "History of Medication use Narrative", "Medications")
PROBLEMS = Kind("2.5.1", "2015-08-01", "11450-4", "Problem list - Reported", "Problems")
PROCEDURES = Kind("2.7.1", "2014-06-09", "47519-4", "History of Procedures Document", "Procedures")
RESULTS = Kind("2.3.1", "2015-08-01", "30954-2", "Relevant diagnostic tests/laboratory data Narrative", "Results")
SOCIAL_HISTORY = Kind("2.17", "2015-08-01", "29762-2", "Social history Narrative", "Social History")
VITAL_SIGNS = Kind("2.4.1", "2015-08-01", "8716-3", "Vital signs", "Vital Signs")
IMMUNIZATIONS = Kind("2.2.1", "2015-08-01", "11369-6", "History of Immunization Narrative", "Immunizations")
ENCOUNTERS = Kind(
    "2.22.1", "2015-08-01", "46240-8", "History of Hospitalizations+Outpatient visits Narrative", "Encounters"
)
PLAN = Kind("2.10", "2014-06-09", "18776-5", "Plan of care note", "Plan of Treatment")
ASSESSMENT = Kind("2.8", None, "51848-0", "Evaluation note", "Assessment")
SUBJECTIVE = Kind("2.16.840.1.113883.10.20.21.2.2", None, "61150-9", "Subjective Narrative", "Subjective")
OBJECTIVE = Kind("2.16.840.1.113883.10.20.21.2.1", None, "61149-1", "Objective Narrative", "Objective")
REFERRAL = Kind(
    *(
        "1.3.6.1.4.1.19376.1.5.3.1.3.1",
        "2014-06-09",
        "42349-1",
        "Reason for referral (narrative)",
        "Reason for Referral",
    )
)
PRESENT_ILLNESS = Kind(
    *("1.3.6.1.4.1.19376.1.5.3.1.3.4", None, "10164-2"),
    *("History of Present illness Narrative", "History of Present Illness"),
)
EXAMINATION = Kind(
    *("2.16.840.1.113883.10.20.2.10", "2015-08-01", "29545-1", "Physical findings Narrative", "Physical Examination")
)
HOSPITAL_COURSE = Kind(
    *("1.3.6.1.4.1.19376.1.5.3.1.3.5", None, "8648-8", "Hospital course Narrative", "Hospital Course")
)
DISCHARGE_INSTRUCTIONS = Kind("2.41", None, "8653-8", "Hospital Discharge instructions", "Discharge Instructions")
DISCHARGE_DIAGNOSIS = Kind(
    *("2.24", "2015-08-01", "11535-2", "Hospital discharge Dx Narrative", "Discharge Diagnosis"),
    Code("loinc", "78375-3", "Discharge diagnosis Narrative"),
)
DISCHARGE_MEDICATIONS = Kind(
    *("2.11.1", "2015-08-01", "10183-2", "Hospital discharge medications Narrative", "Discharge Medications"),
    Code("loinc", "75311-1", "Discharge medications Narrative"),
)

VITAL_CODES = {
    "height": (Code("loinc", "8302-2", "Body height"), "cm", "Height"),
    "weight": (Code("loinc", "29463-7", "Body weight"), "kg", "Weight"),
    "body_mass_index": (Code("loinc", "39156-5", "Body mass index (BMI) [Ratio]"), "kg/m2", "Body mass index"),
    "systolic": (Code("loinc", "8480-6", "Systolic blood pressure"), "mm[Hg]", "Systolic pressure"),
    "diastolic": (Code("loinc", "8462-4", "Diastolic blood pressure"), "mm[Hg]", "Diastolic pressure"),
    "pulse": (Code("loinc", "8867-4", "Heart rate"), "/min", "Pulse"),
    "breaths": (Code("loinc", "9279-1", "Respiratory rate"), "/min", "Breaths"),
    "temperature": (Code("loinc", "8310-5", "Body temperature"), "Cel", "Temperature"),
    "oxygen": (
        Code("loinc", "59408-5", "Oxygen saturation in Arterial blood by Pulse oximetry"),
        "%",
        "Oxygen saturation",
    ),
}
"""LOINC code, UCUM unit and name of each field of `Vitals`."""


def section(
    kind: Kind, narrative: "etree._Element | str", statements: Iterable["etree._Element"] = ()
) -> "etree._Element":
    """A section as a component of the document's body."""
    translation = coded("translation", kind.translation) if kind.translation else None
    body = element("section")
    body.extend(
        [
            *_templates(kind),
            coded("code", Code("loinc", kind.code, kind.display), translation),
            element("title", kind.title),
            element("text", element("paragraph", narrative) if isinstance(narrative, str) else narrative),
            *[element("entry", statement, typeCode="DRIV") for statement in statements],
        ]
    )
    return element("component", body)


def _templates(kind: Kind) -> list["etree._Element"]:
    """A section with entries meets the template of the section whose entries are optional, too: `2.6.1` and `2.6`."""
    roots = [kind.root.removesuffix(".1"), kind.root] if kind.root.count(".") == 2 else [kind.root]
    return [template(root, kind.extension) for root in roots]


def allergies(chart: Chart) -> "etree._Element":
    """Allergies, or the statement that none are known."""
    arc = _arc(chart)
    known: list[Allergy | None] = [*chart.allergies] or [None]
    anchors = _anchors("allergy", known)
    rows = [_allergy_row(allergy) for allergy in known]
    noted = min(encounter.start for encounter in chart.encounters).date()
    acts = [
        entries.allergy_concern(allergy, arc, anchor, noted) for allergy, anchor in zip(known, anchors, strict=True)
    ]
    narrative = table(("Substance", "Reaction", "Severity", "Since"), zip(anchors, rows, strict=True))
    return section(ALLERGIES, narrative, acts)


def _allergy_row(allergy: Allergy | None) -> tuple[str, ...]:
    if allergy is None:
        return ("No known allergies", "", "", "")
    return (allergy.substance.display, allergy.reaction.display, allergy.severity.display, day(allergy.onset))


def medications(chart: Chart) -> "etree._Element":
    """All medications, taken and stopped."""
    narrative, acts = _medications(chart.medications, _arc(chart), "medication")
    return section(MEDICATIONS, narrative, acts)


def discharge_medications(chart: Chart, given: tuple[Medication, ...]) -> "etree._Element":
    """The medications a patient goes home with, each in a Discharge Medication act (22.4.35)."""
    narrative, acts = _medications(given, _arc(chart), "discharge-medication")
    code = Code("loinc", "10183-2", "Hospital discharge medications Narrative")
    translation = Code("loinc", "75311-1", "Discharge medications Narrative")
    wrapped = [
        element(
            "act",
            template("4.35", "2016-03-01"),
            coded("code", code, coded("translation", translation)),
            element("statusCode", code="completed"),
            linked("SUBJ", activity),
            classCode="ACT",
            moodCode="EVN",
        )
        for activity in acts
    ]
    return section(DISCHARGE_MEDICATIONS, narrative, wrapped)


def _medications(
    given: tuple[Medication, ...], arc: str, prefix: str
) -> tuple["etree._Element", list["etree._Element"]]:
    anchors = _anchors(prefix, given)
    rows = [
        (
            drug.drug.display,
            drug.instructions,
            drug.reason.code.display,
            day(drug.started),
            day(drug.stopped) or "Still taken",
        )
        for drug in given
    ]
    narrative = table(("Medication", "Instructions", "For", "Started", "Stopped"), zip(anchors, rows, strict=True))
    return narrative, [
        entries.medication_activity(drug, arc, anchor) for drug, anchor in zip(given, anchors, strict=True)
    ]


def problems(chart: Chart) -> "etree._Element":
    """The problem list, active and resolved."""
    arc = _arc(chart)
    anchors = _anchors("problem", chart.problems)
    narrative = _problem_table(chart.problems, anchors)
    pairs = zip(chart.problems, anchors, strict=True)
    return section(PROBLEMS, narrative, [entries.problem_concern(problem, arc, anchor) for problem, anchor in pairs])


def discharge_diagnosis(chart: Chart, diagnoses: tuple[Problem, ...]) -> "etree._Element":
    """What the stay was for, in a Hospital Discharge Diagnosis act (22.4.33)."""
    arc = _arc(chart)
    anchors = _anchors("discharge-diagnosis", diagnoses)
    pairs = zip(diagnoses, anchors, strict=True)
    act = element(
        "act",
        template("4.33", "2015-08-01"),
        coded("code", Code("loinc", "11535-2", "Hospital discharge Dx Narrative")),
        element("statusCode", code="completed"),
        *[linked("SUBJ", entries.problem_observation(problem, arc, anchor)) for problem, anchor in pairs],
        classCode="ACT",
        moodCode="EVN",
    )
    return section(DISCHARGE_DIAGNOSIS, _problem_table(diagnoses, anchors), [act])


def _problem_table(problems: tuple[Problem, ...], anchors: list[str]) -> "etree._Element":
    rows = [
        (problem.code.display, problem.icd10.code, day(problem.onset), day(problem.resolved) or "Active", problem.note)
        for problem in problems
    ]
    return table(("Problem", "ICD-10-CM", "Since", "Resolved", "Note"), zip(anchors, rows, strict=True))


def procedures(chart: Chart) -> "etree._Element":
    """What was done."""
    arc = _arc(chart)
    anchors = _anchors("procedure", chart.procedures)
    rows = [(procedure.code.display, day(procedure.done)) for procedure in chart.procedures]
    pairs = zip(chart.procedures, anchors, strict=True)
    acts = [entries.procedure_activity(procedure, arc, anchor) for procedure, anchor in pairs]
    return section(PROCEDURES, table(("Procedure", "Date"), zip(anchors, rows, strict=True)), acts)


def results(chart: Chart) -> "etree._Element":
    """Laboratory values and scores, newest first as the chart has them."""
    arc = _arc(chart)
    rows: list[tuple[str, tuple[str, ...]]] = []
    organizers = []
    for number, panel in enumerate(chart.panels, start=1):
        anchors = _anchors(f"result-{number}", panel.results)
        organizers.append(entries.result_organizer(panel, arc, anchors))
        for result, anchor in zip(panel.results, anchors, strict=True):
            flag = entries.INTERPRETATIONS[result.flag].display
            value = f"{result.value} {shown_unit(result.unit)}".strip()
            rows.append((anchor, (result.test.display, value, flag, result.range, day(panel.taken))))
    return section(RESULTS, table(("Test", "Value", "Flag", "Reference range", "Taken"), rows), organizers)


def vital_signs(chart: Chart) -> "etree._Element":
    """Vital signs, one organizer for each time they were taken."""
    arc = _arc(chart)
    rows: list[tuple[str, tuple[str, ...]]] = []
    organizers = []
    for number, vitals in enumerate(chart.vitals, start=1):
        signs = vital_values(vitals)
        anchors = _anchors(f"vital-{number}", signs)
        triples = [(code, value, unit) for code, value, unit, _ in signs]
        organizers.append(entries.vital_signs_organizer(vitals.taken, triples, arc, anchors))
        for (_, value, unit, name), anchor in zip(signs, anchors, strict=True):
            rows.append((anchor, (name, f"{value} {shown_unit(unit)}", day(vitals.taken))))
    return section(VITAL_SIGNS, table(("Vital sign", "Value", "Taken"), rows), organizers)


def vital_values(vitals: Vitals) -> list[tuple[Code, str, str, str]]:
    """Code, value, unit and name of each sign."""
    return [(code, str(getattr(vitals, field)), unit, name) for field, (code, unit, name) in VITAL_CODES.items()]


def immunizations(chart: Chart) -> "etree._Element":
    """Vaccinations."""
    arc = _arc(chart)
    anchors = _anchors("immunization", chart.immunizations)
    rows = [(given.vaccine.display, day(given.given), given.maker, given.lot) for given in chart.immunizations]
    pairs = zip(chart.immunizations, anchors, strict=True)
    acts = [entries.immunization_activity(given, arc, anchor) for given, anchor in pairs]
    return section(IMMUNIZATIONS, table(("Vaccine", "Date", "Maker", "Lot"), zip(anchors, rows, strict=True)), acts)


def encounters(chart: Chart) -> "etree._Element":
    """Visits and stays."""
    arc = _arc(chart)
    anchors = _anchors("encounter", chart.encounters)
    rows = [
        (visit.reason, day(visit.start), visit.clinician.name, visit.clinician.organization.name)
        for visit in chart.encounters
    ]
    pairs = zip(chart.encounters, anchors, strict=True)
    acts = [entries.encounter_activity(visit, arc, anchor) for visit, anchor in pairs]
    narrative = table(("Encounter", "Date", "Clinician", "Place"), zip(anchors, rows, strict=True))
    return section(ENCOUNTERS, narrative, acts)


def social_history(chart: Chart) -> "etree._Element":
    """Smoking status (22.4.78) and sex at birth (22.4.200)."""
    arc = _arc(chart)
    sex = Code(
        "gender",
        chart.demographics.gender_at_birth.value,
        {"F": "Female", "M": "Male"}[chart.demographics.gender_at_birth],
    )
    rows = [("smoking", ("Tobacco", chart.smoking.display)), ("birth-sex", ("Sex at birth", sex.display))]
    smoking = entries.coded_observation(
        template("4.78", "2014-06-09"),
        Code("loinc", "72166-2", "Tobacco smoking status"),
        chart.smoking,
        max(encounter.start for encounter in chart.encounters),
        *("smoking-status", arc, "smoking"),
    )
    birth_sex = entries.coded_observation(
        template("4.200", "2016-06-01"),
        Code("loinc", "76689-9", "Sex assigned at birth"),
        sex,
        chart.demographics.dob,
        *("birth-sex", arc, "birth-sex"),
    )
    return section(SOCIAL_HISTORY, table(("Subject", "Status"), rows), [smoking, birth_sex])


def plan(chart: Chart, plans: tuple[Plan, ...]) -> "etree._Element":
    """What comes next."""
    arc = _arc(chart)
    anchors = _anchors("plan", plans)
    rows = [(planned.text, day(planned.due)) for planned in plans]
    pairs = zip(plans, anchors, strict=True)
    acts = [entries.planned_observation(planned, arc, anchor) for planned, anchor in pairs]
    return section(PLAN, table(("Planned", "When"), zip(anchors, rows, strict=True)), acts)


def _arc(chart: Chart) -> str:
    return f"1.{chart.number}"


def _anchors(prefix: str, things: Iterable[object]) -> list[str]:
    return [f"{prefix}-{number}" for number, _ in enumerate(things, start=1)]
