"""On PostgreSQL the history is in ranges of numbers, each a table of its own: what is old is dropped, not deleted.

    event, event_subject    by the number of the event
    delivery, attempt       by the number of the delivery

Range k has the numbers from k * 2**40 on, more than are ever given out in one: at a hundred million deliveries a day
they last for thirty years. A range begins when the sequences jump to its first number, and so one range after the other
has the rows of a stretch of time. Nothing is moved, no bounds change, and no row ever lacks a range.

The sequence of deliveries jumps first: a delivery is never in an earlier range than its event, and so never goes before
it, or a subscription that looks for the delivery would tell again. One in a later range, as of an event that was told
after a handshake, is deleted when the range of its event is dropped: they are few.
"""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError

from chartwire.store import schema
from chartwire.store.bulk import POSTGRESQL
from chartwire.store.database import lock
from chartwire.telemetry import get_logger

WIDTH = 2**40

_DIVIDED = ("event", "event_subject", "delivery", "attempt")
_COUNTED = ("delivery", "event")  # in the order in which their sequences jump
_SHARES = 6
"""A range has this part of the time that history is kept."""

_MOST = 8
"""Claims look into each range: when there are so many, the newest takes more time than its share."""

_SAMPLE = 1000
"""Of so many rows some have been dated by a clock that was right."""

_LOCK_TIMEOUT = "20ms"
"""Whoever wants the tables waits behind us as long as we wait for those who have them, and then they are all there at
once: so it is tried for a short time, and often."""
_TRIES = 50
_PAUSE = text("SELECT pg_sleep(random() / 5)")

_LOCK_NOT_AVAILABLE = "55P03"

_EVENT = schema.event.c
_DELIVERY = schema.delivery.c

log = get_logger()


def forget_history(connection: Connection, kept: timedelta, now: datetime) -> bool:
    """Do the next of what is to be done: let new rows go into the newest range, make one after it, or drop the oldest.

    Returns whether there may be more. What cannot be done without waiting is left for another time.
    """
    lock(connection, "ranges of history")
    known = known_ranges(connection)
    begin(connection)
    if len(known) < _MOST and _holds_a_share(connection, known[-1], now - kept / _SHARES, now):
        return _at_once(connection, lambda: _make(connection, known[-1] + 1, known[-1]))
    if not _may_go(connection, known[0], now - kept, now):
        return False
    if not _at_once(connection, lambda: _drop(connection, known[0], now - kept, now)):
        return False
    _delete_deliveries_without_event(connection, known[0])
    return True


def known_ranges(connection: Connection) -> list[int]:
    """Those that there are, the oldest first."""
    children = text(
        "SELECT CAST(substring(relname FROM '[0-9]+$') AS integer) AS range FROM pg_inherits"
        " JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = CAST('event' AS regclass) ORDER BY range"
    )
    return list(connection.execute(children).scalars())


def begin(connection: Connection) -> None:
    """Let numbers be given out from the newest range, if they are not already."""
    first = known_ranges(connection)[-1] * WIDTH
    for table in _COUNTED:
        sequence = f"{table}_seq_seq"
        last = connection.execute(text(f"SELECT last_value FROM {sequence}")).scalar_one()  # noqa: S608  our own names
        if last < first:
            connection.execute(select(func.setval(sequence, first)))


