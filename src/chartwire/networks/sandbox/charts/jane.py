"""Jane Smith: recurrent depression and generalized anxiety, getting better."""

from datetime import date

from chartwire.model.registry import Address, Contact, Demographics, Gender
from chartwire.networks.sandbox import terms
from chartwire.networks.sandbox.charts.times import Place
from chartwire.networks.sandbox.records import (
    Allergy,
    Chart,
    Clinician,
    Code,
    Consultation,
    Encounter,
    Immunization,
    Medication,
    Organization,
    Panel,
    Pathology,
    Photograph,
    Plan,
    Problem,
    Procedure,
    Result,
    VisitNote,
    Vitals,
)

_PHOENIX = Place(-7)
_at = _PHOENIX.at

_CLINIC = Organization(
    11, "Saguaro Family Health", "2200 N Central Ave", "Phoenix", "AZ", "85004", "+16025550110", terms.CLINIC
)
_PRACTICE = Organization(
    12, "Camelback Behavioral Health", "3300 E Camelback Rd", "Phoenix", "AZ", "85018", "+16025550120"
)
_LABORATORY = Organization(
    13, "Sonoran Pathology Associates", "1450 N 7th St", "Phoenix", "AZ", "85006", "+16025550130", terms.LABORATORY
)

_LOPEZ = Clinician("2000000119", "Marisol", "Lopez", "MD", terms.FAMILY_MEDICINE, _CLINIC)
_ADEYEMI = Clinician("2000000127", "Tunde", "Adeyemi", "MD", terms.PSYCHIATRY, _PRACTICE)
_KIRBY = Clinician("2000000135", "Ellen", "Kirby", "MD", terms.PATHOLOGY, _LABORATORY)

_DEPRESSION = Problem(
    Code("snomed", "832007", "Moderate major depression"),
    Code("icd10", "F33.1", "Major depressive disorder, recurrent, moderate"),
    date(2021, 9, 14),
    note="Second episode; first at 19",
)
_ANXIETY = Problem(
    Code("snomed", "21897009", "Generalized anxiety disorder"),
    Code("icd10", "F41.1", "Generalized anxiety disorder"),
    date(2021, 9, 14),
)
_INSOMNIA = Problem(
    Code("snomed", "193462001", "Insomnia"),
    Code("icd10", "G47.00", "Insomnia, unspecified"),
    date(2022, 2, 8),
    resolved=date(2025, 1, 21),
    note="Settled with treatment of the depression",
)
_MIGRAINE = Problem(
    Code("snomed", "37796009", "Migraine"),
    Code("icd10", "G43.909", "Migraine, unspecified, not intractable, without status migrainosus"),
    date(2014, 5, 3),
)

_SERTRALINE = Medication(
    Code("rxnorm", "312941", "sertraline 50 MG Oral Tablet"),
    *("1", 24, "Take 1 tablet by mouth every morning", date(2024, 10, 8), _DEPRESSION),
)
_HYDROXYZINE = Medication(
    Code("rxnorm", "995258", "hydroxyzine hydrochloride 25 MG Oral Tablet"),
    *("1", 8, "Take 1 tablet by mouth every 8 hours as needed for anxiety", date(2024, 10, 8), _ANXIETY),
)
_TRAZODONE = Medication(
    Code("rxnorm", "856377", "trazodone hydrochloride 50 MG Oral Tablet"),
    *("1", 24, "Take 1 tablet by mouth at bedtime", date(2024, 10, 8), _INSOMNIA, date(2025, 1, 21)),
)

_INTAKE = Encounter(
    "intake",
    terms.CONSULTATION,
    _at("2024-10-08", "13:00"),
    _at("2024-10-08", "14:00"),
    _ADEYEMI,
    "Psychiatric consultation for recurrent depression",
    (_DEPRESSION, _ANXIETY, _INSOMNIA),
)
_FOLLOW_UP = Encounter(
    "follow-up",
    terms.FOLLOW_UP,
    _at("2025-01-21", "09:30"),
    _at("2025-01-21", "10:00"),
    _LOPEZ,
    "Follow-up of depression and anxiety",
    (_DEPRESSION, _ANXIETY),
)


def _questionnaires(day: str, time: str, phq9: str, gad7: str) -> tuple[Panel, Panel]:
    return (
        Panel(terms.PHQ9_PANEL, _at(day, time), (Result(terms.PHQ9_SCORE, phq9, "{score}", high="4"),)),
        Panel(terms.GAD7_PANEL, _at(day, time), (Result(terms.GAD7_SCORE, gad7, "{score}", high="4"),)),
    )


