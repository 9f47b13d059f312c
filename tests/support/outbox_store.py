"""The outbox and its engine's side on a real database, with short names for what tests do with them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, insert, select, text
from tests.support.profile import open_new_database

from chartwire.ids import new_message_id
from chartwire.model.webhook import Endpoint, EventDraft, EventType, Outcome, PayloadVersion
from chartwire.store import claims, deliveries, endpoints, outbox, schema
from chartwire.store.claims import Claim, ClaimedDelivery, Room
from chartwire.store.database import Bell, Database
from chartwire.store.deliveries import AttemptResult, Ended
from chartwire.store.targets import Targets
from chartwire.store.vault import Vault

NOW = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
RETENTION = timedelta(days=30)
LEASE = timedelta(seconds=60)
URL = "https://example.com/hook"
VAULT = Vault(bytes(32))
ROOMY = Room(total=1000, per_endpoint=1000, busy={})


class Store:
    """A database with one account and one endpoint, and short names for what the tests do with it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.bells: list[Bell] = []
        self.targets = Targets(VAULT)
        self.looked_at = NOW

    async def add_endpoint(self, account_id: str = "a1", url: str | None = URL, **columns: Any) -> Endpoint:
        def unit(connection: Connection) -> Endpoint:
            account = schema.account
            if connection.execute(select(account).where(account.c.id == account_id)).first() is None:
                connection.execute(insert(account).values(id=account_id, name="n", created_at=NOW))
            endpoint = endpoints.create_settings_endpoint(connection, account_id, NOW)
            endpoints.add_key(connection, VAULT, endpoint.seq, NOW)
            return endpoints.update_endpoint(connection, endpoint, {"url": url, **columns})

        return await self.database.write(unit)

    async def append(
        self,
        *receivers: Endpoint,
        at: datetime = NOW,
        event_type: EventType = EventType.DOCUMENT_DOWNLOAD,
        patient_ids: tuple[str, ...] = ("p1",),
    ) -> EventDraft:
        draft = draft_for(receivers[0], event_type, patient_ids)
        await self.database.write(lambda connection: outbox.append(connection, VAULT, draft, receivers, at, RETENTION))
        return draft

    async def claim(self, at: datetime = NOW, room: Room = ROOMY, lease: str = "lease-1") -> Claim:
        self.looked_at = max(self.looked_at, at)
        claim = await self.database.write(
            lambda connection: claims.claim(connection, self.targets, room, lease, at, at + LEASE)
        )
        self.targets.keep(claimed.target for claimed in claim.deliveries)
        return claim

    async def claim_one(self, at: datetime = NOW, room: Room = ROOMY, lease: str = "lease-1") -> ClaimedDelivery:
        (claimed,) = (await self.claim(at, room, lease)).deliveries
        return claimed

    async def settle(self, claimed: ClaimedDelivery, result: AttemptResult, at: datetime = NOW) -> bool:
        (settled,) = await self.settle_all((claimed, result), at=at)
        return settled

    async def settle_all(self, *ended: Ended, at: datetime = NOW) -> list[bool]:
        return await self.database.write(lambda connection: deliveries.settle(connection, VAULT, ended, at, RETENTION))

    async def rows(self, sql: str) -> list[Any]:
        return await self.database.read(lambda connection: list(connection.execute(text(sql))))

    async def endpoint(self, endpoint: Endpoint) -> Endpoint:
        found = await self.database.read(
            lambda connection: endpoints.find_endpoint(connection, endpoint.account_id, endpoint.id)
        )
        assert found is not None
        return found


@asynccontextmanager
async def open_store(path: Path) -> AsyncIterator[Store]:
    """A new database; `path` is a folder of its own."""
    rung: list[Bell] = []
    database = open_new_database(path, rung.append)
    store = Store(database)
    store.bells = rung
    yield store
    await database.close()


def draft_for(
    receiver: Endpoint,
    event_type: EventType = EventType.DOCUMENT_DOWNLOAD,
    patient_ids: tuple[str, ...] = ("p1",),
) -> EventDraft:
    """A message of the receiver's account about some patients."""
    body = orjson.dumps({"meta": {}, "patients": [{"patientId": patient_id} for patient_id in patient_ids]})
    return EventDraft(new_message_id(), receiver.account_id, event_type, PayloadVersion.V2023_04, body, patient_ids)


def good() -> AttemptResult:
    """A success."""
    return AttemptResult(URL, NOW, 12, Outcome.DELIVERED, "OK", 200)


def bad(retry_at: datetime | None = NOW + timedelta(seconds=5), **changes: Any) -> AttemptResult:
    """A failure that is tried again at `retry_at`."""
    result = AttemptResult(URL, NOW, 12, Outcome.HTTP_ERROR, "Request failed with status code 500", 500)
    return result._replace(retry_at=retry_at, answer=b"oops", **changes)
