"""Tables as lines of JSON, the same whichever database they are in: for moving them, and for seeing they are equal.

A line is a row: an object of its columns, keys in order; times are milliseconds since 1970, bytes are Base64. Lines
come in the order of the primary key, text compared by its bytes. Any number of rows takes the memory of a few hundred.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    LargeBinary,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    text,
)

from chartwire.clock import from_milliseconds, to_milliseconds
from chartwire.errors import StoreError
from chartwire.store.bulk import POSTGRESQL
from chartwire.store.ranges import WIDTH, known_ranges, make_room
from chartwire.store.schema import Moment, data_key, delivery, event, metadata, schema_floor

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Extent:
    """What a table holds: so many rows, and the SHA-256 of its lines in hex."""

    rows: int
    sha256: str


class Tally:
    """Counts and hashes lines as they pass."""

    def __init__(self) -> None:
        self.rows = 0
        self._hash = hashlib.sha256()

    def pass_on(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """The same lines."""
        for line in lines:
            self.rows += 1
            self._hash.update(line)
            yield line

    @property
    def extent(self) -> Extent:
        """Of what has passed."""
        return Extent(self.rows, self._hash.hexdigest())


def tables() -> list[Table]:
    """All of them, those that others refer to first, but for what migrations write."""
    return [table for table in metadata.sorted_tables if table is not schema_floor]


def take_time(connection: Connection) -> None:
    """Let statements of this transaction last: behind a pooler the role has a timeout (docs/how-to/operate.md)."""
    if connection.dialect.name == POSTGRESQL:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))


def count_rows(connection: Connection) -> int:
    """How many rows all tables have."""
    return sum(connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables())


def read_lines(connection: Connection, table: Table) -> Iterator[bytes]:
    """The rows of a table."""
    write = [(column.name, _writer(column)) for column in table.columns]
    query = select(table).order_by(*(by_bytes(connection, column) for column in table.primary_key.columns))
    for row in connection.execute(query.execution_options(stream_results=True, yield_per=_BATCH)):
        values = {
            name: None if value is None else wrote(value) for (name, wrote), value in zip(write, row, strict=True)
        }
        yield json.dumps(values, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def write_lines(connection: Connection, table: Table, lines: Iterable[bytes]) -> None:
    """Insert the rows that lines tell of."""
    rows = parse_lines(table, lines)
    while batch := list(islice(rows, _BATCH)):
        if table in {event, delivery}:
            make_room(connection, (row["seq"] for row in batch))
        connection.execute(insert(table), batch)


def parse_lines(table: Table, lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The rows that lines tell of, as the database takes them."""
    read = {column.name: _reader(column) for column in table.columns}
    for line in lines:
        row = json.loads(line)
        yield {name: None if row[name] is None else made(row[name]) for name, made in read.items()}


def by_bytes(connection: Connection, column: ColumnElement[Any]) -> Any:
    """A column to put in order as every database does it."""
    is_text = isinstance(column.type, String) and connection.dialect.name == POSTGRESQL
    return column.collate("C") if is_text else column


def measure(connection: Connection, table: Table) -> Extent:
    """What a table holds."""
    tally = Tally()
    for _ in tally.pass_on(read_lines(connection, table)):
        pass
    return tally.extent


def check_empty(connection: Connection) -> None:
    """Raises `StoreError` if there is anything but data keys, which the first start makes."""
    for table in tables():
        if table is not data_key and connection.execute(select(table).limit(1)).first() is not None:
            raise StoreError(f"the target is not empty: there are rows in {table.name}; give a new database")


def clear_data_keys(connection: Connection) -> None:
    """Nothing is sealed under them in a database that is empty."""
    connection.execute(delete(data_key))


def go_on_counting(connection: Connection) -> None:
    """Let numbers that the database gives out begin after those that are there. SQLite does so by itself.

    `setval` would outlast a rollback, and with it numbers in ranges that were never made.
    """
    if connection.dialect.name != POSTGRESQL:
        return
    begins = known_ranges(connection)[-1] * WIDTH
    for table in tables():
        for column in table.primary_key.columns:
            if column.autoincrement is True and isinstance(column.type, Integer):
                name = select(func.pg_get_serial_sequence(table.name, column.name))
                sequence = connection.execute(name).scalar_one()
                last = connection.execute(select(func.coalesce(func.max(column), 0))).scalar_one()
                number = max(last + 1, begins if table in {event, delivery} else 1)
                connection.execute(text(f"ALTER SEQUENCE {sequence} RESTART WITH {number}"))


def _writer(column: Column[Any]) -> Callable[[Any], Any]:
    if isinstance(column.type, Moment):
        return to_milliseconds
    return (lambda value: base64.b64encode(value).decode()) if isinstance(column.type, LargeBinary) else _same


def _reader(column: Column[Any]) -> Callable[[Any], Any]:
    if isinstance(column.type, Moment):
        return from_milliseconds
    return base64.b64decode if isinstance(column.type, LargeBinary) else _same


def _same(value: Any) -> Any:
    return value
