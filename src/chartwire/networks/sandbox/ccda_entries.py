"""The coded statements of C-CDA R2.1, one function a template.

`anchor` is the ID of the narrative that says the same. Template numbers are the guide's, volume 2.
"""

from datetime import date, datetime

from lxml import etree

from chartwire.networks.sandbox.ccda_people import assigned, place
from chartwire.networks.sandbox.cda import (
    at,
    between,
    coded,
    element,
    identifier,
    linked,
    quantity,
    stamp,
    status,
    template,
    text_at,
)
from chartwire.networks.sandbox.records import (
    Allergy,
    Code,
    Encounter,
    Immunization,
    Medication,
    Panel,
    Plan,
    Problem,
    Procedure,
    Result,
)

ASSERTION = Code("actcode", "ASSERTION", "Assertion")
CONCERN = Code("actclass", "CONC", "Concern")
PROBLEM = Code("snomed", "55607006", "Problem")
CONDITION = Code("loinc", "75326-9", "Problem")
NO_KNOWN_ALLERGY = Code("snomed", "419199007", "Allergy to substance")


def problem_concern(problem: Problem, arc: str, anchor: str) -> "etree._Element":
    """Problem Concern Act (22.4.3)."""
    return element(
        "act",
        template("4.3", "2015-08-01"),
        identifier(arc, f"concern-{problem.code.code}"),
        coded("code", CONCERN),
        text_at(anchor),
        status("completed" if problem.resolved else "active"),
        between(problem.onset, problem.resolved),
        linked("SUBJ", problem_observation(problem, arc, anchor)),
        classCode="ACT",
        moodCode="EVN",
    )


def problem_observation(problem: Problem, arc: str, anchor: str | None = None) -> "etree._Element":
    """Problem Observation (22.4.4)."""
    return element(
        "observation",
        template("4.4", "2015-08-01"),
        identifier(arc, f"problem-{problem.code.code}"),
        coded("code", PROBLEM, coded("translation", CONDITION)),
        text_at(anchor) if anchor else None,
        status("completed"),
        between(problem.onset, problem.resolved),
        coded("value", problem.code, coded("translation", problem.icd10), xsi_type="CD"),
        classCode="OBS",
        moodCode="EVN",
    )


def medication_activity(medication: Medication, arc: str, anchor: str) -> "etree._Element":
    """Medication Activity (22.4.16), with what it is given for (22.4.19)."""
    name = f"{medication.drug.code}-{stamp(medication.started)}"
    frequency = element("period", value=str(medication.hours), unit="h")
    attributes = {"unit": medication.unit} if medication.unit else {}
    return element(
        "substanceAdministration",
        template("4.16", "2014-06-09"),
        identifier(arc, f"medication-{name}"),
        text_at(anchor),
        status("completed" if medication.stopped else "active"),
        between(medication.started, medication.stopped, xsi_type="IVL_TS"),
        element("effectiveTime", frequency, xsi_type="PIVL_TS", institutionSpecified="true", operator="A"),
        coded("routeCode", medication.route),
        element("doseQuantity", value=medication.dose, **attributes),
        element("consumable", _drug(medication.drug, arc, anchor)),
        linked("RSON", _indication(medication.reason, arc)),
        classCode="SBADM",
        moodCode="EVN",
    )


def _drug(drug: Code, arc: str, anchor: str) -> "etree._Element":
    return element(
        "manufacturedProduct",
        template("4.23", "2014-06-09"),
        identifier(arc, f"product-{drug.code}"),
        element("manufacturedMaterial", coded("code", drug, text_at(anchor, "originalText"))),
        classCode="MANU",
    )


def _indication(problem: Problem, arc: str) -> "etree._Element":
    return element(
        "observation",
        template("4.19", "2014-06-09"),
        identifier(arc, f"problem-{problem.code.code}"),
        coded("code", PROBLEM, coded("translation", CONDITION)),
        status("completed"),
        between(problem.onset, problem.resolved),
        coded("value", problem.code, xsi_type="CD"),
        classCode="OBS",
        moodCode="EVN",
    )


def allergy_concern(allergy: Allergy | None, arc: str, anchor: str, noted: date) -> "etree._Element":
    """Allergy Concern Act (22.4.30); None states that no allergy is known since `noted`."""
    name = allergy.substance.code if allergy else "none"
    since = allergy.onset if allergy else noted
    return element(
        "act",
        template("4.30", "2015-08-01"),
        identifier(arc, f"allergy-concern-{name}"),
        coded("code", CONCERN),
        status("active"),
        between(since, None),
        linked("SUBJ", _allergy(allergy, arc, anchor) if allergy else _no_allergy(arc, anchor, since)),
        classCode="ACT",
        moodCode="EVN",
    )


