"""Brings a database to the tables of `schema.py`, one step after the other.

All steps that a database lacks are made in one transaction: they are all there, or none is. There is no way down.

While a release takes the place of the one before, both serve on the tables of the newer one. So steps only add; what is
taken away goes with a later release, whose step raises the floor (`schema_floor`): releases that need it are shut out.

A new step: change `schema.py`, call `draft("What it does")`, then read and trim the file that it wrote.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from sqlalchemy import Connection, func, select, text, update
from sqlalchemy.schema import SchemaItem

from chartwire.errors import StoreError
from chartwire.store.bulk import POSTGRESQL
from chartwire.store.database import lock
from chartwire.store.profile import is_made, is_shared, run_once
from chartwire.store.schema import schema_floor
from chartwire.store.sqlite import connect_sqlite, sqlite_path
from chartwire.store.vault import sync_folder

IncludeObject = Callable[[SchemaItem, str | None, str, bool, SchemaItem | None], bool]


def upgrade(url: str) -> list[str]:
    """Make the database file if there is none, and all steps that it lacks; returns their revisions, oldest first.

    Of two processes that start together, one makes the steps and the other waits. Nothing is done to a database of a
    newer release; raises `StoreError` if this one cannot serve on it.
    """
    if not is_shared(url):
        _make_file(sqlite_path(url))
    return run_once(url, _make_steps)


def current(url: str) -> str | None:
    """The revision of the last step that was made; None if the database is empty or absent."""
    return run_once(url, _revision, read_only=True) if is_made(url) else None


def newest() -> str:
    """The revision of this release's last step."""
    return str(_scripts().get_current_head())


def where(connection: Connection) -> tuple[str | None, str]:
    """The revision of the last step that was made, and that of the last one there is."""
    return _revision(connection), str(_scripts().get_current_head())


def lacking(connection: Connection) -> list[str]:
    """The revisions that `upgrade` would make, oldest first. Raises `StoreError` as it does."""
    try:
        return _after(_revision(connection))
    except ResolutionError:
        _check_floor(connection)
        return []


def pending(url: str) -> list[str]:
    """The revisions that `upgrade` would make, oldest first. Raises `StoreError` as it does."""
    return run_once(url, lacking, read_only=True) if is_made(url) else _after(None)


def draft(message: str) -> Path:
    """For developers: write the next step from what `schema.py` has and a database of the steps so far has not."""
    with TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/draft.db"
        number = int(_steps(None)[-1].revision) + 1
        upgrade(url)
        engine = connect_sqlite(sqlite_path(url))
        with engine.begin() as connection:
            command.revision(_config(connection), message, autogenerate=True, rev_id=f"{number:04}")
        engine.dispose()
    _scripts.cache_clear()
    return next((Path(__file__).parent / "migrations" / "versions").glob(f"{number:04}_*.py"))


def is_on(dialect: str) -> IncludeObject:
    """What of the schema a database has that speaks this dialect, but for ranges of tables: `include_object`."""

    def includes(item: SchemaItem, name: str | None, kind: str, reflected: bool, other: SchemaItem | None) -> bool:
        del other
        is_range = kind == "table" and reflected and (name or "")[-1:].isdigit()
        return not is_range and bool(item.info.get("dialect", dialect) == dialect)

    return includes


def _make_steps(connection: Connection) -> list[str]:
    lock(connection, "migrations")
    if connection.dialect.name == POSTGRESQL:
        # Behind a pooler the role has a timeout (docs/how-to/operate.md), and a step takes as long as it takes.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
    steps = lacking(connection)
    if steps:
        command.upgrade(_config(connection), "head")
        _raise_floor(connection, steps)
    return steps


def _raise_floor(connection: Connection, steps: list[str]) -> None:
    """A step that takes something away names the last step of the first release that does without it: `FLOOR`."""
    floors = [getattr(_scripts().get_revision(step).module, "FLOOR", "") for step in steps]
    if highest := max(floors):
        connection.execute(update(schema_floor).values(step=highest))


def _config(connection: Connection | None = None) -> Config:
    config = Config(attributes={"connection": connection, "include_object": is_on("sqlite")})
    config.set_main_option("script_location", "chartwire.store:migrations")
    return config


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _after(revision: str | None) -> list[str]:
    return [step.revision for step in _steps(revision)]


def _check_floor(connection: Connection) -> None:
    """A newer release made these tables: can the code of this one serve on them?"""
    floor = connection.execute(select(func.max(schema_floor.c.step))).scalar_one()
    if floor is None or newest() < floor:
        raise StoreError("a newer release of Chartwire made this database: run that one, or restore a backup")


def _steps(after: str | None) -> list[Any]:
    return list(_scripts().iterate_revisions("head", after or "base"))[::-1]


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _make_file(path: Path) -> None:
    """SQLite gives its other files the mode of the first one: nobody but the owner reads what is in there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        sync_folder(path.parent)
