"""Signatures of a message, for every generation of receivers (`docs/reference/webhooks.md`, Headers).

webhook-signature        Standard Webhooks 1.0.0 over `id.timestamp.body`: `v1` HMAC-SHA256 or `v1a` Ed25519, one
                         for each key that signs now, separated by blanks
x-metriport-signature    hex HMAC-SHA256 of the body under the current webhook key
x-webhook-key            the current key itself: only for receivers of 2023, and only while it is not switched off
"""

from binascii import b2a_base64, hexlify
from collections.abc import Sequence
from functools import lru_cache
from typing import assert_never

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from chartwire.delivery.headers import headers_of
from chartwire.model.signing_key import SigningKey
from chartwire.model.webhook import Endpoint, PayloadVersion, SignatureScheme

_MANY = 4096  # keys that are kept prepared


def signature_headers(
    endpoint: Endpoint, keys: Sequence[SigningKey], message_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """The headers that prove a message; `keys` has the current one first, `timestamp` is in seconds since 1970."""
    proof = sign(endpoint.signature_scheme, keys, message_id, timestamp, body)
    return {**headers_of(proof), **key_headers(endpoint, keys)}


def key_headers(endpoint: Endpoint, keys: Sequence[SigningKey]) -> dict[str, str]:
    """The key itself, the same with every message, for receivers that compare it."""
    if endpoint.send_webhook_key and endpoint.payload_version is PayloadVersion.V2023_04:
        return {"x-webhook-key": keys[0].webhook_key}
    return {}


def sign(scheme: SignatureScheme, keys: Sequence[SigningKey], message_id: str, timestamp: int, body: bytes) -> bytes:
    """The headers that prove a message and give no key away, as lines (see `headers`).

    All but the id is made here, so the id alone is looked at: raises `ValueError` for one that ends a line.
    """
    if not message_id.isprintable():
        raise ValueError("an id holds a line break")
    name, current = message_id.encode("ascii"), keys[0]
    start = b"%b.%d." % (name, timestamp)
    signatures = _signature(scheme, current, start, body)
    for key in keys[1:]:
        signatures += b" " + _signature(scheme, key, start, body)
    return b"\r\nwebhook-id: %b\r\nwebhook-timestamp: %d\r\nwebhook-signature: %b\r\nx-metriport-signature: %b" % (
        name,
        timestamp,
        signatures,
        hexlify(_mac(current.webhook_key, body)),
    )


def _signature(scheme: SignatureScheme, key: SigningKey, start: bytes, body: bytes) -> bytes:
    match scheme:
        case SignatureScheme.V1:
            return b"v1," + b2a_base64(_mac(key.webhook_key, body, start), newline=False)
        case SignatureScheme.V1A:
            return b"v1a," + b2a_base64(_ed25519(key.seed).sign(start + body), newline=False)
        case _:
            assert_never(scheme)


def _mac(key: str, body: bytes, start: bytes = b"") -> bytes:
    """HMAC-SHA256 (RFC 2104) of `start` and `body`, by a copy of one that has read the key (`docs/decisions/0072`)."""
    mac = _keyed(key).copy()
    if start:
        mac.update(start)
    mac.update(body)
    return mac.finalize()


@lru_cache(_MANY)
def _keyed(key: str) -> HMAC:
    return HMAC(key.encode(), SHA256())


@lru_cache(_MANY)
def _ed25519(seed: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(seed)
