"""Asking for a patient's documents, reading them, and handing out links to them.

Nothing of another account is ever found: its patients and documents are as absent as those that never were.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby

from sqlalchemy import Connection

from chartwire.clock import Clock
from chartwire.errors import BadRequestError, IssueCode, NotFoundError
from chartwire.formats.fhir_resources import binary_url
from chartwire.ids import new_id, new_message_id
from chartwire.model.document import Document, DocumentQuery, DocumentStatus, Progress, QueryStatus, StepState
from chartwire.model.message import DocumentPart, Meta, PatientPart, document_message, is_silenced
from chartwire.model.registry import Patient
from chartwire.model.webhook import Endpoint, EventDraft, EventType, PayloadVersion
from chartwire.services.conversion import Converter
from chartwire.services.links import LinkSigner, PageSealer, Representation
from chartwire.services.registry_rules import find_patient
from chartwire.settings import Settings
from chartwire.store import audit, documents, endpoints, outbox, queries, registry
from chartwire.store.blobs import BlobStore
from chartwire.store.database import Database, lock_patient
from chartwire.store.documents import DocumentFilter
from chartwire.store.queries import Asked
from chartwire.store.vault import Vault

_LINK_ACTOR = "link"


@dataclass(frozen=True, slots=True)
class QueryProgress:
    """How far a document query is. `query` is None if no network is enabled and none ever was asked."""

    query: DocumentQuery | None
    download: Progress
    networks: tuple[Asked, ...] = ()


@dataclass(frozen=True, slots=True)
class AskedQuery:
    """A document query, what each network answered, and how many of its documents are in which state, and why."""

    query: DocumentQuery
    download: Progress
    networks: tuple[Asked, ...]
    documents: tuple[tuple[str, StepState, IssueCode | None, int], ...]


@dataclass(frozen=True, slots=True)
class PatientIdentifier:
    """A patient as a search may name it: by our id, by the customer's external id, or by one of the two."""

    value: str
    is_own: bool
    is_external: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A page of a search: how many documents match in all, those of the page, and whether more follow."""

    total: int
    documents: tuple[Document, ...]
    has_more: bool


Begun = Callable[[str, Sequence[str]], None]
"""Told that a query, by its id, was started at networks, by their names; must neither raise nor take long."""


def _nobody(query_id: str, networks: Sequence[str]) -> None:
    """Nobody is told: whoever carries out queries looks by himself."""


class DocumentService:
    """What a customer may do with documents."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        vault: Vault,
        clock: Clock,
        settings: Settings,
        begun: Begun | None = None,
    ) -> None:
        """`begun` is told of each query that was started."""
        self._begun = begun or _nobody
        self._database = database
        self._blobs = blobs
        self._vault = vault
        self._clock = clock
        self._networks = [network.name for network in settings.networks]
        self._retention = timedelta(days=settings.payload_retention_days)
        self._link_lifetime = timedelta(seconds=settings.download_url_seconds)
        self._bulk_link_lifetime = timedelta(seconds=settings.bulk_download_url_seconds)
        self._converter = Converter(blobs)
        self._links = LinkSigner(vault, settings.public_base, clock)
        self.public_base = settings.public_base
        self.started_at = clock()
        self.pages = PageSealer(vault)

    # --- asking -------------------------------------------------------------------------------------------------------

    async def start_query(
        self,
        account_id: str,
        actor: str,
        patient_id: str,
        facility_id: str | None,
        metadata: dict[str, str] | None,
        override: bool,
        trace: str | None = None,
    ) -> QueryProgress:
        """Start asking every network; while a query of the patient is under way, that one's progress.

        All in one transaction: of two starts at the same time one begins, the other finds it begun.
        """
        query_id = new_id()

        def start(connection: Connection) -> QueryProgress:
            lock_patient(connection, patient_id)
            patient = find_patient(connection, account_id, patient_id)
            latest = _progress_of_latest(connection, account_id, patient_id)
            if not self._networks:
                return latest or QueryProgress(None, Progress(QueryStatus.COMPLETED))
            _refuse_unless_askable(patient, facility_id)
            if latest is not None and latest.download.status is QueryStatus.PROCESSING:
                return latest
            query = DocumentQuery(
                id=query_id,
                account_id=account_id,
                patient_id=patient_id,
                facility_id=facility_id or next(iter(patient.facility_ids), None),
                status=QueryStatus.PROCESSING,
                started_at=self._clock(),
                metadata=metadata,
                override=override,
                trace=trace,
            )
            queries.start_query(connection, query, self._networks)
            audit.record(connection, self._clock(), account_id, actor, "document.query", patient_id, query.id)
            return _progress(connection, query)

        progress = await self._database.write(start)
        if progress.query is not None and progress.query.id == query_id:
            self._begun(query_id, self._networks)
        return progress

    async def query_progress(self, account_id: str, patient_id: str) -> QueryProgress | None:
        """How far the patient's last query is; None if there never was one."""

        def read(connection: Connection) -> QueryProgress | None:
            find_patient(connection, account_id, patient_id)
            return _progress_of_latest(connection, account_id, patient_id)

        return await self._database.read(read)

    async def query_timeline(self, account_id: str, patient_id: str, limit: int) -> list[AskedQuery]:
        """The last queries of a patient, the newest first. Raises `NotFoundError`."""

        def read(connection: Connection) -> list[AskedQuery]:
            find_patient(connection, account_id, patient_id)
            return [
                AskedQuery(
                    query,
                    queries.read_progress(connection, query),
                    tuple(queries.networks_asked(connection, query.id)),
                    tuple(queries.documents_by_network(connection, query.id)),
                )
                for query in queries.queries_of(connection, account_id, patient_id, limit)
            ]

        return await self._database.read(read)

    # --- reading ------------------------------------------------------------------------------------------------------

    async def list_documents(
        self,
        account_id: str,
        actor: str,
        patient_id: str,
        indexed_from: datetime | None = None,
        indexed_before: datetime | None = None,
        content: str | None = None,
    ) -> list[Document]:
        """The documents of a patient, newest first; `content` is looked for in titles, descriptions and types."""
        chosen = DocumentFilter(
            patient_ids=(patient_id,), indexed_from=indexed_from, indexed_before=indexed_before, content=content
        )

        def read(connection: Connection) -> list[Document]:
            find_patient(connection, account_id, patient_id)
            return documents.list_documents(connection, account_id, chosen)

        found = await self._database.read(read)
        await self._audit(account_id, actor, "document.list", patient_id)
        return found

    async def search(
        self,
        account_id: str,
        actor: str,
        chosen: DocumentFilter,
        patients: Sequence[Sequence[PatientIdentifier]],
        limit: int,
        after: str | None,
    ) -> Found:
        """A page of at most `limit` documents that fulfil `chosen` and belong to one patient of each of `patients`.

        Patients and documents that are not the account's match nothing.
        """

        def read(connection: Connection) -> Found:
            narrowed = _narrow(connection, account_id, chosen, patients)
            total = documents.count_documents(connection, account_id, narrowed)
            page = documents.list_documents(connection, account_id, narrowed, limit + 1, after) if limit else []
            return Found(total, tuple(page[:limit]), len(page) > limit)

        found = await self._database.read(read)
        only_patient = chosen.patient_ids[0] if chosen.patient_ids and len(chosen.patient_ids) == 1 else None
        await self._audit(account_id, actor, "document.search", only_patient)
        return found

    async def get_document(self, account_id: str, actor: str, document_id: str) -> Document:
        """A document by its id, about to be read."""
        found = await self._database.read(
            lambda connection: documents.get_document(connection, account_id, document_id)
        )
        return await self._audited(found, actor, "document.read")

    def read(self, document: Document, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes of a document from `start` up to but not including `end`."""
        return self._blobs.read(document.sha256, start, end)

    async def convert(self, document: Document, representation: Representation) -> bytes:
        """A C-CDA document made readable. Raises `BadRequestError` if it cannot be."""
        return await self._converter.convert(document, representation)

    # --- links --------------------------------------------------------------------------------------------------------

    async def download_url(
        self, account_id: str, actor: str, file_name: str, representation: Representation = Representation.ORIGINAL
    ) -> str:
        """A signed link to a document. Raises `BadRequestError` if it cannot be converted as asked."""
        found = await self._database.read(
            lambda connection: documents.get_document_by_file_name(connection, account_id, file_name)
        )
        document = await self._audited(found, actor, "document.link")
        if representation is not Representation.ORIGINAL:
            await self._converter.refuse_unless_convertible(document)
        return self._links.sign(document.id, representation, self._link_lifetime)

    async def open_link(
        self, document_id: str, representation: str, expires: str, signature: str
    ) -> tuple[Document, Representation]:
        """What a signed link gives. Raises `ForbiddenError` if it was altered or is too old."""
        wanted = self._links.verify(document_id, representation, expires, signature)
        found = await self._database.read(lambda connection: documents.find_document(connection, document_id))
        return await self._audited(found, _LINK_ACTOR, "document.download"), wanted

    async def bulk_download_urls(
        self,
        account_id: str,
        actor: str,
        patient_id: str,
        metadata: dict[str, str] | None,
        trace: str | None = None,
    ) -> str:
        """Send links to all current documents of a patient by webhook; returns the id of the request."""

        def send(connection: Connection) -> str:
            request_id = new_id()
            patient = find_patient(connection, account_id, patient_id)
            chosen = DocumentFilter(patient_ids=(patient_id,), statuses=(DocumentStatus.CURRENT,))
            part = self._links_part(patient, documents.list_documents(connection, account_id, chosen))
            self._append_links(connection, part, account_id, request_id, metadata, trace)
            audit.record(connection, self._clock(), account_id, actor, "document.bulk-link", patient_id, request_id)
            return request_id

        return await self._database.write(send)

    def _links_part(self, patient: Patient, current: Iterable[Document]) -> PatientPart:
        return PatientPart(
            patient_id=patient.id,
            external_id=patient.external_id,
            additional_ids=patient.additional_ids,
            status=QueryStatus.COMPLETED,
            documents=[
                DocumentPart(
                    document,
                    location=binary_url(self.public_base, document.id),
                    url=self._links.sign(document.id, Representation.ORIGINAL, self._bulk_link_lifetime),
                )
                for document in current
            ],
        )

    def _append_links(
        self,
        connection: Connection,
        part: PatientPart,
        account_id: str,
        request_id: str,
        metadata: dict[str, str] | None,
        trace: str | None,
    ) -> None:
        """One message per payload version that the account's endpoints read."""
        now = self._clock()
        kind = EventType.DOCUMENT_BULK_DOWNLOAD_URLS
        takers = [each for each in endpoints.endpoints_of(connection, account_id) if endpoints.wants(each, kind)]
        for version, group in _by_version(takers):
            meta = Meta(new_message_id(), now, kind, request_id=request_id, data=metadata)
            draft = EventDraft(
                id=meta.message_id,
                account_id=account_id,
                type=kind,
                payload_version=version,
                body=document_message(version, meta, [part]),
                patient_ids=(part.patient_id,),
                trace=trace,
            )
            told = [] if is_silenced(metadata) else group
            outbox.append(connection, self._vault, draft, told, now, self._retention)

    async def _audited(self, document: Document | None, actor: str, action: str) -> Document:
        if document is None:
            raise NotFoundError("Could not find document")
        await self._audit(document.account_id, actor, action, document.patient_id, document.id)
        return document

    async def _audit(
        self, account_id: str, actor: str, action: str, patient_id: str | None, subject: str | None = None
    ) -> None:
        """Written before anything is shown: what cannot be audited is not shown."""
        await self._database.write(
            lambda connection: audit.record(connection, self._clock(), account_id, actor, action, patient_id, subject)
        )


def _refuse_unless_askable(patient: Patient, facility_id: str | None) -> None:
    if patient.opted_out:
        raise BadRequestError("Patient has opted out from the networks")
    if facility_id is not None and facility_id not in patient.facility_ids:
        raise BadRequestError("Patient not associated with given facility")


def _progress_of_latest(connection: Connection, account_id: str, patient_id: str) -> QueryProgress | None:
    latest = queries.latest_query(connection, account_id, patient_id)
    return None if latest is None else _progress(connection, latest)


def _progress(connection: Connection, query: DocumentQuery) -> QueryProgress:
    asked = tuple(queries.networks_asked(connection, query.id))
    return QueryProgress(query, queries.read_progress(connection, query), asked)


def _narrow(
    connection: Connection, account_id: str, chosen: DocumentFilter, patients: Sequence[Sequence[PatientIdentifier]]
) -> DocumentFilter:
    for group in patients:
        ids = {patient_id for patient in group for patient_id in _patient_ids(connection, account_id, patient)}
        both = ids if chosen.patient_ids is None else ids.intersection(chosen.patient_ids)
        chosen = replace(chosen, patient_ids=tuple(both))
    return chosen


def _patient_ids(connection: Connection, account_id: str, patient: PatientIdentifier) -> Iterable[str]:
    if patient.is_own:
        yield patient.value
    if patient.is_external and (known := registry.find_by_external_id(connection, account_id, patient.value)):
        yield known.id


def _by_version(all_endpoints: Iterable[Endpoint]) -> list[tuple[PayloadVersion, list[Endpoint]]]:
    ordered = sorted(all_endpoints, key=lambda endpoint: endpoint.payload_version)
    return [(version, list(group)) for version, group in groupby(ordered, lambda item: item.payload_version)]
