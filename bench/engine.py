"""The engine with all that production has, on a database of its own: SQLite (WAL, synchronous=FULL) in a given folder.

drain     deliver what waits
full      commit messages and deliver them meanwhile, as fast as both go
steady    commit messages at a given rate, and see how long each takes to its commit and from there to its answer
backlog   deliver some of very many that wait

Retries, address rule, deadlines, both signatures, attempt records, audit entries and sealed payloads are always on.
"""

import asyncio
import os
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Connection, text

from bench.bare import LOOPBACK, make_body
from bench.sink import Receivers, counters
from bench.turns import Spent, Turn, keep_busy, peak_memory, percentile, spending
from chartwire import ids
from chartwire.clock import system_clock
from chartwire.delivery.attempt import Policy, Poster
from chartwire.delivery.dispatcher import Dispatcher
from chartwire.delivery.egress import PostAnswer, PostRequest
from chartwire.delivery.http.client import HttpEgress
from chartwire.delivery.http.line import Answered
from chartwire.model.webhook import Endpoint, EventDraft, EventType, PayloadVersion, Timing
from chartwire.settings import Settings
from chartwire.store import deliveries, endpoints, outbox, registry
from chartwire.store.database import Bell, Database, Ringer
from chartwire.store.migrate import upgrade
from chartwire.store.profile import open_database, run_once
from chartwire.store.sqlite import SqliteDatabase, _Job
from chartwire.store.vault import Vault
from chartwire.telemetry import Metrics

RETENTION = timedelta(days=30)
_BEFORE_ID = len("\r\nwebhook-id: ")  # which a request begins with

_ACCOUNTS = 10
_FILLED_AT_ONCE = 500
_COMMITTERS = 64
_PATIENCE_SECONDS = 240
_WARM_UP = 500
_ROUND = 1_000
_COPIED_AT_ONCE = 20  # rounds: a transaction of all would be a log of gigabytes, which every read goes through


@dataclass(frozen=True, slots=True)
class Ground:
    """Where an engine is measured: the folder of its database, whom it tells, and how large its messages are.

    With the URL of a PostgreSQL database it is there instead; what was in it is dropped. `endpoint_limit` attempts may
    be under way at one host: many by default, because one host alone is to be measured too.
    """

    folder: str
    receivers: Receivers
    body_bytes: int = 2048
    postgres: str = ""
    endpoint_limit: int = 128


class _TimedDatabase(SqliteDatabase):
    """Keeps when each message was committed, which is before whoever wrote it is told."""

    def __init__(self, path: Path, ringer: Ringer) -> None:
        self.committed: dict[str, float] = {}
        super().__init__(path, ringer)

    def _commit(self, connection: Connection, group: Sequence[_Job[Any]]) -> None:
        super()._commit(connection, group)
        now = time.perf_counter()
        self.committed.update((job.answer, now) for job in group if isinstance(job.answer, str))


class _TimedEgress(HttpEgress):
    """Keeps when each message was answered, and says when so many were."""

    def __init__(self, receivers: Receivers, limit: int) -> None:
        super().__init__(LOOPBACK, limit, ssl_context=receivers.context())
        self.answered: dict[str, float] = {}
        self._expected = 0
        self._done = asyncio.Event()

    def send(self, request: PostRequest, answered: Answered) -> None:
        message_id = request.lines[_BEFORE_ID : request.lines.index(b"\r\n", _BEFORE_ID)].decode()

        def note(answer: PostAnswer, timing: Timing) -> None:
            self.answered[message_id] = time.perf_counter()
            if len(self.answered) >= self._expected:
                self._done.set()
            answered(answer, timing)

        super().send(request, note)

    async def until(self, answers: int) -> None:
        """Wait until so many messages have been answered since it was made."""
        self._expected = answers
        self._done.clear()
        if len(self.answered) < answers:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._done.wait()


