"""What an adapter of the bus must do, on a real broker that is restarted, cut off and robbed of its disk."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
import pytest_asyncio
from nats.js.api import RetentionPolicy, StreamConfig
from tests.support.nats import Nats, running_nats
from tests.support.patience import PATIENCE_SECONDS
from tests.support.ports import closed_port

from chartwire.delivery.bus import Broker, Bus, Queue, Ticket
from chartwire.delivery.nats import connecting
from chartwire.delivery.nats.bus import NatsBus
from chartwire.errors import BusError, ConfigurationError
from chartwire.ids import url_safe
from chartwire.telemetry import Metrics

WORK = Queue("work", ack_wait=2, max_age=60, lanes=("post",))
"""A ticket is extended three times within its deadline: a machine that stands still for longer gets it twice."""

pytestmark = [pytest.mark.embedded, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nats]:
    async with running_nats(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def tag() -> str:
    """Each test is an installation of its own on the same broker."""
    return url_safe(8)


@asynccontextmanager
async def a_bus(url: str, tag: str, *queues: Queue) -> AsyncIterator[NatsBus]:
    bus = await NatsBus(Broker([url]), tag, queues, Metrics()).start()
    try:
        yield bus
    finally:
        await bus.close()


class Taker:
    """Takes tickets of a bus, and keeps them."""

    def __init__(self, bus: Bus, limit: int = 8, lane: str = "post") -> None:
        self.tickets: list[Ticket] = []
        self.news = asyncio.Event()
        self.gate: asyncio.Event | None = None
        self.fail_next = 0
        self.consumer = bus.consume(WORK, lane, limit, self._take)
        self._running = asyncio.create_task(self.consumer.run())

    async def _take(self, ticket: Ticket) -> None:
        self.tickets.append(ticket)
        self.news.set()
        if self.fail_next:
            self.fail_next -= 1
            raise RuntimeError("not this time")
        if self.gate is not None and not ticket.id.startswith("quick"):
            await self.gate.wait()

    async def until(self, holds: Callable[[list[Ticket]], object]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not holds(self.tickets):
                self.news.clear()
                await self.news.wait()

    async def end(self, seconds: float = PATIENCE_SECONDS) -> None:
        await self.consumer.drain(seconds)
        await self._running


@asynccontextmanager
async def a_taker(bus: Bus, limit: int = 8, lane: str = "post") -> AsyncIterator[Taker]:
    taker = Taker(bus, limit, lane)
    try:
        yield taker
    finally:
        await taker.end()


def count(bus: NatsBus, outcome: str) -> float:
    return bus.metrics.registry.get_sample_value("chartwire_tickets_total", {"queue": "work", "outcome": outcome}) or 0


async def publish(bus: Bus, ticket_id: str, payload: bytes = b"") -> None:
    """Publish, as often as it takes."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                return await bus.publish(WORK, "post", ticket_id, payload)
            except BusError:
                await asyncio.sleep(0.02)


async def until_up(bus: Bus) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not bus.is_up:  # noqa: ASYNC110  the broker is another process
            await asyncio.sleep(0.01)


async def test_each_ticket_is_taken_by_one_of_those_who_ask(broker: Nats, tag: str) -> None:
    async with (
        a_bus(broker.url, tag, WORK) as inside,
        a_bus(broker.url, tag) as outside,
        a_taker(inside) as one,
        a_taker(outside) as other,
    ):
        await asyncio.gather(*(publish(inside, f"t{number}", b"%d" % number) for number in range(200)))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(one.tickets) + len(other.tickets) < 200:
                await asyncio.wait([asyncio.ensure_future(each.news.wait()) for each in (one, other)], timeout=0.1)
                one.news.clear()
                other.news.clear()
        taken = [*one.tickets, *other.tickets]
        assert {(each.id, each.payload) for each in taken} == {(f"t{n}", b"%d" % n) for n in range(200)}
        assert len(taken) == 200
        assert count(inside, "published") == 200


