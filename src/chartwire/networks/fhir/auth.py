"""Credentials for a FHIR server: none, or a bearer token that an operator put into a file.

`smart` has the third kind. The client asks for the `Authorization` header before each request to a trusted origin, and
says once per request when the server refused it.
"""

import asyncio
from pathlib import Path
from typing import Protocol

from chartwire.errors import ConfigurationError, IssueCode, PermanentNetworkError


class Credentials(Protocol):
    """What proves to the server who asks."""

    async def header(self) -> str | None:
        """The value of `Authorization`; None to send none. Raises `NetworkError` if there is none to be had."""

    async def renew(self, refused: str | None) -> bool:
        """The server answered 401 to `refused`: whether `header` now gives something else."""


class NoCredentials:
    """For servers that ask for none."""

    async def header(self) -> str | None:
        """Nothing is sent."""
        return None

    async def renew(self, refused: str | None) -> bool:
        """There is nothing to renew."""
        del refused
        return False


class BearerFile:
    """A token in a file, read again when the server refuses it: an operator replaces it without a restart.

    Raises `ConfigurationError` if the file holds none at the start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._header = self._read()
        except OSError as error:
            raise ConfigurationError(f"bearer_token_file: {path} cannot be read: {error.strerror}") from None
        except ValueError:
            raise ConfigurationError(f"bearer_token_file: {path} holds no usable token") from None

    async def header(self) -> str:
        """`Bearer <token>`."""
        return self._header

    async def renew(self, refused: str | None) -> bool:
        """Read the file again."""
        try:
            self._header = await asyncio.to_thread(self._read)
        except (OSError, ValueError):
            raise PermanentNetworkError(IssueCode.UNAUTHORIZED, "bearer_token_file holds no usable token") from None
        return self._header != refused

    def _read(self) -> str:
        return bearer(self._path.read_text(encoding="ascii").strip())


def bearer(token: str) -> str:
    """`Bearer <token>` (RFC 6750 §2.1). Raises `ValueError` if `token` cannot be sent in a header."""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("not a bearer token")
    return f"Bearer {token}"
