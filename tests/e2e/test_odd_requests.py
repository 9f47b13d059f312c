"""Requests that no good client sends: each gets a plain answer in the API's own words, and changes nothing."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import pytest_asyncio
from tests.support.customer import SANDBOX, Customer, settle
from tests.support.journey import ADDRESS
from tests.support.process import ChartwireProcess
from tests.support.raw_http import RawAnswer, exchange, read_answers, request_bytes
from tests.support.receiver import Receiver

pytestmark = pytest.mark.asyncio(loop_scope="module")

LARGEST_BODY = 100_000
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "SEARCH")
HEADS = frozenset({("HEAD", target) for target in ("/", "/healthz", "/readyz")})
"""Routes that load balancers look at by HEAD; it is not in the OpenAPI document."""
ADDRESS_JSON = json.dumps(ADDRESS).encode()
JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}

NOT_MADE = {"name": "warehouse", "replay_id": "0199c0de-7b1a-7c55-8a51-5f0c8d1e2f3a"}

TRACES = (b"Traceback", b"site-packages", b".py", b"Exception", b"pydantic", b"sqlite", b"0x7")
"""What a stack trace, or a message of a library, would show."""

ODD_PATH_PARTS = (
    *(
        "%2F",
        "..%2F..%2Fetc%2Fpasswd",
        "%2e%2e",
        "%",
        "%zz",
        "%C0%AF",
        "%ff%fe",
        "%00",
        "a%00b",
        "%0d%0aX-Injected:%201",
    ),
    *("'%20OR%201=1--", "%F0%9F%98%80", "+", "*", ";a=b", "-1", "0", "null", "{id}", "9" * 60, "a" * 5000),
)
ODD_QUERY_VALUES = (
    *(part for part in ODD_PATH_PARTS if part != "0"),
    *("%22%22%22", "%22unclosed", "((((", "-", "or", "%", "_", "1e999", "NaN", "99999999999999999999"),
    *("2024-13-45", "0000-00-00", "9999-12-31", "10000-01-01", "2024-01-01T00:00:00Z", ",,,", "|", "a|b|c", "%0A"),
)
ODD_BODIES: tuple[tuple[bytes, Mapping[str, str]], ...] = (
    (b"{", JSON),
    (b"[]", JSON),
    (b"1", JSON),
    (b"-0.0", JSON),
    (b'"text"', JSON),
    (b"true", JSON),
    (b"[null]", JSON),
    (b"NaN", JSON),
    (b"\xff\xfe{\x00}\x00", JSON),
    (b"\xef\xbb\xbf[]", JSON),
    (b'{"a": "\xff"}', JSON),
    (b'{"name": "\\ud800"}', JSON),
    (b'{"firstName": "a\\u0000b"}', JSON),
    (b'{"name": 1' + b"0" * 6000 + b"}", JSON),
    (b'{"name": 1e999}', JSON),
    (b"[" * 50_000, JSON),
    (b'{"a":' * 15_000 + b"1" + b"}" * 15_000, JSON),
    (b'{"metadata": {"": "", "' + b"k" * 41 + b'": 1}}', JSON),
    (b'{"metadata": null, "webhookUrl": 7, "url": [], "name": null, "facilityIds": [{}]}', JSON),
    (b"<xml/>", {"content-type": "application/xml"}),
    (b"text", {"content-type": "text/plain; charset=klingon"}),
    (b"a=1&a=%ff&=&%zz", FORM),
    (b"_count=-1&patient=%00&date=yesterday", FORM),
    (b"grant_type=client_credentials&client_id=%ff&client_secret=%00", FORM),
    (b"--x\r\nbroken", {"content-type": "multipart/form-data; boundary=x"}),
    (b"--x\r\nbroken", {"content-type": "multipart/form-data"}),
    (b"[]", {"content-type": "é/\\"}),
    (b"\x1f\x8b\x08\x00", {**JSON, "content-encoding": "gzip"}),
)


ODD_HEADERS: tuple[Mapping[str, str | bytes], ...] = (
    {"x-api-key": b"\xff\xfe"},
    {"x-api-key": ""},
    {"x-api-key": "a" * 50_000},
    {"x-api-key": "", "authorization": "Bearer"},
    {"x-api-key": "", "authorization": "Bearer " + "a.b.c"},
    {"x-api-key": "", "authorization": "Bearer " + "." * 1000},
    {"x-api-key": "", "authorization": b"Bearer \xe9.\xe9.\xe9"},
    {"x-api-key": "", "authorization": "Basic !!!"},
    {"x-api-key": "", "authorization": "Basic " + "/" * 999},
    {"accept": "*/*;q=nan, application/fhir+json;q=1;q=-0, ;;;,,,"},
    {"accept": "a" * 10_000},
    {"accept": b"\xff/\xff"},
    {"range": "bytes=99999999999999999999-"},
    {"range": "bytes=-0"},
    {"range": "bytes=5-2,,-,0-0"},
    {"range": "bytes=" + "0-0," * 1000},
    {"range": b"bytes=\xb2-\xb3"},
    {"range": "bytes=0-0", "if-range": '"'},
    {"if-none-match": '"' * 1001},
    {"if-modified-since": "yesterday"},
    {"expect": "100-continue"},
    {"expect": "a miracle"},
    {"upgrade": "h2c", "http2-settings": "AAMAAABkAAQAAP__"},
    {"upgrade": "websocket", "sec-websocket-key": "x", "sec-websocket-version": "13"},
    {"host": "evil.example.org", "x-forwarded-host": "evil.example.org", "x-forwarded-proto": "gopher"},
    {"cookie": "a=" + "b" * 10_000},
    {f"x-{number}": "y" for number in range(500)},
)

OWN_VALUES = {"patientId": "nobody", "hieOptOut": "perhaps", "type": "original", "expires": "1", "signature": "x"}
"""What a request whose body is odd is given as parameters, so that it could do nothing if its body were good."""


@dataclass(frozen=True)
class Operation:
    """A route of the OpenAPI document; `target` has the customer's real ids in its path."""

    method: str
    template: str
    target: str
    query_names: tuple[str, ...]
    takes_body: bool

    @property
    def is_read(self) -> bool:
        """Whether it changes nothing, whatever it is sent."""
        reads = ("/_search", "/match", "/oauth/token", "/$status", "/$events")  # asked by POST, they change nothing
        return self.method in {"GET", "HEAD"} or self.template.endswith(reads)

    def with_query(self, **odd: str) -> str:
        """The target with parameters."""
        values = {name: OWN_VALUES.get(name, "x") for name in self.query_names} | odd
        return f"{self.target}?" + "&".join(f"{name}={value}" for name, value in values.items())


