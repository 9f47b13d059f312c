"""When a network is left in peace."""

from datetime import UTC, datetime, timedelta

from chartwire.errors import IssueCode
from chartwire.model.circuit import Circuit, CircuitState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def after(circuit: Circuit, failures: int, now: datetime = NOW) -> Circuit:
    for _ in range(failures):
        circuit = circuit.after_failure(IssueCode.TIMEOUT, now, 3 * SECOND)
    return circuit


def test_five_failures_in_a_row_open_it() -> None:
    assert after(Circuit(), 4).state(NOW) is CircuitState.CLOSED
    opened = after(Circuit(), 5)
    assert opened == Circuit(5, 1, IssueCode.TIMEOUT, NOW, NOW + 3 * SECOND)
    assert [opened.state(NOW + seconds * SECOND) for seconds in (0, 2, 3, 60)] == [
        *[CircuitState.OPEN] * 2,
        *[CircuitState.HALF_OPEN] * 2,
    ]


def test_pauses_double_up_to_a_minute_and_it_stays_known_since_when_it_is_open() -> None:
    circuit, now, pauses = after(Circuit(), 5), NOW, []
    for _ in range(6):
        assert circuit.tries_at is not None
        pauses.append((circuit.tries_at - now).total_seconds())
        now = circuit.tries_at
        circuit = after(circuit, 1, now)
    assert pauses == [3, 6, 12, 24, 48, 60]
    assert circuit.opened_at == NOW


def test_after_ages_of_failures_the_pause_is_still_a_minute() -> None:
    late = Circuit(100_000, 100_000, IssueCode.TIMEOUT, NOW, NOW)
    assert after(late, 1, NOW + SECOND).tries_at == NOW + 61 * SECOND


def test_what_was_asked_before_it_opened_does_not_lengthen_the_pause() -> None:
    circuit = after(after(Circuit(), 5), 7, NOW + SECOND)
    assert (circuit.failures, circuit.pauses, circuit.tries_at) == (12, 1, NOW + 3 * SECOND)


def test_a_pause_written_by_a_clock_that_was_ahead_is_over() -> None:
    ahead = after(Circuit(), 5, NOW + timedelta(days=1))
    assert ahead.state(NOW) is CircuitState.HALF_OPEN
    assert after(ahead, 1, NOW).tries_at == NOW + 6 * SECOND
