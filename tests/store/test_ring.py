"""Who is served next: accounts in turn, their endpoints in turn, and nobody at another's cost."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from tests.support.notes import Gate
from tests.support.outbox_store import LEASE, NOW, VAULT, Store, bad, good, open_store
from tests.support.patience import PATIENCE_SECONDS

from chartwire.clock import to_milliseconds
from chartwire.model.signing_key import SigningKey
from chartwire.model.webhook import Endpoint, EventType, Outcome
from chartwire.store import audit, claims, deliveries, endpoints, outbox, ring, schema
from chartwire.store.bulk import Statement
from chartwire.store.claims import Claim, Room
from chartwire.store.targets import Targets
from chartwire.store.vault import Purpose

SECOND = timedelta(seconds=1)
MILLISECOND = timedelta(milliseconds=1)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "test.db") as store:
        yield store
        await expect_the_ring_to_be_whole(store)


async def expect_the_ring_to_be_whole(store: Store) -> None:
    """No `ready_at` is later than the work below it is due, or than what holds it is over."""
    late = """
        SELECT seq FROM (
            SELECT endpoint.seq, endpoint.ready_at, min(due_at) AS due, held_until, paused_until
            FROM endpoint JOIN delivery ON endpoint_seq = endpoint.seq AND delivery.state = 'waiting'
            WHERE endpoint.state = 'enabled' AND url IS NOT NULL GROUP BY endpoint.seq)
        AS latest WHERE ready_at IS NULL
            OR ready_at > due AND ready_at > coalesce(held_until, 0) AND ready_at > coalesce(paused_until, 0)"""
    assert await store.rows(late) == []
    # An account that had its turn stands behind all that were ready then, which is not late.
    behind = f"""
        SELECT account.id FROM account JOIN endpoint ON account_id = account.id
        WHERE endpoint.ready_at IS NOT NULL AND (account.ready_at IS NULL OR account.ready_at > endpoint.ready_at
            AND account.ready_at > {to_milliseconds(store.looked_at)})
        AND endpoint.state = 'enabled'"""  # noqa: S608  a number of ours
    assert await store.rows(behind) == []


def receivers(claim: Claim) -> Counter[int]:
    return Counter(claimed.target.endpoint.seq for claimed in claim.deliveries)


async def crowd(store: Store, endpoint: Endpoint, count: int) -> None:
    await asyncio.gather(*(store.append(endpoint) for _ in range(count)))


# --- fairness ---------------------------------------------------------------------------------------------------------


async def test_an_account_with_many_endpoints_gets_no_more_than_one_with_a_single_one(store: Store) -> None:
    many = [await store.add_endpoint("a1") for _ in range(20)]
    single = await store.add_endpoint("a2")
    for endpoint in [*many, single]:
        await crowd(store, endpoint, 16)
    claim = await store.claim(room=Room(total=64, per_endpoint=16, busy={}))
    shares = receivers(claim)
    assert (shares.pop(single.seq), set(shares.values()), shares.total()) == (16, {1, 2}, 32)


async def test_every_endpoint_has_its_turn_before_one_has_a_second(store: Store) -> None:
    everyone = [await store.add_endpoint("a1") for _ in range(6)]
    for endpoint in everyone:
        await crowd(store, endpoint, 5)
    served: list[int] = []
    for turn in range(3):
        claim = await store.claim(NOW + turn * MILLISECOND, Room(2, 16, {}), f"lease-{turn}")
        served += [claimed.target.endpoint.seq for claimed in claim.deliveries]
    assert sorted(served) == [endpoint.seq for endpoint in everyone]


async def test_a_newcomer_waits_behind_no_backlog(store: Store) -> None:
    crowded = await store.add_endpoint("a1")
    await crowd(store, crowded, 50)
    await store.claim(NOW, Room(4, 16, {}))
    newcomer = await store.add_endpoint("a2")
    await store.append(newcomer, at=NOW + MILLISECOND)
    claim = await store.claim(NOW + MILLISECOND, Room(2, 16, {crowded.seq: 4}), "lease-2")
    assert receivers(claim)[newcomer.seq] == 1


async def test_what_one_leaves_goes_to_the_others(store: Store) -> None:
    modest, greedy = await store.add_endpoint("a1"), await store.add_endpoint("a2")
    await crowd(store, modest, 1)
    await crowd(store, greedy, 20)
    claim = await store.claim(room=Room(16, 16, {}))
    assert receivers(claim) == {modest.seq: 1, greedy.seq: 7}  # as many as stay free for all others


@pytest.mark.embedded
async def test_endpoints_that_hang_leave_room_for_one_that_comes_later(store: Store) -> None:
    hanging = [await store.add_endpoint(f"a{number}") for number in range(10)]
    for endpoint in hanging:
        await crowd(store, endpoint, 30)
    busy: Counter[int] = Counter()
    for turn in range(12):
        room = Room(32 - busy.total(), 16, dict(busy))
        busy += receivers(await store.claim(NOW + turn * MILLISECOND, room, f"lease-{turn}"))
    assert busy.total() < 32
    newcomer = await store.add_endpoint("b")
    await store.append(newcomer)
    claim = await store.claim(NOW + 20 * MILLISECOND, Room(32 - busy.total(), 16, dict(busy)), "lease-20")
    assert receivers(claim)[newcomer.seq] == 1


@pytest.mark.embedded
async def test_those_that_hang_leave_a_quarter_of_the_room_to_those_that_have_little_under_way(store: Store) -> None:
    hanging = [await store.add_endpoint(f"a{number}") for number in range(5)]
    for endpoint in hanging:
        await crowd(store, endpoint, 30)
    busy: Counter[int] = Counter()
    for turn in range(12):
        room = Room(64 - busy.total(), 16, dict(busy), frozenset(busy), limit=64)
        busy += receivers(await store.claim(NOW + turn * MILLISECOND, room, f"lease-{turn}"))
    assert 16 <= 64 - busy.total() < 32
    for newcomer in [await store.add_endpoint(f"b{number}") for number in range(8)]:
        await crowd(store, newcomer, 3)
    room = Room(64 - busy.total(), 16, dict(busy), limit=64)
    claim = await store.claim(NOW + 20 * MILLISECOND, room, "lease-20")
    assert sorted(receivers(claim).values()) == [2] * 8


@pytest.mark.embedded
async def test_one_that_holds_all_it_may_have_of_the_room_is_looked_at_when_that_ends_or_before_long(
    store: Store,
) -> None:
    greedy, late = await store.add_endpoint("a1"), await store.add_endpoint("a2")
    await crowd(store, greedy, 20)
    claim = await store.claim(room=Room(8, 16, {}, limit=8))
    assert (len(claim.deliveries), claim.full) == (3, frozenset({greedy.seq}))
    await store.append(late)
    busy = {greedy.seq: 3}
    assert receivers(await store.claim(NOW + MILLISECOND, Room(5, 16, busy, limit=8), "lease-2")) == {late.seq: 1}
    assert await store.claim(NOW + 2 * MILLISECOND, Room(100, 16, busy, limit=8), "lease-3") == Claim(
        (), NOW + timedelta(milliseconds=100)
    )
    freed = Room(100, 4, {greedy.seq: 2}, frozenset({greedy.seq}), limit=8)
    assert receivers(await store.claim(NOW + 3 * MILLISECOND, freed, "lease-4")) == {greedy.seq: 2}


@pytest.mark.embedded
@pytest.mark.parametrize("busy", [2, 3])
async def test_an_endpoint_that_holds_its_share_is_not_looked_at_all_the_time(store: Store, busy: int) -> None:
    endpoint = await store.add_endpoint()
    await crowd(store, endpoint, 10)
    claim = await store.claim(NOW, Room(18, 32, {endpoint.seq: busy}, limit=64))
    assert claim == Claim((), NOW + timedelta(milliseconds=100), frozenset({endpoint.seq}))


async def test_first_attempts_and_repeats_share_an_endpoint_by_halves(store: Store) -> None:
    endpoint = await store.add_endpoint()
    await crowd(store, endpoint, 11)
    *failing, last = (await store.claim()).deliveries
    for claimed in failing:
        await store.settle(claimed, bad(retry_at=NOW))
    await store.settle(last, good())
    later = NOW + SECOND
    news = [(await store.append(endpoint, at=later)).id for _ in range(10)]
    claim = await store.claim(later, Room(100, 6, {}), "lease-2")
    assert Counter(claimed.attempt for claimed in claim.deliveries) == {1: 3, 2: 3}
    assert [claimed.event_id for claimed in claim.deliveries if claimed.attempt == 1] == news[:3]


async def test_what_is_taken_one_by_one_is_now_a_first_attempt_and_now_a_repeat(store: Store) -> None:
    endpoint = await store.add_endpoint()
    await crowd(store, endpoint, 41)
    *failing, last = (await store.claim()).deliveries
    await store.settle_all(*((claimed, bad(retry_at=NOW)) for claimed in failing), (last, good()))
    await crowd(store, endpoint, 40)
    attempts = set()
    for turn in range(40):
        claimed = await store.claim_one(NOW + turn * MILLISECOND, Room(1, 100, {}), f"one-{turn}")
        attempts.add(claimed.attempt)
        await store.settle(claimed, good())
    assert attempts == {1, 2}


async def test_what_is_replayed_does_not_hold_up_news(store: Store) -> None:
    endpoint = await store.add_endpoint()
    await crowd(store, endpoint, 10)
    for claimed in (await store.claim()).deliveries:
        await store.settle(claimed, bad(retry_at=None))
    await store.database.write(lambda connection: outbox.retry_failed(connection, "a1", NOW))
    news = await store.append(endpoint, at=NOW + SECOND)
    claim = await store.claim(NOW + SECOND, Room(100, 2, {}), "lease-2")
    assert news.id in [claimed.event_id for claimed in claim.deliveries]


async def test_a_full_process_is_no_reason_to_pass_an_endpoint_over_once_there_is_room(store: Store) -> None:
    crowded, late = await store.add_endpoint("a1"), await store.add_endpoint("a2")
    await crowd(store, crowded, 3)
    await store.append(late)
    claim = await store.claim(room=Room(6, 3, {}))
    assert claim.full == {crowded.seq}
    await store.append(late)
    busy = {crowded.seq: 2, late.seq: 1}
    again = await store.claim(NOW + MILLISECOND, Room(3, 3, busy, frozenset({crowded.seq})), "lease-2")
    assert receivers(again) == {late.seq: 1}


# --- what holds an endpoint -------------------------------------------------------------------------------------------


@pytest.mark.embedded
async def test_a_full_endpoint_leaves_the_ring_until_it_is_freed(store: Store) -> None:
    endpoint = await store.add_endpoint(max_in_flight=2)
    await crowd(store, endpoint, 5)
    claim = await store.claim()
    assert (len(claim.deliveries), claim.full, claim.next_due) == (2, frozenset({endpoint.seq}), NOW + LEASE)
    assert await store.settle(claim.deliveries[0], good())
    still = await store.claim(NOW + SECOND, Room(100, 16, {endpoint.seq: 2}), "lease-2")
    assert still.deliveries == ()
    freed = Room(100, 16, {endpoint.seq: 1}, frozenset({endpoint.seq}))
    assert len((await store.claim(NOW + SECOND, freed, "lease-3")).deliveries) == 1


async def test_what_was_full_in_a_process_that_died_comes_back_with_its_leases(store: Store) -> None:
    endpoint = await store.add_endpoint(max_in_flight=2)
    await crowd(store, endpoint, 3)
    await store.claim()
    assert len((await store.claim(NOW + LEASE, lease="lease-2")).deliveries) == 2


@pytest.mark.embedded
async def test_news_does_not_wake_a_full_endpoint_but_its_release_finds_it(store: Store) -> None:
    endpoint = await store.add_endpoint(max_in_flight=1)
    await crowd(store, endpoint, 1)
    await store.claim()
    await store.append(endpoint)
    assert (await store.rows("SELECT count(*) FROM endpoint WHERE ready_at = held_until")) == [(1,)]
    freed = Room(100, 16, {}, frozenset({endpoint.seq}))
    assert len((await store.claim(room=freed, lease="lease-2")).deliveries) == 1


async def test_a_rate_limit_spreads_what_waits_over_time(store: Store) -> None:
    endpoint = await store.add_endpoint(rate_per_second=3)
    await crowd(store, endpoint, 9)
    first = await store.claim()
    assert len(first.deliveries) == 3
    assert first.next_due == NOW + timedelta(milliseconds=334)
    assert (await store.claim(NOW + timedelta(milliseconds=333), lease="lease-2")).deliveries == ()
    assert len((await store.claim(first.next_due, lease="lease-3")).deliveries) == 1
    assert len((await store.claim(NOW + 3 * SECOND, lease="lease-4")).deliveries) == 3


async def fail_all(store: Store, claim: Claim, at: datetime) -> None:
    await store.settle_all(*((claimed, bad()) for claimed in claim.deliveries), at=at)


async def test_each_failure_in_a_row_halves_what_is_under_way_at_an_endpoint(store: Store) -> None:
    endpoint = await store.add_endpoint(max_in_flight=16)
    await crowd(store, endpoint, 60)
    *others, last = (await store.claim(room=Room(100, 16, {}))).deliveries
    assert len(others) == 15
    await store.settle_all(*((each, good()) for each in others), (last, bad()))
    again = await store.claim(NOW, Room(100, 16, {}), "lease-2")
    assert len(again.deliveries) == 8


async def test_an_endpoint_that_fails_is_not_hurried_and_is_at_once_when_it_is_well_again(store: Store) -> None:
    endpoint = await store.add_endpoint()
    await crowd(store, endpoint, 60)
    await fail_all(store, await store.claim(room=Room(100, 16, {})), NOW)
    ended = Room(100, 16, {}, frozenset({endpoint.seq}), frozenset({endpoint.seq}))
    assert (await store.claim(NOW, ended, "lease-2")).deliveries == ()
    assert (await store.claim(NOW + timedelta(milliseconds=999), lease="lease-3")).deliveries == ()
    probes = await store.claim(NOW + SECOND, Room(100, 16, {}), "lease-4")
    assert len(probes.deliveries) == 2
    await store.append(endpoint, at=NOW + SECOND)
    await store.settle(probes.deliveries[0], bad(), NOW + SECOND)
    assert (await store.claim(NOW + SECOND, ended, "lease-5")).deliveries == ()
    await store.settle(probes.deliveries[1], good(), NOW + SECOND)
    again = await store.claim(NOW + SECOND, Room(100, 16, {}), "lease-6")
    assert len(again.deliveries) == 16


async def test_what_is_begun_at_an_endpoint_that_fails_is_a_first_attempt_and_a_repeat(store: Store) -> None:
    endpoint = await store.add_endpoint()
    await crowd(store, endpoint, 20)
    claim = await store.claim(room=Room(100, 16, {}))
    await store.settle_all(*((claimed, bad(retry_at=NOW)) for claimed in claim.deliveries))
    await store.claim(NOW, Room(100, 16, {}, frozenset({endpoint.seq})), "lease-2")
    probes = await store.claim(NOW + SECOND, Room(100, 16, {}), "lease-3")
    assert sorted(claimed.attempt for claimed in probes.deliveries) == [1, 2]


async def test_five_strains_open_the_breaker_which_probes_one_at_a_time_and_uses_up_no_attempts(store: Store) -> None:
    endpoint = await store.add_endpoint()
    await crowd(store, endpoint, 10)
    for claimed in (await store.claim(room=Room(100, 5, {}))).deliveries:
        await store.settle(claimed, bad(outcome=Outcome.TIMEOUT, retry_at=NOW + SECOND))
    freed = Room(100, 16, {}, frozenset({endpoint.seq}))
    assert (await store.claim(NOW + 29 * SECOND, freed, "lease-2")).deliveries == ()
    probed_at = NOW + 30 * SECOND
    (probe,) = (await store.claim(probed_at, lease="lease-3")).deliveries
    assert (await store.claim(probed_at, Room(100, 16, {endpoint.seq: 1}), "lease-4")).deliveries == ()
    failed = bad(outcome=Outcome.TIMEOUT, retry_at=probed_at + SECOND, started_at=probed_at)
    await store.settle(probe, failed, probed_at + SECOND)
    assert (await store.claim(probed_at + 60 * SECOND, freed, "lease-5")).deliveries == ()
    (probe,) = (await store.claim(probed_at + 61 * SECOND, lease="lease-6")).deliveries
    assert await store.rows("SELECT sum(attempts) FROM delivery") == [(6,)]
    await store.settle(probe, good(), probed_at + 62 * SECOND)
    assert len((await store.claim(probed_at + 62 * SECOND, lease="lease-7")).deliveries) == 9


async def test_the_breaker_stays_open_over_a_restart(store: Store) -> None:
    endpoint = await store.add_endpoint()
    await crowd(store, endpoint, 6)
    for claimed in (await store.claim(room=Room(100, 5, {}))).deliveries:
        await store.settle(claimed, bad(outcome=Outcome.REFUSED))
    await store.database.write(lambda connection: ring.release_all(connection, NOW + SECOND))
    claim = await store.claim(NOW + SECOND, lease="lease-2")
    assert claim == Claim((), NOW + 30 * SECOND)


async def test_a_new_url_closes_the_breaker(store: Store) -> None:
    endpoint = await store.add_endpoint()
    await crowd(store, endpoint, 6)
    for claimed in (await store.claim(room=Room(100, 5, {}))).deliveries:
        await store.settle(claimed, bad(outcome=Outcome.REFUSED, retry_at=NOW))
    await store.database.write(
        lambda connection: endpoints.set_url(connection, endpoint, "https://example.org/new", NOW)
    )
    assert len((await store.claim(NOW, lease="lease-2")).deliveries) == 6


async def test_after_five_days_of_failures_the_endpoint_is_disabled_and_the_owner_told_once(store: Store) -> None:
    endpoint = await store.add_endpoint(event_types=["medical.document-download", "webhook.endpoint-disabled"])
    states: list[str] = []
    for days in range(8):
        at = NOW + timedelta(days=days)
        await store.append(endpoint, at=at)
        for claimed in (await store.claim(at, lease=f"lease-{days}")).deliveries:
            await store.settle(claimed, bad(retry_at=None, started_at=at), at)
        states += [state for (state,) in await store.rows("SELECT state FROM endpoint")]
    assert states == ["enabled"] * 5 + ["disabled"] * 3
    notices = await store.rows("SELECT count(*) FROM event WHERE type = 'webhook.endpoint-disabled'")
    assert notices == [(1,)]


async def test_a_disabled_endpoint_is_told_about_with_its_reason(store: Store) -> None:
    endpoint = await store.add_endpoint()
    watcher = await store.add_endpoint(event_types=[EventType.ENDPOINT_DISABLED])
    await store.append(endpoint)
    await store.settle(await store.claim_one(), bad(outcome=Outcome.GONE))
    (notice,) = (await store.claim(lease="lease-2")).deliveries
    assert notice.target.endpoint.seq == watcher.seq
    assert f'"endpoint":{{"id":"{endpoint.id}","reason":"gone"}}'.encode() in VAULT.open(Purpose.PAYLOAD, notice.body)


# --- cost -------------------------------------------------------------------------------------------------------------


def plan_of(statement: Statement, rows: int) -> Callable[[Connection], list[str]]:
    def unit(connection: Connection) -> list[str]:
        text = statement.text("sqlite", rows)
        parameters = len(set(re.findall(r"\?\d+", text))) or text.count("?")
        rows_of_plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", (0,) * parameters)
        return [row.detail for row in rows_of_plan]

    return unit


PLANS: dict[str, tuple[Statement, list[str]]] = {
    "ready accounts": (ring.READY_ACCOUNTS, ["SEARCH account USING INDEX ix_account_ready_at (ready_at<?)"]),
    "ready endpoints": (
        ring.READY_ENDPOINTS,
        ["SEARCH endpoint USING INDEX ix_endpoint_account_id_ready_at (account_id=? AND ready_at<?)"],
    ),
    "first waiting": (
        ring.FIRST_WAITING,
        ["SEARCH delivery USING INDEX ix_delivery_due (endpoint_seq=? AND again=?)"],
    ),
    "turn endpoints": (ring.TURN_ENDPOINTS, ["SEARCH endpoint USING INTEGER PRIMARY KEY (rowid=?)"]),
    "turn accounts": (
        ring.TURN_ACCOUNTS,
        [
            "SEARCH account USING INDEX sqlite_autoindex_account_1 (id=?)",
            "SEARCH endpoint USING COVERING INDEX ix_endpoint_account_id_ready_at (account_id=? AND ready_at>?)",
        ],
    ),
    "wake": (ring.WAKE, ["SEARCH endpoint USING INTEGER PRIMARY KEY (rowid=?)"]),
    "release": (ring.RELEASE, ["SEARCH endpoint USING INTEGER PRIMARY KEY (rowid=?)"]),
    "wake account": (ring.WAKE_ACCOUNT, ["SEARCH account USING INDEX sqlite_autoindex_account_1 (id=?)"]),
    "lease": (claims.LEASE, ["SEARCH delivery USING INTEGER PRIMARY KEY (rowid=?)"]),
    "load events": (claims.LOAD_EVENTS, ["SEARCH event USING INTEGER PRIMARY KEY (rowid=?)"]),
    "settle": (deliveries.SETTLE, ["SEARCH delivery USING INTEGER PRIMARY KEY (rowid=?)"]),
    "record attempts": (
        deliveries.RECORD_ATTEMPTS,
        ["SEARCH attempt USING COVERING INDEX ix_attempt_delivery_seq (delivery_seq=?)"],
    ),
    "in doubt": (deliveries.IN_DOUBT, ["SEARCH endpoint USING INTEGER PRIMARY KEY (rowid=?)"]),
    "audit attempts": (
        audit.RECORD_ATTEMPTS,
        ["SEARCH event_subject USING COVERING INDEX sqlite_autoindex_event_subject_1 (event_seq=?) LEFT-JOIN"],
    ),
}


@pytest.mark.embedded
@pytest.mark.parametrize("rows", [1, 64])
@pytest.mark.parametrize("name", PLANS)
async def test_each_step_of_a_cycle_is_a_search_in_an_index_without_a_sort(store: Store, name: str, rows: int) -> None:
    statement, expected = PLANS[name]
    steps = await store.database.read(plan_of(statement, 1 if name == "ready accounts" else rows))
    assert {step for step in steps if step.startswith("SEARCH")} == set(expected)
    assert [step for step in steps if "TEMP B-TREE" in step] == []
    scanned = {step.split()[1] for step in steps if step.startswith("SCAN")}
    assert scanned & schema.metadata.tables.keys() == set()


BACKLOG = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
INSERT INTO {table} SELECT {values} FROM n"""


