"""Units of work on a database of one small table."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import Connection, text
from tests.support.patience import PATIENCE_SECONDS

from chartwire.store.database import Bell, Unit, ring
from chartwire.store.sqlite import SqliteDatabase


def make_notes(folder: Path) -> Path:
    """A database with one table, `note`, whose words are unique."""
    path = folder / "chartwire.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, word TEXT NOT NULL UNIQUE)")
    connection.close()
    return path


def keep(word: str, bell: Bell | None = None) -> Callable[[Connection], str]:
    """A unit that rings `bell` and inserts `word`."""

    def unit(connection: Connection) -> str:
        if bell:
            ring(connection, bell)
        connection.execute(text("INSERT INTO note (word) VALUES (:word)"), {"word": word})
        return word

    return unit


def words(connection: Connection) -> list[str]:
    """A unit that reads every word."""
    return list(connection.execute(text("SELECT word FROM note ORDER BY word")).scalars())


def on_disk(path: Path) -> list[str]:
    """Every word that another program finds."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT word FROM note ORDER BY word").fetchall()
    connection.close()
    return [word for (word,) in rows]


class Gate:
    """A unit that holds the writer thread until it is opened, so that what comes next queues up behind it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, connection: Connection) -> None:
        del connection
        self.reached.set()
        assert self.opened.wait(PATIENCE_SECONDS)


async def hand_in(database: SqliteDatabase, units: Iterable[Unit[str]]) -> list[asyncio.Task[str]]:
    """One caller for each unit; when this returns, all units are in the writer's queue, in this order.

    They are one group if the writer is held meanwhile: else it may begin with the first before the last is there.
    """
    tasks = [asyncio.create_task(database.write(unit)) for unit in units]
    await asyncio.sleep(0)  # lets each task run up to where it waits
    return tasks


@asynccontextmanager
async def held(database: SqliteDatabase) -> AsyncIterator[Gate]:
    """The writer is held when the block starts, and let go at its end at the latest."""
    gate = Gate()
    task = asyncio.create_task(database.write(gate))
    assert await asyncio.to_thread(gate.reached.wait, PATIENCE_SECONDS)
    yield gate
    gate.opened.set()
    await task
