"""The engine when what it stands on gives way: the clock is set, the database is locked."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.dispatching import OF_DOCUMENTS, Engine, open_engine
from tests.support.receiver import Answer, Receiver
from tests.support.server import MovableClock

from chartwire.clock import to_milliseconds
from chartwire.delivery.clock_watch import ClockWatch
from chartwire.store import sqlite


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
async def engine(tmp_path: Path, clock: MovableClock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.05)  # a minute otherwise
    async with open_engine(tmp_path / "data", clock) as engine:
        yield engine


def counted(receiver: Receiver) -> list[int]:
    """How often each message came."""
    return sorted(Counter(message.message_id for message in receiver.messages).values())


# --- the clock --------------------------------------------------------------------------------------------------------


async def test_a_clock_that_runs_has_not_jumped_and_one_that_was_set_has() -> None:
    clock = MovableClock()
    watch = ClockWatch(clock)
    assert not watch.jump()
    for hours in (1, -1):
        clock.advance(hours=hours)
        for _ in range(2):  # it is told until it is accepted
            assert round(watch.jump().total_seconds() / 3600) == hours
        watch.accept()
        assert not watch.jump()


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_is_set_neither_loses_repeats_nor_delays(
    engine: Engine, clock: MovableClock, hours: int
) -> None:
    """What is in flight, what waits behind it, and what is told afterwards: all of it goes out, once and at once."""
    gate = asyncio.Event()
    async with Receiver() as receiver, engine.dispatch() as dispatcher:
        account = await engine.new_account(receiver.url)
        await engine.until("SELECT count(*) FROM attempt", 1)
        receiver.answers.extend([Answer(gate=gate)] * 4)  # its limit of attempts in flight
        await engine.append(account, 20)
        await receiver.wait_for(lambda them: len(them.messages) == 4)
        clock.advance(hours=hours)
        dispatcher.ring()
        await engine.until(f"SELECT count(*) {OF_DOCUMENTS} AND lease_until > {to_milliseconds(clock())}", 4)
        await engine.append(account, 5)
        gate.set()
        await engine.until_delivered(25)
    assert counted(receiver) == [1] * 25


async def test_a_pause_does_not_outlast_the_hour_that_the_clock_was_wrong_by(
    engine: Engine, clock: MovableClock
) -> None:
    async with Receiver() as receiver, engine.dispatch() as dispatcher:
        account = await engine.new_account(receiver.url)
        await engine.until("SELECT count(*) FROM attempt", 1)
        receiver.answers.append(Answer(503, headers={"Retry-After": "60"}))
        await engine.append(account)
        await engine.until("SELECT paused_until IS NOT NULL FROM endpoint", 1)
        await engine.append(account, 3)
        clock.advance(hours=-1)
        dispatcher.ring()
        await engine.until_delivered(3)  # the fourth is a retry, and keeps its time


# --- the database -----------------------------------------------------------------------------------------------------


@pytest.mark.embedded
async def test_a_database_that_is_locked_for_long_loses_and_repeats_nothing(engine: Engine, tmp_path: Path) -> None:
    """Attempts that are in flight when another program locks the database are settled when it lets go."""
    gate = asyncio.Event()
    async with Receiver() as receiver, engine.dispatch():
        account = await engine.new_account(receiver.url)
        await engine.until("SELECT count(*) FROM attempt", 1)
        receiver.answers.extend([Answer(gate=gate)] * 4)
        await engine.append(account, 10)
        await receiver.wait_for(lambda them: len(them.messages) == 4)
        other = sqlite3.connect(tmp_path / "data" / "chartwire.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        gate.set()
        async with asyncio.timeout(60):
            while engine.database.failed < 8:  # claims and settlings, each told that it is locked
                engine.database.failure.clear()
                await engine.database.failure.wait()
        assert await engine.rows(f"SELECT count(*) {OF_DOCUMENTS} AND state = 'delivered'") == [(0,)]
        other.execute("ROLLBACK")
        other.close()
        await engine.until_delivered(10)
    assert counted(receiver) == [1] * 10
