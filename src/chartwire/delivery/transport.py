"""What travels between those who have the database and those who post: sealed, so that the broker can read none of it.

AES-256-GCM (NIST SP 800-38D) under keys of one key, which workers get as a file. Each sender draws a salt, derives a
key of its own (HKDF, RFC 5869) and counts its nonces: however much is sent, none comes twice.

    frame    salt (16) nonce (12) ciphertext tag (16)
    plain    length of head (4) head (JSON) body (the bytes that are posted, or that were answered)
"""

import hmac
import secrets
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from itertools import count
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chartwire.clock import from_milliseconds, to_milliseconds
from chartwire.delivery.bus import Queue
from chartwire.delivery.egress import PostAnswer, PostRequest, Recipient
from chartwire.errors import SealBrokenError
from chartwire.model.webhook import Outcome, Timing
from chartwire.tls import TlsProfile

_SALT_BYTES, _NONCE_BYTES, _KEY_BYTES = 16, 12, 32
_FORMAT = 2
"""Goes into the tag, and up with every change of what a frame holds: releases that would not understand each other do
not meet on the broker."""

_SENDERS = 1024
"""So many senders' keys are remembered."""

_RECIPIENTS = 4096

BEGIN_WITHIN = 60.0
"""Seconds in which a posting must be begun; its deadline (30 at most) after them, its lease (120) still lasts."""

ANSWER_SLACK = 5.0
"""Seconds that an answer may take from a worker to who waits for it."""

WORKERS = "workers"
"""The lane of all who post for others."""

POSTINGS = Queue("postings", ack_wait=30 + ANSWER_SLACK, max_age=2 * BEGIN_WITHIN, lanes=(WORKERS,))
"""Ready to be posted; handed out again when a worker has not told the outcome within the longest deadline."""

ANSWERS = Queue("answers", ack_wait=10, max_age=2 * BEGIN_WITHIN)
"""How postings ended; each sender has a lane."""

PRESENCE = "present"
"""The topic on which workers tell that they are there."""


class _Kind(StrEnum):
    """What a frame holds; it opens as nothing else."""

    POSTING = "posting"
    ANSWER = "answer"


@dataclass(frozen=True, slots=True)
class Posting:
    """A request that is ready to be posted, once, by whoever gets it, if that is before `begin_by`.

    `id` is that of the attempt; `sender` wants to know how it ended.
    """

    id: str
    sender: str
    begin_by: datetime
    request: PostRequest


@dataclass(frozen=True, slots=True)
class Answered:
    """How the posting of an attempt ended."""

    id: str
    answer: PostAnswer
    timing: Timing


class Transport:
    """Seals and opens what travels. `tag` tells installations on one broker apart, and nothing else."""

    def __init__(self, key: bytes) -> None:
        """`key`: the 32 bytes of `Purpose.TRANSPORT`."""
        self._derive = lru_cache(_SENDERS)(lambda salt: AESGCM(_derive(key, salt)))
        self._salt = secrets.token_bytes(_SALT_BYTES)
        self._nonces = count()
        self.tag = hmac.digest(key, f"tag/{_FORMAT}".encode(), "sha256")[:4].hex()

    def seal_posting(self, posting: Posting) -> bytes:
        """For a worker."""
        request, recipient = posting.request, posting.request.recipient
        head = {
            "id": posting.id,
            "sender": posting.sender,
            "beginBy": to_milliseconds(posting.begin_by),
            "url": recipient.url,
            "headers": dict(recipient.headers),
            "lines": request.lines.decode("latin-1"),
            "deadline": request.deadline,
            "tls": None if recipient.tls is None else asdict(recipient.tls),
        }
        return self._seal(_Kind.POSTING, head, request.body)

    def open_posting(self, frame: bytes) -> Posting:
        """The inverse; raises `SealBrokenError`."""
        head, body = self._open(_Kind.POSTING, frame)
        tls = None if head["tls"] is None else TlsProfile(**head["tls"])
        recipient = _recipient(head["url"], tuple(head["headers"].items()), tls)
        request = PostRequest(recipient, head["lines"].encode("latin-1"), body, head["deadline"])
        return Posting(head["id"], head["sender"], from_milliseconds(head["beginBy"]), request)

    def seal_answer(self, answered: Answered) -> bytes:
        """For the sender of a posting."""
        answer = answered.answer
        head = {
            "id": answered.id,
            "status": answer.status,
            "retryAfter": answer.retry_after,
            "failure": answer.failure,
            "seconds": answer.seconds,
            "timing": list(answered.timing),
        }
        return self._seal(_Kind.ANSWER, head, answer.body)

    def open_answer(self, frame: bytes) -> Answered:
        """The inverse; raises `SealBrokenError`."""
        head, body = self._open(_Kind.ANSWER, frame)
        failure = None if head["failure"] is None else Outcome(head["failure"])
        answer = PostAnswer(head["status"], body, head["retryAfter"], failure, head["seconds"])
        return Answered(head["id"], answer, Timing(*head["timing"]))

    def _seal(self, kind: _Kind, head: Mapping[str, object], body: bytes) -> bytes:
        packed = orjson.dumps(head)
        nonce = next(self._nonces).to_bytes(_NONCE_BYTES, "big")
        plain = struct.pack(">I", len(packed)) + packed + body
        return self._salt + nonce + self._derive(self._salt).encrypt(nonce, plain, kind.encode())

    def _open(self, kind: _Kind, frame: bytes) -> tuple[Any, bytes]:
        salt, nonce = frame[:_SALT_BYTES], frame[_SALT_BYTES : _SALT_BYTES + _NONCE_BYTES]
        try:
            plain = self._derive(salt).decrypt(nonce, frame[_SALT_BYTES + _NONCE_BYTES :], kind.encode())
        except (InvalidTag, ValueError):
            raise SealBrokenError from None
        (length,) = struct.unpack_from(">I", plain)
        return orjson.loads(plain[4 : 4 + length]), plain[4 + length :]


def _derive(key: bytes, salt: bytes) -> bytes:
    return HKDF(SHA256(), _KEY_BYTES, salt=salt, info=b"chartwire/1/transport/sender").derive(key)


@lru_cache(maxsize=_RECIPIENTS)
def _recipient(url: str, headers: tuple[tuple[str, str], ...], tls: TlsProfile | None) -> Recipient:
    """The same for all messages that go there, so that it is prepared once."""
    return Recipient(url, dict(headers), tls)
