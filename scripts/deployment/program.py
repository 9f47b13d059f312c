"""What the program knows: its settings, its commands, its metrics."""

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import typer
from prometheus_client import Counter, Gauge, Histogram
from typer.core import TyperGroup

from chartwire.cli import app
from chartwire.settings import Settings
from chartwire.telemetry import Durations, Metrics

_OF_COMMANDS = ("CONFIG", "URL", "API_KEY")
_VARIABLE = re.compile(r"\bCHARTWIRE_[A-Z][A-Z0-9_]*\b")
_METRIC = re.compile(r"\bchartwire_[a-z_]+\b")
_UsageError: Any = typer.BadParameter.__base__
"""The parser is inside of typer, which gives no other name to what it raises."""

_NO_METRIC = "chartwire_toml"  # a file that compose.yaml names
_SUFFIXES = ("_bucket", "_sum", "_count")

VARIABLES = frozenset(f"CHARTWIRE_{name.upper()}" for name in (*Settings.model_fields, *_OF_COMMANDS))


def unknown_variables(text: str) -> Iterator[str]:
    """Environment variables in a text that the program would refuse."""
    for name in sorted(set(_VARIABLE.findall(text)) - VARIABLES):
        yield f"there is no setting {name}"


def unknown_metrics(text: str) -> Iterator[str]:
    """Names of metrics in a text that `/metrics` does not tell; a histogram may go by its name."""
    known = {name for name, _ in metrics()}
    known |= {name.removesuffix("_bucket") for name in known} | {_NO_METRIC}
    yield from (f"there is no metric {name}" for name in sorted(set(_METRIC.findall(text)) - known))


def metrics() -> Iterator[tuple[str, frozenset[str]]]:
    """Each metric as it is scraped, with the names of its labels."""
    for part in vars(Metrics()).values():
        if isinstance(part, Durations):
            yield from ((f"{part.name}{suffix}", frozenset({"le"})) for suffix in _SUFFIXES)
        elif isinstance(part, Counter | Gauge | Histogram):
            name, labels = part._name, frozenset(part._labelnames)
            if isinstance(part, Histogram):
                yield from ((f"{name}{suffix}", labels | {"le"}) for suffix in _SUFFIXES)
            else:
                yield (f"{name}_total" if isinstance(part, Counter) else name), labels


def wrong_command(arguments: Sequence[str] | str) -> Iterator[str]:
    """Why the program would refuse these arguments, if it would; nothing is run."""
    given = shlex.split(arguments) if isinstance(arguments, str) else list(arguments)
    said = shlex.join(["chartwire", *given])
    command: Any = typer.main.get_command(app)
    while isinstance(command, TyperGroup):
        if not given or given[0] not in command.commands:
            yield f"`{said}`: there is no such command"
            return
        command, given = command.commands[given[0]], given[1:]
    try:
        command.make_context(command.name, given)
    except _UsageError as error:
        yield f"`{said}`: {error}"
