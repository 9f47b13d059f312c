"""The outbox as time goes by, and what is left of its history."""

from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import update
from tests.support.outbox_store import Store, good

from chartwire.model.webhook import Endpoint, EventDraft
from chartwire.store import forgetting, outbox, schema

KEPT = timedelta(days=60)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


async def upkeep(store: Store, since: datetime, until: datetime) -> None:
    """What upkeep does, day by day."""
    for days in range((until - since) // DAY + 1):
        at = since + days * DAY
        while await store.database.write(partial(outbox.expire_payloads, now=at)):
            pass
        after: int | None = 0
        while after is not None:
            after = await store.database.write(partial(forgetting.forget_history, kept=KEPT, now=at, after=after))


async def deliver(store: Store, endpoint: Endpoint, at: datetime) -> EventDraft:
    """A message that was posted at once."""
    draft = await store.append(endpoint, at=at)
    assert await store.settle(await store.claim_one(at), good(), at)
    return draft


async def events(store: Store) -> list[str]:
    """The ids of the events that are there, the oldest first."""
    return [row[0] for row in await store.rows("SELECT id FROM event ORDER BY seq")]


async def count(store: Store, table: str) -> int:
    """How many rows a table has."""
    ((rows,),) = await store.rows(f"SELECT count(*) FROM {table}")  # noqa: S608  our own names
    return int(rows)


async def keep_payloads(store: Store, until: datetime) -> None:
    """Let the bytes of all that was told be kept for longer than others."""
    statement = update(schema.event).values(expires_at=until)
    await store.database.write(lambda connection: connection.execute(statement))
