"""What the demo looks like: live on a terminal, plain lines elsewhere."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import Console
from rich.json import JSON
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

_LABEL_WIDTH = 14
_NAME_WIDTH = 36
_KIND_STYLES = {"asked": "cyan", "stored": "blue", "webhook": "green", "closing": "bold green"}


class Show:
    """Prints the steps of the demo."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tick = "✓" if console.encoding.lower().startswith("utf") else "ok"

    def title(self) -> None:
        """What Chartwire is."""
        self._console.rule("[bold]Chartwire[/] demo", align="left", style="dim")
        self._line("Ask once for a patient's documents,")
        self._line("receive them by signed webhook as soon as each is available.")

    def chapter(self, number: int, title: str) -> None:
        """A part of the story begins."""
        self._line(f"\n[bold cyan]{number}[/]  [bold]{escape(title)}[/]")

    def step(self, label: str, call: str, result: str = "") -> None:
        """Something was done: what, by which call, with what result."""
        shown = f"  [dim]{escape(result)}[/]" if result else ""
        self._line(f"   [green]{self._tick}[/] {label:<{_LABEL_WIDTH}} {escape(call)}{shown}")

    def waiting(self, what: str) -> AbstractContextManager[object]:
        """Something takes a moment; seen on a terminal alone."""
        return self._console.status(f"   [dim]{escape(what)} …[/]")

    @contextmanager
    def timeline(self) -> Iterator["Timeline"]:
        """Lines that come as things happen, above a bar that lives on a terminal alone."""
        two = f"[green]{self._tick}{self._tick}[/]"
        self._line(f"   [dim]{two} means that webhook-signature and x-metriport-signature are both right[/]")
        progress = Progress(
            TextColumn("   "),
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:.0f} of {task.total:.0f} documents stored"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        with progress:
            yield Timeline(self._console, progress, self._tick)

    def document(self, location: str, media_type: str, body: bytes) -> None:
        """A document that was fetched, by its size and its first words."""
        self._line(f"   [green]{self._tick}[/] GET {escape(location)}")
        beginning = " ".join(body[:300].decode("utf-8", "replace").split())[:72]
        self._line(f"     {media_type}, {len(body):,} bytes")
        self._line(f"     [dim]{escape(beginning)} …[/]")

    def message(self, headers: Mapping[str, str], body: Mapping[str, Any]) -> None:
        """One message as it came, with the headers that matter."""
        for name in ("webhook-id", "webhook-timestamp", "webhook-signature", "x-metriport-signature"):
            self._line(f"   [dim]{name}: {escape(headers[name])}[/]")
        if self._console.is_terminal:
            self._console.print(JSON(json.dumps(body), indent=2), soft_wrap=True)
        else:
            self._line(escape(json.dumps(body, indent=2)))

    def next_steps(self, steps: Sequence[tuple[str, str]]) -> None:
        """What to try, each with what it is for."""
        width = max(len(what) for what, _ in steps)
        for what, purpose in steps:
            self._line(f"   [bold]{escape(what.ljust(width))}[/]  [dim]{escape(purpose)}[/]")

    def end(self, summary: str) -> None:
        """All went well."""
        self._line(f"\n[bold green]{self._tick} {escape(summary)}[/]")

    def failure(self, message: str, log: Sequence[str]) -> None:
        """Something did not happen; with the last lines of the server's log."""
        self._line(f"\n[bold red]The demo failed:[/] {escape(message)}")
        for line in log:
            self._line(f"   [dim]{escape(line)}[/]")

    def note(self, text: str) -> None:
        """A remark."""
        self._line(f"   {escape(text)}")

    def _line(self, markup: str) -> None:
        self._console.print(markup, highlight=False, soft_wrap=True)


class Timeline:
    """Lines with the seconds since the query began."""

    def __init__(self, console: Console, progress: Progress, tick: str) -> None:
        self._console = console
        self._progress = progress
        self._tick = tick
        self._bar = progress.add_task("waiting", total=None, visible=False)
        self._stored = 0

    def event(self, seconds: float, kind: str, text: str) -> None:
        """Something happened."""
        style = _KIND_STYLES[kind]
        line = f"   [dim]+{seconds:6.2f} s[/]  [{style}]{kind:<8}[/] {text}"
        self._console.print(line, highlight=False, soft_wrap=True)

    def stored(self, seconds: float, count: int, total: int) -> None:
        """`count` of `total` documents are stored now; told when that is more than before."""
        self._progress.update(self._bar, completed=count, total=total, visible=total > 0)
        if count > self._stored:
            self.event(seconds, "stored", f"{count} of {total}")
        self._stored = count

    def received(self, seconds: float, document: Mapping[str, Any]) -> None:
        """A document was announced by a message whose signatures are right."""
        name = document.get("description") or document.get("type", {}).get("text") or document["fileName"]
        shown = name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 1]}…"
        kind = document.get("mimeType", "").rpartition("/")[2]
        size = f"{int(document['size']) / 1024:.0f} KiB"
        self.event(seconds, "webhook", f"{self._signed} {escape(shown):<{_NAME_WIDTH}} {kind:<5}{size:>8}")

    def closed(self, seconds: float, status: str) -> None:
        """The closing message came."""
        self.event(seconds, "closing", f"{self._signed} the query is {escape(status)}: nobody has to poll")

    @property
    def _signed(self) -> str:
        return f"[green]{self._tick}{self._tick}[/]"
