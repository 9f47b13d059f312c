"""What an account has and how it is doing, in few and cheap queries: read while somebody looks at the console."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, case, func, literal_column, select, type_coerce

from chartwire.clock import from_milliseconds
from chartwire.model.circuit import Circuit
from chartwire.model.document import StepState
from chartwire.model.health import Health
from chartwire.model.overview import EndpointReport, HourOfAttempts, NetworkReport
from chartwire.model.webhook import PROBES, DeliveryState, Outcome
from chartwire.store import circuits, endpoints, outbox, schema

_ATTEMPT = schema.attempt.c
_DELIVERY = schema.delivery.c
_AUDIT = schema.audit.c
_DOCUMENT = schema.document.c
_STEP = schema.network_step.c
_HOUR_MILLISECONDS = 3_600_000
_MOST_ATTEMPTS = 200_000
_LATEST_ENTRIES = 200

Mark = tuple[int | None, str | None, int | None]
"""The newest event, document and attempt of an account: whenever it differs, something happened."""


def read_mark(connection: Connection, account_id: str) -> Mark:
    """How far the account is."""
    event, document = schema.event.c, _DOCUMENT
    latest = select(_AUDIT.seq, _AUDIT.actor).where(_AUDIT.account_id == account_id)
    entries = latest.order_by(_AUDIT.seq.desc()).limit(_LATEST_ENTRIES).subquery()
    return (
        connection.execute(select(func.max(event.seq)).where(event.account_id == account_id)).scalar_one(),
        connection.execute(select(func.max(document.id)).where(document.account_id == account_id)).scalar_one(),
        connection.execute(select(func.max(entries.c.seq)).where(entries.c.actor == "engine")).scalar_one(),
    )


def endpoint_reports(connection: Connection, account_id: str) -> list[EndpointReport]:
    """The endpoints of an account, the oldest first."""
    column = schema.endpoint.c
    waiting = _counts_by_endpoint(connection, outbox.waiting_of(account_id))
    failed = _counts_by_endpoint(connection, outbox.failed_of(account_id))
    query = (
        select(schema.endpoint).where(column.account_id == account_id, column.deleted_at.is_(None)).order_by(column.seq)
    )
    return [
        EndpointReport(
            endpoints.to_endpoint(row),
            Health(row.failures_in_row, row.failing_since, row.strains_in_row, row.breaker_waits, row.paused_until),
            waiting.get(row.seq, 0),
            failed.get(row.seq, 0),
        )
        for row in connection.execute(query)
    ]


def _counts_by_endpoint(connection: Connection, which: ColumnElement[bool]) -> dict[int, int]:
    query = (
        select(_DELIVERY.endpoint_seq, func.count())
        .join(schema.event, schema.event.c.seq == _DELIVERY.event_seq)
        .where(which, schema.event.c.type.not_in(PROBES))
        .group_by(_DELIVERY.endpoint_seq)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def waiting_by_age(
    connection: Connection, account_id: str, now: datetime, bounds: Sequence[timedelta]
) -> tuple[int, ...]:
    """How many deliveries have waited less than each of the rising `bounds`, and, last, how many longer than all."""
    ages = case(
        *((_DELIVERY.created_at > now - bound, number) for number, bound in enumerate(bounds)), else_=len(bounds)
    )
    waiting = select(ages.label("age"), func.count()).where(outbox.waiting_of(account_id))
    query = waiting.group_by(literal_column("age"))  # written once more it would be another one to PostgreSQL
    counts = {row[0]: row[1] for row in connection.execute(query)}
    return tuple(counts.get(number, 0) for number in range(len(bounds) + 1))


def delivery_lags(connection: Connection, account_id: str, limit: int) -> list[int]:
    """Milliseconds from commit to delivery of the last `limit` events delivered at their first attempt, pings aside."""
    query = (
        select(_DELIVERY.created_at, _DELIVERY.settled_at)
        .join(schema.event, schema.event.c.seq == _DELIVERY.event_seq)
        .where(_DELIVERY.account_id == account_id, _DELIVERY.state == DeliveryState.DELIVERED)
        .where(schema.event.c.type.not_in(PROBES))
        .order_by(_DELIVERY.seq.desc())
        .limit(limit)
    )
    rows = connection.execute(query).all()
    return sorted((row.settled_at - row.created_at) // timedelta(milliseconds=1) for row in rows if row.settled_at)


def attempts_by_hour(connection: Connection, account_id: str, since: datetime) -> list[HourOfAttempts]:
    """Attempts that began since a moment, by hour and outcome: hours without any are left out.

    Of a very busy installation the newest 200 000 alone are looked at.
    """
    first = _first_attempt_since(connection, since)
    if first is None:
        return []
    hour = type_coerce(_ATTEMPT.started_at, BigInteger) // literal_column(str(_HOUR_MILLISECONDS), BigInteger)
    query = (
        select(hour.label("hour"), _ATTEMPT.outcome, func.count())
        .join(schema.delivery, _DELIVERY.seq == _ATTEMPT.delivery_seq)
        .where(_ATTEMPT.id >= first, _ATTEMPT.started_at >= since, _DELIVERY.account_id == account_id)
        .group_by(literal_column("hour"), _ATTEMPT.outcome)
    )
    hours: dict[int, dict[Outcome, int]] = {}
    for number, outcome, count in connection.execute(query):
        hours.setdefault(number, {})[Outcome(outcome)] = count
    return [HourOfAttempts(from_milliseconds(number * _HOUR_MILLISECONDS), hours[number]) for number in sorted(hours)]


def _first_attempt_since(connection: Connection, since: datetime) -> int | None:
    """The id of the first attempt since a moment, found by halving: attempts are numbered as they end, and an index
    on their times would cost every attempt more than this costs a page."""
    low, high = connection.execute(select(func.min(_ATTEMPT.id), func.max(_ATTEMPT.id))).one()
    if high is None:
        return None
    low = max(low, high - _MOST_ATTEMPTS)
    while low < high:
        middle = (low + high) // 2
        at_or_after = select(_ATTEMPT.id, _ATTEMPT.started_at).where(_ATTEMPT.id >= middle)
        row = connection.execute(at_or_after.order_by(_ATTEMPT.id).limit(1)).one()
        if row.started_at < since:
            low = row.id + 1
        else:
            high = middle
    return int(low)


def network_reports(
    connection: Connection, account_id: str, names: Sequence[str], now: datetime, since: datetime
) -> list[NetworkReport]:
    """How each of `names`, and every other network that was asked or gave something, has done since a moment."""
    asked = _steps_since(connection, account_id, since)
    issues = _issues_since(connection, account_id, since)
    last = _last_asked(connection, account_id, since)
    held = _documents_by_network(connection, account_id)
    known = [*names, *sorted({name for name, _ in asked} | set(held))]
    broken = circuits.find(connection, names)
    return [
        NetworkReport(
            name,
            answered=asked.get((name, StepState.DONE), 0),
            failed=asked.get((name, StepState.FAILED), 0),
            waiting=asked.get((name, StepState.WAITING), 0),
            issues=tuple((issue, count) for (network, issue), count in sorted(issues.items()) if network == name),
            documents=held.get(name, (0, 0))[0],
            bytes=held.get(name, (0, 0))[1],
            last_answered=last.get((name, StepState.DONE)),
            last_failed=last.get((name, StepState.FAILED)),
            circuit=broken.get(name),
            circuit_state=broken.get(name, Circuit()).state(now),
        )
        for name in dict.fromkeys(known)
    ]


def _steps_since(connection: Connection, account_id: str, since: datetime) -> dict[tuple[str, str], int]:
    query = _recent_steps(account_id, since, _STEP.network, _STEP.state)
    return {(row[0], row[1]): row[2] for row in connection.execute(query)}


def _last_asked(connection: Connection, account_id: str, since: datetime) -> dict[tuple[str, str], datetime]:
    latest = func.max(schema.document_query.c.started_at)
    query = _recent_steps(account_id, since, _STEP.network, _STEP.state).add_columns(latest)
    return {(row[0], row[1]): row[3] for row in connection.execute(query)}


def _issues_since(connection: Connection, account_id: str, since: datetime) -> dict[tuple[str, str], int]:
    query = _recent_steps(account_id, since, _STEP.network, _STEP.issue).where(_STEP.issue.is_not(None))
    return {(row[0], row[1]): row[2] for row in connection.execute(query)}


def _recent_steps(account_id: str, since: datetime, *by: Any) -> Select[Any]:
    query = schema.document_query.c
    return (
        select(*by, func.count())
        .select_from(schema.network_step)
        .join(schema.document_query, query.id == _STEP.query_id)
        .where(query.account_id == account_id, query.started_at >= since)
        .group_by(*by)
    )


def _documents_by_network(connection: Connection, account_id: str) -> dict[str, tuple[int, int]]:
    query = (
        select(_DOCUMENT.network, func.count(), func.sum(_DOCUMENT.size))
        .where(_DOCUMENT.account_id == account_id)
        .group_by(_DOCUMENT.network)
    )
    return {row[0]: (row[1], int(row[2])) for row in connection.execute(query)}


def has_patient(connection: Connection, account_id: str) -> bool:
    """Whether the account has any patient."""
    return (
        connection.execute(
            select(schema.patient.c.id).where(schema.patient.c.account_id == account_id).limit(1)
        ).first()
        is not None
    )
