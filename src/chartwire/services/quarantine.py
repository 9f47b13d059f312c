"""Documents that came and were not taken in: looked at, let in, or thrown away, each with a reason."""

from collections.abc import AsyncIterator

from sqlalchemy import Connection

from chartwire.clock import Clock
from chartwire.errors import BadRequestError, ConflictError, IssueCode, NotFoundError
from chartwire.ids import new_id
from chartwire.model.document import DocumentQuery, NetworkStep, QueryStatus
from chartwire.model.quarantine import HeldDocument, QuarantineState, UntakenDocument
from chartwire.services.listing import Asked, Listed, Listing
from chartwire.services.registry_rules import find_patient
from chartwire.settings import Settings
from chartwire.store import audit, quarantine, queries
from chartwire.store.blobs import BlobStore
from chartwire.store.database import Database, lock_patient
from chartwire.store.vault import Vault

_LONGEST_NOTE = 500


class QuarantineService:
    """What a member may do with documents that wait for a look. What of them was seen or done is written down.

    Raises `NotFoundError`, `ConflictError` for one of which it was decided already, and `BadRequestError`.
    """

    def __init__(self, database: Database, blobs: BlobStore, vault: Vault, clock: Clock, settings: Settings) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._networks = {network.name for network in settings.networks}
        self._held = Listing(vault, "quarantine", quarantine.ORDERS, "-held")
        self._untaken = Listing(vault, "untaken", quarantine.UNTAKEN_ORDERS, "-asked")

    async def list(
        self, account_id: str, actor: str, state: QuarantineState | None, network: str | None, asked: Asked
    ) -> Listed[HeldDocument]:
        """Documents that are, or were, held."""
        window, now = self._held.window(asked), self._clock()
        part = await self._database.read(
            lambda connection: quarantine.page(connection, account_id, state, network, window)
        )
        await self._database.write(
            lambda connection: audit.record(connection, now, account_id, actor, "quarantine.list")
        )
        return self._held.listed(window, part)

    async def list_untaken(
        self, account_id: str, actor: str, issue: IssueCode | None, network: str | None, asked: Asked
    ) -> Listed[UntakenDocument]:
        """Documents that were listed and could not be fetched."""
        window, now = self._untaken.window(asked), self._clock()
        part = await self._database.read(
            lambda connection: quarantine.page_untaken(connection, account_id, issue, network, window)
        )
        await self._database.write(
            lambda connection: audit.record(connection, now, account_id, actor, "quarantine.list")
        )
        return self._untaken.listed(window, part)

    async def look(self, account_id: str, actor: str, held_id: str) -> HeldDocument:
        """One document, about to be looked at."""
        now = self._clock()

        def unit(connection: Connection) -> HeldDocument:
            record = _find(connection, account_id, held_id)
            audit.record(connection, now, account_id, actor, "quarantine.read", record.patient_id, record.id)
            return record

        return await self._database.write(unit)

    def read(self, record: HeldDocument) -> AsyncIterator[bytes]:
        """Its bytes, for somebody who has just called `look`. Raises `NotFoundError` once they are thrown away."""
        if record.state is QuarantineState.DISCARDED:
            raise NotFoundError("Could not find document")
        return self._blobs.read(record.sha256)

    async def release(self, account_id: str, actor: str, held_id: str, note: str) -> HeldDocument:
        """Let a document in as it is: by a query of its own, which tells of it as any other does."""
        now = self._clock()
        _check_note(note)

        def unit(connection: Connection) -> HeldDocument:
            record = self._undecided(connection, account_id, held_id)
            if record.network not in self._networks:
                raise ConflictError("Its network is not configured any more")
            patient = find_patient(connection, account_id, record.patient_id)
            if patient.opted_out:
                raise ConflictError("The patient has opted out: opt in first")
            query = _releasing(record, connection, self._clock)
            audit.record(connection, now, account_id, actor, "quarantine.release", record.patient_id, record.id)
            return quarantine.decide(connection, record, QuarantineState.RELEASED, actor, note, now, query.id)

        return await self._database.write(unit)

    async def discard(self, account_id: str, actor: str, held_id: str, note: str) -> HeldDocument:
        """Throw a document away: the same bytes are passed over when they come again."""
        now = self._clock()
        _check_note(note)

        def unit(connection: Connection) -> HeldDocument:
            record = self._undecided(connection, account_id, held_id)
            audit.record(connection, now, account_id, actor, "quarantine.discard", record.patient_id, record.id)
            return quarantine.decide(connection, record, QuarantineState.DISCARDED, actor, note, now)

        return await self._database.write(unit)

    def _undecided(self, connection: Connection, account_id: str, held_id: str) -> HeldDocument:
        lock_patient(connection, _find(connection, account_id, held_id).patient_id)
        record = _find(connection, account_id, held_id)  # as it is now that nobody else decides
        if record.state is not QuarantineState.HELD:
            raise ConflictError("It was decided already what becomes of this document")
        return record


def _releasing(record: HeldDocument, connection: Connection, clock: Clock) -> DocumentQuery:
    """A query that asks no network and has this one document to take in."""
    first = queries.find_query(connection, record.query_id)
    query = DocumentQuery(
        id=new_id(),
        account_id=record.account_id,
        patient_id=record.patient_id,
        facility_id=first.facility_id if first else None,
        status=QueryStatus.PROCESSING,
        started_at=clock(),
        metadata=first.metadata if first else None,
        override=True,  # an earlier version that is here must not keep out what somebody has looked at
        trace=first.trace if first else None,
    )
    queries.start_query(connection, query, [])
    step = NetworkStep(query.id, query.account_id, query.patient_id, record.network, attempt=0, lease="")
    queries.add_intake_steps(connection, step, [record.remote], query.started_at)
    return query


def _find(connection: Connection, account_id: str, held_id: str) -> HeldDocument:
    record = quarantine.find(connection, account_id, held_id)
    if record is None:
        raise NotFoundError("Could not find document")
    return record


def _check_note(note: str) -> None:
    if not note or len(note) > _LONGEST_NOTE:
        raise BadRequestError(f"Say why, in at most {_LONGEST_NOTE} characters")