def fill(connection: Connection, endpoint_count: int, rows: int, accounts: int) -> None:
    """`rows` deliveries that wait, spread over endpoints and accounts."""
    columns = "event_seq, endpoint_seq, account_id, state, attempts, again, due_at, created_at"
    now = 1735787045000 - 1000

    def insert(table: str, count: int, values: str) -> None:
        connection.execute(text(BACKLOG.format(rows=count, table=table, values=values)))

    insert("account (id, name, created_at, ready_at)", accounts, f"'a' || i, 'n', {now}, {now}")
    insert(
        "endpoint (seq, id, account_id, is_settings, url, state, verified, payload_version, delivery,"
        " send_webhook_key, signature_scheme, created_at, version, ready_at)",
        endpoint_count,
        f"i, 'e' || i, 'a' || (1 + i % {accounts}), 0, 'https://e', 'enabled', 1, '2023-04', 'as-available', 1, 'v1',"
        f" {now}, 0, {now}",
    )
    insert(
        "event (id, account_id, type, payload_version, body, size, created_at, expires_at)",
        rows // endpoint_count,
        f"'m' || i, 'a1', 'medical.document-download', '2023-04', x'00', 1, {now}, {now}",
    )
    insert(
        f"delivery ({columns})",
        rows,
        f"1 + (i - 1) / {endpoint_count}, 1 + i % {endpoint_count},"
        f" 'a' || (1 + (1 + i % {endpoint_count}) % {accounts}), 'waiting', 0, 0, {now}, {now}",
    )


