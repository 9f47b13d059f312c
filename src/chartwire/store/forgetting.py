"""Forgetting the history of what was told: events with their subjects, deliveries and attempts. The audit trail stays.

An event stays while its bytes are kept, for it may still have to be sent, and while it is being posted. The newest
event and the newest delivery stay however old they are: numbers go on from them, and those of before must not come
again, for cursors and subscriptions know events by their numbers.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, Select, delete, func, select

from chartwire.store import ranges, schema
from chartwire.store.bulk import POSTGRESQL

_EVENT = schema.event.c
_SUBJECT = schema.event_subject.c
_DELIVERY = schema.delivery.c
_ATTEMPT = schema.attempt.c


_FEW = 50
"""Events that are looked at, and may go, at one time with what became of them: it takes SQLite's writer 4 ms."""


def forget_history(connection: Connection, kept: timedelta, now: datetime, after: int = 0) -> int | None:
    """Forget some of what is older than history is kept; returns after what to go on, None if there is no more.

    On SQLite a few events after a number, on PostgreSQL a whole range of them once all of it is older.
    """
    before = now - kept
    if connection.dialect.name == POSTGRESQL:
        return after if ranges.forget_history(connection, kept, now) else None
    few = select(_EVENT.seq).where(_EVENT.seq > after).order_by(_EVENT.seq).limit(_FEW).subquery()
    last = select(_EVENT.seq, _EVENT.created_at).where(_EVENT.seq == select(func.max(few.c.seq)).scalar_subquery())
    found = connection.execute(last).one_or_none()
    if found is None:
        return None
    seqs = connection.execute(forgettable_events(after, found.seq, before, now)).scalars().all()
    if seqs:
        _delete(connection, seqs)
    return found.seq if found.created_at < before or found.created_at > now else None


def forgettable_events(after: int, last: int, before: datetime, now: datetime) -> Select[int]:
    """Of the events after a number up to another those that may go."""
    newest = select(func.max(_EVENT.seq)).union_all(
        select(_DELIVERY.event_seq).where(_DELIVERY.seq == select(func.max(_DELIVERY.seq)).scalar_subquery())
    )
    posted = select(_DELIVERY.seq).where(_DELIVERY.event_seq == _EVENT.seq, _DELIVERY.lease_until > now).exists()
    return select(_EVENT.seq).where(
        _EVENT.seq > after,
        _EVENT.seq <= last,
        _EVENT.body.is_(None),  # asked first: in SQLite all that follows a body is found by reading it
        _EVENT.created_at < before,
        _EVENT.seq.not_in(newest),
        ~posted,
    )


def _delete(connection: Connection, event_seqs: Sequence[int]) -> None:
    of_events = select(_DELIVERY.seq).where(_DELIVERY.event_seq.in_(event_seqs))
    connection.execute(delete(schema.attempt).where(_ATTEMPT.delivery_seq.in_(of_events)))
    connection.execute(delete(schema.delivery).where(_DELIVERY.event_seq.in_(event_seqs)))
    connection.execute(delete(schema.event_subject).where(_SUBJECT.event_seq.in_(event_seqs)))
    connection.execute(delete(schema.event).where(_EVENT.seq.in_(event_seqs)))
