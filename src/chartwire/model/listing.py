"""Lists in parts, in an order of the reader's choice: each part begins after the last item of the one before.

Items are ordered by a value and, where that is the same, by their own key. So what comes or goes meanwhile neither
repeats nor hides another.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

Scalar = str | int
Place = tuple[Scalar, Scalar]
"""Where an item stands: the value that the list is ordered by, and the item's own key."""


@dataclass(frozen=True, slots=True)
class Order:
    """By a column, upwards or downwards. As a word: its name, with a minus before it for downwards."""

    column: str
    is_descending: bool = False

    @classmethod
    def parse(cls, word: str) -> "Order":
        """The inverse of `word`."""
        return cls(word.removeprefix("-"), word.startswith("-"))

    @property
    def word(self) -> str:
        """As an address has it."""
        return f"-{self.column}" if self.is_descending else self.column

    def turned_to(self, column: str) -> str:
        """The word that orders by a column: the other way round if it is ordered by it already."""
        return Order(column, self.column == column and not self.is_descending).word


@dataclass(frozen=True, slots=True)
class Window:
    """Which part: at most `limit` items after a place, or from the beginning."""

    order: Order
    limit: int
    after: Place | None = None


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """A part of a list; `end` is where the next one begins, None at the end of the list."""

    items: list[T]
    end: Place | None


def cut_part(
    items: Iterable[T], columns: Mapping[str, Callable[[T], Scalar]], key: Callable[[T], Scalar], window: Window
) -> Part[T]:
    """A part of a list that is short enough to be in memory as a whole."""
    value, order = columns[window.order.column], window.order

    def place(item: T) -> Place:
        return value(item), key(item)

    ordered = sorted(items, key=place, reverse=order.is_descending)
    if (after := window.after) is not None:
        ordered = [item for item in ordered if (place(item) < after if order.is_descending else place(item) > after)]
    here = ordered[: window.limit]
    return Part(here, place(here[-1]) if len(ordered) > len(here) else None)
