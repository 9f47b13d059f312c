"""Bells that ring in other processes, by LISTEN and NOTIFY on a connection of their own.

They go out after the commit and together, not in the transaction: NOTIFY makes commits wait for one another. One that
is lost, as while the connection is away, makes work late: every loop looks by itself once a second.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from chartwire.store.database import Bell, Ringer
from chartwire.telemetry import get_logger

_CHANNEL = "chartwire"
_PAUSE_SECONDS = 1.0
_PATIENCE_SECONDS = 2.0
_GATHER_SECONDS = 0.002  # what is rung meanwhile goes out together
_OWN = frozenset({Bell.ANNOUNCE})  # told by whoever made it; should that one die, others look once a second anyway

_LINE_IS_CUT = DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError  # the driver's own, where it is asked directly

log = get_logger()


class Notices:
    """Tells other processes of bells, and hears theirs."""

    def __init__(self, connect: Callable[[], AsyncEngine], ringer: Ringer) -> None:
        self._connect = connect
        self._ringer = ringer
        self._pending: set[Bell] = set()
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._is_back = False
        self._task = asyncio.create_task(self._run())

    def send(self, bells: Iterable[Bell]) -> None:
        """Let other processes hear these soon."""
        self._pending.update(set(bells) - _OWN)
        if self._pending:
            self._wake.set()

    async def close(self) -> None:
        """Hang up; a server that does not answer is not waited for."""
        self._closing.set()
        self._wake.set()
        await asyncio.wait([self._task], timeout=_PATIENCE_SECONDS)
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while not self._closing.is_set():
            try:
                await self._talk()
            except (*_LINE_IS_CUT, OSError, TimeoutError) as error:
                log.warning("the line between processes is down", code=type(error).__name__)
            self._is_back = True
            with suppress(TimeoutError):
                async with asyncio.timeout(_PAUSE_SECONDS):
                    await self._closing.wait()

    async def _talk(self) -> None:
        """Listen and send until the connection is cut."""
        engine = self._connect()
        try:
            async with engine.connect() as connection:
                driver: Any = (await connection.get_raw_connection()).driver_connection
                driver.add_termination_listener(lambda _: self._wake.set())
                await driver.add_listener(_CHANNEL, self._hear)
                for bell in Bell if self._is_back else ():  # something may have been rung while nobody listened
                    self._ringer(bell)
                while not (driver.is_closed() or self._closing.is_set()):
                    await self._send_pending(driver)
        finally:
            await engine.dispose()

    async def _send_pending(self, driver: Any) -> None:
        await self._wake.wait()
        self._wake.clear()
        if self._pending:
            await asyncio.sleep(_GATHER_SECONDS)
            bells, self._pending = sorted(self._pending), set()
            await driver.execute("SELECT pg_notify($1, $2)", _CHANNEL, ",".join(bells))

    def _hear(self, driver: Any, process: int, channel: str, words: str) -> None:
        del channel
        if process == driver.get_server_pid():
            return  # our own echo
        for word in words.split(","):
            with suppress(ValueError):  # a bell that only a newer release knows
                self._ringer(Bell(word))
