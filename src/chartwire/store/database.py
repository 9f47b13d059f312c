"""The database: units of work in, answers out when they are on disk.

A unit of work is a plain function of a SQLAlchemy Core `Connection`. On SQLite it runs in a savepoint of a transaction
that it shares with other units (group commit), on PostgreSQL in a transaction of its own. It must not touch anything
but its connection: it may be run again. Whatever must happen after the commit is named with `ring` inside the unit; a
unit that is rolled back rings nothing.

On SQLite one unit runs at a time. On PostgreSQL many do, and a unit sees what others commit while it runs: one that
decides by what it has read calls `lock_patient` or `lock_account` first, which makes the units about a patient or an
account take turns. Who needs both takes the patient's first.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeVar

from sqlalchemy import Connection, text

from chartwire.store.bulk import POSTGRESQL, run_simple

if TYPE_CHECKING:
    from chartwire.store.handover import Handover

T = TypeVar("T")
Unit = Callable[[Connection], T]

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(convert_from(decode('{}', 'hex'), 'UTF8'), 0))"


class Bell(StrEnum):
    """What a commit may make worth looking at. A lost ring makes work late, never lost."""

    INTAKE = "intake"
    ANNOUNCE = "announce"
    DELIVERY = "delivery"
    REPLAY = "replay"
    EVENT = "event"


Ringer = Callable[[Bell], None]
"""Called on the event loop after a commit, once per bell that was rung in it."""


def ring(connection: Connection, bell: Bell) -> None:
    """Ask that `bell` be rung once the transaction of `connection` has been committed."""
    connection.info.setdefault("bells", set()).add(bell)


def lock_patient(connection: Connection, patient_id: str) -> None:
    """Let no other unit that calls this for the same patient go on until this one has ended.

    What was read of the patient's record, queries and documents from here on stays true until then.
    """
    lock(connection, f"patient/{patient_id}")


def lock_account(connection: Connection, account_id: str) -> None:
    """Let no other unit that calls this for the same account go on until this one has ended.

    What was read of the account from here on stays true until then, and numbers that are given out come in the order
    of their commits.
    """
    lock(connection, f"account/{account_id}")


def lock(connection: Connection, name: str) -> None:
    """Let no other unit that asks for this name go on until this one has ended. SQLite has one writer anyway.

    What a unit has it is not asked for again; so it must not lock what a savepoint may give back.
    """
    if connection.dialect.name == POSTGRESQL:
        held: set[str] = connection.info.get("held", set())
        if name not in held:
            run_simple(connection, _LOCK.format(name.encode().hex()))
            held.add(name)


class Database(Protocol):
    """Where state lives."""

    async def write(self, unit: Unit[T]) -> T:
        """Run `unit` in a transaction; returns its answer when the commit is on disk, or raises what it raised."""

    async def read(self, unit: Unit[T]) -> T:
        """Run `unit` on a snapshot; it must not write."""

    def attach(self, handover: "Handover") -> None:
        """Let units hand over to it, in place of whoever was there before, what would otherwise have to be claimed.

        Where other processes may claim, too, nothing is handed over: it waits for whoever comes first.
        """

    async def close(self) -> None:
        """Finish what was handed in, then close."""


def ping(connection: Connection) -> bool:
    """A unit that proves the database answers."""
    return bool(connection.execute(text("SELECT 1")).scalar_one())
