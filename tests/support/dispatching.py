"""The delivery engine on a real database, with dispatchers that are started and killed on it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import Connection, text
from tests.support.patience import PATIENCE_SECONDS
from tests.support.posting import LOOPBACK
from tests.support.profile import open_new_database

from chartwire.clock import Clock, system_clock
from chartwire.delivery.attempt import Policy, Poster
from chartwire.delivery.dispatcher import Dispatcher
from chartwire.delivery.http.client import HttpEgress
from chartwire.errors import StoreError
from chartwire.ids import new_message_id
from chartwire.model.document import QueryStatus
from chartwire.model.message import Meta, PatientPart, document_message
from chartwire.model.webhook import EventDraft, EventType, PayloadVersion
from chartwire.services.webhooks import WebhookService
from chartwire.settings import Settings
from chartwire.store import deliveries, endpoints, outbox, registry
from chartwire.store.database import Bell, T, Unit
from chartwire.store.handover import Handover
from chartwire.store.vault import Vault
from chartwire.telemetry import Metrics

VAULT = Vault(bytes(32))
SETTINGS = Settings(
    webhook_allowed_networks=[*LOOPBACK],
    webhook_retry_seconds=[0, 0.05, 0.05],
    webhook_retry_jitter=0,
    webhook_timeout_seconds=30,  # the longest there is: what a test holds back does not end by itself
    webhook_ping_timeout_seconds=30,
    webhook_endpoint_concurrency=4,
)
RETENTION = timedelta(days=SETTINGS.payload_retention_days)
OF_DOCUMENTS = "FROM delivery JOIN event ON event.seq = event_seq WHERE type <> 'ping'"


class WatchedDatabase:
    """A database that tells of each write, and fails the next ones when asked to."""

    def __init__(self, folder: Path) -> None:
        self._database = open_new_database(folder, self._heard)
        self.fail_next = 0
        self.failed = 0
        self.failure = asyncio.Event()
        self.written = asyncio.Event()
        self.dispatcher: Dispatcher | None = None

    def _heard(self, _: Bell) -> None:
        if self.dispatcher is not None:
            self.dispatcher.ring()

    async def write(self, unit: Unit[T]) -> T:
        if self.fail_next:
            self.fail_next -= 1
            raise StoreError("the disk is full")
        try:
            answer = await self._database.write(unit)
        except Exception:
            self.failed += 1
            self.failure.set()
            raise
        self.written.set()
        return answer

    async def read(self, unit: Unit[T]) -> T:
        return await self._database.read(unit)

    def attach(self, handover: Handover) -> None:
        self._database.attach(handover)

    async def close(self) -> None:
        await self._database.close()


class Engine:
    """A database, the service of webhooks, and dispatchers that are started and killed on it."""

    def __init__(self, database: WatchedDatabase, clock: Clock = system_clock) -> None:
        self.database = database
        self.clock = clock
        self.service = WebhookService(database, VAULT, clock, SETTINGS)
        self.metrics = Metrics()

    @asynccontextmanager
    async def dispatch(self) -> AsyncIterator[Dispatcher]:
        """A running dispatcher; at the end it is cut off with all that is in flight, as if it had been killed."""
        egress = HttpEgress(LOOPBACK, SETTINGS.webhook_concurrency)
        poster = Poster(egress, VAULT, self.clock, Random(1), Policy.of(SETTINGS))
        dispatcher = Dispatcher(self.database, VAULT, poster, self.clock, SETTINGS, self.metrics)
        self.database.dispatcher = dispatcher
        running = asyncio.create_task(dispatcher.run())
        try:
            yield dispatcher
        finally:
            await dispatcher.drain(0)
            await running
            await egress.close()

    async def new_account(self, url: str | None = None) -> str:
        """An account whose URL is set; the ping of it is not waited for."""
        account = await self.database.write(
            lambda connection: registry.create_account(connection, "clinic", self.clock())
        )
        if url is not None:
            await self.service.save_url(account.id, url)
        return account.id

    async def append(self, account_id: str, count: int = 1) -> list[str]:
        """Write messages to the outbox; returns their ids."""
        return await self.database.write(
            lambda connection: [self._append(connection, account_id) for _ in range(count)]
        )

    async def release_leases(self) -> None:
        """What a process does that knows it is alone."""
        await self.database.write(lambda connection: deliveries.release_leases(connection, self.clock()))

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return await self.database.read(lambda connection: [tuple(row) for row in connection.execute(text(sql))])

    async def until(self, sql: str, expected: object) -> None:
        """Wait, a write at a time, until the first value that `sql` gives is `expected`."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await self.rows(sql))[0][0] != expected:
                self.database.written.clear()
                if (await self.rows(sql))[0][0] != expected:
                    await self.database.written.wait()

    async def until_delivered(self, count: int) -> None:
        """Wait until so many deliveries of documents are settled as delivered."""
        await self.until(f"SELECT count(*) {OF_DOCUMENTS} AND state = 'delivered'", count)

    def _append(self, connection: Connection, account_id: str) -> str:
        now, receivers = self.clock(), endpoints.endpoints_of(connection, account_id)
        meta = Meta(new_message_id(), now, EventType.DOCUMENT_DOWNLOAD)
        body = document_message(PayloadVersion.V2023_04, meta, [PatientPart("p1", QueryStatus.COMPLETED)])
        draft = EventDraft(meta.message_id, account_id, meta.type, PayloadVersion.V2023_04, body, ("p1",))
        outbox.append(connection, VAULT, draft, receivers, now, RETENTION)
        return draft.id


@asynccontextmanager
async def open_engine(folder: Path, clock: Clock = system_clock) -> AsyncIterator[Engine]:
    """An engine on a new database."""
    database = WatchedDatabase(folder)
    yield Engine(database, clock)
    await database.close()
