"""Workers that reach the broker alone, and a broker that comes and goes, under load: nothing lost or settled twice."""

import asyncio
import base64
import os
import random
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.cluster import PATIENCE_SECONDS, SETTLED_TWICE, Cluster, running_cluster
from tests.support.fault_proxy import Line
from tests.support.load import arrived
from tests.support.nats import Nats, running_nats
from tests.support.process import ChartwireProcess
from tests.support.profile import settings_of
from tests.support.receiver import Answer

from chartwire.clock import system_clock
from chartwire.settings import Settings
from chartwire.store.opening import make_keys
from chartwire.store.vault import Purpose

WRITERS = 3
DELIVERED = "SELECT count(*) FROM attempt WHERE outcome = 'delivered' AND delivery_seq > 1"  # the first is the ping

pytestmark = [pytest.mark.cluster, pytest.mark.chaos, pytest.mark.timeout(900)]


@dataclass
class Zones:
    """A process with the database, from which nothing may be posted, workers that have none, a broker between.

    `lines` lead to the broker: that of the process inside, and that of the workers.
    """

    cluster: Cluster
    broker: Nats
    inside: Line
    outside: Line

    @property
    def processes(self) -> Mapping[str, ChartwireProcess]:
        return self.cluster.processes

    async def until_settled(self) -> None:
        """Wait until nothing is left to be posted, and see what came of it."""
        load = self.cluster.load
        await self.cluster.receiver.wait_for(lambda it: set(load.acknowledged) <= arrived(it), PATIENCE_SECONDS)
        await self.cluster.until_settled()
        assert await asyncio.to_thread(self.cluster.value, SETTLED_TWICE) == 0
        assert self.cluster.receiver.refused == 0


@asynccontextmanager
async def two_zones(folder: Path, workers: int) -> AsyncIterator[Zones]:
    settings = Settings(data_dir=folder, **settings_of(folder))  # type: ignore[arg-type]
    key = folder / "transport.key"
    _, vault = make_keys(settings, system_clock())
    key.write_bytes(base64.b64encode(vault.eldest_key(Purpose.TRANSPORT)))
    key.chmod(0o600)
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(running_nats(folder / "nats"))
        inside, outside = [await stack.enter_async_context(Line(broker.port)) for _ in range(2)]
        worker = {
            "CHARTWIRE_ROLE": "deliver",
            "CHARTWIRE_DATABASE_URL": "",
            "CHARTWIRE_NATS_URL": f"nats://127.0.0.1:{outside.port}",
            "CHARTWIRE_TRANSPORT_KEY_FILE": str(key),
        }
        api = {
            "CHARTWIRE_NATS_URL": f"nats://127.0.0.1:{inside.port}",
            "CHARTWIRE_WEBHOOK_WORKERS_ONLY": "true",
        }
        names = [f"worker-{number}" for number in range(workers)]
        processes = {**dict.fromkeys(names, worker), "api": api}
        yield Zones(await stack.enter_async_context(running_cluster(folder, processes, {})), broker, inside, outside)


async def kill_worker(zones: Zones) -> None:
    worker = zones.processes["worker-0"]
    await worker.kill()
    await asyncio.to_thread(zones.cluster.end_leases)
    await worker.start()


async def kill_inside(zones: Zones) -> None:
    zones.cluster.load.up.clear()
    await zones.processes["api"].kill()
    await asyncio.to_thread(zones.cluster.end_leases)
    await zones.processes["api"].start()


async def restart_broker(zones: Zones) -> None:
    await zones.broker.stop(signal.SIGKILL)
    for name in zones.processes:
        await zones.cluster.until_ready(name, is_ready=False)
    assert (await zones.cluster.readiness("api"))["status"] == "degraded"
    assert (await zones.cluster.readiness("worker-1"))["missing"].keys() == {"broker"}
    await zones.broker.start()
    for name in zones.processes:
        await zones.cluster.until_ready(name)


async def cut_inside(zones: Zones) -> None:
    zones.inside.cut()
    await zones.cluster.until_ready("api", is_ready=False)
    zones.inside.mend()
    await zones.cluster.until_ready("api")


async def cut_outside(zones: Zones) -> None:
    zones.outside.cut()
    await zones.cluster.until_ready("worker-0", is_ready=False)
    zones.outside.mend()
    await zones.cluster.until_ready("worker-0")


async def test_nothing_is_lost_and_nothing_settled_twice_whatever_fails(tmp_path: Path) -> None:
    async with two_zones(tmp_path / "data", workers=2) as zones:
        load = zones.cluster.load
        writers = [asyncio.create_task(load.write()) for _ in range(WRITERS)]
        failures = [kill_worker, kill_inside, restart_broker, cut_inside, cut_outside]
        random.shuffle(failures)
        for fail in failures:
            load.up.set()
            await load.until(len(load.acknowledged) + random.randrange(5, 40))
            await fail(zones)
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        await zones.until_settled()


async def test_a_worker_that_is_woken_after_its_lease_settles_nothing(tmp_path: Path) -> None:
    async with two_zones(tmp_path / "data", workers=1) as zones, AsyncExitStack() as stack:
        cluster, sleeper = zones.cluster, zones.processes["worker-0"]
        gate = asyncio.Event()
        cluster.receiver.answers.append(Answer(gate=gate))
        await cluster.app.call("POST", cluster.load.test_path, {"type": "medical.document-download"})
        await cluster.receiver.wait_for(lambda it: bool(it.messages))
        os.kill(sleeper.pid, signal.SIGSTOP)
        try:
            await asyncio.to_thread(cluster.end_leases)
            await stack.enter_async_context(ChartwireProcess(cluster.folder, sleeper.env))
            # The broker may hand it to the sleeper first, and to the other only when that has not answered for long.
            await cluster.receiver.wait_for(lambda it: len(it.messages) == 2, PATIENCE_SECONDS)
            await zones.until_settled()
        finally:
            os.kill(sleeper.pid, signal.SIGCONT)
        gate.set()
        await zones.processes["api"].logged("a delivery was settled by another")
        assert await asyncio.to_thread(cluster.value, DELIVERED) == 1
        assert len({message.message_id for message in cluster.receiver.messages}) == 1
