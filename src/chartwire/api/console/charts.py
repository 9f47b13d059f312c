"""Small charts as shapes for a template to draw: the server does the sums, the browser draws plain SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from chartwire.model.overview import HourOfAttempts
from chartwire.model.webhook import Attempt, Outcome

HOURS = 24
WIDTH, HEIGHT = 480, 96
_STEP = WIDTH / HOURS
_GAP = 4
_ANSWERED = frozenset({Outcome.REDIRECT, Outcome.GONE, Outcome.HTTP_ERROR, Outcome.SLOW_DOWN, Outcome.BAD_PONG})
_LAPS = {"dns": "DNS", "connect": "Connect", "tls": "TLS", "first-byte": "First byte"}
_LEAST_REST = 1000
"""Microseconds: the whole is known in milliseconds alone."""
SERIES = (("good", "Delivered"), ("answered", "Answered with an error"), ("silent", "No answer"))


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle of a series."""

    series: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Hour:
    """An hour's attempts by series, for the table beside the picture."""

    start: datetime
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class AttemptChart:
    """The last 24 hours, the oldest first, as bars and as a table."""

    bars: list[Bar]
    hours: list[Hour]
    totals: dict[str, int]
    highest: int


def attempt_chart(attempts: Sequence[HourOfAttempts], now: datetime) -> AttemptChart:
    """Stacked bars, one per hour up to the one that is under way."""
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    by_start = {hour.start: _by_series(hour.counts) for hour in attempts}
    starts = [this_hour - timedelta(hours=HOURS - 1 - number) for number in range(HOURS)]
    hours = [Hour(start, by_start.get(start, _by_series({}))) for start in starts]
    highest = max(sum(hour.counts.values()) for hour in hours)
    bars = [bar for number, hour in enumerate(hours) for bar in _stack(number, hour.counts, highest)]
    totals = {name: sum(hour.counts[name] for hour in hours) for name, _ in SERIES}
    return AttemptChart(bars, [hour for hour in hours if sum(hour.counts.values())], totals, highest)


@dataclass(frozen=True, slots=True)
class Lap:
    """A step of a request in the bar of its time; `name` is the step's, `label` what it is called."""

    name: str
    label: str
    microseconds: int
    begin: float
    width: float


def laps(attempt: Attempt) -> list[Lap]:
    """Where the time of an attempt went, as parts of one bar; nothing for one whose steps were not timed."""
    timing = attempt.timing
    if timing is None:
        return []
    took = {"dns": timing.dns, "connect": timing.connect, "tls": timing.tls, "first-byte": timing.first_byte}
    steps = [(name, _LAPS[name], micros) for name, micros in took.items() if micros is not None]
    rest = attempt.duration_ms * 1000 - sum(micros for *_, micros in steps)
    if rest >= _LEAST_REST:
        steps.append(("rest", "The rest" if timing.first_byte is not None else "No answer", rest))
    places = parts([micros for *_, micros in steps], WIDTH)
    return [Lap(*step, *place) for step, place in zip(steps, places, strict=True)]


def parts(counts: Sequence[int], width: int) -> list[tuple[float, float]]:
    """Where each part of one lying bar begins and how wide it is; parts of nothing have no width."""
    total = sum(counts) or 1
    places, begin = [], 0.0
    for count in counts:
        wide = round(width * count / total, 1)
        places.append((begin, wide))
        begin += wide
    return places


def _stack(number: int, counts: dict[str, int], highest: int) -> list[Bar]:
    bars, top = [], float(HEIGHT)
    for name, _ in SERIES:
        if counts[name]:
            height = max(2.0, HEIGHT * counts[name] / highest)
            top = max(0.0, top - height)
            bars.append(Bar(name, round(number * _STEP + _GAP / 2, 1), round(top, 1), _STEP - _GAP, round(height, 1)))
    return bars


def _by_series(counts: dict[Outcome, int]) -> dict[str, int]:
    good = counts.get(Outcome.DELIVERED, 0)
    answered = sum(count for outcome, count in counts.items() if outcome in _ANSWERED)
    return {"good": good, "answered": answered, "silent": sum(counts.values()) - good - answered}
