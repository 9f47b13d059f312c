"""How a FHIR server is asked: one place for credentials, redirects, deadlines and bounded answers.

Credentials go to trusted origins only: the base URL's own, and those the operator listed. Other origins are reached, by
`fetch` alone, without credentials and under the address rule.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import aiohttp
import orjson
from yarl import URL

from chartwire.clock import Clock
from chartwire.errors import IssueCode, PermanentNetworkError, TemporaryNetworkError
from chartwire.model.document import JsonObject
from chartwire.networks.fhir.auth import Credentials
from chartwire.networks.fhir.decoding import decoded
from chartwire.networks.fhir.failures import from_status, wire_errors

FHIR_JSON = "application/fhir+json"
MAX_JSON_BYTES = 64 * 1024 * 1024
MAX_REDIRECTS = 3

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `leave_origin`: whether it may go, and be redirected, to origins that are not trusted."""

    url: URL
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    leave_origin: bool = False


class FhirClient:
    """Asks one FHIR server. `base` has no trailing slash; `session` gives the open session, in the running loop."""

    def __init__(
        self,
        base: URL,
        trusted_origins: frozenset[URL],
        credentials: Credentials,
        session: Callable[[], aiohttp.ClientSession],
        clock: Clock,
    ) -> None:
        self.base = base
        self._trusted = trusted_origins | {base.origin()}
        self._credentials = credentials
        self._session = session
        self._clock = clock

    def trusts(self, url: URL) -> bool:
        """Whether credentials may be sent to `url`."""
        return is_web_url(url) and url.origin() in self._trusted

    def resolve(self, reference: str) -> URL:
        """The absolute URL of a reference that is relative to the service base (FHIR R4 §2.3.0.1).

        Raises `ValueError` if it is none.
        """
        return URL(f"{self.base}/").join(parse_url(reference))

    async def get_json(self, path_or_url: str | URL, seconds: float) -> JsonObject:
        """The JSON object at a URL of a trusted origin, or at a path under the base. `seconds` for all of it."""
        url = self.resolve(path_or_url) if isinstance(path_or_url, str) else path_or_url
        return await self._ask(Request(url, headers={"Accept": FHIR_JSON}), seconds)

    async def post_json(self, path: str, body: JsonObject, seconds: float) -> JsonObject:
        """Send a FHIR resource to an operation under the base; the answer is a JSON object."""
        headers = {"Accept": FHIR_JSON, "Content-Type": FHIR_JSON}
        request = Request(self.resolve(path), "POST", headers, orjson.dumps(body))
        return await self._ask(request, seconds)

    async def post_form(self, path: str, form: Mapping[str, str], seconds: float) -> JsonObject:
        """Send a search whose parameters stay out of URLs and access logs (FHIR R4 §3.1.1.2)."""
        headers = {"Accept": FHIR_JSON, "Content-Type": "application/x-www-form-urlencoded"}
        body = URL.build(query=dict(form)).raw_query_string.encode()
        return await self._ask(Request(self.resolve(path), "POST", headers, body), seconds)

    async def fetch(self, url: URL, accept: str, seconds: float) -> aiohttp.ClientResponse:
        """Open a GET whose answer, a 2xx, may come from anywhere that the address rule allows. Give it to `finish`.

        `seconds` cover the reading of the body too.
        """
        return await self._open(Request(url, headers={"Accept": accept}, leave_origin=True), seconds)

    async def _ask(self, request: Request, seconds: float) -> JsonObject:
        response = await self._open(request, seconds)
        try:
            return await read_json(response)
        finally:
            finish(response)

    async def _open(self, request: Request, seconds: float) -> aiohttp.ClientResponse:
        """Send, following redirects; an answer that is no success raises the error it means."""
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._send_as_ourselves(request, seconds)
            if response.status not in _REDIRECTS:
                break
            response.close()
            request = _redirected(request, response)
        else:
            raise PermanentNetworkError(IssueCode.INVALID_ANSWER, "the server redirects in circles")
        if response.status not in range(200, 300):
            response.close()
            raise from_status(response.status, response.headers, self._clock)
        return response

    async def _send_as_ourselves(self, request: Request, seconds: float) -> aiohttp.ClientResponse:
        """Send with our credentials where they may go; a 401 is answered by renewing them, once."""
        if not self.trusts(request.url):
            if not request.leave_origin:
                raise PermanentNetworkError(IssueCode.FOREIGN_ORIGIN, "the server points to another origin")
            return await self._send(request, None, seconds)
        header = await self._credentials.header()
        response = await self._send(request, header, seconds)
        if response.status == 401:
            response.close()  # before renewing, which may need the connection
            if await self._credentials.renew(header):
                response = await self._send(request, await self._credentials.header(), seconds)
        return response

    async def _send(self, request: Request, authorization: str | None, seconds: float) -> aiohttp.ClientResponse:
        headers = dict(request.headers) | ({} if authorization is None else {"Authorization": authorization})
        with wire_errors():
            for fresh in (False, True):
                try:
                    return await self._session().request(
                        request.method,
                        request.url,
                        headers=headers,
                        data=request.body,
                        allow_redirects=False,
                        timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=min(10.0, seconds)),
                    )
                except aiohttp.ServerDisconnectedError:
                    # The server closed an idle connection while we wrote: aiohttp repeats a GET by itself, but not
                    # a POST. Ours are searches, which are safe to send again.
                    if fresh or request.method == "GET":
                        raise
        raise AssertionError("the loop returns or raises")


async def read_json(response: aiohttp.ClientResponse, limit: int = MAX_JSON_BYTES) -> JsonObject:
    """The body as a JSON object of at most `limit` bytes."""
    body = bytearray()
    async for chunk in decoded(response, limit):
        body += chunk
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:  # a proxy's page, perhaps: the next answer may be better
        raise TemporaryNetworkError(IssueCode.INVALID_ANSWER, "the answer is not JSON") from None
    if not isinstance(parsed, dict):
        raise PermanentNetworkError(IssueCode.INVALID_ANSWER, "the answer is not a JSON object")
    return parsed


def finish(response: aiohttp.ClientResponse) -> None:
    """Give the connection back if the body was read to its end, else close it."""
    if response.content.at_eof():
        response.release()
    else:
        response.close()


def parse_url(text: str) -> URL:
    """Raises `ValueError` for what is none, where yarl lets an `IndexError` of its own pass (`https://[]@`)."""
    try:
        return URL(text)
    except IndexError:
        raise ValueError("not a URL") from None


def is_web_url(url: URL) -> bool:
    """Whether `url` is absolute, http or https, with a host."""
    return url.scheme in {"http", "https"} and url.host is not None


def _redirected(request: Request, response: aiohttp.ClientResponse) -> Request:
    try:
        target = request.url.join(parse_url(response.headers.get("Location", "")))
    except ValueError:
        target = URL()
    if not is_web_url(target) or target == request.url:
        raise PermanentNetworkError(IssueCode.INVALID_ANSWER, "the server redirects to nowhere")
    if response.status == 303:
        return replace(request, url=target, method="GET", body=None)
    return replace(request, url=target)
