"""Turns: one side of a comparison measured once, in a fresh process on the first core."""

import asyncio
import os
import pickle
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE, run
from typing import Any

import structlog
import uvloop

from chartwire.memory import tend_memory


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side came to; what it does not measure is 0. Times are of one message, memory is the process's peak."""

    per_second: float = 0.0
    cpu_microseconds: float = 0.0
    p50_milliseconds: float = 0.0
    p99_milliseconds: float = 0.0
    ack_p50_milliseconds: float = 0.0
    ack_p99_milliseconds: float = 0.0
    memory_mebibytes: float = 0.0
    disk_bytes: float = 0.0
    reuse: float = 0.0
    megabytes_per_second: float = 0.0
    shares: Mapping[str, float] = field(default_factory=dict)  # CPU µs of one message at others, by whom


@dataclass(slots=True)
class Spent:
    """Wall clock and CPU of this process, in seconds, between entering and leaving `spending`."""

    seconds: float = field(default=0.0)
    cpu: float = field(default=0.0)


Side = Callable[..., Awaitable[Turn]]


def take_turn(side: Side, *arguments: Any) -> Turn:
    """Measure in a process of its own: what one turn leaves behind is not another's burden.

    It loads what its side needs and nothing else, so that its memory is its own, too.
    """
    command = [sys.executable, "-c", "from bench.turns import measure; measure()"]
    done = run(command, input=pickle.dumps((side, arguments)), stdout=PIPE, check=True)  # noqa: S603  our own program
    turn: Turn = pickle.loads(done.stdout)  # noqa: S301  what `measure` wrote
    return turn


def measure() -> None:
    """Measure the side that standard input names, and write its turn to standard output."""
    side, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301  what `take_turn` wrote
    pin(0)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))  # warnings and worse
    tend_memory()  # as a server does
    sys.stdout.buffer.write(pickle.dumps(uvloop.run(_await(side, arguments))))


async def _await(side: Side, arguments: Sequence[Any]) -> Turn:
    return await side(*arguments)


def pin(core: int) -> None:
    """Stay on one core, where the system lets us."""
    if hasattr(os, "sched_setaffinity") and core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {core})


def use_all_cores() -> None:
    """Undo `pin`, for this process and what it starts."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


@contextmanager
def spending() -> Iterator[Spent]:
    """Measures what is done inside."""
    spent = Spent()
    cpu, seconds = time.process_time(), time.perf_counter()
    yield spent
    spent.cpu, spent.seconds = time.process_time() - cpu, time.perf_counter() - seconds


def peak_memory() -> float:
    """The most memory this process ever held, in MiB; outside of Linux, that or what whoever started it held."""
    status = Path("/proc/self/status")
    if status.exists():  # for Linux counts to `ru_maxrss` what its parent held
        (held,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(held.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of `values` do not exceed; in milliseconds, of values in seconds."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1000


async def keep_busy(workers: int, work: Callable[[int], Awaitable[None]]) -> None:
    """`workers` at a time, each told its number."""
    await asyncio.gather(*(work(number) for number in range(workers)))