async def steps_of_a_claim(folder: Path, endpoint_count: int, rows: int, accounts: int) -> int:
    """How many steps SQLite's machine takes for one claim: a cost that no busy computer changes."""
    async with open_store(folder / f"{rows}-{endpoint_count}.db") as store:
        await store.database.write(lambda connection: fill(connection, endpoint_count, rows, accounts))

        def unit(connection: Connection) -> int:
            counted = 0

            def count() -> None:
                nonlocal counted
                counted += 10

            driver: Any = connection.connection.dbapi_connection
            driver.set_progress_handler(count, 10)
            claim = claims.claim(connection, Targets(VAULT), Room(64, 16, {}), "lease", NOW, NOW + LEASE)
            driver.set_progress_handler(None, 10)
            assert len(claim.deliveries) >= 60
            return counted

        return await store.database.write(unit)


@pytest.mark.embedded
async def test_a_claim_costs_the_same_whatever_waits_and_for_however_many_endpoints(tmp_path: Path) -> None:
    small = await steps_of_a_claim(tmp_path, endpoint_count=100, rows=1_000, accounts=64)
    deep = await steps_of_a_claim(tmp_path, endpoint_count=100, rows=50_000, accounts=64)
    wide = await steps_of_a_claim(tmp_path, endpoint_count=10_000, rows=50_000, accounts=640)
    one_account = await steps_of_a_claim(tmp_path, endpoint_count=5_000, rows=10_000, accounts=1)
    assert max(deep, wide) < small * 1.2
    assert one_account < small * 1.5