@dataclass(frozen=True)
class Scene:
    """A server with a customer, and all that can be asked of it."""

    server: ChartwireProcess
    customer: Customer
    operations: tuple[Operation, ...]

    async def send(
        self, method: str, target: str, headers: Mapping[str, str | bytes] | None = None, body: bytes | None = None
    ) -> RawAnswer:
        """The answer to one request with the customer's key, checked for what holds for every answer."""
        given: dict[str, str | bytes] = {"x-api-key": self.customer.api_key, **(headers or {})}
        received = await exchange(self.server.port, request_bytes(method, target, given, body))
        [answer] = read_answers(received, method)
        check_form(answer, f"{method} {target[:200]} {(body or b'')[:80]!r}")
        return answer

    async def everything(self) -> dict[str, bytes]:
        """What the customer can read of all that a request might change."""
        who = self.customer
        patient = f"/medical/v1/patient/{who.patient_id}"
        of_patient = f"patientId={who.patient_id}"
        targets = (
            *("/medical/v1/organization", "/medical/v1/facility", "/medical/v1/patient", f"{patient}/facility"),
            *(
                f"{patient}/hie-opt-out",
                f"/medical/v1/document?{of_patient}",
                f"/medical/v1/document/query?{of_patient}",
            ),
            *("/settings", "/settings/webhook", "/v1/webhooks/endpoints"),
            f"/v1/webhooks/endpoints/{who.endpoint_id}/keys",
        )
        return {target: (await self.send("GET", target)).body for target in targets}


def check_form(answer: RawAnswer, context: str) -> None:
    """No error of ours, no trace of code, and errors only in the forms that the API documents."""
    assert answer.status < 500, context
    if answer.status < 400:
        return
    assert not [trace for trace in TRACES if trace in answer.body], (context, answer.body)
    if not answer.body:  # an answer to HEAD, and a range that cannot be met
        return
    if answer.content_type == "application/fhir+json":
        assert answer.json["resourceType"] == "OperationOutcome", context
    elif answer.content_type == "text/plain":  # what is not HTTP is not for the API to answer
        assert (answer.status, answer.body) == (400, b"Invalid HTTP request received."), context
    else:
        assert answer.content_type == "application/json", context
        check_error(answer, context)


