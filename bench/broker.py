"""Tickets per second that a broker keeps and hands out, and what one costs whom."""

import asyncio
import os
import tempfile
import time
from pathlib import Path

import psutil
from tests.support.nats import running_nats

from bench.turns import Turn, keep_busy, spending, use_all_cores
from chartwire.delivery.bus import Broker, Queue, Ticket
from chartwire.delivery.nats.bus import NatsBus
from chartwire.telemetry import Metrics

_LANE = "bench"
_TICKET = os.urandom(3 * 1024)  # a sealed posting of 2 KiB
_AT_ONCE = 64


async def carry(count: int) -> Turn:
    """Publish `count` tickets to a stream on disk, each acknowledged, and take each, by one process."""
    use_all_cores()
    queue = Queue("tickets", ack_wait=30, max_age=600, lanes=(_LANE,))
    left, done = count, asyncio.Event()

    async def take(_: Ticket) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    with tempfile.TemporaryDirectory(prefix="chartwire-bench-") as folder:
        async with running_nats(Path(folder)) as server:
            bus = NatsBus(Broker([server.url]), "bench", [queue], Metrics())
            consumer = bus.consume(queue, _LANE, _AT_ONCE, take)
            await bus.start()
            taking = asyncio.create_task(consumer.run())
            broker = psutil.Process(server.pid)
            before, started = sum(broker.cpu_times()[:2]), time.perf_counter()

            async def publish(worker: int) -> None:
                for number in range(worker, count, _AT_ONCE):
                    await bus.publish(queue, _LANE, str(number), _TICKET)

            with spending() as spent:
                await keep_busy(_AT_ONCE, publish)
                await done.wait()
            seconds, cost = time.perf_counter() - started, sum(broker.cpu_times()[:2]) - before
            await consumer.drain(1)
            await taking
            await bus.close()
    return Turn(count / seconds, spent.cpu / count * 1e6, shares={"broker": cost / count * 1e6})
