"""Rules that several changes of the registry share."""

from sqlalchemy import Connection

from chartwire.errors import BadRequestError, NotFoundError, VersionMismatchError
from chartwire.model.registry import Facility, Patient, etag
from chartwire.store import registry


def find_facility(connection: Connection, account_id: str, facility_id: str) -> Facility:
    """A facility of the account; raises `NotFoundError`."""
    facility = registry.get_facility(connection, account_id, facility_id)
    if facility is None:
        raise NotFoundError("Could not find facility")
    return facility


def find_patient(connection: Connection, account_id: str, patient_id: str) -> Patient:
    """A patient of the account; raises `NotFoundError`."""
    patient = registry.get_patient(connection, account_id, patient_id)
    if patient is None:
        raise NotFoundError("Could not find patient")
    return patient


def check_version(identifier: str, current: int, wanted: str | None) -> None:
    """Raises `VersionMismatchError` unless `wanted` is the eTag of the current version, or None."""
    if wanted is not None and wanted != etag(identifier, current):
        raise VersionMismatchError


def check_facility(connection: Connection, patient: Patient, facility_id: str | None) -> None:
    """A change of a patient names one of its facilities; it need not when there is only one.

    Raises `NotFoundError` for a facility that the account does not have, else `BadRequestError`.
    """
    if facility_id is None:
        if len(patient.facility_ids) > 1:
            raise BadRequestError("Patient is associated with more than one facility (facilityId is required)")
        return
    find_facility(connection, patient.account_id, facility_id)
    if facility_id not in patient.facility_ids:
        raise BadRequestError("Patient not associated with given facility")