async def test_a_ticket_that_is_published_twice_is_there_once(broker: Nats, tag: str) -> None:
    async with a_bus(broker.url, tag, WORK) as bus, a_taker(bus) as taker:
        for _ in range(3):
            await publish(bus, "same")
        await publish(bus, "last")
        await taker.until(lambda it: it[-1:] != [] and it[-1].id == "last")
        assert [each.id for each in taker.tickets] == ["same", "last"]


async def test_no_more_are_taken_than_there_is_room_for(broker: Nats, tag: str) -> None:
    async with a_bus(broker.url, tag, WORK) as bus:
        for number in range(5):
            await publish(bus, f"t{number}")
        async with a_taker(bus, limit=2) as taker:
            taker.gate = asyncio.Event()
            await taker.until(lambda it: len(it) == 2)
            info = await bus._stream.consumer_info(bus.stream_name(WORK), "post")  # type: ignore[union-attr]
            assert (info.num_ack_pending, info.num_pending) == (2, 3)
            taker.gate.set()
            await taker.until(lambda it: len(it) == 5)


async def test_a_ticket_that_was_not_followed_comes_again_and_says_so(broker: Nats, tag: str) -> None:
    async with a_bus(broker.url, tag, WORK) as bus, a_taker(bus) as taker:
        taker.fail_next = 1
        await publish(bus, "t")
        await taker.until(lambda it: len(it) > 1)
        assert [(each.id, each.count) for each in taker.tickets[:2]] == [("t", 1), ("t", 2)]
        assert count(bus, "redelivered") == len(taker.tickets) - 1


async def test_a_ticket_that_takes_long_is_not_handed_to_another_meanwhile(broker: Nats, tag: str) -> None:
    async with a_bus(broker.url, tag, WORK) as bus, a_taker(bus) as taker:
        taker.gate = asyncio.Event()
        await publish(bus, "long")
        await taker.until(lambda it: len(it) == 1)
        loop = asyncio.get_running_loop()
        ended = loop.time() + 3 * WORK.ack_wait
        while loop.time() < ended:  # others come and go for as long as three of its deadlines
            await publish(bus, f"quick-{url_safe(8)}")
            await asyncio.sleep(0.05)
        assert [each.id for each in taker.tickets].count("long") == 1
        taker.gate.set()


async def test_a_consumer_that_is_drained_ends_what_it_does_and_leaves_the_rest(broker: Nats, tag: str) -> None:
    async with a_bus(broker.url, tag, WORK) as bus:
        first = Taker(bus)
        first.gate = asyncio.Event()
        await publish(bus, "begun")
        await first.until(lambda it: len(it) == 1)
        ending = asyncio.create_task(first.end())
        await asyncio.sleep(0)
        await publish(bus, "left")
        assert not ending.done()
        first.gate.set()
        await ending
        async with a_taker(bus) as second:
            await second.until(bool)
            assert [each.id for each in second.tickets] == ["left"]
        assert [each.id for each in first.tickets] == ["begun"]


async def test_lanes_are_apart(broker: Nats, tag: str) -> None:
    async with a_bus(broker.url, tag, WORK) as bus, a_taker(bus) as post, a_taker(bus, lane="own") as own:
        await until_up(bus)
        await bus.publish(WORK, "own", "t1", b"")
        await publish(bus, "t2")
        await own.until(bool)
        await post.until(bool)
        assert [each.id for each in own.tickets] == ["t1"]
        assert [each.id for each in post.tickets] == ["t2"]


async def test_words_are_heard_by_all_who_listen(broker: Nats, tag: str) -> None:
    heard: list[str] = []
    async with a_bus(broker.url, tag) as one, a_bus(broker.url, tag) as other:
        for bus in (one, other):
            bus.hear("word", heard.append)
            await until_up(bus)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(heard) < 2:
                await one.tell("word", "hello")
                await asyncio.sleep(0.01)
        assert set(heard) == {"hello"}


