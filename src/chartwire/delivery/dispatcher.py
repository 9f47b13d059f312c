"""The loop that gives due deliveries to attempts.

It is woken by the bell that a commit rings, by the next due time it knows of, and once a second for what other
processes wrote. Nothing is kept here that a crash could lose: a claimed delivery comes back when its lease ends.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial

from sqlalchemy import Connection

from chartwire import ids
from chartwire.clock import Clock
from chartwire.delivery.attempt import Poster
from chartwire.delivery.clock_watch import ClockWatch
from chartwire.model.webhook import Outcome
from chartwire.settings import Settings
from chartwire.store import claims, deliveries, jumps
from chartwire.store.claims import Claim, ClaimedDelivery, Room
from chartwire.store.database import Database
from chartwire.store.deliveries import AttemptResult, Ended
from chartwire.store.handover import Handover, Slots
from chartwire.store.targets import Targets
from chartwire.store.vault import Vault
from chartwire.telemetry import Metrics, get_logger

_POLL_SECONDS = 1.0
_PASSED_OVER_SECONDS = 0.01
"""What is due and was not to be had is another process's, for as long as a transaction takes."""

_LONGEST_BACK_OFF_SECONDS = 5.0
_LEASE = timedelta(seconds=120)
"""Longer than the longest attempt (30 s) and a minute of waiting for the database to take its outcome."""

_LEASE_TOKEN_LENGTH = 20

_GATHER_SECONDS = 0.02
"""What ends meanwhile is settled together, and nobody waits for that."""

_GATHER_SECONDS_IF_AWAITED = 0.005
"""As long as something waits for the room of what has ended."""

_ENOUGH = 64
"""So many that have ended are settled at once."""

_AT_A_STRETCH = 16
"""So many claimed deliveries are begun before others have the event loop: answers, new messages, the API."""

_BREATH_SECONDS = 0.002
"""How long they have it, while messages are handed over: what waited for long can wait so much longer."""

_BREATHING_SECONDS = 0.03
"""After so long a claim is begun without: on a loop that is late each is a long one, and the next cycle waits."""


log = get_logger()


