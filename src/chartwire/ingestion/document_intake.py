"""Fetching one listed document: bytes to the blob store, then reference and announcement in one transaction."""

import asyncio
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import PurePosixPath

from sqlalchemy import Connection

from chartwire.clock import Clock
from chartwire.errors import (
    DocumentTooLargeError,
    IssueCode,
    PermanentNetworkError,
    StoreError,
    TemporaryNetworkError,
)
from chartwire.formats.ccda import CcdaHeader, recognise_start
from chartwire.formats.media_type import effective_type, extension, sniff
from chartwire.ids import new_id
from chartwire.ingestion.announcement import Announcer
from chartwire.ingestion.breaker import AWAY_FOR_ONE, Breaker
from chartwire.model.document import Document, DocumentQuery, IntakeStep, StepState
from chartwire.model.matching import Disagreement, Stated, disagreements
from chartwire.model.quarantine import HeldDocument, QuarantineState
from chartwire.networks.network import Network
from chartwire.store import documents, quarantine, queries, registry, sources
from chartwire.store.blobs import BlobStore, StoredBlob
from chartwire.store.database import Database, lock_patient
from chartwire.store.records import storable
from chartwire.telemetry import Metrics, get_logger

_STEM_LENGTH = 60
_HEADER_BYTES = 1024 * 1024  # in which the header of a C-CDA is looked for
_LONGEST_TEXT = 4096  # characters of a title or a description, which every message and list repeats
_UNSAFE = re.compile(r"[^A-Za-z0-9]+")
log = get_logger()


@dataclass(frozen=True, slots=True)
class _Fetched:
    """Bytes that are safely stored, and what is known of them beyond what was listed."""

    blob: StoredBlob
    declared_type: str | None
    mime_type: str
    header: CcdaHeader | None
    is_released: bool = False  # somebody has looked at it and let it in