async def test_a_broker_that_is_not_there_is_told_and_found_when_it_comes(tmp_path: Path, tag: str) -> None:
    server = Nats(tmp_path / "nats")
    async with a_bus(server.url, tag, WORK) as bus, a_taker(bus) as taker:
        assert not bus.is_up
        assert "cannot be reached" in (bus.trouble() or "")
        with pytest.raises(BusError):
            await bus.publish(WORK, "post", "early", b"")
        await server.start()
        try:
            await publish(bus, "t")
            await taker.until(bool)
            assert bus.trouble() is None
        finally:
            await server.stop(signal.SIGKILL)


async def test_a_consumer_ends_while_the_broker_is_away(tag: str) -> None:
    with closed_port() as port:
        async with asyncio.timeout(PATIENCE_SECONDS), a_bus(f"nats://127.0.0.1:{port}", tag, WORK) as bus, a_taker(bus):
            assert not bus.is_up


@pytest.mark.parametrize("is_disk_lost", [False, True])
async def test_after_a_restart_tickets_go_on_without_one_of_ours(tmp_path: Path, tag: str, is_disk_lost: bool) -> None:
    async with running_nats(tmp_path / "nats") as server, a_bus(server.url, tag, WORK) as bus, a_taker(bus) as taker:
        await publish(bus, "before")
        await taker.until(lambda it: len(it) == 1)
        await server.stop(signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while bus.is_up:  # noqa: ASYNC110  the broker is another process
                await asyncio.sleep(0.01)
        if is_disk_lost:
            server.forget()
        await server.start()
        await publish(bus, "after")
        await taker.until(lambda it: any(each.id == "after" for each in it))


async def test_a_stream_that_was_set_otherwise_is_mended(broker: Nats, tag: str) -> None:
    async with a_bus(broker.url, tag, WORK) as bus:
        name, subject = bus.stream_name(WORK), bus.subject(WORK, ">")
    client = await nats.connect(broker.url)
    stream = client.jetstream()
    await stream.update_stream(
        StreamConfig(name=name, subjects=[subject], retention=RetentionPolicy.WORK_QUEUE, max_age=5, duplicate_window=5)
    )
    async with a_bus(broker.url, tag, WORK):
        config = (await stream.stream_info(name)).config
    await client.close()
    assert (config.max_age, config.duplicate_window) == (WORK.max_age, WORK.max_age)


@pytest.fixture
def patient_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is slow to answer is not taken to be away: a start that goes on without it is not stopped."""
    monkeypatch.setattr(connecting, "_CONNECT_SECONDS", PATIENCE_SECONDS)


@pytest.mark.usefixtures("patient_bus")
async def test_a_stream_that_cannot_be_mended_stops_the_start(broker: Nats, tag: str) -> None:
    name = NatsBus(Broker([broker.url]), tag, (), Metrics()).stream_name(WORK)
    client = await nats.connect(broker.url)
    await client.jetstream().add_stream(StreamConfig(name=name, subjects=[f"chartwire.{tag}.work.>"]))
    await client.close()
    with pytest.raises(ConfigurationError, match="has another retention: remove it"):
        await NatsBus(Broker([broker.url]), tag, [WORK], Metrics()).start()


@pytest.mark.usefixtures("patient_bus")
async def test_replicas_that_the_broker_cannot_give_stop_the_start(broker: Nats, tag: str) -> None:
    with pytest.raises(ConfigurationError, match="the broker refuses it: replicas > 1 not supported"):
        await NatsBus(Broker([broker.url], replicas=3), tag, [WORK], Metrics()).start()


async def test_wrong_credentials_are_told_without_saying_them(tmp_path: Path, tag: str) -> None:
    options = {"authorization": {"users": [{"user": "clinic", "password": "right"}]}}
    async with running_nats(tmp_path / "nats", options) as server:
        address = server.url.replace("nats://", "nats://clinic:wrong@")
        async with a_bus(address, tag, WORK) as bus, asyncio.timeout(PATIENCE_SECONDS):
            while bus.trouble() != "the broker refuses these credentials":  # noqa: ASYNC110  it may be late to say so
                await asyncio.sleep(0.01)
        async with a_bus(address.replace("wrong", "right"), tag, WORK) as bus:
            await until_up(bus)
