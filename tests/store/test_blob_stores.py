"""What every store of document bytes must do: the folder on disk, and a bucket of a real S3-compatible store."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from pathlib import Path

import obstore
import pytest
import pytest_asyncio
from tests.support.blobs import LIMIT, MEBIBYTE, content_of, fetch, files_in, keep, stream
from tests.support.ports import closed_port
from tests.support.seaweed import ObjectStore, running_object_store

from chartwire.errors import ConfigurationError, DocumentTooLargeError, SealBrokenError, StoreError
from chartwire.ids import new_id
from chartwire.store import bucket
from chartwire.store.blobs import BlobStore, open_blob_store, path_of
from chartwire.store.bucket import BucketBlobStore
from chartwire.store.sealed_file import CHUNK_BYTES
from chartwire.store.vault import Vault

pytestmark = [pytest.mark.embedded, pytest.mark.asyncio(loop_scope="module")]

EDGES = [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 33 * CHUNK_BYTES + 7]
ABSENT = hashlib.sha256(b"absent").hexdigest()
SOON = timedelta(seconds=-60)
"""Before a minute from now: everything is old enough."""

Open = Callable[[Vault], BlobStore]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def objects(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ObjectStore]:
    async with running_object_store(tmp_path_factory.mktemp("objects")) as store:
        yield store


@pytest.fixture(params=["disk", "bucket"])
def open_store(
    request: pytest.FixtureRequest, objects: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Open:
    """Opens the test's own store, under any key."""
    for name, value in objects.environment().items():
        monkeypatch.setenv(name, value)
    url = (tmp_path / "blobs").as_uri() if request.param == "disk" else objects.url(f"clinic/{new_id()}")
    return lambda vault: open_blob_store(url, vault, tmp_path / "spool")


@pytest.fixture
def store(open_store: Open) -> BlobStore:
    return open_store(Vault(b"k" * 32))


async def nothing_is_referenced(digests: Sequence[str]) -> set[str]:
    del digests
    return set()


@pytest.mark.parametrize("size", EDGES)
async def test_content_comes_back_with_its_digests_size_and_head(store: BlobStore, size: int) -> None:
    content = content_of(size)
    blob = await store.put(stream(content[at : at + 100_000] for at in range(0, size, 100_000)), LIMIT)
    assert blob.sha256 == hashlib.sha256(content).hexdigest()
    assert blob.sha1 == hashlib.sha1(content).hexdigest()  # noqa: S324  FHIR attachments name content by SHA-1
    assert (blob.size, blob.head) == (size, content[:4096])
    assert await fetch(store, blob.sha256) == content
    assert await store.exists(blob.sha256)


async def test_any_range_equals_the_slice(store: BlobStore) -> None:
    content = content_of(33 * CHUNK_BYTES + 7)
    blob = await keep(store, content)
    bounds = (0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 32 * CHUNK_BYTES, 33 * CHUNK_BYTES, len(content), len(content) + 9)
    for start in bounds:
        for end in (*bounds, None):
            assert await fetch(store, blob.sha256, start, end) == content[start:end]


async def test_content_of_several_parts_comes_back(store: BlobStore) -> None:
    content = content_of(17 * MEBIBYTE)
    assert await fetch(store, (await keep(store, content)).sha256) == content


async def test_the_same_content_may_be_put_many_times_at_once(store: BlobStore) -> None:
    content = content_of(100_000)
    blobs = await asyncio.gather(*(keep(store, content) for _ in range(6)))
    assert len(set(blobs)) == 1
    assert await fetch(store, blobs[0].sha256) == content
    assert await store.sweep(nothing_is_referenced, SOON) == 1


