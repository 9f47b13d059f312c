"""Pull as an alternative to push: an account's events in the order of their commit, waited for if there are none."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Connection

from chartwire.clock import Clock
from chartwire.errors import BadRequestError, NotFoundError
from chartwire.model.webhook import EventType
from chartwire.services.links import PageSealer
from chartwire.store import audit, feed, history
from chartwire.store.database import Database
from chartwire.store.feed import FeedEvent
from chartwire.store.vault import Vault

START = "start"
END = "end"

_KIND = "feed"

_POLL_SECONDS = 1.0
"""How long what another process wrote may go unnoticed."""


@dataclass(frozen=True, slots=True)
class FeedPage:
    """The next events, and the cursor to go on from."""

    events: list[FeedEvent]
    cursor: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What a reader asks for: events of `types` (all if none), at most `limit`, waited for up to `wait` seconds."""

    types: Sequence[EventType]
    limit: int
    wait: float


class FeedService:
    """The feeds of all accounts."""

    def __init__(self, database: Database, vault: Vault, clock: Clock) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._sealer = PageSealer(vault)
        self._news = asyncio.Event()
        self.waiting = 0
        """How many readers wait for news."""

    def ring(self) -> None:
        """An event was committed."""
        self._news.set()
        self._news = asyncio.Event()

    async def read(self, account_id: str, actor: str, after: str, asked: Asked) -> FeedPage:
        """What comes after a cursor, `start` or `end`. Raises `BadRequestError` for any other."""
        position = await self._position(account_id, after)
        give_up_at = asyncio.get_running_loop().time() + asked.wait
        while True:
            news = self._news
            events = await self._next(account_id, position, asked)
            remaining = give_up_at - asyncio.get_running_loop().time()
            if events or remaining <= 0:
                break
            await self._wait(news, min(remaining, _POLL_SECONDS))
        if events:
            await self._database.write(lambda connection: self._audit(connection, account_id, actor, events))
        return FeedPage(events, self._seal(account_id, events[-1].position if events else position))

    async def read_named(self, account_id: str, actor: str, name: str, asked: Asked) -> FeedPage:
        """What comes after all that a named reader has acknowledged; a new name begins at the start."""
        acknowledged = await self._database.read(lambda connection: feed.find_cursor(connection, account_id, name))
        return await self.read(account_id, actor, self._seal(account_id, acknowledged or 0), asked)

    async def get_cursor(self, account_id: str, name: str) -> str:
        """How far a named reader has acknowledged; raises `NotFoundError`."""
        position = await self._database.read(lambda connection: feed.find_cursor(connection, account_id, name))
        if position is None:
            raise NotFoundError("Could not find cursor")
        return self._seal(account_id, position)

    async def acknowledge(self, account_id: str, name: str, cursor: str) -> None:
        """Remember that a named reader has everything up to a cursor. Raises `BadRequestError`."""
        position = await self._position(account_id, cursor)
        await self._database.write(
            lambda connection: feed.save_cursor(connection, account_id, name, position, self._clock())
        )

    async def delete_cursor(self, account_id: str, name: str) -> None:
        """Forget a named reader; raises `NotFoundError`."""
        if not await self._database.write(lambda connection: feed.delete_cursor(connection, account_id, name)):
            raise NotFoundError("Could not find cursor")

    async def wait_for_event(self, seconds: float) -> None:
        """Return when an event of any account is committed in this process, or after `seconds`."""
        await self._wait(self._news, seconds)

    async def _wait(self, news: asyncio.Event, seconds: float) -> None:
        self.waiting += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await news.wait()
        finally:
            self.waiting -= 1

    async def _next(self, account_id: str, position: int, asked: Asked) -> list[FeedEvent]:
        return await self._database.read(
            lambda connection: feed.read_feed(connection, self._vault, account_id, position, asked.types, asked.limit)
        )

    async def _position(self, account_id: str, after: str) -> int:
        if after == START:
            return 0
        if after == END:
            return await self._database.read(lambda connection: feed.end_of_feed(connection, account_id))
        parameters, position = self._sealer.open(after)
        if parameters != [(_KIND, account_id)]:
            raise BadRequestError("The cursor is not one that was given")
        return int(position)

    def _seal(self, account_id: str, position: int) -> str:
        return self._sealer.seal([(_KIND, account_id)], str(position))

    def _audit(self, connection: Connection, account_id: str, actor: str, events: Sequence[FeedEvent]) -> None:
        """Written before anything is shown: what cannot be audited is not shown."""
        nobody: Sequence[str | None] = [None]
        for event in events:
            for patient_id in history.subjects_of(connection, event.seq) or nobody:
                audit.record(connection, self._clock(), account_id, actor, "event.pull", patient_id, event.id)
