"""Documents that wait for somebody to look at them, what was decided of them, and those that could not be fetched."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, select, update

from chartwire.errors import IssueCode
from chartwire.model.document import RemoteDocument, StepState
from chartwire.model.listing import Part, Window
from chartwire.model.matching import Disagreement, Stated
from chartwire.model.quarantine import HeldDocument, QuarantineState, UntakenDocument
from chartwire.store.listing import milliseconds, read_part
from chartwire.store.records import from_json, to_json
from chartwire.store.schema import document_query, intake_step, quarantined_document

_HELD = quarantined_document.c
_TITLE = func.lower(func.coalesce(_HELD.remote["title"].as_string(), ""))
ORDERS = {
    "held": _HELD.id,
    "title": _TITLE,
    "network": _HELD.network,
    "size": _HELD.size,
    "state": _HELD.state,
}
UNTAKEN_ORDERS = {
    "asked": milliseconds(document_query.c.started_at),
    "network": intake_step.c.network,
    "why": func.coalesce(intake_step.c.issue, ""),
}

_WITH_DIGEST = select(quarantined_document).where(
    _HELD.patient_id == bindparam("patient"), _HELD.sha256 == bindparam("digest")
)
_RELEASED = select(quarantined_document).where(_HELD.release_query_id == bindparam("query"))


def hold(connection: Connection, record: HeldDocument) -> None:
    """Keep a document aside; its bytes must be safely stored already."""
    connection.execute(
        quarantined_document.insert().values(
            id=record.id,
            account_id=record.account_id,
            patient_id=record.patient_id,
            query_id=record.query_id,
            network=record.network,
            remote=to_json(record.remote),
            reasons=list(record.reasons),
            stated=to_json(record.stated),
            declared_type=record.declared_type,
            mime_type=record.mime_type,
            size=record.size,
            sha1=record.sha1,
            sha256=record.sha256,
            held_at=record.held_at,
            state=record.state,
        )
    )


def find(connection: Connection, account_id: str, held_id: str) -> HeldDocument | None:
    """One of an account's by its id."""
    query = select(quarantined_document).where(_HELD.account_id == account_id, _HELD.id == held_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else _to_held(row)


def find_by_digest(connection: Connection, patient_id: str, sha256: str) -> HeldDocument | None:
    """What is known of these bytes as a patient's."""
    row = connection.execute(_WITH_DIGEST, {"patient": patient_id, "digest": sha256}).one_or_none()
    return None if row is None else _to_held(row)


def find_released(connection: Connection, query_id: str) -> HeldDocument | None:
    """The document that a query is to take in, if it is such a query."""
    row = connection.execute(_RELEASED, {"query": query_id}).one_or_none()
    return None if row is None else _to_held(row)


def decide(
    connection: Connection,
    record: HeldDocument,
    state: QuarantineState,
    actor: str,
    note: str,
    now: datetime,
    release_query_id: str | None = None,
) -> HeldDocument:
    """Write down what is to become of a document that is held."""
    changes: dict[str, Any] = {
        "state": state, "decided_at": now, "decided_by": actor, "note": note, "release_query_id": release_query_id
    }  # fmt: skip
    connection.execute(update(quarantined_document).where(_HELD.id == record.id).values(**changes))
    return replace(record, **changes)


def page(
    connection: Connection, account_id: str, state: QuarantineState | None, network: str | None, window: Window
) -> Part[HeldDocument]:
    """A part of an account's, ordered by one of `ORDERS`."""
    query = select(quarantined_document).where(_HELD.account_id == account_id)
    if state is not None:
        query = query.where(_HELD.state == state)
    if network is not None:
        query = query.where(_HELD.network == network)
    return read_part(connection, query, ORDERS, _HELD.id, window, _to_held)


def count_held(connection: Connection, account_id: str) -> int:
    """How many of an account's wait for somebody to look."""
    query = select(func.count()).where(_HELD.account_id == account_id, _HELD.state == QuarantineState.HELD)
    return connection.execute(query).scalar_one()


def page_untaken(
    connection: Connection, account_id: str, issue: IssueCode | None, network: str | None, window: Window
) -> Part[UntakenDocument]:
    """A part of the documents that could not be fetched, ordered by one of `UNTAKEN_ORDERS`."""
    step = intake_step.c
    query = (
        select(intake_step, document_query.c.started_at)
        .join(document_query, document_query.c.id == step.query_id)
        .where(
            document_query.c.account_id == account_id,
            step.state == StepState.FAILED,
            func.coalesce(step.issue, "") != IssueCode.WRONG_PATIENT,
        )
    )
    if issue is not None:
        query = query.where(step.issue == issue)
    if network is not None:
        query = query.where(step.network == network)
    return read_part(connection, query, UNTAKEN_ORDERS, step.id, window, _to_untaken)


def _to_held(row: Row[Any]) -> HeldDocument:
    return HeldDocument(
        id=row.id,
        account_id=row.account_id,
        patient_id=row.patient_id,
        query_id=row.query_id,
        network=row.network,
        remote=from_json(RemoteDocument, row.remote),
        reasons=tuple(Disagreement(each) for each in row.reasons),
        stated=from_json(Stated, row.stated),
        declared_type=row.declared_type,
        mime_type=row.mime_type,
        size=row.size,
        sha1=row.sha1,
        sha256=row.sha256,
        held_at=row.held_at,
        state=QuarantineState(row.state),
        decided_at=row.decided_at,
        decided_by=row.decided_by,
        note=row.note,
        release_query_id=row.release_query_id,
    )


def _to_untaken(row: Row[Any]) -> UntakenDocument:
    return UntakenDocument(
        patient_id=row.patient_id,
        query_id=row.query_id,
        network=row.network,
        remote=from_json(RemoteDocument, row.remote),
        issue=IssueCode(row.issue) if row.issue else IssueCode.INTERNAL,
        asked_at=row.started_at,
    )
