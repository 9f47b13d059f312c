"""Accounts and their keys, organizations, facilities, patients and their links. Plain functions of a connection.

Every function that serves a customer takes the account's id and finds nothing of another account.
"""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, delete, exists, func, insert, select, update

from chartwire.errors import NotFoundError
from chartwire.ids import new_id, url_safe
from chartwire.model.document import QueryStatus
from chartwire.model.registry import (
    Account,
    Address,
    ApiKey,
    Demographics,
    Facility,
    Gender,
    LinkState,
    Organization,
    OrganizationType,
    Patient,
)
from chartwire.model.search import searchable
from chartwire.store.endpoints import create_settings_endpoint
from chartwire.store.records import from_json, to_json
from chartwire.store.schema import (
    account,
    api_key,
    document_query,
    facility,
    organization,
    patient,
    patient_facility,
    patient_link,
)

_KEY_PREFIX = "cw_"
_KEY_CHARACTERS = 43  # 258 random bits
_HINT_CHARACTERS = 8


# --- accounts and keys ------------------------------------------------------------------------------------------------


def create_account(connection: Connection, name: str, now: datetime) -> Account:
    """A new account, with the endpoint that its `/settings` shows."""
    record = Account(new_id(), name, now)
    connection.execute(insert(account).values(id=record.id, name=name, created_at=now))
    create_settings_endpoint(connection, record.id, now)
    return record


def find_account(connection: Connection, account_id: str) -> Account | None:
    """An account by its id."""
    row = connection.execute(select(account).where(account.c.id == account_id)).one_or_none()
    return None if row is None else Account(row.id, row.name, row.created_at)


def list_accounts(connection: Connection) -> list[Account]:
    """Every account, the oldest first: for the operator."""
    rows = connection.execute(select(account).order_by(account.c.id))
    return [Account(row.id, row.name, row.created_at) for row in rows]


def create_api_key(connection: Connection, account_id: str, label: str, now: datetime) -> tuple[ApiKey, str]:
    """A new key of an account: its record, and the key itself, which is nowhere to be had again."""
    if find_account(connection, account_id) is None:
        raise NotFoundError("Could not find account")
    secret = _KEY_PREFIX + url_safe(_KEY_CHARACTERS)
    record = ApiKey(new_id(), account_id, label, secret[:_HINT_CHARACTERS], now)
    connection.execute(
        insert(api_key).values(
            id=record.id,
            account_id=account_id,
            secret_hash=_hash(secret),
            hint=record.hint,
            label=label,
            created_at=now,
        )
    )
    return record, secret


def list_api_keys(connection: Connection, account_id: str | None = None) -> list[ApiKey]:
    """The keys of an account, or of all, revoked ones too, the oldest first: for the operator."""
    query = select(api_key).order_by(api_key.c.id)
    rows = connection.execute(query if account_id is None else query.where(api_key.c.account_id == account_id))
    return [ApiKey(row.id, row.account_id, row.label, row.hint, row.created_at, row.revoked_at) for row in rows]


def revoke_api_key(connection: Connection, key_id: str, now: datetime) -> str:
    """End a key for good; returns its account's id. Raises `NotFoundError` if there is no such key that still works."""
    account_id: str | None = connection.execute(
        update(api_key)
        .where(api_key.c.id == key_id, api_key.c.revoked_at.is_(None))
        .values(revoked_at=now)
        .returning(api_key.c.account_id)
    ).scalar_one_or_none()
    if account_id is None:
        raise NotFoundError("Could not find an API key of this id that still works")
    return account_id


def authenticate(connection: Connection, key: str) -> tuple[str, str] | None:
    """Account and id of a key that is known and not revoked."""
    row = connection.execute(
        select(api_key.c.account_id, api_key.c.id).where(
            api_key.c.secret_hash == _hash(key), api_key.c.revoked_at.is_(None)
        )
    ).one_or_none()
    return None if row is None else (row.account_id, row.id)


def _hash(key: str) -> str:
    # A fast hash is right here: a key has 258 random bits, so there is nothing that guessing could find.
    return sha256(key.encode()).hexdigest()


# --- organization -----------------------------------------------------------------------------------------------------


def get_organization(connection: Connection, account_id: str) -> Organization | None:
    """The account's organization."""
    row = connection.execute(select(organization).where(organization.c.account_id == account_id)).one_or_none()
    if row is None:
        return None
    return Organization(
        id=row.id,
        account_id=row.account_id,
        oid=row.oid,
        name=row.name,
        type=OrganizationType(row.type),
        location=from_json(Address, row.location),
        version=row.version,
    )


