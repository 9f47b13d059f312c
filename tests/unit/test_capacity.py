"""The simulation that foretells capacity, where what comes out can be known without it."""

from collections.abc import Mapping
from typing import Any

import pytest
from bench.capacity import Kind, Measured, Model, plan, read_measured
from bench.simulation import Costs, deliveries_per_second, documents_per_second

MANY = {"workers": 64, "database": 64, "other": 64}


def deliver(costs: Costs, processes: int, cores: Mapping[str, int] = MANY) -> float:
    return deliveries_per_second(costs, processes, cores, seconds=2)


def take_in(costs: Costs, processes: int, cores: Mapping[str, int] = MANY) -> float:
    return documents_per_second(costs, processes, cores, seconds=10)


def bound_by_processes(costs: Costs, processes: int, cores: Mapping[str, int]) -> float:
    """What can be reckoned without a simulation."""
    return min(processes, cores["workers"]) / costs.worker


def model_of(*costs: tuple[int, float, float]) -> Model:
    """Of so many processes the CPU µs of one piece in the process and in the database."""
    measured = [
        Measured(processes, 1.0, {"workers": worker, "database": database, "receiver": 0.0}, 0.0)
        for processes, worker, database in costs
    ]
    return Model.of(Kind("cluster", "deliveries", "receiver", bound_by_processes), measured)


def test_a_process_does_one_thing_at_a_time() -> None:
    assert deliver(Costs(0.001, 0, 0), 1) == pytest.approx(1000, rel=0.1)
    assert take_in(Costs(0.04, 0, 0), 1) == pytest.approx(25, rel=0.1)


def test_processes_work_side_by_side_as_far_as_there_are_cores() -> None:
    two = {"workers": 2, "database": 8, "other": 8}
    assert deliver(Costs(0.001, 0, 0), 4) == pytest.approx(4000, rel=0.1)
    assert deliver(Costs(0.001, 0, 0), 4, two) == pytest.approx(2000, rel=0.1)
    assert take_in(Costs(0.04, 0, 0), 4, two) == pytest.approx(50, rel=0.1)


def test_on_one_machine_everybody_has_a_share_of_its_cores() -> None:
    assert deliver(Costs(400e-6, 400e-6, 200e-6), 8, {"all": 2}) == pytest.approx(2000, rel=0.1)
    assert take_in(Costs(0.03, 0.01, 0.01), 8, {"all": 2}) == pytest.approx(40, rel=0.1)


def test_a_delivering_process_waits_for_one_transaction_after_the_other() -> None:
    """However many cores the database has: a process has one cycle under way."""
    assert deliver(Costs(1e-6, 0.002, 0), 1) == pytest.approx(500, rel=0.1)
    assert deliver(Costs(1e-6, 0.002, 0), 4) == pytest.approx(2000, rel=0.1)


def test_documents_of_a_process_are_in_the_database_side_by_side() -> None:
    assert take_in(Costs(0.001, 0.08, 0), 1) == pytest.approx(8 / 0.084, rel=0.1)


def test_the_receiver_bounds_deliveries() -> None:
    assert deliver(Costs(1e-5, 1e-5, 0.002), 4) == pytest.approx(500, rel=0.1)


def test_costs_are_a_line_over_the_number_of_processes() -> None:
    model = model_of((0, 9.0, 0.0), (1, 300.0, 100.0), (2, 340.0, 100.0), (4, 420.0, 100.0))
    assert model.costs(1).worker == pytest.approx(300e-6)
    assert model.costs(3).worker == pytest.approx(380e-6)
    assert model.costs(3).database == pytest.approx(100e-6)


def test_costs_that_fall_are_not_thought_to_go_on_falling() -> None:
    model = model_of((1, 300.0, 100.0), (2, 200.0, 100.0))
    assert model.costs(1).worker == model.costs(40).worker == pytest.approx(250e-6)


def test_one_measurement_is_a_level_line() -> None:
    assert model_of((1, 300.0, 100.0)).costs(9) == Costs(300e-6, 100e-6, 0.0)


def test_a_plan_carries_what_was_asked_with_cores_to_spare() -> None:
    model = model_of((1, 300.0, 100.0), (2, 310.0, 100.0))
    planned = plan(model, 4000)
    assert planned.installations == 1
    assert planned.carried * 0.6 >= 4000
    assert planned.processes >= 4000 * 300e-6 / 0.6


def test_where_further_processes_cost_more_than_they_bring_accounts_are_divided() -> None:
    model = model_of((1, 300.0, 100.0), (2, 500.0, 100.0))  # at 5,000 a second a further core brings nothing
    planned = plan(model, 5000)
    assert planned.installations > 1
    assert planned.carried * 0.6 >= 5000


def test_medians_of_the_turns_are_read() -> None:
    turns: list[dict[str, Any]] = [
        {"per_second": rate, "cpu_microseconds": 300.0, "disk_bytes": 5.0, "shares": {"database": rate}}
        for rate in (1.0, 5.0, 3.0)
    ]
    figures = {"comparisons": [{"section": "cluster", "sides": {"0": turns[:1], "1": turns}}]}
    measured = read_measured(figures, "cluster")
    assert [(each.processes, each.per_second) for each in measured] == [(0, 1.0), (1, 3.0)]
    assert measured[1] == Measured(1, 3.0, {"workers": 300.0, "database": 3.0}, 5.0)
    assert read_measured(figures, "intake") == []
