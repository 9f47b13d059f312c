"""PostgreSQL: each unit in a transaction of its own, on the event loop, whatever the number of processes.

Units that write run READ COMMITTED and lock what they decide by (`database.lock_account`, `store.ring`); units that
read have a snapshot. What ends in a deadlock, or finds the connection cut before its commit, is run again.
"""

import asyncio
import random
import socket
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import URL, Connection, Engine, RootTransaction, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.util import greenlet_spawn

from chartwire.errors import ConfigurationError, StoreError
from chartwire.store.database import Bell, Ringer, Unit
from chartwire.store.handover import Handover
from chartwire.store.notices import Notices

T = TypeVar("T")

_PATIENCE_SECONDS = 5.0
"""How long a database that is away, as in a restart or a failover, is waited for before its callers are told."""

_LONGEST_PAUSE_SECONDS = 0.5
_CONNECT_SECONDS = 10
_KEEP_ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
_AGAIN = frozenset({"40001", "40P01"})  # serialization_failure, deadlock_detected: nothing was done
_ABSENT = frozenset({"57P01", "57P02", "57P03", "53300"})  # shuts down, crashed, starts up, too many connections
_SESSION = {
    "application_name": "chartwire",
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "15s",  # a process that is stopped must not hold its locks for ever
}


def connect_postgres(url: str, *, connections: int | None = None, pooler: bool = False) -> AsyncEngine:
    """An engine with at most so many connections; None keeps none open and sets no timeouts, for a migration.

    Behind a transaction pooler no statement outlives its transaction, and settings of a session are the pooler's.
    """
    arguments: dict[str, Any] = {"timeout": _CONNECT_SECONDS}
    if pooler:
        # PgBouncer hands a connection on after each transaction: names must not meet those of others.
        arguments |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
        arguments["prepared_statement_name_func"] = lambda: f"__chartwire_{uuid4()}__"
    elif connections is not None:
        arguments["server_settings"] = _SESSION
    pool: dict[str, Any] = (
        {"poolclass": NullPool} if connections is None else {"pool_size": connections, "max_overflow": 0}
    )
    # An error's text must not hold what was to be stored.
    engine = create_async_engine(_driver_url(url), hide_parameters=True, connect_args=arguments, **pool)
    event.listen(engine.sync_engine, "connect", _watch_line)
    return engine


def _watch_line(connection: Any, _: object) -> None:
    """A server that is gone without a word, as when its machine dies, is found out in half a minute: an answer to a
    statement would be waited for without end."""
    line = connection.driver_connection._transport.get_extra_info("socket")
    if line.family in {socket.AF_INET, socket.AF_INET6}:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):  # they differ between systems
                line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _driver_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError("database_url: cannot be read as a URL") from None
    query = dict(parsed.query)
    if "sslmode" in query:  # libpq's word, which everyone knows; the driver has another
        query["ssl"] = query.pop("sslmode")
    return parsed.set(drivername="postgresql+asyncpg", query=query)


class PostgresDatabase:
    """The database of any number of processes."""

    def __init__(self, url: str, ringer: Ringer, connections: int = 10, *, pooler: bool = False) -> None:
        self._engine = connect_postgres(url, connections=connections, pooler=pooler)
        self._snapshots = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._ringer = ringer
        self._notices = None if pooler else Notices(lambda: connect_postgres(url), ringer)
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def write(self, unit: Unit[T]) -> T:
        """See `Database.write`."""
        # A caller that is cancelled leaves its unit running: no one would know whether it was committed.
        return await asyncio.shield(self._start(self._write(unit)))

    async def read(self, unit: Unit[T]) -> T:
        """See `Database.read`."""
        return await asyncio.shield(self._start(self._patiently(self._snapshots, unit)))

    def attach(self, handover: Handover) -> None:
        """See `Database.attach`: others may claim, too."""

    async def close(self) -> None:
        """See `Database.close`."""
        self._closed = True
        await asyncio.gather(*self._running, return_exceptions=True)
        if self._notices is not None:
            await self._notices.close()
        await self._engine.dispose()

    def _start(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        if self._closed:
            work.close()
            raise StoreError("the database is closed")
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have gone away, and that is no one's fault

    async def _write(self, unit: Unit[T]) -> T:
        bells: set[Bell] = set()

        def run(connection: Connection) -> T:
            bells.clear()  # those of an earlier try
            connection.info["bells"] = bells
            return unit(connection)

        answer = await self._patiently(self._engine, run)
        for bell in bells:
            self._ringer(bell)
        if self._notices is not None:
            self._notices.send(bells)
        return answer

    async def _patiently(self, engine: AsyncEngine, unit: Unit[T]) -> T:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + _PATIENCE_SECONDS
        pause = 0.01
        while True:
            try:
                return await _transact(engine, unit)
            except (DBAPIError, OSError, PoolTimeoutError) as error:
                if not _is_passing(error):
                    raise
                if loop.time() > give_up_at:
                    raise StoreError(f"the database is not to be had: {_reason(error)}") from None
            await asyncio.sleep(random.uniform(0, pause))  # noqa: S311  chance keeps two that met from meeting again
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


async def _transact(engine: AsyncEngine, unit: Unit[T]) -> T:
    """All of it in one greenlet: SQLAlchemy's own would make one for each step."""
    return await greenlet_spawn(_run, engine.sync_engine, unit)


def _run(engine: Engine, unit: Unit[T]) -> T:
    with engine.connect() as connection:
        try:
            transaction = connection.begin()
            connection.info["held"] = set()
            answer = unit(connection)
        except DBAPIError as error:
            _hush(error)
            raise
        _commit(transaction)
        return answer


def _commit(transaction: RootTransaction) -> None:
    """A commit that was not answered may have been made: it is not for us to run the unit again."""
    try:
        transaction.commit()
    except DBAPIError as error:
        _hush(error)
        if _state(error) in _AGAIN:
            raise
        raise StoreError(f"the database did not commit: {_reason(error)}") from None


def _is_passing(error: Exception) -> bool:
    """Whether nothing was done, and may well be done at another try."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or _state(error) in _AGAIN | _ABSENT
    return True


def _state(error: DBAPIError) -> str:
    """SQLSTATE (PostgreSQL, Appendix A); empty if the server did not say it."""
    return getattr(error.orig, "sqlstate", None) or ""


def _hush(error: DBAPIError) -> None:
    """Take out of an error what the server or the driver quotes of values: its details, and all of data errors."""
    original = error.orig
    if original is None:
        return
    original.__cause__ = original.__context__ = None
    if not _state(error) or _state(error).startswith("22"):
        original.args = (f"{type(original).__name__} {_state(error)}".strip(),)
        error.args = original.args


def _reason(error: Exception) -> str:
    """What went wrong, without addresses and values."""
    return f"SQLSTATE {_state(error)}" if isinstance(error, DBAPIError) and _state(error) else type(error).__name__


def run_alone(url: str, unit: Unit[T], *, read_only: bool = False) -> T:
    """Run one unit on a connection of its own and wait for it, whether an event loop runs here or not."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _run_alone(url, unit, read_only)).result()


async def _run_alone(url: str, unit: Unit[T], read_only: bool) -> T:
    engine = connect_postgres(url, pooler=True)  # there may be one, and so few statements lose nothing by it
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True} if read_only else {}
    try:
        return await _transact(engine.execution_options(**options), unit)
    except (OSError, TimeoutError) as error:
        raise StoreError(f"the database cannot be reached: {type(error).__name__}") from None
    finally:
        await engine.dispose()
