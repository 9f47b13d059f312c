"""History that is older than it is kept goes; what is newer, what may still be sent and the audit trail stay."""

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, update
from tests.support.forgetting import DAY, KEPT, SECOND, count, deliver, events, keep_payloads, upkeep
from tests.support.outbox_store import NOW, RETENTION, VAULT, Store, bad, draft_for, good, open_store

from chartwire.model.listing import Order, Window
from chartwire.model.subscription import PayloadContent, Subscription, SubscriptionEvent, SubscriptionStatus
from chartwire.model.webhook import AttemptFilter, DeliveryFilter, Endpoint, EventDraft, EventType, PayloadVersion
from chartwire.store import feed, history, outbox, replays, schema, subscriptions
from chartwire.store.documents import DocumentFilter
from chartwire.store.records import to_json

ALL = DeliveryFilter()
LATE = NOW + 2 * KEPT
"""When everything that was written at NOW is long past its time."""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path) as opened:
        yield opened


async def test_what_is_older_than_history_is_kept_goes_and_what_is_newer_stays(store: Store) -> None:
    endpoint = await store.add_endpoint()
    for day in (NOW + days * DAY for days in range(150)):
        await deliver(store, endpoint, day)
        await upkeep(store, day, day)
    left = await count(store, "event")
    assert KEPT < left * DAY <= KEPT + KEPT / 6 + DAY  # one a day; on PostgreSQL they go by ranges of a sixth
    assert await count(store, "event WHERE body IS NULL") > 0
    assert [await count(store, table) for table in ("event_subject", "delivery", "attempt")] == [left] * 3
    assert await count(store, "audit") == 150


async def test_the_newest_stays_so_that_no_number_comes_again(store: Store) -> None:
    endpoint = await store.add_endpoint()
    for _ in range(3):
        last = await deliver(store, endpoint, NOW)
    ((event_seq, delivery_seq),) = await store.rows("SELECT max(event_seq), max(seq) FROM delivery")
    await upkeep(store, NOW, LATE)
    assert last.id in await events(store)
    await store.append(endpoint, at=LATE)
    ((next_event, next_delivery),) = await store.rows("SELECT max(event_seq), max(seq) FROM delivery")
    assert next_event > event_seq
    assert next_delivery > delivery_seq


async def test_what_waits_stays_while_its_bytes_are_kept(store: Store) -> None:
    endpoint = await store.add_endpoint()
    waiting = await store.append(endpoint)
    assert await store.settle(await store.claim_one(), bad(retry_at=LATE))
    await keep_payloads(store, LATE + DAY)
    await upkeep(store, NOW, NOW + KEPT / 2)
    await deliver(store, endpoint, NOW + KEPT / 2)
    await upkeep(store, NOW + KEPT / 2, LATE)
    assert (await store.claim_one(LATE)).event_id == waiting.id
    await upkeep(store, LATE + DAY, LATE + 2 * DAY)
    assert waiting.id not in await events(store)


@pytest.mark.embedded
async def test_old_events_that_may_not_go_hold_up_none_behind_them(store: Store) -> None:
    """More than go at one time, of which some have been dated by a clock that was ahead."""
    endpoint = await store.add_endpoint()
    for _ in range(120):
        await deliver(store, endpoint, NOW)
    await keep_payloads(store, LATE + 2 * DAY)
    ahead = update(schema.event).where(schema.event.c.seq > 60).values(created_at=LATE + DAY)
    await store.database.write(lambda connection: connection.execute(ahead))
    held = await events(store)
    for _ in range(60):
        await deliver(store, endpoint, NOW)
    newer = [(await deliver(store, endpoint, LATE - DAY)).id for _ in range(60)]
    await upkeep(store, LATE, LATE)
    assert await events(store) == held + newer


async def test_what_is_being_posted_stays_until_that_is_written_down(store: Store) -> None:
    endpoint = await store.add_endpoint()
    draft = await store.append(endpoint)
    await keep_payloads(store, LATE)
    await upkeep(store, NOW, NOW + KEPT / 2)
    claimed = await store.claim_one(LATE)
    await store.append(endpoint, at=LATE)
    await upkeep(store, LATE, LATE)
    assert await count(store, "event WHERE body IS NULL") == 1
    assert draft.id in await events(store)
    assert await store.settle(claimed, good(), LATE + SECOND)
    assert await count(store, "audit") == 1
    await upkeep(store, LATE + SECOND, LATE + SECOND)
    assert draft.id not in await events(store)


@pytest.mark.cluster
async def test_a_delivery_whose_event_is_gone_has_expired(store: Store) -> None:
    """SQLite takes it away with the event."""
    await store.append(await store.add_endpoint())
    await store.database.write(lambda connection: connection.execute(delete(schema.event)))
    assert (await store.claim()).deliveries == ()
    assert await store.rows("SELECT state, outcome, lease FROM delivery") == [("failed", "expired", None)]


