from datetime import datetime, timedelta

import pytest
from tests.support.people import NOW

from chartwire.api.limits import FixedWindow
from chartwire.errors import TooManyRequestsError


class _Time:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def test_a_window_begins_with_the_first_attempt_and_ends_after_its_length() -> None:
    time = _Time()
    window = FixedWindow("tries", 2, 60, time)
    window.attempt("a")
    time.now += timedelta(seconds=40)
    window.attempt("a")
    with pytest.raises(TooManyRequestsError) as refused:
        window.attempt("a")
    assert (refused.value.limit, refused.value.remaining, refused.value.reset_seconds) == (2, 0, 20)
    assert str(refused.value) == "Too many tries, please try again later."
    time.now += timedelta(seconds=20)
    window.attempt("a")
    window.attempt("a")


def test_accounts_do_not_share_a_window() -> None:
    window = FixedWindow("tries", 1, 60, _Time())
    window.attempt("a")
    window.attempt("b")


def test_a_limit_of_zero_is_none() -> None:
    window = FixedWindow("tries", 0, 60, _Time())
    for _ in range(100):
        window.attempt("a")
