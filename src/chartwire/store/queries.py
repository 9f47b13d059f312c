"""Document queries and their durable steps.

A query has one network step per network; a network step that lists documents makes one intake step per document that
is not held. A step is *claimed* under a lease and *settled* by whoever holds that lease; when a process dies, the
lease runs out (or is released at the next start) and the step is claimed again. The step that ends last ends the query.

Statements that every document goes through are constants: to build one takes SQLAlchemy longer than to run it.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    or_,
    select,
    union,
    update,
)

from chartwire.errors import IssueCode
from chartwire.ids import url_safe
from chartwire.model.document import (
    DocumentQuery,
    IntakeStep,
    NetworkStep,
    Progress,
    QueryStatus,
    RemoteDocument,
    StepState,
)
from chartwire.store.database import Bell, ring
from chartwire.store.records import from_json, to_json
from chartwire.store.schema import Moment, document_query, intake_step, network_step, quarantined_document

LONGEST_WAIT = timedelta(minutes=5)
"""A step that is put off is put off for this long at most."""

_LEASE_CHARACTERS = 22


def _is_waiting(table: Table) -> ColumnElement[bool]:
    """Written as a literal: the partial indexes on due steps are not considered for a bound value."""
    return table.c.state == literal_column("'waiting'")


def _waits(table: Table) -> Select[int]:
    """A step of a query that waits, if there is one; of ten thousand documents, one seek."""
    return select(table.c.id).where(table.c.query_id == bindparam("query"), table.c.state == StepState.WAITING).limit(1)


def _claimable(table: Table) -> Select[Any]:
    steps = select(table).where(_is_waiting(table), table.c.network == bindparam("network"))
    return steps.limit(bindparam("limit", type_=Integer)).with_for_update(
        skip_locked=True
    )  # SQLite has one writer and ignores this


def _lease(table: Table) -> Update:
    return update(table).where(table.c.id == bindparam("step")).values(attempts=table.c.attempts + 1)


def _first_due(table: Table) -> Select[Any]:
    """The first entry of the table's index of due steps."""
    return select(func.min(table.c.due_at)).where(_is_waiting(table), table.c.network == bindparam("network"))


WAITING_DOCUMENT = _waits(intake_step)

DUE_NETWORK_STEPS = (
    _claimable(network_step).where(network_step.c.due_at <= bindparam("now")).order_by(network_step.c.due_at)
)
"""The oldest due steps: one range of `ix_network_step_due`, in its order."""

DUE_INTAKE_STEPS = (
    _claimable(intake_step)
    .where(literal_column("+intake_step.due_at", Moment) <= bindparam("now"))
    .order_by(intake_step.c.turn, intake_step.c.due_at)
)
"""The due documents whose turn it is: the front of `ix_intake_step_turn`, in its order.

The plus keeps `ix_intake_step_due` out of it, by which all that is due would be sorted for every claim.
"""

FIRST_DUE_NETWORK_STEP = _first_due(network_step)
FIRST_DUE_INTAKE_STEP = _first_due(intake_step)

_QUERY = select(document_query).where(document_query.c.id == bindparam("query"))
_WAITING = (_waits(network_step), WAITING_DOCUMENT)
_LEASE_NETWORK_STEP = _lease(network_step)
_LEASE_INTAKE_STEP = _lease(intake_step)
_SETTLE_INTAKE_STEP = update(intake_step).where(
    intake_step.c.id == bindparam("step"), intake_step.c.lease == bindparam("held"), _is_waiting(intake_step)
)

# --- queries ----------------------------------------------------------------------------------------------------------


def start_query(connection: Connection, query: DocumentQuery, networks: Iterable[str]) -> None:
    """Write a query and a step for each network to ask."""
    connection.execute(
        document_query.insert().values(
            id=query.id,
            account_id=query.account_id,
            patient_id=query.patient_id,
            facility_id=query.facility_id,
            status=query.status,
            metadata=query.metadata,
            trace=query.trace,
            override=query.override,
            started_at=query.started_at,
        )
    )
    for network in networks:
        connection.execute(
            network_step.insert().values(
                query_id=query.id,
                account_id=query.account_id,
                patient_id=query.patient_id,
                network=network,
                state=StepState.WAITING,
                due_at=query.started_at,
            )
        )
    ring(connection, Bell.INTAKE)


def find_query(connection: Connection, query_id: str) -> DocumentQuery | None:
    """A query by its id, whosoever it is: for the engine, never for a customer's request."""
    row = connection.execute(_QUERY, {"query": query_id}).one_or_none()
    return None if row is None else _query(row)


