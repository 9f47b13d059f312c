"""What holds for every call: keys, errors, odd requests, limits, the pages for people."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import StreamingResponse
from structlog.testing import capture_logs
from tests.support.client import http_client
from tests.support.patience import PATIENCE_SECONDS
from tests.support.people import facility_body, patient_body
from tests.support.server import Installation, running_app, running_installation

from chartwire import __version__
from chartwire.api.app import create_app
from chartwire.api.routing import new_router

pytestmark = pytest.mark.embedded


FACILITY = "/medical/v1/facility"


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    async with running_installation(tmp_path, max_request_bytes=4096) as installation:
        yield installation


@pytest.fixture
async def key(installation: Installation) -> str:
    return await installation.create_account()


@pytest.fixture
async def client(installation: Installation, key: str) -> AsyncIterator[httpx.AsyncClient]:
    async with http_client(base_url=installation.base_url, headers={"x-api-key": key}) as client:
        yield client


# --- keys -------------------------------------------------------------------------------------------------------------


async def test_a_key_is_taken_from_either_header(installation: Installation, key: str) -> None:
    async with http_client(base_url=installation.base_url) as client:
        for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}, {"authorization": f"bearer  {key}"}):
            assert (await client.get(FACILITY, headers=headers)).status_code == 200


async def test_a_request_without_a_good_key_is_refused_alike(installation: Installation, key: str) -> None:
    async with http_client(base_url=installation.base_url) as client:
        wrong = [{}, {"x-api-key": "wrong"}, {"x-api-key": key + " x"}, {"Authorization": f"Basic {key}"}]
        for headers in wrong:
            answer = await client.post(FACILITY, headers=headers, content=b"{not even JSON")
            assert (answer.status_code, answer.json()) == (403, {"message": "Forbidden"})


# --- odd requests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [f"{FACILITY}/", "/medical/v1//facility", "//medical///v1/facility//"])
async def test_slashes_too_many_do_not_matter(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(f"{client.base_url}{path}")
    assert (answer.status_code, answer.json()) == (200, {"facilities": []})
    assert (await client.get(f"{client.base_url}{path}?")).status_code == 200


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", "", None])
@pytest.mark.parametrize("body", [b"", b"null", b" \n"])
async def test_a_body_that_is_needed_and_says_nothing_is_missing(
    client: httpx.AsyncClient, content_type: str | None, body: bytes
) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    answer = await client.post(FACILITY, content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["title"] == "Missing or invalid parameters"
    assert answer.json()["detail"] == "Field required, on []"


async def test_json_is_read_without_a_content_type(client: httpx.AsyncClient) -> None:
    content = httpx.Request("POST", "http://x", json=facility_body()).content
    assert (await client.post(FACILITY, content=content)).status_code == 201


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"name": NaN}',
        b'{"name": "\\ud800"}',
        b'{"name": "a\\u0000b"}',
        b'{"name": "\xff"}',
        b"[" * 3000,
        b"{'name': 1}",
    ],
)
async def test_what_is_not_json_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post(FACILITY, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["detail"] == "The body is not valid JSON, on []"


async def test_an_escaped_backslash_before_u0000_is_text(client: httpx.AsyncClient) -> None:
    answer = await client.post(FACILITY, json=facility_body(name="a\\u0000"))
    assert (answer.status_code, answer.json()["name"]) == (201, "a\\u0000")


@pytest.mark.parametrize("body", [b"[]", b"1", b'"text"', b"a=b"])
async def test_a_body_of_another_kind_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    content_type = "application/x-www-form-urlencoded" if body == b"a=b" else "application/json"
    answer = await client.post(FACILITY, content=body, headers={"content-type": content_type})
    assert answer.status_code == 400


async def test_a_nul_in_the_query_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.get("/medical/v1/patient?filters=a%00b")).status_code == 400


async def test_a_repeated_parameter_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.get("/medical/v1/patient?filters=a&filters=b")
    assert answer.status_code == 400
    assert answer.json()["detail"] == "Query param filters is given more than once"


async def test_an_unknown_route_says_so(client: httpx.AsyncClient) -> None:
    answer = await client.get("/medical/v1/nothing")
    assert (answer.status_code, answer.json()) == (404, {"message": "Not Found"})


async def test_a_wrong_method_names_the_right_ones(client: httpx.AsyncClient) -> None:
    answer = await client.patch(FACILITY)
    assert (answer.status_code, answer.json()) == (405, {"message": "Method Not Allowed"})
    assert answer.headers["allow"] == "GET, POST"


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_a_body_over_the_limit_is_refused_however_it_is_sent(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * 1000

    for content in (b" " * 4097, chunks()):
        answer = await client.post(FACILITY, content=content, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["title"]) == (413, "PayloadTooLargeError")
    assert (await client.post(FACILITY, content=b" " * 4096)).status_code == 400


async def test_patient_writes_are_limited_per_account_and_minute(tmp_path: Path) -> None:
    async with running_installation(tmp_path, patient_writes_per_minute=3) as installation:
        keys = [await installation.create_account(), await installation.create_account()]
        async with http_client(base_url=f"{installation.base_url}/medical/v1") as client:

            async def write(key: str) -> httpx.Response:
                headers = {"x-api-key": key}
                return await client.post("/patient?facilityId=none", json=patient_body(), headers=headers)

            assert [(await write(keys[0])).status_code for _ in range(3)] == [404, 404, 404]
            refused = await write(keys[0])
            assert refused.status_code == 429
            assert refused.headers["content-type"].startswith("text/plain")
            assert refused.text == "Too many patient creates or updates, please try again later."
            assert refused.headers["ratelimit-limit"] == "3"
            assert refused.headers["ratelimit-remaining"] == "0"
            assert refused.headers["ratelimit-policy"] == "3;w=60"
            assert refused.headers["ratelimit-reset"] == refused.headers["retry-after"]
            assert 0 < int(refused.headers["retry-after"]) <= 60
            updated = await client.put("/patient/none", json=patient_body(), headers={"x-api-key": keys[0]})
            assert updated.status_code == 429
            assert (await client.get("/patient", headers={"x-api-key": keys[0]})).status_code == 200
            assert (await write(keys[1])).status_code == 404
            installation.clock.advance(seconds=60)
            assert (await write(keys[0])).status_code == 404


async def test_requests_are_limited_per_second(tmp_path: Path) -> None:
    async with running_installation(tmp_path, requests_per_second=2) as installation:
        installation.clock.stop()
        key = await installation.create_account()
        async with http_client(base_url=installation.base_url, headers={"x-api-key": key}) as client:
            statuses = [(await client.get(FACILITY)).status_code for _ in range(3)]
            assert statuses == [200, 200, 429]
            installation.clock.advance(seconds=1)
            assert (await client.get(FACILITY)).status_code == 200


# --- every answer -----------------------------------------------------------------------------------------------------


async def test_every_answer_names_the_version_and_may_be_read_by_any_page(client: httpx.AsyncClient) -> None:
    origin = {"origin": "https://app.example.org"}
    for path in (FACILITY, "/nothing"):
        answer = await client.get(path, headers=origin)
        assert answer.headers["x-chartwire-version"] == __version__
        assert answer.headers["access-control-allow-origin"] == "*"
    asked = {"access-control-request-method": "PUT", "access-control-request-headers": "x-api-key, if-match"}
    preflight = await client.options(FACILITY, headers=origin | asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-headers"] == "x-api-key, if-match"


async def test_no_cache_keeps_an_answer_and_no_browser_guesses_its_type(client: httpx.AsyncClient) -> None:
    """A shared cache does not know that answers differ by `x-api-key`."""
    for path in ("/settings", "/medical/v1/patient", "/medical/v1/patient/absent", "/nothing", "/"):
        answer = await client.get(path)
        assert answer.headers.get_list("cache-control") == ["no-store"]
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"]


async def test_an_error_of_ours_is_told_to_nobody(installation: Installation) -> None:
    router = new_router("/broken", "status")

    @router.get("/at-once")
    async def fail() -> None:
        raise RuntimeError("Ana Roe")

    @router.get("/half-way")
    async def fail_late() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("Ana Roe")

        return StreamingResponse(chunks())

    def make(_: str) -> FastAPI:
        app = create_app(*installation.parts)
        app.include_router(router)
        return app

    with capture_logs() as logs:
        async with running_app(make) as base_url, http_client(base_url=base_url) as client:
            answer = await client.get("/broken/at-once")
            assert (answer.status_code, answer.json()["title"]) == (500, "InternalServerError")
            assert "Ana" not in answer.text
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/broken/half-way")
            metrics = (await client.get("/metrics")).text
    assert 'route="/broken/at-once",status="500"' in metrics
    assert [log["route"] for log in logs] == ["/broken/at-once", "/broken/half-way"]


async def test_a_client_that_leaves_is_no_error(installation: Installation) -> None:
    host, port = installation.base_url.removeprefix("http://").split(":")
    form = "content-type: application/x-www-form-urlencoded\r\ncontent-length: 100"
    with capture_logs() as logs:
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"POST /oauth/token HTTP/1.1\r\nhost: x\r\n{form}\r\n\r\na=".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        async with http_client(base_url=installation.base_url) as client, asyncio.timeout(PATIENCE_SECONDS):
            unanswered = 'route="/oauth/token",status="none"'
            while unanswered not in (await client.get("/metrics")).text:  # noqa: ASYNC110  nothing rings here
                await asyncio.sleep(0.01)
    assert logs == []


async def test_metrics_hold_route_templates_and_no_ids(client: httpx.AsyncClient) -> None:
    await client.get("/medical/v1/patient/some-patient")
    await client.request("PROPFIND", "/nothing/some-patient")
    metrics = (await client.get("/metrics")).text
    assert 'method="GET",route="/medical/v1/patient/{patient_id}",status="404"' in metrics
    assert 'method="other",route="unmatched"' in metrics
    assert "some-patient" not in metrics


# --- pages ------------------------------------------------------------------------------------------------------------


async def test_the_root_answers_as_it_is_asked(client: httpx.AsyncClient) -> None:
    assert (await client.get("/", headers={"accept": "application/json, text/plain, */*"})).json() == {"status": "OK"}
    assert (await client.get("/")).text == "OK"
    assert (await client.head("/")).status_code == 200
    page = await client.get("/", headers={"accept": "text/html,*/*;q=0.8"})
    assert "Running and ready." in page.text


async def test_health_and_readiness(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json() == {"status": "OK"}
    assert (await client.get("/readyz")).json() == {"status": "OK", "missing": {}, "degraded": {}}


async def test_what_is_missing_is_said(installation: Installation) -> None:
    async def not_ready() -> dict[str, str]:
        return {"database": "unavailable"}

    services, settings, metrics, _ = installation.parts

    def make(_: str) -> FastAPI:
        return create_app(services, settings, metrics, not_ready)

    async with running_app(make) as base_url, http_client(base_url=base_url) as client:
        answer = await client.get("/readyz")
        page = await client.get("/", headers={"accept": "text/html"})
    assert answer.status_code == 503
    assert answer.json() == {"status": "unavailable", "missing": {"database": "unavailable"}, "degraded": {}}
    assert "Not ready yet." in page.text


async def test_the_reference_needs_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.headers["content-security-policy"].startswith("default-src 'none';")
    assert re.findall(r'(?:src|href)="(?![#/])', page.text) == []
    assert "<script" not in page.text
    document = (await client.get("/openapi.json")).json()
    for path, methods in document["paths"].items():
        assert f"<code>{path}</code>" in page.text
        for operation in methods.values():
            assert f'id="{operation["operationId"]}"' in page.text


async def test_the_openapi_document_tells_every_error(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert "HTTPValidationError" not in document["components"]["schemas"]
    create = document["paths"]["/medical/v1/patient"]["post"]
    assert {"201", "400", "403", "404", "413", "429"} == create["responses"].keys()
    assert {"apiKey": []} in create["security"]
    for methods in document["paths"].values():
        for operation in methods.values():
            assert "HTTPValidationError" not in str(operation["responses"])  # the framework's own 422
            assert operation["tags"]


async def test_the_reference_names_every_call_of_the_registry(client: httpx.AsyncClient) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "api.md").read_text()
    document = (await client.get("/openapi.json")).json()
    calls = {
        f"`{method.upper()} {re.sub(r'{[a-z_]+}', '{id}', path)}"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if operation["tags"][0] in {"organization", "facility", "patient"}
    }
    assert len(calls) == 19
    assert [call for call in calls if call not in page] == []
