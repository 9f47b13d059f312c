"""PostgreSQL as several processes use it: each database here stands for one of them."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from tests.support.gate import Gate, until_one_waits_for_a_lock
from tests.support.outbox_store import LEASE, NOW, RETENTION, VAULT, Store, bad, draft_for, good
from tests.support.patience import PATIENCE_SECONDS
from tests.support.postgres import PostgresServer, shared_server
from tests.support.profile import database_url

from chartwire.clock import system_clock
from chartwire.errors import StoreError
from chartwire.model.webhook import DeliveryFilter, Endpoint, EventType
from chartwire.store import claims, deliveries, feed, history, outbox, postgres, registry, replays, ring, schema
from chartwire.store.bulk import Statement
from chartwire.store.claims import Room
from chartwire.store.database import Bell, lock_account, ping
from chartwire.store.database import ring as ring_bell
from chartwire.store.migrate import current, is_on, pending, upgrade
from chartwire.store.postgres import PostgresDatabase, connect_postgres, run_alone
from chartwire.store.targets import Targets

pytestmark = pytest.mark.cluster

SECOND = timedelta(seconds=1)
Start = Callable[[], Store]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts one more process on the test's database."""
    async with AsyncExitStack() as stack:

        def start() -> Store:
            rung: list[Bell] = []
            database = PostgresDatabase(database_url(tmp_path), rung.append)
            stack.push_async_callback(database.close)
            store = Store(database)
            store.bells = rung
            return store

        yield start


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such option")
async def test_a_server_that_is_gone_without_a_word_is_not_waited_for_without_end(tmp_path: Path) -> None:
    """Only the kernel can tell: a statement has been sent, and nobody says that no answer will come."""
    engine = connect_postgres(database_url(tmp_path))
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        line = driver._transport.get_extra_info("socket")
        assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle, interval, count, unanswered = (
            line.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        )
    await engine.dispose()
    assert idle + interval * count <= 30
    assert unanswered <= 30_000


# --- units ------------------------------------------------------------------------------------------------------------


async def test_what_was_written_is_read_and_what_failed_is_not_there(start: Start) -> None:
    store = start()
    account = await store.database.write(lambda connection: registry.create_account(connection, "Clinic", NOW))
    assert await store.database.read(registry.list_accounts) == [account]

    def fail(connection: Connection) -> None:
        registry.create_account(connection, "Another", NOW)
        ring_bell(connection, Bell.EVENT)
        raise LookupError("no")

    with pytest.raises(LookupError):
        await store.database.write(fail)
    assert await store.database.read(registry.list_accounts) == [account]
    assert store.bells == []


async def test_a_read_is_one_snapshot_and_cannot_write(start: Start) -> None:
    store, gate = start(), Gate()
    counted = select(func.count()).select_from(schema.account)

    def read(connection: Connection) -> tuple[int, int]:
        before = connection.execute(counted).scalar_one()
        gate.wait(connection)
        return before, connection.execute(counted).scalar_one()

    reading = asyncio.create_task(store.database.read(read))
    await gate.reached.wait()
    await store.database.write(lambda connection: registry.create_account(connection, "Clinic", NOW))
    gate.opened.set()
    assert await reading == (0, 0)
    with pytest.raises(DBAPIError, match="read-only"):
        await store.database.read(lambda connection: registry.create_account(connection, "Clinic", NOW))


async def test_units_that_deadlock_are_run_again(start: Start) -> None:
    store = start()
    ids = [
        (await store.database.write(lambda connection: registry.create_account(connection, "Clinic", NOW))).id
        for _ in range(2)
    ]
    gates = Gate(), Gate()
    runs: Counter[int] = Counter()

    def rename(which: int, connection: Connection) -> None:
        runs[which] += 1
        for step, account_id in enumerate(ids if which == 0 else reversed(ids)):
            connection.execute(update(schema.account).where(schema.account.c.id == account_id).values(name=str(which)))
            if step == 0 and runs[which] == 1:
                gates[which].wait(connection)

    both = [asyncio.create_task(store.database.write(partial(rename, which))) for which in (0, 1)]
    for gate in gates:
        await gate.reached.wait()
    for gate in gates:
        gate.opened.set()
    await asyncio.gather(*both)
    assert runs.total() == 3
    assert len({account.name for account in await store.database.read(registry.list_accounts)}) == 1


