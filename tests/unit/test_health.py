"""The breaker of an endpoint and its rate limit, driven by anything that may happen."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chartwire.model.health import (
    FIRST_PROBE_AFTER,
    LONGEST_WAIT,
    OPENS_AFTER,
    Health,
    gap,
    most_in_flight,
)
from chartwire.model.rate import allowance
from chartwire.model.webhook import Outcome

NOW = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
SECOND = timedelta(seconds=1)
FIVE_DAYS = timedelta(days=5)
ANSWERED = [Outcome.REDIRECT, Outcome.GONE, Outcome.HTTP_ERROR, Outcome.BAD_PONG]
STRAINS = [
    Outcome.SLOW_DOWN,
    Outcome.DNS,
    Outcome.REFUSED,
    Outcome.TLS,
    Outcome.TIMEOUT,
    Outcome.RESET,
    Outcome.PROTOCOL,
    Outcome.TOO_LARGE_HEADERS,
    Outcome.FORBIDDEN_ADDRESS,
]


def fail(health: Health, outcome: Outcome = Outcome.TIMEOUT, at: datetime = NOW, spread: float = 1.0) -> Health:
    return health.after_failure(outcome, at, at, None, spread)


def opened() -> Health:
    health = Health()
    for _ in range(OPENS_AFTER):
        health = fail(health)
    return health


@pytest.mark.parametrize("outcome", STRAINS)
def test_five_strains_in_a_row_open_the_breaker_for_half_a_minute(outcome: Outcome) -> None:
    health = Health()
    for _ in range(4):
        health = fail(health, outcome)
    assert (health.is_open, health.paused_until) == (False, None)
    health = fail(health, outcome)
    assert (health.is_open, health.paused_until) == (True, NOW + 30 * SECOND)


@pytest.mark.parametrize("outcome", ANSWERED)
def test_an_answer_in_between_begins_the_count_anew(outcome: Outcome) -> None:
    health = Health()
    for each in [Outcome.TIMEOUT] * 4 + [outcome] + [Outcome.TIMEOUT] * 4:
        health = fail(health, each)
    assert not health.is_open
    assert health.failures == 9


def test_each_probe_that_fails_doubles_the_wait_up_to_ten_minutes() -> None:
    health, waits = opened(), []
    for _ in range(7):
        assert health.paused_until is not None
        probed_at = health.paused_until
        health = fail(health, Outcome.HTTP_ERROR, probed_at)
        assert health.paused_until is not None
        waits.append((health.paused_until - probed_at).total_seconds())
    assert waits == [60, 120, 240, 480, 600, 600, 600]


def test_attempts_from_before_the_breaker_opened_do_not_lengthen_its_wait() -> None:
    health = opened()
    later = health.after_failure(Outcome.TIMEOUT, NOW, NOW + 5 * SECOND, None, 1.0)
    assert (later.paused_until, later.waits) == (health.paused_until, health.waits)


def test_what_the_receiver_asked_for_holds_with_and_without_an_open_breaker() -> None:
    asked = NOW + timedelta(hours=1)
    assert Health().after_failure(Outcome.SLOW_DOWN, NOW, NOW, asked, 1.0).paused_until == asked
    assert opened().after_failure(Outcome.SLOW_DOWN, NOW, NOW, asked, 1.0).paused_until == asked


def test_five_days_of_nothing_but_failures_are_hopeless() -> None:
    health = Health()
    for _ in range(OPENS_AFTER):
        health = fail(health, Outcome.HTTP_ERROR)
    assert not health.is_hopeless(NOW + FIVE_DAYS - SECOND)
    assert health.is_hopeless(NOW + FIVE_DAYS)


def test_one_failure_long_ago_and_silence_since_are_not_hopeless() -> None:
    health = fail(fail(Health()), at=NOW + FIVE_DAYS)
    assert not health.is_hopeless(NOW + FIVE_DAYS)


def test_failures_in_a_row_halve_what_is_under_way_down_to_a_first_attempt_and_a_repeat() -> None:
    assert [most_in_flight(16, failures) for failures in range(6)] == [16, 8, 4, 2, 2, 2]
    assert most_in_flight(1, 0) == most_in_flight(1, 10**6) == 1


def test_failures_in_a_row_double_the_time_between_attempts_up_to_a_second() -> None:
    assert [gap(failures) / SECOND for failures in (1, 2, 3, 7, 8, 10**6)] == [0.01, 0.02, 0.04, 0.64, 1, 1]


class BreakerMachine(RuleBasedStateMachine):
    """Attempts that start when they may, end in any order with anything, while time goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.health = Health()
        self.in_flight: list[datetime] = []
        self.strains = 0

    @rule(seconds=st.integers(0, 700))
    def time_goes_on(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @precondition(lambda self: self.may_start())
    @rule()
    def an_attempt_starts(self) -> None:
        self.in_flight.append(self.now)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), outcome=st.sampled_from(STRAINS + ANSWERED), spread=st.floats(0.8, 1.2))
    def an_attempt_fails(self, data: st.DataObject, outcome: Outcome, spread: float) -> None:
        started = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        before = self.health
        self.health = before.after_failure(outcome, started, self.now, None, spread)
        self.strains = self.strains + 1 if outcome in STRAINS else 0
        was_probe = before.paused_until is not None and started >= before.paused_until
        assert self.health.is_open == (before.is_open or self.strains >= OPENS_AFTER)
        assert (self.health.waits > before.waits) == (was_probe if before.is_open else self.health.is_open)

    @precondition(lambda self: self.in_flight)
    @rule()
    def an_attempt_succeeds(self) -> None:
        self.in_flight.pop()
        self.health, self.strains = Health(), 0

    def may_start(self) -> bool:
        paused = self.health.paused_until is not None and self.health.paused_until > self.now
        return not paused and len(self.in_flight) < (1 if self.health.is_open else 16)

    @invariant()
    def the_wait_is_never_longer_than_the_longest(self) -> None:
        if self.health.paused_until is not None:
            assert self.health.paused_until - self.now <= LONGEST_WAIT * 1.2

    @invariant()
    def an_open_breaker_knows_when_it_probes(self) -> None:
        assert not self.health.is_open or self.health.paused_until is not None


