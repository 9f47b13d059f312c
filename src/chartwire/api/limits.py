"""How often an account may do what is expensive: fixed windows, counted in this process.

Every call of a limited route counts as an attempt, also one that is then refused for another reason; a limit of 0 sets
none. (The window is written here, not taken from a library, because time is an argument in this house.)
"""

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from chartwire.clock import Clock
from chartwire.errors import TooManyRequestsError
from chartwire.settings import Settings

_MINUTE = 60


@dataclass(slots=True)
class FixedWindow:
    """At most `limit` attempts per account in a window of `seconds`, which begins with the first attempt in it."""

    what: str
    limit: int
    seconds: int
    clock: Clock
    _open: dict[str, tuple[datetime, int]] = field(default_factory=dict)

    def attempt(self, account_id: str) -> None:
        """Count an attempt; raises `TooManyRequestsError` when it is one too many."""
        if self.limit == 0:
            return
        now = self.clock()
        start, count = self._open.get(account_id, (now, 0))
        if now - start >= timedelta(seconds=self.seconds):
            start, count = now, 0
        self._open[account_id] = (start, count + 1)
        if count >= self.limit:
            left = math.ceil(self.seconds - (now - start).total_seconds())
            raise TooManyRequestsError(
                f"Too many {self.what}, please try again later.", self.limit, 0, left, self.seconds
            )


class Limits:
    """The limits of one installation."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.requests = FixedWindow("requests", settings.requests_per_second, 1, clock)
        self.patient_writes = FixedWindow(
            "patient creates or updates", settings.patient_writes_per_minute, _MINUTE, clock
        )
        self.document_queries = FixedWindow(
            "patient document query starts", settings.document_queries_per_minute, _MINUTE, clock
        )