def latest_query(connection: Connection, account_id: str, patient_id: str) -> DocumentQuery | None:
    """The patient's last query that asked networks, as one that takes in what was held does not; ids are ordered by
    time."""
    own = and_(document_query.c.account_id == account_id, document_query.c.patient_id == patient_id)
    is_release = exists().where(quarantined_document.c.release_query_id == document_query.c.id)
    latest = select(document_query).where(own, ~is_release).order_by(document_query.c.id.desc()).limit(1)
    row = connection.execute(latest).one_or_none()
    return None if row is None else _query(row)


def queries_of(connection: Connection, account_id: str, patient_id: str, limit: int) -> list[DocumentQuery]:
    """The patient's last queries, the newest first."""
    own = and_(document_query.c.account_id == account_id, document_query.c.patient_id == patient_id)
    newest = select(document_query).where(own).order_by(document_query.c.id.desc()).limit(limit)
    return [_query(row) for row in connection.execute(newest)]


def documents_by_network(connection: Connection, query_id: str) -> list[tuple[str, StepState, IssueCode | None, int]]:
    """How many documents of a query are in each state at each network, and why."""
    by = (intake_step.c.network, intake_step.c.state, intake_step.c.issue)
    rows = connection.execute(
        select(*by, func.count()).where(intake_step.c.query_id == query_id).group_by(*by).order_by(*by)
    )
    return [(row[0], StepState(row[1]), IssueCode(row[2]) if row[2] else None, row[3]) for row in rows]


def read_progress(connection: Connection, query: DocumentQuery) -> Progress:
    """How many documents are to be fetched, are stored, were given up. Documents already held do not count."""
    counts: dict[str, int] = dict(iter(connection.execute(progress_query(query.id))))
    done, failed = counts.get(StepState.DONE, 0), counts.get(StepState.FAILED, 0)
    return Progress(query.status, counts.get(StepState.WAITING, 0) + done + failed, done, failed)


def progress_query(query_id: str) -> Select[str, int]:
    """How many documents of a query are in each state: read from the index alone."""
    return (
        select(intake_step.c.state, func.count())
        .where(intake_step.c.query_id == query_id)
        .group_by(intake_step.c.state)
    )


def end_query_if_over(connection: Connection, query_id: str, now: datetime) -> DocumentQuery | None:
    """End the query if none of its steps waits: failed if every network failed, completed otherwise.

    Returns the query as it has ended now, or None if it goes on, is gone, or had ended before.
    """
    if _is_anything_waiting(connection, query_id):
        return None
    query = find_query(connection, query_id)
    if query is None or query.status is not QueryStatus.PROCESSING:
        return None
    states = set(connection.execute(select(network_step.c.state).where(network_step.c.query_id == query_id)).scalars())
    status = QueryStatus.FAILED if states == {StepState.FAILED} else QueryStatus.COMPLETED
    connection.execute(
        update(document_query).where(document_query.c.id == query_id).values(status=status, ended_at=now)
    )
    return replace(query, status=status, ended_at=now)


def _is_anything_waiting(connection: Connection, query_id: str) -> bool:
    return any(connection.execute(waiting, {"query": query_id}).first() for waiting in _WAITING)


@dataclass(frozen=True, slots=True)
class Asked:
    """How far asking one network is; `issue` says why it failed, or why it is being asked again."""

    network: str
    state: StepState
    issue: IssueCode | None


def networks_asked(connection: Connection, query_id: str) -> list[Asked]:
    """The networks of a query by name."""
    rows = connection.execute(
        select(network_step.c.network, network_step.c.state, network_step.c.issue)
        .where(network_step.c.query_id == query_id)
        .order_by(network_step.c.network)
    )
    return [Asked(row.network, StepState(row.state), IssueCode(row.issue) if row.issue else None) for row in rows]


def _query(row: Row[Any]) -> DocumentQuery:
    return DocumentQuery(
        id=row.id,
        account_id=row.account_id,
        patient_id=row.patient_id,
        facility_id=row.facility_id,
        status=QueryStatus(row.status),
        started_at=row.started_at,
        metadata=row.metadata,
        override=row.override,
        ended_at=row.ended_at,
        trace=row.trace,
    )


# --- claims -----------------------------------------------------------------------------------------------------------


def claim_network_steps(
    connection: Connection,
    network: str,
    limit: int,
    now: datetime,
    lease_for: timedelta,
    due_by: datetime | None = None,
) -> list[NetworkStep]:
    """Take up to `limit` steps of one network that are due, or were by `due_by`, oldest first."""
    due = connection.execute(DUE_NETWORK_STEPS, {"network": network, "limit": limit, "now": due_by or now}).all()
    leased = _claim(connection, due, _LEASE_NETWORK_STEP, now, lease_for)
    return [_claimed_network_step(row, lease) for row, lease in leased]


