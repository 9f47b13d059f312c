"""From stored documents to notifications of FHIR subscriptions, in the transaction that announces them.

What is announced together is notified together, up to the subscription's `max-count`. Each document that a
subscription's filters admit is one numbered event of it. While its handshake has not been answered well, the
notification is written but goes to nobody: the good answer releases it (`store.subscriptions`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import orjson
from sqlalchemy import Connection

from chartwire.formats.fhir_notifications import notification
from chartwire.ids import new_message_id
from chartwire.model.document import Document, DocumentQuery
from chartwire.model.message import is_silenced
from chartwire.model.subscription import (
    NotificationType,
    PayloadContent,
    Subscription,
    SubscriptionEvent,
    SubscriptionStatus,
)
from chartwire.model.webhook import EventDraft, EventType
from chartwire.settings import Settings
from chartwire.store import documents, outbox, queries, subscriptions
from chartwire.store.documents import Announced, DocumentFilter
from chartwire.store.vault import Vault


class Notifier:
    """Composes the notifications of documents that are being announced."""

    def __init__(self, vault: Vault, settings: Settings) -> None:
        self._vault = vault
        self._public_base = settings.public_base
        self._retention = timedelta(days=settings.payload_retention_days)

    def notify(self, connection: Connection, account_id: str, taken: Sequence[Announced], now: datetime) -> None:
        """Number and tell documents under every subscription of the account that wants them.

        The caller holds the account's lock: a handshake that is answered meanwhile would not release what is held.
        """
        subscribers = subscriptions.subscribers(connection, account_id, now)
        if not subscribers:
            return
        asked = {query_id: queries.find_query(connection, query_id) for query_id in {item.query_id for item in taken}}
        silent = {query_id for query_id, query in asked.items() if query is not None and is_silenced(query.metadata)}
        told = [item.document for item in taken if item.query_id not in silent]
        trace = common_trace([query for query in asked.values() if query is not None])
        for subscription, chosen in subscribers:
            wanted = _wanted(connection, account_id, chosen, told)
            for part in _parts(wanted, subscription.max_count):
                self._append(connection, subscription, part, trace, now)

    def _append(
        self,
        connection: Connection,
        subscription: Subscription,
        happened: Sequence[Document],
        trace: str | None,
        now: datetime,
    ) -> None:
        events = subscriptions.number(connection, subscription, happened, now)
        draft = self._draft(subscription, events, trace, now)
        is_answered = subscription.asked is SubscriptionStatus.ACTIVE
        takers = [subscription.endpoint] if is_answered else []
        event_seq = outbox.append_for(connection, self._vault, draft, takers, now, self._retention)
        subscriptions.record(connection, subscription, events, event_seq)

    def _draft(
        self, subscription: Subscription, events: Sequence[SubscriptionEvent], trace: str | None, now: datetime
    ) -> EventDraft:
        message_id = new_message_id()
        kind = NotificationType.EVENT_NOTIFICATION
        bundle = notification(self._public_base, subscription, kind, message_id, now, events)
        subjects = dict.fromkeys(event.document.patient_id for event in events if event.document)
        return EventDraft(
            id=message_id,
            account_id=subscription.endpoint.account_id,
            type=EventType.SUBSCRIPTION_EVENT,
            payload_version=subscription.endpoint.payload_version,
            body=orjson.dumps(bundle),
            patient_ids=() if subscription.content is PayloadContent.EMPTY else tuple(subjects),
            trace=trace,
        )


def common_trace(about: Sequence[DocumentQuery]) -> str | None:
    """A message goes on with the trace of its queries, if they have one and the same."""
    traces = {query.trace for query in about}
    return traces.pop() if len(traces) == 1 else None


def _wanted(
    connection: Connection, account_id: str, chosen: DocumentFilter, told: Sequence[Document]
) -> list[Document]:
    """By the search itself, so that a filter means what it means there."""
    if chosen == DocumentFilter():
        return list(told)
    narrowed = replace(chosen, ids=tuple(document.id for document in told))
    admitted = {document.id for document in documents.list_documents(connection, account_id, narrowed)}
    return [document for document in told if document.id in admitted]


def _parts(wanted: Sequence[Document], max_count: int | None) -> Iterator[Sequence[Document]]:
    size = max_count or len(wanted) or 1
    for start in range(0, len(wanted), size):
        yield wanted[start : start + size]
