"""Runs durable steps: claims what is due, network by network, and hands each to its handler in a task of its own.

Networks have nothing in common here but the bell: one that hangs fills its own places only. However a step ends, it is
settled, put off or given up; only if even that cannot be written does its lease bring it back.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from chartwire.clock import Clock
from chartwire.errors import IssueCode, NetworkError, NotAskedError, PermanentNetworkError, TemporaryNetworkError
from chartwire.model.document import IntakeStep, NetworkStep
from chartwire.networks.network import Network
from chartwire.store.database import Database
from chartwire.store.queries import LONGEST_WAIT
from chartwire.telemetry import Metrics, get_logger

_POLL_SECONDS = 1.0
"""How late a step is at most whose bell was lost, or that another process wrote."""
_LEASE_MARGIN = timedelta(seconds=30)
_MOST_CLAIMS = 100
"""Kills and restarts cost a step nothing; one that was under way at so many of them is taken to be their cause."""

S = TypeVar("S", bound=NetworkStep | IntakeStep)
T = TypeVar("T")
log = get_logger()


class Handler(Protocol[S]):
    """One kind of step: how to claim it, carry it out, and what follows if that fails."""

    kind: str
    """What metrics call it."""

    def claim(self, connection: Connection, network: Network, limit: int, lease_margin: timedelta) -> list[S]:
        """Claim up to `limit` due steps of `network`."""

    def next_due(self, connection: Connection, network: Network) -> datetime | None:
        """When the next step of `network` becomes due."""

    async def run(self, network: Network, step: S) -> None:
        """Carry out a claimed step and settle it. Raises `NetworkError` if the network did not do its part."""

    def put_off(
        self, connection: Connection, step: S, due_at: datetime, issue: IssueCode, *, is_failure: bool = True
    ) -> None:
        """Let a step that failed, or could not be tried, be tried again from `due_at` on."""

    def give_up(self, connection: Connection, step: S, issue: IssueCode) -> None:
        """End a step that failed."""


class NamedSteps(Handler[NetworkStep], Protocol):
    """Steps that tickets can name."""

    def claim_of(
        self, connection: Connection, network: Network, query_id: str, lease_margin: timedelta
    ) -> NetworkStep | None:
        """Claim the step of one query at `network`, if it is to be had."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The retry rule of steps: `attempts` in all, the first wait in seconds, doubling."""

    attempts: int
    seconds: float

    def wait(self, attempt: int, error: NetworkError) -> timedelta | None:
        """How long to wait after the given attempt (1, 2, …) failed; None to give up."""
        if not isinstance(error, TemporaryNetworkError) or attempt >= self.attempts:
            return None
        backoff = timedelta(seconds=self.seconds * 2 ** (attempt - 1))
        asked = timedelta(seconds=error.retry_after or 0)
        return min(max(backoff, asked), LONGEST_WAIT)


