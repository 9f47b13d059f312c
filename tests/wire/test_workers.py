"""Posting by workers that reach the broker alone: what they get, what they do with it, what comes of odd tickets."""

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from random import Random

import nats
import pytest
import pytest_asyncio
import trustme
from nats.aio.msg import Msg
from tests.support.dispatching import SETTINGS, Engine, open_engine
from tests.support.nats import Nats, running_nats
from tests.support.patience import PATIENCE_SECONDS
from tests.support.posting import BODY, KEY, LOOPBACK, POLICY, VAULT, a_delivery
from tests.support.receiver import Answer, Receiver
from tests.support.workers import a_relay, a_worker, post, until_heard

from chartwire.clock import system_clock
from chartwire.delivery.attempt import Policy, Poster
from chartwire.delivery.dispatcher import Dispatcher
from chartwire.delivery.egress import PostAnswer, PostRequest, Recipient
from chartwire.delivery.http.client import HttpEgress
from chartwire.delivery.nats.bus import NatsBus
from chartwire.delivery.relay import RelayEgress
from chartwire.delivery.transport import ANSWERS, BEGIN_WITHIN, POSTINGS, WORKERS, Answered, Posting, Transport
from chartwire.model.webhook import UNTIMED, Outcome
from chartwire.tls import TlsProfile

