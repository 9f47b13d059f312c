"""Clinical documents that say whom they are about."""


def a_ccda(born: str = "19500203", family: str = "Abbot", given: str = "Ana", sex: str = "F", text: str = "") -> bytes:
    """A clinical document of Ana Abbot, whom the engine's first patient is, or of whoever is named."""
    return (
        '<ClinicalDocument xmlns="urn:hl7-org:v3"><code code="34133-9" codeSystem="2.16.840.1.113883.6.1"/>'
        f"<title>Summary {text}</title><recordTarget><patientRole><patient><name><given>{given}</given>"
        f'<family>{family}</family></name><administrativeGenderCode code="{sex}"/><birthTime value="{born}"/>'
        "</patient></patientRole></recordTarget><component/></ClinicalDocument>"
    ).encode()
