"""What `chartwire doctor` finds in installations that are sound, and in such that are not."""

import os
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from email.utils import format_datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.support.nats import running_nats
from tests.support.ports import free_port

from chartwire.clock import Clock, system_clock
from chartwire.doctor import Finding, examine
from chartwire.settings import FhirNetworkSettings, Role, SandboxNetworkSettings, Settings
from chartwire.store import endpoints, registry
from chartwire.store.blobs import open_blob_store
from chartwire.store.master_key import ensure_key_file
from chartwire.store.migrate import upgrade
from chartwire.store.opening import make_keys
from chartwire.store.profile import run_once


def installation(tmp_path: Path, **settings: Any) -> Settings:
    """An installation with an account whose webhook key is sealed, as the first start and a first customer leave it."""
    made = Settings(data_dir=tmp_path / "data", networks=[SandboxNetworkSettings(kind="sandbox")], **settings)
    made.data_dir.mkdir()
    upgrade(made.database)
    _, vault = make_keys(made, system_clock())
    open_blob_store(made.blobs, vault)

    def open_account(connection: Any) -> None:
        account = registry.create_account(connection, "Clinic", system_clock())
        endpoint = endpoints.settings_endpoint(connection, account.id)
        endpoints.add_key(connection, vault, endpoint.seq, system_clock())

    run_once(made.database, open_account)
    return made


async def find(settings: Settings, part: str, clock: Clock = system_clock) -> Finding:
    """What is found of one part."""
    return next(finding for finding in await examine(settings, clock) if finding.part == part)


def contents(folder: Path) -> list[Path]:
    """What is in a folder."""
    return list(folder.iterdir())


def shifted(by: timedelta) -> Clock:
    """A clock that is off."""
    return lambda: system_clock() + by


@asynccontextmanager
async def fhir_server(now: Callable[[], str]) -> AsyncIterator[str]:
    """A server that answers `/metadata` and says what time it believes to have."""

    async def metadata(_: web.Request) -> web.Response:
        statement = {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "rest": [{"mode": "server"}]}
        return web.json_response(statement, headers={"Date": now()}, content_type="application/fhir+json")

    app = web.Application()
    app.router.add_get("/fhir/metadata", metadata)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/fhir"
    finally:
        await runner.cleanup()


async def test_a_sound_installation_has_nothing_to_mend(tmp_path: Path) -> None:
    findings = await examine(installation(tmp_path), system_clock)
    assert [finding for finding in findings if not finding.ok or finding.remedy] == []
    parts = [finding.part for finding in findings]
    assert len(set(parts)) == len(parts)


async def test_before_the_first_start_everything_can_still_be_made(tmp_path: Path) -> None:
    findings = await examine(Settings(data_dir=tmp_path / "nothing"), system_clock)
    assert [finding for finding in findings if not finding.ok] == []
    assert not (tmp_path / "nothing").exists()


async def test_an_empty_folder_is_left_empty(tmp_path: Path) -> None:
    findings = await examine(Settings(data_dir=tmp_path), system_clock)
    assert [finding for finding in findings if not finding.ok] == []
    assert contents(tmp_path) == []


async def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    if os.geteuid() == 0:  # who may write to every folder but those of the kernel
        found = await find(Settings(data_dir=Path("/proc")), "data folder")
    else:
        settings = installation(tmp_path)
        settings.data_dir.chmod(0o500)
        found = await find(settings, "data folder")
        settings.data_dir.chmod(0o700)
    assert not found.ok
    assert "chown" in (found.remedy or "")


async def test_a_lost_master_key(tmp_path: Path) -> None:
    settings = installation(tmp_path)
    settings.master_key_path.unlink()
    found = await find(settings, "master key")
    assert not found.ok
    assert "backup" in (found.remedy or "")
    assert not settings.master_key_path.exists()


async def test_a_master_key_of_another_installation(tmp_path: Path) -> None:
    settings = installation(tmp_path)
    settings.master_key_path.unlink()
    ensure_key_file(settings.master_key_path)
    found = await find(settings, "master key")
    assert not found.ok
    assert "not the key" in found.detail


@pytest.mark.parametrize(("content", "mode"), [(None, 0o644), ("short", 0o600), ("/+", 0o600)])
async def test_a_master_key_that_is_exposed_or_malformed(tmp_path: Path, content: str | None, mode: int) -> None:
    settings = installation(tmp_path)
    if content is not None:
        settings.master_key_path.write_text(content)
    settings.master_key_path.chmod(mode)
    found = await find(settings, "master key")
    assert not found.ok
    assert found.remedy


