"""Upkeep of the outbox: payloads and history whose time is over are forgotten, and what waits is counted."""

import asyncio
from datetime import timedelta
from functools import partial

from chartwire.clock import Clock
from chartwire.settings import Settings
from chartwire.store import deliveries, endpoints, forgetting, outbox, ring
from chartwire.store.database import Database
from chartwire.telemetry import Metrics, get_logger

_PAUSE_SECONDS = 60.0
_BATCH = 500
_AGES = {
    "under_1m": timedelta(minutes=1),
    "under_1h": timedelta(hours=1),
    "under_1d": timedelta(days=1),
}
_OLDEST = "over_1d"
_STATES = ("closed", "open", "disabled")

log = get_logger()


class Retention:
    """Forgets what is no longer to be kept, a batch at a time so that no one waits long for the database."""

    def __init__(self, database: Database, clock: Clock, metrics: Metrics, settings: Settings) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics
        days = settings.history_retention_days
        self._history = None if days is None else timedelta(days=days)

    async def run(self) -> None:
        """Work until cancelled. What fails keeps nothing else from being done, and is tried again at the next turn."""
        while True:
            for chore in (self.forget_expired, self.forget_history, self.count_backlog):
                try:
                    await chore()
                except Exception:  # whatever the database raises, upkeep must go on after it
                    log.exception("upkeep of the outbox failed", chore=chore.__name__)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def forget_expired(self) -> None:
        """Forget expired payloads and keys."""
        now = self._clock()
        await self._database.write(lambda connection: endpoints.forget_expired_keys(connection, now))
        while await self._database.write(lambda connection: outbox.expire_payloads(connection, now, _BATCH)) == _BATCH:
            pass

    async def forget_history(self) -> None:
        """Forget events that are older than history is kept, with all that became of them."""
        if self._history is None:
            return
        forget = partial(forgetting.forget_history, kept=self._history, now=self._clock())
        after: int | None = 0
        while after is not None:
            after = await self._database.write(partial(forget, after=after))

    async def count_backlog(self) -> None:
        """Set the metrics of what waits, by how long it has waited, of how late it is, and of how the endpoints are."""
        now, bounds = self._clock(), list(_AGES.values())
        counts = await self._database.read(lambda connection: deliveries.waiting_by_age(connection, now, bounds))
        for age, count in zip([*_AGES, _OLDEST], counts, strict=True):
            self._metrics.backlog.labels(age).set(count)
        ready_at = await self._database.read(ring.next_ready)
        self._metrics.delivery_late.set(0 if ready_at is None else max(0.0, (now - ready_at).total_seconds()))
        health = await self._database.read(endpoints.count_by_health)
        for state in _STATES:
            self._metrics.endpoints.labels(state).set(health.get(state, 0))
