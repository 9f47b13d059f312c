"""Steps of document queries on the bus: told of by whoever starts a query, followed by one of those who ask networks.

A ticket holds the id of a query, which says nothing of a patient, in the lane of a network. Whoever takes it claims
that step in the database as if it had looked by itself; if the step is not to be had, the ticket meant nothing.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from chartwire.delivery.bus import Bus, Consumer, Queue, Ticket
from chartwire.errors import BusError
from chartwire.ingestion.steps import NamedSteps, StepRunner
from chartwire.networks.network import Network
from chartwire.telemetry import get_logger

STEPS = Queue("steps", ack_wait=65, max_age=120)
"""A network has 60 s to list, unless it is set otherwise; who is longer at it says so."""

_PATIENCE = timedelta(seconds=2)
"""How long a step that is due is left to its ticket before whoever looks at the database takes it."""

log = get_logger()


class StepTickets:
    """Hands out steps and follows them. Needs a running event loop."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._publishing: set[asyncio.Task[None]] = set()

    def patience(self) -> timedelta:
        """How long steps are left to tickets: while there is no broker, not at all."""
        return _PATIENCE if self._bus.is_up else timedelta()

    def hand_out(self, query_id: str, networks: Sequence[str]) -> None:
        """Let one process each ask the networks for a query that was committed."""
        for network in networks:
            task = asyncio.create_task(self._publish(query_id, network))
            self._publishing.add(task)
            task.add_done_callback(self._publishing.discard)

    def consumers(self, steps: StepRunner, handler: NamedSteps, networks: Sequence[Network]) -> list[Consumer]:
        """What takes the tickets of networks, as many at one time as each bears."""
        return [self._consumer(steps, handler, network) for network in networks]

    def _consumer(self, steps: StepRunner, handler: NamedSteps, network: Network) -> Consumer:
        async def follow(ticket: Ticket) -> None:
            await steps.follow(handler, network.name, ticket.payload.decode(errors="replace"))

        return self._bus.consume(STEPS, network.name, network.limits.concurrency, follow)

    async def _publish(self, query_id: str, network: str) -> None:
        try:
            await self._bus.publish(STEPS, network, f"{query_id}.{network}", query_id.encode())
        except BusError:  # whoever looks at the database finds it
            log.warning("a step could not be handed out", network=network)
