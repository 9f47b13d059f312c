"""Chris Smith: chronic kidney disease of a polycystic kidney, followed by nephrology."""

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

_CHICAGO = Place(-6)
_at = _CHICAGO.at

_CLINIC = Organization(
    21, "Lincoln Park Internal Medicine", "2400 N Clark St", "Chicago", "IL", "60614", "+13125550110", terms.CLINIC
)
_RENAL = Organization(
    22,
    "Lakeshore Kidney Center",
    "680 N Lake Shore Dr",
    "Chicago",
    "IL",
    "60611",
    "+13125550120",
    terms.NEPHROLOGY_CLINIC,
)
_LABORATORY = Organization(
    23, "Prairie Pathology", "1900 W Polk St", "Chicago", "IL", "60612", "+13125550130", terms.LABORATORY
)

_NOVAK = Clinician("2000000218", "Peter", "Novak", "MD", terms.INTERNAL_MEDICINE, _CLINIC)
_RAMAN = Clinician("2000000226", "Anita", "Raman", "MD", terms.NEPHROLOGY, _RENAL)
_OKAFOR = Clinician("2000000234", "Grace", "Okafor", "MD", terms.PATHOLOGY, _LABORATORY)

_POLYCYSTIC = Problem(
    Code("snomed", "765330003", "Autosomal dominant polycystic kidney disease"),
    Code("icd10", "Q61.2", "Polycystic kidney, adult type"),
    date(2016, 11, 2),
    note="Father on dialysis since 48",
)
_KIDNEY = Problem(
    Code("snomed", "700378005", "Chronic kidney disease stage 3A"),
    Code("icd10", "N18.31", "Chronic kidney disease, stage 3a"),
    date(2023, 3, 15),
)
_HYPERTENSION = Problem(
    Code("snomed", "59621000", "Essential hypertension"),
    Code("icd10", "I10", "Essential (primary) hypertension"),
    date(2019, 7, 9),
)
_VITAMIN_D = Problem(
    Code("snomed", "34713006", "Vitamin D deficiency"),
    Code("icd10", "E55.9", "Vitamin D deficiency, unspecified"),
    date(2022, 1, 12),
    resolved=date(2022, 9, 20),
)

_LOSARTAN = Medication(
    Code("rxnorm", "979492", "losartan potassium 50 MG Oral Tablet"),
    *("1", 24, "Take 1 tablet by mouth once a day", date(2024, 11, 19), _HYPERTENSION),
)
_LISINOPRIL = Medication(
    Code("rxnorm", "314076", "lisinopril 10 MG Oral Tablet"),
    *("1", 24, "Take 1 tablet by mouth once a day", date(2019, 7, 9), _HYPERTENSION, date(2024, 11, 19)),
)
_ATORVASTATIN = Medication(
    Code("rxnorm", "617310", "atorvastatin 20 MG Oral Tablet"),
    *("1", 24, "Take 1 tablet by mouth at bedtime", date(2023, 3, 15), _KIDNEY),
)

_CONSULT = Encounter(
    "nephrology",
    terms.CONSULTATION,
    _at("2024-11-19", "10:00"),
    _at("2024-11-19", "10:45"),
    _RAMAN,
    "Nephrology consultation for falling kidney function",
    (_POLYCYSTIC, _KIDNEY, _HYPERTENSION),
)
_VISIT = Encounter(
    "follow-up",
    terms.FOLLOW_UP,
    _at("2025-02-11", "14:00"),
    _at("2025-02-11", "14:30"),
    _NOVAK,
    "Follow-up of blood pressure and kidney function",
    (_KIDNEY, _HYPERTENSION),
)


def _renal_panel(day: str, time: str, potassium: str, urea: str, creatinine: str, filtration: str) -> Panel:
    results = (
        Result(terms.SODIUM, "139", "mmol/L", "136", "145"),
        Result(terms.POTASSIUM, potassium, "mmol/L", "3.5", "5.1"),
        Result(terms.CHLORIDE, "104", "mmol/L", "98", "107"),
        Result(terms.CARBON_DIOXIDE, "24", "mmol/L", "22", "29"),
        Result(terms.UREA_NITROGEN, urea, "mg/dL", "7", "20"),
        Result(terms.CREATININE, creatinine, "mg/dL", "0.70", "1.30"),
        Result(terms.FILTRATION, filtration, "mL/min/{1.73_m2}", low="60"),
        Result(terms.CALCIUM, "9.3", "mg/dL", "8.6", "10.2"),
        Result(terms.PHOSPHATE, "3.6", "mg/dL", "2.5", "4.5"),
        Result(terms.ALBUMIN, "4.2", "g/dL", "3.5", "5.2"),
    )
    return Panel(terms.RENAL_PANEL, _at(day, time), results)


