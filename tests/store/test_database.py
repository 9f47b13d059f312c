"""The database under many callers, on real SQLite files."""

import asyncio
import gc
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import Connection, bindparam, event, select
from sqlalchemy.exc import IntegrityError, OperationalError, StatementError
from sqlalchemy.pool import Pool
from tests.support.notes import Gate, hand_in, held, keep, make_notes, on_disk, words
from tests.support.patience import PATIENCE_SECONDS

from chartwire.errors import ConfigurationError, StoreError
from chartwire.store import sqlite as sqlite_module
from chartwire.store.database import Bell, ping, ring
from chartwire.store.profile import run_once
from chartwire.store.schema import Moment
from chartwire.store.sqlite import SqliteDatabase, sqlite_path

pytestmark = pytest.mark.embedded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_notes(tmp_path)


@pytest.fixture
def rung() -> list[Bell]:
    return []


@pytest.fixture
def commits() -> Iterator[list[str]]:
    """One entry per commit of the writer thread."""
    seen: list[str] = []

    def note(statement: str) -> None:
        if statement == "COMMIT" and threading.current_thread().name == "chartwire-write":
            seen.append(statement)

    def watch(connection: sqlite3.Connection, _: object) -> None:
        connection.set_trace_callback(note)

    event.listen(Pool, "connect", watch)
    yield seen
    event.remove(Pool, "connect", watch)


@pytest.fixture
async def database(path: Path, rung: list[Bell], commits: list[str]) -> AsyncIterator[SqliteDatabase]:
    del commits  # which watches from here on
    database = SqliteDatabase(path, rung.append)
    yield database
    await database.close()


@pytest.fixture
async def gate(database: SqliteDatabase) -> AsyncIterator[Gate]:
    async with held(database) as gate:
        yield gate


async def test_what_was_written_is_on_disk_and_read(database: SqliteDatabase, path: Path) -> None:
    assert await database.write(keep("one")) == "one"
    assert on_disk(path) == ["one"]
    assert await database.read(words) == ["one"]
    assert await database.read(ping)


async def test_writes_that_wait_together_are_committed_together(
    database: SqliteDatabase, gate: Gate, commits: list[str], path: Path
) -> None:
    tasks = await hand_in(database, [keep(f"{number:03}") for number in range(200)])
    gate.opened.set()
    assert await asyncio.gather(*tasks) == [f"{number:03}" for number in range(200)]
    assert len(on_disk(path)) == 200
    assert len(commits) <= 3


async def test_a_unit_that_fails_does_not_spoil_its_group(
    database: SqliteDatabase, gate: Gate, commits: list[str], path: Path
) -> None:
    def half(connection: Connection) -> str:
        keep("half")(connection)
        raise LookupError("changed its mind")

    units = [keep("a"), half, keep("a"), keep("b")]
    tasks = await hand_in(database, units)
    gate.opened.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[0] == "a"
    assert isinstance(answers[1], LookupError)
    assert isinstance(answers[2], IntegrityError)
    assert answers[3] == "b"
    assert on_disk(path) == ["a", "b"]
    assert len(commits) == 2  # the gate's, and one for the four


async def test_a_statement_that_cannot_even_be_made_spoils_nothing_however_early_it_comes(
    database: SqliteDatabase, gate: Gate, path: Path
) -> None:
    """SQLAlchemy rolls back after such an error if it believes that it has no transaction, as at first it has none."""

    def note_by_hand(word: str) -> Callable[[Connection], str]:
        def unit(connection: Connection) -> str:
            connection.info["cursor"].execute("INSERT INTO note (word) VALUES (?)", (word,))
            return word

        return unit

    def refused(connection: Connection) -> str:
        return str(connection.execute(select(bindparam("number", type_=Moment)), {"number": "no moment"}))

    def carry_on(connection: Connection) -> str:
        with suppress(StatementError):
            refused(connection)
        return "all the same"

    units = [note_by_hand("a"), refused, note_by_hand("b"), carry_on, note_by_hand("c")]
    tasks = await hand_in(database, units)
    gate.opened.set()
    first, error, *rest = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(error, StatementError)
    assert [first, *rest] == ["a", "b", "all the same", "c"]
    assert on_disk(path) == ["a", "b", "c"]


async def test_an_errors_text_does_not_hold_what_was_to_be_stored(database: SqliteDatabase) -> None:
    await database.write(keep("Lovelace"))
    with pytest.raises(IntegrityError) as caught:
        await database.write(keep("Lovelace"))
    assert "Lovelace" not in str(caught.value)


class Unforeseen(BaseException):
    pass


@pytest.mark.parametrize("error", [Unforeseen, asyncio.CancelledError, StopIteration])
async def test_any_exception_reaches_its_caller_and_the_writer_lives_on(
    database: SqliteDatabase, error: type[BaseException], path: Path
) -> None:
    def unit(connection: Connection) -> None:
        keep("half")(connection)
        raise error

    expected = RuntimeError if error is StopIteration else error
    with pytest.raises(expected):
        await asyncio.wait_for(database.write(unit), PATIENCE_SECONDS)
    await database.write(keep("next"))
    assert on_disk(path) == ["next"]


async def test_bells_ring_once_after_the_commit_and_not_for_what_was_rolled_back(path: Path) -> None:
    rung: list[tuple[Bell, list[str]]] = []
    database = SqliteDatabase(path, lambda bell: rung.append((bell, on_disk(path))))

    def fails(connection: Connection) -> str:
        ring(connection, Bell.INTAKE)
        raise LookupError

    async with held(database):
        units = [keep("a", Bell.DELIVERY), fails, keep("b", Bell.DELIVERY), keep("c")]
        tasks = await hand_in(database, units)
    await asyncio.gather(*tasks, return_exceptions=True)
    await database.close()
    assert rung == [(Bell.DELIVERY, ["a", "b", "c"])]


