"""A real receiver of webhooks on a real socket: answers pings, records everything, can be told to misbehave."""

import asyncio
import hmac
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import orjson
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError
from tests.support.patience import PATIENCE_SECONDS

PATIENTLY = {"CHARTWIRE_WEBHOOK_TIMEOUT_SECONDS": "30", "CHARTWIRE_WEBHOOK_PING_TIMEOUT_SECONDS": "30"}
"""Settings of a server whose receivers may take as long as there is: how soon they answer is the busy machine's to say,
and an answer that comes too late is a failure, and for a ping the last word."""

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came in. `at` is the event loop's time in seconds; header names are in lower case."""

    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return orjson.loads(self.body)

    @property
    def message_id(self) -> str:
        """The `webhook-id` header."""
        return self.headers["webhook-id"]

    @property
    def is_ping(self) -> bool:
        """Whether it asks for a pong."""
        return "ping" in self.json

    @property
    def documents(self) -> list[Any]:
        """Every document in the message."""
        return [document for patient in self.json.get("patients", []) for document in patient["documents"]]

    def verifies_standard_webhooks(self, webhook_key: str) -> bool:
        """Whether `webhook-signature` holds a signature under `webhook_key`."""
        try:
            Webhook(webhook_key.encode()).verify(self.body, dict(self.headers))
        except WebhookVerificationError:
            return False
        return True

    def verify(self, webhook_key: str) -> None:
        """Check both symmetric signatures under the current `webhook_key`; raises `WebhookVerificationError`."""
        Webhook(webhook_key.encode()).verify(self.body, dict(self.headers))
        expected = hmac.digest(webhook_key.encode(), self.body, "sha256").hex()
        if not hmac.compare_digest(self.headers["x-metriport-signature"], expected):
            raise WebhookVerificationError("x-metriport-signature does not match")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered; `gate` holds the answer back until it is set."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    gate: asyncio.Event | None = None


class Receiver:
    """`async with Receiver() as receiver:` serves `receiver.url` on 127.0.0.1.

    Requests are answered by `answers` while there are any, then pings with their pong and messages with 200. With
    `webhook_key` set, each message is verified as it comes in and one that does not verify is answered 401.
    """

    def __init__(self, webhook_key: str | None = None, ssl_context: ssl.SSLContext | None = None) -> None:
        self.webhook_key = webhook_key
        self.requests: list[Received] = []
        self.answers: deque[Answer] = deque()
        self.refused = 0
        self._ssl_context = ssl_context
        self._news = asyncio.Event()
        self._port = 0
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._ssl_context)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Where it listens."""
        scheme = "http" if self._ssl_context is None else "https"
        return f"{scheme}://localhost:{self._port}/webhook"

    @property
    def messages(self) -> list[Received]:
        """Everything but pings."""
        return [request for request in self.requests if not request.is_ping]

    @property
    def pings(self) -> list[Received]:
        """Pings alone."""
        return [request for request in self.requests if request.is_ping]

    async def wait_for(self, predicate: Callable[["Receiver"], bool], timeout: float = PATIENCE_SECONDS) -> None:  # noqa: ASYNC109  as asyncio's own
        """Return as soon as `predicate` holds, looked at after each request; raises `TimeoutError`."""
        async with asyncio.timeout(timeout):
            while not predicate(self):
                self._news.clear()
                await self._news.wait()

    async def _handle(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        received = Received(headers, await request.read(), asyncio.get_running_loop().time())
        self.requests.append(received)
        self._news.set()
        answer = self.answers.popleft() if self.answers else self._default_answer(received)
        if answer.gate is not None:
            await answer.gate.wait()
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    def _default_answer(self, received: Received) -> Answer:
        if not self._is_genuine(received):
            self.refused += 1
            return Answer(401)
        if received.is_ping:
            return Answer(body=orjson.dumps({"pong": received.json["ping"]}))
        return Answer()

    def _is_genuine(self, received: Received) -> bool:
        try:
            if self.webhook_key is not None:
                received.verify(self.webhook_key)
        except WebhookVerificationError:
            return False
        return True


@asynccontextmanager
async def serve_raw(handler: Handler, ssl_context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A TCP server for answers that no HTTP library would give; yields its port. `handler` is run per connection."""
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (ConnectionError, EOFError, asyncio.CancelledError, ssl.SSLError):
            pass  # the client under test has gone away, or the test is over
        finally:
            writer.close()

    def start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(run(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(start, "127.0.0.1", 0, ssl=ssl_context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One HTTP request with a content-length, head and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    return head + await reader.readexactly(length)