def check_error(answer: RawAnswer, context: str) -> None:
    """One of the three forms of error bodies: a problem, a bare message, an OAuth refusal."""
    body = answer.json
    match sorted(body):
        case ["message"]:
            assert (answer.status, body["message"]) in {
                (403, "Forbidden"),
                (404, "Not Found"),
                (405, "Method Not Allowed"),
            }, context
        case ["error", "error_description"]:
            assert re.fullmatch("[a-z_]+", body["error"]), context
        case _:
            assert set(body) <= {"status", "title", "detail", "name", "additionalInfo"}, context
            assert body["status"] == answer.status, context
            assert all(isinstance(body[name], str) for name in ("title", "detail", "name")), context


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("odd")
    env = {**SANDBOX, "CHARTWIRE_MAX_REQUEST_BYTES": str(LARGEST_BODY)}
    async with Receiver() as receiver, ChartwireProcess(folder / "data", env) as server:
        customer = await settle(server, receiver, "Clinic")
        async with aiohttp.request("GET", f"{server.base_url}/openapi.json") as answer:
            operations = tuple(_operations(await answer.json(), customer))
        yield Scene(server, customer, operations)


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def nothing_is_changed_nor_logged_as_an_error(scene: Scene) -> AsyncIterator[None]:
    before = await scene.everything()
    yield
    assert await scene.everything() == before
    assert '"level": "error"' not in scene.server.log()


def _operations(openapi: dict[str, Any], customer: Customer) -> Iterator[Operation]:
    for template, methods in openapi["paths"].items():
        for method, described in methods.items():
            parameters = described.get("parameters", [])
            yield Operation(
                method=method.upper(),
                template=template,
                target=re.sub(r"\{(\w+)\}", lambda match: quote(_id_of(customer, match[1])), template),
                query_names=tuple(each["name"] for each in parameters if each["in"] == "query"),
                takes_body="requestBody" in described,
            )


def _id_of(customer: Customer, name: str) -> str:
    """What a customer has of this name; a reader and a replay are what a customer may have, and this one has none."""
    return NOT_MADE.get(name) or str(getattr(customer, name))


async def test_odd_ids_in_paths_are_ids_of_nothing(scene: Scene) -> None:
    for operation in scene.operations:
        for odd in ODD_PATH_PARTS if "{" in operation.template else ():
            target = operation.template.partition("{")[0] + odd + operation.template.rpartition("}")[2]
            answer = await scene.send(operation.method, target)
            is_list = odd == "%2F" and operation.is_read  # a slash is a slash, and one at the end is none
            assert answer.status >= 400 or is_list, f"{operation.method} {target}"


async def test_odd_values_of_parameters(scene: Scene) -> None:
    for operation in scene.operations:
        for name in operation.query_names:
            for odd in ODD_QUERY_VALUES:
                answer = await scene.send(operation.method, operation.with_query(**{name: odd}))
                assert answer.status >= 400 or operation.is_read, f"{operation.method} {operation.target} {name}={odd}"


async def test_a_parameter_given_twice_is_refused_or_searched_for_twice(scene: Scene) -> None:
    for operation in scene.operations:
        for name in operation.query_names:
            target = operation.with_query(**{name: f"x&{name}=y"})
            answer = await scene.send(operation.method, target)
            is_search = operation.template.startswith("/oauth/fhir/")
            assert answer.status == 400 or is_search, target


async def test_odd_bodies(scene: Scene) -> None:
    for operation in scene.operations:
        for body, headers in ODD_BODIES if operation.takes_body else ():
            answer = await scene.send(operation.method, operation.with_query(), headers, body)
            assert answer.status >= 400 or operation.is_read, f"{operation.method} {operation.target} {body[:80]!r}"


async def test_odd_headers(scene: Scene) -> None:
    for operation in scene.operations:
        for headers in ODD_HEADERS:
            if operation.is_read:
                await scene.send(operation.method, operation.with_query(), headers)


async def test_a_change_for_a_version_that_is_not_there_is_refused(scene: Scene) -> None:
    body = b'{"name": "X", "npi": "1234567893", "address": %s}' % ADDRESS_JSON
    for etag in ("x", '"x"', 'W/"x"', '"x', "x" * 10_000, b"\xff", '"a", "b"', "%00"):
        target = f"/medical/v1/facility/{scene.customer.facility_id}"
        answer = await scene.send("PUT", target, {**JSON, "if-match": etag}, body)
        assert answer.status == 412, etag


