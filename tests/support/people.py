"""Invented people and places, for tests of the registry."""

from datetime import UTC, date, datetime
from typing import Any

from chartwire.model.registry import Address, Contact, Demographics, Facility, Gender, Patient

NOW = datetime(2025, 1, 2, 3, 4, 5, 678000, UTC)
NPIS = ("1234567893", "1245319599", "1679576722", "2000000002")
ELM_STREET = Address("1 Elm St", "Ukiah", "CA", "95482")


def a_person(**changes: Any) -> Demographics:
    """Ana Roe, or somebody who differs from her in `changes`."""
    values: dict[str, Any] = {
        "first_name": "Ana",
        "last_name": "Roe",
        "dob": date(1980, 2, 3),
        "gender_at_birth": Gender.F,
        "address": (ELM_STREET,),
        "contact": (Contact("7075550100", "ana@example.org"),),
    }
    return Demographics(**{**values, **changes})


def a_facility(account_id: str, identifier: str = "f1", npi: str = NPIS[0], name: str = "Elm Clinic") -> Facility:
    """A facility."""
    return Facility(identifier, account_id, f"2.25.{identifier}", name, npi, ELM_STREET, NOW)


def a_patient(account_id: str, identifier: str = "p1", **changes: Any) -> Patient:
    """A patient of facility `f1`; `person` changes the demographics."""
    person = a_person(**changes.pop("person", {}))
    values: dict[str, Any] = {"demographics": person, "facility_ids": ("f1",), "created_at": NOW}
    return Patient(identifier, account_id, **{**values, **changes})


def address_body(**changes: Any) -> dict[str, Any]:
    """An address as clients send it."""
    return {"addressLine1": "1 Elm St", "city": "Ukiah", "state": "CA", "zip": "95482", "country": "USA", **changes}


def facility_body(npi: str = NPIS[0], **changes: Any) -> dict[str, Any]:
    """A facility as clients send it."""
    return {"name": "Elm Clinic", "npi": npi, "address": address_body(), **changes}


def patient_body(**changes: Any) -> dict[str, Any]:
    """A patient as clients send it."""
    return {
        "firstName": "Ana",
        "lastName": "Roe",
        "dob": "1980-02-03",
        "genderAtBirth": "F",
        "address": [address_body()],
        "contact": [{"phone": "7075550100", "email": "ana@example.org"}],
        **changes,
    }
