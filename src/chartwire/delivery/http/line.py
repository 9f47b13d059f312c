"""Requests that wait a little for a connection that is in use, before another one is opened.

A receiver that answers at once needs few connections, and a new one costs as much as twenty posts, more over TLS. So
who finds none idle stands in line while others of the same key are in use, and leaves it when none came free for a
while.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from chartwire.delivery.egress import PostAnswer
from chartwire.delivery.http.pool import PoolKey
from chartwire.model.webhook import Timing

_PATIENCE_SECONDS = 0.1

Answered = Callable[[PostAnswer, Timing], None]


class Posting(NamedTuple):
    """A request as it is sent; `deadline` is in the event loop's time."""

    key: PoolKey
    message: bytes
    deadline: float
    answered: Answered


class Lines:
    """One line for each key that has connections in use."""

    def __init__(self, loop: asyncio.AbstractEventLoop, leave: Callable[[Posting], None]) -> None:
        """`leave` is given each request that has stood in line for too long."""
        self._loop = loop
        self._leave = leave
        self._waiting: dict[PoolKey, deque[tuple[Posting, asyncio.TimerHandle]]] = {}

    def stand(self, posting: Posting) -> None:
        """Go to the end of the line."""
        timer = self._loop.call_later(_PATIENCE_SECONDS, self._lose_patience, posting.key)
        self._waiting.setdefault(posting.key, deque()).append((posting, timer))

    def next(self, key: PoolKey) -> Posting | None:
        """Who has waited longest for a connection of this key, and waits no more."""
        line = self._waiting.get(key)
        if line is None:
            return None
        posting, timer = line.popleft()
        timer.cancel()
        if not line:
            del self._waiting[key]
        return posting

    def close(self) -> None:
        """Nobody waits any more, and nobody is answered."""
        while self._waiting:
            self.next(next(iter(self._waiting)))

    def _lose_patience(self, key: PoolKey) -> None:
        """The first timer that rings is that of the first in line."""
        posting = self.next(key)
        if posting is not None:
            self._leave(posting)
