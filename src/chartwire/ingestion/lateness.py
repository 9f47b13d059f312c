"""How late the steps of document queries are, and whether networks are asked at all: for whoever watches or decides how
many processes take steps up."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from chartwire.clock import Clock
from chartwire.model.circuit import Circuit, CircuitState
from chartwire.store import circuits, queries
from chartwire.store.database import Database
from chartwire.telemetry import Metrics, get_logger

_EVERY_SECONDS = 15.0

log = get_logger()


class Lateness:
    """Looks four times a minute: three seeks in an index for each network."""

    def __init__(self, database: Database, networks: Sequence[str], clock: Clock, metrics: Metrics) -> None:
        self._database = database
        self._networks = networks
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                await self.measure()
            except Exception:  # the database may be away for a while: the loop must outlive it
                log.exception("could not look how late steps are")
            await asyncio.sleep(_EVERY_SECONDS)

    async def measure(self) -> None:
        """Set the metrics of each network."""
        now = self._clock()
        due, broken = await self._database.read(self._look)
        for network, moment in due.items():
            late = 0.0 if moment is None else max(0.0, (now - moment).total_seconds())
            self._metrics.steps_late.labels(network).set(late)
            now_in = broken.get(network, Circuit()).state(now)
            for state in CircuitState:
                self._metrics.circuits.labels(network, state).set(state is now_in)

    def _look(self, connection: Connection) -> tuple[dict[str, datetime | None], dict[str, Circuit]]:
        due = {network: _first_due(connection, network) for network in self._networks}
        return due, circuits.find(connection, self._networks)


def _first_due(connection: Connection, network: str) -> datetime | None:
    moments = (queries.next_network_step(connection, network), queries.next_intake_step(connection, network))
    return min((moment for moment in moments if moment is not None), default=None)
