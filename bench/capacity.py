"""What more machines would carry: figures that `bench cluster intake` measured, and a simulation that reproduces them.

    python -m bench cluster intake --rounds 3 --json figures.json
    python -m bench.capacity figures.json

A piece of work (a delivery, a document) costs CPU in the process that works on it, in the database, and at the
receiver or the bucket; each further process makes every piece a little dearer, because processes wake each other and
share what they claim. So a cost is a line over the number of processes, laid through what was measured. How much a
number of processes get done with such costs is simulated (`bench.simulation`) and compared with the rates that were
measured. Where one is off by more than a fifth, nothing is foretold beyond.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.simulation import ALL, Costs, deliveries_per_second, documents_per_second

TOLERANCE = 0.2
_LOAD = 0.6
"""Of a core, at most, at the busiest time: what is queued longer is late."""
_MOST_PROCESSES = 64
_PLENTY = 64  # cores of receivers and buckets, which are not ours to count
_SECONDS_A_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Measured:
    """One side of a measurement: so many processes (0: embedded), pieces per second, CPU µs and disk bytes of one."""

    processes: int
    per_second: float
    costs: Mapping[str, float]
    disk_bytes: float


@dataclass(frozen=True, slots=True)
class Line:
    """`first` with one process, and `further` more with each further one."""

    first: float
    further: float

    def at(self, processes: int) -> float:
        """The value for so many processes."""
        return self.first + self.further * (processes - 1)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of work: the section that measures it, who has a part in it beside the database, and its simulation."""

    section: str
    piece: str
    other: str
    simulate: Callable[[Costs, int, Mapping[str, int]], float]


KINDS = (
    Kind("cluster", "deliveries", "receiver", deliveries_per_second),
    Kind("intake", "documents", "bucket", documents_per_second),
)


@dataclass(frozen=True, slots=True)
class Model:
    """What a piece costs, by the number of processes."""

    kind: Kind
    worker: Line
    database: Line
    other: Line

    @classmethod
    def of(cls, kind: Kind, measured: Sequence[Measured]) -> "Model":
        """Lines through what was measured; one process at least."""
        lines = [_line(measured, name) for name in ("workers", "database", kind.other)]
        return cls(kind, *lines)

    def costs(self, processes: int) -> Costs:
        """CPU seconds of one piece."""
        return Costs(*(line.at(processes) / 1e6 for line in (self.worker, self.database, self.other)))

    def on_one_machine(self, processes: int, cores: int) -> float:
        """Pieces per second of so many processes, with all that serves them on the same cores."""
        return self.kind.simulate(self.costs(processes), processes, {ALL: cores})


@dataclass(frozen=True, slots=True)
class Plan:
    """What carries a rate: so many installations, accounts divided among them, each with processes of a core each."""

    installations: int
    processes: int
    database_cores: int
    carried: float


def plan(model: Model, per_second: float) -> Plan:
    """The fewest installations, and of these the fewest processes, that carry it with something to spare."""
    installations = 1
    while (found := _plan_one(model, per_second / installations)) is None:
        installations += 1
    return replace(found, installations=installations, carried=found.carried * installations)


def _plan_one(model: Model, per_second: float) -> Plan | None:
    """One installation that carries it; None if further processes cost more than they bring before there are enough."""
    for processes in range(1, _MOST_PROCESSES):
        costs = model.costs(processes)
        if per_second * costs.worker > processes * _LOAD:
            continue
        database_cores = math.ceil(per_second * costs.database / _LOAD)
        cores = {"workers": processes, "database": database_cores, "other": _PLENTY}
        carried = model.kind.simulate(costs, processes, cores)
        if carried * _LOAD >= per_second:
            return Plan(1, processes, database_cores, carried)
    return None


