"""Ranges of the history on PostgreSQL: made ahead, begun by a jump of the sequences, dropped whole beside all work."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, select, text, update
from tests.support.forgetting import DAY, KEPT, count, deliver, events, upkeep
from tests.support.gate import Gate, until_one_waits_for_a_lock
from tests.support.outbox_store import LEASE, NOW, RETENTION, VAULT, Store, draft_for, good, open_store
from tests.support.postgres import shared_server

from chartwire.clock import to_milliseconds
from chartwire.model.webhook import EventDraft
from chartwire.store import outbox, ranges, rows, schema
from chartwire.store.migrate import _config, upgrade
from chartwire.store.postgres import PostgresDatabase, run_alone

pytestmark = pytest.mark.cluster

SHARE = KEPT / 6
MILLISECOND = timedelta(milliseconds=1)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path) as opened:
        yield opened


async def known(store: Store) -> list[int]:
    """The ranges that there are."""
    return await store.database.read(ranges.known_ranges)


async def ranges_of(store: Store, table: str, number: str) -> list[int]:
    """The ranges that hold rows of a table."""
    found = await store.rows(f"SELECT DISTINCT {number} / {ranges.WIDTH} FROM {table} ORDER BY 1")  # noqa: S608
    return [each for (each,) in found]


async def test_there_are_never_more_than_eight_and_each_has_a_stretch_of_time(store: Store) -> None:
    endpoint = await store.add_endpoint()
    for day in (NOW + days * DAY for days in range(160)):
        await deliver(store, endpoint, day)
        await upkeep(store, day, day)
        assert len(await known(store)) <= 8
    there = await known(store)
    assert there == list(range(there[0], there[0] + len(there)))
    assert there[0] > 0
    for table, number in (
        ("event", "seq"),
        ("event_subject", "event_seq"),
        ("delivery", "seq"),
        ("attempt", "delivery_seq"),
    ):
        assert await ranges_of(store, table, number) == there
    spans = await store.rows(
        f"SELECT max(created_at) - min(created_at) FROM event GROUP BY seq / {ranges.WIDTH}"  # noqa: S608
    )
    assert max(span for (span,) in spans) <= (SHARE + DAY) / MILLISECOND


YEARS = timedelta(days=2 * 365)


@pytest.mark.parametrize("ahead", [(0,), (0, 1), (3,), (9,), range(8, 12)], ids=str)
async def test_a_clock_that_was_ahead_for_a_moment_holds_nothing(store: Store, ahead: Sequence[int]) -> None:
    """It may have dated the first events, one among others, the last of a range, or the last and the first."""
    endpoint = await store.add_endpoint()
    for number in range(100):
        today = NOW + number * DAY
        draft = await deliver(store, endpoint, today)
        if number in ahead:
            await redate(store, draft, today + YEARS)
        await upkeep(store, today, today)
        assert len(await known(store)) <= 8
    left = await count(store, "event")
    assert left * DAY <= KEPT + SHARE + 2 * DAY
    ((oldest,),) = await store.rows("SELECT min(created_at) FROM event")
    assert oldest <= to_milliseconds(NOW + 100 * DAY - KEPT)


async def redate(store: Store, draft: EventDraft, at: datetime) -> None:
    """Let a message have been written by a clock that was wrong."""

    def unit(connection: Connection) -> None:
        of_draft = schema.event.c.id == draft.id
        connection.execute(update(schema.event).where(of_draft).values(created_at=at, expires_at=at + RETENTION))
        of_event = schema.delivery.c.event_seq.in_(select(schema.event.c.seq).where(of_draft))
        connection.execute(update(schema.delivery).where(of_event).values(created_at=at))

    await store.database.write(unit)


async def test_a_clock_that_is_behind_forgets_nothing(store: Store) -> None:
    endpoint = await store.add_endpoint()
    for number in range(30):
        await deliver(store, endpoint, NOW + number * DAY)
        await upkeep(store, NOW + number * DAY, NOW + number * DAY)
    for behind in (YEARS, 25 * DAY):
        await upkeep(store, NOW + 30 * DAY - behind, NOW + 30 * DAY - behind)
    await deliver(store, endpoint, NOW + 30 * DAY)
    await upkeep(store, NOW + 30 * DAY - YEARS, NOW + 30 * DAY - YEARS)
    assert await count(store, "event") == 31
    assert len(await known(store)) <= 8


async def test_one_row_of_a_clock_that_was_behind_does_not_make_its_range_old(store: Store) -> None:
    endpoint = await store.add_endpoint()
    written = [await deliver(store, endpoint, NOW + number * DAY) for number in range(9)]
    written.append(await deliver(store, endpoint, NOW + 9 * DAY))
    await redate(store, written[-1], NOW - 10 * YEARS)
    await upkeep(store, NOW + SHARE + DAY, NOW + SHARE + DAY)
    written.append(await deliver(store, endpoint, NOW + SHARE + DAY))
    assert await ranges_of(store, "event", "seq") == [0, 1]
    await upkeep(store, NOW + KEPT, NOW + KEPT + 8 * DAY)
    assert await events(store) == [each.id for each in written]
    await upkeep(store, NOW + KEPT + 9 * DAY, NOW + KEPT + 9 * DAY)
    assert await events(store) == [written[-1].id]


async def test_an_installation_that_is_told_nothing_has_one_range(store: Store) -> None:
    await deliver(store, await store.add_endpoint(), NOW)
    assert await known(store) == [0]


async def test_a_range_that_was_made_by_a_process_that_died_is_begun_by_another(store: Store) -> None:
    endpoint = await store.add_endpoint()
    await deliver(store, endpoint, NOW)
    late = NOW + SHARE + DAY
    assert await store.database.write(lambda it: ranges.forget_history(it, KEPT, late))  # and no more
    assert await known(store) == [0, 1]
    await deliver(store, endpoint, late)
    assert await ranges_of(store, "delivery", "seq") == [0]
    await upkeep(store, late, late)
    await deliver(store, endpoint, late)
    assert await ranges_of(store, "event", "seq") == await ranges_of(store, "delivery", "seq") == [0, 1]
    assert await known(store) == [0, 1]


async def test_a_new_range_is_as_good_as_the_one_before(store: Store) -> None:
    """The same columns, defaults, keys and indexes, those of the range alone too."""
    await deliver(store, await store.add_endpoint(), NOW)
    await upkeep(store, NOW + SHARE + DAY, NOW + SHARE + DAY)
    for table in ("event", "event_subject", "delivery", "attempt"):
        first, second = [await definition(store, f"{table}_{number}") for number in (0, 1)]
        assert first == second


async def definition(store: Store, table: str) -> set[str]:
    """What a table has, without its name and those of its indexes."""
    found = await store.rows(
        f"""SELECT column_name || ' ' || data_type || ' ' || is_nullable || coalesce(column_default, '')
            FROM information_schema.columns WHERE table_name = '{table}'
        UNION SELECT regexp_replace(indexdef, 'INDEX .* USING', 'USING') FROM pg_indexes WHERE tablename = '{table}'
        UNION SELECT pg_get_constraintdef(oid) FROM pg_constraint
            WHERE conrelid = '{table}'::regclass AND contype <> 'n'
        """  # noqa: S608
    )
    return {row[0] for row in found}


async def test_nothing_is_lost_while_ranges_come_and_go_under_load(tmp_path: Path) -> None:
    async with open_store(tmp_path) as one, open_store(tmp_path) as other, open_store(tmp_path) as third:
        receivers = [await one.add_endpoint(f"a{number}") for number in range(4)]
        today = NOW
        written: dict[str, datetime] = {}

        async def work(store: Store, lease: str) -> None:
            number = 0
            while today < NOW + 2 * KEPT:
                at, number = today, number + 1
                draft = await store.append(receivers[number % 4], at=at)
                written[draft.id] = at
                await finish(store, at, lease)  # but for what the other has by now: leases run out as days go by

        async def finish(store: Store, at: datetime, lease: str) -> int:
            claim = await store.claim(at, lease=lease)
            await store.settle_all(*((each, good()) for each in claim.deliveries), at=at)
            return len(claim.deliveries)

        async def keep_up() -> None:
            nonlocal today
            for _ in range(25):
                await upkeep(third, today, today)
                for receiver in receivers:
                    written[(await third.append(receiver, at=today)).id] = today
                today += KEPT / 12

        await asyncio.gather(work(one, "l1"), work(other, "l2"), keep_up())
        while await finish(one, today + 2 * LEASE, "l3"):
            pass
        dropped = (await known(one))[0]
        assert dropped >= 3
        there = set(await events(one))
        assert there <= written.keys()
        assert {each for each, at in written.items() if at > today - KEPT} <= there
        assert await one.rows("SELECT 1 FROM delivery WHERE state = 'waiting'") == []
        assert await count(one, "audit") >= len(written)


async def test_a_range_is_made_beside_a_transaction_that_writes(store: Store, tmp_path: Path) -> None:
    """It would wait, and all others behind it, if it wanted anything that writers lock."""
    endpoint, gate = await store.add_endpoint(), Gate()
    await deliver(store, endpoint, NOW)
    late = NOW + SHARE + DAY

    def write_slowly(connection: Connection) -> None:
        outbox.append_for(connection, VAULT, draft_for(endpoint), [endpoint], late, RETENTION)
        gate.wait(connection)

    async with open_store(tmp_path) as writer:
        writing = asyncio.create_task(writer.database.write(write_slowly))
        await gate.reached.wait()
        assert await store.database.write(lambda it: ranges.forget_history(it, KEPT, late))
        assert await known(store) == [0, 1]
        assert not writing.done()
        gate.opened.set()
        await writing
    assert await count(store, "event") == 2


async def test_a_range_that_somebody_reads_goes_another_time(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "_TRIES", 3)
    endpoint = await store.add_endpoint()
    await deliver(store, endpoint, NOW)
    await upkeep(store, NOW, NOW + KEPT / 2)
    await deliver(store, endpoint, NOW + KEPT / 2)
    await upkeep(store, NOW + KEPT / 2, NOW + KEPT)
    late, gate = NOW + KEPT + SHARE, Gate()

    def read_slowly(connection: Connection) -> bool:
        before = count_events(connection)
        gate.wait(connection)
        return count_events(connection) == before

    async with open_store(tmp_path) as reader:
        reading = asyncio.create_task(reader.database.read(read_slowly))
        await gate.reached.wait()
        await upkeep(store, late, late)
        assert 0 in await known(store)
        gate.opened.set()
        assert await reading
    await upkeep(store, late, late)
    assert 0 not in await known(store)
    assert await count(store, "event") == 1


def count_events(connection: Connection) -> int:
    """How many events a unit sees."""
    return int(connection.execute(text("SELECT count(*) FROM event")).scalar_one())


async def test_rows_from_elsewhere_get_ranges_and_numbers_go_on_after_them(store: Store, tmp_path: Path) -> None:
    endpoint = await store.add_endpoint()
    for day in (NOW + days * SHARE for days in range(12)):
        await deliver(store, endpoint, day)
        await upkeep(store, day, day)
    lines = {
        table.name: await store.database.read(lambda it: list(rows.read_lines(it, table)))  # noqa: B023
        for table in rows.tables()
    }
    async with open_store(tmp_path / "target") as target:

        def fill(connection: Connection) -> None:
            for table in rows.tables():
                rows.write_lines(connection, table, lines[table.name])
            rows.go_on_counting(connection)

        def fill_in_vain(connection: Connection) -> None:
            fill(connection)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await target.database.write(fill_in_vain)
        assert await numbers(target) == (1, 1)
        await target.database.write(fill)
        assert await events(target) == await events(store)
        assert await ranges_of(target, "event", "seq") == await ranges_of(store, "event", "seq")
        ((newest,),) = await target.rows("SELECT max(seq) FROM delivery")
        await target.append(endpoint, at=NOW + 12 * SHARE)
        ((after,),) = await target.rows("SELECT max(seq) FROM delivery")
        assert after > newest
        await upkeep(target, NOW + 20 * SHARE, NOW + 20 * SHARE)
        assert (await known(target))[0] > (await known(store))[0]


async def test_deliveries_in_a_later_range_than_their_event_go_with_it(store: Store) -> None:
    """An event may be written before the jump of its number, and its delivery after that of its own."""
    endpoint = await store.add_endpoint()
    gone = await deliver(store, endpoint, NOW)
    await store.database.write(lambda it: ranges.make_room(it, [ranges.WIDTH]))
    (event_seq,) = (await store.rows("SELECT max(seq) FROM event"))[0]
    jump = text(f"SELECT setval('delivery_seq_seq', {ranges.WIDTH})")
    await store.database.write(lambda it: it.execute(jump))
    other = await store.add_endpoint()
    await store.database.write(lambda it: outbox.deliver(it, [event_seq], other, NOW))
    assert await store.settle(await store.claim_one(), good())
    assert await ranges_of(store, "delivery", "seq") == [0, 1]

    await upkeep(store, NOW + 2 * KEPT, NOW + 2 * KEPT)
    assert await events(store) == [gone.id]  # that of the newest delivery: exports hold both, or none

    newer = await deliver(store, endpoint, NOW + 2 * KEPT)
    await upkeep(store, NOW + 2 * KEPT, NOW + 2 * KEPT)
    assert await events(store) == [newer.id]
    assert [await count(store, table) for table in ("delivery", "attempt")] == [1, 1]


async def numbers(store: Store) -> tuple[int, ...]:
    """Where the numbers of deliveries and events are. They must not be in a range that is not there."""
    found = await store.rows("SELECT d.last_value, e.last_value FROM delivery_seq_seq AS d, event_seq_seq AS e")
    return tuple(found[0])


# --- an installation that was there before ----------------------------------------------------------------------------


@pytest.fixture
def old_url() -> Iterator[str]:
    """A database as it was before there were ranges."""
    server = shared_server()
    server.execute("DROP DATABASE IF EXISTS test_before_ranges WITH (FORCE)")
    server.execute("CREATE DATABASE test_before_ranges")
    url = server.url("test_before_ranges")
    run_alone(url, lambda connection: command.upgrade(_config(connection), "0013"))
    yield url
    server.execute("DROP DATABASE test_before_ranges WITH (FORCE)")


FILL = """
INSERT INTO account (id, name, created_at) VALUES ('a1', 'Clinic', 0);
INSERT INTO endpoint (id, account_id, is_settings, state, verified, payload_version, delivery, send_webhook_key,
    signature_scheme, created_at, version) VALUES ('e1', 'a1', true, 'enabled', true, '2023-04', 'x', true, 'v1', 0, 0);
