"""Taking tickets: asked for as there is room, followed side by side, acknowledged when followed."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error, NoRespondersError
from nats.js.api import Header

from chartwire.delivery.bus import Handler, Queue, Ticket
from chartwire.telemetry import Metrics, get_logger

_LOOK_SECONDS = 1.0
_ASK_SECONDS = 10.0
"""How long one request for tickets stands. One that was lost on its way delays work by this and a little more."""

_EXPIRED = frozenset({"404", "408"})  # no tickets while the request stood

log = get_logger()


class Line(Protocol):
    """The connection of a bus, as its consumers see it."""

    @property
    def is_up(self) -> bool:
        """Whether tickets can be asked for."""

    async def line(self) -> Client:
        """The connection, once it is up."""

    def doubt(self) -> None:
        """Something is not as it should be."""


class NatsConsumer:
    """Asks for as many tickets as it has room for, and for more when it has got them."""

    def __init__(
        self, bus: Line, queue: Queue, stream: str, lane: str, limit: int, handler: Handler, metrics: Metrics
    ) -> None:
        self._bus = bus
        self._queue = queue
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{lane}"
        self._counts = metrics.tickets
        self._limit = limit
        self._handler = handler
        self._doing: dict[asyncio.Task[None], Msg] = {}
        self._asked = 0
        self._is_refused = False
        self._news = asyncio.Event()
        self._closing = False
        self._taking: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """See `Consumer.run`."""
        self._taking = asyncio.create_task(self._take())
        extending = asyncio.create_task(self._extend())
        try:
            await asyncio.wait([self._taking])
        finally:
            extending.cancel()
            self._taking.cancel()

    async def drain(self, seconds: float) -> None:
        """See `Consumer.drain`."""
        self._closing = True
        self._news.set()
        if self._doing:
            _, late = await asyncio.wait(list(self._doing), timeout=seconds)
            for task in late:
                task.cancel()
        if self._taking is not None:
            self._taking.cancel()  # it may be waiting for a broker that is away

    async def _take(self) -> None:
        while not self._closing:
            try:
                await self._take_while_up(await self._bus.line())
            except (Error, OSError, TimeoutError) as error:
                log.warning("tickets cannot be taken", code=type(error).__name__)
                self._bus.doubt()
                await self._wait(_LOOK_SECONDS)

    async def _take_while_up(self, client: Client) -> None:
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox, cb=self._receive)
        self._is_refused = False
        try:
            while self._bus.is_up and not self._closing:
                await self._ask(client, inbox)
                if self._is_refused:
                    raise NoRespondersError
        finally:
            with suppress(Error, OSError):
                await subscription.unsubscribe()

    async def _ask(self, client: Client, inbox: str) -> None:
        """One request, until it is filled or has expired."""
        self._news.clear()
        self._asked = max(0, self._limit - len(self._doing))
        if self._asked:
            request = {"batch": self._asked, "expires": int(_ASK_SECONDS * 1e9)}
            await client.publish(self._next, orjson.dumps(request), reply=inbox)
            await self._until(lambda: self._asked <= 0, _ASK_SECONDS + 1)
        else:
            await self._until(lambda: len(self._doing) < self._limit, _ASK_SECONDS)

    async def _until(self, holds: Callable[[], bool], seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not (holds() or self._closing or self._is_refused) and self._bus.is_up:
                    await self._wait(_LOOK_SECONDS)

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        self._news.clear()

    async def _receive(self, message: Msg) -> None:
        status = (message.headers or {}).get("Status")
        if status is not None:
            self._asked = 0
            self._is_refused = status not in _EXPIRED
            self._news.set()
            return
        self._asked -= 1
        if self._closing:
            await message.nak()  # for another, at once
            return
        task = asyncio.create_task(self._do(message))
        self._doing[task] = message
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._doing[task]
        self._news.set()

    async def _do(self, message: Msg) -> None:
        ticket = Ticket((message.headers or {}).get(Header.MSG_ID, ""), message.data, message.metadata.num_delivered)
        if ticket.count > 1:
            self._counts.labels(self._queue.name, "redelivered").inc()
        try:
            await self._handler(ticket)
        except Exception:  # one ticket must not stop the others
            log.exception("a ticket could not be followed")
        else:
            with suppress(Error, OSError):
                await message.ack()
                self._counts.labels(self._queue.name, "acked").inc()

    async def _extend(self) -> None:
        """What takes longer than `ack_wait` is not handed to another while it goes on here."""
        while True:
            await asyncio.sleep(self._queue.ack_wait / 3)
            for message in list(self._doing.values()):
                with suppress(Error, OSError):
                    await message.in_progress()
