"""What export and import refuse, and what they leave behind when they are cut short."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import delete, select
from tests.support.documents import LIMIT, a_document, add_patient, chunks
from tests.support.profile import database_url, make_tables

from chartwire.clock import system_clock
from chartwire.errors import ConfigurationError, StoreError
from chartwire.model.document import RemoteDocument
from chartwire.model.matching import Disagreement, Stated
from chartwire.model.quarantine import HeldDocument
from chartwire.moving import export_installation, import_installation
from chartwire.settings import Settings
from chartwire.store import documents, quarantine, registry, schema
from chartwire.store.archive import Archive, Manifest
from chartwire.store.blobs import open_blob_store
from chartwire.store.master_key import as_text, new_master_key
from chartwire.store.opening import make_keys
from chartwire.store.profile import run_once
from chartwire.wiring import only_server

KEY = new_master_key()
CONTENTS = [b"one", b"two " * 100_000, b"three"]


def settings_for(folder: Path, master_key: str = as_text(KEY)) -> Settings:
    """An installation with its tables."""
    folder.mkdir(parents=True, exist_ok=True)
    make_tables(folder)
    return Settings(data_dir=folder, database_url=database_url(folder), master_key=master_key)  # type: ignore[arg-type]


async def add_documents(settings: Settings, *contents: bytes) -> None:
    """A patient with documents, in an account of its own."""
    _, vault = await asyncio.to_thread(make_keys, settings, system_clock())
    blobs = open_blob_store(settings.blobs, vault)

    def unit(connection: Any) -> None:
        account = registry.create_account(connection, "Clinic", system_clock())
        add_patient(connection, account.id, f"p-{account.id}"[:40])
        for content in contents:
            documents.insert_document(connection, a_document(account.id, f"p-{account.id}"[:40], content))

    for content in contents:
        await blobs.put(chunks(content), LIMIT)
    await asyncio.to_thread(run_once, settings.database, unit)


def quiet(*_: object) -> None:
    """Nobody watches."""


async def export(settings: Settings, folder: Path, **options: bool) -> Manifest:
    return await export_installation(settings, folder, system_clock, quiet, **options)


async def import_to(settings: Settings, folder: Path) -> Manifest:
    return await import_installation(settings, folder, system_clock, quiet)


def is_empty(settings: Settings) -> bool:
    """Whether nobody has an account."""
    return not run_once(settings.database, registry.list_accounts)


@pytest_asyncio.fixture
async def source(tmp_path: Path) -> AsyncIterator[Settings]:
    settings = settings_for(tmp_path / "source")
    await add_documents(settings, *CONTENTS)
    yield settings


async def test_what_is_imported_is_what_was_exported(source: Settings, tmp_path: Path) -> None:
    made = await export(source, tmp_path / "archive")
    assert (made.documents.rows, made.tables["document"].rows, made.has_documents) == (3, 3, True)
    target = settings_for(tmp_path / "target")
    await import_to(target, tmp_path / "archive")
    arrived = await export(target, tmp_path / "control")
    assert (arrived.tables, arrived.documents) == (made.tables, made.documents)
    await add_documents(target, b"four")  # numbers go on where they were
    assert (await export(target, tmp_path / "control")).documents.rows == 4


async def test_the_bytes_of_what_is_held_for_review_come_along(source: Settings, tmp_path: Path) -> None:
    _, vault = await asyncio.to_thread(make_keys, source, system_clock())
    blob = await open_blob_store(source.blobs, vault).put(chunks(b"about somebody else"), LIMIT)

    def hold(connection: Any) -> None:
        account = registry.create_account(connection, "Clinic", system_clock())
        add_patient(connection, account.id, "p-held")
        aside = HeldDocument(
            id="h",
            account_id=account.id,
            patient_id="p-held",
            query_id="q",
            network="mercy",
            remote=RemoteDocument("r"),
            reasons=(Disagreement.BIRTH_DATE,),
            stated=Stated(),
            declared_type=None,
            mime_type="application/xml",
            size=blob.size,
            sha1=blob.sha1,
            sha256=blob.sha256,
            held_at=system_clock(),
        )
        quarantine.hold(connection, aside)

    await asyncio.to_thread(run_once, source.database, hold)
    assert (await export(source, tmp_path / "archive")).documents.rows == 4
    target = settings_for(tmp_path / "target")
    await import_to(target, tmp_path / "archive")
    arrived = open_blob_store(target.blobs, vault).read(blob.sha256)
    assert b"".join([piece async for piece in arrived]) == b"about somebody else"


async def test_a_later_export_copies_what_is_new_and_forgets_what_was_deleted(source: Settings, tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    await export(source, archive.folder)
    kept = {path: path.stat().st_ino for path in archive.folder.glob("blobs/*/*/*")}
    gone = a_document("", content=CONTENTS[0]).sha256
    run_once(source.database, lambda it: it.execute(delete(schema.document).where(schema.document.c.sha256 == gone)))
    await add_documents(source, b"new")
    await export(source, archive.folder)
    now = {path: path.stat().st_ino for path in archive.folder.glob("blobs/*/*/*")}
    assert archive.blob(gone) in kept
    assert archive.blob(gone) not in now
    assert {path: number for path, number in now.items() if path in kept}.items() <= kept.items()
    assert len(now) == 3
    assert len(list(archive.folder.glob("state-*"))) == 1


@pytest.mark.embedded
async def test_an_export_that_was_cut_short_is_none_and_the_one_before_stays(source: Settings, tmp_path: Path) -> None:
    def cut(what: str, *_: object) -> None:
        if what == "documents":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await export_installation(source, tmp_path / "archive", system_clock, cut)
    target = settings_for(tmp_path / "target")
    with pytest.raises(StoreError, match="no export that was finished"):
        await import_to(target, tmp_path / "archive")
    before = await export(source, tmp_path / "archive")
    with pytest.raises(KeyboardInterrupt):
        await export_installation(source, tmp_path / "archive", system_clock, cut)
    assert Archive(tmp_path / "archive").read_manifest() == before
    await import_to(target, tmp_path / "archive")


async def test_an_import_that_was_cut_short_leaves_nothing_and_goes_on(source: Settings, tmp_path: Path) -> None:
    await export(source, tmp_path / "archive")
    target = settings_for(tmp_path / "target")

    def cut(what: str, *_: object) -> None:
        if what == "rows":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await import_installation(target, tmp_path / "archive", system_clock, cut)
    assert is_empty(target)
    files = {path: path.stat().st_ino for path in target.data_dir.glob("blobs/*/*/*")}
    assert len(files) == 3
    await import_to(target, tmp_path / "archive")
    assert {path: path.stat().st_ino for path in target.data_dir.glob("blobs/*/*/*")} == files
    assert not is_empty(target)


async def test_a_target_that_is_not_empty_is_refused_and_left_alone(source: Settings, tmp_path: Path) -> None:
    await export(source, tmp_path / "archive")
    target = settings_for(tmp_path / "target")
    await add_documents(target, b"mine")
    before = await export(target, tmp_path / "before")
    with pytest.raises(StoreError, match="not empty"):
        await import_to(target, tmp_path / "archive")
    assert (await export(target, tmp_path / "after")).tables == before.tables


@pytest.mark.embedded
@pytest.mark.parametrize("spoilt", ["table", "row", "document", "document away", "list", "manifest", "state"])
async def test_what_is_not_what_was_exported_is_refused(source: Settings, tmp_path: Path, spoilt: str) -> None:
    made = await export(source, tmp_path / "archive")
    archive = Archive(tmp_path / "archive")
    state = archive.folder / made.state
    blob = next(archive.folder.glob("blobs/*/*/*"))
    manifest = archive.folder / "manifest.json"
    match spoilt:
        case "table":
            (state / "tables" / "patient.jsonl").unlink()
        case "row":
            path = state / "tables" / "patient.jsonl"
            path.write_bytes(path.read_bytes() * 2)
        case "document":
            content = blob.read_bytes()
            blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "document away":
            blob.unlink()
        case "list":
            path = state / "documents.jsonl"
            path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
        case "manifest":
            manifest.write_text("{")
        case "state":
            manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "state": "state-/../../elsewhere"}))
    target = settings_for(tmp_path / "target")
    with pytest.raises(StoreError, match=r"lacks|not what was exported|altered"):
        await import_to(target, archive.folder)
    assert is_empty(target)


@pytest.mark.embedded
async def test_the_target_needs_the_same_master_key(source: Settings, tmp_path: Path) -> None:
    await export(source, tmp_path / "archive")
    target = settings_for(tmp_path / "target", as_text(new_master_key()))
    with pytest.raises(ConfigurationError, match="needs the master key of what was exported"):
        await import_to(target, tmp_path / "archive")
    assert is_empty(target)


@pytest.mark.embedded
async def test_an_export_of_another_step_is_refused(source: Settings, tmp_path: Path) -> None:
    await export(source, tmp_path / "archive")
    manifest = tmp_path / "archive" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "schema": "9999"}))
    with pytest.raises(StoreError, match="9999"):
        await import_to(settings_for(tmp_path / "target"), tmp_path / "archive")


@pytest.mark.embedded
async def test_a_folder_that_holds_something_else_is_left_alone(source: Settings, tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="something else"):
        await export(source, tmp_path / "archive")
    assert [path.name for path in (tmp_path / "archive").iterdir()] == ["thesis.txt"]


@pytest.mark.embedded
async def test_documents_may_travel_by_other_means_and_are_looked_for(source: Settings, tmp_path: Path) -> None:
    made = await export(source, tmp_path / "archive", documents=False)
    assert (made.has_documents, made.documents.rows) == (False, 3)
    target = settings_for(tmp_path / "target")
    with pytest.raises(StoreError, match="copy the documents first"):
        await import_to(target, tmp_path / "archive")
    target = target.model_copy(update={"blob_url": source.blobs})
    await import_to(target, tmp_path / "archive")
    assert not is_empty(target)


@pytest.mark.embedded
async def test_lost_bytes_are_told_and_left_out_only_if_that_is_said(source: Settings, tmp_path: Path) -> None:
    blob = next(source.data_dir.glob("blobs/*/*/*"))
    blob.write_bytes(blob.read_bytes()[:50])
    with pytest.raises(StoreError, match="of 1 documents are lost"):
        await export(source, tmp_path / "archive")
    made = await export(source, tmp_path / "archive", lost_too=True)
    assert (made.lost_documents, made.documents.rows, made.tables["document"].rows) == (1, 2, 3)
    await import_to(settings_for(tmp_path / "target"), tmp_path / "archive")


@pytest.mark.embedded
async def test_nothing_is_imported_under_a_running_server(source: Settings, tmp_path: Path) -> None:
    await export(source, tmp_path / "archive")
    target = settings_for(tmp_path / "target")
    with only_server(target), pytest.raises(ConfigurationError, match="another chartwire serve"):
        await import_to(target, tmp_path / "archive")


@pytest.mark.embedded
async def test_a_document_that_was_deleted_since_the_snapshot_is_left_out(source: Settings, tmp_path: Path) -> None:
    gone = a_document("", content=CONTENTS[1]).sha256

    def delete_one(what: str, *_: object) -> None:
        if what == "rows":
            query = delete(schema.document).where(schema.document.c.sha256 == gone)
            run_once(source.database, lambda it: it.execute(query))
            next(source.data_dir.glob(f"blobs/*/*/{gone}")).unlink(missing_ok=True)

    made = await export_installation(source, tmp_path / "archive", system_clock, delete_one)
    assert (made.lost_documents, made.documents.rows, made.tables["document"].rows) == (0, 2, 3)
    assert run_once(source.database, lambda it: len(it.execute(select(schema.document.c.id)).all())) == 2
