"""Comparisons: sides that take turns in rounds, and the ratios between them.

Absolute figures move with the machine's mood, ratios of the same minutes less so. What counts is the median of the
rounds' ratios; which side goes first alternates. CPU time is compared too: others who use the machine meanwhile move it
less than the wall clock.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.turns import Turn

Take = Callable[[], Turn]


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio of one figure (a field of `Turn`) between two sides, with what it should be."""

    name: str
    says: str
    ours: str
    bare: str
    figure: str = "per_second"
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, slots=True)
class Ratio:
    """How a goal came out: medians of both sides, of the rounds' ratios, and of their ratios of CPU time."""

    goal: Goal
    where: str
    ours: float
    bare: float
    ratio: float
    lowest: float
    highest: float
    cpu_ratio: float | None
    rounds: int

    @property
    def is_met(self) -> bool | None:
        """None if nothing in particular was asked for."""
        if self.goal.at_least is not None:
            return self.ratio >= self.goal.at_least
        return None if self.goal.at_most is None else self.ratio <= self.goal.at_most


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one section measured: each side's turns, and the ratios."""

    where: str
    sides: Mapping[str, Sequence[Turn]]
    ratios: Sequence[Ratio]


def compare(where: str, sides: Mapping[str, Take], goals: Sequence[Goal], rounds: int) -> Comparison:
    """Let every side take a turn in each round."""
    turns: dict[str, list[Turn]] = {name: [] for name in sides}
    for number in range(rounds):
        order = list(sides)[:: -1 if number % 2 else 1]
        for name in order:
            turns[name].append(sides[name]())
    return Comparison(where, turns, [_ratio(goal, where, turns) for goal in goals])


def median(turns: Sequence[Turn], figure: str) -> float:
    """The median of one figure over turns."""
    values: list[float] = [getattr(turn, figure) for turn in turns]
    return statistics.median(values)


def _ratio(goal: Goal, where: str, turns: Mapping[str, Sequence[Turn]]) -> Ratio:
    ours, bare = turns[goal.ours], turns[goal.bare]
    ratios = _ratios(ours, bare, goal.figure)
    cpu = all(turn.cpu_microseconds for turn in (*ours, *bare))
    return Ratio(
        goal,
        where,
        median(ours, goal.figure),
        median(bare, goal.figure),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        statistics.median(_ratios(ours, bare, "cpu_microseconds")) if cpu else None,
        len(ratios),
    )


def _ratios(ours: Sequence[Turn], bare: Sequence[Turn], figure: str) -> list[float]:
    return [getattr(one, figure) / getattr(other, figure) for one, other in zip(ours, bare, strict=True)]
