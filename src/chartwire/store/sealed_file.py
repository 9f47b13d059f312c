r"""The format of a document on disk and in a bucket: AES-256-GCM (NIST SP 800-38D) in chunks, each bound to its place.

    magic and version     8 bytes   b"CWBLOB\x00\x02"
    sealed header       108 bytes   file key (32), SHA-256 of the content (32) and its size (8), sealed by the vault,
                                    which begins with the name of the data key
    chunks                          65,536 bytes of content each, the last one up to that; each has its tag (16)

Version 1 is the same, its header (100 bytes) sealed under the data key that has no name.

The chunks follow the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár: "Online Authenticated-Encryption and its
Nonce-Reuse Misuse-Resistance", CRYPTO 2015): a nonce is the number of the chunk (11 bytes) and whether it is the last
(1 byte), so that chunks that were dropped, repeated or swapped do not open. No nonce serves twice: every file has
a random key of its own. The digest in the header catches a file that was put under another file's name.
"""

import hashlib
import os
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chartwire.errors import ContentLostError, SealBrokenError
from chartwire.store.vault import NAME_BYTES, NONCE_BYTES, TAG_BYTES, Purpose, Vault

CHUNK_BYTES = 64 * 1024

_MAGIC = b"CWBLOB\x00"
_UNNAMED, _NAMED = b"\x01", b"\x02"
_NAME_BYTES = {_UNNAMED: 0, _NAMED: NAME_BYTES}
_START_BYTES = len(_MAGIC) + 1
_HEADER = struct.Struct(">32s32sQ")


def _header_bytes(version: bytes) -> int:
    return _START_BYTES + _NAME_BYTES[version] + NONCE_BYTES + _HEADER.size + TAG_BYTES


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


def _chunk_count(size: int) -> int:
    return max(1, -(-size // CHUNK_BYTES))


class SealedWriter:
    """Writes content into an empty file as it comes, hashing it on the way."""

    def __init__(self, descriptor: int, vault: Vault) -> None:
        self.size = 0
        self.sha1 = hashlib.sha1(usedforsecurity=False)
        self.sha256 = hashlib.sha256()
        self.descriptor = descriptor
        self._vault = vault.pinned()  # how long the header is depends on the key
        self._version = _NAMED if self._vault.name else _UNNAMED
        self._key = secrets.token_bytes(32)
        self._cipher = AESGCM(self._key)
        self._number = 0
        self._pending = bytearray()
        os.lseek(descriptor, _header_bytes(self._version), os.SEEK_SET)

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`. The latest chunk is held back, because it may turn out to be the last."""
        self.size += len(data)
        self.sha1.update(data)
        self.sha256.update(data)
        self._pending += data
        while len(self._pending) > CHUNK_BYTES:
            self._write_chunk(self._pending[:CHUNK_BYTES], last=False)
            del self._pending[:CHUNK_BYTES]

    def finish(self) -> None:
        """Write the last chunk, then the header, without which the file does not open."""
        self._write_chunk(self._pending, last=True)
        header = _HEADER.pack(self._key, self.sha256.digest(), self.size)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        _write_all(self.descriptor, _MAGIC + self._version + self._vault.seal(Purpose.BLOB, header))

    def _write_chunk(self, plain: bytearray, *, last: bool) -> None:
        _write_all(self.descriptor, self._cipher.encrypt(_nonce(self._number, last), plain, None))
        self._number += 1


def _write_all(descriptor: int, data: bytes) -> None:
    remaining = memoryview(data)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]


class Source(Protocol):
    """Where sealed bytes are."""

    @property
    def piece_chunks(self) -> int:
        """How many chunks are worth one reading."""

    @property
    def size(self) -> int:
        """How many sealed bytes there are."""

    def read_at(self, length: int, offset: int) -> bytes:
        """So many bytes from `offset` on; fewer only at the end."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file that is open."""

    descriptor: int
    piece_chunks: int = 4  # 256 KiB are read and opened at a time

    @property
    def size(self) -> int:
        """See `Source.size`."""
        return os.fstat(self.descriptor).st_size

    def read_at(self, length: int, offset: int) -> bytes:
        """See `Source.read_at`."""
        return os.pread(self.descriptor, length, offset)


@dataclass(frozen=True, slots=True)
class SealedReader:
    """Reads any range of a document; makes sure that every byte it gives is the one that was written."""

    size: int
    _source: Source
    _cipher: AESGCM
    _start: int

    @classmethod
    def open(cls, source: Source, vault: Vault, sha256: str) -> "SealedReader":
        """The content whose digest is `sha256`; raises `SealBrokenError` if the source is not that, whole."""
        start = source.read_at(_header_bytes(_NAMED), 0)
        if not start.startswith(_MAGIC) or len(start) < _header_bytes(_UNNAMED):
            raise SealBrokenError
        version = start[len(_MAGIC) : _START_BYTES]
        if version not in _NAME_BYTES:
            raise ContentLostError("a stored document has a format that this release does not know")
        end = _header_bytes(version)
        key, digest, size = _HEADER.unpack(vault.open(Purpose.BLOB, start[_START_BYTES:end]))
        whole = end + size + _chunk_count(size) * TAG_BYTES
        if digest.hex() != sha256 or source.size != whole:
            raise SealBrokenError
        return cls(size, source, AESGCM(key), end)

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to `end` (`0 <= start`, `end <= size`), a few chunks at a time."""
        while start < end:
            first = start // CHUNK_BYTES
            offset = first * CHUNK_BYTES
            piece = self._open_chunks(first, min(self._source.piece_chunks, _chunk_count(end) - first))
            yield piece[start - offset : end - offset]
            start = offset + len(piece)

    def _open_chunks(self, first: int, count: int) -> bytes:
        sealed_bytes = CHUNK_BYTES + TAG_BYTES
        sealed = memoryview(self._source.read_at(count * sealed_bytes, self._start + first * sealed_bytes))
        last = _chunk_count(self.size) - 1
        return b"".join(
            self._open_chunk(sealed[index * sealed_bytes : (index + 1) * sealed_bytes], first + index, last)
            for index in range(count)
        )

    def _open_chunk(self, sealed: memoryview, number: int, last: int) -> bytes:
        try:
            return self._cipher.decrypt(_nonce(number, number == last), sealed, None)
        except (InvalidTag, ValueError):
            raise SealBrokenError from None
