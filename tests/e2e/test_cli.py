"""The command line, as its users run it: real processes, a real server."""

import asyncio
import json
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from sqlalchemy import Connection, select
from tests.support.nats import running_nats
from tests.support.process import COMMAND, ChartwireProcess, environment, run_command
from tests.support.profile import database_url, make_tables
from tests.support.receiver import Answer, Receiver
from tests.support.workers import a_relay, until_heard

from chartwire import __version__
from chartwire.clock import system_clock
from chartwire.settings import Settings
from chartwire.store.opening import make_keys
from chartwire.store.profile import run_once
from chartwire.store.schema import audit
from chartwire.store.vault import Purpose

shared = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChartwireProcess]:
    """One server for all tests that leave it running."""
    async with ChartwireProcess(tmp_path_factory.mktemp("shared") / "data") as server:
        yield server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ChartwireProcess]:
    """A server of the test's own, to stop or to spoil."""
    async with ChartwireProcess(tmp_path / "data") as started:
        yield started


async def status_with(server: ChartwireProcess, api_key: str) -> int:
    """How the API answers to a key."""
    async with (
        aiohttp.ClientSession(base_url=server.base_url, headers={"x-api-key": api_key}) as session,
        session.get("/settings") as answer,
    ):
        return answer.status


def audited(server: ChartwireProcess, account_id: str) -> list[tuple[str, str, str]]:
    """Actor, action and subject of an account's audit trail."""
    query = select(audit.c.actor, audit.c.action, audit.c.subject).where(audit.c.account_id == account_id)

    def unit(connection: Connection) -> list[tuple[str, str, str]]:
        return [(row[0], row[1], row[2]) for row in connection.execute(query.order_by(audit.c.seq))]

    return run_once(database_url(server.data_dir), unit)


def the_complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The one line in which a command says that it cannot be carried out."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("chartwire: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"CHARTWIRE_PORT": "many"}, "port"),
        ({"CHARTWIRE_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8,nonsense"}, "webhook_allowed_networks"),
        ({"CHARTWIRE_NETWORKS": '[{"kind": "fax", "name": "a"}]'}, "networks"),
        ({"CHARTWIRE_NETWORKS": '[{"kind": '}, "CHARTWIRE_NETWORKS"),
        ({"CHARTWIRE_WEBHOOK_ALOWED_NETWORKS": "127.0.0.0/8"}, "CHARTWIRE_WEBHOOK_ALOWED_NETWORKS"),
        ({"CHARTWIRE_CONFIG": "/nowhere/chartwire.toml"}, "/nowhere/chartwire.toml"),
        ({"CHARTWIRE_DATABASE_URL": "mysql://localhost/chartwire"}, "database_url"),
        ({"CHARTWIRE_BLOB_URL": "ftp://localhost/blobs"}, "blob_url"),
        ({"CHARTWIRE_NATS_URL": "nats://clinic:secret@broker:port"}, "nats_url: cannot be read as a URL"),
        (
            {"CHARTWIRE_NATS_URL": "nats://broker", "CHARTWIRE_NATS_CREDENTIALS_FILE": "/nowhere/chartwire.creds"},
            "nats_credentials_file: /nowhere/chartwire.creds cannot be read",
        ),
    ],
)
def test_a_wrong_setting_stops_the_start_with_one_line(tmp_path: Path, settings: dict[str, str], named: str) -> None:
    given = {"CHARTWIRE_DATA_DIR": str(tmp_path / "data"), "CHARTWIRE_PORT": "0", **settings}
    assert named in the_complaint(run_command("serve", **given))


def test_a_wrong_configuration_file_stops_the_start_with_one_line(tmp_path: Path) -> None:
    config = tmp_path / "chartwire.toml"
    config.write_text('[[networks]]\nname = "mercy"\nkind = "fhir"\n')
    complaint = the_complaint(run_command("serve", "--config", str(config), "--data-dir", str(tmp_path / "data")))
    assert "base_url" in complaint
    config.write_text(
        '[[networks]]\nname = "mercy"\nkind = "fhir"\nbase_url = "https://fhir.mercy.example/r4"\n'
        f'auth = "bearer"\nbearer_token_file = "{tmp_path}/absent"\n'
    )
    serve = ("serve", "--port", "0", "--config", str(config), "--data-dir", str(tmp_path / "data"))
    assert f"network mercy: bearer_token_file: {tmp_path}/absent cannot be read" in the_complaint(run_command(*serve))
    config.write_text("networks = [")
    assert str(config) in the_complaint(run_command("serve", "--config", str(config)))


