"""Document bytes on a real disk: kept whole or not at all, sealed, found by digest."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.blobs import LIMIT, MEBIBYTE, content_of, fetch, file_of, files_in, keep, stream
from tests.support.patience import PATIENCE_SECONDS

from chartwire.errors import ConfigurationError, DocumentTooLargeError, StoreError
from chartwire.store.blobs import open_blob_store
from chartwire.store.disk import DiskBlobStore
from chartwire.store.sealed_file import CHUNK_BYTES, SealedReader, SealedWriter
from chartwire.store.vault import Vault

pytestmark = pytest.mark.embedded


HOUR = timedelta(hours=1)
EDGES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 4 * CHUNK_BYTES, 4 * CHUNK_BYTES + 1, 9 * CHUNK_BYTES + 7]


@pytest.fixture
def vault() -> Vault:
    return Vault(b"k" * 32)


@pytest.fixture
def store(tmp_path: Path, vault: Vault) -> DiskBlobStore:
    return DiskBlobStore(tmp_path / "blobs", vault)


def age(path: Path, by: timedelta) -> None:
    moment = time.time() - by.total_seconds()
    os.utime(path, (moment, moment))


async def nothing_is_referenced(digests: Sequence[str]) -> set[str]:
    del digests
    return set()


@pytest.mark.parametrize("size", EDGES)
async def test_content_comes_back_with_its_digests_size_and_head(store: DiskBlobStore, size: int) -> None:
    content = content_of(size)
    blob = await store.put(stream(content[at : at + 1000] for at in range(0, size, 1000)), LIMIT)
    assert blob.sha256 == hashlib.sha256(content).hexdigest()
    assert blob.sha1 == hashlib.sha1(content).hexdigest()  # noqa: S324  FHIR attachments name content by SHA-1
    assert (blob.size, blob.head) == (size, content[:4096])
    assert await fetch(store, blob.sha256) == content
    assert await store.exists(blob.sha256)


async def test_one_huge_part_is_taken_without_keeping_the_event_loop(
    store: DiskBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No piece is worked on before the event loop has had a turn for it: a loop that is kept has none."""
    content, loop, turns = content_of(16 * MEBIBYTE), asyncio.get_running_loop(), 0

    def after_a_turn(work: Callable[..., Any]) -> Callable[..., Any]:
        def wait_and_work(*arguments: Any) -> Any:
            nonlocal turns
            turned = threading.Event()
            loop.call_soon_threadsafe(turned.set)
            assert turned.wait(PATIENCE_SECONDS)
            turns += 1
            return work(*arguments)

        return wait_and_work

    monkeypatch.setattr(SealedWriter, "write", after_a_turn(SealedWriter.write))
    monkeypatch.setattr(SealedReader, "_open_chunks", after_a_turn(SealedReader._open_chunks))
    blob = await keep(store, content)
    assert turns == 16 * 4  # once per 256 KiB
    assert len([piece async for piece in store.read(blob.sha256)]) == 16 * 4
    assert turns == 2 * 16 * 4


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_range_equals_the_slice(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from(EDGES) | st.integers(0, 10 * CHUNK_BYTES), "size")
    bound = st.sampled_from(EDGES) | st.integers(0, 11 * CHUNK_BYTES)
    start, end = data.draw(bound, "start"), data.draw(bound | st.none(), "end")
    content = content_of(size)

    async def check() -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = DiskBlobStore(Path(folder), Vault(b"k" * 32))
            blob = await keep(store, content)
            assert await fetch(store, blob.sha256, start, end) == content[start:end]

    asyncio.run(check())


async def test_the_same_content_is_one_file(store: DiskBlobStore, tmp_path: Path) -> None:
    content = content_of(100_000)
    blobs = await asyncio.gather(*(keep(store, content) for _ in range(8)))
    assert len(set(blobs)) == 1
    assert files_in(tmp_path / "blobs") == [file_of(tmp_path / "blobs", blobs[0])]
    assert await fetch(store, blobs[0].sha256) == content


async def test_a_reader_goes_on_while_the_same_content_is_put_again_and_swept(store: DiskBlobStore) -> None:
    content = content_of(2 * MEBIBYTE)
    blob = await keep(store, content)
    pieces = store.read(blob.sha256)
    first = await anext(pieces)
    await keep(store, content)
    await store.sweep(nothing_is_referenced, timedelta(seconds=-60))
    assert not await store.exists(blob.sha256)
    assert first + b"".join([piece async for piece in pieces]) == content


async def test_content_over_the_limit_is_refused_and_leaves_nothing(store: DiskBlobStore, tmp_path: Path) -> None:
    content = content_of(300_000)
    with pytest.raises(DocumentTooLargeError):
        await store.put(stream([content[:200_000], content[200_000:]]), 299_999)
    assert files_in(tmp_path / "blobs") == []
    assert (await keep(store, content, limit=300_000)).size == 300_000


