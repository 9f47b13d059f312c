"""The steps from an empty file, or from any earlier release, to the tables of `schema.py`."""

import logging
import re
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from chartwire.errors import ConfigurationError, StoreError
from chartwire.store import schema
from chartwire.store.migrate import current, is_on, pending, upgrade
from chartwire.store.sqlite import connect_sqlite

pytestmark = pytest.mark.embedded


STEPS = [
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
    "0006",
    "0007",
    "0008",
    "0009",
    "0010",
    "0011",
    "0012",
    "0013",
    "0014",
    "0015",
    "0016",
]
LAST = int(STEPS[-1])
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "chartwire.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


def objects_in(path: Path) -> set[tuple[str, str, str | None]]:
    """Type, name and definition of every table and index, partial ones too, whatever the layout of the text.

    A column that a later step added stands last, where the tables of the schema have it in its place. The name of a
    table that a step made anew is quoted.
    """
    with sqlite3.connect(path) as connection:
        rows = connection.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE name != 'alembic_version'"
        ).fetchall()
    connection.close()
    return {
        (kind, name, None if sql is None else _parts_in_order(re.sub(r"\s+", " ", sql)))
        for kind, name, sql in rows
        if "alembic_version" not in name
    }


def _parts_in_order(definition: str) -> str:
    head, _, body = definition.removesuffix(")").partition("(")
    parts = re.split(r", (?![^(]*\))", body) if head.startswith("CREATE TABLE") else [body]
    return "\n".join([head.replace('"', "").strip(), *sorted(part.strip() for part in parts)])


def test_an_absent_database_is_made_and_every_step_named(path: Path, url: str) -> None:
    assert (current(url), pending(url)) == (None, STEPS)
    assert not path.exists()  # looking makes nothing
    assert upgrade(url) == STEPS
    assert (current(url), pending(url)) == (STEPS[-1], [])
    assert upgrade(url) == []
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_empty_database_is_one_without_steps(path: Path, url: str) -> None:
    path.parent.mkdir()
    path.touch()
    assert (current(url), pending(url)) == (None, STEPS)
    assert upgrade(url) == STEPS


def test_the_steps_lead_to_the_tables_of_the_schema(path: Path, url: str, tmp_path: Path) -> None:
    upgrade(url)
    engine = connect_sqlite(path)
    with engine.begin() as connection:
        assert (
            compare_metadata(
                MigrationContext.configure(connection, opts={"include_object": is_on("sqlite")}), schema.metadata
            )
            == []
        )
    engine.dispose()
    created = connect_sqlite(tmp_path / "created.db")
    with created.begin() as connection:
        schema.metadata.create_all(connection)
    created.dispose()
    assert objects_in(path) == objects_in(tmp_path / "created.db")


@pytest.mark.parametrize("floor", [STEPS[-1], "9998", None])
def test_a_database_of_a_newer_release_is_left_alone_and_served_on_if_it_says_so(
    path: Path, url: str, floor: str | None
) -> None:
    upgrade(url)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute(
            "UPDATE schema_floor SET step = ?" if floor else "DELETE FROM schema_floor", [floor] * bool(floor)
        )
    connection.close()
    for call in (upgrade, pending):
        if floor == STEPS[-1]:
            assert call(url) == []
        else:
            with pytest.raises(StoreError, match="newer release"):
                call(url)
    assert current(url) == "9999"


def test_a_step_that_fails_leaves_the_database_as_it_was(path: Path, url: str) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE audit (mine TEXT)")  # in the way of the last table
    connection.close()
    before = objects_in(path)
    with pytest.raises(Exception, match="table audit already exists"):
        upgrade(url)
    assert objects_in(path) == before
    assert current(url) is None


def test_nothing_is_printed_and_logging_stays_as_it_is(
    url: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers), logging.getLogger("alembic").level)
    with caplog.at_level(logging.WARNING):
        upgrade(url)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert (root.level, list(root.handlers), logging.getLogger("alembic").level) == before
    assert not logging.getLogger("alembic").disabled


def test_another_kind_of_database_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="neither sqlite"):
        upgrade("mysql://localhost/chartwire")


UPGRADE_EACH = """
import sys
from chartwire.store.migrate import upgrade

print("ready", flush=True)
for line in sys.stdin:
    print(upgrade(line.strip()), flush=True)
"""


def test_of_processes_that_start_together_exactly_one_makes_the_steps(tmp_path: Path) -> None:
    with ExitStack() as stack:
        start = partial(subprocess.Popen, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        processes = [stack.enter_context(start([sys.executable, "-c", UPGRADE_EACH])) for _ in range(3)]
        talks = [(process.stdin, process.stdout) for process in processes if process.stdin and process.stdout]
        assert [answers.readline() for _, answers in talks] == ["ready\n"] * 3
        for attempt in range(4):
            for questions, _ in talks:
                questions.write(f"sqlite:///{tmp_path}/{attempt}/chartwire.db\n")
            assert sorted(answers.readline() for _, answers in talks) == [f"{STEPS}\n", "[]\n", "[]\n"]


def test_a_wheel_holds_all_that_a_migration_needs(url: str, tmp_path: Path) -> None:
    build = ["-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run([sys.executable, *build], cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'installed')!r})\n"
        "import chartwire.store.migrate as migrate\n"
        f"assert migrate.__file__.startswith({str(tmp_path)!r}), migrate.__file__\n"
        f"print(migrate.upgrade({url!r}))"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True)
    assert result.stdout == f"{STEPS}\n"


def test_a_drafted_step_leads_from_the_last_release_to_a_changed_schema(tmp_path: Path, url: str) -> None:
    package = shutil.copytree(REPOSITORY / "src" / "chartwire", tmp_path / "copy" / "chartwire")
    upgrade(url)
    with (package / "store" / "schema.py").open("a") as source:
        source.write('account.append_column(Column("closed_at", Moment))\n')
        source.write('account.append_column(Column("notes", Json))\n')
    script = (
        "import sys; sys.path.insert(0, '.')\n"
        "from chartwire.store.migrate import draft, upgrade\n"
        "from chartwire.store import profile, schema\n"
        f"print(draft('Accounts can be closed'))\nprint(upgrade({url!r}))\n"
        f"print(profile.run_once({url!r}, lambda it: it.execute(schema.account.select()).all()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=package.parent, check=True, stdout=subprocess.PIPE, text=True
    )
    *_, step, applied, rows = result.stdout.splitlines()
    assert Path(step) == package / "store" / "migrations" / "versions" / f"{LAST + 1:04}_accounts_can_be_closed.py"
    assert "import chartwire" not in Path(step).read_text()
    assert "from chartwire" not in Path(step).read_text()
    assert (applied, rows) == (f"['{LAST + 1:04}']", "[]")
