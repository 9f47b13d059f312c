"""The circuit breaker of a health network: one that is away is asked now and then, and not by everybody at once."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from chartwire.errors import IssueCode

_FAILURES = 5
_LONGEST_PAUSE = timedelta(minutes=1)
_MOST_DOUBLINGS = 10


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
        """What it lets through. A pause longer than any was written by a clock that was ahead: it is over."""
        if self.tries_at is None:
            return CircuitState.CLOSED
        return CircuitState.OPEN if now < self.tries_at <= now + _LONGEST_PAUSE else CircuitState.HALF_OPEN

    def after_failure(self, code: IssueCode, now: datetime, first_pause: timedelta) -> "Circuit":
        """Pauses double. What was asked before it opened, and fails after, does not make them longer."""
        failed = replace(self, failures=self.failures + 1, code=code)
        if failed.failures < _FAILURES or self.state(now) is CircuitState.OPEN:
            return failed
        pause = min(_LONGEST_PAUSE, first_pause * 2 ** min(self.pauses, _MOST_DOUBLINGS))
        return replace(failed, pauses=self.pauses + 1, opened_at=self.opened_at or now, tries_at=now + pause)
