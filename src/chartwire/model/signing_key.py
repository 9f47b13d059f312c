"""The key of an endpoint, in every spelling that receivers know.

One key serves both symmetric signatures: the customer's `webhookKey` is text, `whsec_…` is Base64 of the same bytes
(Standard Webhooks 1.0.0). The Ed25519 pair has a seed of its own: were it derived from `webhookKey`, everyone who can
verify could also sign.
"""

import base64
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SEED_BYTES = 32
WEBHOOK_KEY_LENGTH = 32
"""Characters of `webhookKey`; 24 to 64 bytes are what Standard Webhooks asks of a symmetric key."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """`webhook_key` is ASCII; `seed` is that of the Ed25519 pair; `expires_at` is None for the current key."""

    webhook_key: str
    seed: bytes
    created_at: datetime
    expires_at: datetime | None = None

    @property
    def symmetric(self) -> str:
        """`whsec_…`: what verifies `v1` signatures."""
        return "whsec_" + base64.b64encode(self.webhook_key.encode()).decode()

    @property
    def public(self) -> str:
        """`whpk_…`: what verifies `v1a` signatures."""
        return "whpk_" + base64.b64encode(self.private.public_key().public_bytes_raw()).decode()

    @property
    def private(self) -> Ed25519PrivateKey:
        """What signs `v1a`; never leaves this installation."""
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    def __repr__(self) -> str:
        """Without the secrets: a key must not end up in a log by way of a traceback."""
        return f"SigningKey(created_at={self.created_at!r}, expires_at={self.expires_at!r})"
