"""The circuit breaker of a health network: one that is away is asked now and then, and not by everybody at once."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from chartwire.errors import IssueCode

_FAILURES = 10
"""More than a single query has attempts, by default: one patient of whom a server cannot speak is no outage."""
_LONGEST_PAUSE = timedelta(minutes=1)
_MOST_DOUBLINGS = 20
"""From a millisecond to the longest pause, with room: each refusal is a claim, of which a step bears so many only."""
_LATE = timedelta(minutes=10)


class CircuitState(StrEnum):
    """Closed: the network is asked. Open: it is left in peace. Half-open: the next answer decides."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class Circuit:
    """How asking a network went lately: `failures` in a row that say that it is away, and after how many `pauses`.

    `code` is why. Once there were too many, it was opened at `opened_at`, and may be asked again at `tries_at`.
    """

    failures: int = 0
    pauses: int = 0
    code: IssueCode = IssueCode.UNREACHABLE
    opened_at: datetime | None = None
    tries_at: datetime | None = None

    def state(self, now: datetime) -> CircuitState:
        """What it lets through."""
        if self.tries_at is None or self._says_nothing(now):
            return CircuitState.CLOSED
        return CircuitState.OPEN if now < self.tries_at else CircuitState.HALF_OPEN

    def after_failure(
        self, code: IssueCode, asked_at: datetime, now: datetime, first_pause: timedelta, retry_after: float | None
    ) -> "Circuit":
        """Pauses double, and are as long at least as the network asks for by `retry_after`, in seconds.

        What was asked before a pause was over, and fails after, does not lead to another.
        """
        known = Circuit() if self._says_nothing(now) else self
        failed = replace(known, failures=known.failures + 1, code=code)
        if failed.failures < _FAILURES or (known.tries_at is not None and asked_at < known.tries_at):
            return failed
        first = min(_LONGEST_PAUSE, first_pause)  # a setting of years must not overflow when it is doubled
        backoff = min(_LONGEST_PAUSE, first * 2 ** min(known.pauses, _MOST_DOUBLINGS))
        pause = min(max(backoff, timedelta(seconds=retry_after or 0)), _LATE)
        return replace(failed, pauses=known.pauses + 1, opened_at=known.opened_at or now, tries_at=now + pause)

    def _says_nothing(self, now: datetime) -> bool:
        """Whether nobody has asked since a pause that ended long ago, or a clock that was ahead has written this."""
        return self.tries_at is not None and abs(now - self.tries_at) > _LATE