def insert_organization(connection: Connection, record: Organization) -> None:
    """Write the account's organization."""
    connection.execute(insert(organization).values(**_organization_row(record)))


def update_organization(connection: Connection, record: Organization) -> None:
    """Write its new state."""
    connection.execute(update(organization).where(organization.c.id == record.id).values(**_organization_row(record)))


def _organization_row(record: Organization) -> dict[str, Any]:
    return {
        "id": record.id,
        "account_id": record.account_id,
        "oid": record.oid,
        "name": record.name,
        "type": record.type,
        "location": to_json(record.location),
        "version": record.version,
    }


# --- facility ---------------------------------------------------------------------------------------------------------


def get_facility(connection: Connection, account_id: str, facility_id: str) -> Facility | None:
    """A facility of the account."""
    return next(iter(_facilities(connection, facility.c.account_id == account_id, facility.c.id == facility_id)), None)


def find_facility_by_npi(connection: Connection, account_id: str, npi: str) -> Facility | None:
    """The account's facility of this National Provider Identifier."""
    return next(iter(_facilities(connection, facility.c.account_id == account_id, facility.c.npi == npi)), None)


def list_facilities(connection: Connection, account_id: str) -> list[Facility]:
    """The account's facilities by ascending id."""
    return _facilities(connection, facility.c.account_id == account_id)


def facilities_of(connection: Connection, record: Patient) -> list[Facility]:
    """The facilities of a patient by ascending id."""
    return _facilities(connection, facility.c.id.in_(record.facility_ids))


def insert_facility(connection: Connection, record: Facility) -> None:
    """Write a new facility."""
    connection.execute(insert(facility).values(**_facility_row(record)))


def update_facility(connection: Connection, record: Facility) -> None:
    """Write its new state."""
    connection.execute(update(facility).where(facility.c.id == record.id).values(**_facility_row(record)))


def delete_facility(connection: Connection, facility_id: str) -> None:
    """Remove a facility that has no patients."""
    connection.execute(delete(facility).where(facility.c.id == facility_id))


def has_patients(connection: Connection, facility_id: str) -> bool:
    """Whether any patient belongs to the facility."""
    query = select(exists().where(patient_facility.c.facility_id == facility_id))
    return bool(connection.execute(query).scalar_one())


def _facilities(connection: Connection, *conditions: ColumnElement[bool]) -> list[Facility]:
    return [
        Facility(
            id=row.id,
            account_id=row.account_id,
            oid=row.oid,
            name=row.name,
            npi=row.npi,
            address=from_json(Address, row.address),
            created_at=row.created_at,
            tin=row.tin,
            active=row.active,
            version=row.version,
        )
        for row in connection.execute(select(facility).where(*conditions).order_by(facility.c.id))
    ]


def _facility_row(record: Facility) -> dict[str, Any]:
    return {
        "id": record.id,
        "account_id": record.account_id,
        "oid": record.oid,
        "name": record.name,
        "npi": record.npi,
        "address": to_json(record.address),
        "created_at": record.created_at,
        "tin": record.tin,
        "active": record.active,
        "version": record.version,
    }


# --- patient ----------------------------------------------------------------------------------------------------------


_FACILITY_IDS = (
    select(func.aggregate_strings(patient_facility.c.facility_id, ","))
    .where(patient_facility.c.patient_id == patient.c.id)
    .correlate(patient)
    .scalar_subquery()
    .label("facility_ids")
)


_IS_PATIENT = and_(patient.c.account_id == bindparam("account"), patient.c.id == bindparam("patient"))
_PATIENT = select(patient, _FACILITY_IDS).where(_IS_PATIENT)
_OPTED_OUT = select(patient.c.opted_out).where(_IS_PATIENT)


def get_patient(connection: Connection, account_id: str, patient_id: str) -> Patient | None:
    """A patient of the account."""
    row = connection.execute(_PATIENT, {"account": account_id, "patient": patient_id}).one_or_none()
    return None if row is None else _patient(row)


def may_be_asked_about(connection: Connection, account_id: str, patient_id: str) -> bool:
    """Whether the account has the patient, and the patient has not opted out."""
    own = {"account": account_id, "patient": patient_id}
    return connection.execute(_OPTED_OUT, own).scalar_one_or_none() is False


