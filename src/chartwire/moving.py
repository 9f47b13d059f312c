"""Moves an installation into a folder, beside its server or without, and from there into a new one of either profile.

Everything travels: rows as they are, sealed bytes sealed, data keys sealed under the master key. So the new one needs
the same master key, and links, API keys and webhook keys go on working. What was moved is compared by count and digest
of every table, and digest of every document's bytes, before anything is committed.
"""

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, select

from chartwire import __version__
from chartwire.clock import Clock, iso
from chartwire.errors import ConfigurationError, ContentLostError, SealBrokenError, StoreError
from chartwire.settings import Settings
from chartwire.store import data_keys, rows
from chartwire.store.archive import Archive, Manifest, SealedBlob, State, hash_file, line_of
from chartwire.store.blobs import BlobStore, open_blob_store
from chartwire.store.data_keys import Keyring, SealedKey
from chartwire.store.database import lock
from chartwire.store.documents import kept_digests, referenced_digests
from chartwire.store.inspection import inspect
from chartwire.store.master_key import load_master_keys
from chartwire.store.migrate import current, newest, upgrade
from chartwire.store.opening import open_vault
from chartwire.store.profile import is_shared, run_once
from chartwire.store.rows import Extent, Tally
from chartwire.store.schema import data_key
from chartwire.store.sealed_file import FileSource, SealedReader
from chartwire.store.vault import Vault
from chartwire.wiring import only_server

T = TypeVar("T")

Show = Callable[[str, int, int], None]
"""Told what is being moved, how much of it is, of how much."""

_AT_ONE_TIME = 8
_SHOW_EVERY = 1000


async def export_installation(
    settings: Settings, folder: Path, clock: Clock, show: Show, *, documents: bool = True, lost_too: bool = False
) -> Manifest:
    """Write an installation into a folder: a snapshot of its tables, then the bytes of the documents that it names.

    Bytes are stored before the row that names them, so they are there when the snapshot is made; those of documents
    that were deleted since are left out. `lost_too`: go on without bytes that are lost, instead of raising.
    Raises `StoreError`, and leaves an earlier export in the folder as it was.
    """
    vault = open_vault(settings, clock)
    if (revision := current(settings.database)) != newest():
        raise StoreError(f"the database is at step {revision}, this release at {newest()}: run `chartwire migrate`")
    archive = Archive(folder)
    state = archive.begin()
    extents = await asyncio.to_thread(inspect, settings.database, lambda it: _write_tables(it, state, show))
    blobs = open_blob_store(settings.blobs, vault, settings.spool)
    try:
        listing = _Listing(settings, archive, state, blobs, vault)
        await listing.write(show, documents=documents)
    finally:
        await blobs.close()
    if listing.lost and not lost_too:
        raise StoreError(f"the bytes of {listing.lost} documents are lost or altered; --lost-too exports the rest")
    manifest = Manifest(
        release=__version__,
        schema=newest(),
        made_at=iso(clock()),
        state=state.folder.name,
        tables=extents,
        documents=listing.tally.extent,
        document_bytes=listing.bytes,
        lost_documents=listing.lost,
        has_documents=documents,
    )
    await asyncio.to_thread(archive.finish, manifest)
    return manifest


async def import_installation(settings: Settings, folder: Path, clock: Clock, show: Show) -> Manifest:
    """Make a new installation of what was exported: all of it, or none. Documents that are there already are kept, so
    that a call that was cut short goes on.

    Raises `StoreError` if there is anything in the target, or the export is not what its manifest says.
    """
    archive = Archive(folder)
    manifest = archive.read_manifest()
    if manifest.schema != newest():
        raise StoreError(
            f"the export is of release {manifest.release}, at step {manifest.schema}; this one is at {newest()}:"
            " import it with a release of the same step, then upgrade"
        )
    state = State(archive.folder / manifest.state)
    with ExitStack() as stack:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        if not is_shared(settings.database):
            stack.enter_context(only_server(settings))
        await asyncio.to_thread(_check_files, state, manifest)
        await asyncio.to_thread(upgrade, settings.database)
        await asyncio.to_thread(inspect, settings.database, rows.check_empty)
        vault = _vault_of(settings, state, clock)
        await _take_documents(settings, archive, state, manifest, vault, show)
        await asyncio.to_thread(run_once, settings.database, lambda it: _fill(it, state, manifest, show))
    return manifest


