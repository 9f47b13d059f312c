"""The adapter of the egress port: pooled HTTP/1.1, one deadline, no redirects, no decompression."""

import asyncio
import ssl
from collections.abc import Sequence

from chartwire.addresses import IPNetwork
from chartwire.delivery.egress import PostAnswer, PostRequest
from chartwire.delivery.http.connecting import Connector
from chartwire.delivery.http.connection import Connection
from chartwire.delivery.http.destination import Place, prepare
from chartwire.delivery.http.laps import Laps, timing_of
from chartwire.delivery.http.line import Answered, Lines, Posting
from chartwire.delivery.http.pool import ConnectionPool
from chartwire.delivery.http.proxy import Proxy
from chartwire.delivery.http.reasons import reason_of
from chartwire.delivery.http.resolution import Resolver, SystemResolver
from chartwire.delivery.http.routes import reach_directly
from chartwire.delivery.http.tls import TlsContexts
from chartwire.errors import ForbiddenAddressError
from chartwire.model.webhook import UNTIMED, Timing

_IDLE_PER_IN_FLIGHT = 2
"""Deliveries move from host to host: with as many idle as in flight, a tenth of the posts opened a connection anew."""
_TICK_SECONDS = 0.1
"""One coarse timer looks after everything that is in flight: one each would cost a tenth of a post."""


class HttpEgress:
    """Posts messages; see `Egress`. Needs a running event loop; the dispatcher bounds how much is in flight."""

    def __init__(
        self,
        allowed: Sequence[IPNetwork],
        limit: int,
        *,
        ssl_context: ssl.SSLContext | None = None,
        resolver: Resolver | None = None,
        proxy_url: str = "",
    ) -> None:
        """`limit` is how much is in flight at most, and what one origin's idle connections come to at most.

        Without a `proxy_url` addresses are reached directly.
        """
        self._loop = asyncio.get_running_loop()
        self._resolver = resolver or SystemResolver()
        self._connector = Connector(
            allowed,
            self._resolver,
            TlsContexts(ssl_context),
            Proxy.parse(proxy_url).reach if proxy_url else reach_directly,
            self._take_back,
        )
        self._pool = ConnectionPool(_IDLE_PER_IN_FLIGHT * limit, limit)
        self._open: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._in_use: dict[Place, int] = {}
        self._lines = Lines(self._loop, self._open_for)
        self._tick: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """See `Egress.is_open`."""
        return True

    def send(self, request: PostRequest, answered: Answered) -> None:
        """See `Egress.send`."""
        deadline = self._loop.time() + request.deadline
        try:
            place, head = prepare(request.recipient)
        except (ForbiddenAddressError, ValueError) as error:
            answered(PostAnswer(failure=reason_of(error)), UNTIMED)
            return
        body = request.body
        message = b"%b%b\r\ncontent-length: %d\r\n\r\n%b" % (head, request.lines, len(body), body)
        connection = self._pool.take(place)
        if connection is not None:
            self._begin_use(place)
            connection.exchange(message, deadline, answered)
        elif place in self._in_use:
            self._lines.stand(Posting(place, message, deadline, answered))
        else:
            self._open_for(Posting(place, message, deadline, answered))

    async def post(self, request: PostRequest) -> PostAnswer:
        """As `send`, for who waits for it. One that is cancelled goes on by itself until its deadline."""
        answer, _ = await self.post_timed(request)
        return answer

    async def post_timed(self, request: PostRequest) -> tuple[PostAnswer, Timing]:
        """As `post`, with how long each step took."""
        future: asyncio.Future[tuple[PostAnswer, Timing]] = self._loop.create_future()

        def keep(answer: PostAnswer, timing: Timing) -> None:
            if not future.done():  # it may have been cancelled
                future.set_result((answer, timing))

        self.send(request, keep)
        return await future

    async def close(self) -> None:
        """See `Egress.close`."""
        if self._tick is not None:
            self._tick.cancel()
        self._lines.close()
        for opening in self._opening:
            opening.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for connection in self._open:
            connection.abort()
        await asyncio.gather(*(connection.lost for connection in self._open))
        self._resolver.close()

    def _take_back(self, connection: Connection) -> None:
        """An exchange has ended: what its connection is used for next, if it can be."""
        place = connection.place
        following = self._lines.next(place)
        if following is not None:
            self._go_on(following, connection)
            return
        self._end_use(place)
        if connection.is_open:
            self._pool.give(place, connection, self._loop.time())

    def _go_on(self, posting: Posting, connection: Connection) -> None:
        if connection.is_reusable():
            connection.exchange(posting.message, posting.deadline, posting.answered)
        else:
            connection.abort()
            self._end_use(posting.place)
            self._open_for(posting)

    def _open_for(self, posting: Posting) -> None:
        self._begin_use(posting.place)
        opening = self._loop.create_task(self._open_and_exchange(posting))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def _open_and_exchange(self, posting: Posting) -> None:
        place, laps = posting.place, Laps()
        try:
            connection = await self._connect(place, posting.deadline, laps)
        except (ForbiddenAddressError, OSError, ValueError) as error:
            self._end_use(place)
            if place not in self._in_use and (following := self._lines.next(place)) is not None:
                self._open_for(following)
            posting.answered(PostAnswer(failure=reason_of(error)), timing_of(laps, None))
        else:
            connection.exchange(posting.message, posting.deadline, posting.answered)

    def _begin_use(self, place: Place) -> None:
        """Of a connection to there, or of the hope for one."""
        self._in_use[place] = self._in_use.get(place, 0) + 1

    def _end_use(self, place: Place) -> None:
        left = self._in_use.pop(place) - 1
        if left:
            self._in_use[place] = left

    async def _connect(self, place: Place, deadline: float, laps: Laps) -> Connection:
        async with asyncio.timeout_at(deadline):
            connection = await self._connector.connect(place.origin, place.profile, laps)
        connection.place, connection.laps = place, laps
        self._open.add(connection)
        connection.lost.add_done_callback(lambda _: self._open.discard(connection))
        if self._tick is None:
            self._look_after()
        return connection

    def _look_after(self) -> None:
        now = self._loop.time()
        for connection in self._open:
            if connection.deadline <= now:
                connection.expire()
        self._pool.close_aged(now)
        self._tick = self._loop.call_later(_TICK_SECONDS, self._look_after) if self._open else None
