"""Statements that say one thing of many rows: the hot path of the outbox, in plain SQL.

SQLAlchemy takes fifty to a hundred microseconds to make a statement, twice what a whole delivery may cost in the
database. So what happens to every delivery is written as text that both databases read, once for all rows of a cycle,
and handed to the driver as it is. Each statement stands beside the function that uses it; a test explains them all.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain, count
from typing import Any

from sqlalchemy import Connection

_MOST = 64
"""Rows of one text. SQLite unites at most 500 terms and keeps a hundred or two texts prepared."""

Row = tuple[Any, ...]
"""A row as the driver gives it: times in milliseconds, truth perhaps as 0 and 1."""


class Bulk:
    """A text that is written out for as many rows as there are: `head`, then `each` joined by `joint`, then `tail`.

    Rows are taken 64 at a time, and the rest in powers of two: few texts, which the driver keeps prepared. Parameters
    are written `?`; those of the head and the tail are the same for every text. What only PostgreSQL is to read, such
    as the locks that many processes need, stands in a comment that begins with `/*pg`.
    """

    def __init__(self, head: str, each: str, tail: str = "", joint: str = ", ") -> None:
        self.head, self.each, self.tail, self.joint = head, each, tail, joint
        self._texts: dict[tuple[str, int], str] = {}

    def run(self, connection: Connection, rows: Sequence[Row], head: Row = (), tail: Row = ()) -> list[Row]:
        """Run it for `rows`; returns what it gives back, if anything."""
        dialect = connection.dialect.name
        if len(rows) == 1:  # as for each message that is written
            return run_plain(connection, self.text(dialect, 1), (*head, *rows[0], *tail))
        found: list[Row] = []
        for chunk in _chunks(rows):
            values = (*head, *chain.from_iterable(chunk), *tail)
            found += run_plain(connection, self.text(dialect, len(chunk)), values)
        return found

    def text(self, dialect: str, rows: int) -> str:
        """The statement for so many rows."""
        known = self._texts.get((dialect, rows))
        if known is None:
            written = self.head + self.joint.join([self.each] * rows) + self.tail
            known = self._texts[dialect, rows] = spell(dialect, written)
        return known


def run_plain(connection: Connection, statement: str, values: Row) -> list[Row]:
    """Run a statement that `spell` has seen; returns its rows, if it has any."""
    if connection.dialect.name == "sqlite":
        cursor: sqlite3.Cursor = connection.info["cursor"]  # to make one takes as long as a short statement
        return cursor.execute(statement, values).fetchall()
    result = connection.exec_driver_sql(statement, values)
    return [tuple(row) for row in result] if result.returns_rows else []


def spell(dialect: str, statement: str) -> str:
    """Parameters as a database's driver wants them."""
    if dialect == "sqlite":
        return statement
    numbers = count(1)
    statement = re.sub(r"/\*pg (.*?)\*/", r"\1", statement)
    return "".join(f"${next(numbers)}" if part == "?" else part for part in _split(statement))


def _split(statement: str) -> Iterator[str]:
    before, *rest = statement.split("?")
    yield before
    for part in rest:
        yield "?"
        yield part


def _chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    start = 0
    while start < len(rows):
        size = min(_MOST, 1 << ((len(rows) - start).bit_length() - 1))
        yield rows[start : start + size]
        start += size
