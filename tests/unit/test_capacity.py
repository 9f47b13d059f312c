"""The simulation that foretells capacity, where what comes out can be known without it."""

import pytest
from bench.capacity import KINDS, Flow, Station, read_measured, simulate


def per_second(flow: Flow) -> float:
    return simulate(flow, seconds=5)


def test_one_place_does_one_piece_after_the_other() -> None:
    flow = Flow([Station("worker", 1000, parallel=1)], {"here": 2}, groups=3)
    assert per_second(flow) == pytest.approx(1000, rel=0.05)


def test_the_slowest_place_bounds_the_rest() -> None:
    stations = [Station("worker", 500, 1), Station("database", 2000, 1), Station("receiver", 100, 1)]
    assert per_second(Flow(stations, {"here": 8}, groups=8)) == pytest.approx(500, rel=0.05)


def test_more_processes_than_cores_share_them() -> None:
    stations = [Station("worker", 1000, parallel=8), Station("database", 1000, parallel=8)]
    assert per_second(Flow(stations, {"here": 2}, groups=32)) == pytest.approx(1000, rel=0.05)


def test_a_machine_of_its_own_is_nobody_elses() -> None:
    stations = [Station("worker", 1000, 4, "left"), Station("database", 1000, 4, "right")]
    assert per_second(Flow(stations, {"left": 2, "right": 4}, groups=32)) == pytest.approx(2000, rel=0.05)


def test_what_is_alone_under_way_waits_for_every_place_in_turn() -> None:
    stations = [Station("worker", 3000, 4), Station("database", 1000, 4)]
    assert per_second(Flow(stations, {"here": 4}, groups=1)) == pytest.approx(250, rel=0.05)


def test_groups_count_their_pieces() -> None:
    flow = Flow([Station("worker", 100, parallel=1)], {"here": 1}, groups=2, group=64)
    assert per_second(flow) == pytest.approx(10_000, rel=0.05)


def test_medians_of_the_turns_are_read() -> None:
    turns = [{"per_second": rate, "cpu_microseconds": 300.0, "shares": {"database": rate}} for rate in (1.0, 5.0, 3.0)]
    figures = {"comparisons": [{"section": "cluster", "sides": {"0": turns[:1], "1": turns}}]}
    measured = read_measured(figures, "cluster")
    assert [(each.processes, each.per_second) for each in measured] == [(0, 1.0), (1, 3.0)]
    assert measured[1].costs == {"workers": 300.0, "database": 3.0}
    assert read_measured(figures, "intake") == []


def test_two_processes_do_not_carry_more_than_the_machine() -> None:
    deliveries = KINDS[0]
    costs = {"workers": 400.0, "database": 200.0, "receiver": 40.0}
    assert deliveries.foretell(costs, 1, cores=2) <= 2500 * 1.05
    assert deliveries.foretell(costs, 4, cores=2) == pytest.approx(2e6 / 640, rel=0.1)
