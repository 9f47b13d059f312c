"""The bare machine: what a post, an answer and a synced write cost without anything that makes them dependable.

R   posts of a lean client that knows no bounds, deadline or end: build, sign, post, await the status
A   the same by aiohttp under the address rule, with a deadline and a bounded read
T   R with one post in flight: a round trip
F   an appended page and `fdatasync`
"""

import asyncio
import hmac
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import cast

import httptools

from bench.sink import Receivers
from bench.turns import Turn, keep_busy, peak_memory, percentile, spending
from chartwire.delivery.egress import PostRequest, Recipient
from chartwire.delivery.headers import header_lines
from chartwire.delivery.http.client import HttpEgress
from chartwire.outbound import vetted_session

LOOPBACK = (IPv4Network("127.0.0.0/8"),)
_KEY = b"abcdefghijklmnopqrstuvwxyz-_0123"
_WARM_UP = 0.2  # of the posts

Post = Callable[[str, Mapping[str, str], bytes], Awaitable[int]]
Client = Callable[[Receivers], AbstractAsyncContextManager[Post]]


def make_body(size: int) -> bytes:
    """A message of so many bytes."""
    start = b'{"meta":{"messageId":"1","type":"medical.document-download"},"patients":[{"patientId":"p1","filler":"'
    return start + b"x" * (size - len(start) - 4) + b'"}]}'


class _Connection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)

    def post(self, request: bytes) -> "asyncio.Future[int]":
        self._status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._status

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._status.set_result(self._parser.get_status_code())


@dataclass(slots=True)
class _Bare:
    receivers: Receivers
    idle: dict[str, list[_Connection]] = field(default_factory=dict)
    opened: list[asyncio.Transport] = field(default_factory=list)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        waiting = self.idle.setdefault(url, [])
        connection = waiting.pop() if waiting else await self._connect(url)
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        head = f"POST /webhook HTTP/1.1\r\nhost: sink\r\n{lines}content-length: {len(body)}\r\n\r\n"
        status = await connection.post(head.encode() + body)
        waiting.append(connection)
        return status

    async def _connect(self, url: str) -> _Connection:
        host, port = url.split("/")[2].split(":")
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, host, int(port), ssl=self.receivers.context())
        self.opened.append(connection.transport)
        return connection


@asynccontextmanager
async def bare(receivers: Receivers) -> AsyncIterator[Post]:
    """R."""
    client = _Bare(receivers)
    yield client.post
    for transport in client.opened:
        transport.abort()
    await asyncio.sleep(0)


@asynccontextmanager
async def with_aiohttp(receivers: Receivers) -> AsyncIterator[Post]:
    """A."""
    context = receivers.context()
    session = vetted_session(LOOPBACK, limit=512, limit_per_host=0, user_agent="Chartwire", ssl_context=context)

    async def post(url: str, headers: Mapping[str, str], body: bytes) -> int:
        async with (
            asyncio.timeout(15),
            session.post(url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            await response.content.read(16 * 1024)
            return response.status

    async with session:
        yield post


@asynccontextmanager
async def ours(receivers: Receivers) -> AsyncIterator[Post]:
    """The delivery client alone, without engine and database."""
    egress = HttpEgress(LOOPBACK, limit=512, ssl_context=receivers.context())
    recipients = {url: Recipient(url) for url in receivers.urls}

    async def post(url: str, headers: Mapping[str, str], body: bytes) -> int:
        return (await egress.post(PostRequest(recipients[url], header_lines(headers), body, 15))).status or 0

    yield post
    await egress.close()


async def post_all(client: Client, receivers: Receivers, count: int, body_bytes: int, in_flight: int) -> Turn:
    """`count` signed posts, after a warm-up in which the connections are opened."""
    body = make_body(body_bytes)
    async with client(receivers) as post:
        times: list[float] = []
        await post_some(post, receivers, int(count * _WARM_UP), body, in_flight, times)
        times.clear()
        with spending() as spent:
            await post_some(post, receivers, count, body, in_flight, times)
    return Turn(
        count / spent.seconds,
        spent.cpu / count * 1e6,
        percentile(times, 0.5),
        percentile(times, 0.99),
        memory_mebibytes=peak_memory(),
    )


async def post_some(
    post: Post, receivers: Receivers, count: int, body: bytes, in_flight: int, times: list[float]
) -> None:
    """`count` signed posts, so many at once; to `times` is added how long each took."""
    numbers = iter(range(count))

    async def work(_: int) -> None:
        for number in numbers:
            started = time.perf_counter()
            status = await post(receivers.urls[number % len(receivers.urls)], signed(f"msg_{number}", body), body)
            times.append(time.perf_counter() - started)
            assert status == 200, status

    await keep_busy(in_flight, work)


def signed(identifier: str, body: bytes) -> dict[str, str]:
    """The headers of every message, with two HMACs."""
    timestamp = str(int(time.time()))
    signature = hmac.digest(_KEY, f"{identifier}.{timestamp}.".encode() + body, "sha256").hex()
    return {
        "content-type": "application/json",
        "webhook-id": identifier,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{signature}",
        "x-metriport-signature": hmac.digest(_KEY, body, "sha256").hex(),
    }


async def sync_writes(folder: str, count: int) -> Turn:
    """F: what it takes until 4 KiB are on the disk; `ack` as well, which it is the measure of."""
    times: list[float] = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(count):
            started = time.perf_counter()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
    return Turn(count / sum(times), 0, p50, p99, p50, p99)