class StepRunner:
    """Keeps every network busy with its due steps, until stopped."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        networks: Sequence[Network],
        handlers: Sequence[Handler[Any]],
        retry: Retry,
        metrics: Metrics,
    ) -> None:
        work = _Work(database, clock, retry, metrics)
        self._lines = [_Line(network, handlers, work) for network in networks]

    def ring(self) -> None:
        """Something may be due."""
        for line in self._lines:
            line.ring()

    async def run(self) -> None:
        """Run until `stop`, and until what is under way then has ended."""
        await asyncio.gather(*(line.run() for line in self._lines))

    async def follow(self, handler: NamedSteps, network_name: str, query_id: str) -> None:
        """Carry out the step of a query at a network that a ticket names, once there is room for it.

        Does nothing if it is not to be had: it is done, or another has it, or there is no such step.
        """
        for line in self._lines:
            if line.name == network_name:
                await line.follow(handler, query_id)

    async def stop(self, grace: float) -> None:
        """Claim nothing more, give running steps `grace` seconds, then leave the rest to the next start."""
        for line in self._lines:
            line.stop(grace)


class _Line:
    """The steps of one network: never more of them under way than it bears, whatever their kind."""

    def __init__(self, network: Network, handlers: Sequence[Handler[Any]], work: "_Work") -> None:
        self._network = network
        self._handlers = deque(handlers)
        self._work = work
        self._running: set[asyncio.Task[None]] = set()
        self._bell = asyncio.Event()
        self._filling = asyncio.Lock()
        self._grace: float | None = None

    @property
    def name(self) -> str:
        return self._network.name

    def ring(self) -> None:
        self._bell.set()

    def stop(self, grace: float) -> None:
        self._grace = grace
        self.ring()

    async def run(self) -> None:
        while self._grace is None:
            self._bell.clear()
            try:
                wait = await self._fill()
            except Exception:
                log.exception("could not claim steps", network=self._network.name)
                wait = _POLL_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), wait)
        await self._drain(self._grace)

    async def follow(self, handler: NamedSteps, query_id: str) -> None:
        """Carry out one step, if it is to be had, as soon as there is room."""
        async with self._filling:
            while len(self._running) >= self._network.limits.concurrency:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            if self._grace is not None:
                return  # the database tells another
            step = await self._work.database.write(
                lambda connection: handler.claim_of(connection, self._network, query_id, _LEASE_MARGIN)
            )
            task = None if step is None else self._start(handler, step)
        if task is not None:
            await task

    async def _fill(self) -> float:
        """Start what is due; returns how many seconds may pass before there is more to start."""
        async with self._filling:
            return await self._fill_alone()

    async def _fill_alone(self) -> float:
        room = self._network.limits.concurrency - len(self._running)
        if room <= 0:
            return _POLL_SECONDS  # a step that ends rings
        self._handlers.rotate()  # kinds of steps take turns at going first, so that neither starves the other
        claimed, due = await self._work.database.write(lambda connection: self._claim(connection, room))
        for handler, step in claimed:
            self._start(handler, step)
        if due is None:
            return _POLL_SECONDS
        return min(max((due - self._work.clock()).total_seconds(), 0), _POLL_SECONDS)

    def _claim(
        self, connection: Connection, room: int
    ) -> tuple[list[tuple[Handler[Any], NetworkStep | IntakeStep]], datetime | None]:
        """What is started now, and when the next step becomes due, unless there is no room for it."""
        claimed: list[tuple[Handler[Any], NetworkStep | IntakeStep]] = []
        for handler in self._handlers:
            if len(claimed) < room:
                steps = handler.claim(connection, self._network, room - len(claimed), _LEASE_MARGIN)
                claimed += [(handler, step) for step in steps]
        if len(claimed) == room:
            return claimed, None
        moments = [handler.next_due(connection, self._network) for handler in self._handlers]
        return claimed, min((moment for moment in moments if moment is not None), default=None)

    def _start(self, handler: Handler[Any], step: NetworkStep | IntakeStep) -> "asyncio.Task[None]":
        task = asyncio.create_task(self._work.carry_out(handler, self._network, step))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: self.ring())
        return task

    async def _drain(self, grace: float) -> None:
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Work:
    """Carries out one step at a time, to its end."""

    database: Database
    clock: Clock
    retry: Retry
    metrics: Metrics

    async def carry_out(self, handler: Handler[S], network: Network, step: S) -> None:
        self._count(handler, step, "started")
        try:
            error = await _attempt(handler, network, step)
            if error is None:
                self._count(handler, step, "done")
            elif isinstance(error, NotAskedError):
                await self._put_back(handler, step, error)
            else:
                await self._put_off_or_give_up(handler, step, error)
        except Exception:
            log.exception("a step could not be settled", network=step.network)

    async def _put_back(self, handler: Handler[S], step: S, refusal: NotAskedError) -> None:
        self._count(handler, step, "refused")
        due_at = self.clock() + min(timedelta(seconds=refusal.retry_after or 0), LONGEST_WAIT)
        await self.database.write(
            lambda connection: handler.put_off(connection, step, due_at, refusal.code, is_failure=False)
        )

    async def _put_off_or_give_up(self, handler: Handler[S], step: S, error: NetworkError) -> None:
        wait = self.retry.wait(step.failures + 1, error)
        self._count(handler, step, "failed" if wait is None else "retried")
        log.warning("a step failed", network=step.network, code=error.code, attempt=step.failures + 1)
        if wait is None:
            await self.database.write(lambda connection: handler.give_up(connection, step, error.code))
        else:
            due_at = self.clock() + wait
            await self.database.write(lambda connection: handler.put_off(connection, step, due_at, error.code))

    def _count(self, handler: Handler[S], step: S, outcome: str) -> None:
        self.metrics.network_requests.labels(step.network, handler.kind, outcome).inc()


async def _attempt(handler: Handler[S], network: Network, step: S) -> NetworkError | None:
    """Why a step failed, if it did. What nobody foresaw is worth another try, but not for ever."""
    if step.attempt > _MOST_CLAIMS:
        return PermanentNetworkError(IssueCode.INTERNAL)
    try:
        await handler.run(network, step)
    except NetworkError as error:
        return error
    except Exception:
        log.exception("a step failed unexpectedly", network=step.network)
        return TemporaryNetworkError(IssueCode.INTERNAL)
    return None


async def within_deadline(work: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Await `work`; past the deadline raise a `TemporaryNetworkError`."""
    try:
        async with asyncio.timeout(seconds):
            return await work()
    except TimeoutError:
        raise TemporaryNetworkError(IssueCode.TIMEOUT) from None
