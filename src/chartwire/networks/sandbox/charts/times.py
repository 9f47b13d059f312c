"""Times as charts write them: on the clock of the patient's place."""

from datetime import datetime, timedelta, timezone


class Place:
    """A place that is `hours` from UTC all through the chart."""

    def __init__(self, hours: int) -> None:
        self._zone = timezone(timedelta(hours=hours))

    def at(self, day: str, time: str) -> datetime:
        """`day` as `2025-03-01`, `time` as `09:30`."""
        return datetime.fromisoformat(f"{day}T{time}").replace(tzinfo=self._zone)