def _write_tables(connection: Connection, state: State, show: Show) -> dict[str, Extent]:
    rows.take_time(connection)
    done, total = 0, rows.count_rows(connection)
    extents = {}
    for table in rows.tables():
        tally = Tally()
        with state.table(table.name).open("xb") as file:
            for line in tally.pass_on(rows.read_lines(connection, table)):
                file.write(line)
                if (done := done + 1) % _SHOW_EVERY == 0:
                    show("rows", done, total)
        extents[table.name] = tally.extent
    kept = kept_digests().subquery()
    query = select(kept.c.sha256).order_by(rows.by_bytes(connection, kept.c.sha256))
    with state.wanted.open("x") as names:
        for (sha256,) in connection.execute(query.execution_options(stream_results=True, yield_per=_SHOW_EVERY)):
            names.write(f"{sha256}\n")
    show("rows", total, total)
    return extents


class _Listing:
    """Lists the documents of an export, and copies those that the archive lacks."""

    def __init__(self, settings: Settings, archive: Archive, state: State, blobs: BlobStore, vault: Vault) -> None:
        self.tally = Tally()
        self.bytes = 0
        self.lost = 0
        self._settings = settings
        self._archive = archive
        self._state = state
        self._blobs = blobs
        self._vault = vault
        last = archive.last_state()
        self._earlier = _Ascending(last.documents() if last else iter(()))

    async def write(self, show: Show, *, documents: bool) -> None:
        """Do all, a few at a time."""
        with self._state.wanted.open() as names, self._state.document_list.open("xb") as out:
            total = sum(1 for _ in names)
            names.seek(0)
            done = 0
            for batch in _batches((name.strip() for name in names), _AT_ONE_TIME):
                found = await self._copy_all(batch) if documents else [SealedBlob(each, 0, "") for each in batch]
                for blob in found:
                    self._note(blob, out.write)
                show("documents", done := done + len(batch), total)
        self._state.wanted.unlink()

    async def _copy_all(self, batch: Sequence[str]) -> list[SealedBlob | None]:
        known = [self._earlier.find(sha256) for sha256 in batch]
        return await asyncio.gather(*(self._copied(*each) for each in zip(batch, known, strict=True)))

    def _note(self, blob: SealedBlob | None, write: Callable[[bytes], object]) -> None:
        if blob is not None:
            for line in self.tally.pass_on([line_of(blob)]):
                write(line)
            self.bytes += blob.size

    async def _copied(self, sha256: str, known: SealedBlob | None) -> SealedBlob | None:
        path = self._archive.blob(sha256)
        try:
            if not path.exists():
                return await self._copy(sha256, path)
            if known is not None and path.stat().st_size == known.size:
                return known
            return SealedBlob(sha256, *await asyncio.to_thread(hash_file, path))
        except (ContentLostError, SealBrokenError):
            if await asyncio.to_thread(inspect, self._settings.database, lambda it: _is_named(it, sha256)):
                self.lost += 1
            return None

    async def _copy(self, sha256: str, path: Path) -> SealedBlob:
        """Whatever name it has in the archive, a file there is whole."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft, digest, size = path.with_name(f"{path.name}.new"), hashlib.sha256(), 0
        with draft.open("wb") as file:
            async for piece in self._blobs.read_sealed(sha256):
                digest.update(piece)
                size += file.write(piece)
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        with draft.open("rb") as file:
            SealedReader.open(FileSource(file.fileno()), self._vault, sha256)
        draft.replace(path)
        return SealedBlob(sha256, size, digest.hexdigest())


class _Ascending:
    """Finds things in a list in order, for those who ask in the same order."""

    def __init__(self, blobs: Iterator[SealedBlob]) -> None:
        self._blobs = blobs
        self._next = next(blobs, None)

    def find(self, sha256: str) -> SealedBlob | None:
        """The one of this name, if there is one."""
        while self._next is not None and self._next.sha256 < sha256:
            self._next = next(self._blobs, None)
        return self._next if self._next is not None and self._next.sha256 == sha256 else None


def _check_files(state: State, manifest: Manifest) -> None:
    """What travelled is what was exported."""
    if manifest.tables.keys() != {table.name for table in rows.tables()}:
        raise StoreError("the export has other tables than this release")
    files = [(state.table(name), extent) for name, extent in manifest.tables.items()]
    for path, extent in [*files, (state.document_list, manifest.documents)]:
        tally = Tally()
        try:
            with path.open("rb") as lines:
                for _ in tally.pass_on(lines):
                    pass
        except FileNotFoundError:
            raise StoreError(f"the export lacks {path.name}") from None
        if tally.extent != extent:
            raise StoreError(f"{path.name} is not what was exported: its count or digest differs")


def _vault_of(settings: Settings, state: State, clock: Clock) -> Vault:
    with state.table(data_key.name).open("rb") as lines:
        kept = [SealedKey(**row) for row in rows.parse_lines(data_key, lines)]
    try:
        return Vault.of(Keyring(load_master_keys(settings)).keys(data_keys.in_order(kept), clock()))
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}; the target needs the master key of what was exported") from None


async def _take_documents(
    settings: Settings, archive: Archive, state: State, manifest: Manifest, vault: Vault, show: Show
) -> None:
    blobs = open_blob_store(settings.blobs, vault, settings.spool)
    done = 0
    try:
        for batch in _batches(state.documents(), _AT_ONE_TIME):
            await asyncio.gather(*(_take(blobs, archive, manifest, blob) for blob in batch))
            show("documents", done := done + len(batch), manifest.documents.rows)
    finally:
        await blobs.close()


async def _take(blobs: BlobStore, archive: Archive, manifest: Manifest, blob: SealedBlob) -> None:
    if manifest.has_documents and not await _opens(blobs, blob.sha256):
        path = archive.blob(blob.sha256)
        if not path.is_file() or await asyncio.to_thread(hash_file, path) != (blob.size, blob.sealed_sha256):
            raise StoreError("a document of the export is missing, or is not what was exported")
        await blobs.put_sealed(blob.sha256, path)
    if not await _opens(blobs, blob.sha256):
        raise StoreError("a document is not in the target, or does not open there: copy the documents first")


async def _opens(blobs: BlobStore, sha256: str) -> bool:
    """Whether a document is there, whole, under a data key that is known."""
    try:
        async for _ in blobs.read(sha256, 0, 1):
            pass
    except (ContentLostError, SealBrokenError):
        return False
    return True


def _fill(connection: Connection, state: State, manifest: Manifest, show: Show) -> None:
    """One transaction: until its end the target is empty. Leases come along, and run out as after a crash."""
    rows.take_time(connection)
    lock(connection, "data keys")
    rows.check_empty(connection)
    rows.clear_data_keys(connection)
    total, done = sum(extent.rows for extent in manifest.tables.values()), 0
    for table in rows.tables():
        with state.table(table.name).open("rb") as lines:
            rows.write_lines(connection, table, lines)
        if rows.measure(connection, table) != manifest.tables[table.name]:
            raise StoreError(f"{table.name} is not what was exported: its count or digest differs in the target")
        show("rows", done := done + manifest.tables[table.name].rows, total)
    rows.go_on_counting(connection)


def _is_named(connection: Connection, sha256: str) -> bool:
    return bool(referenced_digests(connection, [sha256]))


def _batches(items: Iterable[T], size: int) -> Iterator[Sequence[T]]:
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
