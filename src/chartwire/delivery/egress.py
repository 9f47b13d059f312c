"""The egress port: one POST to a receiver, under the address rule and one deadline."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from chartwire.model.webhook import Outcome, Timing
from chartwire.tls import TlsProfile

ANSWER_LIMIT = 16 * 1024
"""Bytes of an answer's body that are read."""


@dataclass(frozen=True, slots=True, eq=False)
class Recipient:
    """Where messages go, and the headers that are the same for each of them.

    It equals nothing but itself: who has many messages for it keeps it, and what is prepared for it is found again.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: TlsProfile | None = None


class PostRequest(NamedTuple):
    """A message on its way, with the headers that are its own as `header_lines` makes them.

    `deadline` in seconds covers everything from the name's resolution to the answer's body.
    """

    recipient: Recipient
    lines: bytes
    body: bytes
    deadline: float


class PostAnswer(NamedTuple):
    """What came back: a status with at most `ANSWER_LIMIT` bytes of body, or the reason why there was no answer.

    `retry_after` is what the receiver asked for; a good answer (2xx) may lack it. `seconds` is how long it took, where
    another did the posting and took the time.
    """

    status: int | None = None
    body: bytes = b""
    retry_after: str | None = None
    failure: Outcome | None = None
    seconds: float | None = None


Answered = Callable[[PostAnswer | None, Timing], None]
"""Told what came back, None if nobody can say how it ended, or whether it was sent; and how long each step took."""


class Egress(Protocol):
    """Posts messages. Never raises for what a receiver or the network between does."""

    @property
    def is_open(self) -> bool:
        """Whether anything can be posted now."""

    def send(self, request: PostRequest, answered: Answered) -> None:
        """One request: once a byte of it has been sent, it is not sent a second time.

        `answered` is called once, perhaps before this returns, and must not raise. Neither a task nor a future is made:
        that is a third of what a post costs.
        """

    async def close(self) -> None:
        """Give back connections."""
