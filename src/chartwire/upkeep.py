"""Commands for the upkeep of an installation: its master key, moving it, backups."""

import asyncio
import json
import math
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from chartwire.clock import iso, system_clock
from chartwire.settings import Settings
from chartwire.terminal import AsJson, Config, DataDir, clear_errors, fail, prepare_data_dir, read_settings, say

if TYPE_CHECKING:
    from chartwire.store.archive import Manifest

master_keys = typer.Typer(help="The master key, which opens everything that is sealed.", no_args_is_help=True)


@master_keys.command("new")
def master_key_new() -> None:
    """Print a fresh master key, for those who keep it elsewhere than in a file."""
    from chartwire.store.master_key import as_text, new_master_key

    print(as_text(new_master_key()))


@master_keys.command("status")
def master_key_status(config: Config = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Say which keys there are, by their ids, and what is sealed under each."""
    settings = read_settings(config, data_dir)
    with clear_errors():
        from chartwire.store.rotation import look

        state = look(settings)
    keys = [
        {
            "dataKey": row.id,
            "masterKey": row.master_key_id,
            "sealsFrom": iso(row.active_at),
            "things": state.things[row.id],
        }
        for row in state.data_keys
    ]
    if as_json:
        print(json.dumps({"source": state.source, "masterKeys": state.masters, "dataKeys": keys}, indent=2))
        return
    used = {row.master_key_id for row in state.data_keys}
    for number, master in enumerate(state.masters):
        say(f"master key {master}  {'seals' if number == 0 else 'opens' if master in used else 'is not needed'}")
    for key in keys:
        say(f"data key   {key['dataKey']}  under {key['masterKey']}, since {key['sealsFrom']}: {key['things']} things")
    if used != {state.masters[0]}:
        say("[yellow]The data keys are not all under the first master key: run `chartwire master-key rotate`.[/]")


@master_keys.command("rotate")
def master_key_rotate(
    config: Config = None,
    data_dir: DataDir = None,
    drop: Annotated[bool, typer.Option("--drop", help="Then take keys that open nothing out of the file.")] = False,
) -> None:
    """Change the master key beside running servers: seal the data keys under the first one that is given."""
    settings = read_settings(config, data_dir)
    with clear_errors():
        from chartwire.store.rotation import forget, rotate

        master, changed = rotate(settings)
        dropped = forget(settings) if drop else []
    say(
        f"data keys sealed anew under master key {master.id}: {changed}"
        if changed
        else f"nothing to do: all is under {master.id}"
    )
    say("[yellow]Keep a copy of it apart from the data, and the old one as long as backups that were made under it.[/]")
    for each in dropped:
        say(f"dropped {each.id}")


@master_keys.command("reseal")
def master_key_reseal(
    config: Config = None,
    data_dir: DataDir = None,
    new_key: Annotated[bool, typer.Option("--new-key", help="Make a new data key first.")] = False,
    notice: Annotated[
        float, typer.Option(min=5, help="Seconds in which running servers learn of a new data key.")
    ] = 30,
) -> None:
    """Move what is sealed in the database to the newest data key, beside servers. May be stopped and begun again."""
    settings = read_settings(config, data_dir)
    with clear_errors():
        from chartwire.store.rotation import add_data_key, reseal

        if new_key:
            say(f"data key {add_data_key(settings, system_clock(), timedelta(seconds=notice))} is made")
        _wait_for_newest(settings)
        with _progress() as progress:
            task = progress.add_task("resealing", total=None)
            broken = reseal(
                settings, system_clock, lambda done, total: progress.update(task, completed=done, total=total)
            )
    if broken:
        fail(f"{broken} things do not open under any data key, and are left as they are")
    say("all that is sealed in the database is under the newest data key")


def _wait_for_newest(settings: Settings) -> None:
    from chartwire.store.rotation import when_settled

    now = system_clock()
    seconds = (when_settled(settings, now) - now).total_seconds()
    if seconds > 0:
        say(f"in {math.ceil(seconds)} seconds it seals: until then servers learn of it")
        time.sleep(seconds + 0.1)


def _progress() -> Progress:
    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=False)


def export_command(
    folder: Annotated[Path, typer.Argument(help="A new folder, or one of an earlier export.")],
    config: Config = None,
    data_dir: DataDir = None,
    without_documents: Annotated[
        bool, typer.Option("--without-documents", help="Leave documents where they are: only list them.")
    ] = False,
    lost_too: Annotated[bool, typer.Option("--lost-too", help="Go on if the bytes of documents are lost.")] = False,
) -> None:
    """Write the installation into a folder, beside running servers: a backup, or for `import` elsewhere."""
    settings = read_settings(config, data_dir)
    from chartwire.moving import export_installation

    with clear_errors(), _Shown() as shown:
        work = export_installation(
            settings, folder, system_clock, shown.show, documents=not without_documents, lost_too=lost_too
        )
        manifest = asyncio.run(work)
    _say_what_moved(manifest, "exported to", folder)
    if manifest.lost_documents:
        say(f"[yellow]The bytes of {manifest.lost_documents} documents are lost, and are not in it.[/]")


def import_command(
    folder: Annotated[Path, typer.Argument(help="What `export` wrote.")],
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Make this installation, which must be empty, the one that was exported: all of it, or nothing."""
    settings = read_settings(config, data_dir)
    prepare_data_dir(settings)
    from chartwire.moving import import_installation

    with clear_errors(), _Shown() as shown:
        manifest = asyncio.run(import_installation(settings, folder, system_clock, shown.show))
    _say_what_moved(manifest, "imported from", folder)


def _say_what_moved(manifest: "Manifest", verb: str, folder: Path) -> None:
    rows = sum(extent.rows for extent in manifest.tables.values())
    where = "" if manifest.has_documents else ", which stay where they are"
    say(f"{verb} {escape(str(folder))}: {rows} rows, {manifest.documents.rows} documents{where}")


class _Shown:
    """Bars of progress."""

    def __init__(self) -> None:
        self._progress = _progress()
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, what: str, done: int, total: int) -> None:
        """See `moving.Show`."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)
