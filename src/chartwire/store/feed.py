"""The events of an account in the order of their commit, for apps that pull, and how far each has come.

The feed is what the endpoint of `/settings` gets, whether it has a URL or not; the numbers of its deliveries are the
order. They are given out under the account's lock (`outbox.append_for`), so that no number appears behind one that
was read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, func, insert, select, update

from chartwire.model.webhook import PROBES, EventType
from chartwire.store import schema
from chartwire.store.database import lock_account
from chartwire.store.endpoints import settings_endpoint
from chartwire.store.vault import Purpose, Vault

_EVENT = schema.event.c
_DELIVERY = schema.delivery.c
_CURSOR = schema.event_cursor.c


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """An event in the feed; `body` is exactly what is posted, None once it is forgotten."""

    position: int
    seq: int
    id: str
    type: EventType
    created_at: datetime
    body: bytes | None


def read_feed(
    connection: Connection, vault: Vault, account_id: str, after: int, types: Sequence[EventType], limit: int
) -> list[FeedEvent]:
    """The next events after a position, of `types`; none means all but pings."""
    endpoint = settings_endpoint(connection, account_id)
    wanted = _EVENT.type.in_(types) if types else _EVENT.type.not_in(PROBES)
    query = (
        select(_DELIVERY.seq.label("position"), _EVENT.seq, _EVENT.id, _EVENT.type, _EVENT.created_at, _EVENT.body)
        .join(schema.event, _EVENT.seq == _DELIVERY.event_seq)
        .where(_DELIVERY.account_id == account_id, _DELIVERY.seq > after, _DELIVERY.endpoint_seq == endpoint.seq)
        .where(wanted)
        .order_by(_DELIVERY.seq)
        .limit(limit)
    )
    return [
        FeedEvent(
            position=row.position,
            seq=row.seq,
            id=row.id,
            type=EventType(row.type),
            created_at=row.created_at,
            body=None if row.body is None else vault.open(Purpose.PAYLOAD, row.body),
        )
        for row in connection.execute(query)
    ]


def end_of_feed(connection: Connection, account_id: str) -> int:
    """The position after everything that is there."""
    query = select(func.max(_DELIVERY.seq)).where(_DELIVERY.account_id == account_id)
    return connection.execute(query).scalar_one() or 0


def find_cursor(connection: Connection, account_id: str, name: str) -> int | None:
    """How far a named reader has acknowledged; None if there is none of that name."""
    query = select(_CURSOR.after_seq).where(_CURSOR.account_id == account_id, _CURSOR.name == name)
    return connection.execute(query).scalar_one_or_none()


def save_cursor(connection: Connection, account_id: str, name: str, position: int, now: datetime) -> None:
    """Remember how far a named reader has come; it may go back, too."""
    lock_account(connection, account_id)
    values = {"after_seq": position, "updated_at": now}
    known = update(schema.event_cursor).where(_CURSOR.account_id == account_id, _CURSOR.name == name)
    if connection.execute(known.values(**values)).rowcount == 0:
        connection.execute(insert(schema.event_cursor).values(account_id=account_id, name=name, **values))


def delete_cursor(connection: Connection, account_id: str, name: str) -> bool:
    """Forget a named reader; False if there was none."""
    statement = delete(schema.event_cursor).where(_CURSOR.account_id == account_id, _CURSOR.name == name)
    return connection.execute(statement).rowcount == 1