def test_a_data_folder_that_cannot_be_made_stops_the_start_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for command in (["serve", "--port", "0"], ["account", "create", "--name", "A"], ["migrate"]):
        complaint = the_complaint(run_command(*command, "--data-dir", str(tmp_path / "file" / "data")))
        assert "data_dir" in complaint


def test_a_file_that_is_no_database_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "chartwire.db").write_text("this is a letter to the editor\n" * 300)
    for command in (["serve", "--port", "0"], ["account", "list"], ["migrate"]):
        assert "database" in the_complaint(run_command(*command, "--data-dir", str(tmp_path)))


def test_a_taken_port_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        complaint = the_complaint(run_command("serve", "--port", str(port), "--data-dir", str(tmp_path / "data")))
    assert f"127.0.0.1:{port}" in complaint
    assert "give --port another" in complaint


def test_an_address_of_another_machine_is_told_in_one_line(tmp_path: Path) -> None:
    complaint = the_complaint(run_command("serve", "--host", "203.0.113.9", "--data-dir", str(tmp_path / "data")))
    assert "give --host an address of this machine" in complaint


def test_help_says_what_holds_if_nothing_is_said() -> None:
    told = " ".join(run_command("serve", "--help", COLUMNS="200").stdout.split())
    for default in ("./data if not said", "127.0.0.1 if not said", "8080 if not said"):
        assert default in told


def test_an_account_without_a_name_is_refused(tmp_path: Path) -> None:
    for name in ("", "  "):
        complaint = the_complaint(run_command("account", "create", "--name", name, "--data-dir", str(tmp_path)))
        assert "--name" in complaint
    assert run_command("account", "list", "--data-dir", str(tmp_path), "--json").stdout == "[]\n"


@pytest.mark.embedded  # on PostgreSQL there may be any number
@shared
async def test_a_second_server_on_the_same_folder_is_refused(running: ChartwireProcess) -> None:
    complaint = the_complaint(run_command("serve", "--port", "0", "--data-dir", str(running.data_dir)))
    assert "another chartwire serve runs on this folder" in complaint


@shared
async def test_an_account_made_beside_a_running_server_works_at_once(running: ChartwireProcess) -> None:
    account_id, api_key = await running.create_account("Beside")
    assert await status_with(running, api_key) == 200
    listed = json.loads(await running.run("account", "list", "--json"))
    assert (account_id, "Beside") in [(account["accountId"], account["name"]) for account in listed]
    assert account_id in await running.run("account", "list")


@shared
async def test_keys_are_made_listed_and_revoked_beside_a_running_server(running: ChartwireProcess) -> None:
    account_id, first = await running.create_account("Keys")
    made = json.loads(await running.run("key", "create", "--account", account_id, "--label", "second", "--json"))
    assert await status_with(running, made["apiKey"]) == 200
    await running.run("key", "revoke", made["keyId"])
    assert await status_with(running, made["apiKey"]) == 403
    assert await status_with(running, first) == 200
    listed = json.loads(await running.run("key", "list", "--account", account_id, "--json"))
    assert [(key["label"], key["revokedAt"] is None) for key in listed] == [("first", True), ("second", False)]
    assert first not in json.dumps(listed)
    assert [(actor, action) for actor, action, key_id in audited(running, account_id) if key_id == made["keyId"]] == [
        ("operator", "key.create"),
        ("operator", "key.revoke"),
    ]


@shared
async def test_what_is_not_there_cannot_be_used(running: ChartwireProcess) -> None:
    data_dir = {"CHARTWIRE_DATA_DIR": str(running.data_dir)}
    the_complaint(run_command("key", "create", "--account", "nobody", **data_dir))
    the_complaint(run_command("key", "revoke", "nothing", **data_dir))


