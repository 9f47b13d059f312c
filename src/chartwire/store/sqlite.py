"""SQLite: one writer that commits many units together, and readers that never wait for it."""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, QueuePool

from chartwire.errors import ConfigurationError, StoreError
from chartwire.store.checkpointer import Checkpointer
from chartwire.store.claims import ClaimedDelivery
from chartwire.store.database import Bell, Ringer, Unit
from chartwire.store.handover import Handover

T = TypeVar("T")

_GROUP_LIMIT = 256
_BUSY_SECONDS = 60
_CACHED_STATEMENTS = 1024  # `store.bulk` has several texts of a statement
_WRITER_CHECKPOINT_PAGES = 16_384  # 64 MiB: only if the checkpointer cannot keep up
_CACHE_KIBIBYTES = 16 * 1024  # SQLite's own 2 MiB hold less than a busy second touches
_BEGIN = "BEGIN IMMEDIATE"  # the driver's own is deferred: two writers would find out too late that they are two
_LOG_BYTES = 64 * 1024 * 1024  # a log that once grew larger is cut back to this


class _UnitFailedError(Exception):
    """A unit failed that shares its transaction with others."""


@dataclass(slots=True)
class _Job(Generic[T]):
    unit: Unit[T]
    future: "asyncio.Future[T]"
    loop: asyncio.AbstractEventLoop
    handover: Handover | None
    answer: T | None = None
    error: BaseException | None = None
    bells: set[Bell] = field(default_factory=set)
    handed: list[ClaimedDelivery] = field(default_factory=list)

    def run(self, connection: Connection) -> None:
        """Run the unit as it is: if it fails, so does the group."""
        self._lend(connection)
        try:
            self.answer = self.unit(connection)
        except BaseException as error:
            raise _UnitFailedError from error

    def run_apart(self, connection: Connection) -> None:
        """Run the unit in a savepoint. Its error is its caller's; the group goes on without it."""
        self._lend(connection)
        cursor: sqlite3.Cursor = connection.info["cursor"]
        cursor.execute("SAVEPOINT unit")
        try:
            self.answer = self.unit(connection)
        except BaseException as error:
            self.error = error
            if not cursor.connection.in_transaction:  # as after some errors of the disk, SQLite gave up the whole group
                raise
            cursor.execute("ROLLBACK TO unit")
            self.forget()  # at once: units after it must not find the room taken that it had taken
        cursor.execute("RELEASE unit")

    def forget(self) -> None:
        """What the unit has asked for is not to be done: it was rolled back."""
        self.bells.clear()
        if self.handed and self.handover is not None:
            self.handover.undo(self.handed)
            self.handed.clear()

    def _lend(self, connection: Connection) -> None:
        """What the unit may write down its wishes in."""
        connection.info["bells"], connection.info["handed"] = self.bells, self.handed
        connection.info["handover"] = self.handover

    def settle(self) -> None:
        """Answer the caller, on its event loop, and have done what the unit has asked for."""
        if self.error is not None:
            self.forget()
        elif self.handed and self.handover is not None:
            self.handover.follow(self.handed)
        if self.future.done():
            return
        if isinstance(self.error, StopIteration):  # which a future cannot carry
            self.error = RuntimeError("a unit of work raised StopIteration")
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(cast(T, self.answer))


def connect_sqlite(path: Path, *, read_only: bool = False) -> Engine:
    """An engine on a SQLite file: WAL, synchronous=FULL, foreign keys enforced, transactions begun by us.

    Under AUTOCOMMIT, SQLAlchemy's word for it, whoever uses a connection begins and ends its transactions.
    """
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=QueuePool if read_only else NullPool,
        hide_parameters=True,  # an error's text must not hold what was to be stored
        connect_args={
            "timeout": _BUSY_SECONDS,
            "check_same_thread": False,
            "isolation_level": None,
            "cached_statements": _CACHED_STATEMENTS,
        },
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
        record.info["cursor"] = connection.cursor()  # for what SQLAlchemy would take too long for
        if read_only:
            connection.execute("PRAGMA query_only=ON").close()
            return
        _use_wal(connection)
        for pragma in (
            "synchronous=FULL",
            "foreign_keys=ON",
            f"cache_size=-{_CACHE_KIBIBYTES}",
            f"wal_autocheckpoint={_WRITER_CHECKPOINT_PAGES}",
            f"journal_size_limit={_LOG_BYTES}",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN" if read_only else _BEGIN)

    return engine


def _use_wal(connection: sqlite3.Connection) -> None:
    """Only a new file is really changed. SQLite does not wait for others who do the same, so we do."""
    give_up_at = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
        except sqlite3.OperationalError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)
        else:
            return


