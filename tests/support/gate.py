"""Holds units of work in the middle of their transactions, so that others run beside them."""

import asyncio

from sqlalchemy import Connection
from sqlalchemy.util import await_only


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
