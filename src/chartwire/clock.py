"""Time as an argument: everything that asks what time it is asks a `Clock`.

All times inside Chartwire are aware `datetime`s in UTC with millisecond precision, because that is what the
wire formats carry and what the database keeps; a time that was stored equals the time that was given.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

Clock = Callable[[], datetime]
"""Returns now, in UTC, cut to the millisecond."""

MILLISECOND = timedelta(milliseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def system_clock() -> datetime:
    """Now, by the machine's clock."""
    return _at(time.time_ns() // 1_000_000)


@lru_cache(1)
def _at(milliseconds: int) -> datetime:
    """While much happens, the same is asked many times within a millisecond."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def truncate(moment: datetime) -> datetime:
    """`moment` in UTC, cut to the millisecond."""
    in_utc = moment.astimezone(UTC)
    return in_utc.replace(microsecond=in_utc.microsecond // 1000 * 1000)


def to_milliseconds(moment: datetime) -> int:
    """Milliseconds since 1970-01-01T00:00:00Z."""
    return (moment - EPOCH) // MILLISECOND


def from_milliseconds(value: int) -> datetime:
    """The inverse of `to_milliseconds`."""
    return EPOCH + value * MILLISECOND


def iso(moment: datetime) -> str:
    """`2025-01-02T03:04:05.678Z`, as JavaScript's `Date.toISOString` writes it and every client expects it."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
