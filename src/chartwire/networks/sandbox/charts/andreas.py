"""Andreas Sims: type 2 diabetes with diabetic kidney disease."""

from datetime import date

from chartwire.model.registry import Address, Contact, Demographics, Gender
from chartwire.networks.sandbox import terms
from chartwire.networks.sandbox.charts.times import Place
from chartwire.networks.sandbox.records import (
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

_JEFFERSON_CITY = Place(-6)
_at = _JEFFERSON_CITY.at

_CLINIC = Organization(
    51, "Missouri River Family Practice", "300 E High St", "Jefferson City", "MO", "65101", "+15735550110", terms.CLINIC
)
_RENAL = Organization(
    52,
    "Capitol Nephrology",
    "1100 Southwest Blvd",
    "Jefferson City",
    "MO",
    "65109",
    "+15735550120",
    terms.NEPHROLOGY_CLINIC,
)
_LABORATORY = Organization(
    53, "Ozark Pathology", "520 Madison St", "Jefferson City", "MO", "65101", "+15735550130", terms.LABORATORY
)

_HARMON = Clinician("2000000515", "Ruth", "Harmon", "MD", terms.FAMILY_MEDICINE, _CLINIC)
_IVERSON = Clinician("2000000523", "Carl", "Iverson", "MD", terms.NEPHROLOGY, _RENAL)
_BAUER = Clinician("2000000531", "Monika", "Bauer", "MD", terms.PATHOLOGY, _LABORATORY)

_DIABETES = Problem(
    Code("snomed", "44054006", "Diabetes mellitus type 2"),
    Code("icd10", "E11.22", "Type 2 diabetes mellitus with diabetic chronic kidney disease"),
    date(2004, 6, 8),
)
_KIDNEY = Problem(
    Code("snomed", "771000119108", "Chronic kidney disease due to type 2 diabetes mellitus"),
    Code("icd10", "N18.32", "Chronic kidney disease, stage 3b"),
    date(2019, 9, 17),
    note="Stage 3b, proved by biopsy",
)
_HYPERTENSION = Problem(
    Code("snomed", "59621000", "Essential hypertension"),
    Code("icd10", "I10", "Essential (primary) hypertension"),
    date(2002, 1, 22),
)
_RETINOPATHY = Problem(
    Code("snomed", "390834004", "Nonproliferative retinopathy due to diabetes mellitus"),
    Code("icd10", "E11.329", "Type 2 diabetes mellitus with mild nonproliferative diabetic retinopathy"),
    date(2021, 5, 11),
)

_METFORMIN = Medication(
    Code("rxnorm", "861007", "metformin hydrochloride 500 MG Oral Tablet"),
    *("1", 12, "Take 1 tablet by mouth twice a day with meals", date(2024, 10, 22), _DIABETES),
)
_METFORMIN_FULL = Medication(
    Code("rxnorm", "861004", "metformin hydrochloride 1000 MG Oral Tablet"),
    *("1", 12, "Take 1 tablet by mouth twice a day with meals", date(2008, 4, 15), _DIABETES, date(2024, 10, 22)),
)
_EMPAGLIFLOZIN = Medication(
    Code("rxnorm", "1545658", "empagliflozin 10 MG Oral Tablet"),
    *("1", 24, "Take 1 tablet by mouth every morning", date(2024, 10, 22), _KIDNEY),
)
_LISINOPRIL = Medication(
    Code("rxnorm", "314077", "lisinopril 20 MG Oral Tablet"),
    *("1", 24, "Take 1 tablet by mouth once a day", date(2005, 3, 1), _HYPERTENSION),
)
_ATORVASTATIN = Medication(
    Code("rxnorm", "617311", "atorvastatin 40 MG Oral Tablet"),
    *("1", 24, "Take 1 tablet by mouth at bedtime", date(2010, 7, 13), _DIABETES),
)

_CONSULT = Encounter(
    "nephrology",
    terms.CONSULTATION,
    _at("2024-10-22", "13:30"),
    _at("2024-10-22", "14:20"),
    _IVERSON,
    "Nephrology consultation for diabetic kidney disease",
    (_KIDNEY, _DIABETES, _HYPERTENSION),
)
_VISIT = Encounter(
    "follow-up",
    terms.FOLLOW_UP,
    _at("2025-02-04", "08:40"),
    _at("2025-02-04", "09:20"),
    _HARMON,
    "Follow-up of diabetes and kidney function",
    (_DIABETES, _KIDNEY),
)


def _panels(day: str, time: str, hba1c: str, creatinine: str, filtration: str, ratio: str) -> tuple[Panel, ...]:
    chemistry = (
        Result(terms.SODIUM, "140", "mmol/L", "136", "145"),
        Result(terms.POTASSIUM, "5.0", "mmol/L", "3.5", "5.1"),
        Result(terms.CHLORIDE, "105", "mmol/L", "98", "107"),
        Result(terms.CARBON_DIOXIDE, "22", "mmol/L", "22", "29"),
        Result(terms.UREA_NITROGEN, "34", "mg/dL", "7", "20"),
        Result(terms.CREATININE, creatinine, "mg/dL", "0.70", "1.30"),
        Result(terms.FILTRATION, filtration, "mL/min/{1.73_m2}", low="60"),
        Result(terms.PHOSPHATE, "4.1", "mg/dL", "2.5", "4.5"),
        Result(terms.ALBUMIN, "3.8", "g/dL", "3.5", "5.2"),
    )
    return (
        Panel(terms.HBA1C_PANEL, _at(day, time), (Result(terms.HBA1C, hba1c, "%", "4.0", "5.6"),)),
        Panel(terms.RENAL_PANEL, _at(day, time), chemistry),
        Panel(terms.ALBUMIN_PANEL, _at(day, time), (Result(terms.ALBUMIN_RATIO, ratio, "mg/g", high="30"),)),
    )


ANDREAS = Chart(
    number=5,
    demographics=Demographics(
        first_name="Andreas",
        last_name="Sims",
        dob=date(1952, 1, 1),
        gender_at_birth=Gender.M,
        address=(Address("4430 York St", "Jefferson City", "MO", "65101"),),
        contact=(Contact(phone="5735550142", email="andreas.sims@example.com"),),
    ),
    race=terms.WHITE,
    ethnicity=terms.HISPANIC,
    marital_status=terms.MARRIED,
    smoking=terms.FORMER_SMOKER,
    clinician=_HARMON,
    problems=(_DIABETES, _KIDNEY, _HYPERTENSION, _RETINOPATHY),
    medications=(_METFORMIN, _EMPAGLIFLOZIN, _LISINOPRIL, _ATORVASTATIN, _METFORMIN_FULL),
    allergies=(),
    panels=(
        *_panels("2025-02-04", "07:50", "7.2", "1.98", "35", "310"),
        *_panels("2024-10-22", "12:40", "8.1", "1.92", "36", "540"),
    ),
    vitals=(
        Vitals(_at("2025-02-04", "08:35"), "178", "88.6", "134", "76", "70", "14", "36.6", "97"),
        Vitals(_at("2024-10-22", "13:25"), "178", "91.2", "148", "84", "74", "15", "36.7", "97"),
    ),
    immunizations=(
        Immunization(terms.INFLUENZA, date(2023, 10, 24), "UJ9950", "Sanofi Pasteur"),
        Immunization(terms.HEPATITIS_B, date(2020, 2, 18), "9XA17", "GlaxoSmithKline"),
        Immunization(terms.PNEUMOCOCCAL, date(2017, 3, 7), "N33921", "Pfizer"),
    ),
    procedures=(
        Procedure(Code("snomed", "7246002", "Biopsy of kidney"), date(2024, 9, 12)),
        Procedure(Code("snomed", "134395001", "Diabetic retinopathy screening"), date(2024, 8, 27)),
        Procedure(Code("snomed", "401191002", "Diabetic foot examination"), date(2025, 2, 4)),
    ),
    encounters=(_VISIT, _CONSULT),
    visit=VisitNote(
        encounter=_VISIT,
        subjective=(
            "Mr. Sims comes fifteen weeks after empagliflozin was begun and metformin halved by nephrology. "
            "He has lost 2.6 kg, feels well and passes more urine in the morning. Sugars at home 105 to 155 "
            "mg/dL, no hypoglycemia, no genital infection. He walks half an hour a day. No swelling, no "
            "numbness in the feet."
        ),
        objective=(
            "Blood pressure 134/76, weight 88.6 kg. Heart and lungs normal, no edema. Feet: pulses good, "
            "skin whole, monofilament felt at all points. HbA1c 7.2 % (8.1), creatinine 1.98 mg/dL, eGFR 35 "
            "(36), potassium 5.0 mmol/L, albumin/creatinine ratio 310 mg/g (540)."
        ),
        assessment=(
            "Type 2 diabetes, close to goal. Diabetic kidney disease stage 3b with albuminuria, eGFR stable "
            "and albuminuria clearly less on empagliflozin. Blood pressure near goal; potassium at the upper "
            "limit on lisinopril."
        ),
        plans=(
            Plan(terms.RENAL_PANEL, date(2025, 5, 6), "Repeat renal panel in three months, earlier if unwell"),
            Plan(terms.HBA1C_PANEL, date(2025, 5, 6), "Repeat HbA1c in three months"),
        ),
        signed=_at("2025-02-04", "12:55"),
    ),
    other=Consultation(
        encounter=_CONSULT,
        referral="Referred by Dr. Harmon for rising albuminuria and an eGFR of 36 in type 2 diabetes of twenty years.",
        history=(
            "Diabetes since 2004, hypertension since 2002, retinopathy since 2021. Albuminuria rose from 180 "
            "to 540 mg/g within eighteen months, so the kidney was biopsied on September 12: diabetic "
            "nephropathy class IIb without other disease. No NSAIDs. Smoked until 1998."
        ),
        examination="Blood pressure 148/84, weight 91.2 kg, trace ankle edema. HbA1c 8.1 %, potassium 5.0 mmol/L.",
        assessment=(
            "Diabetic kidney disease, CKD stage 3b with severely increased albuminuria. Begin empagliflozin "
            "10 mg; halve metformin to 500 mg twice a day for the eGFR; keep lisinopril 20 mg. Blood "
            "pressure goal below 130/80. Consider finerenone if potassium allows. Teaching on sick days "
            "given."
        ),
        plans=(Plan(terms.RENAL_PANEL, date(2025, 2, 4), "Renal panel and albumin/creatinine ratio at Dr. Harmon's"),),
        signed=_at("2024-10-22", "17:25"),
    ),
    pathology=Pathology(
        pathologist=_BAUER,
        reported=_at("2024-09-17", "15:10"),
        accession="K24-00291",
        specimen="Left kidney, needle core biopsy",
        history="Type 2 diabetes, albuminuria 540 mg/g, eGFR 36",
        gross="Two cores, 1.4 and 1.1 cm, divided for light, immunofluorescence and electron microscopy",
        microscopic=(
            "Nineteen glomeruli, four globally sclerosed. Severe mesangial expansion without nodules, "
            "thickened basement membranes. Interstitial fibrosis 30 %. Immunofluorescence negative."
        ),
        diagnosis="DIABETIC NEPHROPATHY, CLASS IIB",
    ),
    photograph=Photograph("retina", "Retinal photograph, left eye", _at("2024-08-27", "09:20")),
    summarised=_at("2025-02-04", "13:20"),
)