async def test_a_subscription_is_told_of_nothing_that_is_forgotten_and_of_the_rest_once(store: Store) -> None:
    channel = await store.add_endpoint(payload_version=PayloadVersion.FHIR_R4)
    subscription = await subscribe(store, channel)
    await notify(store, subscription, 1, [channel])
    await notify(store, subscription, 2, [])  # held: there was no good answer to a handshake yet
    assert await store.settle(await store.claim_one(), good())
    later = NOW + KEPT / 2
    await upkeep(store, NOW, later)
    told = await notify(store, subscription, 3, [channel], later)
    assert await store.settle(await store.claim_one(later), good(), later)
    held = await notify(store, subscription, 4, [], later)
    await keep_payloads(store, LATE)
    await upkeep(store, later, LATE - KEPT / 2)
    assert await events(store) == [told.id, held.id]
    handshake = await shake_hands(store, channel, LATE - 2 * DAY)
    assert await store.settle(await store.claim_one(LATE - 2 * DAY), good(), LATE - 2 * DAY)
    assert await events(store) == [told.id, held.id, handshake.id]
    assert [each.event_id for each in (await store.claim(LATE - DAY, lease="lease-2")).deliveries] == [held.id]
    assert await count(store, "delivery") == 3
    assert await count(store, "subscription_event") == 4  # $events goes on knowing them all


async def test_a_cursor_older_than_the_oldest_goes_on_with_the_oldest(store: Store) -> None:
    endpoint = await store.add_endpoint()
    await deliver(store, endpoint, NOW)
    ((position,),) = await store.rows("SELECT seq FROM delivery")
    newer = await forget_what_was(store, endpoint)
    for after in (0, position):
        found = await store.database.read(lambda it: feed.read_feed(it, VAULT, "a1", after, (), 10))  # noqa: B023
        assert [each.id for each in found] == [newer.id]


async def test_lists_end_where_history_ends_and_what_is_forgotten_is_not_found(store: Store) -> None:
    endpoint = await store.add_endpoint()
    gone = await deliver(store, endpoint, NOW)
    ((event_seq, delivery_seq),) = await store.rows("SELECT event_seq, seq FROM delivery")
    newer = await forget_what_was(store, endpoint)

    def unit(connection: Connection) -> None:
        assert history.find_event(connection, "a1", gone.id) is None
        assert history.find_delivery(connection, "a1", gone.id, endpoint.id) is None
        assert history.deliveries_of_event(connection, "a1", gone.id) == []
        for before, found in ((None, [newer.id]), (event_seq, []), (event_seq + 1, [])):
            assert [each.id for each in history.list_events(connection, "a1", ALL, before, 10)] == found
        for before, found in ((None, [newer.id]), (delivery_seq, []), (delivery_seq + 1, [])):
            assert [each.event_id for each in history.list_deliveries(connection, "a1", ALL, before, 10)] == found
        attempts = history.page_attempts(connection, "a1", AttemptFilter(), Window(Order("began"), 10))
        assert [each.event_id for each in attempts.items] == [newer.id]

    await store.database.read(unit)


async def test_a_replay_goes_on_with_what_is_there(store: Store) -> None:
    endpoint = await store.add_endpoint()
    for _ in range(2):
        await deliver(store, endpoint, NOW)
    await keep_payloads(store, NOW + KEPT / 2)
    replay = await store.database.write(lambda it: replays.start(it, "a1", ALL, NOW))
    await store.database.write(lambda it: replays.advance(it, VAULT, replay.id, lambda body: body, NOW, 1))
    assert await store.settle(await store.claim_one(NOW + SECOND), good(), NOW + SECOND)
    await forget_what_was(store, endpoint)
    ended = await store.database.write(lambda it: replays.advance(it, VAULT, replay.id, lambda body: body, LATE, 1))
    assert ended is None
    assert await store.rows("SELECT state, total, replayed FROM replay") == [("completed", 2, 1)]


async def forget_what_was(store: Store, endpoint: Endpoint) -> EventDraft:
    """Let the time of all that was told be over, after one thing more, which is given back."""
    middle = NOW + KEPT / 2
    await upkeep(store, NOW, middle)
    newer = await deliver(store, endpoint, middle)
    await upkeep(store, middle, LATE - KEPT / 2)
    assert await events(store) == [newer.id]
    return newer


async def subscribe(store: Store, channel: Endpoint) -> Subscription:
    """A subscription that waits for the answer to a handshake."""
    columns = {
        "status": SubscriptionStatus.REQUESTED,
        "reason": "r",
        "criteria": [],
        "chosen": to_json(DocumentFilter()),
        "content": PayloadContent.EMPTY,
    }
    return await store.database.write(lambda it: subscriptions.create(it, channel, columns, NOW))


async def notify(
    store: Store, subscription: Subscription, number: int, receivers: list[Endpoint], at: datetime = NOW
) -> EventDraft:
    """A numbered event of a subscription, told to `receivers` if there are any."""
    draft = draft_for(subscription.endpoint, EventType.SUBSCRIPTION_EVENT)

    def unit(connection: Connection) -> None:
        event_seq = outbox.append_for(connection, VAULT, draft, receivers, at, RETENTION)
        subscriptions.record(connection, subscription, [SubscriptionEvent(number, at, None)], event_seq)

    await store.database.write(unit)
    return draft


async def shake_hands(store: Store, channel: Endpoint, at: datetime) -> EventDraft:
    """A handshake on whose answer the subscription waits."""
    draft = draft_for(channel, EventType.SUBSCRIPTION_HANDSHAKE)

    def unit(connection: Connection) -> None:
        outbox.append_for(connection, VAULT, draft, [channel], at, RETENTION)
        connection.execute(update(schema.subscription).values(handshake_id=draft.id))

    await store.database.write(unit)
    return draft
