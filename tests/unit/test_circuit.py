"""When a network is left in peace."""

from datetime import UTC, datetime, timedelta

import pytest

from chartwire.errors import IssueCode
from chartwire.model.circuit import Circuit, CircuitState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def after(
    circuit: Circuit,
    failures: int,
    now: datetime = NOW,
    asked_at: datetime | None = None,
    retry_after: float | None = None,
) -> Circuit:
    """After failures at `now` of what was asked then, or earlier."""
    for _ in range(failures):
        circuit = circuit.after_failure(IssueCode.TIMEOUT, asked_at or now, now, 3 * SECOND, retry_after)
    return circuit


OPENED = after(Circuit(), 10)


def test_ten_failures_in_a_row_open_it() -> None:
    assert after(Circuit(), 9).state(NOW) is CircuitState.CLOSED
    assert Circuit(10, 1, IssueCode.TIMEOUT, NOW, NOW + 3 * SECOND) == OPENED
    assert [OPENED.state(NOW + seconds * SECOND) for seconds in (0, 2, 3, 60)] == [
        *[CircuitState.OPEN] * 2,
        *[CircuitState.HALF_OPEN] * 2,
    ]


def test_pauses_double_up_to_a_minute_and_it_stays_known_since_when_it_is_open() -> None:
    circuit, now, pauses = OPENED, NOW, []
    for _ in range(6):
        assert circuit.tries_at is not None
        pauses.append((circuit.tries_at - now).total_seconds())
        now = circuit.tries_at
        circuit = after(circuit, 1, now)
    assert pauses == [3, 6, 12, 24, 48, 60]
    assert circuit.opened_at == NOW


@pytest.mark.parametrize(("first_pause", "most"), [(timedelta(milliseconds=1), 17), (timedelta(days=10**8), 1)])
def test_pauses_reach_a_minute_however_short_or_long_the_first_is(first_pause: timedelta, most: int) -> None:
    circuit = Circuit(failures=9)
    for _ in range(most):
        now = circuit.tries_at or NOW
        circuit = circuit.after_failure(IssueCode.TIMEOUT, now, now, first_pause, None)
    assert circuit.tries_at == now + MINUTE


def test_after_ages_of_failures_the_pause_is_still_a_minute() -> None:
    late = Circuit(100_000, 100_000, IssueCode.TIMEOUT, NOW, NOW)
    assert after(late, 1, NOW + SECOND).tries_at == NOW + 61 * SECOND


def test_what_was_asked_before_a_pause_was_over_does_not_lead_to_another() -> None:
    for failed_at in (NOW + SECOND, NOW + 49 * SECOND):
        circuit = after(OPENED, 7, failed_at, asked_at=NOW + 2 * SECOND)
        assert (circuit.failures, circuit.pauses, circuit.tries_at) == (17, 1, NOW + 3 * SECOND)
    assert after(OPENED, 1, NOW + 49 * SECOND, asked_at=NOW + 3 * SECOND).pauses == 2


@pytest.mark.parametrize(("asked_for", "pause"), [(1, 3), (40, 40), (300, 300), (86_400, 600)])
def test_it_lasts_for_as_long_as_the_network_asks_within_reason(asked_for: float, pause: int) -> None:
    circuit = after(Circuit(), 10, retry_after=asked_for)
    assert circuit.tries_at == NOW + pause * SECOND
    assert circuit.state(NOW) is CircuitState.OPEN


@pytest.mark.parametrize("circuit", [OPENED, after(Circuit(), 10, NOW + timedelta(days=2))], ids=["old", "ahead"])
def test_one_that_nobody_tried_for_long_or_of_a_clock_that_was_ahead_says_nothing(circuit: Circuit) -> None:
    now = NOW + timedelta(days=1)
    assert circuit.state(now) is CircuitState.CLOSED
    assert after(circuit, 1, now) == Circuit(1, 0, IssueCode.TIMEOUT)


def test_one_that_was_to_be_tried_lately_still_says_that_the_network_is_away() -> None:
    assert OPENED.state(NOW + 10 * MINUTE) is CircuitState.HALF_OPEN
    assert OPENED.state(NOW + 11 * MINUTE) is CircuitState.CLOSED
