"""Says in the database that this process is there, so that the others and the console know of it."""

import asyncio
import os
import socket
from dataclasses import replace
from datetime import timedelta

from chartwire import __version__
from chartwire.clock import Clock
from chartwire.ids import new_id
from chartwire.model.operations import Worker
from chartwire.settings import Settings
from chartwire.store import operations
from chartwire.store.database import Database
from chartwire.telemetry import get_logger

_EVERY_SECONDS = 15.0
_EXPIRES_AFTER = timedelta(seconds=60)
"""A process that was killed is forgotten after this."""

_FAREWELL_SECONDS = 2.0

log = get_logger()


class Presence:
    """Tells of one process."""

    def __init__(self, database: Database, clock: Clock, settings: Settings) -> None:
        self._database = database
        self._clock = clock
        now = clock()
        self._self = Worker(new_id(), settings.role, socket.gethostname(), os.getpid(), __version__, now, now)

    async def run(self) -> None:
        """Work until cancelled; then say goodbye."""
        try:
            while True:
                await self._greet()
                await asyncio.sleep(_EVERY_SECONDS)
        finally:
            await self._part()

    async def _greet(self) -> None:
        now = self._clock()
        worker = replace(self._self, seen_at=now)
        try:
            await self._database.write(lambda connection: operations.greet(connection, worker, now + _EXPIRES_AFTER))
        except Exception:  # whatever the database raises, this must go on after it
            log.exception("could not say that this process is there")

    async def _part(self) -> None:
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._database.write(lambda connection: operations.part(connection, self._self.id))
        except Exception:  # it is forgotten after a while
            log.exception("could not say that this process ends")