def claim_network_step(
    connection: Connection, network: str, query_id: str, now: datetime, lease_for: timedelta
) -> NetworkStep | None:
    """Take the step of one query at one network, if it is due and nobody has it."""
    its_own = DUE_NETWORK_STEPS.where(network_step.c.query_id == query_id)
    due = connection.execute(its_own, {"network": network, "limit": 1, "now": now}).all()
    for row, lease in _claim(connection, due, _LEASE_NETWORK_STEP, now, lease_for):
        return _claimed_network_step(row, lease)
    return None


def _claimed_network_step(row: Row[Any], lease: str) -> NetworkStep:
    return NetworkStep(row.query_id, row.account_id, row.patient_id, row.network, row.attempts + 1, lease, row.failures)


def claim_intake_steps(
    connection: Connection, network: str, limit: int, now: datetime, lease_for: timedelta
) -> list[IntakeStep]:
    """Take up to `limit` due documents of one network, as their turns come."""
    due = connection.execute(DUE_INTAKE_STEPS, {"network": network, "limit": limit, "now": now}).all()
    return [
        IntakeStep(
            id=row.id,
            query_id=row.query_id,
            account_id=row.account_id,
            patient_id=row.patient_id,
            network=row.network,
            remote=from_json(RemoteDocument, row.remote),
            attempt=row.attempts + 1,
            lease=lease,
            failures=row.failures,
        )
        for row, lease in _claim(connection, due, _LEASE_INTAKE_STEP, now, lease_for)
    ]


def _claim(
    connection: Connection, due: Sequence[Row[Any]], leasing: Update, now: datetime, lease_for: timedelta
) -> list[tuple[Row[Any], str]]:
    """Lease each: what is held leaves the due range, and comes back if its holder vanishes."""
    claimed = [(row, url_safe(_LEASE_CHARACTERS)) for row in due]
    until = now + lease_for
    if claimed:
        held = [{"step": row.id, "lease": lease, "lease_until": until, "due_at": until} for row, lease in claimed]
        connection.execute(leasing, held)
    return claimed


def next_network_step(connection: Connection, network: str) -> datetime | None:
    """When the network's next step becomes due, or the lease of a holder that may have vanished runs out."""
    return _next_due(connection, FIRST_DUE_NETWORK_STEP, network)


def next_intake_step(connection: Connection, network: str) -> datetime | None:
    """When the network's next document becomes due, or the lease of a holder that may have vanished runs out."""
    return _next_due(connection, FIRST_DUE_INTAKE_STEP, network)


def _next_due(connection: Connection, first: Select[Any], network: str) -> datetime | None:
    due: datetime | None = connection.execute(first, {"network": network}).scalar_one()
    return due


def release_leases(connection: Connection, now: datetime) -> None:
    """Make everything that is leased due now: only for a process that knows that no other holds a lease.

    So is what would be due later than any wait explains: it was written by a clock that was ahead.
    """
    for table in (network_step, intake_step):
        connection.execute(
            update(table)
            .where(_is_waiting(table), or_(table.c.lease.is_not(None), table.c.due_at > now + LONGEST_WAIT))
            .values(lease=None, lease_until=None, due_at=now)
        )


def asking_others(connection: Connection, networks: Collection[str], limit: int) -> list[DocumentQuery]:
    """Up to `limit` queries with a step that waits for a network that is none of `networks`.

    A network may be taken out of the settings while it is being asked: nobody would ever claim its steps.
    """
    asking = union(
        *(
            select(table.c.query_id).where(_is_waiting(table), table.c.network.not_in(networks))
            for table in (network_step, intake_step)
        )
    )
    found = select(document_query).where(document_query.c.id.in_(asking)).order_by(document_query.c.id).limit(limit)
    return [_query(row) for row in connection.execute(found)]


def abandon_steps(connection: Connection, query_id: str, networks: Collection[str]) -> None:
    """Fail what of a query waits for a network that is none of `networks`."""
    for table in (network_step, intake_step):
        connection.execute(
            update(table)
            .where(table.c.query_id == query_id, _is_waiting(table), table.c.network.not_in(networks))
            .values(state=StepState.FAILED, issue=IssueCode.NOT_FOUND, lease=None, lease_until=None)
        )


# --- settling ---------------------------------------------------------------------------------------------------------


