"""A FHIR server of our own on a real socket, that answers what a test says and does wrong what a test wants."""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

import orjson
from aiohttp import web

from chartwire.addresses import IPNetwork
from chartwire.clock import Clock, system_clock
from chartwire.networks.fhir.network import FhirNetwork
from chartwire.settings import FhirNetworkSettings

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
LOOPBACK: tuple[IPNetwork, ...] = (ip_network("127.0.0.0/8"),)
PATIENT_ID = "pat-1"


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that the stub got."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass
class FhirStub:
    """Answers by method and path under `/fhir`: each answer once, the last for ever. What is not told is 404."""

    origin: str = ""
    seen: list[Seen] = field(default_factory=list)
    _answers: dict[tuple[str, str], list[Answer]] = field(default_factory=dict)

    @property
    def base_url(self) -> str:
        return f"{self.origin}/fhir"

    def on(self, method: str, path: str, *answers: Answer) -> None:
        """Say what to answer; `path` is relative to the base, or absolute."""
        self._answers[method, path if path.startswith("/") else f"/fhir/{path}"] = list(answers)

    def asked(self, path: str) -> list[Seen]:
        """The requests for a path."""
        wanted = path if path.startswith("/") else f"/fhir/{path}"
        return [each for each in self.seen if each.path == wanted]

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Called by the web server."""
        body = await request.read()
        self.seen.append(Seen(request.method, request.path, dict(request.query), dict(request.headers), body))
        answers = self._answers.get((request.method, request.path), [status(404)])
        return await (answers.pop(0) if len(answers) > 1 else answers[0])(request)


@asynccontextmanager
async def serve_stub(ssl_context: ssl.SSLContext | None = None) -> AsyncIterator[FhirStub]:
    """A stub that runs on a free port of 127.0.0.1."""
    stub = FhirStub()
    runner = web.ServerRunner(web.Server(stub.answer), shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context).start()
    scheme = "http" if ssl_context is None else "https"
    stub.origin = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield stub
    finally:
        await runner.cleanup()


@asynccontextmanager
async def connect(
    stub: FhirStub,
    *,
    allowed: tuple[IPNetwork, ...] = LOOPBACK,
    clock: Clock = system_clock,
    ssl_context: ssl.SSLContext | None = None,
    **settings: object,
) -> AsyncIterator[FhirNetwork]:
    """The network of a stub."""
    values = {"kind": "fhir", "name": "stub", "base_url": stub.base_url, **settings}
    network = FhirNetwork(FhirNetworkSettings.model_validate(values), allowed, clock, ssl_context=ssl_context)
    try:
        yield network
    finally:
        await network.close()


def says(value: object, code: int = 200, **headers: str) -> Answer:
    """Answer FHIR JSON."""
    return raw(orjson.dumps(value), "application/fhir+json", code, **headers)


def raw(body: bytes, content_type: str | None = None, code: int = 200, **headers: str) -> Answer:
    """Answer bytes; headers as `Retry_After="3"`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if content_type is not None:
        named["Content-Type"] = content_type

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=body, status=code, headers=named)

    return answer


def status(code: int, **headers: str) -> Answer:
    """Answer a status and an OperationOutcome whose text names a patient, as real servers do."""
    issue = {"severity": "error", "code": "processing", "diagnostics": "patient Ana Roe has a secret"}
    return says({"resourceType": "OperationOutcome", "issue": [issue]}, code, **headers)


def redirect(location: str, code: int = 302) -> Answer:
    """Answer with a redirect."""
    return raw(b"", None, code, Location=location)


async def break_off(request: web.BaseRequest) -> web.StreamResponse:
    """Promise 1000 bytes, send some, drop the connection."""
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/fhir+json"})
    await response.prepare(request)
    await response.write(b'{"resourceType":"Bundle","entry":[')
    assert request.transport is not None
    request.transport.abort()
    return response


async def never(_: web.BaseRequest) -> web.StreamResponse:
    """Answer nothing, for longer than anybody waits."""
    await asyncio.Event().wait()
    raise AssertionError("nothing sets the event")


def bundle(*resources: dict[str, Any], following: str | None = None, **search: object) -> dict[str, Any]:
    """A searchset; `following` is the URL of the next page, `search` belongs to each entry."""
    entries = [{"resource": resource, "search": {"mode": "match", **search}} for resource in resources]
    links = [{"relation": "next", "url": following}] if following is not None else []
    return {"resourceType": "Bundle", "type": "searchset", "link": links, "entry": entries}


def reference(key: str, url: str | None = None, **members: object) -> dict[str, Any]:
    """A DocumentReference with one attachment at `url`, by default `Binary/<key>`."""
    attachment = {"contentType": "application/xml", "url": url or f"Binary/{key}"}
    return {
        "resourceType": "DocumentReference",
        "id": key,
        "status": "current",
        "subject": {"reference": f"Patient/{PATIENT_ID}"},
        "content": [{"attachment": attachment}],
        **members,
    }


def inline(key: str, data: bytes, content_type: str = "text/plain") -> dict[str, Any]:
    """A DocumentReference that holds its document."""
    attachment = {"contentType": content_type, "data": b64encode(data).decode()}
    return reference(key, content=[{"attachment": attachment}])
