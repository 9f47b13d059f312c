"""What more machines would carry: a discrete-event simulation of the figures that `bench cluster intake` measured.

    python -m bench cluster intake --json figures.json
    python -m bench.capacity figures.json

A piece of work (a delivery, a document) visits stations: the process that works on it, the database, the bucket, the
receiver. Each asks for CPU of the machine that it is on; a machine's cores are shared in slices. What one piece costs
at each station is taken from the turns of one process; the rates of more processes are then foretold, and compared
with those that were measured. Where that is off by more than a fifth, nothing is foretold beyond.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import simpy
from rich.console import Console
from rich.table import Table

_SLICE_SECONDS = 0.002
_WARM_UP = 0.2  # of the time
_TOLERANCE = 0.2
_LOAD = 0.6  # of a core, at most, at the busiest time: what queues longer is late
_SECONDS_A_DAY = 86_400

Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, slots=True)
class Station:
    """A place that each piece of work visits: CPU microseconds of one piece, and how many are worked on at one time."""

    name: str
    microseconds: float
    parallel: int
    machine: str = "here"


@dataclass(frozen=True, slots=True)
class Flow:
    """Work that goes round: so many groups of so many pieces each are under way at one time."""

    stations: Sequence[Station]
    cores: Mapping[str, int]
    groups: int
    group: int = 1


def simulate(flow: Flow, seconds: float = 20) -> float:
    """Pieces per second."""
    environment = simpy.Environment()
    cores = {name: simpy.Resource(environment, count) for name, count in flow.cores.items()}
    places = [simpy.Resource(environment, station.parallel) for station in flow.stations]
    done: list[float] = []

    def work(place: simpy.Resource, station: Station) -> Process:
        """Hold a place, and of its machine a core for a slice at a time."""
        left = station.microseconds * flow.group / 1e6
        with place.request() as mine:
            yield mine
            while left > 0:
                with cores[station.machine].request() as core:
                    yield core
                    yield environment.timeout(min(left, _SLICE_SECONDS))
                left -= _SLICE_SECONDS

    def go_round() -> Process:
        while True:
            for place, station in zip(places, flow.stations, strict=True):
                yield from work(place, station)
            done.append(environment.now)

    for _ in range(flow.groups):
        environment.process(go_round())
    environment.run(until=seconds)
    counted = sum(at > seconds * _WARM_UP for at in done)
    return counted * flow.group / (seconds * (1 - _WARM_UP))


@dataclass(frozen=True, slots=True)
class Measured:
    """One side of a measurement: so many processes (0: embedded), their rate, and CPU µs of a piece, by whom."""

    processes: int
    per_second: float
    costs: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of work, measured by a section; so many groups of pieces are under way in each of its processes."""

    section: str
    piece: str
    groups: int
    group: int

    def foretell(self, costs: Mapping[str, float], processes: int, cores: int) -> float:
        """Pieces per second of so many processes, with all that serves them on one machine."""
        parallel = {"workers": processes, "receiver": 1}
        stations = [Station(name, cost, parallel.get(name, cores)) for name, cost in costs.items()]
        return simulate(Flow(stations, {"here": cores}, self.groups * processes, self.group))

    def foretell_apart(self, costs: Mapping[str, float], cores: Mapping[str, int]) -> float:
        """The same with a machine of its own for each part, of so many cores; a process for each core of `workers`."""
        stations = [Station(name, costs[name], count, name) for name, count in cores.items()]
        return simulate(Flow(stations, cores, self.groups * cores["workers"], self.group))


KINDS = (Kind("cluster", "deliveries", 4, 64), Kind("intake", "documents", 4, 1))
_OTHERS = frozenset({"receiver"})  # the customer's, not ours to buy