def insert_patient(connection: Connection, record: Patient) -> None:
    """Write a new patient and its facilities."""
    connection.execute(insert(patient).values(**_patient_row(record)))
    set_facilities(connection, record.id, record.facility_ids)


def update_patient(connection: Connection, record: Patient) -> None:
    """Write its new state, but for its facilities."""
    connection.execute(update(patient).where(patient.c.id == record.id).values(**_patient_row(record)))


def set_facilities(connection: Connection, patient_id: str, facility_ids: Iterable[str]) -> None:
    """Replace the facilities of a patient."""
    connection.execute(delete(patient_facility).where(patient_facility.c.patient_id == patient_id))
    rows = [{"patient_id": patient_id, "facility_id": facility_id} for facility_id in dict.fromkeys(facility_ids)]
    connection.execute(insert(patient_facility), rows)


def delete_patient(connection: Connection, patient_id: str) -> None:
    """Remove a patient with everything that hangs on it: queries, steps, documents, links. The audit trail stays."""
    connection.execute(delete(patient).where(patient.c.id == patient_id))


def match_candidates(connection: Connection, account_id: str, dob: date, gender: Gender) -> list[Patient]:
    """The account's patients who share birth date and gender, the oldest record first."""
    return select_patients(
        connection,
        [patient.c.account_id == account_id, patient.c.dob == dob.isoformat(), patient.c.gender == gender],
    )


def find_by_external_id(connection: Connection, account_id: str, external_id: str) -> Patient | None:
    """The account's patient of this external id; of several the oldest record."""
    found = select_patients(connection, [patient.c.account_id == account_id, patient.c.external_id == external_id])
    return next(iter(found), None)


def find_by_source_id(connection: Connection, account_id: str, source: str, external_id: str) -> Patient | None:
    """The account's patient that is known by this id in another system."""
    knows_source = patient.c.additional_ids[source].as_string().is_not(None)
    found = select_patients(connection, [patient.c.account_id == account_id, knows_source])
    return next((record for record in found if external_id in record.additional_ids[source]), None)


def has_running_query(connection: Connection, patient_id: str) -> bool:
    """Whether a document query of this patient is in progress."""
    running = document_query.c.status == QueryStatus.PROCESSING
    return bool(
        connection.execute(select(exists().where(document_query.c.patient_id == patient_id, running))).scalar_one()
    )


def save_links(
    connection: Connection,
    patient_id: str,
    network: str,
    links: Iterable[tuple[str, LinkState, float | None]],
    now: datetime,
) -> None:
    """Write what a network said of its records of a patient: remote id, state, and score from 0 to 1 if it gave one."""
    for remote_id, state, score in links:
        values = {"state": state, "score": None if score is None else round(score * 1000), "updated_at": now}
        key = {"patient_id": patient_id, "network": network, "remote_id": remote_id}
        same = [patient_link.c[name] == value for name, value in key.items()]
        if connection.execute(update(patient_link).where(*same).values(**values)).rowcount == 0:
            connection.execute(insert(patient_link).values(**key, **values, first_seen_at=now))


def select_patients(
    connection: Connection,
    conditions: Sequence[ColumnElement[bool]],
    order: ColumnElement[Any] | None = None,
    limit: int | None = None,
) -> list[Patient]:
    """Patients by conditions on the table, the oldest first unless `order` says otherwise."""
    query = select(patient, _FACILITY_IDS).where(*conditions).order_by(patient.c.id if order is None else order)
    return [_patient(row) for row in connection.execute(query.limit(limit))]


def _patient(row: Row[Any]) -> Patient:
    return Patient(
        id=row.id,
        account_id=row.account_id,
        demographics=from_json(Demographics, row.demographics),
        facility_ids=tuple(sorted((row.facility_ids or "").split(","))),
        created_at=row.created_at,
        external_id=row.external_id,
        additional_ids=row.additional_ids,
        opted_out=row.opted_out,
        version=row.version,
    )


def _patient_row(record: Patient) -> dict[str, Any]:
    return {
        "id": record.id,
        "account_id": record.account_id,
        "dob": record.demographics.dob.isoformat(),
        "gender": record.demographics.gender_at_birth,
        "demographics": to_json(record.demographics),
        "search_text": searchable(record.demographics),
        "external_id": record.external_id,
        "additional_ids": record.additional_ids,
        "opted_out": record.opted_out,
        "created_at": record.created_at,
        "version": record.version,
    }
