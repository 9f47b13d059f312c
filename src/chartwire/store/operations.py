"""How the installation runs, in few and cheap queries: read while somebody looks at the console."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, case, delete, func, literal_column, select, text

from chartwire.model.operations import Queue, Worker
from chartwire.model.webhook import ReplayState
from chartwire.store import outbox, schema
from chartwire.store.bulk import POSTGRESQL

_PROCESS = schema.process.c
_WAITING: ColumnElement[str] = literal_column("'waiting'")
"""The partial indexes on steps that wait are not considered for a bound value."""


def greet(connection: Connection, worker: Worker, expires_at: datetime) -> None:
    """Write down that a process is there; who has not been heard of is forgotten."""
    connection.execute(
        delete(schema.process).where((_PROCESS.id == worker.id) | (_PROCESS.expires_at < worker.seen_at))
    )
    connection.execute(
        schema.process.insert().values(
            id=worker.id,
            role=worker.role,
            host=worker.host,
            pid=worker.pid,
            version=worker.version,
            started_at=worker.started_at,
            seen_at=worker.seen_at,
            expires_at=expires_at,
        )
    )


def part(connection: Connection, worker_id: str) -> None:
    """Forget a process that ends."""
    connection.execute(delete(schema.process).where(_PROCESS.id == worker_id))


def workers(connection: Connection, now: datetime) -> list[Worker]:
    """The processes that were heard of lately, the oldest first."""
    query = select(schema.process).where(_PROCESS.expires_at >= now).order_by(_PROCESS.started_at, _PROCESS.id)
    return [
        Worker(row.id, row.role, row.host, row.pid, row.version, row.started_at, row.seen_at)
        for row in connection.execute(query)
    ]


def queues(connection: Connection, account_id: str, now: datetime, bounds: Sequence[timedelta]) -> list[Queue]:
    """What of an account waits, by kind and age."""
    query, delivery, replay = schema.document_query.c, schema.delivery.c, schema.replay.c
    kinds: list[tuple[str, Any, Select[Any]]] = [
        (
            "questions",
            query.started_at,
            select(func.count())
            .select_from(schema.network_step.join(schema.document_query))
            .where(schema.network_step.c.account_id == account_id, schema.network_step.c.state == _WAITING),
        ),
        (
            "documents",
            query.started_at,
            select(func.count())
            .select_from(schema.intake_step.join(schema.document_query))
            .where(schema.intake_step.c.account_id == account_id, schema.intake_step.c.state == _WAITING),
        ),
        (
            "deliveries",
            delivery.created_at,
            select(func.count()).where(outbox.waiting_of(account_id)),
        ),
        (
            "replays",
            replay.created_at,
            select(func.count()).where(replay.account_id == account_id, replay.state == ReplayState.RUNNING),
        ),
    ]
    return [Queue(kind, _by_age(connection, counted, since, now, bounds)) for kind, since, counted in kinds]


def _by_age(
    connection: Connection, counted: Select[Any], since: Any, now: datetime, bounds: Sequence[timedelta]
) -> tuple[int, ...]:
    ages = case(*((since > now - bound, number) for number, bound in enumerate(bounds)), else_=len(bounds))
    rows = connection.execute(counted.add_columns(ages.label("age")).group_by(literal_column("age")))
    found = {age: count for count, age in rows}
    return tuple(found.get(number, 0) for number in range(len(bounds) + 1))


def documents_kept(connection: Connection, account_id: str) -> tuple[int, int]:
    """How many documents an account has, and their bytes."""
    document = schema.document.c
    query = select(func.count(), func.coalesce(func.sum(document.size), 0)).where(document.account_id == account_id)
    count, size = connection.execute(query).one()
    return count, int(size)


def database_bytes(connection: Connection) -> int:
    """How large the database is."""
    if connection.dialect.name == POSTGRESQL:
        return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
    pages, size = (connection.execute(text(f"PRAGMA {name}")).scalar_one() for name in ("page_count", "page_size"))
    return int(pages) * int(size)