async def test_a_server_without_an_account_says_how_to_make_one(server: ChartwireProcess) -> None:
    log = await server.logged("there is no account yet")
    hint = next(record["hint"] for record in map(json.loads, log.splitlines()) if "hint" in record)
    program, *arguments = shlex.split(hint)
    assert program.endswith("chartwire")
    assert "API key" in run_command(*arguments, **server.env).stdout
    await server.restart()
    await server.stop()
    assert server.log().count("there is no account yet") == 1


async def test_sigterm_stops_the_server_cleanly(server: ChartwireProcess) -> None:
    assert await server.stop() == 0
    events = [json.loads(line)["event"] for line in server.log().splitlines()]
    assert events[-2:] == ["stopping", "stopped"]
    assert "library error" not in events


async def test_a_killed_server_comes_back_with_what_it_knew(server: ChartwireProcess) -> None:
    _, api_key = await server.create_account("Survivor")
    await server.kill()
    await server.restart()
    assert await status_with(server, api_key) == 200


@shared
async def test_the_address_that_is_served_is_the_one_that_was_asked_for(running: ChartwireProcess) -> None:
    log = await running.logged('"serving"')
    serving = next(json.loads(line) for line in log.splitlines() if '"serving"' in line)
    assert (serving["host"], serving["port"], serving["version"]) == ("127.0.0.1", running.port, __version__)


@shared
async def test_doctor_finds_a_running_installation_sound(running: ChartwireProcess) -> None:
    await running.create_account("Healthy")
    findings = json.loads(await running.run("doctor", "--json"))
    parts = {finding["part"] for finding in findings}
    assert {"database", "migrations", "master key", "documents", "data folder", "network sandbox"} <= parts
    assert [finding for finding in findings if not finding["ok"]] == []


async def test_doctor_says_how_to_mend_an_exposed_master_key(server: ChartwireProcess) -> None:
    (server.data_dir / "master.key").chmod(0o644)
    done = run_command("doctor", CHARTWIRE_DATA_DIR=str(server.data_dir))
    assert done.returncode == 1
    assert "fail  master key" in done.stdout
    assert f"chmod 600 {server.data_dir / 'master.key'}" in done.stdout


def test_migrate_makes_the_tables_and_then_has_nothing_to_do(tmp_path: Path) -> None:
    first = run_command("migrate", CHARTWIRE_DATA_DIR=str(tmp_path / "data"))
    assert first.stdout.startswith("applied 0001")
    second = run_command("migrate", CHARTWIRE_DATA_DIR=str(tmp_path / "data"))
    assert second.stdout == "nothing to do: the schema is current\n"


def test_an_empty_installation_says_how_to_make_an_account(tmp_path: Path) -> None:
    assert "chartwire account create" in run_command("account", "list", "--data-dir", str(tmp_path)).stdout
    assert run_command("account", "list", "--data-dir", str(tmp_path), "--json").stdout == "[]\n"


def test_a_start_loads_no_library_that_may_never_be_needed() -> None:
    program = "import sys, chartwire.cli, chartwire.server; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment({}), capture_output=True, text=True, check=True
    )
    assert "chartwire.wiring" in done.stdout.split()
    # PDFs and images are made by the sandbox and by a process of their own; PostgreSQL and NATS are of the cluster.
    assert not {"reportlab", "PIL", "asyncpg", "sqlalchemy.ext.asyncio", "nats"} & set(done.stdout.split())


def test_the_installed_program_knows_its_version() -> None:
    program = Path(sys.executable).with_name("chartwire")
    done = subprocess.run([program, "version"], env=environment({}), capture_output=True, text=True, check=True)
    assert done.stdout == f"{__version__}\n"


# --- for developers ---------------------------------------------------------------------------------------------------


async def line_of(stream: asyncio.StreamReader, part: str) -> str:
    """The next line that holds `part`."""
    async with asyncio.timeout(60):
        while part not in (line := (await stream.readline()).decode()):
            assert line, "the command ended"
    return line


