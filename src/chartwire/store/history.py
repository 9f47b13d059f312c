"""What was told, to whom, and how that went: events, deliveries and attempts of an account, the newest first."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, select

from chartwire.model.listing import Part, Window
from chartwire.model.webhook import (
    UNTIMED,
    Attempt,
    AttemptFilter,
    AttemptSummary,
    DeliveryFilter,
    DeliveryState,
    DeliverySummary,
    EventSummary,
    EventType,
    Outcome,
    PayloadVersion,
    Timing,
)
from chartwire.store import schema
from chartwire.store.listing import read_part
from chartwire.store.ring import IS_FAILED
from chartwire.store.vault import Purpose, Vault

_EVENT = schema.event.c
_ENDPOINT = schema.endpoint.c
_DELIVERY = schema.delivery.c
_ATTEMPT = schema.attempt.c

Condition = ColumnElement[bool]


def list_events(
    connection: Connection, account_id: str, chosen: DeliveryFilter, before: int | None, limit: int
) -> list[EventSummary]:
    """Events older than the one with `seq` `before`; an endpoint or states choose those with such a delivery."""
    query = select(*_EVENT_COLUMNS).where(_EVENT.account_id == account_id, *_of_event(chosen))
    if chosen.endpoint_id is not None or chosen.states is not None:
        delivered = select_deliveries(account_id, chosen).with_only_columns(_DELIVERY.event_seq)
        query = query.where(_EVENT.seq.in_(delivered))
    if before is not None:
        query = query.where(_EVENT.seq < before)
    return [_to_event(row) for row in connection.execute(query.order_by(_EVENT.seq.desc()).limit(limit))]


def find_event(connection: Connection, account_id: str, event_id: str) -> EventSummary | None:
    """One event."""
    query = select(*_EVENT_COLUMNS).where(_EVENT.account_id == account_id, _EVENT.id == event_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else _to_event(row)


def read_payload(connection: Connection, vault: Vault, account_id: str, event_id: str) -> bytes | None:
    """Exactly the bytes that are sent; None once they are forgotten."""
    query = select(_EVENT.body).where(_EVENT.account_id == account_id, _EVENT.id == event_id)
    sealed = connection.execute(query).scalar_one_or_none()
    return None if sealed is None else vault.open(Purpose.PAYLOAD, sealed)


def subjects_of(connection: Connection, event_seq: int) -> Sequence[str]:
    """Ids of the patients whom an event is about."""
    subject = schema.event_subject.c
    return connection.execute(select(subject.patient_id).where(subject.event_seq == event_seq)).scalars().all()


def list_deliveries(
    connection: Connection, account_id: str, chosen: DeliveryFilter, before: int | None, limit: int
) -> list[DeliverySummary]:
    """Deliveries older than the one with `seq` `before`."""
    query = select_deliveries(account_id, chosen)
    if before is not None:
        query = query.where(_DELIVERY.seq < before)
    return [to_delivery(row) for row in connection.execute(query.order_by(_DELIVERY.seq.desc()).limit(limit))]


def page_deliveries(
    connection: Connection, account_id: str, chosen: DeliveryFilter, window: Window
) -> Part[DeliverySummary]:
    """A part of the deliveries that are chosen, ordered by one of `DELIVERY_ORDERS`."""
    query = select_deliveries(account_id, chosen)
    return read_part(connection, query, DELIVERY_ORDERS, _DELIVERY.seq, window, to_delivery)


def page_attempts(
    connection: Connection, account_id: str, chosen: AttemptFilter, window: Window
) -> Part[AttemptSummary]:
    """A part of the attempts that are chosen, ordered by one of `ATTEMPT_ORDERS`; of very many the newest alone."""
    newest = connection.execute(select(func.max(_ATTEMPT.id))).scalar_one() or 0
    query = (
        select(schema.attempt, _EVENT.id.label("event_id"), _EVENT.type.label("event_type"), _ENDPOINT_NAME)
        .join(schema.delivery, _DELIVERY.seq == _ATTEMPT.delivery_seq)
        .join(schema.event, _EVENT.seq == _DELIVERY.event_seq)
        .join(schema.endpoint, _ENDPOINT.seq == _DELIVERY.endpoint_seq)
        .where(_ATTEMPT.id > newest - MOST_ATTEMPTS, _DELIVERY.account_id == account_id)
    )
    if chosen.outcomes is not None:
        query = query.where(_ATTEMPT.outcome.in_(chosen.outcomes))
    if chosen.endpoint_id is not None:
        query = query.where(_ENDPOINT.id == chosen.endpoint_id)
    if chosen.start is not None:
        query = query.where(_ATTEMPT.started_at >= chosen.start)
    if chosen.end is not None:
        query = query.where(_ATTEMPT.started_at < chosen.end)
    return read_part(connection, query, ATTEMPT_ORDERS, _ATTEMPT.id, window, _to_attempt_summary)


def _to_attempt_summary(row: Row[Any]) -> AttemptSummary:
    return AttemptSummary(
        event_id=row.event_id,
        event_type=EventType(row.event_type),
        endpoint=row.endpoint_name,
        number=row.number,
        started_at=row.started_at,
        duration_ms=row.duration_ms,
        outcome=Outcome(row.outcome),
        http_status=row.http_status,
        timing=_timing(row),
    )


def deliveries_of_event(connection: Connection, account_id: str, event_id: str) -> list[DeliverySummary]:
    """Every delivery of an event."""
    query = select_deliveries(account_id, DeliveryFilter()).where(_EVENT.id == event_id).order_by(_DELIVERY.seq)
    return [to_delivery(row) for row in connection.execute(query)]


def find_delivery(connection: Connection, account_id: str, event_id: str, endpoint_id: str) -> DeliverySummary | None:
    """The delivery of an event to an endpoint."""
    query = select_deliveries(account_id, DeliveryFilter(endpoint_id=endpoint_id)).where(_EVENT.id == event_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else to_delivery(row)


def list_attempts(connection: Connection, vault: Vault, delivery_seq: int) -> list[Attempt]:
    """Every attempt of a delivery, the first one first."""
    query = select(schema.attempt).where(_ATTEMPT.delivery_seq == delivery_seq).order_by(_ATTEMPT.id)
    return [
        Attempt(
            number=row.number,
            started_at=row.started_at,
            duration_ms=row.duration_ms,
            outcome=Outcome(row.outcome),
            http_status=row.http_status,
            url=row.url,
            answer=vault.open(Purpose.ANSWER, row.answer) if row.answer else b"",
            timing=_timing(row),
        )
        for row in connection.execute(query)
    ]


def _timing(row: Row[Any]) -> Timing | None:
    timing = Timing(bool(row.is_reused), row.dns_us, row.connect_us, row.tls_us, row.first_byte_us)
    return None if row.is_reused is None or timing == UNTIMED else timing


def to_delivery(row: Row[Any]) -> DeliverySummary:
    """A row of `select_deliveries`."""
    return DeliverySummary(
        seq=row.seq,
        event_id=row.event_id,
        event_type=EventType(row.event_type),
        request_id=row.query_id,
        endpoint_id=row.endpoint_id,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        due_at=row.due_at,
        outcome=None if row.outcome is None else Outcome(row.outcome),
        http_status=row.http_status,
        created_at=row.created_at,
        settled_at=row.settled_at,
        is_kept=row.is_kept,
        is_under_way=row.lease is not None,
    )


def select_deliveries(account_id: str, chosen: DeliveryFilter) -> Select[Any]:
    """Deliveries that a filter chooses, with their event and endpoint."""
    query = (
        select(*_DELIVERY_COLUMNS)
        .join(schema.event, _EVENT.seq == _DELIVERY.event_seq)
        .join(schema.endpoint, _ENDPOINT.seq == _DELIVERY.endpoint_seq)
        .where(_DELIVERY.account_id == account_id, *_of_delivery(chosen), *_of_event(chosen))
    )
    return query if chosen.endpoint_id is None else query.where(_ENDPOINT.id == chosen.endpoint_id)


def _of_delivery(chosen: DeliveryFilter) -> list[Condition]:
    if chosen.states is None:
        return []
    # What failed is most often asked for, and has an index that is not considered for a bound value.
    return [IS_FAILED if list(chosen.states) == [DeliveryState.FAILED] else _DELIVERY.state.in_(chosen.states)]


def _of_event(chosen: DeliveryFilter) -> list[Condition]:
    conditions: list[Condition] = []
    if chosen.types is not None:
        conditions.append(_EVENT.type.in_(chosen.types))
    if chosen.start is not None:
        conditions.append(_EVENT.created_at >= chosen.start)
    if chosen.end is not None:
        conditions.append(_EVENT.created_at < chosen.end)
    return conditions


def _to_event(row: Row[Any]) -> EventSummary:
    return EventSummary(
        seq=row.seq,
        id=row.id,
        type=EventType(row.type),
        payload_version=PayloadVersion(row.payload_version),
        request_id=row.query_id,
        size=row.size,
        created_at=row.created_at,
        expires_at=row.expires_at,
        is_kept=row.is_kept,
    )


_ENDPOINT_NAME = func.coalesce(_ENDPOINT.description, _ENDPOINT.url, "").label("endpoint_name")
MOST_ATTEMPTS = 200_000
"""Attempts of the whole installation among which those of an account are looked for."""
DELIVERY_ORDERS = {
    "committed": _DELIVERY.seq,
    "message": _EVENT.type,
    "state": _DELIVERY.state,
    "outcome": func.coalesce(_DELIVERY.outcome, ""),
    "attempts": _DELIVERY.attempts,
    "endpoint": func.coalesce(_ENDPOINT.description, _ENDPOINT.url, ""),
}
ATTEMPT_ORDERS = {
    "began": _ATTEMPT.id,
    "message": _EVENT.type,
    "outcome": _ATTEMPT.outcome,
    "duration": _ATTEMPT.duration_ms,
    "first-byte": func.coalesce(_ATTEMPT.first_byte_us, -1),
    "endpoint": func.coalesce(_ENDPOINT.description, _ENDPOINT.url, ""),
}
_IS_KEPT = _EVENT.body.is_not(None).label("is_kept")
_EVENT_COLUMNS = (
    _EVENT.seq,
    _EVENT.id,
    _EVENT.type,
    _EVENT.payload_version,
    _EVENT.query_id,
    _EVENT.size,
    _EVENT.created_at,
    _EVENT.expires_at,
    _IS_KEPT,
)
_DELIVERY_COLUMNS = (
    schema.delivery,
    _EVENT.id.label("event_id"),
    _EVENT.type.label("event_type"),
    _EVENT.query_id,
    _ENDPOINT.id.label("endpoint_id"),
    _IS_KEPT,
)
