"""Those who have the database and those who post, on a real broker, in the test's own event loop."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tests.support.patience import PATIENCE_SECONDS
from tests.support.posting import LOOPBACK

from chartwire.addresses import IPNetwork
from chartwire.clock import Clock, system_clock
from chartwire.delivery.bus import Broker
from chartwire.delivery.egress import PostAnswer, PostRequest
from chartwire.delivery.http.client import HttpEgress
from chartwire.delivery.nats.bus import NatsBus
from chartwire.delivery.relay import RelayEgress
from chartwire.delivery.transport import ANSWERS, POSTINGS, Transport
from chartwire.delivery.worker import Worker
from chartwire.telemetry import Metrics

_POLL_SECONDS = 0.01


@asynccontextmanager
async def a_bus(url: str, transport: Transport, *, is_inside: bool) -> AsyncIterator[NatsBus]:
    """The bus of an installation, which is up: it starts without a broker that is slow to answer."""
    queues = (POSTINGS, ANSWERS) if is_inside else ()
    bus = await NatsBus(Broker([url]), transport.tag, queues, Metrics()).start()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await bus.line()
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def a_relay(
    url: str, key: bytes, directly: HttpEgress | None, clock: Clock = system_clock
) -> AsyncIterator[RelayEgress]:
    """What a process with the database posts through."""
    transport = Transport(key)
    async with a_bus(url, transport, is_inside=True) as bus:
        relay = RelayEgress(bus, transport, directly, clock, 64, bus.metrics)
        running = asyncio.create_task(relay.run())
        try:
            yield relay
        finally:
            await relay.drain()
            await running


@asynccontextmanager
async def a_worker(
    url: str, key: bytes, clock: Clock = system_clock, allowed: Sequence[IPNetwork] = LOOPBACK
) -> AsyncIterator[NatsBus]:
    """A worker outside; gives its bus."""
    transport = Transport(key)
    egress = HttpEgress(allowed, 64)
    async with a_bus(url, transport, is_inside=False) as bus:
        worker = Worker(bus, transport, egress, clock, 64, bus.metrics)
        running = asyncio.create_task(worker.run())
        try:
            yield bus
        finally:
            await worker.drain(5)
            await running
            await egress.close()


async def post(relay: RelayEgress, request: PostRequest) -> PostAnswer | None:
    """Hand over a request; gives how it ended."""
    future: asyncio.Future[PostAnswer | None] = asyncio.get_running_loop().create_future()
    relay.send(request, lambda answer, _: future.set_result(answer))
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await future


async def until_heard(relay: RelayEgress, *, is_heard: bool = True) -> None:
    """Wait until the relay knows of a worker, or of none."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while relay._is_listened_to() is not is_heard:  # noqa: ASYNC110  the word comes by the broker
            await asyncio.sleep(_POLL_SECONDS)