async def test_a_source_that_breaks_off_leaves_nothing_and_its_error_arrives(
    store: DiskBlobStore, tmp_path: Path
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield content_of(200_000)
        raise ConnectionResetError("the network went away")

    with pytest.raises(ConnectionResetError, match="the network went away"):
        await store.put(broken(), LIMIT)
    assert files_in(tmp_path / "blobs") == []


async def test_a_cancelled_put_leaves_nothing(store: DiskBlobStore, tmp_path: Path) -> None:
    begun, never = asyncio.Event(), asyncio.Event()

    async def hanging() -> AsyncIterator[bytes]:
        yield content_of(200_000)
        begun.set()
        await never.wait()

    task = asyncio.create_task(store.put(hanging(), LIMIT))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files_in(tmp_path / "blobs") == []


async def test_absent_content_and_false_digests_are_store_errors(store: DiskBlobStore) -> None:
    with pytest.raises(StoreError, match="not there"):
        await fetch(store, "0" * 64)
    assert not await store.exists("0" * 64)
    for digest in ["../../secret", "0" * 63 + "\n", "ABCDEF" + "0" * 58, ""]:
        for ask in (fetch, DiskBlobStore.exists):
            with pytest.raises(StoreError, match="not one"):
                await ask(store, digest)


async def test_a_file_is_synced_before_it_has_its_name_and_the_folders_after(
    store: DiskBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order that makes a power cut leave all or nothing."""
    steps: list[str] = []
    sync, replace = os.fsync, os.replace

    def watch_sync(descriptor: int) -> None:
        steps.append(str(Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path / "blobs").parent))
        sync(descriptor)

    def watch_replace(old: str, new: str) -> None:
        steps.append("named")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", watch_sync)
    monkeypatch.setattr(os, "replace", watch_replace)
    blob = await keep(store, b"content")
    assert steps == ["incoming", "named", blob.sha256[:2], ".", "."]


async def test_only_the_owner_may_look(store: DiskBlobStore, tmp_path: Path) -> None:
    blob = await keep(store, b"content")
    assert file_of(tmp_path / "blobs", blob).stat().st_mode & 0o777 == 0o600
    for folder in [tmp_path / "blobs", *(path for path in (tmp_path / "blobs").rglob("*") if path.is_dir())]:
        assert folder.stat().st_mode & 0o777 == 0o700


async def test_sweep_removes_only_what_is_old_and_nothing_refers_to(store: DiskBlobStore, tmp_path: Path) -> None:
    folder = tmp_path / "blobs"
    referenced, orphan, young = [await keep(store, content) for content in (b"referenced", b"orphan", b"young")]
    for blob in (referenced, orphan):
        age(file_of(folder, blob), 2 * HOUR)
    for name, how_old in (("1-stale", 2 * HOUR), ("1-at-work", HOUR / 2)):
        (folder / "incoming" / name).write_bytes(b"half")
        age(folder / "incoming" / name, how_old)

    asked: list[str] = []

    async def is_referenced(digests: Sequence[str]) -> set[str]:
        asked.extend(digests)
        return {referenced.sha256} & set(digests)

    assert await store.sweep(is_referenced, HOUR) == 2
    assert sorted(asked) == sorted([referenced.sha256, orphan.sha256])
    kept = [file_of(folder, referenced), file_of(folder, young), folder / "incoming" / "1-at-work"]
    assert files_in(folder) == sorted(kept)
    assert await store.sweep(is_referenced, HOUR) == 0


async def test_content_that_is_put_again_while_sweep_asks_is_kept(store: DiskBlobStore, tmp_path: Path) -> None:
    blob = await keep(store, b"content")
    age(file_of(tmp_path / "blobs", blob), 2 * HOUR)

    async def put_meanwhile(digests: Sequence[str]) -> set[str]:
        assert list(digests) == [blob.sha256]
        await keep(store, b"content")
        return set()

    assert await store.sweep(put_meanwhile, HOUR) == 0
    assert await fetch(store, blob.sha256) == b"content"


async def test_puts_and_sweeps_side_by_side_lose_nothing_that_was_put(store: DiskBlobStore, tmp_path: Path) -> None:
    contents = [str(number).encode() for number in range(8)]

    async def put_over_and_over(content: bytes) -> None:
        for _ in range(10):
            blob = await keep(store, content)
            assert await fetch(store, blob.sha256) == content
            age(file_of(tmp_path / "blobs", blob), 2 * HOUR)  # fair game for the sweeper, until the next put

    sweeping = True

    async def sweep_over_and_over() -> None:
        while sweeping:
            await store.sweep(nothing_is_referenced, HOUR)

    sweeper = asyncio.create_task(sweep_over_and_over())
    await asyncio.gather(*map(put_over_and_over, contents))
    sweeping = False
    await sweeper


async def test_check_passes_on_a_good_disk_and_leaves_nothing(store: DiskBlobStore, tmp_path: Path) -> None:
    await store.check()
    assert files_in(tmp_path / "blobs") == []


async def test_check_and_put_say_that_the_folder_is_gone(store: DiskBlobStore, tmp_path: Path) -> None:
    (tmp_path / "blobs").rename(tmp_path / "moved")
    with pytest.raises(StoreError, match="No such file or directory"):
        await store.check()
    with pytest.raises(StoreError, match="No such file or directory"):
        await keep(store, b"content")


async def test_a_full_disk_is_a_store_error_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the full disk; it holds for a whole process, hence a process."""
    script = """
import asyncio, resource, signal, sys
from pathlib import Path
from chartwire.errors import StoreError
from chartwire.store.disk import DiskBlobStore
from chartwire.store.vault import Vault

async def parts():
    for _ in range(64):
        yield bytes(65536)

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    asyncio.run(DiskBlobStore(Path(sys.argv[1]), Vault(b"k" * 32)).put(parts(), 10**9))
except StoreError as error:
    print(error)
"""
    result = await asyncio.to_thread(run_script, script, tmp_path)
    assert result.stdout == "the disk that holds documents failed: File too large\n"
    assert files_in(tmp_path) == []


def run_script(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True)


@pytest.mark.parametrize("url", ["gs://bucket", "file://", "file:///", "file://elsewhere/x", "/plain/path", ""])
def test_other_places_are_refused_at_the_start(url: str, vault: Vault) -> None:
    with pytest.raises(ConfigurationError, match="neither file:///<folder>"):
        open_blob_store(url, vault)


async def test_a_file_url_names_the_folder(tmp_path: Path, vault: Vault) -> None:
    folder = tmp_path / "with space" / "100%"
    store = open_blob_store(folder.as_uri(), vault)
    assert await fetch(store, (await keep(store, b"content")).sha256) == b"content"
    assert len(files_in(folder)) == 1
    await store.close()


def test_a_folder_that_cannot_be_made_is_a_wrong_setting(tmp_path: Path, vault: Vault) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="Not a directory"):
        open_blob_store((tmp_path / "file" / "blobs").as_uri(), vault)


PUT_FOREVER = """
import asyncio, sys
from pathlib import Path
from chartwire.store.disk import DiskBlobStore
from chartwire.store.vault import Vault

async def parts():
    for number in range(40):
        if number == 20:
            print("half", flush=True)
            await asyncio.Event().wait()
        yield bytes(65536)

asyncio.run(DiskBlobStore(Path(sys.argv[1]), Vault(b"k" * 32)).put(parts(), 10**9))
"""


async def test_killed_in_the_middle_of_a_put_nothing_is_visible(tmp_path: Path, vault: Vault) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PUT_FOREVER, str(tmp_path / "blobs"), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"half\n"
    process.kill()
    assert await process.wait() == -signal.SIGKILL
    (left_over,) = files_in(tmp_path / "blobs")
    assert left_over.parent.name == "incoming"
    store = DiskBlobStore(tmp_path / "blobs", vault)
    blob = await keep(store, bytes(65536 * 40))
    assert await fetch(store, blob.sha256) == bytes(65536 * 40)
    age(left_over, 2 * HOUR)
    assert await store.sweep(nothing_is_referenced, HOUR) == 1
    assert files_in(tmp_path / "blobs") == [file_of(tmp_path / "blobs", blob)]


ONE_GIBIBYTE = """
import asyncio, resource, sys
from pathlib import Path
from chartwire.store.disk import DiskBlobStore
from chartwire.store.vault import Vault

PART = bytes(range(256)) * 1024

async def parts(count):
    for _ in range(count):
        yield PART

async def put_and_read(store, count):
    blob = await store.put(parts(count), 2**30)
    size = 0
    async for piece in store.read(blob.sha256):
        size += len(piece)
    return size

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

async def main():
    store = DiskBlobStore(Path(sys.argv[1]), Vault(b"k" * 32))
    await put_and_read(store, 4)
    before = peak()
    print(await put_and_read(store, 4096), peak() - before)

asyncio.run(main())
"""


async def test_a_gibibyte_goes_in_and_out_in_flat_memory(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:  # pytest would keep the gibibyte
        result = await asyncio.to_thread(run_script, ONE_GIBIBYTE, Path(folder))
    size, growth_in_kibibytes = map(int, result.stdout.split())
    assert size == 2**30
    assert growth_in_kibibytes < 4 * 1024
