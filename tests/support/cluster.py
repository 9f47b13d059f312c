"""Several processes of one installation under load."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy import Connection, text
from tests.support.journey import Journey, journey
from tests.support.load import Load
from tests.support.process import ChartwireProcess
from tests.support.profile import database_url
from tests.support.receiver import PATIENTLY, Receiver

from chartwire.clock import system_clock
from chartwire.store import deliveries, queries
from chartwire.store.profile import run_once

ENV = {
    **PATIENTLY,
    "CHARTWIRE_NETWORKS": json.dumps([{"kind": "sandbox", "spread_seconds": 2}]),
    "CHARTWIRE_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
    "CHARTWIRE_REQUESTS_PER_SECOND": "0",
}

PATIENCE_SECONDS = 300
"""For what must come. A process that is killed, or loses its database, just as that commits a claim holds a lease that
nobody ends early: of a step, a minute or two, and then of a message, two more."""

SETTLED_TWICE = """
    SELECT count(*) FROM (
        SELECT delivery_seq FROM attempt WHERE outcome = 'delivered' GROUP BY delivery_seq HAVING count(*) > 1
    ) AS twice"""
WAITING = "SELECT count(*) FROM delivery WHERE state = 'waiting'"


@dataclass
class Cluster:
    """Processes of one installation by name, a receiver, and an app."""

    folder: Path
    processes: Mapping[str, ChartwireProcess]
    receiver: Receiver
    app: Journey
    load: Load

    async def readiness(self, name: str) -> Any:
        """What a process says of itself."""
        async with aiohttp.request("GET", f"{self.processes[name].base_url}/readyz") as answer:
            return await answer.json()

    async def until_ready(self, name: str, *, is_ready: bool = True) -> None:
        """Wait until a process finds that it has all that it stands on, or that it has lost something."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while ((await self.readiness(name))["status"] == "OK") is not is_ready:  # noqa: ASYNC110  another process
                await asyncio.sleep(0.05)

    async def until_settled(self) -> None:
        """Wait until nothing is left to be posted, or to be written down of what was answered."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await asyncio.to_thread(self.value, WAITING):  # noqa: ASYNC110  other processes do it
                await asyncio.sleep(0.05)

    def end_leases(self) -> None:
        """As if so much time had passed that every lease has run out, of the dead and of the living."""

        def unit(connection: Connection) -> None:
            deliveries.release_leases(connection, system_clock())
            queries.release_leases(connection, system_clock())

        run_once(database_url(self.folder), unit)

    def value(self, sql: str) -> int:
        """One number from the database."""
        (value,) = self.values(sql)
        return int(value)

    def values(self, sql: str) -> set[Any]:
        """The first column of an answer of the database."""
        return run_once(database_url(self.folder), lambda it: set(it.execute(text(sql)).scalars()), read_only=True)


@asynccontextmanager
async def running_cluster(
    folder: Path, processes: Mapping[str, Mapping[str, str]], env: Mapping[str, str]
) -> AsyncIterator[Cluster]:
    """A cluster with an account whose webhook is a receiver; the process named `api` is the one that is asked.

    Each of the processes has settings of its own besides those in `env`, as environment variables.
    """
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(Receiver())
        made = {name: ChartwireProcess(folder, {**ENV, **env, **own}) for name, own in processes.items()}
        for process in made.values():  # not at once: the machine may have few cores
            await stack.enter_async_context(process)
        api = made["api"]
        _, api_key = await api.create_account("Clinic")
        app = await stack.enter_async_context(journey(api.base_url, api_key))
        receiver.webhook_key = await app.save_webhook(receiver.url)
        (endpoint,) = (await app.call("GET", "/v1/webhooks/endpoints"))["endpoints"]
        await receiver.wait_for(lambda it: bool(it.pings))
        yield Cluster(folder, made, receiver, app, Load(api.base_url, api_key, endpoint["id"]))
