"""What `make demo-cluster` says of a run: all is well, or what is missing."""

from dataclasses import replace
from typing import Any

import pytest
from scripts.cluster.reckoning import Facts, reckon

WELL = Facts(
    acknowledged=["m1", "m2"],
    unanswered=1,
    arrivals=[("ping", 0.0), ("m1", 1.0), ("m2", 2.0), ("m3", 3.0), ("d1", 4.0), ("d2", 5.0)],
    forged=0,
    events=["ping", "m1", "m2", "m3", "d1", "d2"],
    promised_documents={"q1": 2},
    announced_documents=["a", "b"],
    closed=frozenset({"q1"}),
    waiting=0,
    settled_twice=0,
    kills=[2.5],
)
"""`m3` was committed, and its caller never heard of it."""


def bad(facts: Facts) -> list[str]:
    return [finding.says for finding in reckon(facts) if not finding.good]


def test_what_arrived_whole_is_well() -> None:
    assert bad(WELL) == []
    assert "2 of 2 acknowledged messages arrived" in [finding.says for finding in reckon(WELL)]


def test_a_repeat_around_a_kill_is_explained() -> None:
    assert bad(replace(WELL, arrivals=[*WELL.arrivals, ("m2", 130.0)])) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"acknowledged": ["m1", "m2", "lost"]}, "2 of 3 acknowledged messages arrived (lost)"),
        ({"acknowledged": []}, "0 of 0 acknowledged messages arrived"),
        ({"announced_documents": ["a"]}, "1 of 2 documents of 1 query announced, 0 of them in two messages"),
        ({"announced_documents": ["a", "b", "a"]}, "2 of 2 documents of 1 query announced, 1 of them in two messages"),
        ({"closed": frozenset()}, "0 of 1 query told to be over"),
        ({"events": ["ping", "m1", "m2", "m3", "d1"]}, "1 message that nobody wrote (d2)"),
        ({"events": [*WELL.events, "m4"]}, "7 messages in the database, 0 settled twice, 0 unsettled, 1 that never"),
        ({"arrivals": [*WELL.arrivals, ("d1", 6.0)]}, "1 message arrived again for no reason (d1)"),
        ({"arrivals": [*WELL.arrivals, ("m1", 6.0), ("m1", 7.0)]}, "1 message arrived again for no reason (m1)"),
        ({"waiting": 3}, "6 messages in the database, 0 settled twice, 3 unsettled"),
        ({"settled_twice": 1}, "6 messages in the database, 1 settled twice, 0 unsettled"),
        ({"forged": 1}, "1 signature wrong"),
    ],
)
def test_what_is_missing_is_said(change: dict[str, Any], said: str) -> None:
    (found,) = bad(replace(WELL, **change))
    assert found.startswith(said)
