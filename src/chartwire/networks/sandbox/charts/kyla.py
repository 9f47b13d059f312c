"""Kyla Fields: hypertension and type 2 diabetes at a great age."""

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

_PORTLAND = Place(-5)
_at = _PORTLAND.at

_CLINIC = Organization(
    41, "Casco Bay Geriatrics", "15 Congress St", "Portland", "ME", "04101", "+12075550110", terms.CLINIC
)
_HOSPITAL = Organization(
    42, "Munjoy Hill Hospital", "90 Eastern Promenade", "Portland", "ME", "04101", "+12075550120", terms.MEDICAL_WARD
)
_LABORATORY = Organization(
    43, "Downeast Pathology", "210 Commercial St", "Portland", "ME", "04101", "+12075550130", terms.LABORATORY
)

_PELLETIER = Clinician("2000000416", "Claire", "Pelletier", "MD", terms.INTERNAL_MEDICINE, _CLINIC)
_ABBOTT = Clinician("2000000424", "Samuel", "Abbott", "MD", terms.HOSPITALIST, _HOSPITAL)
_NGUYEN = Clinician("2000000432", "Linh", "Nguyen", "MD", terms.PATHOLOGY, _LABORATORY)

_HYPERTENSION = Problem(
    Code("snomed", "59621000", "Essential hypertension"),
    Code("icd10", "I10", "Essential (primary) hypertension"),
    date(1984, 10, 9),
)
_DIABETES = Problem(
    Code("snomed", "44054006", "Diabetes mellitus type 2"),
    Code("icd10", "E11.9", "Type 2 diabetes mellitus without complications"),
    date(2001, 3, 27),
)
_OSTEOPOROSIS = Problem(
    Code("snomed", "64859006", "Osteoporosis"),
    Code("icd10", "M81.0", "Age-related osteoporosis without current pathological fracture"),
    date(2006, 8, 15),
)
_URGENCY = Problem(
    Code("snomed", "443482000", "Hypertensive urgency"),
    Code("icd10", "I16.0", "Hypertensive urgency"),
    date(2024, 12, 2),
    resolved=date(2024, 12, 4),
    note="After amlodipine had run out",
)

_AMLODIPINE = Medication(
    Code("rxnorm", "197361", "amlodipine 5 MG Oral Tablet"),
    *("1", 24, "Take 1 tablet by mouth once a day", date(2011, 5, 17), _HYPERTENSION),
)
_LISINOPRIL = Medication(
    Code("rxnorm", "314077", "lisinopril 20 MG Oral Tablet"),
    *("1", 24, "Take 1 tablet by mouth once a day", date(2024, 12, 4), _HYPERTENSION),
)
_CHLOROTHIAZIDE = Medication(
    Code("rxnorm", "310798", "hydrochlorothiazide 25 MG Oral Tablet"),
    *("1", 24, "Take 1 tablet by mouth every morning", date(1996, 2, 6), _HYPERTENSION, date(2024, 12, 4)),
)
_METFORMIN = Medication(
    Code("rxnorm", "861007", "metformin hydrochloride 500 MG Oral Tablet"),
    *("1", 12, "Take 1 tablet by mouth twice a day with meals", date(2001, 3, 27), _DIABETES),
)

_STAY = Encounter(
    "hypertensive-urgency",
    terms.ADMISSION,
    _at("2024-12-02", "17:45"),
    _at("2024-12-04", "11:20"),
    _ABBOTT,
    "Hypertensive urgency",
    (_URGENCY, _HYPERTENSION),
)
_VISIT = Encounter(
    "follow-up",
    terms.FOLLOW_UP,
    _at("2025-01-14", "10:00"),
    _at("2025-01-14", "10:40"),
    _PELLETIER,
    "Follow-up of hypertension and diabetes",
    (_HYPERTENSION, _DIABETES),
)


def _diabetes_panels(day: str, time: str, hba1c: str, creatinine: str, filtration: str) -> tuple[Panel, Panel]:
    chemistry = (
        Result(terms.SODIUM, "138", "mmol/L", "136", "145"),
        Result(terms.POTASSIUM, "4.4", "mmol/L", "3.5", "5.1"),
        Result(terms.UREA_NITROGEN, "19", "mg/dL", "7", "20"),
        Result(terms.CREATININE, creatinine, "mg/dL", "0.50", "1.10"),
        Result(terms.FILTRATION, filtration, "mL/min/{1.73_m2}", low="60"),
        Result(terms.GLUCOSE, "142", "mg/dL", "70", "99"),
    )
    return (
        Panel(terms.HBA1C_PANEL, _at(day, time), (Result(terms.HBA1C, hba1c, "%", "4.0", "5.6"),)),
        Panel(terms.BASIC_PANEL, _at(day, time), chemistry),
    )


