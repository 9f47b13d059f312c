"""Putting bytes into a blob store and getting them back."""

import hashlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from chartwire.store.blobs import BlobStore, StoredBlob

MEBIBYTE = 1024 * 1024

LIMIT = 64 * MEBIBYTE


async def stream(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def keep(store: BlobStore, content: bytes, limit: int = LIMIT) -> StoredBlob:
    return await store.put(stream([content]), limit)


async def fetch(store: BlobStore, sha256: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([piece async for piece in store.read(sha256, start, end)])


def content_of(size: int) -> bytes:
    """Bytes that differ from chunk to chunk, so that a wrong chunk or offset shows."""
    return b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(-(-size // 32)))[:size]


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock")


def file_of(store_folder: Path, blob: StoredBlob) -> Path:
    return store_folder / blob.sha256[:2] / blob.sha256[2:4] / blob.sha256
