"""Closes coalescing windows: composes what waits to be announced when its time has come."""

import asyncio
from contextlib import suppress
from datetime import datetime

from chartwire.clock import Clock
from chartwire.ingestion.announcement import Announcer
from chartwire.store import documents
from chartwire.store.database import Database
from chartwire.telemetry import get_logger

_POLL_SECONDS = 1.0
log = get_logger()


class WindowCloser:
    """Composes an account's messages whenever its window closes, until stopped."""

    def __init__(self, database: Database, announcer: Announcer, clock: Clock) -> None:
        self._database = database
        self._announcer = announcer
        self._clock = clock
        self._bell = asyncio.Event()
        self._stopping = False

    def ring(self) -> None:
        """A window may have opened."""
        self._bell.set()

    async def run(self) -> None:
        """Run until `stop`."""
        while not self._stopping:
            self._bell.clear()
            try:
                wait = await self._close_windows()
            except Exception:  # the database may be away for a while: the loop must outlive it
                log.exception("could not close windows")
                wait = _POLL_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), wait)

    async def stop(self) -> None:
        """Let `run` end; what waits is composed at the next start."""
        self._stopping = True
        self.ring()

    async def _close_windows(self) -> float:
        """Compose what is due, each account's in a transaction of its own; returns when to look again."""
        now = self._clock()
        accounts, due = await self._database.read(
            lambda connection: (
                documents.due_accounts(connection, now, self._announcer.window),
                documents.next_announcement(connection),
            )
        )
        if accounts:
            is_done = all(await asyncio.gather(*(self._compose(account_id, now) for account_id in accounts)))
            return 0 if is_done else _POLL_SECONDS
        return _POLL_SECONDS if due is None else min(max((due - now).total_seconds(), 0), _POLL_SECONDS)

    async def _compose(self, account_id: str, now: datetime) -> bool:
        try:
            await self._database.write(lambda connection: self._announcer.compose(connection, account_id, now))
        except Exception:  # one account's must not hold back another's
            log.exception("could not compose messages", account_id=account_id)
            return False
        return True
