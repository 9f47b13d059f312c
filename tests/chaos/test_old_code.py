"""The code of the release before goes on serving on the tables of the one that takes its place."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.customer import SANDBOX, settle
from tests.support.process import COMMAND, ChartwireProcess
from tests.support.profile import IS_CLUSTER
from tests.support.receiver import Receiver
from tests.support.steps import FOLDER

from chartwire.store.migrate import newest

REPOSITORY = FOLDER.parents[4]
ADDS = f"""
import sqlalchemy as sa
from alembic import op

revision = "9000"
down_revision = "{newest()}"

def upgrade():
    op.add_column("delivery", sa.Column("colour", sa.Text()))
    op.create_table("shelf", sa.Column("id", sa.Integer(), primary_key=True))
"""
TAKES_AWAY = """
from alembic import op

revision = "9001"
down_revision = "9000"
FLOOR = "9000"

def upgrade():
    op.drop_table("shelf")
"""

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


def git(*arguments: str) -> bytes:
    """What git says of this project's history."""
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("this is no git clone, so the code from before is not here: git clone the project")
    return done.stdout


def code_before(folder: Path) -> Path:
    """The package as it was, to be put first on Python's path: the release before. Until there is one, the code as of
    the commit that changed the steps last: nobody runs anything older."""
    commit = git("log", "-1", "--format=%H", "--", FOLDER.relative_to(REPOSITORY).as_posix()).decode().strip()
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", folder], input=git("archive", commit, "src"), check=True)
    return folder / "src"


def code_with(folder: Path, **steps: str) -> Path:
    """The package as it is now, with further steps: a release to come."""
    package = shutil.copytree(REPOSITORY / "src" / "chartwire", folder / "chartwire")
    for name, source in steps.items():
        (package / "store" / "migrations" / "versions" / f"{name[1:]}_invented.py").write_text(source)
    return folder


async def run(server: ChartwireProcess, code: Path, *command: str) -> str:
    """Run some release's command on an installation."""
    env = {**server.env, "PYTHONPATH": str(code)}
    process = await asyncio.create_subprocess_exec(*command, env=env, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode().strip()


async def test_old_code_serves_on_new_tables_until_something_is_taken_away(tmp_path: Path) -> None:
    old, new = code_before(tmp_path / "old"), code_with(tmp_path / "new", _9000=ADDS)
    data = tmp_path / "data"
    async with Receiver() as receiver, ChartwireProcess(data, {**SANDBOX, "PYTHONPATH": str(old)}) as before:
        where = await run(before, old, sys.executable, "-c", "import chartwire; print(chartwire.__file__)")
        assert where.startswith(str(old))
        assert "9000" in await run(before, new, *COMMAND, "migrate")
        await settle(before, receiver, "Asked of running old code")
        await before.restart()
        await settle(before, receiver, "Asked of old code that has started")
        if IS_CLUSTER:
            async with ChartwireProcess(data, {**SANDBOX, "PYTHONPATH": str(new)}) as after:
                await settle(after, receiver, "Asked of new code beside it")
                await settle(before, receiver, "Asked of old code beside it")

        later = code_with(tmp_path / "later", _9000=ADDS, _9001=TAKES_AWAY)
        assert await run(before, later, *COMMAND, "migrate") == "applied 9001"
        await before.stop()
        with pytest.raises(AssertionError, match="a newer release of Chartwire made this database"):
            await before.start()
