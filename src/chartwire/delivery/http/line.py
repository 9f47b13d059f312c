"""Requests that wait a little for a connection that is in use, before another one is opened.

A receiver that answers at once needs few connections, and a new one costs as much as twenty posts, more over TLS. So
who finds none idle stands in line while others to the same place are in use, and leaves it when none came free for a
while.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from chartwire.delivery.egress import PostAnswer
from chartwire.delivery.http.destination import Place
from chartwire.model.webhook import Timing

_PATIENCE_SECONDS = 0.1
_TICK_SECONDS = 0.02
"""One coarse timer for all who stand in line: few ever leave one, and one each would cost more than the standing."""

Answered = Callable[[PostAnswer, Timing], None]


class Posting(NamedTuple):
    """A request as it is sent; `deadline` is in the event loop's time."""

    place: Place
    message: bytes
    deadline: float
    answered: Answered


class Lines:
    """One line for each place that has connections in use."""

    def __init__(self, loop: asyncio.AbstractEventLoop, leave: Callable[[Posting], None]) -> None:
        """`leave` is given each request that has stood in line for too long."""
        self._loop = loop
        self._leave = leave
        self._waiting: dict[Place, deque[tuple[Posting, float]]] = {}
        self._tick: asyncio.TimerHandle | None = None

    def stand(self, posting: Posting) -> None:
        """Go to the end of the line."""
        leaves_at = self._loop.time() + _PATIENCE_SECONDS
        self._waiting.setdefault(posting.place, deque()).append((posting, leaves_at))
        if self._tick is None:
            self._tick = self._loop.call_later(_TICK_SECONDS, self._look)

    def next(self, place: Place) -> Posting | None:
        """Who has waited longest for a connection to this place, and waits no more."""
        line = self._waiting.get(place)
        if line is None:
            return None
        posting, _ = line.popleft()
        if not line:
            del self._waiting[place]
        return posting

    def close(self) -> None:
        """Nobody waits any more, and nobody is answered."""
        self._waiting.clear()
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None

    def _look(self) -> None:
        """Send away who has stood for too long; the first in line has stood longest."""
        self._tick, now = None, self._loop.time()
        for place, line in list(self._waiting.items()):
            while line and line[0][1] <= now and (posting := self.next(place)) is not None:
                self._leave(posting)
        if self._waiting and self._tick is None:
            self._tick = self._loop.call_later(_TICK_SECONDS, self._look)
