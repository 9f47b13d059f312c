"""What happens to every request before and after its route, as plain ASGI."""

import re
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chartwire import __version__
from chartwire.api.errors import problem, unexpected_problem
from chartwire.telemetry import Metrics, get_logger

_SLASHES = re.compile("/{2,}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_COMMON_HEADERS = ((b"x-chartwire-version", __version__.encode()), (b"x-content-type-options", b"nosniff"))
_NOT_KEPT = (b"cache-control", b"no-store")
"""Answers are health data and keys, and a cache that knows nothing of `x-api-key` would hand them to anybody."""

log = get_logger()


@dataclass(slots=True)
class PathMiddleware:
    """`//` is `/` and a trailing `/` is none: two methods of the npm client and a public sample depend on it."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on with the path as routes know it."""
        if scope["type"] == "http":
            scope = {**scope, "path": _SLASHES.sub("/", scope["path"]).rstrip("/") or "/"}
            if "\0" in scope["path"] or b"%00" in scope["query_string"]:  # PostgreSQL keeps no such text
                refusal = problem(400, "BadRequestError", "The path or the query holds a NUL character")
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, send)


@dataclass(slots=True)
class BodyLimitMiddleware:
    """Refuses a body over the limit: at once when its length is declared, else when it grows over it."""

    app: ASGIApp
    max_bytes: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on with a `receive` that counts."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif _declared_length(scope) > self.max_bytes:
            refusal = problem(413, "PayloadTooLargeError", "The request body is too large")
            await refusal(scope, receive, send)
        else:
            await self.app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        total = 0

        async def receive_counted() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > self.max_bytes:
                raise HTTPException(413)
            return message

        return receive_counted


def _declared_length(scope: Scope) -> int:
    value = dict(scope["headers"]).get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0


@dataclass(slots=True)
class ObservationMiddleware:
    """Counts answers by route template, adds what all have in common, and answers for errors that nobody foresaw."""

    app: ASGIApp
    metrics: Metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, and see how it ends."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        started: list[int] = []

        async def send_observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                started.append(message["status"])
                message = {**message, "headers": [*message.get("headers", []), *_COMMON_HEADERS]}
                if not any(name == b"cache-control" for name, _ in message["headers"]):
                    message["headers"].append(_NOT_KEPT)
            await send(message)

        try:
            await self.app(scope, receive, send_observed)
        except ClientDisconnect:
            return
        except Exception as error:
            log.exception("unexpected error", route=state.get("route"))
            if started:
                raise ConnectionResetError from None  # half an answer must not look like a whole one
            await unexpected_problem(error)(scope, receive, send_observed)
        finally:
            self._count(scope, state.get("route", "unmatched"), started)

    def _count(self, scope: Scope, route: str, started: list[int]) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        status = str(started[0]) if started else "none"
        self.metrics.requests.labels(route, method, status).inc()
