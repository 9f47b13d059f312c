"""Transactions on PostgreSQL that are held, and those that wait for them."""

import asyncio

from sqlalchemy import Connection, text
from sqlalchemy.util import await_only

from chartwire.store.database import Database

_WAITS = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


class Gate:
    """Holds a unit in the middle of its transaction until it is opened."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    def wait(self, connection: Connection) -> None:
        """Wait inside a unit, as if the database took long: the loop goes on."""
        del connection
        self.reached.set()
        await_only(self.opened.wait())


async def until_one_waits_for_a_lock(database: Database) -> None:
    """Return once some transaction stands before a lock of another."""
    while await database.read(lambda connection: connection.execute(text(_WAITS)).first()) is None:
        pass
