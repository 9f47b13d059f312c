"""How late the steps of document queries are, for whoever decides how many processes take them up."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from chartwire.clock import Clock
from chartwire.store import queries
from chartwire.store.database import Database
from chartwire.telemetry import Metrics, get_logger

_EVERY_SECONDS = 15.0

log = get_logger()


class Lateness:
    """Looks four times a minute: two seeks in an index for each network."""

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
        """Set the metric of each network."""
        now = self._clock()
        due = await self._database.read(self._first_due)
        for network, moment in due.items():
            late = 0.0 if moment is None else max(0.0, (now - moment).total_seconds())
            self._metrics.steps_late.labels(network).set(late)

    def _first_due(self, connection: Connection) -> dict[str, datetime | None]:
        return {network: _first_due(connection, network) for network in self._networks}


def _first_due(connection: Connection, network: str) -> datetime | None:
    moments = (queries.next_network_step(connection, network), queries.next_intake_step(connection, network))
    return min((moment for moment in moments if moment is not None), default=None)