class DocumentIntakeHandler:
    """Carries out intake steps."""

    kind = "retrieve"

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        announcer: Announcer,
        breaker: Breaker,
        clock: Clock,
        max_bytes: int,
        metrics: Metrics,
        trusted: Collection[str] = (),
    ) -> None:
        """`trusted`: names of networks whose documents are not asked of whom they are."""
        self._database = database
        self._blobs = blobs
        self._announcer = announcer
        self._breaker = breaker
        self._clock = clock
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._trusted = trusted

    def claim(self, connection: Connection, network: Network, limit: int, lease_margin: timedelta) -> list[IntakeStep]:
        """See `steps.Handler.claim`."""
        lease_for = timedelta(seconds=network.limits.retrieve_deadline) + lease_margin
        return queries.claim_intake_steps(connection, network.name, limit, self._clock(), lease_for)

    def next_due(self, connection: Connection, network: Network) -> datetime | None:
        """See `steps.Handler.next_due`."""
        return queries.next_intake_step(connection, network.name)

    async def run(self, network: Network, step: IntakeStep) -> None:
        """See `steps.Handler.run`."""
        is_wanted, released = await self._database.read(
            lambda connection: (_is_wanted(connection, step), quarantine.find_released(connection, step.query_id))
        )
        if not is_wanted:
            await self._database.write(lambda connection: self._end_unfetched(connection, step))
            return
        if released is None:
            deadline = network.limits.retrieve_deadline
            fetched = await self._breaker.ask(network.name, lambda: self._fetch(network, step), deadline, AWAY_FOR_ONE)
        else:
            fetched = await self._take_out(released)
        if await self._database.write(lambda connection: self._keep(connection, step, fetched)):
            self._report(step, fetched.blob)

    def put_off(
        self, connection: Connection, step: IntakeStep, due_at: datetime, issue: IssueCode, *, is_failure: bool = True
    ) -> None:
        """See `steps.Handler.put_off`."""
        queries.postpone_intake_step(connection, step, due_at, issue, is_failure=is_failure)

    def give_up(self, connection: Connection, step: IntakeStep, issue: IssueCode) -> None:
        """See `steps.Handler.give_up`."""
        lock_patient(connection, step.patient_id)
        self._settle(connection, step, StepState.FAILED, issue)

    def _end_unfetched(self, connection: Connection, step: IntakeStep) -> None:
        """The document came from elsewhere meanwhile, or may not be fetched any more."""
        lock_patient(connection, step.patient_id)
        self._end_without_news(connection, step, documents.find_held(connection, step.patient_id, step.remote, None))

    def _end_without_news(self, connection: Connection, step: IntakeStep, held: Document | None) -> None:
        settled = self._settle(connection, step, StepState.HELD, document_id=held.id if held else None)
        if settled and held:
            known = sources.held_as(held)
            sources.acknowledge(connection, step.patient_id, step.network, step.remote, known)

    async def _fetch(self, network: Network, step: IntakeStep) -> _Fetched:
        try:
            async with network.retrieve(step.remote) as retrieval:
                blob = await self._blobs.put(retrieval.chunks, self._max_bytes)
        except DocumentTooLargeError:
            raise PermanentNetworkError(IssueCode.TOO_LARGE) from None
        except StoreError:  # our disk, not the network: worth another try
            log.exception("a document could not be stored", network=step.network)
            raise TemporaryNetworkError(IssueCode.INTERNAL) from None
        if blob.size == 0:
            raise PermanentNetworkError(IssueCode.NO_CONTENT)
        declared = retrieval.declared_type or step.remote.mime_type
        mime_type = effective_type(declared, sniff(blob.head))
        return _Fetched(blob, declared, mime_type, await self._read_header(blob, mime_type))

    async def _take_out(self, held: HeldDocument) -> _Fetched:
        """What was held and is released: those very bytes, not what its network has now."""
        blob = StoredBlob(held.sha256, held.sha1, held.size, b"")
        header = await self._read_header(blob, held.mime_type)
        return _Fetched(blob, held.declared_type, held.mime_type, header, is_released=True)

    async def _read_header(self, blob: StoredBlob, mime_type: str) -> CcdaHeader | None:
        """What a C-CDA says of itself."""
        if mime_type != "application/xml":
            return None
        start = b"".join([chunk async for chunk in self._blobs.read(blob.sha256, 0, _HEADER_BYTES)])
        return await asyncio.to_thread(recognise_start, start)

    def _keep(self, connection: Connection, step: IntakeStep, fetched: _Fetched) -> bool:
        """Write the reference and its announcement, end the step: one transaction. False if that was not to be.

        The same document from two networks (same master identifier, or same bytes) is kept once and announced once.
        """
        lock_patient(connection, step.patient_id)
        query = _open_query(connection, step)
        held = documents.find_held(connection, step.patient_id, step.remote, fetched.blob.sha256)
        if query is None or (held is not None and _brings_nothing(connection, query, held)):
            self._end_without_news(connection, step, held)
            return False
        now = self._clock()
        if self._is_refused(connection, step, fetched, now):
            return False
        kept = held if held and held.sha256 == fetched.blob.sha256 else _document(step, fetched, new_id(), now)
        if not queries.settle_intake_step(connection, step, StepState.DONE, document_id=kept.id):
            return False
        if kept is not held:
            documents.insert_document(connection, kept)
            documents.apply_replacements(connection, kept)
            if held is not None:  # asked for again with `override`, and changed since
                documents.mark_replaced(connection, held.id, kept.id)
        sources.add_source(connection, step.patient_id, step.network, step.remote.key, kept.id)
        self._announcer.announce(connection, kept, step.query_id, now)
        self._announcer.end_query_if_over(connection, query.id, now)
        return True

    def _is_refused(self, connection: Connection, step: IntakeStep, fetched: _Fetched, now: datetime) -> bool:
        """End the step without the document if it is about somebody else: it is held until somebody has looked."""
        known = quarantine.find_by_digest(connection, step.patient_id, fetched.blob.sha256)
        if fetched.is_released or (known is not None and known.state is QuarantineState.RELEASED):
            return False
        if known is not None and known.state is QuarantineState.DISCARDED:
            self._end_without_news(connection, step, None)
            return True
        stated = fetched.header.patient if fetched.header else None
        patient = registry.get_patient(connection, step.account_id, step.patient_id) if stated else None
        if patient is None or stated is None:
            return False
        is_trusted = step.network in self._trusted
        reasons = () if is_trusted else disagreements(patient.demographics, stated)
        if not reasons:
            if known is not None:  # record or settings were changed meanwhile: there is nothing left to decide
                why = "Its network is trusted by now" if is_trusted else "The patient's record agrees with it by now"
                quarantine.decide(connection, known, QuarantineState.RELEASED, "engine", why, now)
            return False
        if self._settle(connection, step, StepState.FAILED, IssueCode.WRONG_PATIENT) and known is None:
            quarantine.hold(connection, _held(step, fetched, stated, reasons, now))
            log.warning("a document is held for review", network=step.network, code=IssueCode.WRONG_PATIENT)
        return True

    def _settle(
        self,
        connection: Connection,
        step: IntakeStep,
        state: StepState,
        issue: IssueCode | None = None,
        document_id: str | None = None,
    ) -> bool:
        """End a step, and its query if that was the last; the caller holds the patient's lock."""
        settled = queries.settle_intake_step(connection, step, state, issue, document_id)
        if settled:
            self._announcer.end_query_if_over(connection, step.query_id, self._clock())
        return settled

    def _report(self, step: IntakeStep, blob: StoredBlob) -> None:
        self._metrics.documents_stored.labels(step.network).inc()
        self._metrics.document_bytes.labels(step.network).inc(blob.size)
        declared = step.remote
        if (declared.sha1 or blob.sha1) != blob.sha1 or (declared.size or blob.size) != blob.size:
            # Networks are known to declare wrong sizes (networks.md §1.5): the true ones are kept, and this is told.
            log.warning("document differs from what was declared", network=step.network, code=IssueCode.INTEGRITY)