@dataclass(slots=True)
class Engine:
    """An installation without its API and its networks."""

    database: Database
    vault: Vault
    egress: _TimedEgress
    path: Path
    body: bytes
    settings: Settings
    endpoints: Sequence[Endpoint] = ()
    dispatcher: Dispatcher | None = None

    def ring(self, bell: Bell) -> None:
        """What `wiring` does with the bell of deliveries."""
        if self.dispatcher is not None and bell is Bell.DELIVERY:
            self.dispatcher.ring()

    @asynccontextmanager
    async def dispatching(self) -> AsyncIterator[None]:
        """Delivers, from a start as of an installation to a stop that settles what is in flight."""
        await self.database.write(lambda connection: deliveries.release_leases(connection, system_clock()))
        poster = Poster(self.egress, self.vault, system_clock, random.SystemRandom(), Policy.of(self.settings))
        self.dispatcher = Dispatcher(self.database, self.vault, poster, system_clock, self.settings, Metrics())
        running = asyncio.create_task(self.dispatcher.run())
        yield
        await self.dispatcher.drain(5)
        await running
        self.dispatcher = None

    def append(self, connection: Connection, number: int) -> str:
        """A message for one endpoint; returns its id."""
        endpoint = self.endpoints[number % len(self.endpoints)]
        draft = EventDraft(
            id=ids.new_message_id(),
            account_id=endpoint.account_id,
            type=EventType.DOCUMENT_DOWNLOAD,
            payload_version=PayloadVersion.V2023_04,
            body=self.body,
            patient_ids=("0192f0c1-2345-7000-8000-0123456789ab",),
        )
        outbox.append_for(connection, self.vault, draft, [endpoint], system_clock(), RETENTION)
        return draft.id

    async def fill(self, count: int) -> None:
        """Let `count` messages wait."""
        for start in range(0, count, _FILLED_AT_ONCE):
            numbers = range(start, min(count, start + _FILLED_AT_ONCE))
            await self.database.write(partial(self._append_all, numbers))

    async def commit(self, number: int) -> str:
        """Commit one message as a caller of its own; returns its id."""
        return await self.database.write(partial(self._append_one, number))

    def _append_all(self, numbers: Sequence[int], connection: Connection) -> None:
        for number in numbers:
            self.append(connection, number)

    def _append_one(self, number: int, connection: Connection) -> str:
        return self.append(connection, number)

    def size(self) -> int:
        """Bytes of the database and its log."""
        return sum(file.stat().st_size for file in self.path.parent.glob("chartwire.db*"))

    async def expect_settled(self, count: int) -> None:
        """Whoever measures must have measured deliveries: each settled, with one attempt and one audit entry."""
        query = text(
            "SELECT (SELECT count(*) FROM delivery WHERE state = 'delivered'), (SELECT count(*) FROM attempt),"
            " (SELECT count(*) FROM audit WHERE action = 'webhook.attempt')"
        )
        found = await self.database.read(lambda connection: connection.execute(query).one())
        assert all(each == count for each in found), tuple(found)


@asynccontextmanager
async def open_engine(ground: Ground) -> AsyncIterator[Engine]:
    """An engine with an endpoint for each receiver, shared by ten accounts."""
    with TemporaryDirectory(prefix="chartwire-bench-", dir=ground.folder) as folder:
        settings = Settings(
            data_dir=Path(folder),
            database_url=ground.postgres,
            webhook_endpoint_concurrency=ground.endpoint_limit,
            webhook_allowed_networks=[*LOOPBACK],
        )
        if ground.postgres:
            run_once(ground.postgres, _drop_everything)
        await asyncio.to_thread(upgrade, settings.database)
        path = Path(folder, "chartwire.db")
        hearing: list[Engine] = []

        def ring(bell: Bell) -> None:
            for engine in hearing:
                engine.ring(bell)

        database = open_database(settings, ring) if ground.postgres else _TimedDatabase(path, ring)
        egress = _TimedEgress(ground.receivers, settings.webhook_concurrency)
        engine = Engine(database, Vault(ids.secret_bytes(32)), egress, path, make_body(ground.body_bytes), settings)
        hearing.append(engine)
        engine.endpoints = await database.write(lambda it: register(it, engine.vault, ground.receivers.urls))
        yield engine
        await database.close()
        await egress.close()


