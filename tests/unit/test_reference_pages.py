"""The reference pages say what the code says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import typer.main
from scripts.settings_reference import PAGE, render

from chartwire.api.endpoints import NewEndpoint
from chartwire.cli import app
from chartwire.model.webhook import MessageType, Outcome

CLI_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
WEBHOOKS_PAGE = CLI_PAGE.with_name("webhooks.md")


def commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def test_the_page_of_settings_is_what_the_script_writes() -> None:
    assert PAGE.read_text() == render(), "run `.venv/bin/python scripts/settings_reference.py`"


def test_the_page_of_the_command_line_names_every_command_and_option() -> None:
    page = CLI_PAGE.read_text()
    common, _, rest = page.partition("## `chartwire serve`")
    sections = {
        title: text for title, _, text in (part.partition("`") for part in f"chartwire serve`{rest}".split("## `"))
    }
    missing = []
    for words, command in commands(typer.main.get_command(app), "chartwire"):
        found = [f"{title}{text}" for title, text in sections.items() if f"{title} ".startswith(f"{words} ")]
        options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
        missing += (
            [words] if not found else [f"{words} {option}" for option in options if option not in common + found[0]]
        )
    assert missing == []


def test_the_page_of_webhooks_has_a_row_for_every_outcome_and_names_every_key_and_type() -> None:
    page = WEBHOOKS_PAGE.read_text()
    rows = [line.split(" | ")[1] for line in page.splitlines() if line.startswith("| ") and line.count(" | ") > 1]
    assert [each for each in Outcome if f"`{each}`" not in rows] == []
    keys = [field.alias for field in NewEndpoint.model_fields.values()]
    assert [each for each in [*keys, *get_args(MessageType)] if f"`{each}`" not in page] == []


def test_the_page_of_the_command_line_names_no_command_that_is_not_there() -> None:
    known = {words for words, _ in commands(typer.main.get_command(app), "chartwire")}
    titles = [
        line.removeprefix("## `").partition("`")[0] for line in CLI_PAGE.read_text().splitlines() if line[:4] == "## `"
    ]
    assert [title for title in titles if not any(f"{title} ".startswith(f"{words} ") for words in known)] == []
