"""What the commands of the command line share: options, settings, and how they speak to whoever typed them."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from sqlalchemy.exc import DBAPIError

from chartwire.errors import ChartwireError
from chartwire.settings import Settings, load_settings

Config = Annotated[
    Path | None, typer.Option("--config", help="A TOML file with settings and networks.", envvar="CHARTWIRE_CONFIG")
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where data is kept; ./data if not said.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

out = Console()


def read_settings(config: Path | None, data_dir: Path | None, **overrides: Any) -> Settings:
    """The settings of a command; ends it with one line if they are wrong."""
    if config is not None:
        os.environ["CHARTWIRE_CONFIG"] = str(config)
    with clear_errors():
        return load_settings(data_dir=data_dir, **overrides)


def prepare_data_dir(settings: Settings) -> None:
    """Make the data folder; ends the command with one line if it cannot be used."""
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"data_dir: cannot make {folder}: {error.strerror}; give --data-dir another")
    if not os.access(folder, os.W_OK | os.X_OK):
        fail(f"data_dir: {folder} cannot be written to; let this user own it, or give --data-dir another")


@contextmanager
def clear_errors() -> Iterator[None]:
    """What Chartwire foresaw is one line for the operator, not a stack trace."""
    try:
        yield
    except ChartwireError as error:
        fail(str(error))
    except DBAPIError as error:
        fail(f"the database cannot be used: {error.orig}; see `chartwire doctor`")


def print_rows(rows: list[dict[str, Any]], as_json: bool, empty: str) -> None:
    """A table, or the same as JSON; `empty` says what to do if there is nothing."""
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        say(empty)
        return
    lines = [list(rows[0]), *([str(value or "") for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        say(escape("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()))


def say(text: str) -> None:
    """Print, with rich's markup, without breaking lines: keys and paths are copied from here."""
    out.print(text, highlight=False, soft_wrap=True)


def fail(message: str) -> NoReturn:
    """End the command: it, or a setting, is wrong."""
    print(f"chartwire: {message}", file=sys.stderr)
    raise typer.Exit(2)
