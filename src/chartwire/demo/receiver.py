"""The app of the demo: a webhook receiver as a customer would write it, in full."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

_TOLERANCE_SECONDS = 300


def is_authentic(headers: Mapping[str, str], body: bytes, webhook_key: str, now: float) -> bool:
    """Whether both signatures were made with `webhook_key` over exactly these bytes.

    `webhook-signature` is that of Standard Webhooks 1.0.0: it covers id and time too, so that a message can neither be
    altered nor repeated later. `x-metriport-signature` is what receivers of Metriport's messages verify already. A new
    receiver verifies the first; one is enough.
    """
    key = webhook_key.encode()
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    standard = "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    given = headers["webhook-signature"].split()  # several while a key is being rotated
    fresh = abs(now - int(headers["webhook-timestamp"])) < _TOLERANCE_SECONDS
    metriport = hmac.digest(key, body, "sha256").hex()
    return (
        fresh
        and any(hmac.compare_digest(standard, each) for each in given)
        and hmac.compare_digest(metriport, headers["x-metriport-signature"])
    )


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came; `at` by the monotonic clock."""

    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def message(self) -> dict[str, Any]:
        """The body, parsed."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed

    def verified(self, webhook_key: str) -> bool:
        """Whether both signatures are right."""
        return is_authentic(self.headers, self.body, webhook_key, time.time())


class Receiver:
    """Answers at once and works later: `received` holds what came, in order of arrival."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[Received] = asyncio.Queue()
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        """Put the request aside; a ping is answered with its pong."""
        body = await request.read()
        self.received.put_nowait(Received(request.headers.copy(), body, time.monotonic()))
        ping = json.loads(body).get("ping")
        return web.json_response({"pong": ping} if ping else {})


@asynccontextmanager
async def run_receiver() -> AsyncIterator[Receiver]:
    """Run a receiver on a free port of loopback."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/webhook", receiver.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        receiver.url = f"http://{host}:{port}/webhook"
        yield receiver
    finally:
        await runner.cleanup()
