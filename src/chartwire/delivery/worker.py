"""A worker: posts what others hand it, and reaches neither database nor documents.

It knows the broker, the transport key and the address rule. That a ticket comes late, twice or out of order does no
harm: what it holds is posted once here, and not at all after the moment until which whoever sent it waits.
"""

import asyncio
import time
from datetime import datetime, timedelta

from chartwire import ids
from chartwire.clock import Clock
from chartwire.delivery.bus import Bus, Ticket
from chartwire.delivery.http.client import HttpEgress
from chartwire.delivery.transport import (
    ANSWER_SLACK,
    ANSWERS,
    POSTINGS,
    PRESENCE,
    WORKERS,
    Answered,
    Posting,
    Transport,
)
from chartwire.errors import BusError, SealBrokenError
from chartwire.telemetry import Metrics, get_logger

_PRESENCE_SECONDS = 2.0
_AGAIN_SECONDS = 1.0
_ID_LENGTH = 16

log = get_logger()


class Worker:
    """Takes postings from the bus, at most `limit` at one time, and sends back how each ended."""

    def __init__(
        self, bus: Bus, transport: Transport, egress: HttpEgress, clock: Clock, limit: int, metrics: Metrics
    ) -> None:
        self._bus = bus
        self._transport = transport
        self._egress = egress
        self._clock = clock
        self._metrics = metrics
        self._id = ids.url_safe(_ID_LENGTH)
        self._begun: dict[str, datetime] = {}
        self._postings = bus.consume(POSTINGS, WORKERS, limit, self._follow)

    async def run(self) -> None:
        """Post until `drain`."""
        announcing = asyncio.create_task(self._announce())
        try:
            await self._postings.run()
        finally:
            announcing.cancel()

    async def drain(self, seconds: float) -> None:
        """Take nothing more, and wait so long at most for what is in flight."""
        await self._bus.tell(PRESENCE, f"{self._id} leaves")
        await self._postings.drain(seconds)

    async def _announce(self) -> None:
        while True:
            await self._bus.tell(PRESENCE, self._id)
            await asyncio.sleep(_PRESENCE_SECONDS)

    async def _follow(self, ticket: Ticket) -> None:
        try:
            posting = self._transport.open_posting(ticket.payload)
        except SealBrokenError:
            log.exception("a ticket cannot be opened")
            return
        if not self._begin(posting):
            self._metrics.tickets.labels(POSTINGS.name, "late").inc()
            return
        started = time.monotonic()
        answer, timing = await self._egress.post_timed(posting.request)
        answer = answer._replace(seconds=time.monotonic() - started)
        await self._tell(posting, Answered(posting.id, answer, timing))

    def _begin(self, posting: Posting) -> bool:
        """Whether it may be posted: in time, and not here before."""
        now = self._clock()
        while self._begun and self._begun[next(iter(self._begun))] <= now:
            del self._begun[next(iter(self._begun))]
        if posting.begin_by <= now or posting.id in self._begun:
            return False
        self._begun[posting.id] = posting.begin_by
        return True

    async def _tell(self, posting: Posting, answered: Answered) -> None:
        """Until the broker confirms it, or nobody waits for it any more."""
        frame = self._transport.seal_answer(answered)
        wanted_until = posting.begin_by + timedelta(seconds=posting.request.deadline + ANSWER_SLACK)
        while True:
            try:
                return await self._bus.publish(ANSWERS, posting.sender, posting.id, frame)
            except BusError:
                if self._clock() > wanted_until:
                    return None
            await asyncio.sleep(_AGAIN_SECONDS)