class Dispatcher:
    """Has due deliveries posted, many at a time, never too many of one endpoint.

    It goes in cycles. A cycle is one transaction: it settles the attempts that have ended since the one before, and
    claims as many deliveries as there is room for, which are then posted while the next cycle gathers. What is written
    while there is room for it is handed over as it is committed, and a cycle only settles it.
    """

    def __init__(
        self, database: Database, vault: Vault, poster: Poster, clock: Clock, settings: Settings, metrics: Metrics
    ) -> None:
        self._database = database
        self._vault = vault
        self._poster = poster
        self._clock = clock
        self._metrics = metrics
        self._endpoint_limit = settings.webhook_endpoint_concurrency
        self._retention = timedelta(days=settings.payload_retention_days)
        self._targets = Targets(vault)
        self._slots = Slots(settings.webhook_concurrency)
        self._handover = Handover(
            self._targets,
            self._slots,
            settings.webhook_endpoint_concurrency,
            ids.url_safe(_LEASE_TOKEN_LENGTH),
            _LEASE,
            self._take_over,
        )
        self._wake = asyncio.Event()
        self._working: asyncio.Task[None] | None = None
        self._closing = False
        self._failures = 0
        self._in_flight: dict[int, ClaimedDelivery] = {}
        self._ended: list[Ended] = []
        self._claiming: Sequence[ClaimedDelivery] = ()
        self._full: set[int] = set()
        self._finished: set[int] = set()
        self._gathering: asyncio.TimerHandle | None = None
        self._is_awaited = False
        self._has_news = False

    def ring(self) -> None:
        """Something may be due."""
        self._wake.set()

    async def run(self) -> None:
        """Deliver until `drain` is called. A database that fails is tried again."""
        self._database.attach(self._handover)
        self._working = asyncio.create_task(self._work())
        try:
            await asyncio.wait([self._working])
        finally:
            self._working.cancel()

    async def drain(self, deadline: float) -> None:
        """Claim nothing more and wait, `deadline` seconds at most, for what is in flight; the rest is given up.

        What is given up comes back when its lease ends, or is voided by the next start of an embedded installation.
        """
        self._closing = True
        self._handover.is_open = False
        self._wake.set()
        if self._working is not None:
            await asyncio.wait([self._working], timeout=deadline)
            self._working.cancel()
            await asyncio.wait([self._working])

    async def _work(self) -> None:
        watch = ClockWatch(self._clock)
        while not self._is_done():
            self._wake.clear()
            try:
                if jump := watch.jump():
                    await self._follow_clock(jump)
                    watch.accept()
                wait = await self._cycle()
                self._failures = 0
            except Exception:  # whatever the database raises, deliveries must go on after it
                self._failures += 1
                log.exception("a cycle of deliveries failed", seconds=back_off(self._failures))
                await asyncio.sleep(back_off(self._failures))
                await self._settle_one_by_one()
            else:
                await self._sleep(0 if self._is_done() else wait)

    def _is_done(self) -> bool:
        return self._closing and not self._in_flight and not self._ended

    async def _sleep(self, seconds: float) -> None:
        """Until something rings, an attempt ends, or so many seconds are over."""
        if seconds > 0 and not self._wake.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()

    async def _follow_clock(self, jump: timedelta) -> None:
        """The clock was set: by it, nothing may be late for long and nothing that is in flight be lost."""
        log.warning("the clock was set", seconds=round(jump.total_seconds()))
        now, held = self._clock(), [*self._in_flight.values(), *(claimed for claimed, _ in self._ended)]
        if jump > timedelta():
            await self._database.write(lambda connection: jumps.clock_went_forward(connection, held, now + _LEASE))
        else:
            await self._database.write(lambda connection: jumps.clock_went_back(connection, now))

    async def _cycle(self) -> float:
        """Settle and claim; returns how many seconds may pass before there is more to claim."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering, self._is_awaited = None, False
        ended, self._ended = self._ended, []
        finished, self._finished = self._finished, set()
        freed = finished & self._full
        try:
            settled, claim, total = await self._database.write(
                partial(self._settle_and_claim, ended, frozenset(freed), frozenset(finished))
            )
        except BaseException:
            self._forget_claim()
            self._ended = ended + self._ended
            self._finished |= finished
            raise
        self._claiming = ()
        self._handover.is_open = not self._closing and len(claim.deliveries) < total
        self._full = (self._full - freed) | claim.full
        self._targets.keep(claimed.target for claimed in claim.deliveries)
        self._tell(ended, settled)  # before what may be cut off by a stop whose patience is over
        clock = asyncio.get_running_loop().time
        breathes_until, self._has_news = clock() + _BREATHING_SECONDS if self._has_news else 0, False
        for number, claimed in enumerate(claim.deliveries, 1):
            self._start(claimed)
            if not number % _AT_A_STRETCH:
                await asyncio.sleep(_BREATH_SECONDS if clock() < breathes_until else 0)
        return self._until_next(claim, total)

    def _until_next(self, claim: Claim, total: int) -> float:
        """Seconds until there may be more to claim. While there is no room for it, an attempt that ends will tell.

        What little room is left of much is nobody's: an endpoint may not take the last of what is there for all.
        """
        if claim.next_due is None or total - len(claim.deliveries) <= total // 8:
            return _POLL_SECONDS
        wait = (claim.next_due - self._clock()).total_seconds()
        return min(_POLL_SECONDS, wait if claim.deliveries else max(_PASSED_OVER_SECONDS, wait))

    def _settle_and_claim(
        self, ended: Sequence[Ended], freed: frozenset[int], finished: frozenset[int], connection: Connection
    ) -> tuple[Sequence[bool], Claim, int]:
        """Also tells how many could have been claimed. What is claimed has its room at once: others write meanwhile."""
        self._forget_claim()
        now = self._clock()
        settled = deliveries.settle(connection, self._vault, ended, now, self._retention)
        lease = ids.url_safe(_LEASE_TOKEN_LENGTH)
        total = 0 if self._closing or not self._poster.is_open else self._slots.left
        room = Room(total, self._endpoint_limit, self._slots.busy(), freed, finished, self._slots.limit)
        claim = claims.claim(connection, self._targets, room, lease, now, now + _LEASE)
        for claimed in claim.deliveries:
            self._slots.take(claimed.target.endpoint.seq)
        self._claiming = claim.deliveries  # not before: a cycle that is cut off gives back what it finds here
        return settled, claim, total

    def _forget_claim(self) -> None:
        """A claim that was rolled back, to be tried again or not, holds no room."""
        claiming, self._claiming = self._claiming, ()
        for claimed in claiming:
            self._slots.give(claimed.target.endpoint.seq)

    async def _settle_one_by_one(self) -> None:
        """After a failure: an outcome that cannot be written must not keep others from being written.

        None is given up while its lease lasts: losing it would repeat the message.
        """
        ended, self._ended = self._ended, []
        for claimed, result in ended:
            try:
                (settled,) = await self._database.write(partial(self._settle_one, (claimed, result)))
            except Exception:
                log.exception("settling a delivery failed", delivery=claimed.event_id)
                if self._clock() < claimed.lease_until:
                    self._ended.append((claimed, result))
            else:
                self._tell([(claimed, result)], [settled])

    def _settle_one(self, ended: Ended, connection: Connection) -> Sequence[bool]:
        return deliveries.settle(connection, self._vault, [ended], self._clock(), self._retention)

    def _take_over(self, claimed: ClaimedDelivery) -> None:
        """Begin what was handed over, unless nothing is begun any more: then its lease brings it back."""
        if self._working is None or self._working.done():
            self._slots.give(claimed.target.endpoint.seq)
        else:
            self._has_news = True
            self._start(claimed)

    def _start(self, claimed: ClaimedDelivery) -> None:
        self._in_flight[id(claimed)] = claimed
        try:
            self._poster.start(claimed, self._end)
        except Exception:  # one delivery must not stop the others; its lease brings it back
            log.exception("a delivery could not be made", delivery=claimed.event_id)
            self._leave(claimed)

    def _end(self, claimed: ClaimedDelivery, result: AttemptResult | None) -> None:
        if result is not None:  # else nobody knows, and its lease brings it back
            self._ended.append((claimed, result))
        self._leave(claimed)

    def _leave(self, claimed: ClaimedDelivery) -> None:
        """The delivery takes up no room any more."""
        endpoint_seq = claimed.target.endpoint.seq
        del self._in_flight[id(claimed)]
        self._slots.give(endpoint_seq)
        self._finished.add(endpoint_seq)
        is_awaited = endpoint_seq in self._full or not self._handover.is_open
        if len(self._ended) >= _ENOUGH:
            self._wake.set()
        elif self._gathering is None or (is_awaited and not self._is_awaited):
            if self._gathering is not None:
                self._gathering.cancel()
            self._is_awaited = is_awaited
            seconds = _GATHER_SECONDS_IF_AWAITED if is_awaited else _GATHER_SECONDS
            self._gathering = asyncio.get_running_loop().call_later(seconds, self._wake.set)

    def _tell(self, ended: Sequence[Ended], settled: Sequence[bool]) -> None:
        """Count and log what a cycle has written down."""
        now = self._clock()
        self._metrics.attempt_seconds.observe_all([result.duration_ms / 1000 for _, result in ended])
        delivered = Outcome.DELIVERED
        self._metrics.delivery_lag.observe_all(
            [
                max(0.0, (now - claimed.created_at).total_seconds())
                for claimed, result in ended
                if result.outcome is delivered
            ]
        )
        if not all(settled):
            for (claimed, _), was_settled in zip(ended, settled, strict=True):
                if not was_settled:
                    log.warning("a delivery was settled by another", delivery=claimed.event_id)
        if log.is_enabled_for(logging.DEBUG):
            for each in ended:
                _log_attempt(*each)
        outcomes = Counter([(claimed.event_type, result.outcome) for claimed, result in ended])
        for labels, count in outcomes.items():
            self._metrics.attempts.labels(*labels).inc(count)


def _log_attempt(claimed: ClaimedDelivery, result: AttemptResult) -> None:
    log.debug(
        "attempt",
        delivery=claimed.event_id,
        event_type=claimed.event_type,
        attempt=claimed.attempt,
        outcome=result.outcome,
        status=result.http_status,
        milliseconds=result.duration_ms,
    )


def back_off(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return float(min(_LONGEST_BACK_OFF_SECONDS, 0.1 * 2 ** min(failures - 1, 10)))
