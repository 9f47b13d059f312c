"""Demographics as a FHIR R4 (4.0.1) Patient: for networks that are asked, and for customers that want FHIR."""

from chartwire.model.demographics import split_names
from chartwire.model.document import JsonObject
from chartwire.model.registry import (
    Address,
    Contact,
    Demographics,
    Gender,
    IdentifierType,
    Patient,
    PersonalIdentifier,
)

GENDERS = {Gender.F: "female", Gender.M: "male", Gender.O: "other", Gender.U: "unknown"}
"""FHIR's administrative genders."""

_SSN = "http://hl7.org/fhir/sid/us-ssn"
_IDENTIFIER_TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"


def known_patient(patient: Patient) -> JsonObject:
    """A patient of the registry, under our id; the id that the customer knows it by is an identifier."""
    resource = patient_resource(patient.demographics)
    own = [{"value": patient.external_id}] if patient.external_id else []
    identifiers = [*own, *resource.get("identifier", [])]
    return {"resourceType": "Patient", "id": patient.id, **resource} | (
        {"identifier": identifiers} if identifiers else {}
    )


def patient_resource(who: Demographics) -> JsonObject:
    """A Patient without an id; keys without a value are left out, because FHIR knows no empty arrays."""
    patient: JsonObject = {
        "resourceType": "Patient",
        "identifier": [_identifier(each) for each in who.personal_identifiers],
        "name": [{"family": " ".join(split_names(who.last_name)), "given": list(split_names(who.first_name))}],
        "telecom": [point for contact in who.contact for point in _contact_points(contact)],
        "gender": GENDERS[who.gender_at_birth],
        "birthDate": who.dob.isoformat(),
        "address": [_address(each) for each in who.address],
    }
    return {name: value for name, value in patient.items() if value}


def _identifier(identifier: PersonalIdentifier) -> JsonObject:
    """A licence's issuer is its state: each has an own system, which few servers know."""
    if identifier.type is IdentifierType.SSN:
        return {"system": _SSN, "value": identifier.value}
    issuer = {"assigner": {"display": identifier.state}} if identifier.state else {}
    return {"type": {"coding": [{"system": _IDENTIFIER_TYPES, "code": "DL"}]}, "value": identifier.value, **issuer}


def _contact_points(contact: Contact) -> list[JsonObject]:
    pairs = (("phone", contact.phone), ("email", contact.email))
    return [{"system": system, "value": value} for system, value in pairs if value]


def _address(address: Address) -> JsonObject:
    return {
        "line": [line for line in (address.address_line1, address.address_line2) if line],
        "city": address.city,
        "state": address.state,
        "postalCode": address.zip,
        "country": address.country,
    }