pytestmark = [pytest.mark.embedded, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nats]:
    async with running_nats(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def key() -> bytes:
    """Each test is an installation of its own on the same broker."""
    return secrets.token_bytes(32)


@asynccontextmanager
async def a_shut_egress() -> AsyncIterator[HttpEgress]:
    """One that may connect to no receiver of these tests: what arrives came from a worker."""
    egress = HttpEgress((), 8)
    try:
        yield egress
    finally:
        await egress.close()


@asynccontextmanager
async def a_relay_without_a_way_out(broker: Nats, key: bytes) -> AsyncIterator[RelayEgress]:
    async with a_shut_egress() as egress, a_relay(broker.url, key, egress) as relay:
        yield relay


def a_poster(relay: RelayEgress) -> Poster:
    return Poster(relay, VAULT, system_clock, Random(1), POLICY)


def a_request(url: str, body: bytes = BODY, tls: TlsProfile | None = None) -> PostRequest:
    recipient = Recipient(url, {"content-type": "application/json"}, tls)
    return PostRequest(recipient, b"\r\nwebhook-id: m1", body, PATIENCE_SECONDS)


def tickets(bus: NatsBus, outcome: str) -> float:
    labels = {"queue": "postings", "outcome": outcome}
    return bus.metrics.registry.get_sample_value("chartwire_tickets_total", labels) or 0


async def until_counted(bus: NatsBus, outcome: str, count: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while tickets(bus, outcome) < count:  # noqa: ASYNC110  it is counted wherever it happens
            await asyncio.sleep(0.01)


async def test_a_worker_posts_what_the_inside_could_not(broker: Nats, key: bytes) -> None:
    async with (
        Receiver(KEY.webhook_key) as receiver,
        a_relay_without_a_way_out(broker, key) as relay,
        a_worker(broker.url, key),
    ):
        await until_heard(relay)
        receiver.answers.extend([Answer(), Answer(503, b"busy", {"retry-after": "30"})])
        poster, delivery = a_poster(relay), a_delivery(receiver.url)
        good = await poster.attempt(delivery)
        bad = await poster.attempt(delivery)
    assert (good.outcome, good.http_status) == (Outcome.DELIVERED, 200)
    assert (bad.outcome, bad.http_status, bad.answer) == (Outcome.SLOW_DOWN, 503, b"busy")
    assert bad.pause_until is not None
    assert bad.pause_until - bad.started_at >= timedelta(seconds=29)
    assert [each.message_id for each in receiver.requests] == [delivery.event_id] * 2
    assert receiver.requests[0].body == BODY
    receiver.requests[0].verify(KEY.webhook_key)


async def test_the_address_rule_is_the_workers_own(broker: Nats, key: bytes) -> None:
    async with (
        Receiver() as receiver,
        a_relay_without_a_way_out(broker, key) as relay,
        a_worker(broker.url, key, allowed=()),
    ):
        await until_heard(relay)
        result = await a_poster(relay).attempt(a_delivery(receiver.url))
        assert result.outcome is Outcome.FORBIDDEN_ADDRESS
        assert receiver.requests == []


async def test_the_tls_profile_of_an_endpoint_goes_with_its_message(broker: Nats, key: bytes) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    profile = TlsProfile(authority=authority.cert_pem.bytes().decode())
    async with (
        Receiver(ssl_context=context) as receiver,
        a_relay_without_a_way_out(broker, key) as relay,
        a_worker(broker.url, key),
    ):
        await until_heard(relay)
        unknown = await post(relay, a_request(receiver.url))
        known = await post(relay, a_request(receiver.url, tls=profile))
    assert unknown is not None
    assert unknown.failure is Outcome.TLS
    assert known is not None
    assert known.status == 200


async def test_without_a_worker_the_inside_posts(broker: Nats, key: bytes) -> None:
    egress = HttpEgress(LOOPBACK, 8)
    async with Receiver() as receiver, a_relay(broker.url, key, egress) as relay:
        answer = await post(relay, a_request(receiver.url))
        async with a_worker(broker.url, key):
            await until_heard(relay)
        await until_heard(relay, is_heard=False)  # it said so when it left
        again = await post(relay, a_request(receiver.url))
    await egress.close()
    assert answer is not None
    assert again is not None
    assert (answer.status, again.status) == (200, 200)
    assert len(receiver.requests) == 2


async def test_where_workers_alone_may_post_nothing_is_without_them(broker: Nats, key: bytes) -> None:
    async with Receiver() as receiver, a_relay(broker.url, key, None) as relay:
        was_open = relay.is_open
        assert await post(relay, a_request(receiver.url)) is None
        async with a_worker(broker.url, key):
            await until_heard(relay)
            assert (was_open, relay.is_open) == (False, True)
            assert await post(relay, a_request(receiver.url)) is not None
        assert len(receiver.requests) == 1


async def test_a_message_that_the_broker_does_not_take_is_posted_by_who_can(broker: Nats, key: bytes) -> None:
    large = b'"' + b"x" * 1_100_000 + b'"'
    egress = HttpEgress(LOOPBACK, 8)
    async with Receiver() as receiver, a_worker(broker.url, key):
        async with a_relay(broker.url, key, egress) as relay:
            await until_heard(relay)
            answer = await post(relay, a_request(receiver.url, large))
            assert answer is not None
            assert answer.status == 200
        async with a_relay(broker.url, key, None) as relay:
            await until_heard(relay)
            assert await post(relay, a_request(receiver.url, large)) is None
        assert len(receiver.requests) == 1
    await egress.close()


async def test_nothing_of_a_message_can_be_read_on_the_broker(broker: Nats, key: bytes) -> None:
    client = await nats.connect(broker.url)
    seen: list[bytes] = []

    async def see(message: Msg) -> None:
        seen.append(f"{message.subject} {message.headers} ".encode() + message.data)

    await client.subscribe("chartwire.>", cb=see)
    await client.flush()
    async with (
        Receiver() as receiver,
        a_relay_without_a_way_out(broker, key) as relay,
        a_worker(broker.url, key),
    ):
        await until_heard(relay)
        receiver.answers.append(Answer(body=b"the answer is secret too"))
        await post(relay, a_request(receiver.url, b'{"patients":["Jane Doe"]}'))
        await client.flush()
    await client.close()
    kinds = {each.split(b".")[2].split()[0] for each in seen}
    assert kinds == {b"present", b"postings", b"answers"}
    words = (b"Jane", b"patients", b"webhook", b"content-type", b"localhost", b"secret")
    assert [word for word in words if any(word in each for each in seen)] == []


async def test_tickets_that_come_twice_late_or_out_of_order_do_no_harm(broker: Nats, key: bytes) -> None:
    """Whoever may publish on the broker may keep tickets and publish them again, in any order, a day later too."""
    transport, now = Transport(key), system_clock()

    def frame(name: str, age: timedelta) -> bytes:
        request = a_request(receiver.url, b'"%b"' % name.encode())
        return transport.seal_posting(Posting(name, "nobody", now + timedelta(seconds=BEGIN_WITHIN) - age, request))

    async with (
        Receiver() as receiver,
        a_relay_without_a_way_out(broker, key) as relay,
        a_worker(broker.url, key) as outside,
    ):
        await until_heard(relay)
        fresh = {name: frame(name, timedelta()) for name in ("a", "b", "c")}
        stale = frame("d", timedelta(days=1))
        for number, sealed in enumerate([*fresh.values(), stale, *reversed(fresh.values()), stale, b"", bytes(100)]):
            await outside.publish(POSTINGS, WORKERS, f"t{number}", sealed)
        await until_counted(outside, "late", 5)
        await until_counted(outside, "acked", 10)
        assert sorted(each.json for each in receiver.requests) == ["a", "b", "c"]


async def test_a_second_and_a_foreign_answer_change_nothing(broker: Nats, key: bytes) -> None:
    transport = Transport(key)
    async with (
        Receiver() as receiver,
        a_relay_without_a_way_out(broker, key) as relay,
        a_worker(broker.url, key) as outside,
    ):
        await until_heard(relay)
        answers: list[PostAnswer | None] = []
        gate = asyncio.Event()
        receiver.answers.append(Answer(gate=gate))
        relay.send(a_request(receiver.url), lambda answer, _: answers.append(answer))
        await receiver.wait_for(lambda it: len(it.requests) == 1)
        ((posting_id, _),) = relay._waiting.items()
        forged = Transport(bytes(32)).seal_answer(Answered(posting_id, PostAnswer(200), UNTIMED))
        inside = relay._bus
        assert isinstance(inside, NatsBus)
        await outside.publish(ANSWERS, relay._id, "forged", forged)
        for ticket_id, status in (("one", 500), ("two", 200)):
            answered = Answered(posting_id, PostAnswer(status), UNTIMED)
            await outside.publish(ANSWERS, relay._id, ticket_id, transport.seal_answer(answered))
        await until_counted(inside, "late", 1)
        gate.set()
        await until_counted(inside, "late", 2)
        assert [each and each.status for each in answers] == [500]


async def test_an_outage_of_the_broker_while_a_message_is_posted_is_sat_out(tmp_path: Path, key: bytes) -> None:
    async with (
        running_nats(tmp_path / "nats") as server,
        Receiver() as receiver,
        a_relay_without_a_way_out(server, key) as relay,
        a_worker(server.url, key),
    ):
        await until_heard(relay)
        gate = asyncio.Event()
        receiver.answers.append(Answer(gate=gate))
        posting = asyncio.create_task(post(relay, a_request(receiver.url)))
        await receiver.wait_for(lambda it: len(it.requests) == 1)
        await server.stop()
        gate.set()
        await until_heard(relay, is_heard=False)
        await server.start()
        answer = await posting
        assert answer is not None
        assert answer.status == 200
        assert len(receiver.requests) == 1


async def test_a_worker_needs_few_rights_on_the_broker(tmp_path: Path) -> None:
    """Those that `docs/how-to/operate.md` names."""
    key = bytes(range(32))
    tag = Transport(key).tag
    rights = {
        "publish": [
            f"$JS.API.CONSUMER.MSG.NEXT.chartwire-{tag}-postings.workers",
            f"$JS.ACK.chartwire-{tag}-postings.>",
            f"chartwire.{tag}.answers.>",
            f"chartwire.{tag}.present",
        ],
        "subscribe": ["_INBOX.>"],
    }
    users = [
        {"user": "inside", "password": "in"},
        {"user": "worker", "password": "out", "permissions": rights},
    ]
    async with running_nats(tmp_path / "nats", {"authorization": {"users": users}}) as server, Receiver() as receiver:
        inside, outside = (server.url.replace("//", f"//{who}@") for who in ("inside:in", "worker:out"))
        async with (
            a_shut_egress() as egress,
            a_relay(inside, key, egress) as relay,
            a_worker(outside, key) as bus,
        ):
            await until_heard(relay)
            answer = await post(relay, a_request(receiver.url))
            await until_counted(bus, "acked", 1)
    assert answer is not None
    assert answer.status == 200


@asynccontextmanager
async def dispatching(engine: Engine, relay: RelayEgress) -> AsyncIterator[None]:
    poster = Poster(relay, VAULT, engine.clock, Random(1), Policy.of(SETTINGS))
    dispatcher = Dispatcher(engine.database, VAULT, poster, engine.clock, SETTINGS, engine.metrics)
    engine.database.dispatcher = dispatcher
    running = asyncio.create_task(dispatcher.run())
    try:
        yield
    finally:
        await dispatcher.drain(5)
        await running


async def test_the_limit_of_an_endpoint_holds_whoever_posts(broker: Nats, key: bytes, tmp_path: Path) -> None:
    async with (
        Receiver() as receiver,
        a_relay_without_a_way_out(broker, key) as relay,
        a_worker(broker.url, key),
        a_worker(broker.url, key),
        open_engine(tmp_path) as engine,
    ):
        await until_heard(relay)
        gate = asyncio.Event()
        async with dispatching(engine, relay):
            account_id = await engine.new_account(receiver.url)
            await receiver.wait_for(lambda it: bool(it.pings))
            receiver.answers.extend([Answer(gate=gate)] * 20)
            await engine.append(account_id, 20)
            await receiver.wait_for(lambda it: len(it.messages) == SETTINGS.webhook_endpoint_concurrency)
            await engine.append(account_id)  # a cycle more, and one that finds it full
            await engine.until("SELECT count(*) FROM delivery WHERE lease IS NOT NULL", 4)
            assert len(receiver.messages) == SETTINGS.webhook_endpoint_concurrency
            gate.set()
            await engine.until_delivered(21)
        assert len({each.message_id for each in receiver.messages}) == len(receiver.messages) == 21


async def test_what_is_due_waits_for_workers_and_counts_no_attempt(broker: Nats, key: bytes, tmp_path: Path) -> None:
    async with (
        Receiver() as receiver,
        a_relay(broker.url, key, None) as relay,
        open_engine(tmp_path) as engine,
        dispatching(engine, relay),
    ):
        account_id = await engine.new_account(receiver.url)
        await engine.append(account_id, 3)
        for _ in range(2):  # the second is a cycle that began after they were there
            engine.database.written.clear()
            await engine.database.written.wait()
        waiting = "SELECT count(*) FROM delivery WHERE state = 'waiting' AND attempts = 0 AND lease IS NULL"
        assert (await engine.rows(waiting))[0][0] == 4
        async with a_worker(broker.url, key):
            await engine.until_delivered(3)
        assert len(receiver.messages) == 3
