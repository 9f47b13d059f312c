"""Load on a server in a process of its own, and what arrives of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import aiohttp
from tests.support.process import ChartwireProcess
from tests.support.receiver import PATIENTLY, Receiver

_WRITERS = 4
LOAD_ENV = {
    **PATIENTLY,
    "CHARTWIRE_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
    "CHARTWIRE_REQUESTS_PER_SECOND": "0",
}
"""Settings of a server that is put under load."""


class Load:
    """Writers that have messages committed as fast as the server takes them, whatever happens to it.

    `up` says that the server is there; `refused` counts answers other than that the message is committed.
    """

    def __init__(self, base_url: str, api_key: str, endpoint_id: str) -> None:
        self.test_path = f"/v1/webhooks/endpoints/{endpoint_id}/test"
        self.path = f"{base_url}{self.test_path}"
        self.headers = {"x-api-key": api_key}
        self.acknowledged: list[str] = []
        self.up = asyncio.Event()
        self.refused = 0
        self.news = asyncio.Event()

    async def write(self) -> None:
        """Ask for one message after the other; what was acknowledged must arrive."""
        async with aiohttp.ClientSession(headers=self.headers) as session:
            while True:
                await self.up.wait()
                with suppress(aiohttp.ClientError):
                    async with session.post(self.path, json={"type": "medical.document-download"}) as answer:
                        if answer.status == 202:
                            self.acknowledged.append((await answer.json())["messageId"])
                        else:
                            self.refused += 1
                        self.news.set()

    async def until(self, count: int) -> None:
        """Return once so many have been acknowledged."""
        await self._until(lambda: len(self.acknowledged) >= count)

    async def until_refused(self, count: int) -> None:
        """Return once so many have been refused."""
        await self._until(lambda: self.refused >= count)

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self.news.clear()
            await self.news.wait()


@asynccontextmanager
async def load_on(server: ChartwireProcess, receiver: Receiver) -> AsyncIterator[Load]:
    """Writers for a new account whose messages go to `receiver`; they begin when `up` is set."""
    _, api_key = await server.create_account("Clinic")
    async with aiohttp.ClientSession(server.base_url, headers={"x-api-key": api_key}) as session:
        async with session.post("/settings", json={"webhookUrl": receiver.url}) as answer:
            assert answer.status == 200
        async with session.get("/v1/webhooks/endpoints") as answer:
            (endpoint,) = (await answer.json())["endpoints"]
    load = Load(server.base_url, api_key, endpoint["id"])
    writers = [asyncio.create_task(load.write()) for _ in range(_WRITERS)]
    try:
        yield load
    finally:
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)


def arrived(receiver: Receiver) -> set[str]:
    """Ids of the messages that a receiver got."""
    return {message.message_id for message in receiver.messages}