TestBreaker = BreakerMachine.TestCase


# --- rate limit -------------------------------------------------------------------------------------------------------


@given(
    per_second=st.integers(1, 1000),
    steps=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 20)), max_size=15),
)
def test_no_span_of_time_sees_more_than_its_share_and_a_full_bucket(
    per_second: int, steps: list[tuple[int, int]]
) -> None:
    now, spent, sent = NOW, None, []
    for milliseconds, wish in steps:
        now += timedelta(milliseconds=milliseconds)
        bucket = allowance(per_second, spent, now)
        count = min(wish, bucket.count)
        spent, _ = bucket.take(count)
        sent += [now] * count
    for first, start in enumerate(sent):
        for last in range(first, len(sent)):
            assert last - first + 1 <= per_second * (1 + (sent[last] - start).total_seconds()) + 1e-6


@given(per_second=st.integers(1, 1000), milliseconds=st.integers(0, 5000))
def test_who_waits_until_the_named_moment_may_send_and_not_before(per_second: int, milliseconds: int) -> None:
    now = NOW + timedelta(milliseconds=milliseconds)
    full = allowance(per_second, None, now)
    assert full.count == per_second
    spent, next_at = full.take(full.count)
    assert next_at > now
    assert allowance(per_second, spent, next_at).count >= 1
    assert allowance(per_second, spent, next_at - timedelta(milliseconds=1)).count == 0


def test_a_clock_that_was_set_back_costs_one_full_bucket_at_most() -> None:
    spent, _ = allowance(10, None, NOW).take(10)
    earlier = NOW - timedelta(hours=1)
    assert allowance(10, spent, earlier).count == 0
    assert allowance(10, allowance(10, spent, earlier).take(0)[0], earlier + SECOND).count == 10


def test_the_first_wait_is_what_the_page_says() -> None:
    assert timedelta(seconds=30) == FIRST_PROBE_AFTER
