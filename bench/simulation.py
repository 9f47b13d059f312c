"""A discrete-event simulation of processes that have more to do than they can: how much do they get done?

What it knows of the product is how work goes round; what it knows of a machine are cores, and of a piece of work what
CPU it costs whom. A process is one Python: whatever it does, it does one thing at a time, and waits in line for a core.

A delivering process has so many places for deliveries under way. Its cycle is one transaction at a time, which settles
what has ended and claims as much as there is room for, statement by statement, each a round trip to the database;
meanwhile what was claimed is posted. A process that takes documents in has a few under way, each of which goes through
its own statements, the bucket, and the commits.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import simpy

_SLICE_SECONDS = 0.002  # for so long a core is held before others have their turn
_SYNC_SECONDS = 0.001  # until a commit is on disk; anything from 0.5 to 5 ms changes rates by a twentieth at most
_WARM_UP = 0.2  # of the time

_PLACES = 256  # deliveries under way in a process (`webhook_concurrency`, as `bench.cluster` sets it)
_ENOUGH = 64  # that have ended, and the next cycle begins (`delivery/dispatcher.py`)
_GATHER_SECONDS = 0.005  # or so long after the first has
_POLL_SECONDS = 1.0
_STATEMENTS_OF_A_CYCLE = 8
_POSTING = 0.6  # of a process's CPU is posting, the rest is statements; from 0.4 to 0.8 rates are the same
_CLUMP = 16  # deliveries that are simulated as one

_DOCUMENTS_AT_ONCE = 8  # of a network in a process (`limits.concurrency`)
_STATEMENTS_OF_A_DOCUMENT = 30
_COMMITS_OF_A_DOCUMENT = 3

Flow = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU seconds of one piece: in the process that works on it, in the database, and at the bucket or the receiver."""

    worker: float
    database: float
    other: float


ALL = "all"
"""The machine of a part that has none of its own."""


class _Machine:
    """Cores, each of them one at a time's for a slice."""

    def __init__(self, environment: simpy.Environment, cores: int) -> None:
        self._environment = environment
        self._cores = simpy.Resource(environment, cores)

    def work(self, seconds: float) -> Flow:
        while seconds > 0:
            with self._cores.request() as core:
                yield core
                yield self._environment.timeout(min(seconds, _SLICE_SECONDS))
            seconds -= _SLICE_SECONDS


class _Thread:
    """What does one thing at a time, on a machine."""

    def __init__(self, environment: simpy.Environment, machine: _Machine) -> None:
        self._machine = machine
        self._turn = simpy.Resource(environment, 1)

    def work(self, seconds: float) -> Flow:
        with self._turn.request() as turn:
            yield turn
            yield from self._machine.work(seconds)


class _Stage:
    """Machines, and the count of what has been done on them since the warm-up."""

    def __init__(self, cores: Mapping[str, int], seconds: float) -> None:
        self.environment = simpy.Environment()
        self._machines = {name: _Machine(self.environment, count) for name, count in cores.items()}
        self._seconds = seconds
        self._done = 0

    def machine(self, part: str) -> _Machine:
        return self._machines.get(part) or self._machines[ALL]

    def count(self, pieces: int) -> None:
        if self.environment.now > self._seconds * _WARM_UP:
            self._done += pieces

    def per_second(self) -> float:
        self.environment.run(until=self._seconds)
        return self._done / (self._seconds * (1 - _WARM_UP))


def deliveries_per_second(costs: Costs, processes: int, cores: Mapping[str, int], seconds: float = 6) -> float:
    """What so many processes deliver; `cores` are those of the machines "workers", "database", "other", or of `ALL`."""
    stage = _Stage(cores, seconds)
    receiver = _Thread(stage.environment, stage.machine("other"))
    for _ in range(processes):
        _DeliveringProcess(stage, receiver, costs)
    return stage.per_second()


class _DeliveringProcess:
    def __init__(self, stage: _Stage, receiver: _Thread, costs: Costs) -> None:
        self._stage = stage
        self._environment = stage.environment
        self._loop = _Thread(stage.environment, stage.machine("workers"))
        self._database = stage.machine("database")
        self._receiver = receiver
        self._costs = costs
        self._room = _PLACES
        self._ended = 0
        self._bell = stage.environment.event()
        self._environment.process(self._run())

    def _run(self) -> Flow:
        while True:
            self._bell = self._environment.event()
            ended, claimed = self._ended, self._room
            if ended or claimed:
                self._ended, self._room = 0, 0
                yield from self._transact((ended + claimed) / 2)
                self._stage.count(ended)
                for first in range(0, claimed, _CLUMP):
                    self._environment.process(self._post(min(_CLUMP, claimed - first)))
            if self._ended < _ENOUGH:
                yield self._bell | self._environment.timeout(_POLL_SECONDS)

    def _transact(self, pieces: float) -> Flow:
        """Half of a piece's statements settle it, half claim it."""
        for _ in range(_STATEMENTS_OF_A_CYCLE):
            yield from self._loop.work(self._costs.worker * (1 - _POSTING) * pieces / _STATEMENTS_OF_A_CYCLE)
            yield from self._database.work(self._costs.database * pieces / _STATEMENTS_OF_A_CYCLE)
        yield self._environment.timeout(_SYNC_SECONDS)

    def _post(self, pieces: int) -> Flow:
        yield from self._loop.work(self._costs.worker * _POSTING * pieces / 2)
        yield from self._receiver.work(self._costs.other * pieces)
        yield from self._loop.work(self._costs.worker * _POSTING * pieces / 2)
        self._room += pieces
        self._ended += pieces
        if self._ended < _ENOUGH:
            yield self._environment.timeout(_GATHER_SECONDS)
        if not self._bell.triggered:
            self._bell.succeed()


def documents_per_second(costs: Costs, processes: int, cores: Mapping[str, int], seconds: float = 30) -> float:
    """What so many processes take in, of a network that answers at once; `cores` as above."""
    stage = _Stage(cores, seconds)
    for _ in range(processes):
        loop = _Thread(stage.environment, stage.machine("workers"))
        for _ in range(_DOCUMENTS_AT_ONCE):
            stage.environment.process(_take_in(stage, loop, costs))
    return stage.per_second()


def _take_in(stage: _Stage, loop: _Thread, costs: Costs) -> Flow:
    """One document after the other."""
    while True:
        yield from stage.machine("other").work(costs.other)
        for number in range(_STATEMENTS_OF_A_DOCUMENT):
            yield from loop.work(costs.worker / _STATEMENTS_OF_A_DOCUMENT)
            yield from stage.machine("database").work(costs.database / _STATEMENTS_OF_A_DOCUMENT)
            if number % (_STATEMENTS_OF_A_DOCUMENT // _COMMITS_OF_A_DOCUMENT) == 0:
                yield stage.environment.timeout(_SYNC_SECONDS)
        stage.count(1)
