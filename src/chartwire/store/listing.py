"""A part of a list that is in the database, in the order that was asked for (`model.listing`)."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sqlalchemy import BigInteger, ColumnElement, Connection, Row, Select, and_, or_, type_coerce

from chartwire.model.listing import Part, Window

T = TypeVar("T")

Columns = Mapping[str, ColumnElement[Any]]
"""What a list may be ordered by: texts and numbers that are never null."""


def read_part(
    connection: Connection,
    query: Select[Any],
    columns: Columns,
    key: ColumnElement[Any],
    window: Window,
    record: Callable[[Row[Any]], T],
) -> Part[T]:
    """What `window` shows of the rows of `query`, each made a `record`. `key` tells rows apart."""
    value = columns[window.order.column]
    ordered = query.add_columns(value.label("place_value"), key.label("place_key"))
    if window.after is not None:
        ordered = ordered.where(_is_beyond(value, key, window))
    terms = [key] if value is key else [value, key]
    ordered = ordered.order_by(*(term.desc() if window.order.is_descending else term.asc() for term in terms))
    rows = connection.execute(ordered.limit(window.limit + 1)).all()
    here = rows[: window.limit]
    end = (here[-1].place_value, here[-1].place_key) if len(rows) > len(here) else None
    return Part([record(row) for row in here], end)


def milliseconds(moment: ColumnElement[Any]) -> ColumnElement[Any]:
    """A time as the number that it is kept as."""
    return type_coerce(moment, BigInteger)


def _is_beyond(value: ColumnElement[Any], key: ColumnElement[Any], window: Window) -> ColumnElement[bool]:
    last_value, last_key = window.after or (None, None)
    further = key < last_key if window.order.is_descending else key > last_key
    if value is key:
        return further
    return or_(
        value < last_value if window.order.is_descending else value > last_value, and_(value == last_value, further)
    )
