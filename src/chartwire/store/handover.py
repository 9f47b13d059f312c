"""The short way from a commit to an attempt: a delivery is leased to this process by the transaction that writes it.

It would be claimed the next moment anyway, by a transaction of its own, after a walk of the ring that had first to be
told of it. So whoever posts here says what room there is, and takes over what was written as soon as it is committed.
That is only done where one process is all there is, while nothing that is due waits for the endpoint or for this
process, and for endpoints of which a claim has opened the secrets. Everything else waits in the ring (`store.ring`).
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from threading import Lock
from typing import NamedTuple

from sqlalchemy import Connection

from chartwire.clock import EPOCH, to_milliseconds
from chartwire.model.sharing import shared_room
from chartwire.model.webhook import Endpoint
from chartwire.store import ring
from chartwire.store.bulk import Bulk
from chartwire.store.claims import ClaimedDelivery
from chartwire.store.targets import Target, Targets

UNTROUBLED = Bulk(
    "SELECT seq, version, max_in_flight, ready_at FROM endpoint WHERE seq IN {rows}"
    " AND state = 'enabled' AND url IS NOT NULL AND rate_per_second IS NULL"
    " AND failures_in_row = 0 AND breaker_waits = 0"
    " AND (paused_until IS NULL OR paused_until <= ?) AND (held_until IS NULL OR held_until <= ?)"
    " AND (ready_at IS NULL OR ready_at > ?)",
    "bigint",
)
"""Endpoints that nothing holds and for which nothing waits that is due."""


class Slots:
    """Room for attempts: how many are under way, of each endpoint and in all.

    A transaction takes it, on SQLite in the thread that writes, and whoever sees the attempt end gives it back.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._busy: dict[int, int] = {}  # a Counter would call Python for each that comes or goes
        self._lock = Lock()

    @property
    def limit(self) -> int:
        """How many may be under way at one time."""
        return self._limit

    @property
    def left(self) -> int:
        """How many more may be under way."""
        return self._limit - self._taken

    def busy_at(self, endpoint_seq: int) -> int:
        """How many are under way at an endpoint."""
        return self._busy.get(endpoint_seq, 0)

    def busy(self) -> dict[int, int]:
        """How many are under way at each."""
        with self._lock:
            return dict(self._busy)

    def take(self, endpoint_seq: int) -> None:
        """An attempt is to begin."""
        with self._lock:
            self._taken += 1
            self._busy[endpoint_seq] = self._busy.get(endpoint_seq, 0) + 1

    def give(self, endpoint_seq: int) -> None:
        """An attempt has ended, or does not begin after all."""
        with self._lock:
            left = self._busy.pop(endpoint_seq) - 1
            self._taken -= 1
            if left:
                self._busy[endpoint_seq] = left


class Offer(NamedTuple):
    """What holds for deliveries that are handed over."""

    targets: dict[int, Target]
    lease: str
    lease_until: datetime


class Handover:
    """What a dispatcher is ready to take over; `is_open` while it has found that nothing waits for room."""

    def __init__(
        self,
        targets: Targets,
        slots: Slots,
        endpoint_limit: int,
        lease: str,
        lasts: timedelta,
        start: Callable[[ClaimedDelivery], None],
    ) -> None:
        """Leases end after `lasts`. One name will do for all: a delivery is handed over once, when it is new."""
        self.is_open = False
        self._targets = targets
        self._slots = slots
        self._endpoint_limit = endpoint_limit
        self._lease = lease
        self._lasts = lasts
        self._start = start

    def offer(self, connection: Connection, takers: Sequence[Endpoint], now: datetime) -> Offer:
        """Those of `takers` that have room for one more each; what is written for them is to be handed over."""
        offer = Offer({}, self._lease, now + self._lasts)
        if not self.is_open or not takers:
            return offer
        at, until = to_milliseconds(now), to_milliseconds(offer.lease_until)
        rows = UNTROUBLED.run_for(connection, [(endpoint.seq,) for endpoint in takers], tail=(at, at, at))
        for seq, version, max_in_flight, ready_at in rows:
            target = self._targets.find(seq, version)
            if target is None or not self._has_room(seq, max_in_flight, len(offer.targets)):
                continue
            if ready_at is None or ready_at > until:  # someone has to look if this process dies
                ring.wake(connection, [seq], offer.lease_until)
            offer.targets[seq] = target
        return offer

    def hand(self, connection: Connection, claimed: ClaimedDelivery) -> None:
        """A delivery was written as offered: it is posted once that is committed, and its room is taken from now on."""
        self._slots.take(claimed.target.endpoint.seq)
        connection.info["handed"].append(claimed)

    def follow(self, handed: Iterable[ClaimedDelivery]) -> None:
        """They are committed. Called on the event loop."""
        for claimed in handed:
            self._start(claimed)

    def undo(self, handed: Iterable[ClaimedDelivery]) -> None:
        """They were rolled back."""
        for claimed in handed:
            self._slots.give(claimed.target.endpoint.seq)

    def _has_room(self, seq: int, max_in_flight: int | None, offered: int) -> bool:
        """By the endpoint's own limit, and by what it may have of all room, as in a claim."""
        busy, left = self._slots.busy_at(seq), self._slots.left - offered
        return busy < (max_in_flight or self._endpoint_limit) and shared_room(self._slots.limit, left, busy) > 0


NOTHING_OFFERED = Offer({}, "", EPOCH)


def handover_of(connection: Connection) -> Handover | None:
    """Who takes over what is written in this transaction, if there is anybody."""
    handover: Handover | None = connection.info.get("handover")
    return handover
