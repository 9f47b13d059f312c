"""What happens in `make demo-cluster`, in order."""

import asyncio
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from rich.console import Console
from tests.support.engine import closed, patients_in
from tests.support.receiver import Receiver

from scripts.cluster.load import App, CallError
from scripts.cluster.reckoning import Facts, reckon
from scripts.cluster.show import Show
from scripts.cluster.topology import BROKER, ROLES, Cluster, Servers, running_cluster, running_servers

_DEADLINE_SECONDS = 600
_PATIENCE_SECONDS = 180
_WRITERS = 4
_PAUSE_SECONDS = 0.04
_LOOK_SECONDS = 0.25
_STILL_LOOKS = 6
_DEAD_SECONDS = 2.0
"""How long a killed process stays away."""

_EXPECTED = (AssertionError, CallError, aiohttp.ClientError)
"""What parts of the tests and of the load raise if something does not start, or does not answer as it should."""

SETTINGS = {
    "CHARTWIRE_NETWORKS": json.dumps([{"kind": "sandbox", "spread_seconds": 8}]),
    "CHARTWIRE_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
    "CHARTWIRE_PATIENT_WRITES_PER_MINUTE": "0",
    "CHARTWIRE_DOCUMENT_QUERIES_PER_MINUTE": "0",
    "CHARTWIRE_REQUESTS_PER_SECOND": "0",
}
"""One app puts the load of many on it, and listens on this machine."""

KILLS: Sequence[Sequence[str]] = (
    ("deliver-2",),
    ("ingest-1",),
    ("api-1",),
    ("deliver-1", "deliver-3"),
    (BROKER,),
    ("ingest-2", "api-2"),
)
"""Who is killed together, one group after the other."""

_UNSETTLED = "SELECT count(*) FROM delivery WHERE state <> 'delivered'"
_SETTLED_TWICE = """
    SELECT count(*) FROM (
        SELECT delivery_seq FROM attempt WHERE outcome = 'delivered' GROUP BY delivery_seq HAVING count(*) > 1
    ) AS twice"""
_UNDER_WAY = """
    SELECT coalesce(lease, '') FROM delivery WHERE state = 'waiting'
    UNION ALL SELECT coalesce(lease, '') FROM network_step WHERE state = 'waiting'
    UNION ALL SELECT coalesce(lease, '') FROM intake_step WHERE state = 'waiting'
    UNION ALL SELECT '' FROM announcement
    ORDER BY 1"""
"""The lease of each thing that waits, or nothing. One statement, for one moment: of two, the second would not see what
was free for the first and has been taken since."""


@dataclass(slots=True)
class _Stage:
    """Who plays."""

    show: Show
    cluster: Cluster
    receiver: Receiver
    app: App
    kills: list[float] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    """Leases that were held when somebody was killed: those of the dead are among them."""

    def counts(self) -> str:
        """How far it is."""
        asked, came = self.app.asked, self.receiver.messages
        return (
            f"acknowledged {len(asked.acknowledged)}   queries {len(asked.queries)}   "
            f"received {len(came)}   documents {len(set(self.documents()))}"
        )

    def documents(self) -> list[str]:
        """Ids of the documents that messages told of, but for those of samples; a repeated message counts once."""
        once = {message.message_id: message for message in self.receiver.messages}
        queries = set(self.app.asked.queries.values())
        return [
            document["id"]
            for message in once.values()
            for patient in patients_in(message)
            if patient["requestId"] in queries
            for document in patient["documents"]
        ]


def end_gently() -> None:
    """Told to end, or left by its terminal, this process stops what it started, as it does upon Ctrl-C."""
    for each in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(each, os.kill, os.getpid(), signal.SIGINT)


