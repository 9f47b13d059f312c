"""FHIR subscriptions and their numbered events.

Numbers are given out by the row of the subscription: who takes some holds it until the commit, so that they have no
gaps and are in the order of commit.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, exists, insert, select, update
from sqlalchemy import delete as delete_from

from chartwire.model.document import Document
from chartwire.model.subscription import PayloadContent, Subscription, SubscriptionEvent, SubscriptionStatus
from chartwire.model.webhook import Endpoint, EventType, Outcome, PayloadVersion
from chartwire.store import documents, endpoints, outbox, schema
from chartwire.store.claims import ClaimedDelivery
from chartwire.store.database import lock_account
from chartwire.store.documents import DocumentFilter
from chartwire.store.endpoints import to_endpoint
from chartwire.store.records import from_json

_SUBSCRIPTION = schema.subscription.c
_EVENT = schema.subscription_event.c
_ENDPOINT = schema.endpoint.c


# --- what a customer does ---------------------------------------------------------------------------------------------


def create(connection: Connection, endpoint: Endpoint, columns: Mapping[str, Any], now: datetime) -> Subscription:
    """A new subscription whose channel is `endpoint`."""
    fixed = {"endpoint_seq": endpoint.seq, "account_id": endpoint.account_id, "updated_at": now, "version": 1}
    connection.execute(insert(schema.subscription).values(**fixed, **columns))
    return _get(connection, endpoint.seq)


def change(
    connection: Connection, subscription: Subscription, columns: Mapping[str, Any], now: datetime
) -> Subscription:
    """A new version of a subscription."""
    seq = subscription.endpoint.seq
    columns = {**columns, "updated_at": now, "version": _SUBSCRIPTION.version + 1}
    connection.execute(update(schema.subscription).where(_SUBSCRIPTION.endpoint_seq == seq).values(columns))
    return _get(connection, seq)


def amend(connection: Connection, subscription: Subscription, columns: Mapping[str, Any]) -> Subscription:
    """Complete a version that was made in this transaction."""
    seq = subscription.endpoint.seq
    if columns:
        connection.execute(update(schema.subscription).where(_SUBSCRIPTION.endpoint_seq == seq).values(columns))
    return _get(connection, seq)


def delete(connection: Connection, subscription: Subscription) -> None:
    """Forget it and its events; what its endpoint was sent stays in the history."""
    seq = subscription.endpoint.seq
    connection.execute(delete_from(schema.subscription_event).where(_EVENT.endpoint_seq == seq))
    connection.execute(delete_from(schema.subscription).where(_SUBSCRIPTION.endpoint_seq == seq))


def find(connection: Connection, account_id: str, subscription_id: str) -> Subscription | None:
    """One subscription of an account."""
    query = _select().where(_SUBSCRIPTION.account_id == account_id, _ENDPOINT.id == subscription_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else _to_subscription(row)


def subscriptions_of(connection: Connection, account_id: str) -> list[Subscription]:
    """Every subscription of an account, the oldest first."""
    query = _select().where(_SUBSCRIPTION.account_id == account_id).order_by(_ENDPOINT.seq)
    return [_to_subscription(row) for row in connection.execute(query)]


def list_events(
    connection: Connection, subscription: Subscription, since: int, until: int, limit: int
) -> list[SubscriptionEvent]:
    """Its events from one number up to another, both included, the oldest first."""
    query = (
        select(_EVENT.number, _EVENT.at, _EVENT.document_id)
        .where(_EVENT.endpoint_seq == subscription.endpoint.seq, _EVENT.number.between(since, until))
        .order_by(_EVENT.number)
        .limit(limit)
    )
    rows = connection.execute(query).all()
    ids = tuple(row.document_id for row in rows if row.document_id is not None)
    chosen = DocumentFilter(ids=ids)
    here = {each.id: each for each in documents.list_documents(connection, subscription.endpoint.account_id, chosen)}
    return [SubscriptionEvent(row.number, row.at, here.get(row.document_id)) for row in rows]


# --- what happens -----------------------------------------------------------------------------------------------------


def subscribers(connection: Connection, account_id: str, now: datetime) -> list[tuple[Subscription, DocumentFilter]]:
    """The subscriptions of an account for which what happens now is an event if their filter admits it."""
    query = _select().where(_SUBSCRIPTION.account_id == account_id).order_by(_ENDPOINT.seq)
    found = [(_to_subscription(row), from_json(DocumentFilter, row.chosen)) for row in connection.execute(query)]
    return [(subscription, chosen) for subscription, chosen in found if subscription.counts_events(now)]


def number(
    connection: Connection, subscription: Subscription, happened: Sequence[Document], now: datetime
) -> list[SubscriptionEvent]:
    """Give documents the next numbers."""
    last = connection.execute(
        update(schema.subscription)
        .where(_SUBSCRIPTION.endpoint_seq == subscription.endpoint.seq)
        .values(event_count=_SUBSCRIPTION.event_count + len(happened))
        .returning(_SUBSCRIPTION.event_count)
    ).scalar_one()
    first = last - len(happened) + 1
    return [SubscriptionEvent(first + place, now, document) for place, document in enumerate(happened)]


def record(
    connection: Connection, subscription: Subscription, numbered: Iterable[SubscriptionEvent], event_seq: int
) -> None:
    """Remember numbered events and the notification that tells of them."""
    rows = [
        {
            "endpoint_seq": subscription.endpoint.seq,
            "number": each.number,
            "at": each.at,
            "document_id": None if each.document is None else each.document.id,
            "event_seq": event_seq,
        }
        for each in numbered
    ]
    connection.execute(insert(schema.subscription_event), rows)


def note_attempt(
    connection: Connection, claimed: ClaimedDelivery, outcome: Outcome, detail: str, now: datetime
) -> None:
    """What the outcome of an attempt means for the subscription whose channel the endpoint is, if it is one."""
    endpoint = claimed.target.endpoint
    if endpoint.payload_version is not PayloadVersion.FHIR_R4:
        return
    is_good = outcome is Outcome.DELIVERED
    if claimed.event_type is EventType.SUBSCRIPTION_HANDSHAKE:
        _conclude_handshake(connection, claimed, None if is_good else detail, now)
    if is_good:
        _postpone_heartbeat(connection, endpoint.seq, now)


def _conclude_handshake(connection: Connection, claimed: ClaimedDelivery, error: str | None, now: datetime) -> None:
    """Only the last handshake counts: an earlier one may have been answered by another URL."""
    endpoint = claimed.target.endpoint
    lock_account(connection, endpoint.account_id)  # what is written for nobody meanwhile would be overlooked
    is_asked = and_(
        _SUBSCRIPTION.endpoint_seq == endpoint.seq,
        _SUBSCRIPTION.handshake_id == claimed.event_id,
        _SUBSCRIPTION.status == SubscriptionStatus.REQUESTED,
    )
    outcome = {"status": SubscriptionStatus.ACTIVE if error is None else SubscriptionStatus.ERROR, "error": error}
    fresh = {"version": _SUBSCRIPTION.version + 1, "updated_at": now}
    concluded = connection.execute(update(schema.subscription).where(is_asked).values(**outcome, **fresh)).rowcount
    if concluded and error is None:
        _release_held(connection, endpoint, now)
    elif concluded:
        endpoints.disable(connection, endpoint)  # whatever is retried or replayed waits for a better answer


def _release_held(connection: Connection, endpoint: Endpoint, now: datetime) -> None:
    """Send what happened, and what waited, while there was no good answer to a handshake.

    What is forgotten may have been told: neither its deliveries are there, nor it itself.
    """
    delivery = schema.delivery.c
    is_told = exists().where(delivery.event_seq == _EVENT.event_seq, delivery.endpoint_seq == endpoint.seq)
    is_there = exists().where(schema.event.c.seq == _EVENT.event_seq)
    own = select(_EVENT.event_seq).distinct().where(_EVENT.endpoint_seq == endpoint.seq)
    held = connection.execute(own.where(is_there, ~is_told).order_by(_EVENT.event_seq)).scalars().all()
    outbox.take_up_dropped(connection, endpoint, own, now)
    outbox.deliver(connection, held, endpoint, now)


# --- timers -----------------------------------------------------------------------------------------------------------


def due_subscriptions(connection: Connection, now: datetime, limit: int) -> list[Subscription]:
    """Subscriptions whose heartbeat is to be sent, or which have ended, the longest due first."""
    query = _select().where(_SUBSCRIPTION.due_at <= now).order_by(_SUBSCRIPTION.due_at).limit(limit)
    return [_to_subscription(row) for row in connection.execute(query)]


def take_due(connection: Connection, subscription: Subscription, now: datetime) -> bool:
    """Say when to look at it next; False if another process has looked at it meanwhile."""
    due_at = None if subscription.has_ended(now) else next_due(subscription, now)
    is_due = (_SUBSCRIPTION.endpoint_seq == subscription.endpoint.seq) & (_SUBSCRIPTION.due_at <= now)
    return connection.execute(update(schema.subscription).where(is_due).values(due_at=due_at)).rowcount == 1


def schedule(connection: Connection, endpoint_seq: int, due_at: datetime | None) -> None:
    """Say when to look at it next."""
    connection.execute(
        update(schema.subscription).where(_SUBSCRIPTION.endpoint_seq == endpoint_seq).values(due_at=due_at)
    )


def next_due(subscription: Subscription, now: datetime) -> datetime | None:
    """When its heartbeat is due if nothing else is sent, or when it ends."""
    moments = [] if subscription.ends_at is None else [subscription.ends_at]
    if subscription.heartbeat_seconds is not None and subscription.asked is SubscriptionStatus.ACTIVE:
        moments.append(now + timedelta(seconds=subscription.heartbeat_seconds))
    return min(moments, default=None)


def _postpone_heartbeat(connection: Connection, endpoint_seq: int, now: datetime) -> None:
    row = connection.execute(_select().where(_SUBSCRIPTION.endpoint_seq == endpoint_seq)).one_or_none()
    if row is not None and row.heartbeat_seconds is not None:
        schedule(connection, endpoint_seq, next_due(_to_subscription(row), now))


def _select() -> Select[Any]:
    """Subscriptions with their endpoints; columns that both have are told apart by a prefix."""
    own = [
        column.label(f"subscription_{column.name}" if column.name in _ENDPOINT else column.name)
        for column in _SUBSCRIPTION
    ]
    return (
        select(schema.endpoint, *own)
        .join(schema.subscription, _SUBSCRIPTION.endpoint_seq == _ENDPOINT.seq)
        .where(_ENDPOINT.deleted_at.is_(None))
    )


def _get(connection: Connection, endpoint_seq: int) -> Subscription:
    return _to_subscription(connection.execute(_select().where(_SUBSCRIPTION.endpoint_seq == endpoint_seq)).one())


def _to_subscription(row: Row[Any]) -> Subscription:
    return Subscription(
        endpoint=to_endpoint(row),
        asked=SubscriptionStatus(row.status),
        error=row.error,
        reason=row.reason,
        contact=row.contact,
        criteria=tuple(row.criteria),
        content=PayloadContent(row.content),
        heartbeat_seconds=row.heartbeat_seconds,
        max_count=row.max_count,
        ends_at=row.ends_at,
        event_count=row.event_count,
        updated_at=row.updated_at,
        version=row.subscription_version,
    )
