"""Whether an endpoint is fit to be posted to, judged by its answers alone (`docs/reference/webhooks.md`, Isolation).

    closed   everything goes out; after `OPENS_AFTER` strains in a row the breaker opens
    open     nothing goes out until `paused_until`, then one delivery at a time: a probe. A success closes the breaker,
             a probe that fails doubles the wait

Whatever the breaker does, an endpoint that fails gets less at a time and less often (`most_in_flight`, `gap`) until an
answer is a success.

A strain is no answer, or one that says "too much". The rules are pure: times and chance are arguments, the store keeps
the state.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from chartwire.clock import truncate
from chartwire.model.webhook import Outcome

OPENS_AFTER = 5
FIRST_PROBE_AFTER = timedelta(seconds=30)
LONGEST_WAIT = timedelta(minutes=10)
HOPELESS_AFTER = timedelta(days=5)
FIRST_GAP = timedelta(milliseconds=10)
LONGEST_GAP = timedelta(seconds=1)

_ANSWERED = frozenset({Outcome.REDIRECT, Outcome.GONE, Outcome.HTTP_ERROR, Outcome.BAD_PONG})


@dataclass(frozen=True, slots=True)
class Health:
    """What the answers since the last success add up to. `waits` counts the waits of an open breaker; 0 is closed."""

    failures: int = 0
    failing_since: datetime | None = None
    strains: int = 0
    waits: int = 0
    paused_until: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether the breaker is open: at most one delivery at a time is attempted."""
        return self.waits > 0

    def is_hopeless(self, now: datetime) -> bool:
        """Whether nothing but failures, and more than a few, have come back for so long that posting should end."""
        lasting = self.failing_since is not None and now - self.failing_since >= HOPELESS_AFTER
        return lasting and self.failures >= OPENS_AFTER

    def after_failure(
        self, outcome: Outcome, started_at: datetime, now: datetime, asked_until: datetime | None, spread: float
    ) -> "Health":
        """The state after an attempt that failed; after one that succeeded it is `Health()`.

        `asked_until` is what the receiver asked for (`Retry-After`); `spread`, about 1, makes a wait longer or shorter
        so that endpoints of one receiver are not probed in step.
        """
        strains = 0 if outcome in _ANSWERED else self.strains + 1
        waits = self.waits + self._waits_longer(strains, started_at)
        ends = [self.paused_until, asked_until, _end_of_wait(waits, now, spread) if waits > self.waits else None]
        return replace(
            self,
            failures=self.failures + 1,
            failing_since=self.failing_since or started_at,
            strains=strains,
            waits=waits,
            paused_until=max((end for end in ends if end is not None), default=None),
        )

    def _waits_longer(self, strains: int, started_at: datetime) -> bool:
        """An attempt from before the wait is no probe: it says nothing that was not known when the breaker opened."""
        if self.is_open:
            return self.paused_until is None or started_at >= self.paused_until
        return strains >= OPENS_AFTER


def most_in_flight(limit: int, failures: int) -> int:
    """Of `limit` attempts at one time, half as many for each failure in a row; still a first attempt and a repeat."""
    return min(limit, max(limit >> failures, 2))


def gap(failures: int) -> timedelta:
    """How long nothing more is begun at an endpoint after a failure: it doubles with each in a row."""
    return min(FIRST_GAP * (1 << min(failures - 1, 10)), LONGEST_GAP)


def _end_of_wait(waits: int, now: datetime, spread: float) -> datetime:
    doublings = min(waits - 1, 10)  # beyond that the longest wait holds anyway
    return truncate(now + min(FIRST_PROBE_AFTER * 2**doublings, LONGEST_WAIT) * spread)
