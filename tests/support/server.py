"""The real application on a real socket, in the test's own event loop, with a clock that tests move."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from tests.support.profile import open_new_database

from chartwire.api.app import Readiness, create_app
from chartwire.api.dependencies import Services
from chartwire.clock import system_clock
from chartwire.services.feed import FeedService
from chartwire.settings import Settings
from chartwire.store import registry
from chartwire.store.blobs import open_blob_store
from chartwire.store.database import Bell, Database
from chartwire.store.vault import Vault
from chartwire.telemetry import Metrics
from chartwire.wiring import build_services

_TICK_SECONDS = 0.1  # uvicorn's
_POLL_SECONDS = 0.001


class MovableClock:
    """A `Clock` that runs with the machine's, shifted as far as a test says."""

    def __init__(self) -> None:
        self._shift = timedelta()
        self._stopped_at: datetime | None = None

    def __call__(self) -> datetime:
        """Now, shifted."""
        return (self._stopped_at or system_clock()) + self._shift

    def stop(self) -> None:
        """Stand still until moved."""
        self._stopped_at = system_clock()

    def advance(self, **by: float) -> None:
        """Move forward: `advance(seconds=61)`."""
        self._shift += timedelta(**by)


class _PromptServer(uvicorn.Server):
    """Tells when it serves, and stops at once: uvicorn's own sleeps between looks at whether it is to cost a test that
    takes a hundredth of a second a fifth of one."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self.leaving = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        """Do what is done now and then until told to leave."""
        ticks = count()
        while not self.leaving.is_set():
            await self.on_tick(next(ticks))
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self.leaving.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connections, and wait until those that are open have answered."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in [*self.server_state.connections]:
            connection.shutdown()
        while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def running_app(make: Callable[[str], FastAPI]) -> AsyncIterator[str]:
    """Serve the application that `make` builds for the base URL it is given; gives that URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # What it accepts is as it is. asyncio sees to it only where a socket says that it is of TCP, as this does not,
        # and the body of an answer would wait 40 ms for its head to be acknowledged.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(make(base_url), access_log=False, log_config=None, lifespan="off", server_header=False)
        server = _PromptServer(config)
        # `serve` would take over the signals of pytest.
        serving = asyncio.create_task(server._serve([listener]))
        await server.ready.wait()
        try:
            yield base_url
        finally:
            server.leaving.set()
            await serving


Parts = tuple[Services, Settings, Metrics, Readiness]
"""What `create_app` is given."""


@dataclass(frozen=True, slots=True)
class Installation:
    """A served installation without its engine: what is asked of networks waits, what is told is not sent."""

    base_url: str
    database: Database
    clock: MovableClock
    settings: Settings
    parts: Parts

    async def create_account(self, name: str = "Clinic") -> str:
        """A new account's API key."""

        def unit(connection: Any) -> str:
            account = registry.create_account(connection, name, self.clock())
            return registry.create_api_key(connection, account.id, "test", self.clock())[1]

        return await self.database.write(unit)


@asynccontextmanager
async def running_installation(folder: Path, **overrides: Any) -> AsyncIterator[Installation]:
    """An installation on `folder`; `overrides` are settings, rate limits being off if they do not say otherwise."""
    off = {"patient_writes_per_minute": 0, "document_queries_per_minute": 0, "requests_per_second": 0}
    clock = MovableClock()
    async with AsyncExitStack() as stack:
        database = open_new_database(folder, lambda bell: feed.ring() if bell is Bell.EVENT else None)
        stack.push_async_callback(database.close)
        vault = Vault(bytes(32))
        feed = FeedService(database, vault, clock)
        blobs = open_blob_store((folder / "blobs").as_uri(), vault)
        stack.push_async_callback(blobs.close)
        made: list[Parts] = []

        def make(base_url: str) -> FastAPI:
            settings = Settings(data_dir=folder, **{**off, "public_url": base_url, **overrides})
            services = build_services(settings, database, blobs, vault, clock, feed)
            made.append((services, settings, Metrics(), _ready))
            return create_app(*made[0], clock)

        base_url = await stack.enter_async_context(running_app(make))
        yield Installation(base_url, database, clock, made[0][1], made[0])


async def _ready() -> dict[str, str]:
    return {}
