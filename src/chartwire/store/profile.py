"""Which database a URL names: SQLite in a file, or PostgreSQL. All else asks for the contract (`store.database`).

PostgreSQL's driver is loaded where a URL names it: every command of an embedded installation would wait for it.
"""

from typing import TypeVar

from sqlalchemy.exc import DBAPIError

from chartwire.errors import StoreError
from chartwire.settings import Settings
from chartwire.store.database import Database, Ringer, Unit
from chartwire.store.sqlite import SqliteDatabase, connect_sqlite, sqlite_path

T = TypeVar("T")

_NO_TABLE = "42P01"  # undefined_table (PostgreSQL, Appendix A)


def open_database(settings: Settings, ringer: Ringer) -> Database:
    """The database of a server that runs."""
    if is_shared(settings.database):
        from chartwire.store.postgres import PostgresDatabase

        return PostgresDatabase(
            settings.database, ringer, settings.database_connections, pooler=settings.database_pooler
        )
    return SqliteDatabase(sqlite_path(settings.database), ringer)


def is_shared(url: str) -> bool:
    """Whether several processes may serve on it."""
    return url.startswith(("postgresql://", "postgres://"))


def is_made(url: str) -> bool:
    """Whether there is a database to look into; one on a server is its operator's to make."""
    return is_shared(url) or sqlite_path(url).is_file()


def run_once(url: str, unit: Unit[T], *, read_only: bool = False) -> T:
    """Run one unit of work outside any server, as the command line does beside a running one."""
    if not is_made(url):
        raise StoreError("there is no database: run `chartwire migrate`")
    try:
        return _run_on_server(url, unit, read_only) if is_shared(url) else _run_on_file(url, unit, read_only)
    except DBAPIError as error:
        if "no such table" in str(error.orig) or getattr(error.orig, "sqlstate", None) == _NO_TABLE:
            raise StoreError("the database is empty: run `chartwire migrate`") from None
        raise


def _run_on_server(url: str, unit: Unit[T], read_only: bool) -> T:
    from chartwire.store.postgres import run_alone

    return run_alone(url, unit, read_only=read_only)


def _run_on_file(url: str, unit: Unit[T], read_only: bool) -> T:
    engine = connect_sqlite(sqlite_path(url), read_only=read_only)
    try:
        with engine.begin() as connection:
            return unit(connection)
    finally:
        engine.dispose()
