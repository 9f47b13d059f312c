"""The egress of a process that has the database and lets workers in another zone of the network post.

A request that is ready to be posted goes to them as a sealed ticket, and its answer comes back as one; whoever sent it
judges and settles it as if it had posted by itself. Nothing is kept but in memory: what a process had handed over when
it died comes back when its leases end, and answers to it are nobody's.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import count

from chartwire import ids
from chartwire.clock import Clock
from chartwire.delivery.bus import Bus, Consumer, Ticket
from chartwire.delivery.egress import Answered, Egress, PostRequest
from chartwire.delivery.transport import (
    ANSWER_SLACK,
    ANSWERS,
    BEGIN_WITHIN,
    POSTINGS,
    PRESENCE,
    WORKERS,
    Posting,
    Transport,
)
from chartwire.errors import BusError, SealBrokenError
from chartwire.model.webhook import UNTIMED
from chartwire.telemetry import Metrics, get_logger

PRESENT_SECONDS = 6.0
"""A worker that has not been heard for so long is taken to be gone."""

_LOOK_SECONDS = 1.0
_ENVELOPE_BYTES = 1024  # headers of the broker and its protocol, around a ticket
_ID_LENGTH = 16

log = get_logger()


@dataclass(frozen=True, slots=True)
class _HandedOver:
    """`given_up_at`, in the event loop's time: no answer comes after it."""

    answered: Answered
    given_up_at: float


class RelayEgress:
    """Hands requests to workers while any listen; see `Egress`. Needs a running event loop.

    While none does it posts `directly`, or, if that is None, nothing at all: what is due waits.
    """

    def __init__(
        self, bus: Bus, transport: Transport, directly: Egress | None, clock: Clock, limit: int, metrics: Metrics
    ) -> None:
        self._bus = bus
        self._transport = transport
        self._directly = directly
        self._clock = clock
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._id = ids.url_safe(_ID_LENGTH)
        self._numbers = count()
        self._heard: dict[str, float] = {}
        self._listened_until = 0.0  # asked for by threads too, which may not look into what changes
        self._waiting: dict[str, _HandedOver] = {}
        self._handing_over: set[asyncio.Task[None]] = set()
        bus.hear(PRESENCE, self._hear)
        self._answers: Consumer = bus.consume(ANSWERS, self._id, limit, self._take_answer)

    @property
    def is_open(self) -> bool:
        """See `Egress.is_open`."""
        return self._directly is not None or self._is_listened_to()

    def send(self, request: PostRequest, answered: Answered) -> None:
        """See `Egress.send`."""
        begin_by = self._clock() + timedelta(seconds=BEGIN_WITHIN)
        posting = Posting(f"{self._id}.{next(self._numbers)}", self._id, begin_by, request)
        frame = self._transport.seal_posting(posting) if self._is_listened_to() else b""
        if frame and len(frame) + _ENVELOPE_BYTES <= self._bus.largest:
            given_up_at = self._loop.time() + BEGIN_WITHIN + request.deadline + ANSWER_SLACK
            self._waiting[posting.id] = _HandedOver(answered, given_up_at)
            self._hand_over(posting, frame)
        elif self._directly is not None:
            self._directly.send(request, answered)
        else:
            if frame:
                log.error("a message is larger than the broker takes: raise its max_payload", bytes=len(frame))
            answered(None, UNTIMED)

    async def run(self) -> None:
        """Take answers, and give up what is not answered, until `drain`."""
        looking = asyncio.create_task(self._look())
        try:
            await self._answers.run()
        finally:
            looking.cancel()
            for task in self._handing_over:
                task.cancel()

    async def drain(self) -> None:
        """Stop, once nothing is in flight any more."""
        await self._answers.drain(0)

    async def close(self) -> None:
        """See `Egress.close`."""
        if self._directly is not None:
            await self._directly.close()

    def _is_listened_to(self) -> bool:
        return self._bus.is_up and self._loop.time() < self._listened_until

    def _hear(self, word: str) -> None:
        worker, _, left = word.partition(" ")
        if left:
            self._heard.pop(worker, None)
        else:
            self._heard[worker] = self._loop.time()
        self._listened_until = max(self._heard.values(), default=0.0) + PRESENT_SECONDS

    def _hand_over(self, posting: Posting, frame: bytes) -> None:
        task = self._loop.create_task(self._publish(posting, frame))
        self._handing_over.add(task)
        task.add_done_callback(self._handing_over.discard)

    async def _publish(self, posting: Posting, frame: bytes) -> None:
        """Until the broker confirms it, or it is of no use any more: it keeps one of several under the same id."""
        while posting.id in self._waiting and self._clock() < posting.begin_by:
            with suppress(BusError):
                await self._bus.publish(POSTINGS, WORKERS, posting.id, frame)
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _take_answer(self, ticket: Ticket) -> None:
        try:
            answered = self._transport.open_answer(ticket.payload)
        except SealBrokenError:
            log.exception("an answer of a worker cannot be opened")
            return
        handed_over = self._waiting.pop(answered.id, None)
        if handed_over is None:  # it was given up, or answered by another
            self._metrics.tickets.labels(POSTINGS.name, "late").inc()
            return
        handed_over.answered(answered.answer, answered.timing)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = self._loop.time()
            for worker in [each for each, heard_at in self._heard.items() if heard_at < now - PRESENT_SECONDS]:
                del self._heard[worker]
            self._metrics.workers.set(len(self._heard))
            for each in [each for each, handed_over in self._waiting.items() if handed_over.given_up_at < now]:
                self._metrics.tickets.labels(POSTINGS.name, "lost").inc()
                self._waiting.pop(each).answered(None, UNTIMED)