def main() -> int:
    """Compare, then foretell; 1 if what was measured is not what was foretold."""
    given = _arguments()
    figures = json.loads(given.figures.read_text())
    console = Console(width=140)
    wanted = {
        "deliveries": given.deliveries_a_day,
        "documents": given.queries_a_day * given.documents_per_query,
    }
    is_trusted = True
    for kind in KINDS:
        measured = read_measured(figures, kind.section)
        if not any(each.processes == 1 for each in measured):
            console.print(f"{kind.piece}: not measured; python -m bench {kind.section} --json …")
            continue
        table, deviation = _compared(kind, measured, figures["machine"]["cores"])
        console.print(table)
        if deviation > _TOLERANCE:
            is_trusted = False
            console.print(f"Off by {deviation:.0%}: nothing is foretold of {kind.piece} beyond what was measured.")
        else:
            per_second = wanted[kind.piece] / _SECONDS_A_DAY * given.peak
            console.print(_foretold(kind, _of_one(measured).costs, per_second))
    return 0 if is_trusted else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__.splitlines()[0])
    parser.add_argument("figures", type=Path, help="what `python -m bench cluster intake --json` wrote")
    parser.add_argument("--deliveries-a-day", type=float, default=100e6)
    parser.add_argument("--queries-a-day", type=float, default=1e6)
    parser.add_argument("--documents-per-query", type=float, default=10)
    parser.add_argument("--peak", type=float, default=3, help="the busiest second ÷ the mean of the day (3)")
    return parser.parse_args()


def read_measured(figures: Mapping[str, Any], section: str) -> list[Measured]:
    """What `bench --json` wrote of a section; the medians of its turns."""
    sides: Mapping[str, Any] = next(
        (each["sides"] for each in figures["comparisons"] if each["section"] == section), {}
    )
    return [_measured(int(name), turns) for name, turns in sides.items()]


def _measured(processes: int, turns: Sequence[Mapping[str, Any]]) -> Measured:
    costs = {"workers": statistics.median(turn["cpu_microseconds"] for turn in turns)}
    costs |= {name: statistics.median(turn["shares"][name] for turn in turns) for name in turns[0]["shares"]}
    return Measured(processes, statistics.median(turn["per_second"] for turn in turns), costs)


def _of_one(measured: Sequence[Measured]) -> Measured:
    return next(each for each in measured if each.processes == 1)


def _compared(kind: Kind, measured: Sequence[Measured], cores: int) -> tuple[Table, float]:
    """Measured beside foretold, and how far off the worst is."""
    table = Table(title=f"{kind.piece} on {cores} cores, with all that serves them", title_justify="left")
    for column in ("processes", "measured/s", "foretold/s", "off by", "CPU µs of one, by whom"):
        table.add_column(column, justify="right")
    worst, costs = 0.0, _of_one(measured).costs
    for each in measured:
        spent = ", ".join(f"{name} {cost:,.0f}" for name, cost in each.costs.items())
        if not each.processes:
            table.add_row("embedded", f"{each.per_second:,.0f}", "", "", spent)
            continue
        foretold = kind.foretell(costs, each.processes, cores)
        off = foretold / each.per_second - 1
        worst = max(worst, abs(off))
        table.add_row(str(each.processes), f"{each.per_second:,.0f}", f"{foretold:,.0f}", f"{off:+.0%}", spent)
    return table, worst


def _foretold(kind: Kind, costs: Mapping[str, float], per_second: float) -> Table:
    """The cores that each part needs, and whether they carry it together."""
    cores = {name: math.ceil(per_second * cost / 1e6 / _LOAD) for name, cost in costs.items() if name not in _OTHERS}
    carried = kind.foretell_apart(costs, cores)
    table = Table(
        title=f"{per_second:,.0f} {kind.piece} a second, at most {_LOAD:.0%} of each core", title_justify="left"
    )
    table.add_column("part")
    table.add_column("cores", justify="right")
    for name, count in cores.items():
        table.add_row(name, str(count))
    table.caption = f"carries up to {carried:,.0f} a second"
    return table


if __name__ == "__main__":
    sys.exit(main())
