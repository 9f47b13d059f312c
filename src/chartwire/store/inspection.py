"""Looks at an installation from outside, also beside a server that runs: reads only, and holds nobody up."""

from typing import TypeVar

from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError

from chartwire.errors import StoreError
from chartwire.store.database import Unit
from chartwire.store.profile import is_made, run_once
from chartwire.store.schema import document

T = TypeVar("T")

OLDEST_POSTGRESQL = 14
"""The oldest major version that its makers still maintain."""


def inspect(url: str, unit: Unit[T]) -> T:
    """Run `unit` on a snapshot. Raises `StoreError` if there is no database, or none that can be read."""
    if not is_made(url):
        raise StoreError("there is no database yet")
    try:
        return run_once(url, unit, read_only=True)
    except DBAPIError as error:
        raise StoreError(f"the database cannot be read: {error.orig}") from None


def damage(connection: Connection) -> str | None:
    """What SQLite finds wrong with the file; None if nothing."""
    answer = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
    return None if answer == "ok" else answer


def server_version(connection: Connection) -> int:
    """The major version of a PostgreSQL server."""
    return int(connection.exec_driver_sql("SHOW server_version_num").scalar_one()) // 10_000


def newest_digest(connection: Connection) -> str | None:
    """The SHA-256 of the document that was stored last, if there is any."""
    return connection.execute(select(document.c.sha256).order_by(document.c.id.desc()).limit(1)).scalar_one_or_none()
