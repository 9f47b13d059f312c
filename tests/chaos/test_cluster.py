"""Several processes on one PostgreSQL and one bucket, killed or paused under load: nothing lost or settled twice."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support import cluster
from tests.support.cluster import PATIENCE_SECONDS, SETTLED_TWICE, Cluster
from tests.support.customer import JANE
from tests.support.engine import announced, closed
from tests.support.fault_proxy import Line
from tests.support.load import arrived
from tests.support.postgres import shared_server
from tests.support.profile import database_url
from tests.support.receiver import Answer
from tests.support.seaweed import ObjectStore, running_object_store

WRITERS = 3
DOCUMENTS = 7
pytestmark = [
    *(pytest.mark.cluster, pytest.mark.chaos, pytest.mark.timeout(900)),
    pytest.mark.asyncio(loop_scope="module"),
]


@asynccontextmanager
async def running_cluster(folder: Path, roles: Mapping[str, str], blobs: ObjectStore) -> AsyncIterator[Cluster]:
    """A process for each role, on a bucket."""
    env = {"CHARTWIRE_BLOB_URL": blobs.url(folder.parent.name), **blobs.environment()}
    processes = {name: {"CHARTWIRE_ROLE": role} for name, role in roles.items()}
    async with cluster.running_cluster(folder, processes, env) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def blobs(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ObjectStore]:
    async with running_object_store(tmp_path_factory.mktemp("objects")) as store:
        yield store


async def test_nothing_is_lost_and_nothing_settled_twice_whoever_is_killed(tmp_path: Path, blobs: ObjectStore) -> None:
    roles = {
        "api": "api",
        "ingest-1": "ingest",
        "ingest-2": "ingest",
        "deliver-1": "deliver",
        "deliver-2": "deliver",
    }
    async with running_cluster(tmp_path / "data", roles, blobs) as cluster:
        facility_id = await cluster.app.add_facility()
        request_id = await cluster.app.start_query(await cluster.app.add_patient(facility_id, JANE), facility_id)
        load = cluster.load
        writers = [asyncio.create_task(load.write()) for _ in range(WRITERS)]
        victims = ["deliver-1", "ingest-1", "deliver-2", "api", "ingest-2"]
        random.shuffle(victims)
        for victim in victims:
            load.up.set()
            await load.until(len(load.acknowledged) + random.randrange(5, 40))
            if victim == "api":
                load.up.clear()
            await cluster.processes[victim].kill()
            await asyncio.to_thread(cluster.end_leases)
            await cluster.processes[victim].start()
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        await cluster.receiver.wait_for(lambda it: set(load.acknowledged) <= arrived(it), PATIENCE_SECONDS)
        await cluster.receiver.wait_for(lambda it: request_id in closed(it.messages), PATIENCE_SECONDS)
        await cluster.until_settled()  # messages overtake each other: those of the documents may come after that
        # By the request: a sample whose acknowledgement was lost with the API that was killed arrives too.
        of_query = [each for each in cluster.receiver.messages if each.json["meta"].get("requestId") == request_id]
        assert len(announced(of_query)) == len(set(announced(of_query))) == DOCUMENTS
        assert cluster.receiver.refused == 0
        assert await asyncio.to_thread(cluster.value, SETTLED_TWICE) == 0
        assert await asyncio.to_thread(cluster.value, "SELECT count(*) FROM document") == DOCUMENTS


async def test_a_worker_that_is_woken_after_its_lease_settles_nothing(tmp_path: Path, blobs: ObjectStore) -> None:
    roles = {"api": "api", "sleeper": "deliver", "other": "deliver"}
    async with running_cluster(tmp_path / "data", roles, blobs) as cluster:
        sleeper, other = cluster.processes["sleeper"], cluster.processes["other"]
        await other.stop()
        gate = asyncio.Event()
        cluster.receiver.answers.append(Answer(gate=gate))
        message = await cluster.app.call("POST", cluster.load.test_path, {"type": "medical.document-download"})
        await cluster.receiver.wait_for(lambda it: bool(it.messages))
        os.kill(sleeper.pid, signal.SIGSTOP)
        await asyncio.to_thread(cluster.end_leases)
        await other.start()
        await cluster.receiver.wait_for(lambda it: len(it.messages) == 2)
        await cluster.until_settled()
        delivered = "SELECT count(*) FROM attempt WHERE outcome = 'delivered' AND delivery_seq > 1"
        assert await asyncio.to_thread(cluster.value, delivered) == 1
        os.kill(sleeper.pid, signal.SIGCONT)
        gate.set()
        await sleeper.logged("a delivery was settled by another")
        assert await asyncio.to_thread(cluster.value, delivered) == 1
        assert arrived(cluster.receiver) == {message["messageId"]}


async def test_a_rolling_restart_under_load_loses_and_repeats_nothing(tmp_path: Path, blobs: ObjectStore) -> None:
    roles = {"api": "api", "deliver-1": "deliver", "deliver-2": "deliver"}
    async with running_cluster(tmp_path / "data", roles, blobs) as cluster:
        load = cluster.load
        writers = [asyncio.create_task(load.write()) for _ in range(WRITERS)]
        load.up.set()
        for name in ("deliver-1", "deliver-2"):
            await load.until(len(load.acknowledged) + 20)
            await cluster.processes[name].restart()
        await load.until(len(load.acknowledged) + 20)
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        await cluster.receiver.wait_for(lambda it: set(load.acknowledged) <= arrived(it), PATIENCE_SECONDS)
        await cluster.until_settled()
        ids = [message.message_id for message in cluster.receiver.messages]
        assert len(ids) == len(set(ids))


@dataclass
class Outages:
    """A cluster whose lines to its database and to its object store can be cut."""

    cluster: Cluster
    blobs: ObjectStore
    to_database: Line
    to_blobs: Line

    async def restart_database(self) -> None:
        await asyncio.to_thread(shared_server().stop)
        await self.cluster.until_ready("api", is_ready=False)
        shared_server().start()  # here: it ends with the thread that started it

    async def cut_database(self) -> None:
        self.to_database.cut()
        await self.cluster.until_ready("api", is_ready=False)
        self.to_database.mend()

    async def restart_blobs(self) -> None:
        await self.blobs.kill()
        await self.cluster.until_ready("ingest", is_ready=False)
        await self.blobs.start()

    async def cut_blobs(self) -> None:
        self.to_blobs.cut()
        await self.cluster.until_ready("ingest", is_ready=False)
        self.to_blobs.mend()


@asynccontextmanager
async def cluster_on_lines(folder: Path, blobs: ObjectStore) -> AsyncIterator[Outages]:
    server = shared_server()
    async with Line(server.port) as to_database, Line(blobs.port) as to_blobs:
        env = {
            **blobs.environment(),
            "CHARTWIRE_DOCUMENT_ATTEMPTS": "20",  # how long the outages last is the machine's to say
            "CHARTWIRE_BLOB_URL": blobs.url(folder.parent.name, to_blobs.port),
            "CHARTWIRE_DATABASE_URL": database_url(folder).replace(str(server.port), str(to_database.port)),
        }
        processes = {role: {"CHARTWIRE_ROLE": role} for role in ("api", "ingest", "deliver")}
        async with cluster.running_cluster(folder, processes, env) as running:
            yield Outages(running, blobs, to_database, to_blobs)


async def test_outages_of_database_and_object_store_lose_nothing(tmp_path: Path, blobs: ObjectStore) -> None:
    async with cluster_on_lines(tmp_path / "data", blobs) as outages:
        running, load = outages.cluster, outages.cluster.load
        writers = [asyncio.create_task(load.write()) for _ in range(WRITERS)]
        facility_id = await running.app.add_facility()
        ways = [outages.restart_database, outages.cut_database, outages.restart_blobs, outages.cut_blobs]
        random.shuffle(ways)
        queries = []
        for name, fail in zip(("Jane", "Chris", "Ollie", "Andreas"), ways, strict=True):
            patient_id = await running.app.add_patient(facility_id, replace(JANE, first_name=name))
            queries.append(await running.app.start_query(patient_id, facility_id))
            load.up.set()
            await load.until(len(load.acknowledged) + random.randrange(5, 40))
            await fail()
            for process in running.processes:
                await running.until_ready(process)
            load.up.clear()
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        receiver = running.receiver
        await receiver.wait_for(lambda it: set(load.acknowledged) <= arrived(it), PATIENCE_SECONDS)
        await receiver.wait_for(lambda it: set(queries) <= closed(it.messages), PATIENCE_SECONDS)
        await running.until_settled()
        stored = await asyncio.to_thread(running.values, "SELECT id FROM document")
        steps = "SELECT state || ' ' || coalesce(issue, '') || ' ' || count(*) FROM intake_step GROUP BY state, issue"
        assert len(stored) == len(queries) * DOCUMENTS, await asyncio.to_thread(running.values, steps)
        assert stored <= set(announced(receiver.messages))  # beside those of samples, which are nobody's
        assert await asyncio.to_thread(running.value, SETTLED_TWICE) == 0
