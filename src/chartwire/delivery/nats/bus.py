"""The bus on NATS JetStream: a stream for each queue, a durable pull consumer for each of its lanes."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error, NoRespondersError
from nats.js import JetStreamContext
from nats.js.api import Header
from nats.js.errors import NoStreamResponseError

from chartwire.delivery.bus import Broker, Consumer, Handler, Queue
from chartwire.delivery.nats.connecting import ANSWER_SECONDS, connect, reason
from chartwire.delivery.nats.consumer import NatsConsumer
from chartwire.delivery.nats.streams import make_consumer, make_stream
from chartwire.errors import BusError, ConfigurationError
from chartwire.telemetry import Metrics, get_logger

_LOOK_SECONDS = 1.0
_NOT_YET = "not connected yet"

log = get_logger()


class NatsBus:
    """The bus on NATS JetStream. Needs a running event loop.

    `queues` are those that it makes, with a consumer for each of their lanes. One that has none makes nothing and asks
    for nothing but tickets, so that its rights on the broker can be few.
    """

    def __init__(self, broker: Broker, tag: str, queues: Sequence[Queue], metrics: Metrics) -> None:
        self._broker = broker
        self._tag = tag
        self._queues = queues
        self.metrics = metrics
        self._lanes: list[tuple[Queue, str]] = []
        self._heard: list[tuple[str, Callable[[str], None]]] = []
        self._client: Client | None = None
        self._stream: JetStreamContext | None = None
        self._trouble: str | None = _NOT_YET
        self._is_misconfigured = False
        self._doubts = 0
        self._settled_doubts = 0
        self._closing = False
        self._news = asyncio.Event()
        self._turned = asyncio.Condition()
        self._tending: asyncio.Task[None] | None = None

    async def start(self) -> Self:
        """Connect, if the broker can be had now, and go on trying if not.

        Raises `ConfigurationError` for a stream that is there under our name and cannot be used or mended.
        """
        self._tending = asyncio.create_task(self._tend())
        async with self._turned:
            await self._turned.wait_for(lambda: self._trouble is not _NOT_YET)
        if self._is_misconfigured:
            error = ConfigurationError(f"nats_url: {self._trouble}")
            await self.close()
            raise error
        return self

    async def close(self) -> None:
        """See `Bus.close`."""
        self._closing = True
        if self._tending is not None:
            self._tending.cancel()
            with suppress(asyncio.CancelledError):
                await self._tending
        await self._hang_up()

    @property
    def is_up(self) -> bool:
        """See `Bus.is_up`."""
        return self._trouble is None and self._doubts == self._settled_doubts

    @property
    def largest(self) -> int:
        """See `Bus.largest`."""
        return self._client.max_payload if self._client is not None else 0

    def trouble(self) -> str | None:
        """See `Bus.trouble`."""
        return self._trouble

    async def publish(self, queue: Queue, lane: str, ticket_id: str, payload: bytes) -> None:
        """See `Bus.publish`."""
        stream = self._stream
        if stream is None or not self.is_up:
            raise BusError
        headers = {Header.MSG_ID.value: ticket_id}
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await stream.publish_async(self.subject(queue, lane), payload, headers=headers)
                await answer
        except (Error, OSError, TimeoutError) as error:
            if isinstance(error, NoStreamResponseError | NoRespondersError):
                self.doubt()
            raise BusError(f"the broker did not take a ticket: {type(error).__name__}") from None
        self.metrics.tickets.labels(queue.name, "published").inc()

    def consume(self, queue: Queue, lane: str, limit: int, handler: Handler) -> Consumer:
        """See `Bus.consume`."""
        self._lanes.append((queue, lane))
        self.doubt()  # its consumer is still to be made
        return NatsConsumer(self, queue, self.stream_name(queue), lane, limit, handler, self.metrics)

    async def tell(self, topic: str, word: str) -> None:
        """See `Bus.tell`."""
        if self._client is not None and self._client.is_connected:
            with suppress(Error, OSError):
                await self._client.publish(f"chartwire.{self._tag}.{topic}", word.encode())

    def hear(self, topic: str, heard: Callable[[str], None]) -> None:
        """See `Bus.hear`."""
        self._heard.append((f"chartwire.{self._tag}.{topic}", heard))
        self.doubt()

    def subject(self, queue: Queue, lane: str) -> str:
        """The subject of a lane."""
        return f"chartwire.{self._tag}.{queue.name}.{lane}"

    def stream_name(self, queue: Queue) -> str:
        """The stream of a queue."""
        return f"chartwire-{self._tag}-{queue.name}"

    async def line(self) -> Client:
        """The connection, once it is up and all is prepared."""
        async with self._turned:
            await self._turned.wait_for(lambda: self.is_up)
        assert self._client is not None  # noqa: S101  what "up" means
        return self._client

    def doubt(self) -> None:
        """Something is not as it should be: look at once."""
        self._doubts += 1
        self._news.set()

    async def _tend(self) -> None:
        while True:
            self._news.clear()
            if not self.is_up:
                await self._mend()
                async with self._turned:
                    self._turned.notify_all()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._news.wait()

    async def _mend(self) -> None:
        doubts = self._doubts
        try:
            client = await self._connected()
            if client.is_connected:  # else it is coming back by itself
                await self._prepare()
        except ConfigurationError as error:
            self._say(str(error), is_misconfigured=True)
        except Exception as error:  # noqa: BLE001  such as credentials that cannot be read: whatever it is, it is told
            self._say(reason(error))
        else:
            self._settled_doubts = doubts
            self._say(None if client.is_connected else "the broker is away")

    def _say(self, trouble: str | None, *, is_misconfigured: bool = False) -> None:
        self._is_misconfigured = is_misconfigured
        if trouble != self._trouble:
            log.info("the bus is up") if trouble is None else log.warning("the bus is not up", hint=trouble)
        self._trouble = trouble

    async def _connected(self) -> Client:
        if self._client is None or self._client.is_closed:
            await self._hang_up()
            self._client = await connect(self._broker, lost=self._lost, back=self._back)
            self._stream = self._client.jetstream(timeout=ANSWER_SECONDS)
            self._subscribed = 0
        return self._client

    async def _lost(self) -> None:
        if not self._closing:
            self._say("the broker is away")
            self._news.set()

    async def _back(self) -> None:
        self._news.set()

    async def _hang_up(self) -> None:
        client, self._client, self._stream = self._client, None, None
        if client is not None:
            with suppress(Error, OSError, TimeoutError):
                await client.close()

    async def _prepare(self) -> None:
        assert self._client is not None  # noqa: S101  connected before
        for topic, heard in self._heard[self._subscribed :]:
            await self._client.subscribe(topic, cb=_passing_on(heard))
            self._subscribed += 1
        for queue in self._queues:
            await self._make(queue)

    async def _make(self, queue: Queue) -> None:
        assert self._stream is not None  # noqa: S101  connected before
        name = self.stream_name(queue)
        await make_stream(self._stream, queue, name, self.subject(queue, ">"), self._broker.replicas)
        own = [lane for of, lane in self._lanes if of == queue and lane not in queue.lanes]
        for lane in (*queue.lanes, *own):
            forgotten_after = 10 * queue.max_age if lane in own else None
            await make_consumer(self._stream, queue, name, lane, self.subject(queue, lane), forgotten_after)


def _passing_on(heard: Callable[[str], None]) -> Callable[[Msg], Awaitable[None]]:
    async def pass_on(message: Msg) -> None:
        heard(message.data.decode(errors="replace"))

    return pass_on