async def test_a_ringer_that_fails_keeps_nobody_waiting(path: Path) -> None:
    def broken(bell: Bell) -> None:
        raise LookupError(bell)

    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["exception"]))
    database = SqliteDatabase(path, broken)
    assert await asyncio.wait_for(database.write(keep("one", Bell.INTAKE)), PATIENCE_SECONDS) == "one"
    await database.close()
    assert [type(complaint) for complaint in complaints] == [LookupError]


async def test_reads_see_committed_data_only_and_never_wait_for_the_writer(
    database: SqliteDatabase, path: Path
) -> None:
    gate = Gate()

    def slow(connection: Connection) -> str:
        keep("slow")(connection)
        gate(connection)
        return "slow"

    await database.write(keep("before"))
    writing = asyncio.create_task(database.write(slow))
    assert await asyncio.to_thread(gate.reached.wait, PATIENCE_SECONDS)
    reads = await asyncio.wait_for(asyncio.gather(*(database.read(words) for _ in range(20))), PATIENCE_SECONDS)
    assert reads == [["before"]] * 20
    gate.opened.set()
    await writing
    assert await database.read(words) == ["before", "slow"]


async def test_a_read_is_one_snapshot(database: SqliteDatabase) -> None:
    gate = Gate()

    def twice(connection: Connection) -> tuple[list[str], list[str]]:
        first = words(connection)
        gate(connection)
        return first, words(connection)

    reading = asyncio.create_task(database.read(twice))
    assert await asyncio.to_thread(gate.reached.wait, PATIENCE_SECONDS)
    await database.write(keep("meanwhile"))
    gate.opened.set()
    assert await reading == ([], [])


async def test_a_read_cannot_write(database: SqliteDatabase, path: Path) -> None:
    with pytest.raises(OperationalError, match="readonly"):
        await database.read(keep("one"))
    assert on_disk(path) == []


async def test_a_caller_that_goes_away_leaves_its_unit_queued(database: SqliteDatabase, gate: Gate, path: Path) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    tasks = await hand_in(database, [keep(word) for word in ("stays", "leaves", "leaves")])
    for task in tasks[1:]:
        task.cancel()
    gate.opened.set()
    assert await tasks[0] == "stays"
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    await database.write(keep("z"))
    assert on_disk(path) == ["leaves", "stays", "z"]
    del task, tasks
    gc.collect()
    assert complaints == []  # about the second "leaves", which failed without a caller


async def test_close_finishes_what_was_handed_in_and_takes_no_more(path: Path, rung: list[Bell]) -> None:
    database = SqliteDatabase(path, rung.append)
    gate = Gate()
    held, *tasks = [asyncio.create_task(database.write(unit)) for unit in (gate, keep("a"), keep("b"))]
    assert await asyncio.to_thread(gate.reached.wait, PATIENCE_SECONDS)
    closing = asyncio.create_task(database.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreError, match="closed"):
        await database.write(keep("late"))
    gate.opened.set()
    await closing
    await held
    assert await asyncio.gather(*tasks) == ["a", "b"]
    for late in (database.write(keep("late")), database.read(words)):
        with pytest.raises(StoreError, match="closed"):
            await late
    await database.close()  # again, harmlessly
    assert sorted(file.name for file in path.parent.iterdir()) == ["chartwire.db"]  # the log was moved in
    assert on_disk(path) == ["a", "b"]


def holds(path: Path, content: bytes) -> bool:
    return content in path.read_bytes()


def comes_to_hold(path: Path, content: bytes) -> bool:
    """Looks again and again: a file tells nobody when it changes."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not (there := holds(path, content)) and time.monotonic() < give_up_at:
        time.sleep(0.01)
    return there


@contextmanager
def snapshot(path: Path) -> Iterator[None]:
    """Another program reads: what is committed meanwhile is not moved under its eyes."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM note").fetchone()
        yield


async def test_the_log_is_moved_into_the_database_behind_the_writers_back(database: SqliteDatabase, path: Path) -> None:
    """The database file alone, which a commit does not touch, comes to hold what was committed."""
    with snapshot(path):
        await database.write(keep("moved by the checkpointer"))
        assert not holds(path, b"moved by the checkpointer")
    await database.write(keep("it moves something after each commit"))
    assert await asyncio.to_thread(comes_to_hold, path, b"moved by the checkpointer")


def test_the_command_line_writes_beside_a_server(path: Path) -> None:
    assert run_once(f"sqlite:///{path}", keep("one")) == "one"
    assert on_disk(path) == ["one"]


def test_the_command_line_says_that_there_is_no_database_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="run `chartwire migrate`"):
        run_once(f"sqlite:///{tmp_path}/absent.db", ping)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreError, match="run `chartwire migrate`"):
        run_once(f"sqlite:///{tmp_path}/empty.db", words)


@pytest.mark.parametrize("name", ["plain.db", "with space.db", "100%.db", "what?.db", "a#b.db"])
def test_any_file_name_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.touch()
    engine = sqlite_module.connect_sqlite(path)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE note (word TEXT)")
    engine.dispose()
    assert path.stat().st_size > 0


def test_the_file_of_a_database_url() -> None:
    assert sqlite_path("sqlite:////var/lib/chartwire.db") == Path("/var/lib/chartwire.db")
    assert sqlite_path("sqlite:///data/chartwire.db") == Path("data/chartwire.db")


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "sqlite://host/x.db", "mysql://localhost/x", "nonsense", ""]
)
def test_other_database_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="neither sqlite:///<file>"):
        sqlite_path(url)
