"""The locks that make units take turns on PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from tests.support.gate import Gate, until_one_waits_for_a_lock
from tests.support.outbox_store import Store
from tests.support.profile import database_url

from chartwire.errors import StoreError
from chartwire.store import database
from chartwire.store.bulk import run_simple
from chartwire.store.database import Bell, lock, lock_account
from chartwire.store.postgres import PostgresDatabase

pytestmark = pytest.mark.cluster

Start = Callable[..., Store]

CANCEL = text(
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts one more process on the test's database."""
    async with AsyncExitStack() as stack:

        def start(connections: int = 10) -> Store:
            rung: list[Bell] = []
            database = PostgresDatabase(database_url(tmp_path), rung.append, connections)
            stack.push_async_callback(database.close)
            store = Store(database)
            store.bells = rung
            return store

        yield start


def transaction(connection: Connection) -> str:
    """The transaction that a unit runs in."""
    return str(connection.execute(text("SELECT pg_current_xact_id()")).scalar_one())


def hold(account_id: str, gate: Gate, connection: Connection) -> None:
    """Keep an account's lock until the gate is opened."""
    lock_account(connection, account_id)
    gate.wait(connection)


async def test_a_snapshot_that_locks_first_is_a_snapshot_all_the_same(start: Start) -> None:
    def settings(connection: Connection) -> list[str]:
        lock_account(connection, "a1")
        names = ("transaction_isolation", "transaction_read_only")
        return [str(connection.execute(text(f"SHOW {name}")).scalar_one()) for name in names]

    store = start()
    assert await store.database.read(settings) == ["repeatable read", "on"]
    assert await store.database.write(settings) == ["read committed", "off"]


# --- locks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["account/a1", "a quote ' and \\ and $$", "Zürich/Ž/語"])
async def test_a_lock_is_the_one_of_its_name_whatever_stands_in_it(start: Start, name: str) -> None:
    """The name is said by others, too, as text; and it is first in its transaction, or not."""
    is_free = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")
    store, gate = start(), Gate()
    for is_first in (True, False):

        def unit(connection: Connection, *, is_first: bool = is_first, gate: Gate = gate) -> None:
            if not is_first:
                transaction(connection)
            lock(connection, name)
            gate.wait(connection)

        holding = asyncio.create_task(store.database.write(unit))
        await gate.reached.wait()
        assert not await store.database.write(lambda it: it.execute(is_free, {"name": name}).scalar_one())
        gate.opened.set()
        await holding
        assert await store.database.write(lambda it: it.execute(is_free, {"name": name}).scalar_one())
        gate = Gate()


async def test_a_lock_is_asked_for_once_in_a_transaction_and_again_in_the_next(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, gate, asked = start(connections=1), Gate(), list[str]()

    def ask(connection: Connection, statement: str) -> None:
        asked.append(statement)
        run_simple(connection, statement)

    def locks(connection: Connection) -> None:
        for name in ("a1", "a2", "a1"):
            lock_account(connection, name)

    with monkeypatch.context() as patched:
        patched.setattr(database, "run_simple", ask)
        await store.database.write(locks)
    assert len(asked) == 2
    holding = asyncio.create_task(start().database.write(partial(hold, "a1", gate)))
    await gate.reached.wait()
    following = asyncio.create_task(store.database.write(locks))
    await until_one_waits_for_a_lock(start().database)
    assert not following.done()
    gate.opened.set()
    await asyncio.gather(holding, following)


async def test_a_transaction_that_failed_at_its_first_lock_leaves_nothing_in_its_connection(start: Start) -> None:
    store, other, gate = start(connections=1), start(), Gate()
    holding = asyncio.create_task(other.database.write(partial(hold, "a1", gate)))
    await gate.reached.wait()
    waiting = asyncio.create_task(store.database.write(lambda connection: lock_account(connection, "a1")))
    await until_one_waits_for_a_lock(other.database)
    await other.database.read(lambda it: it.execute(CANCEL).all())
    with pytest.raises(DBAPIError, match="canceling statement"):
        await waiting
    gate.opened.set()
    await holding
    await store.database.write(transaction)
    await store.database.write(lambda connection: lock_account(connection, "a1"))


async def test_a_unit_that_hides_a_failed_statement_is_told_that_nothing_was_committed(start: Start) -> None:
    """PostgreSQL answers a COMMIT then as if nothing were wrong."""

    def hide(connection: Connection) -> None:
        lock_account(connection, "a1")
        with pytest.raises(DBAPIError):
            connection.execute(text("SELECT 1/0"))

    with pytest.raises(StoreError, match="did not commit"):
        await start().database.write(hide)
