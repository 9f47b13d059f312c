"""What the demo looks like: a table that lives on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from scripts.cluster.reckoning import Finding
from scripts.cluster.topology import BROKER, ROLES

_STYLES = {"up": "green", "starting": "yellow", "killed": "bold red", "": "dim"}


class Show:
    """Prints what happens, with the seconds since the beginning. `counts` is asked for the last line of the table."""

    def __init__(self, console: Console) -> None:
        self.counts: Callable[[], str] = str
        self._states = dict.fromkeys((BROKER, *ROLES), "")
        self._lives = dict.fromkeys((BROKER, *ROLES), 0)
        self._console = console
        self._began = time.monotonic()
        self._tick, self._cross = ("✓", "✗") if console.encoding.lower().startswith("utf") else ("ok", "FAILED")

    def title(self, text: str) -> None:
        """What this is."""
        self._console.rule(f"[bold]{escape(text)}[/]", align="left", style="dim")

    def say(self, text: str) -> None:
        """Something happened."""
        seconds = time.monotonic() - self._began
        self._print(f"  [dim]+{seconds:5.1f} s[/]  {escape(text)}")

    def process(self, name: str, state: str, remark: str = "") -> None:
        """A process is up, starting, or killed."""
        self._states[name] = state
        self._lives[name] += state == "up"
        if remark:
            self.say(f"{name} {remark}")

    @contextmanager
    def live(self) -> Iterator[None]:
        """A table of the processes above a line of counts, on a terminal alone."""
        if not self._console.is_terminal:
            yield
            return

        def picture() -> Group:
            return Group("", self._table(), f"  {self.counts()}")

        with Live(get_renderable=picture, console=self._console, refresh_per_second=8, transient=True):
            yield

    def verdict(self, findings: list[Finding]) -> None:
        """What the reckoning found."""
        for finding in findings:
            mark = f"[green]{self._tick}[/]" if finding.good else f"[bold red]{self._cross}[/]"
            self._print(f"  {mark} {escape(finding.says)}")

    def end(self, good: bool, text: str) -> None:
        """The last line."""
        style, mark = ("bold green", self._tick) if good else ("bold red", self._cross)
        self._print(f"\n[{style}]{mark} {escape(text)}[/]")

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, state in self._states.items():
            lives = f"[dim]life {self._lives[name]}[/]" if self._lives[name] > 1 else ""
            table.add_row("", name, f"[{_STYLES[state]}]{state or 'not yet'}[/]", lives)
        return table

    def _print(self, markup: str) -> None:
        self._console.print(markup, highlight=False, soft_wrap=True)