CHRIS = Chart(
    number=2,
    demographics=Demographics(
        first_name="Chris",
        last_name="Smith",
        dob=date(1995, 1, 1),
        gender_at_birth=Gender.M,
        address=(Address("123 Atlantis Rd", "Chicago", "IL", "60614"),),
        contact=(Contact(phone="3125550142", email="chris.smith@example.com"),),
    ),
    race=terms.WHITE,
    ethnicity=terms.NOT_HISPANIC,
    marital_status=terms.MARRIED,
    smoking=terms.NEVER_SMOKED,
    clinician=_NOVAK,
    problems=(_POLYCYSTIC, _KIDNEY, _HYPERTENSION, _VITAMIN_D),
    medications=(_LOSARTAN, _ATORVASTATIN, _LISINOPRIL),
    allergies=(
        Allergy(
            Code("rxnorm", "29046", "lisinopril"), terms.DRUG_INTOLERANCE, terms.COUGH, terms.MILD, date(2024, 11, 19)
        ),
    ),
    panels=(
        _renal_panel("2025-02-11", "08:15", "4.7", "24", "1.62", "58"),
        Panel(
            terms.ALBUMIN_PANEL,
            _at("2025-02-11", "08:15"),
            (Result(terms.ALBUMIN_RATIO, "48", "mg/g", high="30"),),
        ),
        _renal_panel("2024-11-19", "09:10", "4.9", "27", "1.75", "53"),
        Panel(
            terms.ALBUMIN_PANEL,
            _at("2024-11-19", "09:10"),
            (Result(terms.ALBUMIN_RATIO, "96", "mg/g", high="30"),),
        ),
    ),
    vitals=(
        Vitals(_at("2025-02-11", "13:55"), "180", "81.3", "128", "78", "68", "14", "36.6", "98"),
        Vitals(_at("2024-11-19", "09:50"), "180", "82.0", "146", "92", "74", "15", "36.7", "98"),
    ),
    immunizations=(
        Immunization(terms.INFLUENZA, date(2023, 10, 3), "UJ9921", "Sanofi Pasteur"),
        Immunization(terms.HEPATITIS_B, date(2023, 5, 2), "7BX39", "GlaxoSmithKline"),
    ),
    procedures=(Procedure(Code("snomed", "306005", "Ultrasonography of kidney"), date(2024, 11, 5)),),
    encounters=(_VISIT, _CONSULT),
    visit=VisitNote(
        encounter=_VISIT,
        subjective=(
            "Mr. Smith comes twelve weeks after losartan replaced lisinopril, which had made him cough. The "
            "cough is gone. Home blood pressures run 122 to 132 over 74 to 82. No flank pain, no visible "
            "blood in the urine, no swelling. He drinks about three liters a day and has cut down on salt."
        ),
        objective=(
            "Blood pressure 128/78. Kidneys palpable on both sides, not tender. No edema. Creatinine 1.62 "
            "mg/dL (1.75 in November), eGFR 58, potassium 4.7 mmol/L, urine albumin/creatinine ratio 48 mg/g "
            "(96 in November)."
        ),
        assessment=(
            "Chronic kidney disease stage 3a from autosomal dominant polycystic kidney disease, stable to "
            "improved on losartan; albuminuria halved. Hypertension at goal. Potassium acceptable."
        ),
        plans=(
            Plan(terms.RENAL_PANEL, date(2025, 5, 13), "Repeat renal panel in three months"),
            Plan(terms.ALBUMIN_PANEL, date(2025, 5, 13), "Repeat urine albumin/creatinine ratio in three months"),
        ),
        signed=_at("2025-02-11", "18:20"),
    ),
    other=Consultation(
        encounter=_CONSULT,
        referral="Referred by Dr. Novak: eGFR fell from 62 to 53 within a year, with known polycystic kidneys.",
        history=(
            "Polycystic kidneys found at 21 in family screening; father reached dialysis at 48. Hypertension "
            "since 24. Dry cough for months on lisinopril. Ultrasound on November 5 shows enlarged kidneys "
            "(17.1 and 16.8 cm) with many cysts and no obstruction. Takes ibuprofen for headaches twice a "
            "week."
        ),
        examination="Blood pressure 146/92, both kidneys palpable, no edema. Albumin/creatinine ratio 96 mg/g.",
        assessment=(
            "Autosomal dominant polycystic kidney disease with CKD stage 3a and albuminuria; blood pressure "
            "above goal. Change lisinopril to losartan 50 mg, aim for less than 130/80. Stop ibuprofen and "
            "other NSAIDs. Low-salt diet and three liters of water a day. Discuss tolvaptan at the next "
            "visit."
        ),
        plans=(Plan(terms.RENAL_PANEL, date(2025, 2, 11), "Renal panel and albumin/creatinine ratio at Dr. Novak's"),),
        signed=_at("2024-11-19", "15:30"),
    ),
    pathology=Pathology(
        pathologist=_OKAFOR,
        reported=_at("2024-11-22", "09:40"),
        accession="CY24-05518",
        specimen="Voided urine, cytology",
        history="Polycystic kidneys, one episode of visible blood in the urine in October",
        gross="60 mL of clear yellow fluid",
        microscopic="Benign urothelial cells, few red blood cells, no casts. No atypical cells.",
        diagnosis="NEGATIVE FOR HIGH-GRADE UROTHELIAL CARCINOMA",
    ),
    photograph=Photograph("insurance card", "Insurance card, front", _at("2024-11-19", "09:45")),
    summarised=_at("2025-02-11", "18:45"),
)