async def run_demo(console: Console, patients: int, seconds: float) -> int:
    """Show a load of so many seconds surviving kills; returns the exit status: 0 if everything arrived, else 1."""
    end_gently()
    show = Show(console)
    folder = Path(tempfile.mkdtemp(prefix="chartwire-cluster-"))
    try:
        async with asyncio.timeout(_DEADLINE_SECONDS):
            return await _tell(show, folder, patients, seconds)
    except* TimeoutError:
        show.end(False, f"it was not over after {_DEADLINE_SECONDS} seconds")
    except* _EXPECTED as failed:
        show.end(False, str(failed.exceptions[0]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1


async def _tell(show: Show, folder: Path, patients: int, seconds: float) -> int:
    show.title("A Chartwire of seven processes, some of which are killed")
    with show.live():
        facts = await _play(show, folder, patients, seconds)
    findings = reckon(facts)
    show.say("everything is stopped; the reckoning:")
    show.verdict(findings)
    good = all(finding.good for finding in findings)
    killed = sum(map(len, KILLS))
    show.end(
        good, f"{killed} processes were killed (kill -9), and {'everything' if good else 'not everything'} arrived"
    )
    return 0 if good else 1


async def _play(show: Show, folder: Path, patients: int, seconds: float) -> Facts:
    show.say("starting PostgreSQL, NATS and SeaweedFS")
    async with running_servers(folder) as servers, _set_stage(show, folder, servers) as stage:
        registered = await stage.app.add_patients(patients)
        show.say(f"{patients} invented patients registered; the load begins, {seconds:.0f} seconds of it")
        show.counts = stage.counts
        await _put_under_load(stage, registered, seconds)
        await _settle(stage)
        return await _gather(stage)


@asynccontextmanager
async def _set_stage(show: Show, folder: Path, servers: Servers) -> AsyncIterator[_Stage]:
    """Start the processes, make an account, and have its webhook saved and pinged."""
    show.say(f"starting {', '.join(ROLES)}")
    show.process(BROKER, "up")
    async with Receiver() as receiver, running_cluster(folder, servers, SETTINGS, show.process) as cluster:
        show.say("all are ready")
        _, api_key = await cluster.processes["api-1"].create_account("Demo Clinic")
        async with aiohttp.ClientSession(headers={"x-api-key": api_key}) as session:
            app = App(session, cluster.apis)
            receiver.webhook_key = await app.set_up(receiver.url)
            await receiver.wait_for(lambda it: bool(it.pings), _PATIENCE_SECONDS)
            yield _Stage(show, cluster, receiver, app)


async def _put_under_load(stage: _Stage, patients: Sequence[str], seconds: float) -> None:
    """Ask and send as long as processes are killed and started again."""
    async with asyncio.TaskGroup() as group:
        writers = [group.create_task(stage.app.send_samples(_PAUSE_SECONDS)) for _ in range(_WRITERS)]
        queries = group.create_task(stage.app.ask_for_documents(patients, seconds * 0.8))
        returns: list[asyncio.Task[None]] = []
        for names in KILLS:
            await asyncio.sleep(seconds / len(KILLS))
            await asyncio.gather(*returns[:-1])  # however slow the machine is: some of each role are always there
            await _kill(stage, names)
            returns.append(group.create_task(_bring_back(stage, names)))
        await asyncio.gather(queries, *returns)
        for writer in writers:
            writer.cancel()
    stage.show.say(f"the load ends: {stage.counts()}")


async def _kill(stage: _Stage, names: Sequence[str]) -> None:
    """Kill -9 processes at once. While the leases are read, the receiver reads what the dead had sent it."""
    for name in names:
        await stage.cluster.kill(name)
        stage.show.process(name, "killed", f"killed (kill -9)   {stage.counts()}")
    if ROLES.keys() & set(names):
        stage.held.update(filter(None, await stage.cluster.strings(_UNDER_WAY)))
    if any(ROLES.get(name) == "deliver" for name in names):
        stage.kills.append(asyncio.get_running_loop().time())


async def _bring_back(stage: _Stage, names: Sequence[str]) -> None:
    """Start again what was killed, a little later."""
    await asyncio.sleep(_DEAD_SECONDS)
    await stage.cluster.start(*names)
    for name in names:
        stage.show.say(f"{name} is back")


async def _settle(stage: _Stage) -> None:
    """Wait for what the living do, then hand over what the dead held, and wait for that too."""
    held = await _until_only_leases_are_left(stage)
    if held:
        stage.show.say(
            f"held by the killed: {len(held)}; others take that over when its lease ends, within two minutes, which "
            "the demo does not wait for: it ends the leases now"
        )
        await stage.cluster.end_leases()
        await _until_only_leases_are_left(stage)
    stage.show.say(f"nothing is under way any more: {stage.counts()}")


async def _until_only_leases_are_left(stage: _Stage) -> list[str]:
    """Leases that nobody gives back, once nothing else waits; what is there is told after three minutes.

    One that was taken after the last kill is of the living, however long it lasts.
    """
    under_way: list[str] = []
    still = 0
    give_up_at = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
    while still < (_STILL_LOOKS if under_way else 1) and asyncio.get_running_loop().time() < give_up_at:
        before, under_way = under_way, await stage.cluster.strings(_UNDER_WAY)
        still = still + 1 if under_way == before and stage.held.issuperset(under_way) else 0
        await asyncio.sleep(_LOOK_SECONDS)
    return under_way


async def _gather(stage: _Stage) -> Facts:
    app, receiver, cluster = stage.app, stage.receiver, stage.cluster
    downloads = {query: await app.documents_of(patient) for patient, query in app.asked.queries.items()}
    return Facts(
        acknowledged=app.asked.acknowledged,
        unanswered=app.asked.unanswered,
        arrivals=[(request.message_id, request.at) for request in receiver.requests],
        forged=receiver.refused,
        events=await cluster.strings("SELECT id FROM event"),
        promised_documents={query: download["total"] for query, download in downloads.items()},
        announced_documents=stage.documents(),
        closed=frozenset(closed(receiver.messages)),
        waiting=await cluster.number(_UNSETTLED),
        settled_twice=await cluster.number(_SETTLED_TWICE),
        kills=stage.kills,
    )