async def test_listen_forwards_what_trigger_sends_to_an_app_on_this_machine(server: ChartwireProcess) -> None:
    _, api_key = await server.create_account("Clinic")
    server.env |= {"CHARTWIRE_API_KEY": api_key, "CHARTWIRE_URL": server.base_url}
    async with Receiver() as app:
        listening = await asyncio.create_subprocess_exec(
            *COMMAND,
            *("listen", "--forward-to", app.url),
            env=server.env,
            stdout=asyncio.subprocess.PIPE,
        )
        assert listening.stdout is not None
        try:
            app.webhook_key = (await line_of(listening.stdout, "forwarding")).split()[-1]
            links_id = (await server.run("trigger", "medical.document-bulk-download-urls")).strip()
            message_id = (await server.run("trigger", "medical.document-download")).strip()
            ping_id = (await server.run("trigger", "ping")).strip()
            disabled_id = (await server.run("trigger", "webhook.endpoint-disabled")).strip()
            for told in (links_id, message_id, ping_id, disabled_id):
                assert "200 in" in await line_of(listening.stdout, told)
            app.answers.append(Answer(500))
            refused = (await server.run("trigger", "medical.document-download")).strip()
            assert "500 in" in await line_of(listening.stdout, refused)
        finally:
            listening.send_signal(signal.SIGINT)
            assert await listening.wait() == 0
    assert [message.message_id for message in app.requests] == [links_id, message_id, ping_id, disabled_id, refused]
    assert app.refused == 0
    assert app.messages[0].headers["x-webhook-key"] == app.webhook_key


async def test_replay_counts_and_sends_again(server: ChartwireProcess) -> None:
    _, api_key = await server.create_account("Clinic")
    server.env |= {"CHARTWIRE_API_KEY": api_key, "CHARTWIRE_URL": server.base_url}
    await server.run("trigger", "medical.document-download")
    assert (await server.run("replay", "--preview")).strip() == "0"  # it has nowhere to go
    async with (
        aiohttp.ClientSession(base_url=server.base_url, headers={"x-api-key": api_key}) as session,
        session.post("/settings", json={"webhookUrl": "https://receiver.invalid/"}) as saved,
    ):
        assert saved.status == 200
    assert (await server.run("replay", "--preview", "--states", "failed")).strip() == "1"
    assert (await server.run("replay", "--to", "2020-01-01T00:00:00Z")).splitlines()[-2:] == ["0 of 0", "completed"]
    assert (await server.run("replay")).splitlines()[-2:] == ["1 of 1", "completed"]


async def test_a_command_that_cannot_reach_the_server_says_so(tmp_path: Path) -> None:
    complaint = the_complaint(run_command("trigger", "ping", "--api-key", "x", "--url", "http://127.0.0.1:9"))
    assert "cannot be reached" in complaint


async def test_what_the_server_refuses_is_said_in_one_line_of_words(server: ChartwireProcess) -> None:
    _, api_key = await server.create_account("Clinic")
    options = ("--url", server.base_url, "--api-key")
    assert "give another --api-key" in the_complaint(run_command("trigger", "ping", *options, "guessed"))
    complaint = the_complaint(run_command("trigger", "tea", *options, api_key))
    assert "Input should be 'ping', 'medical.document-download'" in complaint
    assert "{" not in complaint


@pytest.mark.embedded  # a worker has no database
async def test_the_transport_key_is_all_that_a_worker_needs(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    make_tables(inside)
    _, vault = make_keys(Settings(data_dir=inside), system_clock())
    printed = await asyncio.to_thread(run_command, "transport-key", CHARTWIRE_DATA_DIR=str(inside))
    key = tmp_path / "transport.key"
    key.touch(mode=0o600)
    key.write_text(printed.stdout)
    async with running_nats(tmp_path / "nats") as broker:
        worker = {
            "CHARTWIRE_ROLE": "deliver",
            "CHARTWIRE_NATS_URL": broker.url,
            "CHARTWIRE_TRANSPORT_KEY_FILE": str(key),
        }
        async with ChartwireProcess(tmp_path / "data", worker) as process:
            async with a_relay(broker.url, vault.eldest_key(Purpose.TRANSPORT), None) as relay:
                await until_heard(relay)
            assert await process.stop() == 0
            assert process.log().count("error") == 0
        assert not process.data_dir.exists()
