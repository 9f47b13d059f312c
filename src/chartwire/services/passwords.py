"""Passwords: what may be one, and how they are kept (argon2id, RFC 9106 §4, second recommended option)."""

import asyncio
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from chartwire.errors import BadRequestError
from chartwire.ids import url_safe

SHORTEST = 12
_LONGEST = 200
_GENERATED_CHARACTERS = 20  # 120 random bits
_AT_ONE_TIME = 2  # each takes 64 MiB and a processor for a moment

_hasher = PasswordHasher()


@cache
def _nobodys() -> str:
    """What a password is compared with when there is no such member: the answer must take as long."""
    return _hasher.hash(url_safe(_GENERATED_CHARACTERS))


def check_password(password: str, email: str) -> None:
    """Raises `BadRequestError` for a password that is too easily guessed (NIST SP 800-63B §5.1.1: length decides)."""
    if len(password) < SHORTEST:
        raise BadRequestError(f"The password needs at least {SHORTEST} characters: a few words do")
    if len(password) > _LONGEST:
        raise BadRequestError(f"The password may have at most {_LONGEST} characters")
    if password.lower() in email or len(set(password)) < 4:
        raise BadRequestError("The password is too easy to guess: take a few words of your own")


def generate_password() -> str:
    """A password for somebody else, to be replaced by one of their own."""
    return url_safe(_GENERATED_CHARACTERS)


def hash_password(password: str) -> str:
    """What is kept of a password."""
    return _hasher.hash(password)


class PasswordChecker:
    """Hashes and compares passwords beside the event loop, few at a time."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(_AT_ONE_TIME)

    async def hash(self, password: str) -> str:
        """As `hash_password`."""
        async with self._places:
            return await asyncio.to_thread(hash_password, password)

    async def matches(self, password: str, password_hash: str | None) -> bool:
        """Whether a password is that of a hash; takes as long, and says no, if there is none."""
        async with self._places:
            return (
                await asyncio.to_thread(_matches, password, password_hash or _nobodys()) and password_hash is not None
            )


def _matches(password: str, password_hash: str) -> bool:
    try:
        return _hasher.verify(password_hash, password[:_LONGEST])
    except (VerificationError, InvalidHashError):
        return False
