"""The bus: carries tickets between processes. Its adapter, `delivery.nats`, is the only part that knows the broker.

A ticket is a hint that something is to be done, never the truth about it: that is a row with a lease. So it may be
lost, come twice, late, or in another order, and whoever takes one looks whether it still holds.

Each queue hands each ticket to one who asks, and to another if it is not acknowledged in time. Within a queue a lane is
for those who can serve it. Names hold nothing but the installation's tag, the queue and the lane, and tickets are as
readable as who publishes them makes them.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Queue:
    """Work that is handed out. Times in seconds: a ticket that is not acknowledged after `ack_wait` is handed out
    again, and after `max_age` to nobody any more. `lanes` are there whether or not anybody takes from them."""

    name: str
    ack_wait: float
    max_age: float
    lanes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ticket:
    """What was published under `id`; `count` is how often it has been handed out by now."""

    id: str
    payload: bytes
    count: int


Handler = Callable[[Ticket], Awaitable[None]]
"""Does what a ticket asks. Once it returns the ticket is gone; if it raises, the ticket is handed out again later."""


class Consumer(Protocol):
    """Takes tickets from one lane."""

    async def run(self) -> None:
        """Take tickets until `drain`, whatever the broker does meanwhile."""

    async def drain(self, seconds: float) -> None:
        """Take no more, and wait so long at most for what is being done."""


class Bus(Protocol):
    """Carries tickets. Whatever the broker does, nothing here waits for it longer than a few seconds."""

    @property
    def is_up(self) -> bool:
        """Whether tickets can be published now, as far as is known."""

    @property
    def largest(self) -> int:
        """How many bytes a ticket may have."""

    def trouble(self) -> str | None:
        """Why the bus is not up, for its operator; None if it is."""

    async def publish(self, queue: Queue, lane: str, ticket_id: str, payload: bytes) -> None:
        """Hand in a ticket; one that was handed in under the same id before is not kept twice.

        Raises `BusError` if the broker did not confirm it: it may have it all the same.
        """

    def consume(self, queue: Queue, lane: str, limit: int, handler: Handler) -> Consumer:
        """Take tickets of a lane, with other processes that do, at most `limit` at one time."""

    async def tell(self, topic: str, word: str) -> None:
        """Tell a word to whoever listens now, if it can be had."""

    def hear(self, topic: str, heard: Callable[[str], None]) -> None:
        """Be told the words of a topic."""

    async def close(self) -> None:
        """Hang up."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is and who we are there. `servers` may hold passwords."""

    servers: Sequence[str]
    credentials: Path | None = None
    replicas: int = 1


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """What a broker says of itself; `largest` is how many bytes a ticket may have."""

    version: str
    largest: int
