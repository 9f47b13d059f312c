"""The format of documents on disk: what was altered does not open, what was not altered does."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.blobs import content_of, fetch, file_of, keep

from chartwire.errors import SealBrokenError, StoreError
from chartwire.store.disk import DiskBlobStore
from chartwire.store.sealed_file import CHUNK_BYTES
from chartwire.store.vault import DataKey, Vault

pytestmark = pytest.mark.embedded


HEADER_BYTES = 116

SEALED_CHUNK = CHUNK_BYTES + 16


@pytest.fixture
def vault() -> Vault:
    return Vault.of([DataKey(b"k" * 32, b"testing.")])


@pytest.fixture
def store(tmp_path: Path, vault: Vault) -> DiskBlobStore:
    return DiskBlobStore(tmp_path / "blobs", vault)


def spoil(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


async def test_a_range_reads_only_the_chunks_it_needs(store: DiskBlobStore, tmp_path: Path) -> None:
    content = content_of(8 * CHUNK_BYTES)
    blob = await keep(store, content)
    spoil(file_of(tmp_path / "blobs", blob), HEADER_BYTES + 5 * SEALED_CHUNK)
    assert await fetch(store, blob.sha256, 0, 5 * CHUNK_BYTES) == content[: 5 * CHUNK_BYTES]
    assert await fetch(store, blob.sha256, 6 * CHUNK_BYTES) == content[6 * CHUNK_BYTES :]
    with pytest.raises(SealBrokenError):
        await fetch(store, blob.sha256, 5 * CHUNK_BYTES, 5 * CHUNK_BYTES + 1)


@pytest.mark.parametrize("position", [0, 8, 30, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + SEALED_CHUNK, -1])
async def test_one_altered_bit_is_noticed(store: DiskBlobStore, tmp_path: Path, position: int) -> None:
    blob = await keep(store, content_of(3 * CHUNK_BYTES))
    spoil(file_of(tmp_path / "blobs", blob), position)
    with pytest.raises(SealBrokenError):
        await fetch(store, blob.sha256)


@pytest.mark.parametrize(
    "size", [0, 50, HEADER_BYTES, HEADER_BYTES + SEALED_CHUNK, HEADER_BYTES + 3 * SEALED_CHUNK - 1]
)
async def test_a_cut_off_file_gives_not_one_byte(store: DiskBlobStore, tmp_path: Path, size: int) -> None:
    blob = await keep(store, content_of(3 * CHUNK_BYTES))
    os.truncate(file_of(tmp_path / "blobs", blob), size)
    with pytest.raises(SealBrokenError):
        await fetch(store, blob.sha256, 0, 1)


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1), (0, 0, 2), (0, 1, 1)])
async def test_chunks_in_another_order_are_noticed(
    store: DiskBlobStore, tmp_path: Path, order: tuple[int, ...]
) -> None:
    blob = await keep(store, content_of(3 * CHUNK_BYTES))
    path = file_of(tmp_path / "blobs", blob)
    whole = path.read_bytes()
    chunks = [whole[HEADER_BYTES + at * SEALED_CHUNK :][:SEALED_CHUNK] for at in range(3)]
    path.write_bytes(whole[:HEADER_BYTES] + b"".join(chunks[index] for index in order))
    with pytest.raises(SealBrokenError):
        await fetch(store, blob.sha256)


async def test_a_file_under_another_files_name_is_noticed(store: DiskBlobStore, tmp_path: Path) -> None:
    mine, yours = await keep(store, b"mine"), await keep(store, b"your")
    file_of(tmp_path / "blobs", mine).replace(file_of(tmp_path / "blobs", yours))
    with pytest.raises(SealBrokenError):
        await fetch(store, yours.sha256)


async def test_another_master_key_opens_nothing(store: DiskBlobStore, tmp_path: Path) -> None:
    blob = await keep(store, b"content")
    with pytest.raises(SealBrokenError):
        await fetch(DiskBlobStore(tmp_path / "blobs", Vault(b"x" * 32)), blob.sha256)


async def test_a_file_of_the_first_format_opens_beside_those_of_now(tmp_path: Path, vault: Vault) -> None:
    old = DiskBlobStore(tmp_path / "blobs", Vault(b"o" * 32))
    blob = await keep(old, b"content")
    assert file_of(tmp_path / "blobs", blob).read_bytes().startswith(b"CWBLOB\x00\x01")
    vault.hold([DataKey(b"k" * 32, b"testing."), DataKey(b"o" * 32)])
    assert await fetch(DiskBlobStore(tmp_path / "blobs", vault), blob.sha256, 2) == b"ntent"


async def test_a_document_under_way_stays_under_the_key_that_it_was_begun_with(tmp_path: Path, vault: Vault) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"con"
        vault.hold([DataKey(b"n" * 32), DataKey(b"k" * 32, b"testing.")])
        yield b"tent"

    store = DiskBlobStore(tmp_path / "blobs", vault)
    blob = await store.put(chunks(), 100)
    assert await fetch(store, blob.sha256) == b"content"


async def test_putting_content_again_heals_its_altered_file(store: DiskBlobStore, tmp_path: Path) -> None:
    blob = await keep(store, b"content")
    spoil(file_of(tmp_path / "blobs", blob), -1)
    await keep(store, b"content")
    assert await fetch(store, blob.sha256) == b"content"


async def test_a_file_of_a_later_release_is_not_taken_for_an_altered_one(store: DiskBlobStore, tmp_path: Path) -> None:
    blob = await keep(store, b"content")
    path = file_of(tmp_path / "blobs", blob)
    whole = path.read_bytes()
    path.write_bytes(whole[:7] + b"\x03" + whole[8:])
    with pytest.raises(StoreError, match="format that this release does not know"):
        await fetch(store, blob.sha256)


async def test_the_disk_never_holds_the_plain_content(store: DiskBlobStore, tmp_path: Path) -> None:
    content = b"Aneurysm of the imaginary artery. " * 10_000
    blob = await keep(store, content)
    again = DiskBlobStore(tmp_path / "other", Vault(b"k" * 32))
    await keep(again, content)
    sealed = file_of(tmp_path / "blobs", blob).read_bytes()
    assert b"Aneurysm" not in sealed
    assert b"imaginary" not in sealed
    assert sealed != file_of(tmp_path / "other", blob).read_bytes()  # equal content does not look equal
