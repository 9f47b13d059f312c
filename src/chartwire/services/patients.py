"""Patients: created or found again, changed, listed, removed. Part of the registry.

Who saw or changed what is written to the audit trail before the answer leaves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from sqlalchemy import Connection

from chartwire.clock import Clock
from chartwire.errors import BadRequestError, LockedError, NotFoundError
from chartwire.ids import new_id
from chartwire.model.matching import find_match
from chartwire.model.registry import Demographics, Facility, Patient
from chartwire.services.looks import record_look
from chartwire.services.registry_rules import check_facility, check_version, find_facility, find_patient
from chartwire.store import audit, outbox, patient_lists, registry
from chartwire.store.database import Database, lock_account, lock_patient
from chartwire.store.patient_lists import PatientFilter, PatientPage, PatientWindow
from chartwire.store.vault import Vault

T = TypeVar("T")

EXTERNAL_SOURCES = ("athenahealth", "elation", "canvas", "healthie", "eclinicalworks", "salesforce", "quest")
"""Systems whose ids of a patient can be asked for."""


@dataclass(frozen=True, slots=True)
class PatientDraft:
    """What a customer says of a patient."""

    demographics: Demographics
    external_id: str | None = None


@dataclass(frozen=True, slots=True)
class PatientListing:
    """A list or a part of one; `total` is told with the whole list and with its first part."""

    page: PatientPage
    total: int | None


class PatientService:
    """What a customer may do with patients.

    `version` is the eTag that a change is meant for; None changes whatever is there. Raises `NotFoundError` for what is
    absent or another account's, `BadRequestError`, `VersionMismatchError`, `LockedError`.
    """

    def __init__(self, database: Database, vault: Vault, clock: Clock) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock

    async def create(self, account_id: str, actor: str, facility_id: str, draft: PatientDraft) -> Patient:
        """A new patient of a facility, or the one that is already known by these demographics, unchanged."""
        self._check_birth_date(draft.demographics)
        record = Patient(
            id=new_id(),
            account_id=account_id,
            demographics=draft.demographics,
            facility_ids=(facility_id,),
            created_at=self._clock(),
            external_id=draft.external_id,
        )

        def unit(connection: Connection) -> Patient:
            lock_account(connection, account_id)
            find_facility(connection, account_id, facility_id)
            known = _match(connection, account_id, draft.demographics)
            if known is None:
                registry.insert_patient(connection, record)
            self._note(
                connection, account_id, actor, "patient.create" if known is None else "patient.match", known or record
            )
            return known or record

        return await self._database.write(unit)

    async def update(
        self,
        account_id: str,
        actor: str,
        patient_id: str,
        draft: PatientDraft,
        facility_id: str | None,
        version: str | None,
    ) -> Patient:
        """Replace what is known of a patient; not while a document query asks with it."""
        self._check_birth_date(draft.demographics)

        def change(connection: Connection, known: Patient) -> Patient:
            check_facility(connection, known, facility_id)
            check_version(known.id, known.version, version)
            if registry.has_running_query(connection, patient_id):
                raise LockedError
            changed = replace(
                known, demographics=draft.demographics, external_id=draft.external_id, version=known.version + 1
            )
            registry.update_patient(connection, changed)
            return changed

        return await self._change(account_id, actor, patient_id, "patient.update", change)

    async def delete(
        self, account_id: str, actor: str, patient_id: str, facility_id: str | None, version: str | None
    ) -> None:
        """Remove a patient and all that hangs on it, out of kept messages too; the audit trail keeps the id alone."""

        def change(connection: Connection, known: Patient) -> None:
            check_facility(connection, known, facility_id)
            check_version(known.id, known.version, version)
            outbox.expunge_patient(connection, self._vault, account_id, patient_id, self._clock())
            registry.delete_patient(connection, patient_id)

        await self._change(account_id, actor, patient_id, "patient.delete", change)

    async def get(self, account_id: str, actor: str, patient_id: str) -> Patient:
        """A patient."""
        return await self._see(
            account_id, actor, lambda connection: registry.get_patient(connection, account_id, patient_id)
        )

    async def look(self, account_id: str, actor: str, patient_id: str, *, again: bool) -> Patient:
        """A patient on a page that refreshes itself; see `record_look`."""

        def unit(connection: Connection) -> Patient:
            patient = find_patient(connection, account_id, patient_id)
            record_look(connection, self._clock(), account_id, actor, "patient.read", patient_id, again=again)
            return patient

        return await self._database.write(unit)

    async def match(self, account_id: str, actor: str, demographics: Demographics) -> Patient:
        """The patient who is known by these demographics."""
        self._check_birth_date(demographics)
        return await self._see(account_id, actor, lambda connection: _match(connection, account_id, demographics))

    async def find_by_external_id(self, account_id: str, actor: str, external_id: str, source: str | None) -> Patient:
        """The patient of an id that the customer gave, or that `source`, one of `EXTERNAL_SOURCES`, knows it by."""
        if source is not None and source not in EXTERNAL_SOURCES:
            raise BadRequestError(f"Unknown source, use one of {', '.join(EXTERNAL_SOURCES)}")

        def find(connection: Connection) -> Patient | None:
            if source is None:
                return registry.find_by_external_id(connection, account_id, external_id)
            return registry.find_by_source_id(connection, account_id, source, external_id)

        return await self._see(account_id, actor, find)

    async def list(
        self, account_id: str, actor: str, chosen: PatientFilter, window: PatientWindow | None
    ) -> PatientListing:
        """The patients that are chosen, the newest first: all of them, or the part in `window`."""

        def unit(connection: Connection) -> PatientListing:
            if chosen.facility_id is not None:
                find_facility(connection, account_id, chosen.facility_id)
            if window is None:
                patients = patient_lists.list_patients(connection, account_id, chosen)
                return PatientListing(PatientPage(patients), len(patients))
            page = patient_lists.page_patients(connection, account_id, chosen, window)
            is_first = window.from_item is None and window.to_item is None
            return PatientListing(
                page, patient_lists.count_patients(connection, account_id, chosen) if is_first else None
            )

        listing = await self._database.read(unit)
        await self._database.write(lambda connection: self._note(connection, account_id, actor, "patient.list", None))
        return listing

    async def list_facilities(self, account_id: str, actor: str, patient_id: str) -> Sequence[Facility]:
        """The facilities of a patient."""
        patient = await self.get(account_id, actor, patient_id)
        return await self._database.read(lambda connection: registry.facilities_of(connection, patient))

    async def set_facilities(
        self, account_id: str, actor: str, patient_id: str, facility_ids: Sequence[str], version: str | None
    ) -> Sequence[Facility]:
        """Replace the facilities of a patient, one or more."""

        def change(connection: Connection, known: Patient) -> list[Facility]:
            check_version(known.id, known.version, version)
            for facility_id in facility_ids:
                find_facility(connection, account_id, facility_id)
            changed = replace(known, facility_ids=tuple(facility_ids), version=known.version + 1)
            registry.update_patient(connection, changed)
            registry.set_facilities(connection, patient_id, facility_ids)
            return registry.facilities_of(connection, changed)

        return await self._change(account_id, actor, patient_id, "patient.set-facilities", change)

    async def opt_out(self, account_id: str, actor: str, patient_id: str, opted_out: bool) -> Patient:
        """Let networks be asked about a patient, or no longer. The record's version is not about this: it stays."""

        def change(connection: Connection, known: Patient) -> Patient:
            changed = replace(known, opted_out=opted_out)
            registry.update_patient(connection, changed)
            return changed

        return await self._change(
            account_id, actor, patient_id, "patient.opt-out" if opted_out else "patient.opt-in", change
        )

    async def _see(self, account_id: str, actor: str, find: Callable[[Connection], Patient | None]) -> Patient:
        """Read a patient on a snapshot; the audit entry alone waits for the writer."""
        found = await self._database.read(find)
        if found is None:
            raise NotFoundError("Could not find patient")
        await self._database.write(lambda connection: self._note(connection, account_id, actor, "patient.read", found))
        return found

    async def _change(
        self, account_id: str, actor: str, patient_id: str, action: str, change: Callable[[Connection, Patient], T]
    ) -> T:
        def unit(connection: Connection) -> T:
            lock_patient(connection, patient_id)  # what is fetched of somebody who opts out meanwhile is not kept
            lock_account(connection, account_id)
            known = find_patient(connection, account_id, patient_id)
            answer = change(connection, known)
            self._note(connection, account_id, actor, action, known)
            return answer

        return await self._database.write(unit)

    def _note(self, connection: Connection, account_id: str, actor: str, action: str, patient: Patient | None) -> None:
        audit.record(connection, self._clock(), account_id, actor, action, patient.id if patient else None)

    def _check_birth_date(self, demographics: Demographics) -> None:
        if demographics.dob > self._clock().date():
            raise BadRequestError("Date of birth can't be in the future")


def _match(connection: Connection, account_id: str, demographics: Demographics) -> Patient | None:
    candidates = registry.match_candidates(connection, account_id, demographics.dob, demographics.gender_at_birth)
    return find_match(demographics, candidates)
