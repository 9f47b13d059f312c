"""Times as the wire formats carry them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from chartwire.clock import from_milliseconds, iso, to_milliseconds


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(2025, 1, 2, 3, 4, 5, 678999, UTC), "2025-01-02T03:04:05.678Z"),
        (datetime(2025, 1, 2, tzinfo=timezone(timedelta(hours=5, minutes=30))), "2025-01-01T18:30:00.000Z"),
        (datetime(44, 3, 15, tzinfo=UTC), "0044-03-15T00:00:00.000Z"),
    ],
)
def test_a_moment_is_written_as_javascript_writes_it(moment: datetime, expected: str) -> None:
    assert iso(moment) == expected


@pytest.mark.parametrize("moment", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999000, UTC)])
def test_a_moment_survives_as_milliseconds(moment: datetime) -> None:
    assert from_milliseconds(to_milliseconds(moment)) == moment
