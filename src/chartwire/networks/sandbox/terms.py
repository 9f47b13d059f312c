"""Code systems, and the coded terms that more than one invented chart uses."""

from chartwire.networks.sandbox.records import Code

SYSTEMS = {
    "loinc": ("2.16.840.1.113883.6.1", "LOINC"),
    "snomed": ("2.16.840.1.113883.6.96", "SNOMED CT"),
    "rxnorm": ("2.16.840.1.113883.6.88", "RxNorm"),
    "icd10": ("2.16.840.1.113883.6.90", "ICD-10-CM"),
    "cvx": ("2.16.840.1.113883.12.292", "CVX"),
    "nci": ("2.16.840.1.113883.3.26.1.1", "NCI Thesaurus"),
    "nucc": ("2.16.840.1.113883.6.101", "NUCC Health Care Provider Taxonomy"),
    "race": ("2.16.840.1.113883.6.238", "Race & Ethnicity - CDC"),
    "marital": ("2.16.840.1.113883.5.2", "MaritalStatus"),
    "hsloc": ("2.16.840.1.113883.6.259", "HealthcareServiceLocation"),
    "discharge": ("2.16.840.1.113883.12.112", "DischargeDisposition"),
    "actcode": ("2.16.840.1.113883.5.4", "ActCode"),
    "actclass": ("2.16.840.1.113883.5.6", "ActClass"),
    "function": ("2.16.840.1.113883.5.88", "ParticipationFunction"),
    "gender": ("2.16.840.1.113883.5.1", "AdministrativeGender"),
    "interpretation": ("2.16.840.1.113883.5.83", "ObservationInterpretation"),
    "confidentiality": ("2.16.840.1.113883.5.25", "Confidentiality"),
}
"""Object identifier and name of each code system."""

WHITE = Code("race", "2106-3", "White")
BLACK = Code("race", "2054-5", "Black or African American")
NOT_HISPANIC = Code("race", "2186-5", "Not Hispanic or Latino")
HISPANIC = Code("race", "2135-2", "Hispanic or Latino")
NEVER_MARRIED = Code("marital", "S", "Never Married")
MARRIED = Code("marital", "M", "Married")
WIDOWED = Code("marital", "W", "Widowed")
NEVER_SMOKED = Code("snomed", "266919005", "Never smoked tobacco")
FORMER_SMOKER = Code("snomed", "8517006", "Ex-smoker")

FAMILY_MEDICINE = Code("nucc", "207Q00000X", "Family Medicine Physician")
INTERNAL_MEDICINE = Code("nucc", "207R00000X", "Internal Medicine Physician")
NEPHROLOGY = Code("nucc", "207RN0300X", "Nephrology Physician")
PSYCHIATRY = Code("nucc", "2084P0800X", "Psychiatry Physician")
HOSPITALIST = Code("nucc", "208M00000X", "Hospitalist Physician")
PATHOLOGY = Code("nucc", "207ZP0102X", "Anatomic Pathology & Clinical Pathology Physician")

DRUG_ALLERGY = Code("snomed", "416098002", "Allergy to drug")
DRUG_INTOLERANCE = Code("snomed", "59037007", "Intolerance to drug")
WEAL = Code("snomed", "247472004", "Weal")
RASH = Code("snomed", "271807003", "Eruption of skin")
NAUSEA = Code("snomed", "422587007", "Nausea")
COUGH = Code("snomed", "49727002", "Cough")
MILD = Code("snomed", "255604002", "Mild")
MODERATE = Code("snomed", "6736007", "Moderate")

FOLLOW_UP = Code("snomed", "390906007", "Follow-up encounter")
CONSULTATION = Code("snomed", "11429006", "Consultation")
ADMISSION = Code("snomed", "32485007", "Hospital admission")

CLINIC = Code("hsloc", "1120-5", "Medical Clinic")
NEPHROLOGY_CLINIC = Code("hsloc", "1135-3", "Nephrology clinic")
MEDICAL_WARD = Code("hsloc", "1060-3", "Medical Ward")
OBSERVATION_AREA = Code("hsloc", "1162-7", "24-Hour Observation Area")
LABORATORY = Code("hsloc", "1010-8", "General Laboratory")