def _drop_everything(connection: Connection) -> None:
    connection.execute(text("DROP SCHEMA IF EXISTS public CASCADE"))
    connection.execute(text("CREATE SCHEMA public"))


def register(connection: Connection, vault: Vault, urls: Sequence[str]) -> list[Endpoint]:
    """An endpoint for each URL, shared by ten accounts."""
    now = system_clock()
    accounts = [registry.create_account(connection, "bench", now) for _ in urls[:_ACCOUNTS]]
    made = []
    for number, url in enumerate(urls):
        endpoint = endpoints.create_endpoint(connection, accounts[number % len(accounts)].id, now)
        endpoint = endpoints.set_url(connection, endpoint, url, now)
        endpoints.add_key(connection, vault, endpoint.seq, now)
        made.append(endpoint)
    return made


def _turn(count: int, spent: Spent, engine: Engine) -> Turn:
    return Turn(
        count / spent.seconds,
        spent.cpu / count * 1e6,
        memory_mebibytes=peak_memory(),
        disk_bytes=engine.size() / max(1, len(engine.egress.answered)),
    )


async def drain(ground: Ground, count: int) -> Turn:
    """Deliver and settle `count` messages that wait."""
    async with open_engine(ground) as engine:
        await _warm_up(engine)
        before = await counters(ground.receivers.counters)
        await engine.fill(count)
        with spending() as spent:
            async with engine.dispatching():
                await engine.egress.until(_WARM_UP + count)
        await engine.expect_settled(_WARM_UP + count)
        after = await counters(ground.receivers.counters)
        opened, posted = after[0] - before[0], after[1] - before[1]
        return replace(_turn(count, spent, engine), reuse=1 - opened / posted)


async def _warm_up(engine: Engine) -> None:
    """Open connections and fill caches."""
    await engine.fill(_WARM_UP)
    async with engine.dispatching():
        await engine.egress.until(_WARM_UP)


async def full(ground: Ground, count: int) -> Turn:
    """Commit `count` messages, each as a unit of its own, and deliver and settle them, both at once on one core."""
    async with open_engine(ground) as engine:
        await _warm_up(engine)
        numbers = iter(range(count))

        async def work(_: int) -> None:
            for number in numbers:
                await engine.commit(number)

        with spending() as spent:
            async with engine.dispatching():
                await keep_busy(_COMMITTERS, work)
                await engine.egress.until(_WARM_UP + count)
        await engine.expect_settled(_WARM_UP + count)
        return _turn(count, spent, engine)


async def steady(ground: Ground, per_second: float, seconds: float, waiting: int = 0) -> Turn:
    """Commit at a rate for so long, each to an endpoint that is well; `waiting` more wait for each that is ill.

    `p50`, `p99`: from the commit to the receiver's answer. `ack`: from the call that commits to its answer.
    """
    async with open_engine(ground) as engine:
        assert isinstance(engine.database, _TimedDatabase), "only SQLite's commits are timed"
        committed = engine.database.committed
        ill = ground.receivers.crowd.ill
        everyone, engine.endpoints = engine.endpoints, engine.endpoints[ill:]
        await _warm_up(engine)
        if ill and waiting:
            engine.endpoints = everyone[:ill]
            await engine.fill(waiting * ill)
            engine.endpoints = everyone[ill:]
        acks: list[float] = []

        async def commit(number: int) -> None:
            started = time.perf_counter()
            await engine.commit(number)
            acks.append(time.perf_counter() - started)

        async with engine.dispatching():
            before = len(engine.egress.answered)
            await engine.fill(len(engine.endpoints))  # what a dispatcher has served once it knows
            await engine.egress.until(before + len(engine.endpoints))
            with spending() as spent:
                await _at_rate(per_second, seconds, commit)
                await _until_answered(engine, committed)
        lags = [engine.egress.answered[each] - at for each, at in committed.items()]
        return replace(
            _turn(len(lags), spent, engine),
            p50_milliseconds=percentile(lags, 0.5),
            p99_milliseconds=percentile(lags, 0.99),
            ack_p50_milliseconds=percentile(acks, 0.5),
            ack_p99_milliseconds=percentile(acks, 0.99),
        )