def sqlite_path(url: str) -> Path:
    """The file of a `sqlite:///…` URL."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = URL.create("none")
    if parsed.drivername != "sqlite" or parsed.host or parsed.database in {None, "", ":memory:"}:
        raise ConfigurationError("database_url: neither sqlite:///<file> nor postgresql://<user>@<host>/<database>")
    return Path(str(parsed.database))


class SqliteDatabase:
    """The database of an installation that is one process."""

    def __init__(self, path: Path, ringer: Ringer, readers: int = 4) -> None:
        """Raises `StoreError` if the file cannot be opened."""
        # SQLAlchemy takes as long to begin and to end a transaction as a short unit takes in all.
        self._writer = connect_sqlite(path).execution_options(isolation_level="AUTOCOMMIT")
        self._reader = connect_sqlite(path, read_only=True)
        self._ringer = ringer
        self._handover: Handover | None = None
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._closed = False
        try:
            connection = self._writer.connect()
        except DBAPIError as error:
            raise StoreError(f"the database cannot be opened: {_reason(error)}") from None
        self._checkpointer = Checkpointer(path)
        self._threads = ThreadPoolExecutor(readers, thread_name_prefix="chartwire-read")
        self._thread = threading.Thread(target=self._run, args=(connection,), name="chartwire-write", daemon=True)
        self._thread.start()

    async def write(self, unit: Unit[T]) -> T:
        """See `Database.write`."""
        if self._closed:
            raise StoreError("the database is closed")
        loop = asyncio.get_running_loop()
        job: _Job[T] = _Job(unit, loop.create_future(), loop, self._handover)
        self._jobs.put(job)
        # A caller that is cancelled cancels only this future; its unit runs all the same.
        return await job.future

    async def read(self, unit: Unit[T]) -> T:
        """See `Database.read`."""
        if self._closed:
            raise StoreError("the database is closed")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, unit)

    def attach(self, handover: Handover) -> None:
        """See `Database.attach`."""
        self._handover = handover

    async def close(self) -> None:
        """See `Database.close`."""
        self._closed = True
        self._jobs.put(None)
        await asyncio.to_thread(self._shut)

    def _shut(self) -> None:
        self._thread.join()
        self._threads.shutdown()
        self._reader.dispose()
        self._checkpointer.close()

    def _read(self, unit: Unit[T]) -> T:
        with self._reader.begin() as connection:
            return unit(connection)

    def _run(self, connection: Connection) -> None:
        with connection:
            while (group := self._next_group()) is not None:
                self._commit(connection, group)
                self._checkpointer.wake()
                for loop in {job.loop for job in group}:
                    with suppress(RuntimeError):  # the loop was closed, and its callers with it
                        loop.call_soon_threadsafe(self._settle, [job for job in group if job.loop is loop])

    def _next_group(self) -> list[_Job[Any]] | None:
        first = self._jobs.get()
        if first is None:
            return None
        group = [first]
        while len(group) < _GROUP_LIMIT and not self._jobs.empty():
            following = self._jobs.get()
            if following is None:
                self._jobs.put(None)
                break
            group.append(following)
        return group

    def _commit(self, connection: Connection, group: Sequence[_Job[Any]]) -> None:
        """Few units fail, and a savepoint copies every page that is touched: only a group of which one failed has them.

        Such a group is run again from its start.
        """
        if not self._transact(connection, group, _Job.run):
            for job in group:
                job.forget()
            self._transact(connection, group, _Job.run_apart)

    def _transact(
        self, connection: Connection, group: Sequence[_Job[Any]], run: Callable[[_Job[Any], Connection], None]
    ) -> bool:
        """False if a unit failed the group, of which nothing was written then."""
        try:
            if not connection.in_transaction():  # as SQLAlchemy sees it, which else rolls back after an error
                connection.begin()
            cursor: sqlite3.Cursor = connection.info["cursor"]
            cursor.execute(_BEGIN)
            try:
                for job in group:
                    run(job, connection)
            except _UnitFailedError:
                if cursor.connection.in_transaction:  # after some errors of the disk SQLite has given it up
                    cursor.execute("ROLLBACK")
                return False
            cursor.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001  nothing was committed: every caller of the group must know
            for job in group:
                job.error = job.error or StoreError(f"the database did not commit: {_reason(error)}")
            _renew(connection)
        return True

    def _settle(self, group: Sequence[_Job[Any]]) -> None:
        for job in group:
            job.settle()
        for bell in {bell for job in group for bell in job.bells}:  # of those that failed none is left
            self._ringer(bell)


def _renew(connection: Connection) -> None:
    """Let the next group have a new connection: SQLite may have left the transaction of this one open."""
    with suppress(DBAPIError):
        connection.rollback()
    connection.invalidate()


def _reason(error: BaseException) -> str:
    """What SQLite says, which quotes no values; of any other error its kind alone."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return str(cause) if isinstance(cause, sqlite3.Error) else type(cause).__name__
