"""Links that open one document without a key: signed, short-lived, good for nothing else. And links to the next page.

    <public>/download/<document id>?type=<representation>&expires=<unix seconds>&signature=<hex>

The signature is HMAC-SHA256 (RFC 2104) over every other part as it is written, so no part can be altered; it is
compared in constant time and as text, because a decoded signature may have several spellings.
"""

import base64
import binascii
import hmac
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from urllib.parse import urlencode

import orjson

from chartwire.clock import EPOCH, Clock
from chartwire.errors import BadRequestError, ForbiddenError, SealBrokenError
from chartwire.store.vault import Purpose, Vault

_VERSION = "1"


class Representation(StrEnum):
    """What of a document a link gives: its bytes as they are, or a C-CDA document made readable."""

    ORIGINAL = "original"
    HTML = "html"
    PDF = "pdf"


class LinkSigner:
    """Makes links and checks them."""

    def __init__(self, vault: Vault, public_base: str, clock: Clock) -> None:
        self._vault = vault
        self._base = public_base
        self._clock = clock

    def sign(self, document_id: str, representation: Representation, lifetime: timedelta) -> str:
        """A link that is good for `lifetime` from now."""
        expires = str((self._clock() + lifetime - EPOCH) // timedelta(seconds=1))
        signature = _signature(self._vault.key(Purpose.LINK), document_id, representation, expires)
        query = urlencode({"type": representation.value, "expires": expires, "signature": signature})
        return f"{self._base}/download/{document_id}?{query}"

    def verify(self, document_id: str, representation: str, expires: str, signature: str) -> Representation:
        """What the link gives. Raises `ForbiddenError` if any part was altered, or if its time is over."""
        keys = self._vault.keys(Purpose.LINK)
        expected = [_signature(key, document_id, representation, expires) for key in keys]
        if not any(hmac.compare_digest(each.encode(), signature.encode()) for each in expected):
            raise ForbiddenError("The link is not valid")
        if EPOCH + timedelta(seconds=int(expires)) <= self._clock():
            raise ForbiddenError("The link has expired: ask for a new one")
        return Representation(representation)


def _signature(key: bytes, document_id: str, representation: str, expires: str) -> str:
    signed = "\n".join((_VERSION, document_id, representation, expires))
    return hmac.digest(key, signed.encode(), "sha256").hex()


class PageSealer:
    """Packs a search and where its next page begins into one opaque word.

    Sealed, not only signed: parameters of a search name patients, and this word goes into URLs, which get logged
    (MHD ITI-67 prefers POST for the same reason).
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def seal(self, parameters: Sequence[tuple[str, str]], after: str) -> str:
        """The word for the page that follows the item `after`."""
        plain = orjson.dumps([after, *parameters])
        return base64.urlsafe_b64encode(self._vault.seal(Purpose.CURSOR, plain)).decode().rstrip("=")

    def open(self, word: str) -> tuple[list[tuple[str, str]], str]:
        """The inverse of `seal`. Raises `BadRequestError` for anything else."""
        try:
            sealed = base64.b64decode(word + "=" * (-len(word) % 4), b"-_", validate=True)
            after, *parameters = orjson.loads(self._vault.open(Purpose.CURSOR, sealed))
        except (binascii.Error, ValueError, SealBrokenError):
            raise BadRequestError("The link to the next page is not one that was given") from None
        return [(name, value) for name, value in parameters], after
