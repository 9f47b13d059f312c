"""Moves what is sealed in the database to the current data key, a batch at a time, beside servers that run.

Where it is up to is told by the data: whatever does not begin with the name of the current key is still to be done. So
it may be stopped at any moment, and begun again. Documents stay under the keys that their headers name.
"""

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    LargeBinary,
    Select,
    Table,
    func,
    literal_column,
    select,
    update,
)

from chartwire.errors import SealBrokenError
from chartwire.store.schema import attempt, endpoint, event, member, signing_key
from chartwire.store.vault import NAME_BYTES, Purpose, Vault

Change = Callable[[Callable[[bytes], bytes], Any], Any]
"""Applies a function to every sealed thing in the value of a column."""


@dataclass(frozen=True, slots=True)
class Place:
    """A column that holds sealed things."""

    column: Column[Any]
    purpose: Purpose
    change: Change

    @property
    def table(self) -> Table:
        """The table it is in."""
        return self.column.table

    @property
    def key(self) -> Column[Any]:
        """The table's primary key."""
        return next(iter(self.table.primary_key.columns))


@dataclass(frozen=True, slots=True)
class Batch:
    """What was done of a place, up to and with the row `last`; None: there was nothing left."""

    last: Any = None
    resealed: int = 0
    broken: int = 0


def _in_headers(change: Callable[[bytes], bytes], headers: dict[str, str]) -> dict[str, str]:
    return {name: _in_text(change, value) for name, value in headers.items()}


def _in_tls(change: Callable[[bytes], bytes], tls: dict[str, Any]) -> dict[str, Any]:
    return {**tls, "sealed": _in_text(change, tls["sealed"])}


def _in_text(change: Callable[[bytes], bytes], text: str) -> str:
    return base64.b64encode(change(base64.b64decode(text))).decode()


PLACES = (
    Place(signing_key.c.secret, Purpose.SIGNING_KEY, lambda change, value: change(value)),
    Place(member.c.totp_secret, Purpose.SECOND_FACTOR, lambda change, value: change(value)),
    Place(endpoint.c.headers, Purpose.HEADER, _in_headers),
    Place(endpoint.c.tls, Purpose.TLS, _in_tls),
    Place(event.c.body, Purpose.PAYLOAD, lambda change, value: change(value)),
    Place(attempt.c.answer, Purpose.ANSWER, lambda change, value: change(value)),
)


def count_by_key(connection: Connection) -> dict[bytes, int]:
    """How many things each first 8 bytes stand before: the names of keys, and chance where the key has none."""
    counts: dict[bytes, int] = {}
    for place in PLACES:
        for name, count in _count_names(connection, place):
            counts[name] = counts.get(name, 0) + count
    return counts


def reseal(connection: Connection, vault: Vault, place: Place, after: Any, limit: int) -> Batch:
    """Do the next rows of a place. One that another transaction holds is passed over: it is for the next round."""
    query = _with_others(place, vault).order_by(place.key).limit(limit).with_for_update(skip_locked=True)
    rows = connection.execute(query if after is None else query.where(place.key > after)).all()
    resealed, broken = 0, 0
    for key, value in rows:
        if all(name == vault.name for name in _names_in(place, value)):
            continue
        try:
            fresh = place.change(lambda sealed: vault.seal(place.purpose, vault.open(place.purpose, sealed)), value)
        except SealBrokenError:
            broken += 1
            continue
        connection.execute(update(place.table).where(place.key == key).values({place.column: fresh}))
        resealed += 1
    return Batch(rows[-1][0], resealed, broken) if rows else Batch()


def _with_others(place: Place, vault: Vault) -> Select[Any]:
    """Rows that hold what another key has sealed; of what is not told by its first bytes, all: endpoints are few."""
    query = select(place.key, place.column).where(place.column.is_not(None))
    return query.where(_name_of(place) != vault.name) if _is_plain(place) else query


def _is_plain(place: Place) -> bool:
    return isinstance(place.column.type, LargeBinary)


def _name_of(place: Place) -> ColumnElement[Any]:
    # Written out: PostgreSQL takes two parameters for two different things, even of one value.
    return func.substr(place.column, literal_column("1"), literal_column(f"{NAME_BYTES}"), type_=LargeBinary())


def _count_names(connection: Connection, place: Place) -> Iterator[tuple[bytes, int]]:
    if _is_plain(place):
        query = select(_name_of(place), func.count()).where(place.column.is_not(None)).group_by(_name_of(place))
        yield from ((bytes(name), count) for name, count in connection.execute(query))
        return
    for (value,) in connection.execute(select(place.column).where(place.column.is_not(None))):
        yield from ((name, 1) for name in _names_in(place, value))


def _names_in(place: Place, value: Any) -> list[bytes]:
    names: list[bytes] = []

    def note(sealed: bytes) -> bytes:
        names.append(sealed[:NAME_BYTES])
        return sealed

    place.change(note, value)
    return names
