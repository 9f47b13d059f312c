"""A document that is being written: sealed, on local disk, under a name that nobody asks for."""

import os
import secrets
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chartwire.errors import DocumentTooLargeError, StoreError
from chartwire.store.blobs import HEAD_BYTES, StoredBlob
from chartwire.store.byte_threads import PIECE_BYTES, in_byte_thread
from chartwire.store.sealed_file import SealedWriter
from chartwire.store.vault import Vault


class Draft:
    """A blob that is being written: complete or not, it has no name that anybody asks for."""

    def __init__(self, folder: Path, vault: Vault) -> None:
        self.path = folder / f"{os.getpid()}-{secrets.token_hex(8)}"
        self._vault = vault
        self._file: SealedWriter | None = None
        self._head = bytearray()
        self._waiting = bytearray()
        self._size = 0
        self._is_given_up = False
        self._lock = threading.Lock()  # whoever gives it up must not close the file under a thread that writes

    async def take(self, chunk: bytes, limit: int) -> None:
        """Append `chunk`, whatever its size. It is hashed, sealed and written in a thread, or waits for `finish`."""
        self._size += len(chunk)
        if self._size > limit:
            raise DocumentTooLargeError
        self._head += chunk[: HEAD_BYTES - len(self._head)]
        self._waiting += chunk
        if len(self._waiting) >= PIECE_BYTES:
            waiting, self._waiting = self._waiting, bytearray()
            await in_byte_thread(self._append, waiting)

    def finish(self) -> StoredBlob:
        """Complete the file and sync it."""
        with self._lock, disk_errors():
            writer = self._write(self._waiting)
            writer.finish()
            os.fsync(writer.descriptor)
        return StoredBlob(writer.sha256.hexdigest(), writer.sha1.hexdigest(), writer.size, bytes(self._head))

    def discard(self) -> None:
        """Remove the file, unless it has moved, and close it."""
        with self._lock:
            self._is_given_up = True
            if self._file is not None:
                try:
                    self.path.unlink(missing_ok=True)
                finally:
                    os.close(self._file.descriptor)

    def _append(self, data: bytearray) -> None:
        with self._lock, disk_errors():
            if not self._is_given_up:
                self._write(data)

    def _write(self, data: bytearray) -> SealedWriter:
        if self._file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._file = SealedWriter(os.open(self.path, flags, 0o600), self._vault)
        with memoryview(data) as view:
            for at in range(0, len(data), PIECE_BYTES):
                self._file.write(view[at : at + PIECE_BYTES])
        return self._file


async def write_draft(folder: Path, vault: Vault, chunks: AsyncIterator[bytes], limit: int) -> Draft:
    """A draft of all that `chunks` gives; it is the caller's to finish and to discard. Raises as `BlobStore.put`."""
    draft = Draft(folder, vault)
    try:
        async for chunk in chunks:
            await draft.take(chunk, limit)
    except BaseException:
        await in_byte_thread(draft.discard)
        raise
    return draft


def try_out(folder: Path, vault: Vault) -> None:
    """Write an empty draft and throw it away. Raises `StoreError`."""
    draft = Draft(folder, vault)
    try:
        draft.finish()
    finally:
        draft.discard()


@contextmanager
def disk_errors() -> Iterator[None]:
    """What the disk says becomes a `StoreError`, without names of files."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"the disk that holds documents failed: {error.strerror}") from None


def old_files(folder: Path, before: float) -> list[Path]:
    """The files of a folder that were last written before a moment, in seconds since 1970 by the disk's clock."""
    old = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if entry.stat(follow_symlinks=False).st_mtime < before:
                    old.append(Path(entry.path))
    return old
