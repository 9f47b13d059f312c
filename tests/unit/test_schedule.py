"""When a delivery is attempted again."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartwire.delivery.schedule import LONGEST_WAIT, next_attempt, parse_retry_after, pause
from chartwire.settings import Settings

NOW = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
WAITS = (0, 5, 300)


def wait_after(made: int, retry_after: timedelta | None = None, jitter: float = 0) -> timedelta | None:
    moment = next_attempt(WAITS, jitter, made, NOW, Random(1), retry_after)
    return None if moment is None else moment - NOW


def test_waits_come_in_turn_and_end() -> None:
    assert [wait_after(made) for made in (1, 2, 3, 4)] == [timedelta(seconds=5), timedelta(seconds=300), None, None]


def test_the_default_schedule_is_ten_attempts_over_75_hours() -> None:
    waits = Settings().webhook_retry_seconds
    assert len(waits) == 10
    assert 75 <= sum(waits) / 3600 < 76


def test_jitter_spreads_what_failed_together_both_ways() -> None:
    moments = [next_attempt(WAITS, 0.2, 1, NOW, Random(seed), None) for seed in range(100)]
    waits = [(moment - NOW).total_seconds() for moment in moments if moment is not None]
    assert min(waits) < 4.2
    assert max(waits) > 5.8


@given(st.integers(1, 2), st.floats(0, 0.5), st.integers())
def test_jitter_stays_within_its_share(made: int, jitter: float, seed: int) -> None:
    moment = next_attempt(WAITS, jitter, made, NOW, Random(seed), None)
    assert moment is not None
    assert WAITS[made] * (1 - jitter) - 0.001 <= (moment - NOW).total_seconds() <= WAITS[made] * (1 + jitter)


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        (timedelta(seconds=1), timedelta(seconds=5)),
        (timedelta(seconds=60), timedelta(seconds=60)),
        (timedelta(days=3650), LONGEST_WAIT),
    ],
)
def test_retry_after_makes_a_wait_longer_within_reason(asked: timedelta, granted: timedelta) -> None:
    assert wait_after(1, asked) == granted


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("0", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("٣", None),
        ("9" * 5000, LONGEST_WAIT.total_seconds()),
        ("000000000000060", 60),
        ("Thu, 02 Jan 2025 03:05:05 GMT", 60),
        ("Thursday, 02-Jan-25 03:05:05 GMT", 60),
        ("Thu Jan  2 03:05:05 2025", 60),
        ("Thu, 02 Jan 2025 03:04:05 GMT", None),
        ("Thu, 02 Jan 2020 03:04:05 GMT", None),
        ("Thu, 32 Jan 2025 03:05:05 GMT", None),
    ],
)
def test_retry_after_is_read_in_every_form(value: str | None, seconds: float | None) -> None:
    wait = parse_retry_after(value, NOW)
    assert (None if wait is None else wait.total_seconds()) == seconds


@given(st.text())
def test_no_retry_after_breaks_an_attempt(value: str) -> None:
    wait = parse_retry_after(value, NOW)
    assert wait is None or wait > timedelta()


def test_an_endpoint_pauses_as_asked_and_five_seconds_by_itself() -> None:
    assert pause(NOW, timedelta(seconds=90)) == NOW + timedelta(seconds=90)
    assert pause(NOW, timedelta(days=90)) == NOW + LONGEST_WAIT
    assert pause(NOW, None) == NOW + timedelta(seconds=5)
