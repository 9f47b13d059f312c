"""Claims: due deliveries, taken under a lease, shared fairly among accounts and their endpoints.

A claimed delivery is not due before its lease ends: what is being posted leaves the due range of the index, and
what a dead process held comes back by itself.

A claim is a handful of statements, however many it takes: who is ready, what waits there, lease it, say who is ready
next, read what is to be sent.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, update

from chartwire.clock import from_milliseconds, to_milliseconds
from chartwire.model.health import gap, most_in_flight
from chartwire.model.rate import allowance
from chartwire.model.sharing import ALWAYS, shared_room
from chartwire.model.webhook import DeliveryState, EventType, Outcome
from chartwire.store import ring, schema
from chartwire.store.bulk import Bulk, Row
from chartwire.store.ring import ReadyEndpoint, Turn, Waiting
from chartwire.store.targets import Target, Targets

_DELIVERY = schema.delivery.c

_LEAST_ACCOUNTS = 16
"""Looked at even if less is left: the first may have no room of their own."""

_LOOK_AGAIN = timedelta(seconds=1)
_MILLISECOND = timedelta(milliseconds=1)
_SHORT_MILLISECONDS = 100
"""Before an endpoint is looked at again that holds all it may have of the room for all."""

# A column with `|| ''` is in no index: while its statistics are old, PostgreSQL would take what waits for a few rows
# and read all of it by `ix_delivery_due`, instead of these by their numbers.
#
# Locked here and not where they are looked for: a row that was passed over there would be left out of the ring, and
# forgotten if whoever has it now is about to die.
LEASE = Bulk(
    "UPDATE delivery SET lease = ?, lease_until = ?, due_at = ? WHERE seq IN ("
    "SELECT seq FROM delivery WHERE state || '' = 'waiting' AND due_at <= ? AND seq IN {rows}"
    " /*pg FOR NO KEY UPDATE SKIP LOCKED*/) RETURNING seq, event_seq, endpoint_seq, attempts",
    "bigint",
)

LOAD_EVENTS = Bulk("SELECT seq, id, type, created_at, trace, body FROM event WHERE seq IN {rows}", "bigint")

_FORGOTTEN = (None,) * 6
"""An event that is not there any more has no bytes either."""


class ClaimedDelivery(NamedTuple):
    """A delivery that may be posted by the holder of `lease` until `lease_until`.

    `attempt` counts from 1 since the schedule began. `body` is sealed, `plain` the same opened, if whoever made this
    had it at hand; `created_at` is when the event was committed; `trace` is the `traceparent` of what gave rise to it.
    """

    seq: int
    event_seq: int
    event_id: str
    event_type: EventType
    body: bytes
    created_at: datetime
    attempt: int
    lease: str
    lease_until: datetime
    target: Target
    trace: str | None = None
    plain: bytes | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """What a process can take on: `total` more attempts, of one endpoint `per_endpoint` less what is `busy` there.

    `limit` is what it takes on when nothing is under way. `freed` are the endpoints that were full when last looked at
    and are not any more; `finished` are all whose attempts ended since.
    """

    total: int
    per_endpoint: int
    busy: Mapping[int, int]
    freed: frozenset[int] = frozenset()
    finished: frozenset[int] = frozenset()
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """What was claimed, which endpoints are full with it, and when there is work next; None: nothing waits."""

    deliveries: tuple[ClaimedDelivery, ...]
    next_due: datetime | None
    full: frozenset[int] = frozenset()


@dataclass(slots=True)
class _Walk:
    """One walk of the ring, gathering what is taken on the way. Times are milliseconds."""

    room: Room
    now: int
    lease_until: int
    full_until: int
    left: int
    taken: list[Waiting] = field(default_factory=list)
    versions: dict[int, int] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    full: set[int] = field(default_factory=set)
    busy: Mapping[int, int] = field(default_factory=dict)

    def visit(self, endpoint: ReadyEndpoint, waiting: "_Lanes", quota: int) -> int:
        """Take up to `quota` deliveries of an endpoint and put it back in its place; returns how many."""
        not_before, spent_until, taken = self.now, endpoint.spent_until, 0
        busy = self.busy.get(endpoint.seq, 0)
        own_room = self._limit_of(endpoint) - busy
        room = min(own_room, shared_room(self.room.limit, self.left, busy))
        if not endpoint.is_open:
            pass  # what waits is held; the turn takes it out of the ring
        elif endpoint.paused_until is not None and endpoint.paused_until > self.now:
            not_before = endpoint.paused_until
        elif endpoint.failures and endpoint.seq in self.room.freed:
            not_before = self._after_gap(endpoint)
        elif endpoint.rate_per_second is not None:
            taken, spent_until, not_before = self._take_at_rate(
                endpoint, endpoint.rate_per_second, waiting, quota, room
            )
        else:
            taken = self._take(endpoint, waiting, min(quota, room))
        if own_room <= taken:
            not_before = self._until_freed(endpoint)
        elif taken and endpoint.failures:
            not_before = max(not_before, self._after_gap(endpoint))
        elif room <= taken and busy + taken >= ALWAYS:  # what ends there makes room, or what ends elsewhere
            self.full.add(endpoint.seq)
            not_before = max(not_before, self.now + _SHORT_MILLISECONDS)
        first = waiting.first() if endpoint.is_open else None
        if taken:
            first = self.lease_until if first is None else min(first, self.lease_until)
        if first is not None and first <= self.now:
            not_before = max(not_before, self.now + 1)  # behind all that is ready in this millisecond
        not_before = max(not_before, self.now)
        ready_at = None if first is None else max(first, not_before)
        self.turns.append(Turn(endpoint.seq, ready_at, not_before, spent_until))
        return taken

    def _limit_of(self, endpoint: ReadyEndpoint) -> int:
        """How many may be in flight there by its own limit. Behind an open breaker one at a time is a probe."""
        limit = endpoint.max_in_flight or self.room.per_endpoint
        return 1 if endpoint.breaker_waits else most_in_flight(limit, endpoint.failures)

    def _after_gap(self, endpoint: ReadyEndpoint) -> int:
        """One that fails is not hurried: nor does what has ended there make room at once."""
        return self.now + gap(endpoint.failures) // _MILLISECOND

    def _until_freed(self, endpoint: ReadyEndpoint) -> int:
        """Full: whoever posts to it says when it is not, or is dead when the leases end."""
        self.full.add(endpoint.seq)
        return self.full_until

    def _take_at_rate(
        self, endpoint: ReadyEndpoint, per_second: int, waiting: "_Lanes", quota: int, room: int
    ) -> tuple[int, int, int]:
        """As many as its rate allows; returns how many, how far the rate is spent now, and when one more may go."""
        spent = None if endpoint.spent_until is None else from_milliseconds(endpoint.spent_until)
        bucket = allowance(per_second, spent, from_milliseconds(self.now))
        taken = self._take(endpoint, waiting, min(quota, room, bucket.count))
        spent_until, not_before = bucket.take(taken)
        return taken, to_milliseconds(spent_until), to_milliseconds(not_before)

    def _take(self, endpoint: ReadyEndpoint, waiting: "_Lanes", limit: int) -> int:
        taken = waiting.take(min(limit, self.left), self.now) if limit > 0 else []
        if taken:
            self.versions[endpoint.seq] = endpoint.version
            self.taken += taken
            self.left -= len(taken)
        return len(taken)


@dataclass(slots=True)
class _Lanes:
    """What waits for one endpoint, the first of each lane: those never attempted, and those that were.

    Of a lane that holds `limit` there may be more, so its last is never taken: it tells when to look again.
    """

    limit: int
    fresh: list[Waiting] = field(default_factory=list)
    again: list[Waiting] = field(default_factory=list)

    def take(self, limit: int, now: int) -> list[Waiting]:
        """Up to `limit` that are due, half of each lane if both have so many: neither starves the other.

        Chance has the odd one: what is taken one by one has no other memory of whose turn it is.
        """
        fresh, again = self._due(self.fresh, now), self._due(self.again, now)
        share = max(limit - again, (limit + random.getrandbits(1)) // 2)
        fresh = min(fresh, share)
        again = min(again, limit - fresh)
        taken = [*self.fresh[:fresh], *self.again[:again]]
        del self.fresh[:fresh], self.again[:again]
        return taken

    def first(self) -> int | None:
        """When the first is due that was not taken."""
        return min((lane[0].due_at for lane in (self.fresh, self.again) if lane), default=None)

    def _due(self, lane: list[Waiting], now: int) -> int:
        due = sum(each.due_at <= now for each in lane)
        return min(due, self.limit - 1)


def claim(
    connection: Connection, targets: Targets, room: Room, lease: str, now: datetime, lease_until: datetime
) -> Claim:
    """Take due deliveries: of each account in turn, of each of its endpoints in turn, the oldest of each first."""
    if room.finished and ring.is_shared(connection):
        ring.free(connection, sorted(room.finished), now)
    elif room.freed:
        ring.release(connection, sorted(room.freed), now)
    # Others may find it full and be gone when it is not: where there are others, it is looked at before long.
    full_until = now + _LOOK_AGAIN if ring.is_shared(connection) else lease_until
    walk = _Walk(room, to_milliseconds(now), to_milliseconds(lease_until), to_milliseconds(full_until), room.total)
    if room.total > 0:
        _walk_ring(connection, walk)
    claimed = _load(connection, targets, walk, lease, now, lease_until) if walk.taken else []
    return Claim(tuple(claimed), ring.next_ready(connection), frozenset(walk.full))


def _walk_ring(connection: Connection, walk: _Walk) -> None:
    """Visit who is ready until nothing is left; who was not visited keeps its place at the ring's front.

    What one account or endpoint leaves goes to those after it.
    """
    accounts = ring.ready_accounts(connection, max(walk.left, _LEAST_ACCOUNTS), walk.now)
    share = _share(walk.left, max(1, len(accounts)))
    endpoints: dict[str, list[ReadyEndpoint]] = {account_id: [] for account_id in accounts}
    ready = ring.ready_endpoints(connection, accounts, share, walk.now)
    for endpoint in ready:
        endpoints[endpoint.account_id].append(endpoint)
    walk.busy = ring.in_flight(connection, [endpoint.seq for endpoint in ready], walk.room.busy, walk.now)
    waiting = _first_waiting(connection, endpoints.values(), share)
    visited = []
    for place, account_id in enumerate(accounts):
        if walk.left <= 0:
            break
        visited.append(account_id)
        quota = min(_share(walk.left, len(accounts) - place), walk.left)
        mine = endpoints[account_id]
        for position, endpoint in enumerate(mine):
            if quota > 0:
                quota -= walk.visit(endpoint, waiting[endpoint.seq], _share(quota, len(mine) - position))
    ring.turn(connection, walk.turns, visited, walk.now)


def _first_waiting(
    connection: Connection, accounts: Iterable[Sequence[ReadyEndpoint]], share: int
) -> dict[int, _Lanes]:
    """The first that wait for each: twice an even share, so that what others leave can mostly be taken at once."""
    lanes = {
        endpoint.seq: _Lanes(2 * _share(share, len(endpoints)) + 1) for endpoints in accounts for endpoint in endpoints
    }
    for each in ring.first_waiting(connection, {seq: lane.limit for seq, lane in lanes.items()}):
        lane = lanes[each.endpoint_seq]
        (lane.again if each.again else lane.fresh).append(each)
    return lanes


def _share(total: int, takers: int) -> int:
    """An even share of `total`, rounded up."""
    return -(-total // takers)


def _load(
    connection: Connection, targets: Targets, walk: _Walk, lease: str, now: datetime, lease_until: datetime
) -> list[ClaimedDelivery]:
    """Lease what was taken, and read all that is needed to send it."""
    leased = _lease(connection, walk, lease, now)
    events = {row[0]: row for row in LOAD_EVENTS.run_for(connection, [(event_seq,) for _, event_seq, *_ in leased])}
    known = targets.load(connection, walk.versions, now)
    claimed, bodiless = [], []
    for seq, event_seq, endpoint_seq, attempts in leased:
        _, event_id, event_type, created_at, trace, body = events.get(event_seq, _FORGOTTEN)
        if body is None:
            bodiless.append((seq, endpoint_seq))
            continue
        if endpoint_seq not in known:
            continue  # it cannot be sent now, and its lease brings it back
        claimed.append(
            ClaimedDelivery(
                seq,
                event_seq,
                event_id,
                EventType(event_type),
                body,
                from_milliseconds(created_at),
                attempts + 1,
                lease,
                lease_until,
                known[endpoint_seq],
                trace,
            )
        )
    if bodiless:
        _fail(connection, bodiless, now)
    return claimed


def _lease(connection: Connection, walk: _Walk, lease: str, now: datetime) -> list[Row]:
    """What was taken and nobody has under their hands, in the order of the walk; for the rest one more look is due."""
    head = lease, walk.lease_until, walk.lease_until, walk.now
    leased = {row[0]: row for row in LEASE.run_for(connection, [(each.seq,) for each in walk.taken], head=head)}
    missed = {each.endpoint_seq for each in walk.taken if each.seq not in leased}
    if missed:
        ring.release(connection, sorted(missed), now)
    return [leased[each.seq] for each in walk.taken if each.seq in leased]


def _fail(connection: Connection, bodiless: Sequence[tuple[int, int]], now: datetime) -> None:
    """A payload that was expunged while its delivery was under way cannot be sent again; its room is free again."""
    ended = {"state": DeliveryState.FAILED, "outcome": Outcome.EXPIRED, "settled_at": now, "lease": None}
    seqs = [seq for seq, _ in bodiless]
    connection.execute(update(schema.delivery).where(_DELIVERY.seq.in_(seqs)).values(**ended))
    ring.release(connection, [endpoint_seq for _, endpoint_seq in bodiless], now)