async def test_a_damaged_database(tmp_path: Path) -> None:
    settings = installation(tmp_path)
    file = settings.data_dir / "chartwire.db"
    content = bytearray(file.read_bytes())
    content[4096 : 4096 * 8] = os.urandom(4096 * 7)
    file.write_bytes(content)
    (settings.data_dir / "chartwire.db-wal").unlink(missing_ok=True)
    found = await find(settings, "database")
    assert not found.ok
    assert "backup" in (found.remedy or "")


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    settings = installation(tmp_path)
    (settings.data_dir / "chartwire.db").write_text("this is a letter to the editor\n" * 300)
    (settings.data_dir / "chartwire.db-wal").unlink(missing_ok=True)
    assert not (await find(settings, "database")).ok
    assert (await find(settings, "migrations")).detail == "not looked at: this needs the database"


async def test_a_schema_that_is_older_than_the_program(tmp_path: Path) -> None:
    settings = installation(tmp_path)
    run_once(settings.database, lambda connection: connection.exec_driver_sql("DELETE FROM alembic_version"))
    found = await find(settings, "migrations")
    assert not found.ok
    assert "chartwire migrate" in (found.remedy or "")


async def test_a_schema_that_is_newer_than_the_program(tmp_path: Path) -> None:
    settings = installation(tmp_path)
    newer = "UPDATE alembic_version SET version_num = '9999'"
    run_once(settings.database, lambda connection: connection.exec_driver_sql(newer))
    found = await find(settings, "migrations")
    assert found.ok
    assert "of a newer release, beside which this one serves" in found.detail
    higher = "UPDATE schema_floor SET step = '9999'"
    run_once(settings.database, lambda connection: connection.exec_driver_sql(higher))
    found = await find(settings, "migrations")
    assert not found.ok
    assert "newer release" in found.detail


async def test_documents_that_cannot_be_stored(tmp_path: Path) -> None:
    settings = installation(tmp_path)
    drafts = settings.data_dir / "blobs" / "incoming"
    drafts.rmdir()
    drafts.write_text("in the way")
    found = await find(settings, "documents")
    assert not found.ok
    assert found.remedy


@pytest.mark.parametrize("by", [timedelta(minutes=10), timedelta(minutes=-10)])
async def test_a_clock_that_disagrees_with_the_disk(tmp_path: Path, by: timedelta) -> None:
    found = await find(installation(tmp_path), "clock and disk", shifted(by))
    assert not found.ok
    assert ("ahead of" in found.detail) is (by > timedelta())
    assert "time server" in (found.remedy or "")


async def test_a_network_that_answers_tells_the_time(tmp_path: Path) -> None:
    async with fhir_server(lambda: format_datetime(system_clock(), usegmt=True)) as base_url:
        network = FhirNetworkSettings(kind="fhir", name="mercy", base_url=base_url)
        settings = installation(tmp_path).model_copy(update={"networks": [network]})
        assert (await find(settings, "network mercy")).ok
        assert (await find(settings, "clock")) == Finding("clock", True, "agrees with mercy")


async def test_a_clock_that_disagrees_with_a_network(tmp_path: Path) -> None:
    early = timedelta(hours=1)
    async with fhir_server(lambda: format_datetime(system_clock() - early, usegmt=True)) as base_url:
        network = FhirNetworkSettings(kind="fhir", name="mercy", base_url=base_url)
        found = await find(installation(tmp_path).model_copy(update={"networks": [network]}), "clock")
    assert not found.ok
    assert "ahead of mercy" in found.detail


async def test_a_network_that_is_not_there(tmp_path: Path, unused_tcp_port: int) -> None:
    network = FhirNetworkSettings(kind="fhir", name="mercy", base_url=f"http://127.0.0.1:{unused_tcp_port}/fhir")
    settings = installation(tmp_path).model_copy(update={"networks": [network]})
    found = await find(settings, "network mercy")
    assert not found.ok
    assert "unreachable" in found.detail
    assert "firewall" in (found.remedy or "")
    assert (await find(settings, "clock")).ok


