"""Which connections are kept, for how long and how many; and how names are resolved once for many."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from functools import partial
from ipaddress import ip_network

import pytest
from tests.support.patience import PATIENCE_SECONDS
from tests.support.receiver import read_request, serve_raw

from chartwire.delivery.egress import PostAnswer, PostRequest, Recipient
from chartwire.delivery.http import line
from chartwire.delivery.http.answer import Glance
from chartwire.delivery.http.client import HttpEgress
from chartwire.delivery.http.connection import Connection
from chartwire.delivery.http.destination import Origin, Place
from chartwire.delivery.http.pool import ConnectionPool
from chartwire.delivery.http.resolution import SystemResolver
from chartwire.model.webhook import Timing

pytestmark = pytest.mark.embedded


ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


PLACES = {host: Place(Origin(host, 80, encrypted=False)) for host in "abc"}


def _keep(answered: "asyncio.Future[PostAnswer]", answer: PostAnswer, _: Timing) -> None:
    answered.set_result(answer)


class Opener:
    """Opens connections to a server of its own, each used once."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.opened: list[Connection] = []

    async def open(self, count: int) -> list[Connection]:
        loop = asyncio.get_running_loop()
        for _ in range(count):
            _, connection = await loop.create_connection(
                partial(Connection, Glance(), lambda _: None), "127.0.0.1", self.port
            )
            answered: asyncio.Future[PostAnswer] = loop.create_future()
            request = b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"
            connection.exchange(request, loop.time() + PATIENCE_SECONDS, partial(_keep, answered))
            await answered
            self.opened.append(connection)
        return self.opened[-count:]


@pytest.fixture
async def opener() -> AsyncIterator[Opener]:
    async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_request(reader):
            writer.write(ANSWER)

    async with serve_raw(answer_all) as port:
        opener = Opener(port)
        yield opener
        for connection in opener.opened:
            connection.abort()
        await asyncio.gather(*(connection.lost for connection in opener.opened))


async def test_the_connection_used_last_is_taken_first_and_none_of_another_place(opener: Opener) -> None:
    pool = ConnectionPool(limit=10, limit_per_place=10)
    first, second = await opener.open(2)
    pool.give(PLACES["a"], first, 1)
    pool.give(PLACES["a"], second, 2)
    assert pool.take(PLACES["b"]) is None
    assert pool.take(PLACES["a"]) is second
    assert pool.take(PLACES["a"]) is first
    assert pool.take(PLACES["a"]) is None


async def test_who_gets_a_connection_next_takes_nothing_of_who_had_it(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "_PATIENCE_SECONDS", PATIENCE_SECONDS)  # an answer may take long here
    egress = HttpEgress([ip_network("127.0.0.0/8")], 1)
    request = PostRequest(Recipient(f"http://127.0.0.1:{opener.port}/"), b"", b"{}", PATIENCE_SECONDS)
    told = await asyncio.gather(*(egress.post_timed(request) for _ in range(3)))
    await egress.close()
    assert [(answer.status, timing.is_reused) for answer, timing in told] == [(200, False), (200, True), (200, True)]
    assert all(timing.first_byte is not None for _, timing in told)


async def test_connections_that_idle_for_too_long_are_closed(opener: Opener) -> None:
    pool = ConnectionPool(limit=10, limit_per_place=10)
    old, young = await opener.open(2)
    pool.give(PLACES["a"], old, 0)
    pool.give(PLACES["a"], young, 20)
    pool.close_aged(29.9)
    assert old.is_open
    pool.close_aged(30)
    await old.lost
    assert pool.take(PLACES["a"]) is young
    assert pool.take(PLACES["a"]) is None


async def test_one_place_keeps_no_more_than_its_share(opener: Opener) -> None:
    pool = ConnectionPool(limit=10, limit_per_place=2)
    connections = await opener.open(3)
    for at, connection in enumerate(connections):
        pool.give(PLACES["a"], connection, at)
    await connections[0].lost
    assert [pool.take(PLACES["a"]) for _ in range(3)] == [connections[2], connections[1], None]


async def test_the_place_used_longest_ago_makes_room(opener: Opener) -> None:
    pool = ConnectionPool(limit=2, limit_per_place=2)
    a, b, c = await opener.open(3)
    pool.give(PLACES["a"], a, 0)
    pool.give(PLACES["b"], b, 1)
    assert pool.take(PLACES["a"]) is a
    pool.give(PLACES["a"], a, 2)
    pool.give(PLACES["c"], c, 3)
    await b.lost
    assert [pool.take(PLACES[name]) for name in "abc"] == [a, None, c]


async def test_a_connection_that_the_peer_closed_is_not_taken(opener: Opener) -> None:
    pool = ConnectionPool(limit=2, limit_per_place=2)
    (connection,) = await opener.open(1)
    pool.give(PLACES["a"], connection, 0)
    connection.abort()
    assert pool.take(PLACES["a"]) is None


# --- names ----------------------------------------------------------------------------------------------------------


class Directory:
    """What a resolver's threads ask; a name is answered when `opened` is set."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.opened = threading.Event()

    def look_up(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        assert self.opened.wait(PATIENCE_SECONDS)
        if host == "missing.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ("127.0.0.1",)


@pytest.fixture
def directory() -> Directory:
    return Directory()


@pytest.fixture
async def resolver(directory: Directory) -> AsyncIterator[SystemResolver]:
    resolver = SystemResolver(directory.look_up)
    yield resolver
    directory.opened.set()
    resolver.close()


async def test_many_who_ask_for_a_name_share_one_lookup(directory: Directory, resolver: SystemResolver) -> None:
    asking = [asyncio.create_task(resolver.resolve("app.example")) for _ in range(100)]
    await asyncio.sleep(0)  # all of them ask
    asking[0].cancel()
    await asyncio.sleep(0)
    directory.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await asking[0]
    assert set(await asyncio.gather(*asking[1:])) == {("127.0.0.1",)}
    assert directory.asked == ["app.example"]


async def test_addresses_are_kept_until_they_are_forgotten(directory: Directory, resolver: SystemResolver) -> None:
    directory.opened.set()
    for _ in range(3):
        await resolver.resolve("app.example")
    assert len(directory.asked) == 1
    resolver.forget("app.example")
    await resolver.resolve("app.example")
    assert len(directory.asked) == 2


async def test_a_failure_is_not_kept(directory: Directory, resolver: SystemResolver) -> None:
    directory.opened.set()
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await resolver.resolve("missing.example")
    assert len(directory.asked) == 2


async def test_a_hundred_names_that_hang_do_not_hold_up_another(directory: Directory) -> None:
    def look_up(host: str) -> Sequence[str]:
        return directory.look_up(host) if host.startswith("slow") else ("127.0.0.1",)

    resolver = SystemResolver(look_up)
    hanging = [asyncio.create_task(resolver.resolve(f"slow{number % 100}.example")) for number in range(200)]
    assert await resolver.resolve("app.example") == ("127.0.0.1",)
    directory.opened.set()
    await asyncio.gather(*hanging)
    resolver.close()


async def test_the_system_knows_this_machine() -> None:
    resolver = SystemResolver()
    assert {"127.0.0.1", "::1"} & set(await resolver.resolve("localhost"))
    with pytest.raises((OSError, UnicodeError)):
        await resolver.resolve("a..example")
    resolver.close()
