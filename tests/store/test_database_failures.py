"""The database beside other processes, under locks, full disks and kills; all of it on real SQLite files."""

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError
from tests.support.notes import Gate, hand_in, held, keep, make_notes, on_disk, words
from tests.support.patience import PATIENCE_SECONDS

from chartwire.errors import StoreError
from chartwire.store import sqlite as sqlite_module
from chartwire.store.database import Bell
from chartwire.store.sqlite import SqliteDatabase

pytestmark = pytest.mark.embedded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_notes(tmp_path)


@pytest.fixture
def rung() -> list[Bell]:
    return []


@pytest.fixture
async def database(path: Path, rung: list[Bell]) -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(path, rung.append)
    yield database
    await database.close()


@pytest.fixture
async def gate(database: SqliteDatabase) -> AsyncIterator[Gate]:
    async with held(database) as gate:
        yield gate


def test_an_event_loop_that_is_gone_does_not_stop_the_writer(path: Path, rung: list[Bell]) -> None:
    gate = Gate()

    async def leave() -> SqliteDatabase:
        database = SqliteDatabase(path, rung.append)
        task = asyncio.create_task(database.write(gate))
        assert await asyncio.to_thread(gate.reached.wait, PATIENCE_SECONDS)
        task.cancel()
        return database

    async def come_back(database: SqliteDatabase) -> None:
        gate.opened.set()
        await asyncio.wait_for(database.write(keep("later")), PATIENCE_SECONDS)
        await database.close()

    asyncio.run(come_back(asyncio.run(leave())))
    assert on_disk(path) == ["later"]


OTHER_PROCESS = """
import asyncio, sys
from pathlib import Path
from sqlalchemy import text
from chartwire.store.sqlite import SqliteDatabase

INSERT = text("INSERT INTO note (word) VALUES (:word)")

async def main():
    database = SqliteDatabase(Path(sys.argv[1]), print)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(200):
        await database.write(lambda it: it.execute(INSERT, {"word": f"other {number}"}))
    await database.close()

asyncio.run(main())
"""


async def test_two_processes_write_at_once(database: SqliteDatabase, path: Path) -> None:
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OTHER_PROCESS, str(path), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert other.stdin is not None
    assert other.stdout is not None
    assert await other.stdout.readline() == b"ready\n"
    other.stdin.write(b"go\n")
    await other.stdin.drain()
    for number in range(200):
        await database.write(keep(f"own {number}"))
    assert await other.wait() == 0
    assert len(on_disk(path)) == 400


WRITE_FOREVER = """
import asyncio, itertools, sys
from pathlib import Path
from sqlalchemy import text
from chartwire.store.sqlite import SqliteDatabase

INSERT = text("INSERT INTO note (word) VALUES (:word)")

async def write_forever(database, name):
    for number in itertools.count():
        await database.write(lambda it: it.execute(INSERT, {"word": f"{name}.{number}"}))
        print(f"{name}.{number}", flush=True)

async def main():
    database = SqliteDatabase(Path(sys.argv[1]), print)
    await asyncio.gather(*(write_forever(database, name) for name in range(8)))

asyncio.run(main())
"""


async def test_what_was_answered_outlives_a_kill(path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITE_FOREVER, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    answered = [await process.stdout.readline() for _ in range(500)]
    process.kill()
    answered += (await process.stdout.read()).splitlines(keepends=True)
    await process.wait()
    assert {line.decode().strip() for line in answered if line.endswith(b"\n")} <= set(on_disk(path))


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program is in the middle of a transaction."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    connection.close()


async def test_a_lock_that_is_let_go_only_delays(database: SqliteDatabase, path: Path) -> None:
    with locked(path) as other:
        task = asyncio.create_task(database.write(keep("patient")))
        done, _ = await asyncio.wait([task], timeout=0.3)
        assert not done
        assert await database.read(words) == []
        other.execute("COMMIT")
        assert await asyncio.wait_for(task, PATIENCE_SECONDS) == "patient"


async def test_a_lock_that_is_never_let_go_is_told_to_every_caller(
    path: Path, rung: list[Bell], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "_BUSY_SECONDS", 0.05)
    database = SqliteDatabase(path, rung.append)
    with locked(path) as other:
        for _ in range(2):
            tasks = [database.write(keep(word, Bell.INTAKE)) for word in ("a", "b")]
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(answer) for answer in answers] == [StoreError, StoreError]
            assert str(answers[0]) == "the database did not commit: database is locked"
        other.execute("COMMIT")
    assert await database.write(keep("c")) == "c"
    await database.close()
    assert (on_disk(path), rung) == (["c"], [])


async def test_a_full_disk_is_told_to_every_caller_and_the_writer_lives_on(
    database: SqliteDatabase, path: Path
) -> None:
    def leave_two_pages(connection: Connection) -> str:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")
        return "limited"

    for attempt in range(3):
        async with held(database):
            tasks = await hand_in(database, [leave_two_pages, keep("small"), keep(f"big {attempt}" * 10_000)])
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        kept = [answer for answer in answers if isinstance(answer, str) and answer != "limited"]
        assert on_disk(path) == kept  # who was told that it is kept finds it, and nobody else
        assert isinstance(answers[2], OperationalError)
        assert all("database or disk is full" in str(answer) for answer in answers if not isinstance(answer, str))
    assert await database.write(keep("room again")) == "room again"


async def test_a_commit_that_fails_is_told_to_every_caller(
    database: SqliteDatabase, gate: Gate, path: Path, rung: list[Bell]
) -> None:
    def promise(connection: Connection) -> str:
        """A deferred constraint fails when the transaction commits, not before."""
        connection.exec_driver_sql(
            "CREATE TABLE child (parent INTEGER REFERENCES note (id) DEFERRABLE INITIALLY DEFERRED)"
        )
        connection.exec_driver_sql("INSERT INTO child VALUES (99)")
        return "promised"

    tasks = await hand_in(database, (keep("innocent", Bell.INTAKE), promise))
    gate.opened.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(answer) for answer in answers] == ["the database did not commit: FOREIGN KEY constraint failed"] * 2
    assert answers[0] is not answers[1]
    assert (on_disk(path), rung) == ([], [])
    assert await database.write(keep("next")) == "next"


def test_a_database_that_cannot_be_opened_is_said_at_once(tmp_path: Path, rung: list[Bell]) -> None:
    with pytest.raises(StoreError, match="cannot be opened: unable to open database file"):
        SqliteDatabase(tmp_path / "absent" / "chartwire.db", rung.append)
    (tmp_path / "letter.db").write_bytes(b"Dear reader, this is not a database. " * 50)
    with pytest.raises(StoreError, match="cannot be opened: file is not a database"):
        SqliteDatabase(tmp_path / "letter.db", rung.append)