async def test_a_caller_that_goes_away_leaves_its_unit_running(start: Start) -> None:
    store, gate = start(), Gate()

    def unit(connection: Connection) -> None:
        registry.create_account(connection, "Clinic", NOW)
        gate.wait(connection)

    writing = asyncio.create_task(store.database.write(unit))
    await gate.reached.wait()
    writing.cancel()
    await asyncio.wait({writing})
    gate.opened.set()
    await store.database.close()
    assert len(await start().database.read(registry.list_accounts)) == 1
    with pytest.raises(StoreError, match="closed"):
        await store.database.write(ping)


async def test_an_errors_text_does_not_hold_what_was_to_be_stored(start: Start) -> None:
    store = start()
    key = {"account_id": "none", "name": "Jane Roe", "after_seq": 0, "updated_at": NOW}

    def remember(row: dict[str, object], connection: Connection) -> None:
        connection.execute(insert(schema.event_cursor), row)

    for values in (key, {**key, "name": "Jane Roe" * 20}, {**key, "name": 7}):
        with pytest.raises(DBAPIError) as caught:
            await store.database.write(partial(remember, values))
        error: BaseException | None = caught.value
        while error is not None:
            assert "Jane" not in str(error)
            assert "none" not in str(error)
            error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    "wrong", ["SELECT 1/0", "SELECT * FROM nothing", "SELECT pg_terminate_backend(pg_backend_pid())"]
)
async def test_an_error_of_a_hot_statement_is_as_of_any_other(tmp_path: Path, wrong: str) -> None:
    async def fail(run: Callable[[Connection], object]) -> tuple[type[DBAPIError], bool]:
        engine = connect_postgres(database_url(tmp_path), connections=1)
        try:
            async with engine.connect() as connection:
                with pytest.raises(DBAPIError) as caught:
                    await connection.run_sync(run)
            return caught.type, caught.value.connection_invalidated
        finally:
            await engine.dispose()

    hot = await fail(Statement(wrong).run)
    assert hot == await fail(lambda connection: connection.exec_driver_sql(wrong))


