"""Statements that say one thing of many rows: the hot path of the outbox, in plain SQL.

SQLAlchemy takes fifty to a hundred microseconds to make a statement, twice what a whole delivery may cost in the
database. So what happens to every delivery is written as text that both databases read, once for all rows of a cycle,
and handed to the driver as it is. Each statement stands beside the function that uses it; a test explains them all.

Only how rows come into a text differs. SQLite takes a parameter for each value; PostgreSQL takes an array for each
column, so that any number of rows is one text and one round trip; one row alone it takes as SQLite does.
"""

import re
import sqlite3
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from itertools import chain, count
from typing import Any, TypeVar

from sqlalchemy import Column, Connection, Table
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import await_

from chartwire.errors import StoreError

T = TypeVar("T")

POSTGRESQL = "postgresql"

_MOST = 64
"""Rows of one text. SQLite unites at most 500 terms and keeps a hundred or two texts prepared."""

Row = tuple[Any, ...]
"""A row as the driver gives it: times in milliseconds, truth perhaps as 0 and 1."""


class Statement:
    """A text that both databases read.

    Parameters are written `?`. What only PostgreSQL is to read, such as the locks that many processes need, stands in
    a comment that begins with `/*pg`.
    """

    def __init__(self, written: str) -> None:
        self._written = written
        self._texts: dict[tuple[str, int], str] = {}

    def run(self, connection: Connection, values: Row = ()) -> list[Row]:
        """Run it; returns what it gives back, if anything."""
        return run_plain(connection, self.text(connection.dialect.name), values)

    def text(self, dialect: str, rows: int = 1) -> str:
        """As a driver takes it, for so many rows."""
        known = self._texts.get((dialect, rows))
        if known is None:
            known = self._texts[dialect, rows] = _spell(dialect, self._write(dialect, rows))
        return known

    def _write(self, dialect: str, rows: int) -> str:
        del dialect, rows
        return self._written


class Bulk(Statement):
    """A text that stands for as many rows as there are: in it, `{rows}` gives them and `IN {rows}` tests for them.

    `types` are the columns', in PostgreSQL's words. SQLite gets 64 rows at a time, and the rest in powers of two: few
    texts, which its driver keeps prepared.
    """

    def __init__(self, written: str, types: str) -> None:
        super().__init__(written)
        self._types = types.split()

    def run_for(self, connection: Connection, rows: Sequence[Row], head: Row = (), tail: Row = ()) -> list[Row]:
        """Run it for `rows`, unless there are none; parameters before and after them are the same for all."""
        dialect = connection.dialect.name
        if len(rows) == 1:  # as for each message that is written
            return run_plain(connection, self.text(dialect), (*head, *rows[0], *tail))
        if dialect == POSTGRESQL:
            arrays = zip(*rows, strict=True)
            return run_plain(connection, self.text(dialect, len(rows)), (*head, *arrays, *tail)) if rows else []
        found: list[Row] = []
        for chunk in _chunks(rows):
            values = (*head, *chain.from_iterable(chunk), *tail)
            found += run_plain(connection, self.text(dialect, len(chunk)), values)
        return found

    def text(self, dialect: str, rows: int = 1) -> str:
        """See `Statement.text`. PostgreSQL gets arrays, but for one row: with them it would plan anew each time."""
        return super().text(dialect, min(rows, 2) if dialect == POSTGRESQL else rows)

    def _write(self, dialect: str, rows: int) -> str:
        if dialect == POSTGRESQL and rows > 1:
            arrays = ", ".join(f"?::{each}[]" for each in self._types)
            listed, given = f"= ANY ({arrays})", f"SELECT * FROM unnest({arrays})"  # noqa: S608  our own types
        else:
            row = ", ".join(f"?::{each}" if dialect == POSTGRESQL else "?" for each in self._types)
            listed, given = f"IN ({', '.join([row] * rows)})", f"VALUES {', '.join([f'({row})'] * rows)}"
        return self._written.replace("IN {rows}", listed).replace("{rows}", given)


class Lookup(Bulk):
    """A query that is asked for each row, whose columns it calls `{0}`, `{1}` and so on."""

    def _write(self, dialect: str, rows: int) -> str:
        width = len(self._types)
        if dialect == POSTGRESQL and rows > 1:
            arrays, names = ", ".join(f"?::{each}[]" for each in self._types), [f"c{at}" for at in range(width)]
            query = self._written.format(*(f"asked.{name}" for name in names))
            asked = f"unnest({arrays}) AS asked ({', '.join(names)})"
            return f"SELECT found.* FROM {asked} CROSS JOIN LATERAL ({query}) AS found"  # noqa: S608  written here
        mark = "$" if dialect == POSTGRESQL else "?"
        numbers = (range(row * width + 1, (row + 1) * width + 1) for row in range(rows))
        return " UNION ALL ".join(self._written.format(*(f"{mark}{each}" for each in row)) for row in numbers)