def _allergy(allergy: Allergy, arc: str, anchor: str) -> "etree._Element":
    return element(
        "observation",
        template("4.7", "2014-06-09"),
        identifier(arc, f"allergy-{allergy.substance.code}"),
        coded("code", ASSERTION),
        text_at(anchor),
        status("completed"),
        between(allergy.onset, None),
        coded("value", allergy.kind, xsi_type="CD"),
        _substance(coded("code", allergy.substance, text_at(anchor, "originalText"))),
        linked("MFST", _reaction(allergy, arc, anchor), inversionInd="true"),
        classCode="OBS",
        moodCode="EVN",
    )


def _no_allergy(arc: str, anchor: str, since: date) -> "etree._Element":
    return element(
        "observation",
        template("4.7", "2014-06-09"),
        identifier(arc, "allergy-none"),
        coded("code", ASSERTION),
        text_at(anchor),
        status("completed"),
        between(since, None),
        coded("value", NO_KNOWN_ALLERGY, xsi_type="CD"),
        _substance(element("code", nullFlavor="NA")),
        classCode="OBS",
        moodCode="EVN",
        negationInd="true",
    )


def _substance(code: "etree._Element") -> "etree._Element":
    entity = element("playingEntity", code, classCode="MMAT")
    return element("participant", element("participantRole", entity, classCode="MANU"), typeCode="CSM")


def _reaction(allergy: Allergy, arc: str, anchor: str) -> "etree._Element":
    """Reaction Observation (22.4.9) with its Severity Observation (22.4.8)."""
    severity = element(
        "observation",
        template("4.8", "2014-06-09"),
        coded("code", Code("actcode", "SEV", "Severity")),
        text_at(anchor),
        status("completed"),
        coded("value", allergy.severity, xsi_type="CD"),
        classCode="OBS",
        moodCode="EVN",
    )
    return element(
        "observation",
        template("4.9", "2014-06-09"),
        identifier(arc, f"reaction-{allergy.substance.code}"),
        coded("code", ASSERTION),
        text_at(anchor),
        status("completed"),
        between(allergy.onset, None),
        coded("value", allergy.reaction, xsi_type="CD"),
        linked("SUBJ", severity, inversionInd="true"),
        classCode="OBS",
        moodCode="EVN",
    )


def result_organizer(panel: Panel, arc: str, anchors: list[str]) -> "etree._Element":
    """Result Organizer (22.4.1); `anchors` are those of its results."""
    pairs = zip(panel.results, anchors, strict=True)
    return element(
        "organizer",
        template("4.1", "2015-08-01"),
        identifier(arc, f"panel-{panel.code.code}-{stamp(panel.taken)}"),
        coded("code", panel.code),
        status("completed"),
        between(panel.taken, panel.taken),
        *[element("component", _result(result, panel.taken, arc, anchor)) for result, anchor in pairs],
        classCode="BATTERY",
        moodCode="EVN",
    )


def _result(result: Result, taken: datetime, arc: str, anchor: str) -> "etree._Element":
    bounds = [("low", result.low), ("high", result.high)]
    limits = [quantity(tag, value, result.unit) for tag, value in bounds if value is not None]
    expected = element("observationRange", element("value", *limits, xsi_type="IVL_PQ"))
    return element(
        "observation",
        template("4.2", "2015-08-01"),
        identifier(arc, f"result-{result.test.code}-{stamp(taken)}"),
        coded("code", result.test),
        text_at(anchor),
        status("completed"),
        at(taken),
        quantity("value", result.value, result.unit, xsi_type="PQ"),
        coded("interpretationCode", INTERPRETATIONS[result.flag]),
        element("referenceRange", expected),
        classCode="OBS",
        moodCode="EVN",
    )


INTERPRETATIONS = {
    "L": Code("interpretation", "L", "Low"),
    "N": Code("interpretation", "N", "Normal"),
    "H": Code("interpretation", "H", "High"),
}