def _open_query(connection: Connection, step: IntakeStep) -> DocumentQuery | None:
    """The step's query, unless its patient was deleted or has opted out meanwhile."""
    may_ask = registry.may_be_asked_about(connection, step.account_id, step.patient_id)
    return queries.find_query(connection, step.query_id) if may_ask else None


def _is_wanted(connection: Connection, step: IntakeStep) -> bool:
    query = _open_query(connection, step)
    held = documents.find_held(connection, step.patient_id, step.remote, sha256=None)
    return query is not None and (held is None or not _brings_nothing(connection, query, held))


def _brings_nothing(connection: Connection, query: DocumentQuery, held: Document) -> bool:
    return not query.override or queries.is_done_in_query(connection, query.id, held.id)


def _document(step: IntakeStep, fetched: _Fetched, document_id: str, now: datetime) -> Document:
    remote, blob = step.remote, fetched.blob
    header = fetched.header if remote.type is None else None  # what its network says of it goes first
    title = (remote.title or remote.description or (header.title if header else None) or "Document")[:_LONGEST_TEXT]
    return Document(
        id=document_id,
        account_id=step.account_id,
        patient_id=step.patient_id,
        query_id=step.query_id,
        network=step.network,
        file_name=_file_name(title, document_id, fetched.mime_type),
        status=remote.status,
        mime_type=fetched.mime_type,
        size=blob.size,
        sha1=blob.sha1,
        sha256=blob.sha256,
        created_at=now,
        title=title,
        declared_type=fetched.declared_type,
        master_identifier=remote.master_identifier,
        description=(remote.description or title)[:_LONGEST_TEXT],
        indexed=remote.indexed or (header.effective_time if header else None) or now,
        type=header.type if header else remote.type,
        category=remote.category,
        format=remote.format,
        period_start=remote.period_start,
        period_end=remote.period_end,
        author=remote.author,
        replaces=remote.replaces,
    )


def _held(
    step: IntakeStep, fetched: _Fetched, stated: Stated, reasons: tuple[Disagreement, ...], now: datetime
) -> HeldDocument:
    return HeldDocument(
        id=new_id(),
        account_id=step.account_id,
        patient_id=step.patient_id,
        query_id=step.query_id,
        network=step.network,
        remote=step.remote,
        reasons=reasons,
        stated=storable(stated),
        declared_type=fetched.declared_type,
        mime_type=fetched.mime_type,
        size=fetched.blob.size,
        sha1=fetched.blob.sha1,
        sha256=fetched.blob.sha256,
        held_at=now,
    )


def _file_name(title: str, document_id: str, mime_type: str) -> str:
    """`CCDA_Diag_<id>.xml`: readable, unique, and safe to save a file under as it is."""
    stem = PurePosixPath(title).stem if PurePosixPath(title).suffix.lower() == extension(mime_type) else title
    safe = _UNSAFE.sub("_", stem).strip("_")[:_STEM_LENGTH] or "Document"
    return f"{safe}_{document_id}{extension(mime_type)}"