async def test_a_network_whose_key_file_is_missing(tmp_path: Path) -> None:
    network = FhirNetworkSettings(
        kind="fhir",
        name="mercy",
        base_url="https://fhir.mercy.example/r4",
        auth="bearer",
        bearer_token_file=tmp_path / "none",
    )
    found = await find(installation(tmp_path).model_copy(update={"networks": [network]}), "network mercy")
    assert not found.ok
    assert found.remedy


EVERY_ADDRESS = "0.0.0.0"  # noqa: S104  looked at, not bound to


@pytest.mark.parametrize(
    ("settings", "ok", "advised"),
    [
        ({}, True, False),
        ({"host": EVERY_ADDRESS}, False, True),
        ({"host": "::"}, False, True),
        ({"public_url": "http://chartwire.clinic.example"}, True, True),
        ({"public_url": "https://chartwire.clinic.example"}, True, False),
    ],
)
async def test_the_address_that_customers_are_told(
    tmp_path: Path, settings: dict[str, str], ok: bool, advised: bool
) -> None:
    found = await find(installation(tmp_path, **settings), "public URL")
    assert (found.ok, bool(found.remedy)) == (ok, advised)


async def test_opened_networks_are_listed_and_an_open_door_is_not_sound(tmp_path: Path) -> None:
    settings = installation(tmp_path, webhook_allowed_networks=[ip_network("10.0.0.0/8")])
    assert "10.0.0.0/8" in (await find(settings, "webhook egress")).detail
    wide = settings.model_copy(update={"webhook_allowed_networks": [ip_network("0.0.0.0/0")]})
    assert not (await find(wide, "webhook egress")).ok


async def test_attempts_in_flight_need_as_many_open_files(tmp_path: Path) -> None:
    settings = installation(tmp_path)
    assert (await find(settings, "open files")).ok
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = settings.model_copy(update={"webhook_concurrency": hard if hard > 0 else 1 << 20})
    finding = await find(many, "open files")
    assert not finding.ok
    assert "CHARTWIRE_WEBHOOK_CONCURRENCY" in (finding.remedy or "")


async def test_what_is_not_sound_always_says_how_to_mend_it(tmp_path: Path) -> None:
    network = FhirNetworkSettings(kind="fhir", name="mercy", base_url="http://169.254.169.254/fhir")
    settings = installation(tmp_path, host=EVERY_ADDRESS).model_copy(update={"networks": [network]})
    (settings.data_dir / "chartwire.db").write_text("not a database")
    settings.master_key_path.unlink()
    wrong = [finding for finding in await examine(settings, shifted(timedelta(hours=2))) if not finding.ok]
    assert {"database", "public URL", "network mercy", "clock and disk"} <= {finding.part for finding in wrong}
    assert all(finding.remedy for finding in wrong)


async def test_a_broker_that_answers_and_what_it_takes(tmp_path: Path) -> None:
    async with running_nats(tmp_path / "nats") as server:
        settings = installation(tmp_path, nats_url=server.url)
        finding = await find(settings, "broker")
        assert finding.ok
        assert "it takes 1048576 bytes a message" in finding.detail
        assert "max_payload" in (finding.remedy or "")


async def test_a_broker_that_is_not_there_or_keeps_no_streams(tmp_path: Path) -> None:
    settings = installation(tmp_path, nats_url=f"nats://clinic:secret@127.0.0.1:{free_port()}")
    finding = await find(settings, "broker")
    assert not finding.ok
    assert "cannot be reached" in finding.detail
    assert "secret" not in str(finding)


async def test_a_worker_is_asked_for_what_it_needs_alone(tmp_path: Path) -> None:
    key = tmp_path / "transport.key"
    async with running_nats(tmp_path / "nats", {"max_payload": 8 * 1024 * 1024}) as server:
        settings = Settings(role=Role.DELIVER, nats_url=server.url, transport_key_file=key, data_dir=tmp_path / "none")
        lacking = {finding.part: finding for finding in await examine(settings, system_clock)}
        ensure_key_file(key)
        sound = {finding.part: finding for finding in await examine(settings, system_clock)}
    assert lacking.keys() == {"webhook egress", "open files", "transport key", "broker"}
    assert [part for part, finding in lacking.items() if not finding.ok] == ["transport key"]
    assert "chartwire transport-key" in (lacking["transport key"].remedy or "")
    assert [(finding.ok, finding.remedy) for finding in sound.values()] == [(True, None)] * 4
    assert not settings.data_dir.exists()