async def test_methods_that_a_route_does_not_have(scene: Scene) -> None:
    targets = {operation.target for operation in scene.operations}
    for target in targets:
        for method in {*METHODS} - {operation.method for operation in scene.operations if operation.target == target}:
            answer = await scene.send(method, target)
            assert answer.status in {400, 404, 405} or (method, target) in HEADS, f"{method} {target}"
            assert answer.status != 405 or "allow" in answer.headers


async def test_paths_that_are_no_routes(scene: Scene) -> None:
    for target in (
        "/nothing",
        "/medical/v1",
        "/medical/v2/patient",
        "/%2e%2e/etc/passwd",
        "/..",
        "/\\",
        "/é",
        "/%",
        "/;",
    ):
        for method in ("GET", "POST"):
            answer = await scene.send(method, target)
            assert answer.status == 404 or (target == "/é" and answer.status == 400), target


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(scene: Scene) -> None:
    declared = f"POST /medical/v1/facility HTTP/1.1\r\nHost: x\r\nx-api-key: {scene.customer.api_key}\r\n"
    head = f"{declared}Connection: close\r\nContent-Length: 999999999999\r\n\r\n".encode()
    [answer] = read_answers(await exchange(scene.server.port, head), "POST")
    check_form(answer, "declared")
    assert answer.status == 413
    chunked = f"{declared}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    chunks = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    [answer] = read_answers(await exchange(scene.server.port, chunked + chunks * 8 + b"0\r\n\r\n"), "POST")
    check_form(answer, "chunked")
    assert answer.status == 413


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET /settings\r\n\r\n",
        b"GET /settings HTTP/9.9\r\n\r\n",
        b"FLY /settings HTTP/1.1\r\n\r\n",
        b"GET /settings HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /settings HTTP/1.1\r\nname: \x7f\r\n\r\n",
        b"GET /settings HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
        b"GET /settings HTTP/1.1\r\nname\x00: x\r\n\r\n",
        b"POST /settings HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /settings HTTP/1.1\r\nContent-Length: abc\r\n\r\n",
        b"POST /settings HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /settings HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /settings HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    ],
    ids=repr,
)
async def test_what_is_not_http_is_refused(scene: Scene, sent: bytes) -> None:
    [answer] = read_answers(await exchange(scene.server.port, sent), "GET")
    check_form(answer, repr(sent))
    assert answer.status in {400, 403}


async def test_a_head_without_an_end_is_cut_off(scene: Scene) -> None:
    for start in (b"GET /settings?", b"GET /settings HTTP/1.1\r\nx-api-key: "):
        answer = await exchange(scene.server.port, start + b"a" * 8_000_000)
        assert answer.startswith(b"HTTP/1.1 400 ")
    assert (await scene.send("GET", "/healthz")).status == 200


async def test_http_1_0_and_pipelining_are_understood(scene: Scene) -> None:
    key = f"x-api-key: {scene.customer.api_key}\r\n"
    old = await exchange(scene.server.port, f"GET /settings HTTP/1.0\r\n{key}\r\n".encode())
    assert [answer.status for answer in read_answers(old, "GET")] == [200]
    several = (
        f"GET /settings HTTP/1.1\r\nHost: x\r\n{key}\r\n"
        f"POST /medical/v1/patient/match HTTP/1.1\r\nHost: x\r\n{key}Content-Length: 4\r\n\r\nnull"
        f"GET /medical/v1/facility HTTP/1.1\r\nHost: x\r\n{key}Connection: close\r\n\r\n"
    )
    answers = read_answers(await exchange(scene.server.port, several.encode()), "GET", "POST", "GET")
    assert [answer.status for answer in answers] == [200, 400, 200]
    assert answers[0].json["id"] == scene.customer.account_id
    assert answers[2].json["facilities"][0]["id"] == scene.customer.facility_id


async def test_a_client_that_goes_away_in_the_middle_harms_nobody(scene: Scene) -> None:
    head = f"POST /medical/v1/facility HTTP/1.1\r\nHost: x\r\nx-api-key: {scene.customer.api_key}\r\n"
    for sent in (b"", head[:40].encode(), f'{head}Content-Length: 50\r\n\r\n{{"name": '.encode()):
        _, writer = await asyncio.open_connection("127.0.0.1", scene.server.port)
        writer.write(sent)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    assert (await scene.send("GET", "/healthz")).status == 200