async def test_a_put_that_comes_to_nothing_leaves_nothing(store: BlobStore, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield content_of(200_000)
        raise ConnectionResetError("the network went away")

    with pytest.raises(ConnectionResetError, match="the network went away"):
        await store.put(broken(), LIMIT)
    with pytest.raises(DocumentTooLargeError):
        await keep(store, content_of(200_000), limit=199_999)
    assert files_in(tmp_path) == []
    assert not await store.exists(hashlib.sha256(content_of(200_000)).hexdigest())


async def test_a_put_leaves_nothing_beside_its_content(store: BlobStore, tmp_path: Path) -> None:
    await keep(store, content_of(200_000))
    assert files_in(tmp_path / "spool") == []


async def test_what_is_not_there_is_said_so(store: BlobStore) -> None:
    assert not await store.exists(ABSENT)
    with pytest.raises(StoreError, match="not there"):
        await fetch(store, ABSENT)
    for name in ("", "../../etc/passwd", ABSENT.upper()):
        with pytest.raises(StoreError, match="not one"):
            await store.exists(name)


async def test_content_opens_under_its_own_key_alone(store: BlobStore, open_store: Open) -> None:
    blob = await keep(store, b"sealed")
    with pytest.raises(SealBrokenError):
        await fetch(open_store(Vault(b"x" * 32)), blob.sha256)


async def test_a_sweep_takes_what_is_old_and_referenced_by_nothing(store: BlobStore) -> None:
    kept, orphan = await keep(store, b"kept"), await keep(store, b"orphan")
    asked: list[str] = []

    async def is_referenced(digests: Sequence[str]) -> set[str]:
        asked.extend(digests)
        return {kept.sha256}

    assert await store.sweep(is_referenced, timedelta(hours=1)) == 0
    assert asked == []  # all of it is young
    assert await store.sweep(is_referenced, SOON) == 1
    assert (await store.exists(kept.sha256), await store.exists(orphan.sha256)) == (True, False)
    assert sorted(asked) == sorted([kept.sha256, orphan.sha256])


async def test_a_store_that_works_is_ready(store: BlobStore) -> None:
    await store.check()
    await store.check()
    assert await store.sweep(nothing_is_referenced, SOON) == 0
    await store.close()


# --- the bucket alone -------------------------------------------------------------------------------------------------


@pytest.fixture
def in_bucket(objects: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BucketBlobStore:
    for name, value in objects.environment().items():
        monkeypatch.setenv(name, value)
    return bucket.open_bucket(objects.url(new_id()), Vault(b"k" * 32), tmp_path / "spool")


async def test_a_reader_goes_on_while_the_same_content_is_put_again(
    in_bucket: BucketBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = content_of(5 * MEBIBYTE)
    blob = await keep(in_bucket, content)
    pieces = in_bucket.read(blob.sha256)
    first = await anext(pieces)
    monkeypatch.setattr(bucket, "_YOUNG", timedelta(days=-1))  # as if an hour had gone by
    await keep(in_bucket, content)
    assert first + b"".join([piece async for piece in pieces]) == content


async def test_content_that_is_young_is_not_uploaded_again(in_bucket: BucketBlobStore) -> None:
    path = path_of((await keep(in_bucket, b"once")).sha256)
    before = (await obstore.head_async(in_bucket._store, path))["e_tag"]
    await keep(in_bucket, b"once")
    assert (await obstore.head_async(in_bucket._store, path))["e_tag"] == before


async def test_altered_bytes_do_not_open(in_bucket: BucketBlobStore) -> None:
    content = content_of(3 * CHUNK_BYTES)
    path = path_of((await keep(in_bucket, content)).sha256)
    sealed = bytearray((await (await obstore.get_async(in_bucket._store, path)).bytes_async()).to_bytes())
    sealed[-1] ^= 1
    for altered in (bytes(sealed), bytes(sealed[:-1]), b"", b"something else"):
        await obstore.put_async(in_bucket._store, path, altered)
        with pytest.raises(SealBrokenError):
            await fetch(in_bucket, path.rsplit("/", 1)[-1])


async def test_a_store_that_is_away_is_said_so_without_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objects: ObjectStore
) -> None:
    for name, value in objects.environment().items():
        monkeypatch.setenv(name, value)
    with closed_port() as port:
        away = open_blob_store(f"s3://none/x?endpoint=http://127.0.0.1:{port}", Vault(bytes(32)), tmp_path)
        for attempt in (away.check(), keep(away, b"x"), fetch(away, ABSENT)):
            with pytest.raises(StoreError, match="object store failed") as caught:
                await attempt
            assert "127.0.0.1" not in str(caught.value)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("url", ["s3://", "s3:///prefix", "s3://bucket?secret=x", "gs://bucket", "/folder", ""])
async def test_another_address_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="blob_url"):
        open_blob_store(url, Vault(bytes(32)), tmp_path)
