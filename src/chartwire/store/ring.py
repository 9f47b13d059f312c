"""Who has work that is due: a ring of accounts, each a ring of endpoints, each with its deliveries.

    account.ready_at    the earliest `ready_at` of its endpoints
    endpoint.ready_at   when something of it may be claimed: `due_at` of the first that waits, or `held_until` or
                        `paused_until` if that is later; None while nothing waits, it is disabled or it has no URL
    delivery.due_at     when it is attempted, or when the lease of who attempts it ends

Each level is one seek in an index, so that finding work costs the same whatever waits and whoever has nothing. What is
served goes to the ring's end. A `ready_at` may be too early, which costs a look, but never too late: who makes work
due calls `wake` or `release`, who has looked calls `turn`. Inside here and `store.claims` times are milliseconds.

On PostgreSQL many look at once. Who walks the ring takes the locks of the rows that it moves, and passes over what
another has locked; so it waits for nobody. Who makes work due shares a lock on the endpoint until its commit, so that
no `turn` puts an endpoint back that has not seen that work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, func, literal_column, select, update

from chartwire.clock import from_milliseconds, to_milliseconds
from chartwire.model.webhook import EndpointState
from chartwire.store import schema
from chartwire.store.bulk import POSTGRESQL, Bulk, Lookup, Row, Statement

_ENDPOINT = schema.endpoint.c
_DELIVERY = schema.delivery.c

IS_WAITING: ColumnElement[bool] = _DELIVERY.state == literal_column("'waiting'")
"""Written as a literal: the partial index `ix_delivery_due` is not considered for a bound value."""

IS_FAILED: ColumnElement[bool] = _DELIVERY.state == literal_column("'failed'")
"""As `IS_WAITING`, for `ix_delivery_failed`."""

_IS_OPEN = (_ENDPOINT.state == EndpointState.ENABLED) & _ENDPOINT.url.is_not(None)


class ReadyEndpoint(NamedTuple):
    """An endpoint that may have work, with all that says whether and how much of it may go out."""

    seq: int
    account_id: str
    version: int
    is_open: bool
    paused_until: int | None
    breaker_waits: int
    failures: int
    max_in_flight: int | None
    rate_per_second: int | None
    spent_until: int | None


class Waiting(NamedTuple):
    """A delivery that waits, due now or later; `again` tells its lane."""

    endpoint_seq: int
    seq: int
    again: bool
    due_at: int


@dataclass(frozen=True, slots=True)
class Turn:
    """An endpoint that has had its turn: it is looked at again at `ready_at`, None if nothing of it waits."""

    endpoint_seq: int
    ready_at: int | None
    held_until: int
    spent_until: int | None


_RETURNING = " RETURNING account_id, ready_at"

_LATEST = """
    CASE WHEN held_until > ? AND (paused_until IS NULL OR held_until >= paused_until) THEN held_until
         WHEN paused_until > ? THEN paused_until
         ELSE ? END"""

WAKE = Bulk(
    f"UPDATE endpoint SET ready_at = {_LATEST} WHERE seq IN {{rows}}"  # noqa: S608  all of it written here
    f" AND state = 'enabled' AND url IS NOT NULL AND (ready_at IS NULL OR ready_at > {_LATEST}){_RETURNING}",
    "bigint",
)

_RELEASED = """
    UPDATE endpoint SET ready_at = CASE WHEN paused_until > ? THEN paused_until ELSE ? END, held_until = NULL
    WHERE seq IN {rows} AND state = 'enabled' AND url IS NOT NULL
        AND (ready_at IS NULL OR ready_at > CASE WHEN paused_until > ? THEN paused_until ELSE ? END)"""

RELEASE = Bulk(f"{_RELEASED}{_RETURNING}", "bigint")

FREE = Bulk(f"{_RELEASED} AND held_until > ? AND failures_in_row = 0{_RETURNING}", "bigint")

WAKING = f"""shared AS (
        SELECT seq, ready_at, state = 'enabled' AND url IS NOT NULL AS is_open, {_LATEST} AS first
        FROM endpoint WHERE seq IN {{rows}} ORDER BY seq FOR KEY SHARE),
    woken AS (
        UPDATE endpoint SET ready_at = least(endpoint.ready_at, shared.first) FROM shared
        WHERE endpoint.seq = shared.seq AND shared.is_open
            AND (shared.ready_at IS NULL OR shared.ready_at > shared.first)
        RETURNING endpoint.account_id, endpoint.ready_at),
    accounts AS (
        UPDATE account SET ready_at = least(account.ready_at, first.at)
        FROM (SELECT account_id, min(ready_at) AS at FROM woken GROUP BY account_id) AS first
        WHERE account.id = first.account_id)"""  # noqa: S608  all of it written here
"""`WAKE`, and what goes before and after it where there are others, as parts of one statement of PostgreSQL's.

