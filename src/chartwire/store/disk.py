"""Document bytes in a folder of the local disk."""

import asyncio
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from chartwire.errors import ContentLostError, StoreError
from chartwire.store.blobs import References, StoredBlob, path_of
from chartwire.store.byte_threads import in_byte_thread
from chartwire.store.draft import Draft, disk_errors, old_files, try_out, write_draft
from chartwire.store.sealed_file import FileSource, SealedReader
from chartwire.store.vault import Vault, sync_folder

_LOW_SPACE_BYTES = 256 * 1024 * 1024
_SWEEP_BATCH = 500
_PIECE_BYTES = 1024 * 1024


class _OpenFile(FileSource):
    """Closed when nobody reads it any longer: a thread may still be at it when its caller has given up."""

    def __del__(self) -> None:
        os.close(self.descriptor)


class DiskBlobStore:
    """A folder of the local disk with one sealed file per content: `<folder>/ab/cd/<sha256>`, if that begins `abcd`."""

    def __init__(self, folder: Path, vault: Vault) -> None:
        self._folder = folder
        self._drafts = folder / "incoming"
        self._lock = folder / "lock"
        self._vault = vault
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._drafts.mkdir(mode=0o700, exist_ok=True)

    async def put(self, chunks: AsyncIterator[bytes], limit: int) -> StoredBlob:
        """See `BlobStore.put`."""
        draft = await write_draft(self._drafts, self._vault, chunks, limit)
        # From here the thread owns the draft, whether or not the caller stays.
        return await in_byte_thread(self._publish, draft)

    async def read(self, sha256: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """See `BlobStore.read`."""
        with disk_errors():
            pieces, left, piece = await in_byte_thread(self._begin, sha256, start, end)
            while left > 0:
                yield piece
                left -= len(piece)
                piece = await in_byte_thread(next, pieces) if left > 0 else b""

    async def read_sealed(self, sha256: str) -> AsyncIterator[bytes]:
        """See `BlobStore.read_sealed`."""
        with disk_errors(), os.fdopen(self._open(sha256), "rb", buffering=0) as source:
            while piece := await in_byte_thread(source.read, _PIECE_BYTES):
                yield piece

    async def put_sealed(self, sha256: str, path: Path) -> None:
        """See `BlobStore.put_sealed`."""
        await in_byte_thread(self._take, sha256, path)

    async def exists(self, sha256: str) -> bool:
        """See `BlobStore.exists`."""
        return await asyncio.to_thread(self._path(sha256).is_file)

    async def sweep(self, is_referenced: References, older_than: timedelta) -> int:
        """See `BlobStore.sweep`."""
        before = time.time() - older_than.total_seconds()  # the disk's own clock set the times of the files
        drafts = await asyncio.to_thread(old_files, self._drafts, before)
        removed = await asyncio.to_thread(self._remove, drafts, before)
        for folder in await asyncio.to_thread(self._subfolders):
            old = await asyncio.to_thread(old_files, folder, before)
            for batch in (old[at : at + _SWEEP_BATCH] for at in range(0, len(old), _SWEEP_BATCH)):
                kept = await is_referenced([path.name for path in batch])
                orphans = [path for path in batch if path.name not in kept]
                removed += await asyncio.to_thread(self._remove, orphans, before)
        return removed

    async def check(self) -> None:
        """See `BlobStore.check`."""
        await asyncio.to_thread(self._check)

    async def close(self) -> None:
        """See `BlobStore.close`: nothing is held open between calls."""

    def _path(self, sha256: str) -> Path:
        return self._folder / path_of(sha256)

    def _begin(self, sha256: str, start: int, end: int | None) -> tuple[Iterator[bytes], int, bytes]:
        """The pieces of a range, how many bytes they have, and the first: most documents are one, and one way there."""
        reader = SealedReader.open(_OpenFile(self._open(sha256)), self._vault, sha256)
        end = reader.size if end is None else min(end, reader.size)
        pieces = reader.pieces(start, end)
        return pieces, end - start, next(pieces, b"")

    def _open(self, sha256: str) -> int:
        with disk_errors():
            try:
                return os.open(self._path(sha256), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise ContentLostError("the bytes of a document are not there") from None

    def _publish(self, draft: "Draft") -> StoredBlob:
        try:
            with disk_errors():
                blob = draft.finish()
                self._move_in(draft.path, self._path(blob.sha256))
                return blob
        finally:
            draft.discard()

    def _take(self, sha256: str, path: Path) -> None:
        draft = self._drafts / f"{os.getpid()}-{secrets.token_hex(8)}"
        with disk_errors():
            try:
                draft.touch(mode=0o600, exist_ok=False)
                with path.open("rb") as source, draft.open("wb") as copy:
                    shutil.copyfileobj(source, copy, _PIECE_BYTES)
                    copy.flush()
                    os.fsync(copy.fileno())
                self._move_in(draft, self._path(sha256))
            finally:
                draft.unlink(missing_ok=True)

    def _move_in(self, draft: Path, path: Path) -> None:
        """Give the file its name. Content that is here already is replaced by its equal, which makes it young again."""
        path.parent.parent.mkdir(mode=0o700, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with self._locked(fcntl.LOCK_SH):
            draft.replace(path)
        # Always all of them: another put may have made a folder and not yet come to syncing it.
        for folder in (path.parent, path.parent.parent, self._folder):
            sync_folder(folder)

    def _subfolders(self) -> list[Path]:
        return [path for path in self._folder.glob("[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]") if path.is_dir()]

    def _remove(self, paths: Sequence[Path], before: float) -> int:
        """Looks at the times again: a put that renewed a file since keeps it, one that comes next makes it anew."""
        removed = 0
        for path in paths:
            with self._locked(fcntl.LOCK_EX), suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()
                    removed += 1
        return removed

    @contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        """Between moving in (many at a time) and removing (alone), in all processes that share the folder."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, kind)
            yield
        finally:
            os.close(descriptor)

    def _check(self) -> None:
        with disk_errors():
            try_out(self._drafts, self._vault)
            if shutil.disk_usage(self._folder).free < _LOW_SPACE_BYTES:
                raise StoreError(f"the disk of {self._folder} has less than 256 MiB left: make room")
