"""The outbox and its engine's side, on a real database."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import Connection
from tests.support.outbox_store import LEASE, NOW, RETENTION, URL, VAULT, Store, bad, draft_for, good, open_store

from chartwire.model.webhook import EventType, Outcome
from chartwire.store import deliveries, endpoints, outbox
from chartwire.store.claims import Claim, Room
from chartwire.store.database import Bell
from chartwire.store.vault import Purpose


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "test.db") as store:
        yield store


# --- writing ----------------------------------------------------------------------------------------------------------


async def test_a_message_is_sealed_and_one_delivery_made_per_endpoint(store: Store) -> None:
    first, second = await store.add_endpoint(), await store.add_endpoint()
    draft = await store.append(first, second)
    ((sealed,),) = await store.rows("SELECT body FROM event")
    assert draft.body not in sealed
    assert VAULT.open(Purpose.PAYLOAD, sealed) == draft.body
    assert await store.rows("SELECT state FROM delivery") == [("waiting",), ("waiting",)]
    assert set(store.bells) == {Bell.DELIVERY, Bell.EVENT}


async def test_a_message_for_an_endpoint_without_url_has_failed_and_can_be_retried_later(store: Store) -> None:
    endpoint = await store.add_endpoint(url=None)
    await store.append(endpoint)
    assert await store.rows("SELECT state, outcome FROM delivery") == [("failed", "no_url")]
    assert store.bells == [Bell.EVENT]
    retry = lambda connection: outbox.retry_failed(connection, "a1", NOW)  # noqa: E731  used twice, right here
    assert await store.database.write(retry) == 0
    await store.database.write(lambda connection: endpoints.set_url(connection, endpoint, URL, NOW))
    assert await store.database.write(retry) == 1
    assert len((await store.claim()).deliveries) == 1


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("patient_ids", [(), ("p1",), ("p2", "p1", "p2")])
async def test_a_message_is_written_whole_whoever_it_is_about_and_for(
    store: Store, count: int, patient_ids: tuple[str, ...]
) -> None:
    receivers = [await store.add_endpoint() for _ in range(count)]
    await store.append(await store.add_endpoint("a2"), patient_ids=("p1",))  # so that numbers differ
    draft = draft_for(await store.add_endpoint(), patient_ids=patient_ids)

    def unit(connection: Connection) -> int:
        return outbox.append_for(connection, VAULT, draft, receivers, NOW, RETENTION)

    seq = await store.database.write(unit)
    assert await store.rows(f"SELECT id, account_id FROM event WHERE seq = {seq}") == [(draft.id, "a1")]  # noqa: S608
    subjects = await store.rows(f"SELECT patient_id FROM event_subject WHERE event_seq = {seq} ORDER BY 1")  # noqa: S608
    assert subjects == [(patient_id,) for patient_id in sorted(set(patient_ids))]
    rows = await store.rows(
        f"SELECT endpoint_seq, account_id, state, due_at = created_at, settled_at FROM delivery WHERE event_seq = {seq}"  # noqa: S608
    )
    assert sorted(rows) == [(each.seq, "a1", "waiting", True, None) for each in receivers]
    assert len((await store.claim()).deliveries) == count + 1


async def test_operational_messages_go_only_to_endpoints_that_name_them(store: Store) -> None:
    plain = await store.add_endpoint()
    picky = await store.add_endpoint(event_types=[EventType.ENDPOINT_DISABLED])
    await store.append(plain, picky, event_type=EventType.ENDPOINT_DISABLED)
    assert await store.rows("SELECT endpoint_seq FROM delivery") == [(picky.seq,)]
    await store.append(plain, picky)
    assert await store.rows("SELECT endpoint_seq FROM delivery ORDER BY seq") == [(picky.seq,), (plain.seq,)]


# --- claiming ---------------------------------------------------------------------------------------------------------


async def test_a_claim_carries_everything_that_an_attempt_needs(store: Store) -> None:
    endpoint = await store.add_endpoint()
    draft = await store.append(endpoint)
    claimed = await store.claim_one()
    assert claimed.event_id == draft.id
    assert claimed.attempt == 1
    assert claimed.target.endpoint == endpoint
    assert len(claimed.target.keys) == 1
    assert VAULT.open(Purpose.PAYLOAD, claimed.body) == draft.body


async def test_what_is_claimed_is_not_claimed_again_before_its_lease_ends(store: Store) -> None:
    await store.append(await store.add_endpoint())
    await store.claim_one()
    claim = await store.claim(NOW + LEASE - timedelta(seconds=1), lease="lease-2")
    assert claim == Claim((), NOW + LEASE)
    again = await store.claim_one(NOW + LEASE, lease="lease-2")
    assert again.lease == "lease-2"


async def test_the_oldest_due_of_an_endpoint_comes_first_and_the_future_waits(store: Store) -> None:
    endpoint = await store.add_endpoint()
    later = await store.append(endpoint, at=NOW + timedelta(seconds=2))
    early = await store.append(endpoint, at=NOW)
    future = NOW + timedelta(seconds=9)
    await store.append(endpoint, at=future)
    claim = await store.claim(NOW + timedelta(seconds=3))
    assert [claimed.event_id for claimed in claim.deliveries] == [early.id, later.id]
    assert (await store.claim(NOW + timedelta(seconds=3))).next_due == future


async def test_a_backlog_of_one_endpoint_leaves_room_for_the_others(store: Store) -> None:
    crowded, quiet = await store.add_endpoint(), await store.add_endpoint("a2")
    for _ in range(30):
        await store.append(crowded)
    await store.append(quiet, at=NOW)
    claim = await store.claim(room=Room(total=4, per_endpoint=16, busy={}))
    receivers = [claimed.target.endpoint.seq for claimed in claim.deliveries]
    assert sorted(receivers) == [crowded.seq, crowded.seq, quiet.seq]


@pytest.mark.embedded
async def test_an_endpoint_gets_no_more_than_its_room(store: Store) -> None:
    endpoint = await store.add_endpoint()
    for _ in range(5):
        await store.append(endpoint)
    assert len((await store.claim(room=Room(100, 4, {endpoint.seq: 1}))).deliveries) == 3
    assert (await store.claim(room=Room(100, 4, {endpoint.seq: 4}))).deliveries == ()


@pytest.mark.parametrize(
    "columns", [{"state": "disabled"}, {"url": None}, {"paused_until": NOW + timedelta(seconds=30)}]
)
async def test_an_endpoint_that_is_disabled_homeless_or_paused_is_left_alone(
    store: Store, columns: dict[str, Any]
) -> None:
    endpoint = await store.add_endpoint()
    await store.append(endpoint)
    await store.database.write(lambda connection: endpoints.update_endpoint(connection, endpoint, columns))
    claim = await store.claim()
    assert claim == Claim((), columns.get("paused_until"))


# --- settling ---------------------------------------------------------------------------------------------------------


async def test_a_success_is_written_down_whole(store: Store) -> None:
    endpoint = await store.add_endpoint()
    draft = await store.append(endpoint, patient_ids=("p1", "p2"))
    assert await store.settle(await store.claim_one(), good())
    assert await store.rows("SELECT state, outcome, lease FROM delivery") == [("delivered", "delivered", None)]
    assert await store.rows("SELECT number, outcome, http_status, url FROM attempt") == [(1, "delivered", 200, URL)]
    trail = await store.rows("SELECT patient_id, action, actor, outcome, subject FROM audit ORDER BY patient_id")
    subject = f"event/{draft.id}/endpoint/{endpoint.id}"
    assert trail == [(patient, "webhook.attempt", "engine", "delivered", subject) for patient in ("p1", "p2")]
    after = await store.endpoint(endpoint)
    assert (after.verified, after.status_detail) == (True, "OK")


async def test_a_failure_waits_for_its_next_attempt_and_attempts_are_counted_on(store: Store) -> None:
    endpoint = await store.add_endpoint()
    await store.append(endpoint)
    await store.settle(await store.claim_one(), bad())
    assert (await store.claim(NOW + timedelta(seconds=4))).deliveries == ()
    second = await store.claim_one(NOW + timedelta(seconds=5))
    assert second.attempt == 2
    await store.settle(second, bad(retry_at=None), NOW + timedelta(seconds=6))
    assert await store.rows("SELECT state, attempts FROM delivery") == [("failed", 2)]
    assert await store.rows("SELECT number FROM attempt ORDER BY id") == [(1,), (2,)]
    ((answer,), _) = await store.rows("SELECT answer FROM attempt")
    assert VAULT.open(Purpose.ANSWER, answer) == b"oops"
    after = await store.endpoint(endpoint)
    assert (after.verified, after.status_detail) == (False, "Request failed with status code 500")
    assert await store.rows("SELECT failures_in_row FROM endpoint") == [(2,)]


async def test_a_lease_that_ran_out_cannot_be_settled(store: Store) -> None:
    await store.append(await store.add_endpoint())
    claimed = await store.claim_one()
    assert not await store.settle(claimed, good(), NOW + LEASE)
    assert await store.rows("SELECT count(*) FROM attempt") == [(0,)]
    assert await store.rows("SELECT count(*) FROM audit") == [(0,)]


async def test_many_outcomes_are_settled_together_each_by_its_own_lease(store: Store) -> None:
    endpoint, other = await store.add_endpoint(), await store.add_endpoint("a2")
    for _ in range(70):
        await store.append(endpoint)
    await store.append(other)
    claimed = list((await store.claim()).deliveries)
    ended = [(each, good()) for each in claimed[:-2]]
    ended += [(claimed[-2], bad(retry_at=None)), (claimed[-1]._replace(lease="lease-0"), good())]
    assert await store.settle_all(*ended) == [True] * 70 + [False]
    states = await store.rows("SELECT state, count(*) FROM delivery GROUP BY state ORDER BY state")
    assert states == [("delivered", 69), ("failed", 1), ("waiting", 1)]
    assert await store.rows("SELECT count(*), sum(number) FROM attempt") == [(70, 70)]
    assert await store.rows("SELECT count(*) FROM audit") == [(70,)]


async def test_of_two_leases_of_a_delivery_in_one_batch_the_one_that_is_held_counts(store: Store) -> None:
    await store.append(await store.add_endpoint())
    former = await store.claim_one()
    holder = await store.claim_one(NOW + LEASE, lease="lease-2")
    settled = await store.settle_all((holder, good()), (former, bad()), at=NOW + LEASE)
    assert settled == [True, False]
    assert await store.rows("SELECT state FROM delivery") == [("delivered",)]
    assert await store.rows("SELECT outcome FROM attempt") == [("delivered",)]


async def test_answers_that_come_together_are_judged_one_after_the_other(store: Store) -> None:
    endpoint = await store.add_endpoint()
    for _ in range(4):
        await store.append(endpoint)
    first, second, third, fourth = (await store.claim()).deliveries
    await store.settle_all((first, bad()), (second, bad()), (third, good()), (fourth, bad()))
    assert await store.rows("SELECT failures_in_row, verified FROM endpoint") == [(1, False)]


async def test_the_former_holder_cannot_settle_what_another_holds_now(store: Store) -> None:
    await store.append(await store.add_endpoint())
    former = await store.claim_one()
    holder = await store.claim_one(NOW + LEASE, lease="lease-2")
    assert not await store.settle(former, bad(), NOW + LEASE)
    assert await store.settle(holder, good(), NOW + LEASE)
    assert not await store.settle(holder, good(), NOW + LEASE)
    assert await store.rows("SELECT state FROM delivery") == [("delivered",)]


async def test_released_leases_are_due_at_once_and_void(store: Store) -> None:
    await store.append(await store.add_endpoint())
    former = await store.claim_one()
    await store.database.write(lambda connection: deliveries.release_leases(connection, NOW))
    assert not await store.settle(former, good())
    assert (await store.claim_one(lease="lease-2")).seq == former.seq


async def test_the_answer_of_an_old_url_says_nothing_of_the_new_one(store: Store) -> None:
    endpoint = await store.add_endpoint()
    await store.append(endpoint)
    claimed = await store.claim_one()
    moved = "https://example.org/new"
    await store.database.write(lambda connection: endpoints.set_url(connection, endpoint, moved, NOW))
    await store.settle(claimed, bad(pause_until=NOW + timedelta(hours=1)))
    after = await store.endpoint(endpoint)
    assert (after.verified, after.status_detail) == (False, None)
    assert await store.rows("SELECT failures_in_row, paused_until FROM endpoint") == [(0, None)]
    retried = await store.claim_one(NOW + timedelta(seconds=5))
    assert retried.target.endpoint.url == moved


async def test_a_disabled_endpoint_is_told_of_once_and_what_waits_is_held(store: Store) -> None:
    endpoint = await store.add_endpoint(event_types=["medical.document-download", "webhook.endpoint-disabled"])
    for _ in range(2):
        await store.append(endpoint)
    for claimed in (await store.claim()).deliveries:
        await store.settle(claimed, bad(outcome=Outcome.GONE))
    assert await store.rows("SELECT state FROM endpoint") == [("disabled",)]
    assert await store.rows("SELECT count(*) FROM event WHERE type = 'webhook.endpoint-disabled'") == [(1,)]
    assert await store.claim(NOW + timedelta(days=1)) == Claim((), None)
    await store.database.write(lambda connection: endpoints.set_url(connection, endpoint, URL, NOW))
    assert len((await store.claim(NOW + timedelta(days=1))).deliveries) == 3


# --- retry, counts, expiry --------------------------------------------------------------------------------------------


async def test_retry_begins_the_schedule_anew_oldest_first_and_spares_pings_and_other_accounts(store: Store) -> None:
    mine, other = await store.add_endpoint(), await store.add_endpoint("a2")
    drafts = [await store.append(mine) for _ in range(3)]
    await store.append(mine, event_type=EventType.PING)
    await store.append(other)
    for claimed in (await store.claim()).deliveries:
        await store.settle(claimed, bad(retry_at=None))
    later = NOW + timedelta(days=1)
    assert await store.database.write(lambda connection: outbox.retry_failed(connection, "a1", later)) == 3
    claim = await store.claim(later)
    assert [claimed.event_id for claimed in claim.deliveries] == [draft.id for draft in drafts]
    assert {claimed.attempt for claimed in claim.deliveries} == {1}


async def test_counts_leave_pings_out(store: Store) -> None:
    endpoint = await store.add_endpoint()
    await store.append(endpoint)
    await store.settle(await store.claim_one(), bad(retry_at=None))
    await store.append(endpoint)
    await store.append(endpoint, event_type=EventType.PING)
    counts = await store.database.read(lambda connection: outbox.count_deliveries(connection, "a1"))
    assert counts == outbox.DeliveryCounts(waiting=1, failed=1)


async def test_the_backlog_is_counted_by_age(store: Store) -> None:
    endpoint = await store.add_endpoint()
    for age in (0, 30, 90, 5000):
        await store.append(endpoint, at=NOW - timedelta(seconds=age))
    bounds = [timedelta(minutes=1), timedelta(hours=1)]
    counts = await store.database.read(lambda connection: deliveries.waiting_by_age(connection, NOW, bounds))
    assert counts == [2, 1, 1]


async def test_expired_payloads_are_forgotten_and_what_waited_for_them_has_failed(store: Store) -> None:
    endpoint = await store.add_endpoint()
    await store.append(endpoint)
    await store.append(endpoint, at=NOW + timedelta(seconds=1))
    expire = lambda connection: outbox.expire_payloads(connection, NOW + RETENTION)  # noqa: E731  used twice, right here
    assert await store.database.write(expire) == 1
    assert await store.database.write(expire) == 0
    rows = await store.rows("SELECT state, outcome, body IS NULL FROM delivery JOIN event ON event.seq = event_seq")
    assert sorted(rows, key=str) == sorted([("failed", "expired", 1), ("waiting", None, 0)], key=str)


async def test_what_is_expunged_while_it_is_being_posted_is_not_posted_again(store: Store) -> None:
    draft = await store.append(await store.add_endpoint())
    claimed = await store.claim_one()
    assert await store.database.write(lambda connection: outbox.expunge_event(connection, "a1", draft.id, NOW))
    assert await store.settle(claimed, bad())
    assert (await store.claim(NOW + timedelta(seconds=5))).deliveries == ()
    assert await store.rows("SELECT state, outcome FROM delivery") == [("failed", "expired")]


async def test_another_accounts_event_cannot_be_expunged(store: Store) -> None:
    draft = await store.append(await store.add_endpoint())
    assert not await store.database.write(lambda connection: outbox.expunge_event(connection, "a2", draft.id, NOW))
    assert await store.rows("SELECT body IS NULL FROM event") == [(0,)]


async def test_expunging_a_patient_leaves_the_others_of_a_message_to_be_told(store: Store) -> None:
    endpoint = await store.add_endpoint()
    shared = await store.append(endpoint, patient_ids=("p1", "p2"))
    await store.append(endpoint, patient_ids=("p1",))
    await store.database.write(lambda connection: outbox.expunge_patient(connection, VAULT, "a1", "p1", NOW))
    claimed = await store.claim_one()
    assert claimed.event_id == shared.id
    assert orjson.loads(VAULT.open(Purpose.PAYLOAD, claimed.body))["patients"] == [{"patientId": "p2"}]
    assert await store.rows("SELECT count(*) FROM delivery WHERE state = 'failed'") == [(1,)]


# --- keys -------------------------------------------------------------------------------------------------------------


async def test_keys_overlap_after_a_rotation_and_then_only_the_new_one_signs(store: Store) -> None:
    endpoint = await store.add_endpoint()

    def rotate(connection: Connection) -> None:
        endpoints.rotate_key(connection, VAULT, endpoint.seq, NOW, timedelta(hours=24))

    def keys_at(moment: datetime) -> Any:
        return lambda connection: endpoints.keys_of(connection, VAULT, endpoint.seq, moment)

    (old,) = await store.database.read(keys_at(NOW))
    await store.database.write(rotate)
    new, still = await store.database.read(keys_at(NOW + timedelta(hours=23)))
    assert still.webhook_key == old.webhook_key
    assert new.webhook_key != old.webhook_key
    assert await store.database.read(keys_at(NOW + timedelta(hours=24))) == (new,)


async def test_a_rotation_without_overlap_leaves_one_key_and_forgets_the_other(store: Store) -> None:
    endpoint = await store.add_endpoint()
    await store.database.write(
        lambda connection: endpoints.rotate_key(connection, VAULT, endpoint.seq, NOW, timedelta())
    )
    assert await store.rows("SELECT count(*) FROM signing_key") == [(1,)]


async def test_keys_are_sealed(store: Store) -> None:
    endpoint = await store.add_endpoint()
    (key,) = await store.database.read(lambda connection: endpoints.keys_of(connection, VAULT, endpoint.seq, NOW))
    ((secret,),) = await store.rows("SELECT secret FROM signing_key")
    assert key.webhook_key.encode() not in secret
    assert key.seed not in secret
