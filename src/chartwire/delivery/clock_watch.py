"""Whether the machine's clock was set, which is told from the time that the event loop counts."""

import asyncio
from datetime import timedelta

from chartwire.clock import Clock

_TOLERANCE = timedelta(seconds=5)  # a clock that is being slewed gains or loses less in a turn


class ClockWatch:
    """Compares a clock with the event loop's time, which only runs on. Needs a running event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begin()

    def jump(self) -> timedelta:
        """How far the clock was set forward, or back if negative; nothing if it just ran. Told until `accept`."""
        elapsed = timedelta(seconds=asyncio.get_running_loop().time() - self._loop_time)
        jumped = self._clock() - self._wall_time - elapsed
        if abs(jumped) > _TOLERANCE:
            return jumped
        self._begin()
        return timedelta()

    def accept(self) -> None:
        """What the clock says now is the time."""
        self._begin()

    def _begin(self) -> None:
        self._wall_time = self._clock()
        self._loop_time = asyncio.get_running_loop().time()
