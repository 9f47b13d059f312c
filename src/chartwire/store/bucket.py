"""Document bytes in a bucket of an S3-compatible store, in the same format and under the same names as on disk.

A document is sealed on local disk first: only then is its digest known, which is its name, and only then its header,
which comes first. It is uploaded in parts, and is there whole or not at all.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError, PreconditionError
from obstore.store import S3Store

from chartwire.errors import ConfigurationError, ContentLostError, StoreError
from chartwire.store.blobs import References, StoredBlob, path_of
from chartwire.store.byte_threads import in_byte_thread
from chartwire.store.draft import Draft, disk_errors, old_files, try_out, write_draft
from chartwire.store.sealed_file import SealedReader
from chartwire.store.vault import Vault

_PART_BYTES = 8 * 1024 * 1024
_PARTS_AT_ONCE = 4
_SWEEP_BATCH = 500
_YOUNG = timedelta(hours=1)
"""What was uploaded so lately is not uploaded again; far less than what the sweeper waits for."""

_PROBE = "ready"
_TIMEOUT_SECONDS = 30
_RETRIES = 3
_OPTIONS = {"endpoint", "region"}


def open_bucket(url: str, vault: Vault, spool: Path) -> "BucketBlobStore":
    """The store at `s3://<bucket>/<prefix>?endpoint=<url>&region=<name>`. Raises `ConfigurationError`.

    Credentials come from where AWS's own tools look: the environment, a web identity, the machine's role.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    if not parts.netloc or not set(options) <= _OPTIONS:
        raise ConfigurationError("blob_url: s3://<bucket>/<prefix>?endpoint=<url>&region=<name> is what can be said")
    endpoint = options.get("endpoint", "")
    try:
        store = S3Store(
            parts.netloc,
            prefix=unquote(parts.path).strip("/") or None,
            config={"region": options.get("region", "us-east-1"), **({"endpoint": endpoint} if endpoint else {})},
            retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_TIMEOUT_SECONDS)},
            client_options={"timeout": timedelta(seconds=_TIMEOUT_SECONDS), "allow_http": endpoint.startswith("http:")},
        )
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    except BaseError:
        raise ConfigurationError("blob_url: cannot be read as the address of a bucket") from None
    except OSError as error:
        raise ConfigurationError(f"data_dir: {spool}: {error.strerror}") from None
    return BucketBlobStore(store, vault, spool)


