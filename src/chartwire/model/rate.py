"""A rate limit as a token bucket that holds one second's worth and is full at first.

Its whole state is one moment: how far the future has been spent ("generic cell rate algorithm", ITU-T I.371). A
restart, or a process that joins, goes on with it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from chartwire.clock import MILLISECOND, truncate

_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many may go out now, and when the next may once these are gone; that moment is past if one may already."""

    per_second: int
    count: int
    spent_until: datetime

    def take(self, count: int) -> tuple[datetime, datetime]:
        """Spend `count`: returns the new `spent_until`, and when one more may go out."""
        spent = _up(self.spent_until + count * _SECOND / self.per_second)
        return spent, _up(spent + _SECOND / self.per_second - _SECOND)


def allowance(per_second: int, spent_until: datetime | None, now: datetime) -> Allowance:
    """What a limit of `per_second` allows at `now`. A clock that was set back costs no more than a full bucket."""
    spent = min(max(spent_until or now, now), now + _SECOND)
    return Allowance(per_second, (now + _SECOND - spent) * per_second // _SECOND, spent)


def _up(moment: datetime) -> datetime:
    """To the next whole millisecond, which is what is kept: rounding never allows more."""
    return truncate(moment + MILLISECOND - timedelta.resolution)
