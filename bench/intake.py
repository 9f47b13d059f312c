"""Megabytes per second: a document into the sealed store, and into a plain file with a hash."""

import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from bench.turns import Turn
from chartwire import ids
from chartwire.store.disk import DiskBlobStore
from chartwire.store.vault import Vault

CHUNK_BYTES = 256 * 1024
_MEGABYTE = 1_000_000
_DOCUMENT_BYTES = 64 * 1024 * 1024


async def store() -> Turn:
    """Keep a document: two digests, encryption, fsync of file and folders; MB/s."""
    content = os.urandom(_DOCUMENT_BYTES)
    with tempfile.TemporaryDirectory(prefix="chartwire-bench-") as folder:
        blobs = DiskBlobStore(Path(folder) / "blobs", Vault(ids.secret_bytes(32)))
        started = time.perf_counter()
        kept = await blobs.put(_chunks(content), len(content))
        seconds = time.perf_counter() - started
        assert kept.size == len(content)
    return Turn(len(content) / _MEGABYTE / seconds)


async def copy() -> Turn:
    """Write it to a file, hashing it with SHA-256, and fsync the file; MB/s."""
    content = os.urandom(_DOCUMENT_BYTES)
    view = memoryview(content)
    with tempfile.TemporaryDirectory(prefix="chartwire-bench-") as folder:
        digest = hashlib.sha256()
        started = time.perf_counter()
        with (Path(folder) / "copy").open("wb", buffering=0) as file:
            for at in range(0, len(view), CHUNK_BYTES):
                digest.update(view[at : at + CHUNK_BYTES])
                file.write(view[at : at + CHUNK_BYTES])
            os.fsync(file.fileno())
        seconds = time.perf_counter() - started
    return Turn(len(content) / _MEGABYTE / seconds)


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(content), CHUNK_BYTES):
        yield content[at : at + CHUNK_BYTES]