class Change(Bulk):
    """An UPDATE of rows by their numbers. Of each it is given the number, `{0}`, and what it calls `{1}` and so on.

    PostgreSQL is given all of them at once where it says `{rows}`. SQLite takes one after the other, which costs half
    of what it costs it to join them and to tell which they were.
    """

    def changed(self, connection: Connection, rows: Sequence[Row]) -> set[int]:
        """Run it; returns the numbers of those that it applied to."""
        if connection.dialect.name == POSTGRESQL:
            return {number for (number,) in self.run_for(connection, rows)}
        cursor: sqlite3.Cursor = connection.info["cursor"]
        statement = self.text("sqlite")
        return {row[0] for row in rows if cursor.execute(statement, row).rowcount > 0}

    def _write(self, dialect: str, rows: int) -> str:
        places = range(len(self._types))
        if dialect != POSTGRESQL:
            return self._written.format(*(f"?{place + 1}" for place in places), rows="")
        written = f"{self._written} RETURNING {{0}}"
        if rows == 1:
            return written.format(*(f"${place + 1}::{self._types[place]}" for place in places), rows="")
        names = [f"c{place}" for place in places]
        arrays = ", ".join(f"?::{each}[]" for each in self._types)
        given = f"FROM unnest({arrays}) AS given ({', '.join(names)})"
        return written.format(*(f"given.{name}" for name in names), rows=given)


class Insert(Bulk):
    """Rows of a table that the database numbers, given as the `columns` that are named."""

    def __init__(self, table: Table, columns: str) -> None:
        names = columns.split()
        (number,) = table.primary_key.columns.keys()
        written = f"INSERT INTO {table.name} ({', '.join(names)}) {{rows}} /*pg RETURNING {number}*/"
        super().__init__(written, " ".join(_type_of(table.c[name]) for name in names))

    def number(self, connection: Connection, rows: Sequence[Row]) -> Sequence[int]:
        """Insert `rows`; returns their numbers, in the same order.

        SQLite's only writer counts on from the highest; to have it return a number takes as long as to insert the row.
        """
        given = self.run_for(connection, rows)
        if connection.dialect.name == POSTGRESQL:
            return [number for (number,) in given]
        cursor: sqlite3.Cursor = connection.info["cursor"]
        last = cursor.lastrowid or 0
        return range(last - len(rows) + 1, last + 1)


def _type_of(column: Column[Any]) -> str:
    """In PostgreSQL's words, without its length: what is too long is to fail, and a cast would cut it off."""
    dialect = PGDialect()  # type: ignore[no-untyped-call]  # SQLAlchemy does not say
    return column.type.compile(dialect).partition("(")[0]


def run_plain(connection: Connection, statement: str, values: Row) -> list[Row]:
    """Run a statement as its driver takes it; returns its rows, if it has any."""
    if connection.dialect.name == "sqlite":
        cursor: sqlite3.Cursor = connection.info["cursor"]  # to make one takes as long as a short statement
        return cursor.execute(statement, values).fetchall()
    return _run_there(connection, statement, values)


def _run_there(connection: Connection, statement: str, values: Row) -> list[Row]:
    return _past_sqlalchemy(connection, partial(_fetch, statement=statement, values=values))


def run_simple(connection: Connection, statement: str) -> None:
    """Run a statement without parameters and without an answer on PostgreSQL; the first of a transaction begins it,
    too, in one round trip."""
    _past_sqlalchemy(connection, partial(_execute, statement=statement))


def _past_sqlalchemy(connection: Connection, run: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """Past SQLAlchemy, which takes as long again as the driver; errors are made as it makes them."""
    line, base = connection.connection, connection.dialect.loaded_dbapi.Error
    try:
        return await_(run(line.dbapi_connection))
    except base as error:
        # A plan that the tables have outgrown is forgotten with its line, too.
        is_outgrown = isinstance(error, connection.dialect.loaded_dbapi.InvalidCachedStatementError)
        is_cut = is_outgrown or connection.dialect.is_disconnect(error, line, None)
        if is_cut:
            connection.engine.pool._invalidate(line, error)  # as those of the others are, that wait in the pool
            connection.invalidate(error)
        made = DBAPIError.instance(
            None, None, error, base, hide_parameters=True, connection_invalidated=is_cut, dialect=connection.dialect
        )
        raise made from error


async def _fetch(line: Any, statement: str, values: Row) -> list[Row]:
    """What a cursor of SQLAlchemy's does, without one."""
    try:
        if line._transaction is None:
            await line._start_transaction()
        prepared, _ = await line._prepare(statement, 0)
        rows: list[Row] = await prepared.fetch(*values)
    except Exception as error:
        line._handle_exception(error)
        raise
    return rows


async def _execute(line: Any, statement: str) -> None:
    try:
        if line._transaction is None and (line.readonly or line.isolation_level is not None):
            await line._start_transaction()  # a snapshot's own
        elif line._transaction is None:
            line._transaction = _Transaction(line._connection)  # to be rolled back, whatever comes of its first words
            statement = f"BEGIN ISOLATION LEVEL READ COMMITTED; {statement}"
        await line._connection.execute(statement)
    except Exception as error:
        line._handle_exception(error)
        raise


class _Transaction:
    """What SQLAlchemy ends where it did not begin it."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    async def commit(self) -> None:
        if await self._driver.execute("COMMIT") == "ROLLBACK":  # all that PostgreSQL says if a statement had failed
            raise StoreError("the database did not commit: a statement had failed")

    async def rollback(self) -> None:
        await self._driver.execute("ROLLBACK")


def _spell(dialect: str, statement: str) -> str:
    """Parameters as a database's driver wants them."""
    if dialect != POSTGRESQL:
        return statement
    numbers = count(1)
    statement = re.sub(r"/\*pg (.*?)\*/", r"\1", statement)
    return re.sub(r"\?", lambda _: f"${next(numbers)}", statement)


def _chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    start = 0
    while start < len(rows):
        size = min(_MOST, 1 << ((len(rows) - start).bit_length() - 1))
        yield rows[start : start + size]
        start += size
