"""Measures Chartwire as ratios to the bare machine, in interleaved rounds: `make bench`, `python -m bench --help`."""

import argparse
import json
import os
import platform
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.comparing import Comparison, Ratio, median
from bench.sections import SECTIONS, Scale, measure

_SHORT = {"rounds": 2, "count": 1_000, "seconds": 2.0, "hosts": (100,), "backlog": 50_000}
_SHORT_SECTIONS = ("throughput",)


def main() -> None:
    """Measure, print tables, write JSON if asked to."""
    given = _arguments()
    console = Console(width=160 if not os.isatty(1) else None)
    found: list[tuple[str, Comparison]] = []
    with tempfile.TemporaryDirectory(prefix="chartwire-bench-", dir=given.folder) as folder:
        scale = _scale(given, folder)
        for name in given.sections or (_SHORT_SECTIONS if given.short else SECTIONS):
            for comparison, seconds in measure(name, scale):
                found.append((name, comparison))
                console.print(_ratios_table(f"{name}: {comparison.where} ({seconds:.0f} s)", comparison.ratios))
                console.print(_sides_table(comparison))
    console.print("Only the ratios mean anything: medians of rounds in turn on this machine, in these minutes.")
    if given.json:
        Path(given.json).write_text(json.dumps(_as_json(found), indent=2, ensure_ascii=False))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; else all")
    parser.add_argument("--short", action="store_true", help="half a minute: a look, not a measurement")
    parser.add_argument("--rounds", type=int, help="turns of each side (5)")
    parser.add_argument("--count", type=int, help="messages per turn (10,000)")
    parser.add_argument("--seconds", type=float, help="length of the turns that have a rate (5)")
    parser.add_argument("--hosts", type=int, nargs="+", help="numbers of receivers (1 10 100)")
    parser.add_argument("--backlog", type=int, help="messages that wait (1,000,000)")
    parser.add_argument("--folder", help="where the databases are: on the disk that is to be measured")
    parser.add_argument(
        "--postgres", metavar="URL", help="a PostgreSQL database to measure in; what it holds is dropped"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    given = parser.parse_args()
    if unknown := set(given.sections) - SECTIONS.keys():
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    return given


def _scale(given: argparse.Namespace, folder: str) -> Scale:
    options: dict[str, Any] = dict(_SHORT) if given.short else {}
    options |= {
        name: tuple(value) if name == "hosts" else value
        for name in ("rounds", "count", "seconds", "hosts", "backlog", "postgres")
        if (value := getattr(given, name)) is not None
    }
    return Scale(folder, **options)


def _as_json(found: list[tuple[str, Comparison]]) -> dict[str, object]:
    machine = {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()}
    return {
        "machine": machine,
        "comparisons": [
            {"section": section, **asdict(each), "met": [ratio.is_met for ratio in each.ratios]}
            for section, each in found
        ],
    }


def _ratios_table(title: str, ratios: "list[Ratio] | Any") -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("goal", "measurement", "ours", "bare", "ratio", "from – to", "CPU ratio", "asked", "met"):
        table.add_column(
            column, no_wrap=column != "measurement", justify="left" if column == "measurement" else "right"
        )
    for ratio in ratios:
        goal = ratio.goal
        asked = f"≥ {goal.at_least}" if goal.at_least is not None else f"≤ {goal.at_most}" if goal.at_most else ""
        table.add_row(
            goal.name,
            goal.says,
            _figure(ratio.ours),
            _figure(ratio.bare),
            f"{ratio.ratio:.2f}",
            f"{ratio.lowest:.2f} – {ratio.highest:.2f}",
            "" if ratio.cpu_ratio is None else f"{ratio.cpu_ratio:.2f}",
            asked,
            {True: "yes", False: "no", None: ""}[ratio.is_met],
        )
    return table


def _sides_table(comparison: Comparison) -> Table:
    table = Table()
    figures = {
        "per_second": "per second",
        "cpu_microseconds": "CPU s per 1,000",
        "p50_milliseconds": "p50 ms",
        "p99_milliseconds": "p99 ms",
        "ack_p50_milliseconds": "ack p50 ms",
        "ack_p99_milliseconds": "ack p99 ms",
        "memory_mebibytes": "peak MiB",
        "disk_bytes": "disk bytes each",
        "megabytes_per_second": "MB/s",
    }
    for column in ("side", *figures.values()):
        table.add_column(column, justify="left" if column == "side" else "right")
    for name, turns in comparison.sides.items():
        values = {figure: median(turns, figure) for figure in figures}
        values["cpu_microseconds"] /= 1000
        table.add_row(name, *(_figure(value) for value in values.values()))
    return table


def _figure(value: float) -> str:
    if not value:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


if __name__ == "__main__":
    main()