INSERT INTO event (id, account_id, type, payload_version, size, created_at, expires_at)
    SELECT 'm' || i, 'a1', 'ping', '2023-04', 1, i, i FROM generate_series(1, 100) AS i;
INSERT INTO event_subject SELECT seq, 'p1' FROM event;
INSERT INTO delivery (event_seq, endpoint_seq, account_id, state, due_at, created_at)
    SELECT seq, 1, 'a1', 'failed', 0, 0 FROM event;
INSERT INTO attempt (delivery_seq, number, started_at, duration_ms, outcome, url)
    SELECT seq, 1, 0, 0, 'timeout', 'https://example.com' FROM delivery
"""


def test_the_tables_of_before_become_the_first_range(old_url: str) -> None:
    def fill(connection: Connection) -> None:
        for statement in FILL.split(";"):
            connection.execute(text(statement))

    run_alone(old_url, fill)
    before = run_alone(old_url, files_and_rows)
    run_alone(old_url, lambda connection: command.upgrade(_config(connection), "0015"))
    assert run_alone(old_url, in_first_range(files_and_rows)) == before
    assert run_alone(old_url, add_one) == (101, 101, 101)


async def test_the_step_is_made_beside_those_who_work(old_url: str) -> None:
    """They have locks in another order than the step changes the tables: whoever waited would wait for ever."""
    database, gate = PostgresDatabase(old_url, lambda _: None), Gate()

    def work(connection: Connection) -> None:
        connection.execute(text("LOCK TABLE attempt IN ROW EXCLUSIVE MODE"))
        gate.wait(connection)
        connection.execute(text("LOCK TABLE event IN ROW EXCLUSIVE MODE"))

    working = asyncio.create_task(database.write(work))
    await gate.reached.wait()
    upgrading = asyncio.create_task(asyncio.to_thread(upgrade, old_url))
    await until_one_waits_for_a_lock(database)
    gate.opened.set()
    await working
    assert await upgrading == ["0014", "0015", "0016"]
    await database.close()


ADD = """
INSERT INTO event (id, account_id, type, payload_version, size, created_at, expires_at)
    VALUES ('new', 'a1', 'ping', '2023-04', 1, 0, 0);
