"""Signatures of a message, for every generation of receivers (`docs/reference/webhooks.md`, Headers).

webhook-signature        Standard Webhooks 1.0.0 over `id.timestamp.body`: `v1` HMAC-SHA256 or `v1a` Ed25519, one
                         for each key that signs now, separated by blanks
x-metriport-signature    hex HMAC-SHA256 of the body under the current webhook key
x-webhook-key            the current key itself: only for receivers of 2023, and only while it is not switched off
"""

import base64
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import assert_never

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chartwire.model.signing_key import SigningKey
from chartwire.model.webhook import Endpoint, PayloadVersion, SignatureScheme

_MANY = 4096  # keys that are kept prepared

_BLOCK_BYTES = 64
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
"""What each byte of a key becomes in front of the inner and of the outer hash."""


def signature_headers(
    endpoint: Endpoint, keys: Sequence[SigningKey], message_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """The headers that prove a message; `keys` has the current one first, `timestamp` is in seconds since 1970."""
    proof = sign(endpoint.signature_scheme, keys, message_id, timestamp, body)
    return {**proof, **key_headers(endpoint, keys)}


def key_headers(endpoint: Endpoint, keys: Sequence[SigningKey]) -> dict[str, str]:
    """The key itself, the same with every message, for receivers that compare it."""
    if endpoint.send_webhook_key and endpoint.payload_version is PayloadVersion.V2023_04:
        return {"x-webhook-key": keys[0].webhook_key}
    return {}


def sign(
    scheme: SignatureScheme, keys: Sequence[SigningKey], message_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """The headers that prove a message and give no key away."""
    start = f"{message_id}.{timestamp}.".encode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join([_signature(scheme, key, start, body) for key in keys]),
        "x-metriport-signature": _mac(keys[0].webhook_key, body).hex(),
    }


def _signature(scheme: SignatureScheme, key: SigningKey, start: bytes, body: bytes) -> str:
    match scheme:
        case SignatureScheme.V1:
            proof = _mac(key.webhook_key, start, body)
        case SignatureScheme.V1A:
            proof = _ed25519(key.seed).sign(start + body)
        case _:
            assert_never(scheme)
    return f"{scheme},{base64.b64encode(proof).decode()}"


def _mac(key: str, *parts: bytes) -> bytes:
    """HMAC-SHA256 (RFC 2104) from copies of hashes that have read the key (`docs/decisions/0067`)."""
    read_inner, read_outer = _hashes(key)
    inner, outer = read_inner.copy(), read_outer.copy()
    for part in parts:
        inner.update(part)
    outer.update(inner.digest())
    return outer.digest()


@lru_cache(_MANY)
def _hashes(key: str) -> tuple["hashlib._Hash", "hashlib._Hash"]:
    """The inner and the outer hash, to be copied, after the block that the key is to each."""
    secret = key.encode()
    block = (hashlib.sha256(secret).digest() if len(secret) > _BLOCK_BYTES else secret).ljust(_BLOCK_BYTES, b"\0")
    return hashlib.sha256(block.translate(_INNER)), hashlib.sha256(block.translate(_OUTER))


@lru_cache(_MANY)
def _ed25519(seed: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(seed)
