"""When a delivery is attempted again."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from random import Random

from chartwire.clock import truncate

LONGEST_WAIT = timedelta(hours=24)
"""What a receiver asks for with `Retry-After` is granted up to this."""

_PAUSE_WITHOUT_RETRY_AFTER = timedelta(seconds=5)


def next_attempt(
    waits: Sequence[float], jitter: float, made: int, now: datetime, random: Random, retry_after: timedelta | None
) -> datetime | None:
    """When to try again after `made` attempts, or None when the schedule is at its end.

    `waits[n]` is the wait in seconds before attempt n + 1, spread by plus or minus the share `jitter`. `retry_after`
    can make it longer, never shorter.
    """
    if made >= len(waits):
        return None
    wait = timedelta(seconds=waits[made] * random.uniform(1 - jitter, 1 + jitter))
    return truncate(now + max(wait, min(retry_after or wait, LONGEST_WAIT)))


def pause(now: datetime, retry_after: timedelta | None) -> datetime:
    """How long nothing is sent to an endpoint that asked to be slowed down."""
    return truncate(now + min(retry_after or _PAUSE_WITHOUT_RETRY_AFTER, LONGEST_WAIT))


def parse_retry_after(value: str | None, now: datetime) -> timedelta | None:
    """`Retry-After` (RFC 9110 §10.2.3): seconds or an HTTP date; None when absent, unreadable or past."""
    text = (value or "").strip()
    if re.fullmatch(r"[0-9]+", text):
        digits = text.lstrip("0") or "0"
        return _positive(timedelta(seconds=int(digits))) if len(digits) < 10 else LONGEST_WAIT
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return _positive((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now)


def _positive(wait: timedelta) -> timedelta | None:
    return wait if wait > timedelta() else None