def add_intake_steps(
    connection: Connection, step: NetworkStep, documents: Sequence[RemoteDocument], now: datetime, place: int = 0
) -> None:
    """A step for each document to fetch that this query has none for yet.

    Listings take turns at a network, so that a patient with ten documents does not wait for one with ten thousand:
    document n of a listing comes n turns after whatever is at the front of the line now. `place` is the n of the
    first of `documents`.
    """
    known = _listed_keys(connection, step, [remote.key for remote in documents])
    front = connection.execute(front_query(step.network)).scalar_one() or 0
    rows = [
        {
            "query_id": step.query_id,
            "account_id": step.account_id,
            "patient_id": step.patient_id,
            "network": step.network,
            "remote_key": remote.key,
            "remote": to_json(remote),
            "turn": front + place + number,
            "state": StepState.WAITING,
            "due_at": now,
        }
        for number, remote in enumerate(documents)
        if remote.key not in known
    ]
    if rows:
        connection.execute(intake_step.insert(), rows)
        ring(connection, Bell.INTAKE)


def front_query(network: str) -> Select[Any]:
    """The turn of whoever is at the front of a network's line: the first entry of `ix_intake_step_turn`."""
    return select(func.min(intake_step.c.turn)).where(_is_waiting(intake_step), intake_step.c.network == network)


def _listed_keys(connection: Connection, step: NetworkStep, keys: Collection[str]) -> set[str]:
    """Those of `keys` that have a step: a process that wrote the first part of a long listing may have died then."""
    same = and_(intake_step.c.query_id == step.query_id, intake_step.c.network == step.network)
    known = select(intake_step.c.remote_key).where(same, intake_step.c.remote_key.in_(keys))
    return set(connection.execute(known).scalars())


def holds(connection: Connection, step: NetworkStep) -> bool:
    """Whether a claimed step's lease is still ours."""
    held = select(network_step.c.id).where(_network_step(step), _is_held(network_step, step.lease))
    return connection.execute(held).first() is not None


def settle_network_step(
    connection: Connection, step: NetworkStep, state: StepState, issue: IssueCode | None = None
) -> bool:
    """End a claimed step. False if the lease is no longer ours: then nothing may follow from it."""
    return _release(connection, network_step, _network_step(step), step.lease, {"state": state, "issue": issue})


def settle_intake_step(
    connection: Connection,
    step: IntakeStep,
    state: StepState,
    issue: IssueCode | None = None,
    document_id: str | None = None,
) -> bool:
    """End a claimed step. False if the lease is no longer ours: then nothing may follow from it."""
    values = {"state": state, "issue": issue, "document_id": document_id, "lease": None, "lease_until": None}
    return connection.execute(_SETTLE_INTAKE_STEP, {"step": step.id, "held": step.lease, **values}).rowcount == 1


def postpone_network_step(
    connection: Connection, step: NetworkStep, due_at: datetime, issue: IssueCode, *, is_failure: bool = True
) -> bool:
    """Give a claimed step back, by default after a failure, to be claimed again from `due_at` on."""
    return _postpone(connection, network_step, _network_step(step), step.lease, due_at, issue, is_failure)


def postpone_intake_step(
    connection: Connection, step: IntakeStep, due_at: datetime, issue: IssueCode, *, is_failure: bool = True
) -> bool:
    """Give a claimed step back, by default after a failure, to be claimed again from `due_at` on."""
    return _postpone(connection, intake_step, intake_step.c.id == step.id, step.lease, due_at, issue, is_failure)


def is_done_in_query(connection: Connection, query_id: str, document_id: str) -> bool:
    """Whether a step of this query already brought the document."""
    return connection.execute(done_query(query_id, document_id)).first() is not None


def done_query(query_id: str, document_id: str) -> Select[Any]:
    """The steps of a query that brought a document: one at most."""
    done = and_(intake_step.c.query_id == query_id, intake_step.c.state == StepState.DONE)
    return select(intake_step.c.id).where(intake_step.c.document_id == document_id, done)


def _network_step(step: NetworkStep) -> ColumnElement[bool]:
    return and_(network_step.c.query_id == step.query_id, network_step.c.network == step.network)


def _postpone(
    connection: Connection,
    table: Table,
    which: ColumnElement[bool],
    lease: str,
    due_at: datetime,
    issue: IssueCode,
    is_failure: bool,
) -> bool:
    values = {"due_at": due_at, "issue": issue, "failures": table.c.failures + int(is_failure)}
    return _release(connection, table, which, lease, values)


def _release(
    connection: Connection, table: Table, which: ColumnElement[bool], lease: str, values: dict[str, Any]
) -> bool:
    """End a claim, if it is still ours."""
    held = update(table).where(which, _is_held(table, lease))
    return connection.execute(held.values(**values, lease=None, lease_until=None)).rowcount == 1


def _is_held(table: Table, lease: str) -> ColumnElement[bool]:
    return and_(table.c.lease == lease, table.c.state == StepState.WAITING)