KYLA = Chart(
    number=4,
    demographics=Demographics(
        first_name="Kyla",
        last_name="Fields",
        dob=date(1927, 5, 23),
        gender_at_birth=Gender.F,
        address=(Address("332 16th St", "Portland", "ME", "04102"),),
        contact=(Contact(phone="2075550142"),),
    ),
    race=terms.WHITE,
    ethnicity=terms.NOT_HISPANIC,
    marital_status=terms.WIDOWED,
    smoking=terms.NEVER_SMOKED,
    clinician=_PELLETIER,
    problems=(_HYPERTENSION, _DIABETES, _OSTEOPOROSIS, _URGENCY),
    medications=(_AMLODIPINE, _LISINOPRIL, _METFORMIN, _CHLOROTHIAZIDE),
    allergies=(
        Allergy(
            Code("rxnorm", "10180", "sulfamethoxazole"),
            terms.DRUG_ALLERGY,
            terms.RASH,
            terms.MODERATE,
            date(1979, 4, 1),
        ),
    ),
    panels=(
        *_diabetes_panels("2025-01-14", "08:30", "7.4", "0.86", "61"),
        *_diabetes_panels("2024-09-10", "08:40", "7.7", "0.90", "58"),
    ),
    vitals=(
        Vitals(_at("2025-01-14", "09:55"), "157", "58.2", "142", "74", "76", "16", "36.4", "97"),
        Vitals(_at("2024-12-02", "17:50"), "157", "57.9", "204", "108", "88", "18", "36.5", "96"),
    ),
    immunizations=(
        Immunization(terms.INFLUENZA, date(2023, 10, 10), "UJ9933", "Sanofi Pasteur"),
        Immunization(terms.PNEUMOCOCCAL, date(2015, 10, 20), "L48617", "Pfizer"),
        Immunization(terms.ZOSTER, date(2018, 11, 13), "4KR22", "GlaxoSmithKline"),
    ),
    procedures=(
        Procedure(Code("snomed", "134395001", "Diabetic retinopathy screening"), date(2024, 9, 24)),
        Procedure(Code("snomed", "240977001", "Biopsy of skin"), date(2024, 8, 6)),
    ),
    encounters=(_VISIT, _STAY),
    visit=VisitNote(
        encounter=_VISIT,
        subjective=(
            "Mrs. Fields, 97, comes with her daughter six weeks after her stay in hospital. She feels well, "
            "walks with a cane and has not fallen. Her daughter fills a weekly pill box. Home blood "
            "pressures run 136 to 150 over 70 to 78. Morning sugars 118 to 150 mg/dL, none under 80. No "
            "dizziness on standing."
        ),
        objective=(
            "Blood pressure 142/74 sitting, 138/72 standing. Heart regular, soft systolic murmur unchanged, "
            "lungs clear, no edema. Feet: skin whole, monofilament felt at all points. HbA1c 7.4 %, eGFR 61."
        ),
        assessment=(
            "Hypertension, at the goal set for her age (below 150/90) on amlodipine and lisinopril. Type 2 "
            "diabetes at goal (HbA1c below 8 %) on metformin. Osteoporosis without fracture."
        ),
        plans=(
            Plan(terms.HBA1C_PANEL, date(2025, 7, 15), "Repeat HbA1c in six months"),
            Plan(terms.BASIC_PANEL, date(2025, 4, 15), "Repeat basic metabolic panel in three months"),
        ),
        signed=_at("2025-01-14", "16:50"),
    ),
    other=HospitalStay(
        encounter=_STAY,
        course=(
            "Sent from home with headache and a blood pressure of 210/110 measured by a visiting nurse; "
            "amlodipine had run out eight days before. No chest pain, no neurological deficit; "
            "electrocardiogram, troponin, creatinine and head CT gave no sign of organ damage. Amlodipine "
            "was resumed and lisinopril 20 mg begun; hydrochlorothiazide was stopped for a sodium of 131 "
            "mmol/L, which rose to 136 mmol/L. Blood pressure was 148/78 on the morning of discharge."
        ),
        discharge_medications=(_AMLODIPINE, _LISINOPRIL, _METFORMIN),
        instructions=(
            "Take amlodipine and lisinopril every day; do not take hydrochlorothiazide any more. Stand up "
            "slowly. Measure blood pressure each morning and call if it is above 180/110. Call 911 for chest "
            "pain, weakness or trouble speaking."
        ),
        plans=(Plan(terms.BASIC_PANEL, date(2024, 12, 11), "Sodium, potassium and creatinine in one week"),),
        signed=_at("2024-12-04", "13:15"),
    ),
    pathology=Pathology(
        pathologist=_NGUYEN,
        reported=_at("2024-08-12", "10:30"),
        accession="D24-03377",
        specimen="Skin, left cheek, shave biopsy",
        history="Waxy brown plaque, 8 mm",
        gross="Shave of tan-brown skin, 0.8 x 0.6 x 0.1 cm, trisected, entirely submitted",
        microscopic="Acanthosis and papillomatosis with horn cysts. No atypia.",
        diagnosis="SEBORRHEIC KERATOSIS",
    ),
    photograph=Photograph("retina", "Retinal photograph, right eye", _at("2024-09-24", "14:10")),
    summarised=_at("2025-01-14", "17:10"),
)
