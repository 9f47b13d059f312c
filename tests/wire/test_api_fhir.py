"""The FHIR face over HTTP: bytes, references, searches, tokens."""

import asyncio
import base64
import hashlib
import tracemalloc
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.capabilitystatement import CapabilityStatement
from joserfc import jwt
from joserfc.jwk import OctKey
from sqlalchemy import Connection, select
from structlog.testing import capture_logs
from tests.support.client import http_client
from tests.support.documents import CCD, LIMIT, NOW, Shelf, a_document
from tests.support.server import Installation, running_installation

from chartwire.model.document import CodeableConcept, Coding, Document, DocumentStatus
from chartwire.store import documents, registry, schema
from chartwire.store.vault import Purpose, Vault

BINARY = "/oauth/fhir/Binary"
REFERENCE = "/oauth/fhir/DocumentReference"
FHIR_JSON = "application/fhir+json"
CONTENT = bytes(range(256)) * 40


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    async with running_installation(tmp_path) as installation:
        yield installation


@pytest.fixture
async def key(installation: Installation) -> str:
    key = await installation.create_account()
    await Shelf(installation).add_patient(key, "p1", external_id="x1")
    return key


@pytest.fixture
async def shelf(installation: Installation) -> Shelf:
    return Shelf(installation)


@pytest.fixture
async def client(installation: Installation, key: str) -> AsyncIterator[httpx.AsyncClient]:
    async with http_client(base_url=installation.base_url, headers={"x-api-key": key}) as client:
        yield client


