"""How long the steps of a request take."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Literal

from chartwire.model.webhook import Timing


class Laps:
    """How long each step of opening a connection took, in microseconds, however it ended."""

    __slots__ = ("connect", "dns", "tls")

    def __init__(self) -> None:
        self.dns: int | None = None
        self.connect: int | None = None
        self.tls: int | None = None

    @contextmanager
    def step(self, name: Literal["dns", "connect", "tls"]) -> Iterator[None]:
        """Time a step."""
        began = perf_counter()  # the loop's own clock counts in milliseconds
        try:
            yield
        finally:
            setattr(self, name, round((perf_counter() - began) * 1e6))


def timing_of(laps: Laps | None, first_byte: int | None) -> Timing:
    """Of a request over a connection that stood already there are no laps."""
    if laps is None:
        return Timing(True, None, None, None, first_byte)
    return Timing(False, laps.dns, laps.connect, laps.tls, first_byte)
