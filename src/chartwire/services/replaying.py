"""Works replays off, a batch at a time: no one waits long for the database, and a restart goes on in the middle."""

import asyncio
from contextlib import suppress
from functools import partial

from sqlalchemy import Connection

from chartwire.clock import Clock
from chartwire.model.webhook import Replay
from chartwire.services.history import link_renewer
from chartwire.settings import Settings
from chartwire.store import replays
from chartwire.store.database import Database
from chartwire.store.vault import Vault
from chartwire.telemetry import get_logger

_BATCH = 200
_LOOK_EVERY_SECONDS = 30.0

log = get_logger()


class Replayer:
    """Advances every running replay in turn."""

    def __init__(self, database: Database, vault: Vault, clock: Clock, settings: Settings, batch: int = _BATCH) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._renew = link_renewer(vault, clock, settings)
        self._batch = batch
        self._wake = asyncio.Event()

    def ring(self) -> None:
        """A replay was asked for."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled. A database that fails is tried again at the next turn."""
        while True:
            self._wake.clear()
            try:
                await self.work_off()
            except Exception:  # whatever the database raises, replays must go on after it
                log.exception("advancing replays failed")
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_SECONDS):
                    await self._wake.wait()

    async def work_off(self) -> None:
        """Advance until none is running, but those that fail: they are tried again at the next turn."""
        failed: set[str] = set()
        while running := [each for each in await self._database.read(replays.running) if each.id not in failed]:
            for replay in running:
                try:
                    await self._database.write(partial(self._advance, replay))
                except Exception:  # a payload that does not open, say: it must not keep back the others
                    log.exception("advancing a replay failed")
                    failed.add(replay.id)

    def _advance(self, replay: Replay, connection: Connection) -> None:
        replays.advance(connection, self._vault, replay.id, self._renew, self._clock(), self._batch)
