"""The demo's side of the HTTP API: an account's calls, with its key."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from chartwire.demo.installation import DemoError


class Api:
    """Calls the API of a Chartwire with an account's key; an answer that is no success raises `DemoError`."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, path: str, **query: str) -> Any:
        """GET `path`; returns the JSON of the answer."""
        return await self._call("GET", path, query)

    async def post(self, path: str, body: Any = None, **query: str) -> Any:
        """POST `body` as JSON; returns the JSON of the answer."""
        return await self._call("POST", path, query, body)

    async def fetch(self, url: str) -> tuple[str, bytes]:
        """Media type and bytes of what is at `url`."""
        async with self._session.get(url) as answer:
            if answer.status != 200:
                raise DemoError(f"GET {url} was answered with {answer.status}")
            return answer.content_type, await answer.read()

    async def _call(self, method: str, path: str, query: dict[str, str], body: Any = None) -> Any:
        async with self._session.request(method, path, params=query, json=body) as answer:
            if not answer.ok:
                raise DemoError(f"{method} {path} was answered with {answer.status}: {await answer.text()}")
            return await answer.json()


@asynccontextmanager
async def open_api(base_url: str, api_key: str) -> AsyncIterator[Api]:
    """Calls to the Chartwire at `base_url`."""
    async with aiohttp.ClientSession(base_url=base_url, headers={"x-api-key": api_key}) as session:
        yield Api(session)
