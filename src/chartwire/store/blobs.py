"""The bytes of documents: kept once per content, sealed, found by their SHA-256.

A blob is on disk before the row that refers to it is committed, and is removed only when no row does: a crash leaves a
blob too many, never one too few.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import gettempdir
from typing import Protocol
from urllib.parse import unquote, urlsplit

from chartwire.errors import ConfigurationError, StoreError
from chartwire.store.vault import Vault

HEAD_BYTES = 4096
_DIGEST = re.compile(r"[0-9a-f]{64}")

References = Callable[[Sequence[str]], Awaitable[set[str]]]
"""Of these SHA-256s (at most 500), the ones that some row refers to."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """Content that is on disk; digests in lower-case hex, size in bytes."""

    sha256: str
    sha1: str
    size: int
    head: bytes
    """The first bytes of the content, at most 4096, to tell its media type from."""


class BlobStore(Protocol):
    """Where the bytes of documents live."""

    async def put(self, chunks: AsyncIterator[bytes], limit: int) -> StoredBlob:
        """Keep what `chunks` gives; when this returns, it survives a power cut. Nothing is left behind otherwise.

        Raises `DocumentTooLargeError` past `limit` bytes, `StoreError` if the disk fails, and what `chunks` raises.
        """

    def read(self, sha256: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The content from byte `start` up to but not including byte `end` (None: to its end).

        The first step raises `StoreError` if there is no such content; any step raises `SealBrokenError` if it was
        altered.
        """

    def read_sealed(self, sha256: str) -> AsyncIterator[bytes]:
        """The content as it is kept, sealed. Raises `ContentLostError` if it is not there."""

    async def put_sealed(self, sha256: str, path: Path) -> None:
        """Keep what a file on the local disk holds, which is sealed already. Raises as `put`."""

    async def exists(self, sha256: str) -> bool:
        """Whether the content is here."""

    async def sweep(self, is_referenced: References, older_than: timedelta) -> int:
        """Remove what nothing refers to and no `put` kept for `older_than`, and what broken `put`s left over.

        Returns how many files went. `older_than` must exceed the time from a `put` to the commit of its row.
        """

    async def check(self) -> None:
        """Raises `StoreError`, saying what to mend, if a `put` would fail."""

    async def close(self) -> None:
        """Let go of connections and files."""


def open_blob_store(url: str, vault: Vault, spool: Path | None = None) -> BlobStore:
    """The store at `url`: `file:///<folder>`, which is made, or `s3://<bucket>/<prefix>`. Raises `ConfigurationError`.

    `spool` is a folder of the local disk where documents wait, sealed, until they are in a bucket.
    """
    if url.startswith("s3://"):
        from chartwire.store.bucket import open_bucket

        return open_bucket(url, vault, spool or Path(gettempdir()))
    return _open_disk(url, vault)


def _open_disk(url: str, vault: Vault) -> BlobStore:
    from chartwire.store.disk import DiskBlobStore

    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"} or len(parts.path) < 2:
        raise ConfigurationError("blob_url: neither file:///<folder> nor s3://<bucket>/<prefix>")
    folder = Path(unquote(parts.path))
    try:
        return DiskBlobStore(folder, vault)
    except OSError as error:
        raise ConfigurationError(f"blob_url: {folder}: {error.strerror}") from None


def path_of(sha256: str) -> str:
    """Where content is in a store: `ab/cd/<sha256>`, if that begins `abcd`."""
    if not _DIGEST.fullmatch(sha256):
        raise StoreError("a document's digest is not one")
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}"
