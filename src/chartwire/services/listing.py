"""Lists as addresses ask for them: a word for the order, and one, sealed, for where the next part begins."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

import orjson

from chartwire.errors import BadRequestError
from chartwire.model.listing import Order, Part, Window
from chartwire.services.links import PageSealer
from chartwire.store.vault import Vault

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """Which part of a list somebody wants: None for its own order, and for its beginning."""

    sort: str | None = None
    after: str | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """A part of a list, how it is ordered, and the word that the next part is asked by; None at the end."""

    items: list[T]
    next: str | None
    order: Order


class Listing:
    """One list: its name, what it may be ordered by, and how it is if nobody says."""

    def __init__(self, vault: Vault, name: str, columns: Collection[str], default: str) -> None:
        self._sealer = PageSealer(vault)
        self._name = name
        self._columns = columns
        self._default = default

    def window(self, asked: Asked) -> Window:
        """Raises `BadRequestError` for an order that there is not, and for an `after` that was not given out."""
        order = Order.parse(asked.sort or self._default)
        if order.column not in self._columns:
            allowed = ", ".join(sorted(self._columns))
            raise BadRequestError(f"The list can be sorted by {allowed}; with a minus before it, downwards")
        if asked.after is None:
            return Window(order, asked.limit)
        parameters, place = self._sealer.open(asked.after)
        if parameters != self._marks(order):
            raise BadRequestError("The link to the next page is not one that was given")
        value, key = orjson.loads(place)
        return Window(order, asked.limit, (value, key))

    def listed(self, window: Window, part: Part[T]) -> Listed[T]:
        """A part that was read, as it is shown."""
        word = None
        if part.end is not None:
            word = self._sealer.seal(self._marks(window.order), orjson.dumps(part.end).decode())
        return Listed(part.items, word, window.order)

    def _marks(self, order: Order) -> list[tuple[str, str]]:
        return [("list", self._name), ("sort", order.word)]
