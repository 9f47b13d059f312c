"""One connection to a receiver: a request at a time, and what became of it."""

import asyncio
import math
import select
from collections.abc import Callable
from time import perf_counter
from typing import cast

from chartwire.delivery.egress import PostAnswer
from chartwire.delivery.http.answer import AnswerReader, Glance
from chartwire.delivery.http.destination import Place
from chartwire.delivery.http.laps import Laps, timing_of
from chartwire.delivery.http.line import Answered
from chartwire.delivery.http.reasons import reason_of
from chartwire.model.webhook import Outcome


class Connection(asyncio.Protocol):
    """An open connection. Whoever opened it sets `place`, watches `deadline` (event loop time) and calls `expire`."""

    def __init__(self, glance: Glance, freed: "Callable[[Connection], None]") -> None:
        """`freed` is told when an exchange has ended, before whoever waits for its answer."""
        self.place: Place
        """Where it leads."""
        self.deadline = math.inf
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when nothing is left of it."""
        self.idle_since = 0.0
        self.laps: Laps | None = None
        """Those of opening it, until an exchange has ended."""
        self._first_byte: int | None = None
        self._sent_at = 0.0
        self._glance = glance
        self._freed = freed
        self._reader: AnswerReader | None = None
        self._answered: Answered | None = None
        self._closed = False

    def exchange(self, message: bytes, deadline: float, answered: Answered) -> None:
        """Send a request; `answered` is called once, with the answer or the reason why there is none."""
        self.deadline = deadline
        self._answered = answered
        self._first_byte = None
        self._sent_at = perf_counter()
        self._transport.write(message)

    @property
    def is_open(self) -> bool:
        """Whether it may be kept: the last exchange was clean and nothing has ended it since."""
        return not self._closed

    def is_reusable(self) -> bool:
        """Whether another request may be sent, as far as can be known before it is.

        Looks at the socket too: the peer may have closed, or said what nobody asked for, and the event loop not
        have come to it yet. Whatever can be read before a request is sent makes the connection useless.
        """
        return not self._closed and not self._poll.poll(0)

    def expire(self) -> None:
        """The deadline has passed."""
        self._settle(PostAnswer(failure=Outcome.TIMEOUT), is_clean=False)

    def close(self) -> None:
        """Close in good order; what is in flight is lost."""
        self._closed = True
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._closed = True
        self._transport.abort()

    def _settle(self, answer: PostAnswer, *, is_clean: bool) -> None:
        """Hand the answer over. A connection that is not exactly at the end of an exchange is not used again."""
        answered, self._answered, self._reader = self._answered, None, None
        self.deadline = math.inf
        if not is_clean or self._transport.get_write_buffer_size():
            self.abort()
        if answered is not None:
            timing = timing_of(self.laps, self._first_byte)
            self.laps = None
            self._freed(self)
            answered(answer, timing)

    def _end(self) -> PostAnswer | None:
        """The answer, if its body was to last until the peer has said all."""
        return None if self._reader is None else self._reader.end()

    # --- called by the event loop -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands, TLS included."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own does not inherit from it
        self._transport.set_write_buffer_limits(high=0)  # else uvloop writes when all that is due has been prepared
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """A part of the answer, unless none is due."""
        if self._answered is None:
            self.abort()
            return
        if self._first_byte is None:
            self._first_byte = round((perf_counter() - self._sent_at) * 1e6)
            if (answer := self._glance.take(data)) is not None:
                self._settle(answer, is_clean=True)
                return
        if self._reader is None:
            self._reader = AnswerReader()
        if (answer := self._reader.feed(data)) is not None:
            self._settle(answer, is_clean=self._reader.clean)

    def eof_received(self) -> None:
        """The peer has said all; for some answers that is the end of the body."""
        self._closed = True
        if self._answered is not None:
            self._settle(self._end() or PostAnswer(failure=Outcome.RESET), is_clean=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._closed = True
        if self._answered is not None:
            whole = self._end() if exc is None else None  # over TLS some loops have no `eof_received` before
            self._settle(whole or PostAnswer(failure=reason_of(exc or ConnectionResetError())), is_clean=False)
        self.lost.set_result(None)