def make_room(connection: Connection, numbers: Iterable[int]) -> None:
    """Make the ranges of numbers that rows from elsewhere have."""
    if connection.dialect.name != POSTGRESQL:
        return
    known = known_ranges(connection)
    for number in sorted({number // WIDTH for number in numbers} - set(known)):
        _make(connection, number, known[0])


def _holds_a_share(connection: Connection, number: int, before: datetime, now: datetime) -> bool:
    """Whether the oldest row of a range was written before a moment, or by a clock that was ahead and tells nothing."""
    oldest = select(_EVENT.created_at).where(_EVENT.seq >= number * WIDTH).order_by(_EVENT.seq).limit(1)
    written = connection.execute(oldest).scalar_one_or_none()
    return written is not None and (written < before or written > now)


def _may_go(connection: Connection, number: int, before: datetime, now: datetime) -> bool:
    """Whether all of a range is older than `before`, has no bytes that may still be sent, and is not being posted.

    The newest event and that of the newest delivery stay, see `store.forgetting`. A clock that was ahead holds nothing:
    bytes are not kept for longer than history is. Each condition is a seek in an index, or a few.
    """
    end = literal((number + 1) * WIDTH)
    longest = now + (now - before)
    payload = select(_EVENT.expires_at).where(_EVENT.seq < end, _EVENT.body.is_not(None), _EVENT.expires_at <= longest)
    leases = select(_DELIVERY.seq).where(_DELIVERY.lease.is_not(None), _DELIVERY.lease_until > now)
    newest_delivery = select(_DELIVERY.event_seq).order_by(_DELIVERY.seq.desc()).limit(1)
    conditions: list[ColumnElement[bool]] = [
        exists().where(_EVENT.seq >= end),
        newest_delivery.scalar_subquery() >= end,
        payload.order_by(_EVENT.expires_at).limit(1).scalar_subquery().is_(None),
        ~leases.where(_DELIVERY.event_seq < end).exists(),
        _is_older(_EVENT, end, before, now),
        _is_older(_DELIVERY, end, before, now),
    ]
    return bool(connection.execute(select(and_(*conditions))).scalar_one())


def _is_older(table: Any, end: ColumnElement[int], before: datetime, now: datetime) -> ColumnElement[bool]:
    """Whether the rows up to a number are older than a moment: the last of them say it, or those that follow on them if
    the last are all of a clock that was ahead. Where nothing says it, they are not."""

    def dated(rows: Select[datetime], pick: Callable[[ColumnElement[datetime]], ColumnElement[datetime]]) -> Any:
        at = rows.limit(_SAMPLE).subquery().c.created_at
        return select(pick(at)).where(at <= now).scalar_subquery()

    rows = select(table.created_at)
    last = dated(rows.where(table.seq < end).order_by(table.seq.desc()), func.max)
    following = dated(rows.where(table.seq >= end).order_by(table.seq), func.min)
    return or_(~exists().where(table.seq < end), func.coalesce(last, following) < before)


def _delete_deliveries_without_event(connection: Connection, number: int) -> None:
    """Delete the deliveries, with their attempts, whose events were in a range that has been dropped."""
    left = select(_DELIVERY.seq).where(_DELIVERY.event_seq < (number + 1) * WIDTH)
    seqs = connection.execute(left).scalars().all()
    if seqs:
        connection.execute(delete(schema.attempt).where(schema.attempt.c.delivery_seq.in_(seqs)))
        connection.execute(delete(schema.delivery).where(_DELIVERY.seq.in_(seqs)))


def _at_once(connection: Connection, change: Callable[[], bool]) -> bool:
    """Change tables in a moment in which nobody is in the way; if there is none, nothing is done."""
    connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
    for _ in range(_TRIES):
        try:
            with connection.begin_nested():
                return change()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
        connection.execute(_PAUSE)
    log.warning("a range of history could not be made or dropped: its tables are never free", tries=_TRIES)
    return False


def _make(connection: Connection, number: int, pattern: int) -> bool:
    """Make a range like another; True. To attach a table without foreign keys stops nobody."""
    for table in _DIVIDED:
        connection.execute(text(f"CREATE TABLE {table}_{number} (LIKE {table}_{pattern} INCLUDING ALL)"))
    bounds = f"FROM ({number * WIDTH}) TO ({(number + 1) * WIDTH})"
    for table in _DIVIDED:
        connection.execute(text(f"ALTER TABLE {table} ATTACH PARTITION {table}_{number} FOR VALUES {bounds}"))
    return True


def _drop(connection: Connection, number: int, before: datetime, now: datetime) -> bool:
    """Drop a range, if nothing came to it until all others were kept out."""
    connection.execute(text(f"LOCK TABLE ONLY {', ONLY '.join(_DIVIDED)} IN ACCESS EXCLUSIVE MODE"))
    if not _may_go(connection, number, before, now):
        return False
    connection.execute(text(f"DROP TABLE {', '.join(f'{table}_{number}' for table in _DIVIDED)}"))
    return True
