"""The audit trail: who saw or changed whose data, when, with what outcome. Append-only.

It is written in the transaction of what it tells of, or before an answer leaves; it outlives the data. A search is one
entry without a patient, as IHE ATNA records queries: what was seen one by one is told one by one.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select

from chartwire.model.listing import Part, Window
from chartwire.store.bulk import Bulk
from chartwire.store.listing import read_part
from chartwire.store.schema import audit

ORDERS = {"when": audit.c.seq, "who": audit.c.actor, "did": audit.c.action, "outcome": audit.c.outcome}

RECORD_ATTEMPTS = Bulk(
    """WITH made (at, account_id, event_seq, subject, outcome) AS ({rows})
    INSERT INTO audit (at, account_id, actor, action, patient_id, subject, outcome)
    SELECT made.at, made.account_id, 'engine', 'webhook.attempt', event_subject.patient_id, made.subject, made.outcome
    FROM made LEFT JOIN event_subject ON event_subject.event_seq = made.event_seq""",
    "bigint text bigint text text",
)
"""As `record`, of many attempts: an entry for each patient whose data an event carries, or one about nobody."""


def record(
    connection: Connection,
    at: datetime,
    account_id: str,
    actor: str,
    action: str,
    patient_id: str | None = None,
    subject: str | None = None,
    outcome: str = "ok",
) -> None:
    """Append an entry.

    `actor` is `key:<id>`, `member:<id>`, `link`, `engine` or `operator`; `action` is `<slice's noun>.<verb>`;
    `subject` is the id of what else is concerned (a document, an event, an endpoint).
    """
    connection.execute(
        insert(audit).values(
            at=at,
            account_id=account_id,
            actor=actor,
            action=action,
            patient_id=patient_id,
            subject=subject,
            outcome=outcome,
        )
    )


def is_recorded(
    connection: Connection, account_id: str, actor: str, action: str, patient_id: str, since: datetime
) -> bool:
    """Whether there is such an entry since a moment: found among the patient's, by its index."""
    column = audit.c
    same = [column.account_id == account_id, column.actor == actor, column.action == action, column.at >= since]
    query = select(column.seq).where(column.patient_id == patient_id, *same).order_by(column.seq.desc()).limit(1)
    return connection.execute(query).first() is not None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An entry of the trail; `seq` orders them."""

    seq: int
    at: datetime
    actor: str
    action: str
    patient_id: str | None
    subject: str | None
    outcome: str


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries of an account: every part that is given must hold. `action` may be its beginning alone."""

    actor: str | None = None
    action: str | None = None
    patient_id: str | None = None
    subject: str | None = None
    start: datetime | None = None
    end: datetime | None = None


def page(connection: Connection, account_id: str, chosen: AuditFilter, window: Window) -> Part[AuditEntry]:
    """A part of the entries that are chosen, ordered by one of `ORDERS`."""
    return read_part(connection, select_entries(account_id, chosen), ORDERS, audit.c.seq, window, to_entry)


def search(
    connection: Connection, account_id: str, chosen: AuditFilter, before: int | None, limit: int
) -> list[AuditEntry]:
    """Entries older than the one with `seq` `before`, the newest first."""
    query = select_entries(account_id, chosen)
    if before is not None:
        query = query.where(audit.c.seq < before)
    return [to_entry(row) for row in connection.execute(query.order_by(audit.c.seq.desc()).limit(limit))]


def select_entries(account_id: str, chosen: AuditFilter) -> Select[Any]:
    """The entries that are chosen."""
    column = audit.c
    query = select(audit).where(column.account_id == account_id)
    for name in ("actor", "patient_id"):
        if (value := getattr(chosen, name)) is not None:
            query = query.where(column[name] == value)
    if chosen.action is not None:
        query = query.where(column.action.startswith(chosen.action, autoescape=True))
    if chosen.subject is not None:
        query = query.where(column.subject.contains(chosen.subject, autoescape=True))
    if chosen.start is not None:
        query = query.where(column.at >= chosen.start)
    if chosen.end is not None:
        query = query.where(column.at < chosen.end)
    return query


def to_entry(row: Row[Any]) -> AuditEntry:
    """A row of `select_entries`."""
    return AuditEntry(row.seq, row.at, row.actor, row.action, row.patient_id, row.subject, row.outcome)
