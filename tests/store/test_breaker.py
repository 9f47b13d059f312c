"""A network that is away is not asked by everybody."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from tests.support.documents import NOW
from tests.support.profile import open_new_database

from chartwire.errors import (
    IssueCode,
    NetworkError,
    NotAskedError,
    PermanentNetworkError,
    StoreError,
    TemporaryNetworkError,
)
from chartwire.ingestion.breaker import AWAY, AWAY_FOR_ONE, Breaker
from chartwire.model.circuit import Circuit
from chartwire.store import circuits
from chartwire.store.database import Database, Unit

PAUSE = timedelta(seconds=3)


class Scene:
    """Two processes that ask, at a time of the test's choice, a network that fails as the test says."""

    def __init__(self, database: Database) -> None:
        self.now = NOW
        self.database = database
        self.breakers = [Breaker(database, self.clock, PAUSE) for _ in range(2)]
        self.asked = 0

    def clock(self) -> datetime:
        return self.now

    async def ask(
        self,
        error: NetworkError | None = None,
        *,
        network: str = "mercy",
        away: frozenset[IssueCode] = AWAY,
        process: int = 0,
    ) -> str | NetworkError:
        """What comes of asking once; the question counts how often it is put."""

        async def question() -> str:
            self.asked += 1
            if error is not None:
                raise error
            return "answer"

        try:
            return await self.breakers[process].ask(network, question, 20, away)
        except NetworkError as raised:
            return raised

    async def fail(self, times: int, code: IssueCode = IssueCode.UNREACHABLE) -> None:
        for number in range(times):
            await self.ask(TemporaryNetworkError(code), process=number % 2)

    async def circuit(self) -> Circuit | None:
        found = await self.database.read(lambda connection: circuits.find(connection, ["mercy"]))
        return found.get("mercy")


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    database = open_new_database(tmp_path, lambda _: None)
    yield Scene(database)
    await database.close()


async def test_while_it_is_open_nobody_asks_and_all_are_told_when_to_come_again(scene: Scene) -> None:
    await scene.fail(10)
    scene.now += timedelta(seconds=1)
    for process in (0, 1):
        refused = await scene.ask(process=process)
        assert isinstance(refused, NotAskedError)
        assert (refused.code, refused.retry_after) == (IssueCode.UNREACHABLE, 2)
    assert scene.asked == 10
    assert await scene.ask(network="grace") == "answer"


async def test_after_the_pause_an_answer_closes_it_and_a_failure_opens_it_for_longer(scene: Scene) -> None:
    await scene.fail(10)
    scene.now += PAUSE
    await scene.fail(1, IssueCode.TIMEOUT)
    refused = await scene.ask()
    assert isinstance(refused, TemporaryNetworkError)
    assert (refused.code, refused.retry_after, scene.asked) == (IssueCode.TIMEOUT, 6, 11)
    scene.now += 2 * PAUSE
    assert await scene.ask(process=1) == "answer"
    assert await scene.circuit() is None
    await scene.fail(9)
    assert await scene.ask() == "answer"


async def test_failures_with_an_answer_between_them_do_not_add_up(scene: Scene) -> None:
    for _ in range(3):
        await scene.fail(9)
        assert await scene.ask() == "answer"


async def test_a_pause_is_as_long_as_the_network_asks(scene: Scene) -> None:
    for _ in range(10):
        await scene.ask(TemporaryNetworkError(IssueCode.THROTTLED, retry_after=120))
    refused = await scene.ask()
    assert isinstance(refused, NotAskedError)
    assert refused.retry_after == 120


async def test_after_five_minutes_being_refused_is_a_failure(scene: Scene) -> None:
    await scene.fail(10)
    opened_at = scene.now
    while scene.now < opened_at + timedelta(minutes=5):
        circuit = await scene.circuit()
        assert circuit is not None
        assert circuit.tries_at is not None
        assert isinstance(await scene.ask(), NotAskedError)
        scene.now = circuit.tries_at
        await scene.fail(1)
    refused = await scene.ask()
    assert isinstance(refused, TemporaryNetworkError)
    assert not isinstance(refused, NotAskedError)
    assert refused.retry_after == 60


async def test_what_was_asked_before_it_opened_does_not_open_it_again(scene: Scene) -> None:
    late, fails = asyncio.Event(), TemporaryNetworkError(IssueCode.UNREACHABLE)

    async def question() -> None:
        await late.wait()
        raise fails

    asking = asyncio.create_task(scene.breakers[0].ask("mercy", question, 20, AWAY))
    await scene.fail(10)
    scene.now += 2 * PAUSE
    late.set()
    with pytest.raises(TemporaryNetworkError):
        await asking
    assert await scene.ask() == "answer"


@pytest.mark.parametrize(
    "error",
    [
        PermanentNetworkError(IssueCode.UNREACHABLE),  # its certificate is not to be trusted
        TemporaryNetworkError(IssueCode.INTERNAL),  # our disk is full
        PermanentNetworkError(IssueCode.FORBIDDEN_ADDRESS),  # nobody was asked
        PermanentNetworkError(IssueCode.UNAUTHORIZED),  # our own token file
        PermanentNetworkError(IssueCode.NOT_FOUND),
    ],
)
async def test_what_says_nothing_of_the_network_changes_nothing(scene: Scene, error: NetworkError) -> None:
    await scene.fail(9)
    before = await scene.circuit()
    assert await scene.ask(error) is error
    assert await scene.circuit() == before


@pytest.mark.parametrize("code", sorted(AWAY))
async def test_a_single_document_is_not_taken_for_the_whole_network(scene: Scene, code: IssueCode) -> None:
    await scene.ask(TemporaryNetworkError(code), away=AWAY_FOR_ONE)
    assert (await scene.circuit() is not None) is (code in {IssueCode.UNREACHABLE, IssueCode.THROTTLED})


async def test_silence_counts_as_a_failure(scene: Scene) -> None:
    never = asyncio.Event()
    with pytest.raises(TemporaryNetworkError):
        await scene.breakers[0].ask("mercy", never.wait, 0, AWAY)
    circuit = await scene.circuit()
    assert circuit is not None
    assert (circuit.failures, circuit.code) == (1, IssueCode.TIMEOUT)


async def test_failures_at_one_time_are_all_counted(scene: Scene) -> None:
    failure = TemporaryNetworkError(IssueCode.UNREACHABLE)
    await asyncio.gather(*(scene.ask(failure, process=number % 2) for number in range(12)))
    circuit = await scene.circuit()
    assert circuit is not None
    assert (circuit.failures, circuit.pauses) == (scene.asked, 1)


class ForgetfulDatabase:
    """A database that can be read and, for a while, not written."""

    def __init__(self, database: Database) -> None:
        self.read = database.read

    async def write(self, unit: Unit[Any]) -> Any:
        raise StoreError


async def test_what_cannot_be_noted_does_not_cost_the_answer_nor_the_reason(scene: Scene) -> None:
    await scene.fail(1)
    forgetful = cast("Database", ForgetfulDatabase(scene.database))
    scene.breakers.append(Breaker(forgetful, scene.clock, PAUSE))
    error = TemporaryNetworkError(IssueCode.TIMEOUT)
    assert await scene.ask(error, process=2) is error
    assert await scene.ask(process=2) == "answer"