class BucketBlobStore:
    """One sealed object per content: `<prefix>/ab/cd/<sha256>`, if that begins `abcd`."""

    def __init__(self, store: S3Store, vault: Vault, spool: Path) -> None:
        self._store = store
        self._vault = vault
        self._spool = spool

    async def put(self, chunks: AsyncIterator[bytes], limit: int) -> StoredBlob:
        """See `BlobStore.put`."""
        draft = await write_draft(self._spool, self._vault, chunks, limit)
        # From here the task owns the draft, whether or not the caller stays.
        return await asyncio.shield(asyncio.create_task(self._upload(draft)))

    async def read(self, sha256: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """See `BlobStore.read`."""
        while True:
            source = await self._find(sha256)
            try:
                with _store_errors():
                    reader = await in_byte_thread(SealedReader.open, source, self._vault, sha256)
                    end = reader.size if end is None else min(end, reader.size)
                    pieces = reader.pieces(start, end)
                    while (piece := await in_byte_thread(next, pieces, None)) is not None:
                        start += len(piece)
                        yield piece
                return
            except PreconditionError:
                continue  # the same content was put again meanwhile, under another key: go on in that one

    async def read_sealed(self, sha256: str) -> AsyncIterator[bytes]:
        """See `BlobStore.read_sealed`."""
        with _store_errors():
            try:
                found = await obstore.get_async(self._store, path_of(sha256))
            except (NotFoundError, FileNotFoundError):
                raise ContentLostError("the bytes of a document are not there") from None
            async for piece in found.stream():
                yield bytes(piece)

    async def put_sealed(self, sha256: str, path: Path) -> None:
        """See `BlobStore.put_sealed`."""
        with disk_errors(), _store_errors():
            await self._put(path_of(sha256), path)

    async def exists(self, sha256: str) -> bool:
        """See `BlobStore.exists`."""
        with _store_errors():
            return await self._head(path_of(sha256)) is not None

    async def sweep(self, is_referenced: References, older_than: timedelta) -> int:
        """See `BlobStore.sweep`: by the clock of the bucket's server, and for what never got there the disk's."""
        before = datetime.now(UTC) - older_than
        removed = await asyncio.to_thread(self._remove_drafts, time.time() - older_than.total_seconds())
        with _store_errors():
            async for batch in obstore.list(self._store, chunk_size=_SWEEP_BATCH):
                old = [item["path"] for item in batch if item["last_modified"] < before and "/" in item["path"]]
                removed += await self._remove_orphans(old, is_referenced, before)
        return removed

    async def check(self) -> None:
        """See `BlobStore.check`."""
        with disk_errors(), _store_errors():
            await in_byte_thread(try_out, self._spool, self._vault)
            await obstore.put_async(self._store, _PROBE, b"chartwire", use_multipart=False)

    async def close(self) -> None:
        """See `BlobStore.close`: connections go with the store."""

    async def _upload(self, draft: Draft) -> StoredBlob:
        try:
            with disk_errors(), _store_errors():
                blob = await in_byte_thread(draft.finish)
                path = path_of(blob.sha256)
                known = await self._head(path)
                # What is here is put again unless it is young: a sweep may be about to remove it.
                if known is None or known["last_modified"] < datetime.now(UTC) - _YOUNG:
                    await self._put(path, draft.path)
                return blob
        finally:
            await in_byte_thread(draft.discard)

    async def _put(self, name: str, path: Path) -> None:
        await obstore.put_async(self._store, name, path, chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE)

    async def _find(self, sha256: str) -> "_Object":
        with _store_errors():
            known = await self._head(path_of(sha256))
        if known is None:
            raise ContentLostError("the bytes of a document are not there")
        return _Object(self._store, path_of(sha256), known["size"], known["e_tag"])

    async def _head(self, path: str) -> Any:
        try:
            return await obstore.head_async(self._store, path)
        except (NotFoundError, FileNotFoundError):
            return None

    async def _remove_orphans(self, paths: Sequence[str], is_referenced: References, before: datetime) -> int:
        """Looks at the times again: what was put since is kept."""
        if not paths:
            return 0
        kept = await is_referenced([_name(path) for path in paths])
        orphans = [path for path in paths if _name(path) not in kept]
        heads = await asyncio.gather(*(self._head(path) for path in orphans))
        old = [path for path, head in zip(orphans, heads, strict=True) if head and head["last_modified"] < before]
        if old:
            await obstore.delete_async(self._store, old)
        return len(old)

    def _remove_drafts(self, before: float) -> int:
        drafts = old_files(self._spool, before)
        for path in drafts:
            path.unlink(missing_ok=True)
        return len(drafts)


@dataclass(frozen=True, slots=True)
class _Object:
    """One version of an object, read by ranges."""

    store: S3Store
    path: str
    size: int
    e_tag: str | None
    piece_chunks: int = field(default=32)  # 2 MiB: a request costs as much as many bytes

    def read_at(self, length: int, offset: int) -> bytes:
        """See `Source.read_at`."""
        end = min(offset + length, self.size)
        if end <= offset:
            return b""
        options: Any = {"range": (offset, end), "if_match": self.e_tag}
        return bytes(obstore.get(self.store, self.path, options=options).bytes())


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


@contextmanager
def _store_errors() -> Iterator[None]:
    """What the store says becomes a `StoreError`, without its address and the names of objects."""
    try:
        yield
    except PreconditionError:
        raise
    except BaseError as error:
        raise StoreError(f"the object store failed: {type(error).__name__}") from None