@pytest.mark.parametrize("is_hot", [True, False])
async def test_connections_that_were_cut_together_are_found_out_together(start: Start, is_hot: bool) -> None:
    """As in a failover: to try one after the other would take longer than callers wait."""
    database, tries = start().database, 0
    await asyncio.gather(*(database.read(lambda it: it.exec_driver_sql("SELECT pg_sleep(0.2)")) for _ in range(10)))
    await start().database.write(cut_all_others)

    def unit(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        if is_hot:
            ring.NEXT_READY.run(connection)
        else:
            ping(connection)

    await database.write(unit)
    assert tries == 2


def cut_all_others(connection: Connection) -> None:
    """End all connections to this database, and wait until they have ended."""
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    connection.exec_driver_sql(f"SELECT pg_terminate_backend(pid, 10000) {others}")


async def test_a_plan_that_the_tables_have_outgrown_is_forgotten(start: Start) -> None:
    store, everything = start(), Statement("SELECT * FROM event_cursor")
    assert await store.database.write(everything.run) == []
    await start().database.write(lambda it: it.exec_driver_sql("ALTER TABLE event_cursor ADD COLUMN colour text"))
    assert await store.database.write(everything.run) == []


async def test_a_bell_is_heard_in_other_processes_after_the_commit(start: Start) -> None:
    here, there = start(), start()

    def unit(connection: Connection) -> None:
        ring_bell(connection, Bell.DELIVERY)

    async with asyncio.timeout(PATIENCE_SECONDS):
        while Bell.DELIVERY not in there.bells:  # nobody may be listening yet, and then it is lost
            await here.database.write(unit)
            await asyncio.sleep(0)
    assert set(there.bells) == {Bell.DELIVERY}


async def test_work_goes_on_after_the_server_was_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_PATIENCE_SECONDS", PATIENCE_SECONDS)
    server = PostgresServer()
    try:
        server.start()
        upgrade(server.url("postgres"))
        rung: list[Bell] = []
        database = PostgresDatabase(server.url("postgres"), rung.append)
        await database.write(lambda connection: registry.create_account(connection, "Clinic", NOW))
        await asyncio.to_thread(server.stop)
        waiting = asyncio.create_task(database.read(registry.list_accounts))
        await asyncio.to_thread(server.start)
        assert len(await waiting) == 1
        await asyncio.to_thread(server.stop)
        monkeypatch.setattr(postgres, "_PATIENCE_SECONDS", 0.1)
        with pytest.raises(StoreError, match="not to be had"):
            await database.read(ping)
        await database.close()
    finally:
        await asyncio.to_thread(server.remove)


# --- taking turns -----------------------------------------------------------------------------------------------------


async def test_units_about_an_account_take_turns_and_those_of_others_do_not_wait(start: Start) -> None:
    store, gate = start(), Gate()

    def hold(connection: Connection) -> None:
        lock_account(connection, "a1")
        gate.wait(connection)

    holding = asyncio.create_task(store.database.write(hold))
    await gate.reached.wait()
    following = asyncio.create_task(start().database.write(lambda connection: lock_account(connection, "a1")))
    await store.database.write(lambda connection: lock_account(connection, "a2"))
    assert not following.done()
    gate.opened.set()
    await asyncio.gather(holding, following)


async def test_a_reader_of_the_feed_misses_nothing_of_transactions_that_overlap(start: Start) -> None:
    slow, fast = start(), start()
    endpoint, gate = await slow.add_endpoint(), Gate()

    def append_slowly(connection: Connection) -> None:
        _append(connection, endpoint)
        gate.wait(connection)

    writing = asyncio.create_task(slow.database.write(append_slowly))
    await gate.reached.wait()
    following = asyncio.create_task(fast.append(endpoint))
    seen = await _positions(fast, after=0)
    assert seen == []  # neither is there yet: the later one waits for the earlier one
    gate.opened.set()
    await asyncio.gather(writing, following)
    assert len(await _positions(fast, after=0)) == 2


async def test_a_reader_that_follows_many_writers_sees_every_event_once_and_in_order(start: Start) -> None:
    stores = [start() for _ in range(3)]
    endpoint = await stores[0].add_endpoint()
    seen: list[int] = []

    async def write(store: Store) -> None:
        for _ in range(15):
            await store.append(endpoint)

    writing = asyncio.gather(*(write(store) for store in stores))
    while not writing.done() or len(seen) < 45:
        seen += await _positions(stores[0], after=seen[-1] if seen else 0)
    assert len(set(seen)) == 45


async def _positions(store: Store, after: int) -> list[int]:
    found = await store.database.read(lambda connection: feed.read_feed(connection, VAULT, "a1", after, (), 100))
    return [event.position for event in found]


def _append(connection: Connection, endpoint: Endpoint) -> None:
    outbox.append(connection, VAULT, draft_for(endpoint), [endpoint], NOW, RETENTION)


# --- claims -----------------------------------------------------------------------------------------------------------


async def test_two_processes_never_claim_the_same_and_leave_nothing(start: Start) -> None:
    stores = [start(), start()]
    receivers = [await stores[0].add_endpoint(f"a{number}") for number in range(8)]
    for receiver in receivers:
        for _ in range(5):
            await stores[0].append(receiver)
    claimed: list[int] = []
    # One clock for both, and less than a lease: one may look often while the other is in a long transaction.
    times = iter([NOW + number * SECOND / 100 for number in range(5_000)])

    async def work(store: Store, name: str) -> None:
        while len(claimed) < 40 and (now := next(times, None)) is not None:
            claim = await store.claim(now, Room(6, 100, {}), name)
            claimed.extend(each.seq for each in claim.deliveries)

    await asyncio.gather(*(work(store, f"lease-{number}") for number, store in enumerate(stores)))
    assert len(set(claimed)) == len(claimed) == 40


async def test_an_endpoint_s_limit_holds_in_the_whole_cluster(start: Start) -> None:
    one, other = start(), start()
    endpoint = await one.add_endpoint(max_in_flight=4)
    for _ in range(10):
        await one.append(endpoint)
    room = Room(100, 16, {})
    first = await one.claim(NOW, replace(room, total=4), "lease-1")
    later = NOW + 2 * SECOND
    assert len(first.deliveries) + len((await other.claim(later, room, "lease-2")).deliveries) == 4
    later += 2 * SECOND
    assert (await one.claim(later, room, "lease-3")).deliveries == ()
    for claimed in first.deliveries[:2]:
        assert await one.settle(claimed, good(), later)
    freed = Room(100, 16, {}, finished=frozenset({endpoint.seq}))
    assert (len((await one.claim(later, freed, "lease-4")).deliveries), await leased(one)) == (2, 4)


async def test_an_endpoint_that_another_process_frees_is_looked_at_within_a_second(start: Start) -> None:
    one, other = start(), start()
    endpoint = await one.add_endpoint(max_in_flight=1)
    for _ in range(2):
        await one.append(endpoint)
    claimed = await one.claim_one(lease="lease-1")
    assert (await other.claim(NOW + SECOND, lease="lease-2")).deliveries == ()
    assert await one.settle(claimed, good(), NOW + SECOND)  # and the process ends, telling nobody
    assert len((await other.claim(NOW + 3 * SECOND, lease="lease-2")).deliveries) == 1


async def test_what_a_dead_process_held_is_claimed_again_and_does_not_count(start: Start) -> None:
    dead, alive = start(), start()
    endpoint = await dead.add_endpoint(max_in_flight=2)
    for _ in range(2):
        await dead.append(endpoint)
    held = await dead.claim(NOW, lease="lease-1")
    assert len(held.deliveries) == 2
    after = NOW + LEASE + SECOND
    again = await alive.claim(after, lease="lease-2")
    assert {each.seq for each in again.deliveries} == {each.seq for each in held.deliveries}
    assert not await dead.settle(held.deliveries[0], good(), after)  # woken too late
    assert await alive.settle(again.deliveries[0], good(), after)


async def test_a_rate_holds_in_the_whole_cluster(start: Start) -> None:
    one, other = start(), start()
    endpoint = await one.add_endpoint(rate_per_second=5)
    for _ in range(20):
        await one.append(endpoint)
    claims_made = [await store.claim(NOW, lease=f"lease-{number}") for number, store in enumerate((one, other, one))]
    assert sum(len(claim.deliveries) for claim in claims_made) == 5


async def test_no_wake_is_lost_to_a_claim_that_did_not_see_the_work(start: Start) -> None:
    """The endpoint is in the ring and empty. A message is written but not committed when a claim passes by."""
    writer, claimer = start(), start()
    endpoint, gate = await writer.add_endpoint(), Gate()
    await writer.append(endpoint)
    claimed = await claimer.claim_one()
    assert await claimer.settle(claimed, good())
    await writer.database.write(lambda connection: ring.wake(connection, [endpoint.seq], NOW))

    def append_slowly(connection: Connection) -> None:
        _append(connection, endpoint)
        gate.wait(connection)

    writing = asyncio.create_task(writer.database.write(append_slowly))
    await gate.reached.wait()
    assert (await claimer.claim(lease="lease-2")).deliveries == ()
    gate.opened.set()
    await writing
    assert len((await claimer.claim(lease="lease-3")).deliveries) == 1


async def test_no_wake_is_lost_to_a_claim_that_is_under_way(start: Start) -> None:
    writer, claimer = start(), start()
    endpoint, gate = await writer.add_endpoint(), Gate()
    await writer.database.write(lambda connection: ring.wake(connection, [endpoint.seq], NOW))

    def claim_slowly(connection: Connection) -> int:
        claim = claims.claim(connection, Targets(VAULT), Room(10, 10, {}), "lease-1", NOW, NOW + LEASE)
        gate.wait(connection)
        return len(claim.deliveries)

    claiming = asyncio.create_task(claimer.database.write(claim_slowly))
    await gate.reached.wait()
    appending = asyncio.create_task(writer.append(endpoint))
    await until_one_waits_for_a_lock(claimer.database)
    gate.opened.set()
    assert await claiming == 0
    await appending
    assert len((await claimer.claim(lease="lease-2")).deliveries) == 1


@pytest.mark.parametrize("is_same", [True, False])
async def test_of_two_that_wake_an_account_the_earlier_word_holds_whoever_writes_last(
    start: Start, is_same: bool
) -> None:
    early, late = start(), start()
    endpoint, other, gate = await early.add_endpoint(), await early.add_endpoint(), Gate()
    await early.database.write(_forget_ring)

    def wake_slowly(connection: Connection) -> None:
        ring.wake(connection, [endpoint.seq], NOW)
        gate.wait(connection)

    waking = asyncio.create_task(early.database.write(wake_slowly))
    await gate.reached.wait()
    seq = endpoint.seq if is_same else other.seq
    following = asyncio.create_task(late.database.write(lambda connection: ring.wake(connection, [seq], NOW + SECOND)))
    await until_one_waits_for_a_lock(early.database)
    gate.opened.set()
    await waking
    await following
    ready = select(schema.endpoint.c.seq, schema.endpoint.c.ready_at).order_by(schema.endpoint.c.seq)
    endpoints = dict(await late.database.read(lambda connection: connection.execute(ready).all()))
    assert endpoints[endpoint.seq] == NOW
    assert endpoints[other.seq] == (None if is_same else NOW + SECOND)
    accounts = select(func.min(schema.account.c.ready_at))
    assert await late.database.read(lambda connection: connection.execute(accounts).scalar_one()) == NOW


def _forget_ring(connection: Connection) -> None:
    """Nothing waits anywhere."""
    connection.execute(update(schema.endpoint).values(ready_at=None))
    connection.execute(update(schema.account).values(ready_at=None))


async def test_what_a_process_settled_as_it_died_comes_back_when_its_lease_ends(start: Start) -> None:
    """A claim passes by while the row is locked, and must not leave the endpoint without its next look."""
    dying, claimer = start(), start()
    endpoint, gate = await dying.add_endpoint(verified=True), Gate()
    await dying.append(endpoint)
    held = await dying.claim_one()

    def settle_and_die(connection: Connection) -> None:
        deliveries.settle(connection, VAULT, [(held, good())], NOW + SECOND, RETENTION)
        gate.wait(connection)
        raise LookupError("killed before the commit")

    settling = asyncio.create_task(dying.database.write(settle_and_die))
    await gate.reached.wait()
    await claimer.database.write(lambda connection: ring.wake(connection, [endpoint.seq], NOW))
    assert (await claimer.claim(NOW + SECOND, lease="lease-2")).deliveries == ()
    gate.opened.set()
    with pytest.raises(LookupError):
        await settling
    assert len((await claimer.claim(NOW + LEASE + SECOND, lease="lease-3")).deliveries) == 1


async def test_what_another_has_locked_is_looked_for_again(start: Start) -> None:
    """As when a patient's messages are expunged by a unit that does not come to its end."""
    dying, claimer = start(), start()
    endpoint, gate = await dying.add_endpoint(verified=True), Gate()
    drafts = [await dying.append(endpoint) for _ in range(2)]

    def expunge_and_die(connection: Connection) -> None:
        outbox.expunge_event(connection, "a1", drafts[0].id, NOW)
        gate.wait(connection)
        raise LookupError("killed before the commit")

    expunging = asyncio.create_task(dying.database.write(expunge_and_die))
    await gate.reached.wait()
    claim = await claimer.claim(NOW)
    assert [each.event_id for each in claim.deliveries] == [drafts[1].id]
    gate.opened.set()
    with pytest.raises(LookupError):
        await expunging
    claim = await claimer.claim(NOW + SECOND, lease="lease-2")
    assert [each.event_id for each in claim.deliveries] == [drafts[0].id]


async def test_a_replay_leaves_alone_what_was_sent_again_meanwhile(start: Start) -> None:
    """Else what is being posted would be due, and be posted a second time beside it."""
    replaying, other = start(), start()
    endpoint, gate = await replaying.add_endpoint(verified=True), Gate()
    await replaying.append(endpoint, event_type=EventType.DOCUMENT_BULK_DOWNLOAD_URLS)
    assert await replaying.settle(await replaying.claim_one(), good())
    replay = await replaying.database.write(lambda it: replays.start(it, "a1", DeliveryFilter(), NOW))

    def advance_slowly(connection: Connection) -> None:
        def renew(body: bytes) -> bytes:
            gate.wait(connection)
            return body

        replays.advance(connection, VAULT, replay.id, renew, NOW, 10)

    advancing = asyncio.create_task(replaying.database.write(advance_slowly))
    await gate.reached.wait()
    await other.database.write(_send_all_again)
    posted = await other.claim_one(NOW + SECOND, lease="lease-2")
    gate.opened.set()
    await advancing
    assert (await other.claim(NOW + 2 * SECOND, lease="lease-3")).deliveries == ()
    assert await other.settle(posted, good(), NOW + 3 * SECOND)


def _send_all_again(connection: Connection) -> None:
    rows = connection.execute(history.select_deliveries("a1", DeliveryFilter()))
    replays.send_again(connection, VAULT, [history.to_delivery(row) for row in rows], lambda body: body, NOW)


async def test_failures_that_come_together_are_all_counted(start: Start) -> None:
    stores = [start(), start()]
    endpoint = await stores[0].add_endpoint()
    for _ in range(6):
        await stores[0].append(endpoint)
    claim = await stores[0].claim()
    await asyncio.gather(
        *(stores[number % 2].settle(each, bad(NOW + SECOND)) for number, each in enumerate(claim.deliveries))
    )
    assert await stores[0].rows("SELECT failures_in_row FROM endpoint") == [(6,)]


async def test_all_who_settle_lock_endpoints_in_one_order_and_accounts_after_them(start: Start) -> None:
    """Whatever the order of the answers: another holds the first endpoint, and nothing else is locked before it."""
    one, other, gate = start(), start(), Gate()
    receivers = [await one.add_endpoint(f"a{number}") for number in range(4)]
    for receiver in receivers:
        await one.append(receiver)
    ended = [(each, bad() if each.seq % 2 else good()) for each in (await one.claim()).deliveries]

    def hold(connection: Connection) -> tuple[int, int]:
        connection.execute(text("SELECT seq FROM endpoint ORDER BY seq LIMIT 1 FOR UPDATE"))
        gate.wait(connection)
        free = [text(f"SELECT * FROM {table} FOR UPDATE NOWAIT") for table in ("endpoint", "account")]  # noqa: S608
        endpoints, accounts = (len(connection.execute(statement).all()) for statement in free)
        return endpoints, accounts

    holding = asyncio.create_task(other.database.write(hold))
    await gate.reached.wait()
    settling = asyncio.create_task(one.settle_all(*sorted(ended, key=lambda each: -each[0].seq)))
    waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    while not await other.rows(waits):
        assert not settling.done()
    gate.opened.set()
    assert await holding == (4, 4)
    assert await settling == [True] * 4


async def leased(store: Store) -> int:
    """How many deliveries are under way."""
    ((count,),) = await store.rows("SELECT count(*) FROM delivery WHERE lease IS NOT NULL")
    return int(count)


# --- migrations -------------------------------------------------------------------------------------------------------


@pytest.fixture
def empty_url() -> str:
    """A database without tables."""
    server = shared_server()
    server.execute("DROP DATABASE IF EXISTS test_empty WITH (FORCE)")
    server.execute("CREATE DATABASE test_empty")
    return server.url("test_empty")


def test_of_processes_that_start_together_one_makes_the_steps(empty_url: str) -> None:
    assert current(empty_url) is None
    steps = pending(empty_url)
    made: list[list[str]] = []
    threads = [threading.Thread(target=lambda: made.append(upgrade(empty_url))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [[], [], steps]
    assert pending(empty_url) == []


def test_the_steps_lead_to_the_tables_of_the_schema(tmp_path: Path) -> None:
    def unit(connection: Connection) -> object:
        context = MigrationContext.configure(connection, opts={"include_object": is_on("postgresql")})
        return compare_metadata(context, schema.metadata)

    assert run_alone(database_url(tmp_path), unit) == []


async def test_all_works_without_what_a_transaction_pooler_takes_away(tmp_path: Path) -> None:
    database = PostgresDatabase(database_url(tmp_path), lambda _: None, pooler=True)
    account = await database.write(lambda connection: registry.create_account(connection, "Clinic", system_clock()))
    assert await database.read(registry.list_accounts) == [account]
    kept = await database.read(lambda it: it.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one())
    assert kept <= 1  # the one that asks
    await database.close()
