"""Identifiers and secrets. Randomness is drawn here and nowhere else."""

import secrets

import uuid_utils


def new_id() -> str:
    """A UUID of version 7 (RFC 9562 §5.7): unguessable enough to expose, and ordered by time of creation."""
    return str(uuid_utils.uuid7())


def new_message_id() -> str:
    """A UUID of version 4 for a webhook message; it holds no dot, as Standard Webhooks requires of `webhook-id`.

    Its first 48 bits are the time: new ones come next to each other into the index that finds them, where each at
    random was a page to be written anew.
    """
    ordered = str(uuid_utils.uuid7())
    return f"{ordered[:14]}4{ordered[15:]}"


def url_safe(length: int) -> str:
    """`length` random characters of `A-Za-z0-9-_`, 6 bits each."""
    return secrets.token_urlsafe(length)[:length]


def new_oid(identifier: str) -> str:
    """The OID of a UUID: `2.25.` and its value as an integer (ITU-T X.667 §6)."""
    return f"2.25.{uuid_utils.UUID(identifier).int}"


def secret_bytes(length: int) -> bytes:
    """`length` random bytes, for keys."""
    return secrets.token_bytes(length)