INSERT INTO delivery (event_seq, endpoint_seq, account_id, state, due_at, created_at)
    SELECT max(seq), 1, 'a1', 'failed', 0, 0 FROM event;
INSERT INTO attempt (delivery_seq, number, started_at, duration_ms, outcome, url)
    SELECT max(seq), 1, 0, 0, 'timeout', 'https://example.com' FROM delivery
"""
DIVIDED = ("event", "event_subject", "delivery", "attempt")


def files_and_rows(connection: Connection, suffix: str = "") -> list[Any]:
    """The file of each table and of its indexes, which tell whether anything was copied, and its rows."""
    found: list[Any] = []
    for table in DIVIDED:
        name = f"{table}{suffix}"
        files = text(
            f"SELECT pg_relation_filenode(indexrelid) FROM pg_index WHERE indrelid = '{name}'::regclass"  # noqa: S608
            f" UNION ALL SELECT pg_relation_filenode('{name}') ORDER BY 1"
        )
        found.append(connection.execute(files).scalars().all())
        found.append(connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2")).all())  # noqa: S608
    return found


def in_first_range(look: Callable[[Connection, str], list[Any]]) -> Callable[[Connection], list[Any]]:
    """Look at the first ranges in place of the tables."""
    return lambda connection: look(connection, "_0")


def add_one(connection: Connection) -> tuple[int, ...]:
    """The numbers of what is written after the step."""
    for statement in ADD.split(";"):
        connection.execute(text(statement))
    newest = "SELECT (SELECT max(seq) FROM event), (SELECT max(seq) FROM delivery), (SELECT max(id) FROM attempt)"
    return tuple(connection.execute(text(newest)).one())
