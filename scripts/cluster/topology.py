"""What runs: PostgreSQL, NATS, SeaweedFS, and the program itself in its roles, a process each."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, text
from tests.support.nats import Nats, running_nats
from tests.support.postgres import PostgresServer
from tests.support.process import ChartwireProcess
from tests.support.seaweed import ObjectStore, running_object_store

from chartwire.clock import system_clock
from chartwire.store import deliveries, queries
from chartwire.store.master_key import ensure_key_file
from chartwire.store.profile import run_once

T = TypeVar("T")

DATABASE = "chartwire"
BROKER = "nats"
ROLES: Mapping[str, str] = {
    "api-1": "api",
    "api-2": "api",
    "ingest-1": "ingest",
    "ingest-2": "ingest",
    "deliver-1": "deliver",
    "deliver-2": "deliver",
    "deliver-3": "deliver",
}
"""The processes by name, and what each does."""


@dataclass(frozen=True, slots=True)
class Servers:
    """What an installation stands on."""

    postgres: PostgresServer
    broker: Nats
    objects: ObjectStore
    key: Path

    @property
    def database_url(self) -> str:
        """The installation's database."""
        return self.postgres.url(DATABASE)

    def settings(self) -> dict[str, str]:
        """What an installation on them needs to be told."""
        return {
            "CHARTWIRE_DATABASE_URL": self.database_url,
            "CHARTWIRE_NATS_URL": self.broker.url,
            "CHARTWIRE_BLOB_URL": self.objects.url("clinic"),
            "CHARTWIRE_MASTER_KEY_FILE": str(self.key),
            "CHARTWIRE_LOG_FORMAT": "json",
            **self.objects.environment(),
        }


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running installation: its processes by name, and where its state is."""

    processes: Mapping[str, ChartwireProcess]
    servers: Servers
    tell: Callable[[str, str], None]
    """Is told the name of a process, and whether it is `starting` or `up`."""

    @property
    def apis(self) -> list[str]:
        """Where requests are answered: what a load balancer would choose from."""
        return [process.base_url for name, process in self.processes.items() if ROLES[name] == "api"]

    async def kill(self, name: str) -> None:
        """Kill -9: a process by its name, or the broker."""
        await (self.servers.broker.stop(signal.SIGKILL) if name == BROKER else self.processes[name].kill())

    async def start(self, *names: str) -> None:
        """Start processes, no more of them at once than there are cores: a start is all work."""
        cores = asyncio.Semaphore(os.cpu_count() or 1)

        async def start(name: str) -> None:
            async with cores:
                self.tell(name, "starting")
                await (self.servers.broker if name == BROKER else self.processes[name]).start()
                self.tell(name, "up")

        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(start(name))

    async def number(self, sql: str) -> int:
        """One number from the database."""
        return await self._read(lambda connection: int(connection.execute(text(sql)).scalar_one()))

    async def strings(self, sql: str) -> list[str]:
        """One column from the database."""
        return await self._read(lambda connection: list(connection.execute(text(sql)).scalars()))

    async def end_leases(self) -> None:
        """As if so much time had passed that every lease has run out."""

        def unit(connection: Connection) -> None:
            deliveries.release_leases(connection, system_clock())
            queries.release_leases(connection, system_clock())

        await asyncio.to_thread(run_once, self.servers.database_url, unit)

    async def _read(self, unit: Callable[[Connection], T]) -> T:
        return await asyncio.to_thread(partial(run_once, self.servers.database_url, unit, read_only=True))


@asynccontextmanager
async def running_servers(folder: Path) -> AsyncIterator[Servers]:
    """A database, a broker and an object store of this run's own, and a master key in `folder`."""
    key = folder / "master.key"
    ensure_key_file(key)
    postgres = await asyncio.to_thread(PostgresServer)
    try:
        await asyncio.to_thread(postgres.start)
        await asyncio.to_thread(postgres.execute, f"CREATE DATABASE {DATABASE}")
        async with running_nats(folder / "nats") as broker, running_object_store(folder) as objects:
            yield Servers(postgres, broker, objects, key)
    finally:
        await asyncio.to_thread(postgres.remove)


@asynccontextmanager
async def running_cluster(
    folder: Path, servers: Servers, settings: Mapping[str, str], tell: Callable[[str, str], None]
) -> AsyncIterator[Cluster]:
    """The program in its roles, on servers that run: the tables are made first, then all start."""
    processes = {
        name: ChartwireProcess(folder / name, {**servers.settings(), **settings, "CHARTWIRE_ROLE": role})
        for name, role in ROLES.items()
    }
    (folder / "api-1").mkdir()
    await processes["api-1"].run("migrate")
    async with AsyncExitStack() as stack:
        for process in processes.values():
            stack.push_async_exit(process)
        cluster = Cluster(processes, servers, tell)
        await cluster.start(*ROLES)
        yield cluster