@pytest.mark.embedded
async def test_a_key_of_a_run_that_was_rolled_back_signs_nothing(store: Store) -> None:
    """A group of units of which one fails is run again from its start, and a rotation makes another key then."""
    endpoint, gate = await store.add_endpoint(), Gate()
    await store.append(endpoint)

    def rotate(connection: Connection) -> SigningKey:
        return endpoints.rotate_key(connection, VAULT, endpoint.seq, NOW, timedelta())

    def fail(connection: Connection) -> None:
        raise LookupError("no")

    holding = asyncio.create_task(store.database.write(gate))
    assert await asyncio.to_thread(gate.reached.wait, PATIENCE_SECONDS)
    rotating, claiming = asyncio.create_task(store.database.write(rotate)), asyncio.create_task(store.claim())
    failing = asyncio.create_task(store.database.write(fail))
    await asyncio.sleep(0)
    gate.opened.set()
    await holding
    key, claim = await rotating, await claiming
    with pytest.raises(LookupError):
        await failing
    assert [claimed.target.keys for claimed in claim.deliveries] == [(key,)]


@pytest.mark.parametrize("damage", ["UPDATE signing_key SET secret = :bad", "UPDATE endpoint SET headers = :headers"])
async def test_an_endpoint_whose_secrets_cannot_be_opened_stops_no_other(store: Store, damage: str) -> None:
    broken, sound = await store.add_endpoint("a1"), await store.add_endpoint("a2")
    for endpoint in (broken, sound):
        await store.append(endpoint)
    where = "endpoint_seq" if "signing_key" in damage else "seq"
    values = {"bad": b"altered", "headers": '{"x-token": "YWx0ZXJlZA=="}'}
    chosen = {name: value for name, value in values.items() if f":{name}" in damage}
    statement = text(f"{damage} WHERE {where} = {broken.seq}")
    await store.database.write(lambda connection: connection.execute(statement, chosen))
    claim = await store.claim()
    assert receivers(claim) == {sound.seq: 1}
    again = await store.claim(NOW + 2 * LEASE, lease="lease-2")
    assert receivers(again) == {sound.seq: 1}  # and what is put right goes out when the lease is over
