"""From stored documents to messages in the outbox.

Everything here runs inside the transaction that stores a document or ends a query, so that the fact and what must
follow from it are written together or not at all. `webhooks.md` §1 has the rules.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby

import orjson
from sqlalchemy import Connection

from chartwire.ids import new_message_id
from chartwire.ingestion.notification import Notifier, common_trace
from chartwire.model.document import Document, DocumentQuery, QueryStatus
from chartwire.model.message import DocumentPart, Meta, PatientPart, document_dto, document_message, is_silenced
from chartwire.model.webhook import DeliveryMode, Endpoint, EventDraft, EventType, PayloadVersion
from chartwire.settings import Settings
from chartwire.store import documents, endpoints, outbox, queries, registry
from chartwire.store.database import lock_account, lock_patient
from chartwire.store.vault import Vault

_EVENT = EventType.DOCUMENT_DOWNLOAD
_ABANDONED_AT_ONCE = 100


class Announcer:
    """Composes the messages of document queries."""

    def __init__(self, vault: Vault, settings: Settings) -> None:
        self._vault = vault
        self._notifier = Notifier(vault, settings)
        self._fhir_base = f"{settings.public_base}/oauth/fhir"
        self._retention = timedelta(days=settings.payload_retention_days)
        self.window = timedelta(milliseconds=settings.coalesce_milliseconds)
        self._limit = settings.coalesce_documents
        self._size = settings.coalesce_bytes

    def announce(self, connection: Connection, document: Document, query_id: str, now: datetime) -> None:
        """Let a document that was stored in this transaction be told.

        The first of an idle account goes out at once; what follows within the window waits for its end, or until
        enough is waiting.
        """
        account_id = document.account_id
        size = len(orjson.dumps(document_dto(PayloadVersion.V2023_04, self._part(document))))
        due_at = self._told_at(connection, account_id, size, now)
        if due_at <= now:  # of several that come to an idle account at once, one is the first
            lock_account(connection, account_id)
            due_at = self._told_at(connection, account_id, size, now)
        documents.add_announcement(connection, account_id, document.id, query_id, size, due_at)
        if due_at <= now:
            self.compose(connection, account_id, now)

    def compose(self, connection: Connection, account_id: str, now: datetime) -> None:
        """Turn everything of an account that waits to be announced into messages."""
        lock_account(connection, account_id)
        readers = _with_mode(connection, account_id, DeliveryMode.AS_AVAILABLE)
        while taken := documents.take_announcements(connection, account_id, self._limit, self._size):
            for version, group in _by_version(readers):
                for message in self._group(connection, taken, version):
                    self._append_documents(connection, message, version, group, now)
            self._notifier.notify(connection, account_id, taken, now)

    def end_query_if_over(self, connection: Connection, query_id: str, now: datetime) -> None:
        """End a query whose last step has ended, and tell so: a customer never has to poll.

        The caller holds the patient's lock: of two steps that end at the same time, one is the last.
        """
        query = queries.end_query_if_over(connection, query_id, now)
        if query is not None:
            self.compose(connection, query.account_id, now)  # the closing message comes after every document
            self._tell_end(connection, query, now)

    def abandon_other_networks(self, connection: Connection, networks: Collection[str], now: datetime) -> bool:
        """Give up what networks that are no longer configured were asked, so that their queries come to an end.

        False if there may be more: it is done for some at a time.
        """
        asking = queries.asking_others(connection, networks, _ABANDONED_AT_ONCE)
        for patient_id in sorted({query.patient_id for query in asking}):
            lock_patient(connection, patient_id)  # all before the account's, which the first that ends takes
        for query in asking:
            queries.abandon_steps(connection, query.id, networks)
            self.end_query_if_over(connection, query.id, now)
        return len(asking) < _ABANDONED_AT_ONCE

    def _tell_end(self, connection: Connection, query: DocumentQuery, now: datetime) -> None:
        for mode in DeliveryMode:
            readers = _with_mode(connection, query.account_id, mode)
            if readers:
                is_all_told = mode is DeliveryMode.AS_AVAILABLE
                brought = [] if is_all_told else documents.documents_of_query(connection, query.id)
                part = self._patient_part(connection, query, brought, query.status)
                for version, group in _by_version(readers):
                    self._append(connection, [query], [part], version, group, now)

    def _append_documents(
        self,
        connection: Connection,
        announced: Sequence[tuple[DocumentQuery, list[Document]]],
        version: PayloadVersion,
        readers: Sequence[Endpoint],
        now: datetime,
    ) -> None:
        parts = [
            self._patient_part(connection, query, brought, QueryStatus.COMPLETED, named=len(announced) > 1)
            for query, brought in announced
        ]
        self._append(connection, [query for query, _ in announced], parts, version, readers, now)

    def _append(
        self,
        connection: Connection,
        about: Sequence[DocumentQuery],
        parts: Sequence[PatientPart],
        version: PayloadVersion,
        readers: Sequence[Endpoint],
        now: datetime,
    ) -> None:
        request_id = about[0].id if len(about) == 1 else None
        meta = Meta(new_message_id(), now, _EVENT, request_id=request_id, data=about[0].metadata)
        draft = EventDraft(
            id=meta.message_id,
            account_id=about[0].account_id,
            type=_EVENT,
            payload_version=version,
            body=document_message(version, meta, parts),
            patient_ids=tuple(dict.fromkeys(query.patient_id for query in about)),
            query_id=request_id,
            trace=common_trace(about),
        )
        told = [] if is_silenced(about[0].metadata) else readers
        outbox.append(connection, self._vault, draft, told, now, self._retention)

    def _group(
        self, connection: Connection, taken: Sequence[documents.Announced], version: PayloadVersion
    ) -> Iterable[list[tuple[DocumentQuery, list[Document]]]]:
        """What goes into one message each: several queries together if the version's readers expect several patients
        and the customer gave them the same metadata (a message has one `meta.data`)."""
        by_query = []
        for query_id, items in groupby(sorted(taken, key=lambda item: item.query_id), lambda item: item.query_id):
            query = queries.find_query(connection, query_id)
            if query is not None:
                by_query.append((query, [item.document for item in items]))
        if version is PayloadVersion.V2025_10:
            return [[one] for one in by_query]
        key = _metadata_key
        return [list(group) for _, group in groupby(sorted(by_query, key=key), key)]

    def _patient_part(
        self,
        connection: Connection,
        query: DocumentQuery,
        brought: Sequence[Document],
        status: QueryStatus,
        *,
        named: bool = False,
    ) -> PatientPart:
        patient = registry.get_patient(connection, query.account_id, query.patient_id)
        return PatientPart(
            patient_id=query.patient_id,
            external_id=patient.external_id if patient else None,
            additional_ids=patient.additional_ids if patient else {},
            documents=[self._part(document) for document in brought],
            status=status,
            request_id=query.id if named else None,
        )

    def _part(self, document: Document) -> DocumentPart:
        return DocumentPart(document, location=f"{self._fhir_base}/Binary/{document.id}")

    def _told_at(self, connection: Connection, account_id: str, size: int, now: datetime) -> datetime:
        """When one more document of so many bytes is to be told, with all that waits."""
        waiting = documents.waiting_announcements(connection, account_id)
        if waiting.count + 1 >= self._limit or waiting.size + size >= self._size:
            return now
        if waiting.due_at is not None:
            return min(waiting.due_at, now + self.window)  # later only if the clock was put back
        last = outbox.last_created(connection, account_id, _EVENT)
        return now if last is None else min(max(last + self.window, now), now + self.window)


def _metadata_key(item: tuple[DocumentQuery, list[Document]]) -> bytes:
    return orjson.dumps(item[0].metadata, option=orjson.OPT_SORT_KEYS)


def _with_mode(connection: Connection, account_id: str, mode: DeliveryMode) -> list[Endpoint]:
    return [
        endpoint
        for endpoint in endpoints.endpoints_of(connection, account_id)
        if endpoint.delivery is mode and endpoints.wants(endpoint, _EVENT)
    ]


def _by_version(readers: Iterable[Endpoint]) -> list[tuple[PayloadVersion, list[Endpoint]]]:
    ordered = sorted(readers, key=lambda endpoint: endpoint.payload_version)
    return [(version, list(group)) for version, group in groupby(ordered, lambda item: item.payload_version)]