The statement may have begun before whoever walks the ring put the endpoint back. What `shared` tells was read when the
lock was had, and `least` is reckoned of the row as it is when it is written: so neither the walker's word is missed
nor that of somebody else who wakes it.
"""

WAKE_AT_ONCE = Bulk(f"WITH {WAKING} SELECT count(*) FROM woken", "bigint")  # noqa: S608  all of it written here

# Written even if it is early enough: on PostgreSQL whoever has the account now may be about to put it back.
WAKE_ACCOUNT = Bulk(
    "UPDATE account SET ready_at = CASE WHEN ready_at < ? THEN ready_at ELSE ? END WHERE id IN {rows}", "text"
)

SHARE = Bulk("SELECT seq FROM endpoint WHERE seq IN {rows} ORDER BY seq /*pg FOR KEY SHARE*/", "bigint")

READY_ACCOUNTS = Statement(
    "SELECT id FROM account WHERE ready_at <= ? ORDER BY ready_at LIMIT ? /*pg FOR NO KEY UPDATE SKIP LOCKED*/"
)

READY_ENDPOINTS = Lookup(
    """SELECT * FROM (
        SELECT seq, account_id, version, state = 'enabled' AND url IS NOT NULL AS is_open, paused_until, breaker_waits,
            failures_in_row, max_in_flight, rate_per_second, spent_until
        FROM endpoint WHERE account_id = {0} AND ready_at <= {1} ORDER BY ready_at LIMIT {2}
        /*pg FOR UPDATE SKIP LOCKED*/) AS ready""",
    "text bigint bigint",
)

_LANE = """SELECT * FROM (
    SELECT endpoint_seq, seq, again, due_at FROM delivery
    WHERE endpoint_seq = {{0}} AND again = {lane} AND state = 'waiting' ORDER BY due_at, seq LIMIT {{1}})
    AS {lane}_lane"""

FIRST_WAITING = Lookup(f"{_LANE.format(lane='false')} UNION ALL {_LANE.format(lane='true')}", "bigint bigint")

TURN_ENDPOINTS = Bulk(
    """WITH turn (seq, ready_at, held_until, spent_until) AS ({rows})
    UPDATE endpoint SET ready_at = turn.ready_at, held_until = turn.held_until, spent_until = turn.spent_until
    FROM turn WHERE endpoint.seq = turn.seq""",
    "bigint bigint bigint bigint",
)

NEXT_READY = Statement("SELECT min(ready_at) FROM account")

_FIRST_READY = """(
    SELECT ready_at FROM endpoint
    WHERE account_id = account.id AND ready_at IS NOT NULL ORDER BY ready_at LIMIT 1)"""

TURN_ACCOUNTS = Bulk(
    f"UPDATE account SET ready_at = CASE WHEN {_FIRST_READY} < ? THEN ? ELSE {_FIRST_READY} END"  # noqa: S608  all of it written here
    " WHERE id IN {rows}",
    "text",
)


def wake(connection: Connection, endpoint_seqs: Sequence[int], due_at: datetime) -> None:
    """Something of these endpoints of one account is due at `due_at`: they are looked at then, or when their pause is
    over."""
    at = to_milliseconds(due_at)
    if is_shared(connection):
        WAKE_AT_ONCE.run_for(connection, [(seq,) for seq in endpoint_seqs], head=(at, at, at))
    else:
        _advance(connection, WAKE, endpoint_seqs, (at, at, at), (at, at, at))


def release(connection: Connection, endpoint_seqs: Sequence[int], now: datetime) -> None:
    """What held these endpoints is over: look at them now."""
    at = to_milliseconds(now)
    _advance(connection, RELEASE, endpoint_seqs, (at, at), (at, at))


def free(connection: Connection, endpoint_seqs: Sequence[int], now: datetime) -> None:
    """Attempts at these endpoints have ended: those that somebody found full are looked at now.

    What keeps one from being hurried that answers with failures is not over by that.
    """
    at = to_milliseconds(now)
    _advance(connection, FREE, endpoint_seqs, (at, at), (at, at, at))


def release_all(connection: Connection, now: datetime) -> None:
    """Look at everything now: for a process that does not know what another, gone by now, had in mind."""
    connection.execute(update(schema.endpoint).where(_IS_OPEN).values(ready_at=now, held_until=None))
    connection.execute(update(schema.account).values(ready_at=now))


def ready_accounts(connection: Connection, limit: int, now: int) -> list[str]:
    """Accounts that may have work, the one that has waited longest first."""
    return [row[0] for row in READY_ACCOUNTS.run(connection, (now, limit))]


def ready_endpoints(connection: Connection, account_ids: Sequence[str], limit: int, now: int) -> list[ReadyEndpoint]:
    """Endpoints of accounts that may have work, `limit` of each, the one that has waited longest first."""
    rows = READY_ENDPOINTS.run_for(connection, [(account_id, now, limit) for account_id in account_ids])
    return [ReadyEndpoint._make(row) for row in rows]


def first_waiting(connection: Connection, limits: Mapping[int, int]) -> list[Waiting]:
    """The first that wait for each endpoint: up to a limit of those never attempted, and of those that were."""
    rows = FIRST_WAITING.run_for(connection, list(limits.items()))
    return [Waiting._make(row) for row in rows]


def turn(connection: Connection, turns: Sequence[Turn], account_ids: Sequence[str], now: int) -> None:
    """Put endpoints that have had their turn, and their accounts, where they belong now."""
    rows = [(each.endpoint_seq, each.ready_at, each.held_until, each.spent_until) for each in turns]
    TURN_ENDPOINTS.run_for(connection, rows)
    TURN_ACCOUNTS.run_for(connection, [(account_id,) for account_id in account_ids], head=(now, now))


def next_ready(connection: Connection) -> datetime | None:
    """When there is work next."""
    ((first,),) = NEXT_READY.run(connection)
    return None if first is None else from_milliseconds(first)


def in_flight(
    connection: Connection, endpoint_seqs: Sequence[int], busy: Mapping[int, int], now: int
) -> Mapping[int, int]:
    """How many deliveries of each endpoint are under way: where one process serves, what it is `busy` with."""
    if not is_shared(connection) or not endpoint_seqs:
        return busy
    return {row[0]: row[1] for row in connection.execute(in_flight_query(endpoint_seqs, from_milliseconds(now)))}


def in_flight_query(endpoint_seqs: Sequence[int], now: datetime) -> Select[int, int]:
    """What any process has claimed and may still settle: a range of `ix_delivery_leased` for each endpoint."""
    return (
        select(_DELIVERY.endpoint_seq, func.count())
        .where(_DELIVERY.endpoint_seq.in_(endpoint_seqs), _DELIVERY.lease.is_not(None), _DELIVERY.lease_until > now)
        .group_by(_DELIVERY.endpoint_seq)
    )


def is_shared(connection: Connection) -> bool:
    """Whether other processes may claim here too."""
    return connection.dialect.name == POSTGRESQL


def _advance(connection: Connection, statement: Bulk, endpoint_seqs: Sequence[int], head: Row, tail: Row) -> None:
    """Bring `ready_at` forward, and that of the accounts with it; what is early enough is not written."""
    rows = [(seq,) for seq in endpoint_seqs]
    if is_shared(connection):  # wait for whoever walks the ring there, and let nobody do so before this unit has ended
        SHARE.run_for(connection, rows)
    earliest: dict[str, int] = {}
    for account_id, ready_at in statement.run_for(connection, rows, head=head, tail=tail):
        earliest[account_id] = min(ready_at, earliest.get(account_id, ready_at))
    for account_id, ready_at in sorted(earliest.items()):
        WAKE_ACCOUNT.run_for(connection, [(account_id,)], head=(ready_at, ready_at))