def _line(measured: Sequence[Measured], name: str) -> Line:
    """The straight line that is nearest to the costs (least squares), level if it would fall."""
    counts = [each.processes - 1 for each in measured if each.processes]
    costs = [each.costs[name] for each in measured if each.processes]
    if len(counts) < 2:
        return Line(costs[0], 0)
    further, first = statistics.linear_regression(counts, costs)
    return Line(first, further) if further > 0 else Line(statistics.mean(costs), 0)


def read_measured(figures: Mapping[str, Any], section: str) -> list[Measured]:
    """What `bench --json` wrote of a section; the medians of its turns."""
    sides: Mapping[str, Any] = next(
        (each["sides"] for each in figures["comparisons"] if each["section"] == section), {}
    )
    return [_measured(int(name), turns) for name, turns in sides.items()]


def _measured(processes: int, turns: Sequence[Mapping[str, Any]]) -> Measured:
    costs = {"workers": statistics.median(turn["cpu_microseconds"] for turn in turns)}
    costs |= {name: statistics.median(turn["shares"][name] for turn in turns) for name in turns[0]["shares"]}
    per_second, disk_bytes = (statistics.median(turn[name] for turn in turns) for name in ("per_second", "disk_bytes"))
    return Measured(processes, per_second, costs, disk_bytes)


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
        model = Model.of(kind, measured)
        table, deviation = _compared(model, measured, figures["machine"]["cores"])
        console.print(table)
        if deviation > TOLERANCE:
            is_trusted = False
            console.print(f"Off by {deviation:.0%}: nothing is foretold of {kind.piece} beyond what was measured.")
        else:
            console.print(_foretold(model, measured, wanted[kind.piece], given.peak))
    return 0 if is_trusted else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__.splitlines()[0])
    parser.add_argument("figures", type=Path, help="what `python -m bench cluster intake --json` wrote")
    parser.add_argument("--deliveries-a-day", type=float, default=100e6)
    parser.add_argument("--queries-a-day", type=float, default=1e6)
    parser.add_argument("--documents-per-query", type=float, default=10)
    parser.add_argument("--peak", type=float, default=3, help="the busiest second ÷ the mean of the day (3)")
    return parser.parse_args()


def _compared(model: Model, measured: Sequence[Measured], cores: int) -> tuple[Table, float]:
    """Measured beside foretold, and how far off the worst is."""
    title = f"{model.kind.piece} on {cores} cores, with all that serves them"
    table = Table(title=title, title_justify="left")
    for column in ("processes", "measured/s", "foretold/s", "off by", "CPU µs of one, by whom"):
        table.add_column(column, justify="right")
    worst = 0.0
    for each in measured:
        spent = ", ".join(f"{name} {cost:,.0f}" for name, cost in each.costs.items())
        if not each.processes:
            table.add_row("embedded", f"{each.per_second:,.0f}", "", "", spent)
            continue
        foretold = model.on_one_machine(each.processes, cores)
        off = foretold / each.per_second - 1
        worst = max(worst, abs(off))
        table.add_row(str(each.processes), f"{each.per_second:,.0f}", f"{foretold:,.0f}", f"{off:+.0%}", spent)
    return table, worst


def _foretold(model: Model, measured: Sequence[Measured], a_day: float, peak: float) -> Table:
    """What carries so many pieces a day, and a tenth of them."""
    table = Table(title=f"{model.kind.piece}, a core loaded to {_LOAD:.0%} at most", title_justify="left")
    columns = ("a day", "at the peak/s", "installations", "processes in each", "cores of each database")
    for column in (*columns, "carries/s, all cores busy", "database grows a day"):
        table.add_column(column, justify="right")
    disk = statistics.median(each.disk_bytes for each in measured if each.processes)
    for times in (0.1, 1):
        per_second = a_day * times / _SECONDS_A_DAY * peak
        planned = plan(model, per_second)
        table.add_row(
            f"{a_day * times:,.0f}",
            f"{per_second:,.0f}",
            str(planned.installations),
            str(planned.processes),
            str(planned.database_cores),
            f"{planned.carried:,.0f}",
            f"{a_day * times * disk / 1e9:,.0f} GB",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
