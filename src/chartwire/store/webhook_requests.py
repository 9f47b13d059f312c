"""Messages to the endpoint of `/settings`, listed as existing clients of the contract know them."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, select

from chartwire.model.webhook import PROBES, DeliveryState, EventType, Outcome
from chartwire.store import schema

_EVENT = schema.event.c
_ENDPOINT = schema.endpoint.c
_DELIVERY = schema.delivery.c
_ATTEMPT = schema.attempt.c


class RequestOrder(StrEnum):
    """What a list of requests is in descending order of."""

    CREATED_AT = "createdAt"
    ID = "id"


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """A message with its last attempt. `id` is the message's."""

    id: str
    request_id: str | None
    type: EventType
    state: DeliveryState
    outcome: Outcome | None
    http_status: int | None
    url: str | None
    duration_ms: int | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class RequestWindow:
    """Which part of a list: `count` from `from_item` on, or `count` up to `to_item`; both are ids."""

    count: int
    order: RequestOrder
    from_item: str | None = None
    to_item: str | None = None


@dataclass(frozen=True, slots=True)
class RequestPage:
    """A part of a list, the items that the parts around it are asked by, and how many there are in all."""

    requests: list[WebhookRequest]
    total: int
    next_item: str | None
    previous_item: str | None


def page_requests(connection: Connection, account_id: str, since: datetime, window: RequestWindow) -> RequestPage:
    """Messages committed since a moment, the newest (or the greatest id) first; pings are left out."""
    base = _requests(account_id, since)
    key = _EVENT.id if window.order is RequestOrder.ID else _EVENT.seq
    total = connection.execute(base.with_only_columns(func.count())).scalar_one()
    if window.to_item is None:
        at_or_below = [] if window.from_item is None else [key <= _key_of(account_id, window.from_item, key)]
        rows = _rows(connection, base.where(*at_or_below).order_by(key.desc()), window.count + 1)
        above = _nearest(connection, base, key > _key_of(account_id, window.from_item, key), key.asc())
        page, beyond = rows[: window.count], rows[window.count :]
        return RequestPage(_listed(page), total, _id_of(beyond), above if window.from_item else None)
    rows = _rows(
        connection,
        base.where(key >= _key_of(account_id, window.to_item, key)).order_by(key.asc()),
        window.count + 1,
    )
    below = _nearest(connection, base, key < _key_of(account_id, window.to_item, key), key.desc())
    page, beyond = rows[: window.count], rows[window.count :]
    return RequestPage(_listed(page[::-1]), total, below, _id_of(beyond))


def _requests(account_id: str, since: datetime) -> Select[Any]:
    last = select(func.max(_ATTEMPT.id)).where(_ATTEMPT.delivery_seq == _DELIVERY.seq)
    return (
        select(
            _EVENT.id,
            _EVENT.type,
            _EVENT.query_id,
            _EVENT.created_at,
            _DELIVERY.state,
            _DELIVERY.outcome,
            _DELIVERY.http_status,
            _ATTEMPT.url,
            _ATTEMPT.duration_ms,
            _ATTEMPT.started_at,
        )
        .join_from(schema.event, schema.delivery, _DELIVERY.event_seq == _EVENT.seq)
        .join(schema.endpoint, and_(_ENDPOINT.seq == _DELIVERY.endpoint_seq, _ENDPOINT.is_settings))
        .outerjoin(schema.attempt, _ATTEMPT.id == last.correlate(schema.delivery).scalar_subquery())
        .where(_EVENT.account_id == account_id, _EVENT.created_at >= since, _EVENT.type.not_in(PROBES))
    )


def _key_of(account_id: str, event_id: str | None, key: ColumnElement[Any]) -> ColumnElement[Any]:
    of_event = schema.event.alias("pivot")
    column = of_event.c.id if key is _EVENT.id else of_event.c.seq
    query = select(column).where(of_event.c.account_id == account_id, of_event.c.id == event_id)
    return query.scalar_subquery()


def _nearest(
    connection: Connection, base: Select[Any], beyond: ColumnElement[bool], order: ColumnElement[Any]
) -> str | None:
    return _id_of(_rows(connection, base.where(beyond).order_by(order), 1))


def _rows(connection: Connection, query: Select[Any], limit: int) -> list[Row[Any]]:
    return list(connection.execute(query.limit(limit)))


def _id_of(rows: list[Row[Any]]) -> str | None:
    return rows[0].id if rows else None


def _listed(rows: list[Row[Any]]) -> list[WebhookRequest]:
    return [
        WebhookRequest(
            id=row.id,
            request_id=row.query_id,
            type=EventType(row.type),
            state=DeliveryState(row.state),
            outcome=None if row.outcome is None else Outcome(row.outcome),
            http_status=row.http_status,
            url=row.url,
            duration_ms=row.duration_ms,
            created_at=row.created_at,
            updated_at=row.started_at or row.created_at,
        )
        for row in rows
    ]