async def _until_answered(engine: Engine, committed: Mapping[str, float]) -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not committed.keys() <= engine.egress.answered.keys():  # noqa: ASYNC110  others are answered too
            await asyncio.sleep(0.01)


async def _at_rate(per_second: float, seconds: float, commit: Callable[[int], Coroutine[None, None, None]]) -> None:
    """Start a task for each message when it is due, whatever became of those before it (an open loop)."""
    started, number, tasks = time.perf_counter(), 0, set[asyncio.Task[None]]()
    while (passed := time.perf_counter() - started) < seconds:
        while number < passed * per_second:
            task = asyncio.create_task(commit(number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        await asyncio.sleep(0.001)
    await asyncio.gather(*tasks)


async def backlog(ground: Ground, waiting: int, count: int) -> Turn:
    """Deliver and settle `count` of `waiting` messages; of a thousand that wait, a thousand again and again.

    Counted is from the first tenth to the last of each round, so that its start and its tail do not matter.
    """
    async with open_engine(ground) as engine:
        await _warm_up(engine)
        done, seconds, cpu = 0, 0.0, 0.0
        if waiting > count:
            await engine.fill(_ROUND)
            for first in range(1, waiting // _ROUND, _COPIED_AT_ONCE):
                copies = range(first, min(waiting // _ROUND, first + _COPIED_AT_ONCE))
                await engine.database.write(partial(_multiply, copies))
            _empty_log(engine.path)
        while done < count:
            size = min(waiting, count)
            if waiting <= count:
                await engine.fill(waiting)
            first = len(engine.egress.answered)
            async with engine.dispatching():
                await engine.egress.until(first + size // 10)
                with spending() as spent:
                    await engine.egress.until(first + size * 9 // 10)
            done, seconds, cpu = done + size, seconds + spent.seconds, cpu + spent.cpu
        counted = done * 0.8
        return replace(
            _turn(1, Spent(1, 0), engine), per_second=counted / seconds, cpu_microseconds=cpu / counted * 1e6
        )


def _multiply(copies: range, connection: Connection) -> None:
    """Copy the first round of what waits: each copy its own event, with its own sealed bytes, patient and delivery."""
    first = connection.execute(text("SELECT min(event_seq) FROM delivery WHERE state = 'waiting'")).scalar_one()
    values = {"round": _ROUND, "first": first, "from": copies.start, "until": copies.stop - 1}
    numbers = "WITH RECURSIVE n(i) AS (SELECT :from UNION ALL SELECT i + 1 FROM n WHERE i < :until)"
    for table, key, others in (
        ("event", "seq", "account_id, type, payload_version, body, size, created_at, expires_at"),
        ("event_subject", "event_seq", "patient_id"),
        ("delivery", "event_seq", "endpoint_seq, account_id, state, due_at, created_at"),
    ):
        name, names = ("id, ", "id || 'x' || i, ") if table == "event" else ("", "")
        connection.execute(
            text(
                f"INSERT INTO {table} ({key}, {name}{others}) {numbers}"  # noqa: S608  all of it written here
                f" SELECT {key} + i * :round, {names}{others} FROM n, {table}"
                f" WHERE {key} >= :first AND {key} < :first + :round"
            ),
            values,
        )


def _empty_log(path: Path) -> None:
    """What was filled in has been there for long: it is in the database, not in its log."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()


def memory_folder() -> str:
    """A folder that no disk is behind, for M: the same engine without the cost of durability."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else ""  # noqa: S108  it is meant to be in memory