@pytest.fixture
async def anybody(installation: Installation) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key."""
    async with http_client(base_url=installation.base_url) as client:
        yield client


@pytest.fixture
async def document(shelf: Shelf, key: str) -> Document:
    return await shelf.add(key, "p1", CONTENT)


def assert_outcome(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == FHIR_JSON
    body = answer.json()
    assert (body["resourceType"], body["issue"][0]["code"]) == ("OperationOutcome", code)


# --- bytes ------------------------------------------------------------------------------------------------------------


async def test_a_binary_is_its_bytes_in_their_own_type(client: httpx.AsyncClient, document: Document) -> None:
    answer = await client.get(f"{BINARY}/{document.id}")
    assert (answer.status_code, answer.content) == (200, CONTENT)
    expected = {
        "content-type": "application/pdf",
        "content-length": str(len(CONTENT)),
        "etag": f'"{hashlib.sha256(CONTENT).hexdigest()}"',
        "accept-ranges": "bytes",
        "content-disposition": f'inline; filename="{document.file_name}"',
        "x-content-type-options": "nosniff",
        "cache-control": "private, no-cache",
        "vary": "accept, Origin",
    }
    assert {name: answer.headers.get(name) for name in expected} == expected


async def test_what_could_act_in_a_browser_is_kept_from_it(client: httpx.AsyncClient, shelf: Shelf, key: str) -> None:
    page = await shelf.add(key, "p1", b"<script>", mime_type="text/html", file_name='É "x".html')
    answer = await client.get(f"{BINARY}/{page.id}")
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"___x_.html\"; filename*=UTF-8''%C3%89%20%22x%22.html"
    )
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [("bytes=0-0", 0, 1), ("bytes=100-", 100, 10240), ("bytes=-7", 10233, 10240), ("bytes=10000-99999", 10000, 10240)],
)
async def test_a_range_is_given(
    client: httpx.AsyncClient, document: Document, wanted: str, start: int, end: int
) -> None:
    answer = await client.get(f"{BINARY}/{document.id}", headers={"range": wanted})
    assert (answer.status_code, answer.content) == (206, CONTENT[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/10240"


async def test_a_range_behind_the_end_is_refused(client: httpx.AsyncClient, document: Document) -> None:
    answer = await client.get(f"{BINARY}/{document.id}", headers={"range": "bytes=10240-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */10240")


async def test_several_ranges_are_ignored(client: httpx.AsyncClient, document: Document) -> None:
    answer = await client.get(f"{BINARY}/{document.id}", headers={"range": "bytes=0-1,5-6"})
    assert (answer.status_code, answer.content) == (200, CONTENT)


async def test_a_range_is_given_only_of_the_bytes_that_are_meant(client: httpx.AsyncClient, document: Document) -> None:
    etag = f'"{document.sha256}"'
    for condition, status in (
        (etag, 206),
        ('"other"', 200),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 200),
        (f"W/{etag}", 200),
    ):
        headers = {"range": "bytes=0-4", "if-range": condition}
        assert (await client.get(f"{BINARY}/{document.id}", headers=headers)).status_code == status


async def test_bytes_that_the_client_has_are_not_sent_again(client: httpx.AsyncClient, document: Document) -> None:
    etag = f'"{document.sha256}"'
    for condition in (etag, f'"a", W/{etag}', "*"):
        answer = await client.get(f"{BINARY}/{document.id}", headers={"if-none-match": condition})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert (await client.get(f"{BINARY}/{document.id}", headers={"if-none-match": '"a"'})).status_code == 200


async def test_head_tells_what_get_would(client: httpx.AsyncClient, document: Document) -> None:
    for headers in ({}, {"accept": FHIR_JSON}):
        get = await client.get(f"{BINARY}/{document.id}", headers=headers)
        head = await client.head(f"{BINARY}/{document.id}", headers=headers)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-length", "content-type", "etag", "content-disposition"):
            assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 262_144, 300_001])
async def test_a_binary_resource_holds_the_bytes_in_base64(
    client: httpx.AsyncClient, shelf: Shelf, key: str, size: int
) -> None:
    content = (CONTENT * 30)[:size]
    document = await shelf.add(key, "p1", content)
    answer = await client.get(f"{BINARY}/{document.id}", headers={"accept": FHIR_JSON})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == FHIR_JSON
    assert answer.headers["etag"] == f'"{document.sha256}-json"'
    assert int(answer.headers["content-length"]) == len(answer.content)
    body = answer.json()
    assert (body["resourceType"], body["id"], body["contentType"]) == ("Binary", document.id, "application/pdf")
    assert base64.b64decode(body["data"], validate=True) == content
    known = await client.get(
        f"{BINARY}/{document.id}", headers={"accept": FHIR_JSON, "if-none-match": answer.headers["etag"]}
    )
    assert known.status_code == 304


async def test_a_form_that_is_not_there_is_refused(client: httpx.AsyncClient, document: Document) -> None:
    answer = await client.get(f"{BINARY}/{document.id}", headers={"accept": "application/fhir+xml"})
    assert_outcome(answer, 406, "not-supported")
    assert_outcome(await client.get(f"{REFERENCE}/{document.id}?_format=xml"), 406, "not-supported")


async def test_what_is_not_there_is_not_found(client: httpx.AsyncClient) -> None:
    for path in (f"{BINARY}/unknown", f"{REFERENCE}/unknown", "/oauth/fhir/Patient/p1"):
        assert_outcome(await client.get(path), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "DocumentReference/1", "GET"),
        ("PUT", "DocumentReference", "GET"),
        ("POST", "metadata", "GET"),
        ("PATCH", "Subscription/1", "DELETE, GET, PUT"),
    ],
)
async def test_what_cannot_be_done_to_a_resource_is_told_in_fhir(
    client: httpx.AsyncClient, method: str, path: str, allow: str
) -> None:
    answer = await client.request(method, f"/oauth/fhir/{path}")
    assert_outcome(answer, 405, "not-supported")
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_resource_that_is_not_here_is_not_found_whatever_is_asked(
    client: httpx.AsyncClient, method: str
) -> None:
    assert_outcome(await client.request(method, "/oauth/fhir/Patient/1"), 404, "not-found")


async def test_broken_bytes_are_an_error_and_not_half_a_document(
    client: httpx.AsyncClient, shelf: Shelf, key: str, installation: Installation
) -> None:
    document = await shelf.add(key, "p1", b"to be lost")
    for path in (installation.settings.data_dir / "blobs").rglob(document.sha256):
        path.unlink()
    with capture_logs() as logs:
        for accept in ("*/*", FHIR_JSON):
            assert (await client.get(f"{BINARY}/{document.id}", headers={"accept": accept})).status_code == 500
    assert [entry["event"] for entry in logs] == ["unexpected error"] * 2
    assert document.id not in str(logs)


async def test_a_large_binary_passes_in_flat_memory(
    client: httpx.AsyncClient, shelf: Shelf, key: str, installation: Installation
) -> None:
    size = 63 * 1024 * 1024

    async def zeros() -> AsyncIterator[bytes]:
        for _ in range(size // 262_144):
            yield bytes(262_144)

    blob = await shelf.blobs.put(zeros(), LIMIT)
    account_id, _ = await shelf.account_of(key)
    record = a_document(account_id, "p1", sha256=blob.sha256, sha1=blob.sha1, size=size)
    await installation.database.write(lambda connection: documents.insert_document(connection, record))
    tracemalloc.start()
    for accept, length in (("*/*", size), (FHIR_JSON, size * 4 // 3)):
        received = 0
        async with client.stream("GET", f"{BINARY}/{record.id}", headers={"accept": accept}) as answer:
            async for chunk in answer.aiter_raw():
                received += len(chunk)
        assert length <= received < length + 1000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 1024 * 1024


# --- references -------------------------------------------------------------------------------------------------------


async def search(client: httpx.AsyncClient, *pairs: tuple[str, str]) -> Any:
    answer = await client.get(REFERENCE, params=list(pairs))
    assert answer.status_code == 200, answer.text
    Bundle.model_validate_json(answer.content)
    return answer.json()


def ids(bundle: Any) -> list[str]:
    return [entry["resource"]["id"] for entry in bundle.get("entry", [])]


async def test_a_reference_leads_to_the_bytes(client: httpx.AsyncClient, document: Document) -> None:
    reference = (await client.get(f"{REFERENCE}/{document.id}")).json()
    attachment = reference["content"][0]["attachment"]
    content = (await client.get(attachment["url"])).content
    assert (len(content), hashlib.sha1(content, usedforsecurity=False).digest()) == (
        attachment["size"],
        base64.b64decode(attachment["hash"]),
    )


async def test_references_are_found_by_every_parameter(client: httpx.AsyncClient, shelf: Shelf, key: str) -> None:
    local = CodeableConcept((Coding("urn:local", "LAB"),))
    visit = await shelf.add(key, "p1", b"1", master_identifier="1.2.3", indexed=NOW)
    report = await shelf.add(
        key, "p1", b"2", type=local, category=CCD, indexed=NOW + timedelta(days=40), status=DocumentStatus.SUPERSEDED
    )
    base = f"{client.base_url}/oauth/fhir"
    p1 = ("patient", "Patient/p1")
    for pairs, expected in {
        (p1,): [report.id, visit.id],
        (("patient", "p2,p1"),): [report.id, visit.id],
        (("patient", "p2"),): [],
        (("patient.identifier", "x1"),): [report.id, visit.id],
        (("patient.identifier", f"{base}/sid/external-id|x1"),): [report.id, visit.id],
        (("patient.identifier", f"{base}/sid/patient|p1"),): [report.id, visit.id],
        (("patient.identifier", f"{base}/sid/patient|x1"),): [],
        (("patient.identifier", "https://elsewhere.example|x1"),): [],
        (p1, ("patient.identifier", "unknown")): [],
        (p1, ("status", "current")): [visit.id],
        (p1, ("status", "current,superseded")): [report.id, visit.id],
        (p1, ("status", "unheard-of")): [],
        (p1, ("type", "http://loinc.org|34133-9")): [visit.id],
        (p1, ("type", "LAB")): [report.id],
        (p1, ("category", "34133-9")): [report.id],
        (p1, ("date", "2025-01")): [visit.id],
        (p1, ("date", "ge2025-01-02"), ("date", "lt2025-02")): [visit.id],
        (p1, ("creation", "gt2025-01")): [report.id],
        (("_id", f"{visit.id},unknown"),): [visit.id],
        (("identifier", "urn:ietf:rfc:3986|urn:oid:1.2.3"),): [visit.id],
        (("identifier", f"urn:uuid:{report.id}"),): [report.id],
        (p1, ("unheard-of", "x"), ("_sort", "date")): [report.id, visit.id],
    }.items():
        bundle = await search(client, *pairs)
        assert (ids(bundle), bundle["total"]) == (expected, len(expected)), pairs


async def test_a_search_by_form_is_the_same(client: httpx.AsyncClient, document: Document) -> None:
    answer = await client.post(f"{REFERENCE}/_search", data={"patient": "p1", "status": "current"})
    assert ids(answer.json()) == [document.id]
    mixed = await client.post(f"{REFERENCE}/_search?status=superseded", data={"patient": "p1"})
    assert (mixed.status_code, mixed.json()["total"]) == (200, 0)
    assert_outcome(await client.post(f"{REFERENCE}/_search"), 400, "invalid")


async def test_pages_follow_each_other_to_the_end(client: httpx.AsyncClient, shelf: Shelf, key: str) -> None:
    await shelf.add_patient(key, "somebody-here")
    expected = [(await shelf.add(key, "somebody-here", str(number).encode())).id for number in range(5)][::-1]
    answer = await client.post(f"{REFERENCE}/_search", data={"patient": "somebody-here", "_count": "2"})
    seen: list[str] = []
    pages = 0
    while True:
        bundle = answer.json()
        Bundle.model_validate_json(answer.content)
        seen += ids(bundle)
        pages += 1
        assert bundle["total"] == 5
        links = {link["relation"]: link["url"] for link in bundle["link"]}
        if "next" not in links:
            break
        assert "somebody-here" not in links["next"]  # identifiers of patients do not go into URLs by our doing
        answer = await client.get(links["next"])
    assert (seen, pages) == (expected, 3)


async def test_the_self_link_tells_what_was_obeyed(client: httpx.AsyncClient) -> None:
    bundle = await search(client, ("patient", "p1"), ("unheard-of", "x"), ("status", "current"))
    assert bundle["link"][0]["url"] == f"{client.base_url}{REFERENCE}?patient=p1&status=current"


async def test_a_count_of_nothing_gives_the_total(client: httpx.AsyncClient, document: Document) -> None:
    bundle = await search(client, ("_id", document.id), ("_count", "0"))
    assert (bundle["total"], ids(bundle), len(bundle["link"])) == (1, [], 1)


@pytest.mark.parametrize("query", ["", "status=current", "patient=p1&date=now", "patient=p1&_count=x", "_page=zzz"])
async def test_a_search_that_cannot_be_understood_is_refused(client: httpx.AsyncClient, query: str) -> None:
    assert_outcome(await client.get(f"{REFERENCE}?{query}"), 400, "invalid")


async def test_reads_are_in_the_audit_trail(
    client: httpx.AsyncClient, document: Document, installation: Installation
) -> None:
    await client.get(f"{BINARY}/{document.id}")
    await search(client, ("patient", "p1"))

    def read(connection: Connection) -> list[tuple[str, str | None, str | None]]:
        rows = connection.execute(select(schema.audit).order_by(schema.audit.c.seq))
        return [(row.action, row.patient_id, row.subject) for row in rows]

    assert await installation.database.read(read) == [
        ("document.read", "p1", document.id),
        ("document.search", "p1", None),
    ]


async def test_the_metadata_is_open_to_all_and_valid(anybody: httpx.AsyncClient) -> None:
    answer = await anybody.get("/oauth/fhir/metadata")
    CapabilityStatement.model_validate_json(answer.content)
    assert answer.headers["content-type"] == FHIR_JSON


# --- access -----------------------------------------------------------------------------------------------------------


async def token_of(anybody: httpx.AsyncClient, key: str, client_id: str, **fields: str) -> httpx.Response:
    data = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": key, **fields}
    return await anybody.post("/oauth/token", data=data)


def bearer(token: httpx.Response) -> dict[str, str]:
    return {"authorization": f"Bearer {token.json()['access_token']}"}


async def test_a_client_finds_the_token_endpoint_and_reads_with_its_token(
    anybody: httpx.AsyncClient, shelf: Shelf, key: str, document: Document
) -> None:
    account_id, key_id = await shelf.account_of(key)
    for place in ("", "/oauth/fhir"):
        found = (await anybody.get(f"{place}/.well-known/smart-configuration")).json()
        assert found["token_endpoint"] == f"{anybody.base_url}/oauth/token"
        assert found["grant_types_supported"] == ["client_credentials"]
    for client_id in (account_id, key_id):
        token = await token_of(anybody, key, client_id)
        assert token.headers["cache-control"] == "no-store"
        assert (token.json()["token_type"], token.json()["expires_in"]) == ("Bearer", 3600)
        answer = await anybody.get(f"{BINARY}/{document.id}", headers=bearer(token))
        assert answer.content == CONTENT
        assert (await anybody.get(f"{REFERENCE}/{document.id}", headers=bearer(token))).status_code == 200


async def test_credentials_are_taken_by_basic_authentication(
    anybody: httpx.AsyncClient, shelf: Shelf, key: str
) -> None:
    _, key_id = await shelf.account_of(key)
    answer = await anybody.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=(key_id, key))
    assert answer.status_code == 200
    wrong = await anybody.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=(key_id, "wrong"))
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
    assert wrong.headers["www-authenticate"].startswith("Basic")


async def test_an_api_key_is_enough(anybody: httpx.AsyncClient, key: str, document: Document) -> None:
    for headers in ({"x-api-key": key}, {"authorization": f"Bearer {key}"}):
        assert (await anybody.get(f"{BINARY}/{document.id}", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("fields", "status", "error"),
    [
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"grant_type": ""}, 400, "unsupported_grant_type"),
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": "wrong"}, 401, "invalid_client"),
        ({"scope": "system/Patient.rs"}, 400, "invalid_scope"),
    ],
)
async def test_a_token_is_refused_by_the_book(
    anybody: httpx.AsyncClient, shelf: Shelf, key: str, fields: dict[str, str], status: int, error: str
) -> None:
    account_id, _ = await shelf.account_of(key)
    answer = await anybody.post(
        "/oauth/token",
        data={"grant_type": "client_credentials", "client_id": account_id, "client_secret": key, **fields},
    )
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert key not in answer.text


async def test_a_form_with_a_field_twice_or_none_is_refused(anybody: httpx.AsyncClient) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    for content in (b"", b"grant_type=client_credentials&scope=a&scope=b"):
        answer = await anybody.post("/oauth/token", content=content, headers=form)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_a_token_reads_what_its_scopes_allow(
    anybody: httpx.AsyncClient, shelf: Shelf, key: str, document: Document
) -> None:
    account_id, _ = await shelf.account_of(key)
    token = await token_of(anybody, key, account_id, scope="system/Binary.rs openid")
    assert token.json()["scope"] == "system/Binary.rs"
    assert (await anybody.get(f"{BINARY}/{document.id}", headers=bearer(token))).status_code == 200
    assert_outcome(await anybody.get(f"{REFERENCE}/{document.id}", headers=bearer(token)), 403, "forbidden")


async def test_without_access_nothing_is_shown(anybody: httpx.AsyncClient, document: Document) -> None:
    for path in (f"{BINARY}/{document.id}", f"{REFERENCE}/{document.id}", f"{REFERENCE}?patient=p1"):
        answer = await anybody.get(path)
        assert_outcome(answer, 401, "login")
        assert answer.headers["www-authenticate"] == 'Bearer realm="chartwire"'
    for headers in ({"x-api-key": "wrong"}, {"authorization": "Bearer a.b.c"}, {"authorization": "Bearer wrong"}):
        answer = await anybody.get(f"{BINARY}/{document.id}", headers=headers)
        assert_outcome(answer, 401, "login")
        assert answer.headers["www-authenticate"].endswith('error="invalid_token"')


async def test_a_token_dies_with_time_and_with_its_key(
    anybody: httpx.AsyncClient, shelf: Shelf, key: str, document: Document, installation: Installation
) -> None:
    installation.clock.stop()
    account_id, key_id = await shelf.account_of(key)
    old, path = await token_of(anybody, key, account_id), f"{BINARY}/{document.id}"
    installation.clock.advance(seconds=3590)
    assert (await anybody.get(path, headers=bearer(old))).status_code == 200
    installation.clock.advance(seconds=11)
    assert_outcome(await anybody.get(path, headers=bearer(old)), 401, "login")
    fresh = await token_of(anybody, key, account_id)
    assert (await anybody.get(path, headers=bearer(fresh))).status_code == 200
    await installation.database.write(
        lambda connection: registry.revoke_api_key(connection, key_id, installation.clock())
    )
    assert_outcome(await anybody.get(path, headers=bearer(fresh)), 401, "login")


async def test_forged_tokens_are_not_taken(
    anybody: httpx.AsyncClient, shelf: Shelf, key: str, document: Document, installation: Installation
) -> None:
    account_id, key_id = await shelf.account_of(key)
    claims = {"iss": installation.base_url, "sub": account_id, "client_id": key_id, "scope": "fhir/document"}
    good = {**claims, "exp": 4_102_444_800}
    ours = OctKey.import_key(Vault(bytes(32)).key(Purpose.ACCESS_TOKEN))
    links = OctKey.import_key(Vault(bytes(32)).key(Purpose.LINK))
    tried = {
        jwt.encode({"alg": "HS256"}, good, ours): 200,
        jwt.encode({"alg": "HS256"}, good, links): 401,
        jwt.encode({"alg": "HS512"}, good, ours, ["HS512"]): 401,
        jwt.encode({"alg": "HS256"}, claims, ours): 401,
        jwt.encode({"alg": "HS256"}, {**good, "iss": "https://elsewhere.example"}, ours): 401,
        jwt.encode({"alg": "HS256"}, {**good, "client_id": "unknown"}, ours): 401,
        jwt.encode({"alg": "HS256"}, {**good, "sub": "another"}, ours): 401,
    }
    for token, status in tried.items():
        headers = {"authorization": f"Bearer {token}"}
        assert (await anybody.get(f"{BINARY}/{document.id}", headers=headers)).status_code == status


async def test_nothing_of_another_account_is_found(
    installation: Installation, anybody: httpx.AsyncClient, shelf: Shelf, document: Document
) -> None:
    stranger = {"x-api-key": await installation.create_account("Stranger")}
    for path in (f"{BINARY}/{document.id}", f"{REFERENCE}/{document.id}"):
        assert_outcome(await anybody.get(path, headers=stranger), 404, "not-found")
    for query in ("patient=p1", "patient.identifier=x1", f"_id={document.id}", f"identifier=urn:uuid:{document.id}"):
        answer = await anybody.get(f"{REFERENCE}?{query}", headers=stranger)
        assert answer.json()["total"] == 0


async def test_the_rate_limit_is_told_in_fhir(tmp_path: Path) -> None:
    async with running_installation(tmp_path, requests_per_second=1) as installation:
        installation.clock.stop()
        headers = {"x-api-key": await installation.create_account()}
        async with http_client(base_url=installation.base_url, headers=headers) as client:
            answers = await asyncio.gather(*(client.get(f"{BINARY}/x") for _ in range(4)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 3
    assert_outcome(refused[0], 429, "throttled")
    assert "retry-after" in refused[0].headers