def vital_signs_organizer(
    taken: datetime, signs: list[tuple[Code, str, str]], arc: str, anchors: list[str]
) -> "etree._Element":
    """Vital Signs Organizer (22.4.26) of code, value and UCUM unit triples."""
    panel = Code("loinc", "74728-7", "Vital signs, weight, height, head circumference, oxygen saturation and BMI panel")
    pairs = zip(signs, anchors, strict=True)
    return element(
        "organizer",
        template("4.26", "2015-08-01"),
        identifier(arc, f"vitals-{stamp(taken)}"),
        coded("code", Code("snomed", "46680005", "Vital signs"), coded("translation", panel)),
        status("completed"),
        between(taken, taken),
        *[element("component", _vital_sign(*sign, taken, arc, anchor)) for sign, anchor in pairs],
        classCode="CLUSTER",
        moodCode="EVN",
    )


def _vital_sign(code: Code, value: str, unit: str, taken: datetime, arc: str, anchor: str) -> "etree._Element":
    return element(
        "observation",
        template("4.27", "2014-06-09"),
        identifier(arc, f"vital-{code.code}-{stamp(taken)}"),
        coded("code", code),
        text_at(anchor),
        status("completed"),
        at(taken),
        quantity("value", value, unit, xsi_type="PQ"),
        classCode="OBS",
        moodCode="EVN",
    )


def immunization_activity(immunization: Immunization, arc: str, anchor: str) -> "etree._Element":
    """Immunization Activity (22.4.52)."""
    material = element(
        "manufacturedMaterial",
        coded("code", immunization.vaccine, text_at(anchor, "originalText")),
        element("lotNumberText", immunization.lot),
    )
    product = element(
        "manufacturedProduct",
        template("4.54", "2014-06-09"),
        material,
        element("manufacturerOrganization", element("name", immunization.maker)),
        classCode="MANU",
    )
    return element(
        "substanceAdministration",
        template("4.52", "2015-08-01"),
        identifier(arc, f"immunization-{immunization.vaccine.code}-{stamp(immunization.given)}"),
        text_at(anchor),
        status("completed"),
        at(immunization.given),
        element("consumable", product),
        classCode="SBADM",
        moodCode="EVN",
        negationInd="false",
    )


def procedure_activity(procedure: Procedure, arc: str, anchor: str) -> "etree._Element":
    """Procedure Activity Procedure (22.4.14)."""
    return element(
        "procedure",
        template("4.14", "2014-06-09"),
        identifier(arc, f"procedure-{procedure.code.code}-{stamp(procedure.done)}"),
        coded("code", procedure.code, text_at(anchor, "originalText")),
        text_at(anchor),
        status("completed"),
        at(procedure.done),
        classCode="PROC",
        moodCode="EVN",
    )


def encounter_activity(encounter: Encounter, arc: str, anchor: str) -> "etree._Element":
    """Encounter Activity (22.4.49) with its diagnoses (22.4.80)."""
    return element(
        "encounter",
        template("4.49", "2015-08-01"),
        identifier(arc, f"encounter-{encounter.key}"),
        coded("code", encounter.code, text_at(anchor, "originalText")),
        text_at(anchor),
        between(encounter.start, encounter.end),
        element("performer", assigned("assignedEntity", encounter.clinician)),
        element("participant", place(encounter.clinician.organization), typeCode="LOC"),
        *[linked("COMP", _encounter_diagnosis(problem, arc)) for problem in encounter.diagnoses],
        classCode="ENC",
        moodCode="EVN",
    )


def _encounter_diagnosis(problem: Problem, arc: str) -> "etree._Element":
    return element(
        "act",
        template("4.80", "2015-08-01"),
        coded("code", Code("loinc", "29308-4", "Diagnosis")),
        status("completed"),
        linked("SUBJ", problem_observation(problem, arc)),
        classCode="ACT",
        moodCode="EVN",
    )


def planned_observation(plan: Plan, arc: str, anchor: str) -> "etree._Element":
    """Planned Observation (22.4.44)."""
    return element(
        "observation",
        template("4.44", "2014-06-09"),
        identifier(arc, f"plan-{plan.code.code}-{stamp(plan.due)}"),
        coded("code", plan.code),
        text_at(anchor),
        status("active"),
        at(plan.due),
        classCode="OBS",
        moodCode="RQO",
    )


def coded_observation(
    template_id: "etree._Element", code: Code, value: Code, moment: date | datetime, name: str, arc: str, anchor: str
) -> "etree._Element":
    """An observation whose value is a code: smoking status (22.4.78), birth sex (22.4.200)."""
    return element(
        "observation",
        template_id,
        identifier(arc, name),
        coded("code", code),
        text_at(anchor),
        status("completed"),
        at(moment),
        coded("value", value, xsi_type="CD"),
        classCode="OBS",
        moodCode="EVN",
    )
