"""A member's visit to the console over HTTP, as a browser makes it: cookies kept, forms sent with their page's word."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from argon2 import PasswordHasher
from sqlalchemy import Connection
from tests.support.client import http_client
from tests.support.server import Installation

from chartwire.model.member import Member, Role
from chartwire.store import members, registry

PASSWORD = "correct horse battery staple"
# As little work to compare as argon2 allows: what a password costs is tested where passwords are.
_HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
_WORD = re.compile(r'name="form_word" value="([0-9a-f]{64})"')
SAME_ORIGIN = {"sec-fetch-site": "same-origin"}


async def add_account(installation: Installation, name: str = "Clinic") -> str:
    """A new account's id."""
    account = await installation.database.write(
        lambda connection: registry.create_account(connection, name, installation.clock())
    )
    return account.id


async def add_member(installation: Installation, account_id: str, email: str, role: Role = Role.OWNER) -> Member:
    """A member whose password is `PASSWORD`."""

    def unit(connection: Connection) -> Member:
        return members.insert_member(connection, account_id, email, role, _HASH, installation.clock())

    return await installation.database.write(unit)


@dataclass(slots=True)
class Visit:
    """A browser's window."""

    client: httpx.AsyncClient
    word: str = ""

    async def get(self, path: str, **params: Any) -> httpx.Response:
        """A page; its forms' word is remembered."""
        answer = await self.client.get(path, params=params or None)
        if found := _WORD.search(answer.text):
            self.word = found[1]
        return answer

    async def post(self, path: str, **fields: Any) -> httpx.Response:
        """Send a form of our own page."""
        return await self.client.post(path, data={"form_word": self.word, **fields}, headers=SAME_ORIGIN)

    async def sign_in(self, email: str, password: str = PASSWORD) -> httpx.Response:
        """Sign in, and look at the first page if that led in."""
        answer = await self.client.post(
            "/console/sign-in", data={"email": email, "password": password}, headers=SAME_ORIGIN
        )
        if answer.headers.get("location") == "/console":
            assert (await self.get("/console/me")).status_code == 200
        return answer


@asynccontextmanager
async def visiting(installation: Installation, email: str | None = None) -> AsyncIterator[Visit]:
    """A window, signed in as the member of that e-mail address."""
    async with http_client(base_url=installation.base_url) as client:
        visit = Visit(client)
        if email is not None:
            assert (await visit.sign_in(email)).status_code == 303
        yield visit
