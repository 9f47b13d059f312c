"""The bytes of documents are hashed, sealed, opened, written and read by other threads than the event loop's."""

import asyncio
import itertools
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from tests.support.blobs import content_of
from tests.support.patience import PATIENCE_SECONDS

from chartwire.store.byte_threads import in_byte_thread
from chartwire.store.disk import DiskBlobStore
from chartwire.store.draft import Draft
from chartwire.store.sealed_file import SealedWriter
from chartwire.store.vault import DataKey, Vault

pytestmark = pytest.mark.embedded

HEAVY = frozenset({"encrypt", "decrypt", "update", "write", "pwrite", "pread", "fsync", "open"})


@contextmanager
def heavy_calls_here() -> Iterator[list[str]]:
    """The calls of C functions that work on bytes or on the disk, which this thread alone makes meanwhile."""
    made: list[str] = []

    def note(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and called.__name__ in HEAVY and "chartwire/store" in frame.f_code.co_filename:
            made.append(called.__name__)

    sys.setprofile(note)
    try:
        yield made
    finally:
        sys.setprofile(None)


async def stream(content: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


@pytest.fixture
def vault() -> Vault:
    return Vault.of([DataKey(b"k" * 32, b"testing.")])


def test_what_is_looked_for_is_seen(tmp_path: Path, vault: Vault) -> None:
    with heavy_calls_here() as made:
        draft = Draft(tmp_path, vault)
        asyncio.run(draft.take(b"content", 100))
        draft.finish()
        draft.discard()
    assert {"open", "update", "encrypt", "write", "fsync"} <= set(made)


@pytest.mark.parametrize(("size", "part"), [(10, 10), (3_000_000, 1000), (3_000_000, 3_000_000)])
async def test_the_event_loop_does_none_of_it(tmp_path: Path, vault: Vault, size: int, part: int) -> None:
    store, content = DiskBlobStore(tmp_path / "blobs", vault), content_of(size)
    with heavy_calls_here() as made:
        blob = await store.put(stream(content, part), size)
        read = b"".join([piece async for piece in store.read(blob.sha256)])
        middle = b"".join([piece async for piece in store.read(blob.sha256, 3, size - 3)])
    assert made == []
    assert (read, middle) == (content, content[3 : size - 3])


async def test_a_disk_that_stalls_stalls_nobody_else_and_a_put_that_is_given_up_leaves_nothing(
    tmp_path: Path, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, loop = DiskBlobStore(tmp_path / "blobs", vault), asyncio.get_running_loop()
    stalls, goes_on = asyncio.Event(), threading.Event()
    write, written = SealedWriter.write, itertools.count()

    def stall_at_first(self: SealedWriter, data: memoryview) -> None:
        if next(written) == 0:
            loop.call_soon_threadsafe(stalls.set)
            assert goes_on.wait(PATIENCE_SECONDS)
        write(self, data)

    monkeypatch.setattr(SealedWriter, "write", stall_at_first)
    under_way = asyncio.create_task(store.put(stream(content_of(3_000_000), 300_000), 3_000_000))
    await stalls.wait()
    await store.put(stream(b"of somebody else", 16), 16)
    assert len(list((tmp_path / "blobs" / "incoming").iterdir())) == 1
    under_way.cancel()
    await asyncio.sleep(0)
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await under_way
    assert list((tmp_path / "blobs" / "incoming").iterdir()) == []


async def test_who_gives_up_does_not_stop_what_a_thread_has_begun() -> None:
    begun, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(PATIENCE_SECONDS)
        loop.call_soon_threadsafe(done.set)

    waiting = asyncio.create_task(in_byte_thread(work))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    await done.wait()
