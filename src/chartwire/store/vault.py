"""Sealing under the installation's data keys.

AES-256-GCM (NIST SP 800-38D) with one derived key per purpose (HKDF, RFC 5869). What a data key seals begins with that
key's name, so that several may be in use; the data keys themselves are rows of the database, sealed under the master
key (`store.data_keys`). Losing the master key loses every sealed thing: `docs/how-to/operate.md` says how to keep it.
"""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chartwire.errors import ConfigurationError, SealBrokenError

KEY_BYTES = 32
NAME_BYTES = 8
NONCE_BYTES = 12
TAG_BYTES = 16


class Purpose(StrEnum):
    """What a derived key is for; a thing sealed for one purpose does not open for another."""

    SIGNING_KEY = "signing-key"
    PAYLOAD = "payload"
    ANSWER = "answer"
    HEADER = "header"
    TLS = "tls"
    BLOB = "blob"
    LINK = "link"
    CURSOR = "cursor"
    ACCESS_TOKEN = "access-token"  # noqa: S105  a purpose, not a token
    SECOND_FACTOR = "second-factor"
    SIGN_IN = "sign-in"
    TRANSPORT = "transport"


@dataclass(frozen=True, slots=True)
class DataKey:
    """A key that things are sealed under. What one without a name seals begins with the nonce at once: the only key of
    an installation whose data was sealed before keys had names."""

    secret: bytes = field(repr=False)
    name: bytes = b""
    since: int = 0
    """When it began to seal, in milliseconds since 1970."""


class _Seals:
    """What one data key does."""

    def __init__(self, key: DataKey) -> None:
        if len(key.secret) != KEY_BYTES or len(key.name) not in {0, NAME_BYTES}:
            raise ConfigurationError("a key must have 32 bytes")
        self.name = key.name
        self.since = key.since
        self.keys = {purpose: _derive(key.secret, purpose) for purpose in Purpose}
        self._ciphers = {purpose: (AESGCM(derived), purpose.encode()) for purpose, derived in self.keys.items()}

    def seal(self, purpose: Purpose, plain: bytes) -> bytes:
        """The key's name, a nonce (12 bytes), ciphertext, tag (16 bytes)."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        cipher, label = self._ciphers[purpose]
        return self.name + nonce + cipher.encrypt(nonce, plain, label)

    def open(self, purpose: Purpose, sealed: bytes) -> bytes | None:
        """The inverse of `seal`, of what begins with this name; None if that was altered, or sealed by another."""
        cipher, label = self._ciphers[purpose]
        start = len(self.name) + NONCE_BYTES
        try:
            return cipher.decrypt(sealed[start - NONCE_BYTES : start], sealed[start:], label)
        except (InvalidTag, ValueError):
            return None


class Vault:
    """Seals under one data key, opens what any of those it holds has sealed, and derives keys for others."""

    def __init__(self, secret: bytes) -> None:
        """`secret`: 32 random bytes, of a key without a name."""
        self.hold([DataKey(secret)])

    @classmethod
    def of(cls, keys: Sequence[DataKey]) -> "Vault":
        """One that holds several keys and seals under the first."""
        vault = cls.__new__(cls)
        vault.hold(keys)
        return vault

    def hold(self, keys: Sequence[DataKey]) -> None:
        """Seal under the first of these from now on, and open what any of them has sealed."""
        held = [_Seals(key) for key in keys]
        self._held = {each.name: each for each in held}  # one step: other threads find the old keys or the new
        self._current = held[0]

    @property
    def name(self) -> bytes:
        """The name of the key that is sealed under."""
        return self._current.name

    @property
    def names(self) -> list[bytes]:
        """The names of all keys, in the order in which they were given."""
        return list(self._held)

    def seal(self, purpose: Purpose, plain: bytes) -> bytes:
        """The key's name (8 bytes, or none), a nonce (12 bytes), ciphertext, tag (16 bytes)."""
        return self._current.seal(purpose, plain)

    def open(self, purpose: Purpose, sealed: bytes) -> bytes:
        """The inverse of `seal`; raises `SealBrokenError`."""
        for name in (bytes(sealed[:NAME_BYTES]), b""):  # a nonce may begin as a name does
            held = self._held.get(name)
            if held is not None and (plain := held.open(purpose, sealed)) is not None:
                return plain
        raise SealBrokenError

    def key(self, purpose: Purpose) -> bytes:
        """The 32-byte key of a purpose, for making MACs and tokens."""
        return self._current.keys[purpose]

    def keys(self, purpose: Purpose) -> list[bytes]:
        """The keys of a purpose that what was made before is checked by, the current one first."""
        current = self._current
        return [current.keys[purpose], *(each.keys[purpose] for each in self._held.values() if each is not current)]

    def eldest_key(self, purpose: Purpose) -> bytes:
        """The key of a purpose that no new data key changes: for those who have a copy of it and cannot be told."""
        return min(self._held.values(), key=lambda each: each.since).keys[purpose]

    def pinned(self) -> "Vault":
        """One that seals under the current key alone, whatever this one is told meanwhile."""
        vault = type(self).__new__(type(self))
        vault._held, vault._current = self._held, self._current
        return vault


def _derive(secret: bytes, purpose: Purpose) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"chartwire/1/{purpose}".encode()).derive(secret)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
