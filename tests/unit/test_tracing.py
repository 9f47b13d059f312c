"""Trace context: taken from a request if it is sound, and gone on with."""

import pytest

from chartwire.tracing import continue_trace, read_traceparent

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_sound_header_is_taken() -> None:
    assert read_traceparent(TRACE) == TRACE


def test_a_later_version_is_taken_for_what_is_known_of_it() -> None:
    assert read_traceparent(f"cc{TRACE[2:]}-more") == TRACE


@pytest.mark.parametrize(
    "header",
    [None, "", "x", TRACE.upper(), f"ff{TRACE[2:]}", f"00-{'0' * 32}-b7ad6b7169203331-01", TRACE * 100, "\x00"],
)
def test_what_is_malformed_is_ignored(header: str | None) -> None:
    assert read_traceparent(header) is None


def test_a_trace_goes_on_with_another_parent() -> None:
    assert continue_trace(TRACE, 1) == "00-0af7651916cd43dd8448eb211c80319c-0000000000000001-01"