JANE = Chart(
    number=1,
    demographics=Demographics(
        first_name="Jane",
        last_name="Smith",
        dob=date(1996, 2, 10),
        gender_at_birth=Gender.F,
        address=(Address("123 Arsenal St", "Phoenix", "AZ", "85007"),),
        contact=(Contact(phone="6025550142", email="jane.smith@example.com"),),
    ),
    race=terms.WHITE,
    ethnicity=terms.NOT_HISPANIC,
    marital_status=terms.NEVER_MARRIED,
    smoking=terms.NEVER_SMOKED,
    clinician=_LOPEZ,
    problems=(_DEPRESSION, _ANXIETY, _MIGRAINE, _INSOMNIA),
    medications=(_SERTRALINE, _HYDROXYZINE, _TRAZODONE),
    allergies=(
        Allergy(
            Code("rxnorm", "7980", "penicillin G"), terms.DRUG_ALLERGY, terms.WEAL, terms.MODERATE, date(2003, 6, 1)
        ),
    ),
    panels=(
        *_questionnaires("2025-01-21", "09:20", "7", "6"),
        *_questionnaires("2024-10-08", "12:50", "16", "14"),
        Panel(
            terms.BLOOD_COUNT,
            _at("2025-01-21", "10:10"),
            (
                Result(terms.HEMOGLOBIN, "13.4", "g/dL", "12.0", "15.5"),
                Result(terms.HEMATOCRIT, "40.1", "%", "35.0", "45.0"),
                Result(terms.LEUKOCYTES, "6.2", "10*3/uL", "4.0", "11.0"),
                Result(terms.PLATELETS, "251", "10*3/uL", "150", "400"),
            ),
        ),
        Panel(
            Code("loinc", "3016-3", "Thyrotropin [Units/volume] in Serum or Plasma"),
            _at("2025-01-21", "10:10"),
            (Result(terms.THYROTROPIN, "1.9", "m[IU]/L", "0.4", "4.5"),),
        ),
    ),
    vitals=(
        Vitals(_at("2025-01-21", "09:25"), "165", "62.1", "116", "72", "70", "14", "36.7", "99"),
        Vitals(_at("2024-10-08", "12:45"), "165", "60.4", "122", "78", "84", "16", "36.8", "99"),
    ),
    immunizations=(
        Immunization(terms.INFLUENZA, date(2023, 10, 17), "UJ9941", "Sanofi Pasteur"),
        Immunization(terms.TDAP, date(2018, 8, 22), "AC52B", "GlaxoSmithKline"),
    ),
    procedures=(
        Procedure(Code("snomed", "228557008", "Cognitive and behavioral therapy"), date(2024, 11, 5)),
        Procedure(
            Code("snomed", "440623000", "Microscopic examination of cervical Papanicolaou smear"), date(2024, 6, 18)
        ),
    ),
    encounters=(_FOLLOW_UP, _INTAKE),
    visit=VisitNote(
        encounter=_FOLLOW_UP,
        subjective=(
            "Ms. Smith returns fifteen weeks after starting sertraline. Mood is better on most days, she is "
            "back at work full time and sleeps seven hours without trazodone, which she stopped this week. "
            "Worry remains before deadlines; she used hydroxyzine four times in the last month. She attends "
            "cognitive behavioral therapy weekly. No thoughts of death or self-harm. No side effects but "
            "mild dry mouth."
        ),
        objective=(
            "Well groomed, good eye contact, full range of affect, linear thought. PHQ-9 is 7 (16 at start), "
            "GAD-7 is 6 (14 at start). Thyroid normal to palpation, no tremor."
        ),
        assessment=(
            "Recurrent depression, responding to sertraline 50 mg with therapy: more than half of the PHQ-9 "
            "score gone. Generalized anxiety, improved. Insomnia resolved; trazodone stopped."
        ),
        plans=(
            Plan(terms.PHQ9_PANEL, date(2025, 4, 22), "Repeat PHQ-9 and GAD-7 in three months"),
            Plan(terms.THYROTROPIN, date(2026, 1, 20), "Repeat TSH in a year"),
        ),
        signed=_at("2025-01-21", "17:40"),
    ),
    other=Consultation(
        encounter=_INTAKE,
        referral="Referred by Dr. Lopez for a second episode of depression with sleeplessness and constant worry.",
        history=(
            "Low mood, loss of interest and early waking since spring, with worry about work and health on "
            "most days for over six months. A first episode at 19 resolved with therapy alone. No mania, "
            "psychosis or substance use. Mother treated for depression. No past attempt and no present plan "
            "or intent of self-harm."
        ),
        examination=(
            "Tired, restricted affect, mood low, thought linear, insight good. PHQ-9 is 16 (moderately "
            "severe), GAD-7 is 14 (moderate). Safety plan reviewed and signed."
        ),
        assessment=(
            "Major depressive disorder, recurrent, moderate; generalized anxiety disorder; insomnia related "
            "to both. Low acute risk. Sertraline 50 mg in the morning, hydroxyzine as needed, trazodone at "
            "night for a limited time, and cognitive behavioral therapy."
        ),
        plans=(Plan(terms.GAD7_PANEL, date(2025, 1, 21), "PHQ-9 and GAD-7 at follow-up with Dr. Lopez"),),
        signed=_at("2024-10-08", "16:15"),
    ),
    pathology=Pathology(
        pathologist=_KIRBY,
        reported=_at("2024-06-24", "11:05"),
        accession="SP24-10733",
        specimen="Liquid-based cervical cytology",
        history="Routine screening, age 28",
        gross="One vial of PreservCyt fluid, 20 mL, slightly cloudy",
        microscopic="Satisfactory for evaluation; endocervical component present. Squamous cells without atypia.",
        diagnosis="NEGATIVE FOR INTRAEPITHELIAL LESION OR MALIGNANCY",
    ),
    photograph=Photograph("insurance card", "Insurance card, front", _at("2024-10-08", "12:40")),
    summarised=_at("2025-01-21", "18:05"),
)
