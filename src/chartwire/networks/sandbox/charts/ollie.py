"""Ollie Brown: anxiety with panic attacks, one of which brought him to hospital."""

from datetime import date

from chartwire.model.registry import Address, Contact, Demographics, Gender
from chartwire.networks.sandbox import terms
from chartwire.networks.sandbox.charts.times import Place
from chartwire.networks.sandbox.records import (
    Allergy,
    Chart,
    Clinician,
    Code,
    Encounter,
    HospitalStay,
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

_HARRISBURG = Place(-5)
_at = _HARRISBURG.at

_CLINIC = Organization(
    31, "Riverfront Primary Care", "100 N Front St", "Harrisburg", "PA", "17101", "+17175550110", terms.CLINIC
)
_HOSPITAL = Organization(
    32,
    "Capital General Hospital",
    "700 S Cameron St",
    "Harrisburg",
    "PA",
    "17104",
    "+17175550120",
    terms.OBSERVATION_AREA,
)
_LABORATORY = Organization(
    33, "Susquehanna Pathology", "400 Market St", "Harrisburg", "PA", "17101", "+17175550130", terms.LABORATORY
)

_WEBER = Clinician("2000000317", "Joanna", "Weber", "DO", terms.FAMILY_MEDICINE, _CLINIC)
_SINGH = Clinician("2000000325", "Harpreet", "Singh", "MD", terms.HOSPITALIST, _HOSPITAL)
_DUFFY = Clinician("2000000333", "Brian", "Duffy", "MD", terms.PATHOLOGY, _LABORATORY)

_ANXIETY = Problem(
    Code("snomed", "21897009", "Generalized anxiety disorder"),
    Code("icd10", "F41.1", "Generalized anxiety disorder"),
    date(2018, 4, 10),
)
_PANIC = Problem(
    Code("snomed", "371631005", "Panic disorder"),
    Code("icd10", "F41.0", "Panic disorder [episodic paroxysmal anxiety]"),
    date(2025, 1, 7),
)
_CHEST_PAIN = Problem(
    Code("snomed", "29857009", "Chest pain"),
    Code("icd10", "R07.9", "Chest pain, unspecified"),
    date(2025, 1, 6),
    resolved=date(2025, 1, 7),
    note="No cardiac cause found",
)
_HYPERLIPIDEMIA = Problem(
    Code("snomed", "55822004", "Hyperlipidemia"),
    Code("icd10", "E78.5", "Hyperlipidemia, unspecified"),
    date(2009, 2, 24),
)
_PROSTATE = Problem(
    Code("snomed", "266569009", "Benign prostatic hyperplasia"),
    Code("icd10", "N40.0", "Benign prostatic hyperplasia without lower urinary tract symptoms"),
    date(2015, 6, 16),
)

_ESCITALOPRAM = Medication(
    Code("rxnorm", "349332", "escitalopram 10 MG Oral Tablet"),
    *("1", 24, "Take 1 tablet by mouth every morning", date(2025, 1, 7), _ANXIETY),
)
_BUSPIRONE = Medication(
    Code("rxnorm", "866083", "buspirone hydrochloride 10 MG Oral Tablet"),
    *("1", 12, "Take 1 tablet by mouth twice a day", date(2022, 8, 30), _ANXIETY, date(2025, 1, 7)),
)
_ATORVASTATIN = Medication(
    Code("rxnorm", "617310", "atorvastatin 20 MG Oral Tablet"),
    *("1", 24, "Take 1 tablet by mouth at bedtime", date(2009, 2, 24), _HYPERLIPIDEMIA),
)
_ASPIRIN = Medication(
    Code("rxnorm", "243670", "aspirin 81 MG Oral Tablet"),
    *("1", 24, "Take 1 tablet by mouth once a day", date(2012, 3, 6), _HYPERLIPIDEMIA),
)

_STAY = Encounter(
    "observation",
    terms.ADMISSION,
    _at("2025-01-06", "22:10"),
    _at("2025-01-07", "15:30"),
    _SINGH,
    "Observation for chest pain",
    (_CHEST_PAIN, _PANIC),
)
_VISIT = Encounter(
    "follow-up",
    terms.FOLLOW_UP,
    _at("2025-02-18", "11:00"),
    _at("2025-02-18", "11:30"),
    _WEBER,
    "Follow-up after hospital stay",
    (_ANXIETY, _PANIC),
)

OLLIE = Chart(
    number=3,
    demographics=Demographics(
        first_name="Ollie",
        last_name="Brown",
        dob=date(1946, 3, 18),
        gender_at_birth=Gender.M,
        address=(Address("201 Armada St", "Harrisburg", "PA", "17102"),),
        contact=(Contact(phone="7175550142", email="ollie.brown@example.com"),),
    ),
    race=terms.BLACK,
    ethnicity=terms.NOT_HISPANIC,
    marital_status=terms.MARRIED,
    smoking=terms.FORMER_SMOKER,
    clinician=_WEBER,
    problems=(_ANXIETY, _PANIC, _HYPERLIPIDEMIA, _PROSTATE, _CHEST_PAIN),
    medications=(_ESCITALOPRAM, _ATORVASTATIN, _ASPIRIN, _BUSPIRONE),
    allergies=(
        Allergy(
            Code("rxnorm", "2670", "codeine"), terms.DRUG_INTOLERANCE, terms.NAUSEA, terms.MODERATE, date(1988, 9, 1)
        ),
    ),
    panels=(
        Panel(
            terms.GAD7_PANEL,
            _at("2025-02-18", "10:50"),
            (Result(terms.GAD7_SCORE, "8", "{score}", high="4"),),
        ),
        Panel(
            terms.BASIC_PANEL,
            _at("2025-02-18", "11:35"),
            (
                Result(terms.SODIUM, "137", "mmol/L", "136", "145"),
                Result(terms.POTASSIUM, "4.2", "mmol/L", "3.5", "5.1"),
                Result(terms.CHLORIDE, "102", "mmol/L", "98", "107"),
                Result(terms.CARBON_DIOXIDE, "26", "mmol/L", "22", "29"),
                Result(terms.UREA_NITROGEN, "17", "mg/dL", "7", "20"),
                Result(terms.CREATININE, "1.02", "mg/dL", "0.70", "1.30"),
                Result(terms.GLUCOSE, "96", "mg/dL", "70", "99"),
                Result(terms.CALCIUM, "9.1", "mg/dL", "8.6", "10.2"),
            ),
        ),
        Panel(
            terms.LIPID_PANEL,
            _at("2025-02-18", "11:35"),
            (
                Result(terms.CHOLESTEROL, "171", "mg/dL", high="200"),
                Result(terms.HDL, "47", "mg/dL", low="40"),
                Result(terms.LDL, "99", "mg/dL", high="100"),
                Result(terms.TRIGLYCERIDE, "125", "mg/dL", high="150"),
            ),
        ),
        Panel(
            Code("loinc", "89579-7", "Troponin I.cardiac [Mass/volume] in Serum or Plasma by High sensitivity method"),
            _at("2025-01-07", "01:20"),
            (
                Result(
                    Code(
                        *("loinc", "89579-7"),
                        "Troponin I.cardiac [Mass/volume] in Serum or Plasma by High sensitivity method",
                    ),
                    *("6", "ng/L", None, "22"),
                ),
            ),
        ),
    ),
    vitals=(
        Vitals(_at("2025-02-18", "10:55"), "175", "78.9", "132", "76", "72", "15", "36.5", "97"),
        Vitals(_at("2025-01-06", "22:15"), "175", "79.5", "158", "88", "112", "24", "36.8", "98"),
    ),
    immunizations=(
        Immunization(terms.INFLUENZA, date(2023, 9, 28), "UJ9902", "Sanofi Pasteur"),
        Immunization(terms.ZOSTER, date(2019, 5, 14), "K27E4", "GlaxoSmithKline"),
        Immunization(terms.POLYSACCHARIDE, date(2013, 11, 5), "H012286", "Merck Sharp & Dohme"),
    ),
    procedures=(
        Procedure(Code("snomed", "29303009", "Electrocardiographic procedure"), date(2025, 1, 6)),
        Procedure(Code("snomed", "73761001", "Colonoscopy"), date(2024, 5, 16)),
    ),
    encounters=(_VISIT, _STAY),
    visit=VisitNote(
        encounter=_VISIT,
        subjective=(
            "Mr. Brown comes six weeks after a night in hospital for chest pain that proved to be a panic "
            "attack. He has had two milder attacks since, both in crowded shops, and used the breathing "
            "exercise he was taught. Sleep is good. He takes escitalopram every morning; slight nausea in "
            "the first week has gone. No chest pain on stairs."
        ),
        objective=(
            "Calm, no tremor, pulse 72 and regular, blood pressure 132/76, heart and lungs normal. GAD-7 is "
            "8. Sodium 137 mmol/L on escitalopram."
        ),
        assessment=(
            "Generalized anxiety disorder with panic attacks, improving on escitalopram 10 mg. No sign of "
            "coronary disease in hospital testing. Lipids at goal."
        ),
        plans=(
            Plan(terms.GAD7_PANEL, date(2025, 5, 20), "Repeat GAD-7 in three months"),
            Plan(terms.BASIC_PANEL, date(2025, 8, 19), "Repeat sodium in six months"),
        ),
        signed=_at("2025-02-18", "17:05"),
    ),
    other=HospitalStay(
        encounter=_STAY,
        course=(
            "Brought in by ambulance with sudden chest tightness, shortness of breath and fear of dying at "
            "21:30. The electrocardiogram showed sinus tachycardia without ischemia; two troponins three "
            "hours apart were normal, as was the chest film. Symptoms ended within forty minutes. Similar "
            "shorter spells over six months were reported. Monitored overnight without arrhythmia. Buspirone "
            "was stopped and escitalopram begun."
        ),
        discharge_medications=(_ESCITALOPRAM, _ATORVASTATIN, _ASPIRIN),
        instructions=(
            "Take escitalopram every morning. Use the breathing exercise when an attack begins. Come back at "
            "once for chest pain on exertion, fainting, or pain that lasts more than fifteen minutes."
        ),
        plans=(Plan(terms.GAD7_PANEL, date(2025, 2, 18), "Visit with Dr. Weber in six weeks, with GAD-7"),),
        signed=_at("2025-01-07", "16:40"),
    ),
    pathology=Pathology(
        pathologist=_DUFFY,
        reported=_at("2024-05-21", "14:25"),
        accession="S24-08842",
        specimen="Ascending colon, polyp, snare polypectomy",
        history="Surveillance colonoscopy; 6 mm sessile polyp",
        gross="One tan polypoid fragment, 0.6 x 0.4 x 0.3 cm, entirely submitted",
        microscopic="Crowded tubular glands with low-grade dysplasia. No high-grade dysplasia. Margin free.",
        diagnosis="TUBULAR ADENOMA, COMPLETELY EXCISED",
    ),
    photograph=Photograph("insurance card", "Insurance card, front", _at("2025-01-06", "22:05")),
    summarised=_at("2025-02-18", "17:30"),
)