BASIC_PANEL = Code("loinc", "51990-0", "Basic metabolic panel - Blood")
RENAL_PANEL = Code("loinc", "24362-6", "Renal function 2000 panel - Serum or Plasma")
LIPID_PANEL = Code("loinc", "24331-1", "Lipid 1996 panel - Serum or Plasma")
BLOOD_COUNT = Code("loinc", "58410-2", "CBC panel - Blood by Automated count")
HBA1C_PANEL = Code("loinc", "55454-3", "Hemoglobin A1c in Blood panel")
ALBUMIN_PANEL = Code("loinc", "34535-5", "Microalbumin/Creatinine panel - Urine")
PHQ9_PANEL = Code("loinc", "44249-1", "PHQ-9 quick depression assessment panel")
GAD7_PANEL = Code("loinc", "69737-5", "Generalized anxiety disorder 7 item (GAD-7)")

SODIUM = Code("loinc", "2951-2", "Sodium [Moles/volume] in Serum or Plasma")
POTASSIUM = Code("loinc", "2823-3", "Potassium [Moles/volume] in Serum or Plasma")
CHLORIDE = Code("loinc", "2075-0", "Chloride [Moles/volume] in Serum or Plasma")
CARBON_DIOXIDE = Code("loinc", "2028-9", "Carbon dioxide, total [Moles/volume] in Serum or Plasma")
UREA_NITROGEN = Code("loinc", "3094-0", "Urea nitrogen [Mass/volume] in Serum or Plasma")
CREATININE = Code("loinc", "2160-0", "Creatinine [Mass/volume] in Serum or Plasma")
FILTRATION = Code("loinc", "98979-8", "Glomerular filtration rate (CKD-EPI 2021)")
GLUCOSE = Code("loinc", "2345-7", "Glucose [Mass/volume] in Serum or Plasma")
CALCIUM = Code("loinc", "17861-6", "Calcium [Mass/volume] in Serum or Plasma")
PHOSPHATE = Code("loinc", "2777-1", "Phosphate [Mass/volume] in Serum or Plasma")
ALBUMIN = Code("loinc", "1751-7", "Albumin [Mass/volume] in Serum or Plasma")
HBA1C = Code("loinc", "4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood")
ALBUMIN_RATIO = Code("loinc", "9318-7", "Albumin/Creatinine [Mass Ratio] in Urine")
CHOLESTEROL = Code("loinc", "2093-3", "Cholesterol [Mass/volume] in Serum or Plasma")
HDL = Code("loinc", "2085-9", "Cholesterol in HDL [Mass/volume] in Serum or Plasma")
LDL = Code("loinc", "13457-7", "Cholesterol in LDL [Mass/volume] in Serum or Plasma by calculation")
TRIGLYCERIDE = Code("loinc", "2571-8", "Triglyceride [Mass/volume] in Serum or Plasma")
HEMOGLOBIN = Code("loinc", "718-7", "Hemoglobin [Mass/volume] in Blood")
HEMATOCRIT = Code("loinc", "4544-3", "Hematocrit [Volume Fraction] of Blood by Automated count")
LEUKOCYTES = Code("loinc", "6690-2", "Leukocytes [#/volume] in Blood by Automated count")
PLATELETS = Code("loinc", "777-3", "Platelets [#/volume] in Blood by Automated count")
THYROTROPIN = Code("loinc", "3016-3", "Thyrotropin [Units/volume] in Serum or Plasma")
PHQ9_SCORE = Code("loinc", "44261-6", "Patient Health Questionnaire 9 item (PHQ-9) total score [Reported]")
GAD7_SCORE = Code("loinc", "70274-6", "Generalized anxiety disorder 7 item (GAD-7) total score [Reported.PHQ]")

INFLUENZA = Code("cvx", "150", "Influenza, injectable, quadrivalent, preservative free")
TDAP = Code("cvx", "115", "Tdap")
PNEUMOCOCCAL = Code("cvx", "133", "Pneumococcal conjugate PCV13")
POLYSACCHARIDE = Code("cvx", "33", "Pneumococcal polysaccharide PPV23")
ZOSTER = Code("cvx", "187", "Zoster vaccine recombinant")
HEPATITIS_B = Code("cvx", "43", "Hep B, adult")
