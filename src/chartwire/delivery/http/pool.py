"""Connections that wait for their next request."""

from collections import OrderedDict

from chartwire.delivery.http.connection import Connection
from chartwire.delivery.http.destination import Place

_IDLE_SECONDS = 30.0


class ConnectionPool:
    """Idle connections, bounded in number, per place and in all, and in the time they may idle.

    Of one place the connection used last is taken first, so that what is too much grows old and is closed. When there
    are too many in all, the place that was used longest ago gives up its oldest.
    """

    def __init__(self, limit: int, limit_per_place: int) -> None:
        self._limit = limit
        self._limit_per_place = limit_per_place
        self._count = 0
        self._idle: OrderedDict[Place, list[Connection]] = OrderedDict()

    def take(self, place: Place) -> Connection | None:
        """A connection that can carry a request now, if there is one."""
        idle = self._idle.get(place)
        while idle:
            connection = idle.pop()
            self._count -= 1
            if connection.is_reusable():
                return connection
            connection.abort()
        return None

    def give(self, place: Place, connection: Connection, now: float) -> None:
        """Keep a connection for later. `now` is the event loop's time."""
        connection.idle_since = now
        idle = self._idle.get(place)
        if idle is None:
            idle = self._idle[place] = []
        else:
            self._idle.move_to_end(place)
        idle.append(connection)
        self._count += 1
        if len(idle) > self._limit_per_place:
            self._close_oldest(idle)
        if self._count > self._limit:
            self._make_room()

    def close_aged(self, now: float) -> None:
        """Close what has idled for too long."""
        for place, idle in list(self._idle.items()):
            while idle and idle[0].idle_since <= now - _IDLE_SECONDS:
                self._close_oldest(idle)
            if not idle:
                del self._idle[place]

    def _make_room(self) -> None:
        while not (idle := next(iter(self._idle.values()))):
            self._idle.popitem(last=False)  # all of its connections are in use
        self._close_oldest(idle)

    def _close_oldest(self, idle: list[Connection]) -> None:
        self._count -= 1
        idle.pop(0).close()
