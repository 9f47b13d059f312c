"""What is listed: pages and their ends, ways of asking, statuses, and servers that misbehave."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import parse_qs

import orjson
import pytest
from tests.support.fhir_stub import (
    PATIENT_ID,
    FhirStub,
    break_off,
    bundle,
    connect,
    never,
    raw,
    redirect,
    reference,
    says,
    serve_stub,
    status,
)

from chartwire.errors import IssueCode, NetworkError, PermanentNetworkError, TemporaryNetworkError
from chartwire.model.registry import LinkState
from chartwire.networks.network import Issue, Listing, PatientLink

pytestmark = pytest.mark.embedded


LINK = PatientLink(PATIENT_ID, LinkState.CONFIRMED)
SEARCH = ("POST", "DocumentReference/_search")
NOON = datetime(2024, 5, 6, 12, tzinfo=UTC)


@pytest.fixture
async def stub() -> AsyncIterator[FhirStub]:
    async with serve_stub() as running:
        yield running


async def listed(stub: FhirStub, **settings: object) -> Listing:
    async with connect(stub, **settings) as network:  # type: ignore[arg-type]  # settings are checked when they are read
        return await network.query(LINK)


async def failure(stub: FhirStub, **settings: object) -> NetworkError:
    with pytest.raises(NetworkError) as caught:
        await listed(stub, clock=lambda: NOON, **settings)
    assert "Ana" not in str(caught.value)
    return caught.value


def keys(listing: Listing) -> list[str]:
    return [document.key for document in listing.documents]


async def test_the_patient_stays_out_of_the_url(stub: FhirStub) -> None:
    stub.on(*SEARCH, says(bundle(reference("a"))))
    assert keys(await listed(stub, page_size=7)) == ["a"]
    form = parse_qs(stub.seen[0].body.decode())
    assert form == {"patient": [PATIENT_ID], "status": ["current,superseded"], "_count": ["7"]}
    assert stub.seen[0].query == {}
    assert stub.seen[0].headers["Accept"] == "application/fhir+json"


async def test_every_page_is_read(stub: FhirStub) -> None:
    stub.on(*SEARCH, says(bundle(reference("a"), following=f"{stub.base_url}?_getpages=x&n=1")))
    stub.on("GET", "/fhir", says(bundle(reference("b"), following="DocumentReference?n=2")))
    stub.on("GET", "DocumentReference", says(bundle(reference("c"))))
    listing = await listed(stub)
    assert keys(listing) == ["a", "b", "c"]
    assert listing.issues == ()


async def test_a_next_page_that_was_read_before_ends_the_list(stub: FhirStub) -> None:
    looping = says(bundle(reference("b"), following=f"{stub.base_url}/DocumentReference?n=1"))
    stub.on(*SEARCH, says(bundle(reference("a"), following=f"{stub.base_url}/DocumentReference?n=1")))
    stub.on("GET", "DocumentReference", looping)
    listing = await listed(stub)
    assert keys(listing) == ["a", "b"]
    assert listing.issues == (Issue(IssueCode.INVALID_ANSWER),)
    assert len(stub.seen) == 2


async def test_pages_are_counted(stub: FhirStub) -> None:
    endless = (says(bundle(reference(f"d{n}"), following=f"{stub.base_url}/DocumentReference?n={n}")) for n in range(9))
    stub.on(*SEARCH, says(bundle(reference("a"), following=f"{stub.base_url}/DocumentReference?n=x")))
    stub.on("GET", "DocumentReference", *endless)
    listing = await listed(stub, max_pages=3)
    assert keys(listing) == ["a", "d0", "d1"]
    assert listing.issues == (Issue(IssueCode.TOO_MANY_PAGES),)


@pytest.mark.parametrize("target", ["http://127.0.0.1:9/fhir/x", "https://files.example/x", "//files.example/x"])
async def test_a_next_page_on_another_origin_is_not_read(stub: FhirStub, target: str) -> None:
    stub.on(*SEARCH, says(bundle(reference("a"), following=target)))
    listing = await listed(stub)
    assert keys(listing) == ["a"]
    assert listing.issues == (Issue(IssueCode.FOREIGN_ORIGIN),)


async def test_a_later_page_that_is_gone_leaves_what_was_read(stub: FhirStub) -> None:
    stub.on(*SEARCH, says(bundle(reference("a"), following=f"{stub.base_url}/DocumentReference?n=1")))
    stub.on("GET", "DocumentReference", status(410))
    listing = await listed(stub)
    assert keys(listing) == ["a"]
    assert listing.issues == (Issue(IssueCode.GONE),)


async def test_a_later_page_that_fails_for_now_is_worth_another_try(stub: FhirStub) -> None:
    stub.on(*SEARCH, says(bundle(reference("a"), following=f"{stub.base_url}/DocumentReference?n=1")))
    stub.on("GET", "DocumentReference", status(502))
    assert isinstance(await failure(stub), TemporaryNetworkError)


async def test_a_server_that_takes_no_status_is_asked_for_the_patient_alone(stub: FhirStub) -> None:
    stub.on(*SEARCH, status(400), says(bundle(reference("a"), reference("b", status="entered-in-error"))))
    assert keys(await listed(stub)) == ["a"]
    assert "status" not in parse_qs(stub.seen[1].body.decode())


async def test_a_server_that_demands_a_category_is_asked_with_one(stub: FhirStub) -> None:
    stub.on(*SEARCH, status(400), status(422), says(bundle(reference("a"))))
    assert keys(await listed(stub)) == ["a"]
    assert parse_qs(stub.seen[2].body.decode())["category"] == ["clinical-note"]


async def test_a_server_that_refuses_every_way_has_refused(stub: FhirStub) -> None:
    stub.on(*SEARCH, status(400))
    assert (await failure(stub)).code is IssueCode.REJECTED
    assert len(stub.seen) == 3


async def test_a_search_goes_by_get_where_post_is_refused(stub: FhirStub) -> None:
    stub.on(*SEARCH, status(405))
    stub.on("GET", "DocumentReference", says(bundle(reference("a"))))
    assert keys(await listed(stub)) == ["a"]
    assert stub.seen[1].query["patient"] == PATIENT_ID


@pytest.mark.parametrize(
    ("code", "headers", "kind", "issue", "wait"),
    [
        (401, {}, PermanentNetworkError, IssueCode.UNAUTHORIZED, None),
        (403, {}, PermanentNetworkError, IssueCode.FORBIDDEN, None),
        (404, {}, PermanentNetworkError, IssueCode.NOT_FOUND, None),
        (408, {}, TemporaryNetworkError, IssueCode.TIMEOUT, None),
        (410, {}, PermanentNetworkError, IssueCode.GONE, None),
        (418, {}, PermanentNetworkError, IssueCode.REJECTED, None),
        (425, {}, TemporaryNetworkError, IssueCode.THROTTLED, None),
        (429, {}, TemporaryNetworkError, IssueCode.THROTTLED, None),
        (429, {"Retry_After": "7"}, TemporaryNetworkError, IssueCode.THROTTLED, 7.0),
        (429, {"Retry_After": "86400"}, TemporaryNetworkError, IssueCode.THROTTLED, 300.0),
        (429, {"Retry_After": "-5"}, TemporaryNetworkError, IssueCode.THROTTLED, None),
        (429, {"Retry_After": "soon"}, TemporaryNetworkError, IssueCode.THROTTLED, None),
        (429, {"Retry_After": "Mon, 06 May 2024 12:00:20 GMT"}, TemporaryNetworkError, IssueCode.THROTTLED, 20.0),
        (429, {"Retry_After": "Mon, 06 May 2024 11:00:00 GMT"}, TemporaryNetworkError, IssueCode.THROTTLED, 0.0),
        (429, {"Retry_After": "Sun, 06 May 2034 12:00:00 GMT"}, TemporaryNetworkError, IssueCode.THROTTLED, 300.0),
        (500, {}, TemporaryNetworkError, IssueCode.SERVER_ERROR, None),
        (502, {}, TemporaryNetworkError, IssueCode.SERVER_ERROR, None),
        (503, {}, TemporaryNetworkError, IssueCode.SERVER_ERROR, None),
        (503, {"Retry_After": "9"}, TemporaryNetworkError, IssueCode.THROTTLED, 9.0),
        (504, {}, TemporaryNetworkError, IssueCode.SERVER_ERROR, None),
    ],
)
async def test_a_status_means_now_or_never(
    stub: FhirStub, code: int, headers: dict[str, str], kind: type[NetworkError], issue: IssueCode, wait: float | None
) -> None:
    stub.on(*SEARCH, status(code, **headers))
    stub.on("GET", "DocumentReference", status(code, **headers))
    error = await failure(stub)
    assert (error.code, error.retry_after) == (issue, wait)
    assert isinstance(error, kind)


async def test_a_server_that_does_not_answer_in_time_is_tried_again(stub: FhirStub) -> None:
    stub.on(*SEARCH, never)
    error = await failure(stub, list_deadline_seconds=0.1)
    assert (error.retryable, error.code) == (True, IssueCode.TIMEOUT)


async def test_a_page_that_breaks_off_is_tried_again(stub: FhirStub) -> None:
    stub.on(*SEARCH, break_off)
    error = await failure(stub)
    assert (error.retryable, error.code) == (True, IssueCode.UNREACHABLE)


async def test_nobody_at_the_address_is_tried_again(stub: FhirStub) -> None:
    error = await failure(stub, base_url="http://127.0.0.1:1/fhir")
    assert (error.retryable, error.code) == (True, IssueCode.UNREACHABLE)


async def test_a_connection_that_the_server_closed_meanwhile_is_made_again() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request; closes when the next one comes on the same connection."""
        nonlocal connections
        connections += 1
        body = orjson.dumps(bundle())
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    stub = FhirStub(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server, connect(stub) as network:
        assert await network.query(LINK) == await network.query(LINK) == Listing()
    assert connections == 2


async def test_a_page_that_is_no_json_is_tried_again(stub: FhirStub) -> None:
    stub.on(*SEARCH, raw(b"<html>Ana Roe: please wait</html>", "text/html"))
    error = await failure(stub)
    assert (error.retryable, error.code) == (True, IssueCode.INVALID_ANSWER)


@pytest.mark.parametrize("answer", [[], "text", {"resourceType": "OperationOutcome", "issue": []}, {}])
async def test_an_answer_that_is_no_bundle_is_an_error(stub: FhirStub, answer: object) -> None:
    stub.on(*SEARCH, says(answer))
    error = await failure(stub)
    assert (error.retryable, error.code) == (False, IssueCode.INVALID_ANSWER)


async def test_a_page_beyond_64_mib_is_refused_without_reading_on(stub: FhirStub) -> None:
    stub.on(*SEARCH, raw(b" " * (65 * 1024 * 1024), "application/fhir+json"))
    error = await failure(stub)
    assert (error.retryable, error.code) == (False, IssueCode.TOO_LARGE)


async def test_pages_of_more_than_64_mib_together_are_too_large(stub: FhirStub) -> None:
    large = "x" * (33 * 1024 * 1024)
    stub.on(*SEARCH, says(bundle(reference("a", junk=large), following=f"{stub.base_url}/DocumentReference?n=1")))
    stub.on("GET", "DocumentReference", says(bundle(reference("b", junk=large))))
    error = await failure(stub)
    assert (error.retryable, error.code) == (False, IssueCode.TOO_LARGE)


async def test_a_url_that_no_parser_takes_spoils_only_its_own_document(stub: FhirStub) -> None:
    stub.on(*SEARCH, says(bundle(reference("a", "https://[]@"), reference("b"), following="https://[]@")))
    listing = await listed(stub)
    assert keys(listing) == ["b"]
    assert {issue.code for issue in listing.issues} == {IssueCode.INVALID_ANSWER}


async def test_an_outcome_within_the_list_is_reported_beside_what_was_found(stub: FhirStub) -> None:
    outcome = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "timeout"}]}
    warning = {"resourceType": "OperationOutcome", "issue": [{"severity": "warning", "code": "informational"}]}
    stub.on(*SEARCH, says(bundle(reference("a"), outcome)), says(bundle(reference("a"), warning)))
    assert (await listed(stub)).issues == (Issue(IssueCode.SERVER_ERROR),)
    assert (await listed(stub)).issues == ()


async def test_an_empty_list_is_no_error(stub: FhirStub) -> None:
    stub.on(*SEARCH, says({"resourceType": "Bundle", "type": "searchset", "total": 0}))
    assert await listed(stub) == Listing()


async def test_redirects_within_the_server_are_followed_three_times(stub: FhirStub) -> None:
    stub.on(*SEARCH, redirect("/1", 307))
    stub.on("POST", "/1", redirect("/2", 308))
    stub.on("POST", "/2", redirect("/3", 307))
    stub.on("POST", "/3", says(bundle(reference("a"))))
    assert keys(await listed(stub)) == ["a"]
    stub.on("POST", "/3", redirect("/4", 307))
    assert (await failure(stub)).code is IssueCode.INVALID_ANSWER


async def test_a_search_is_not_redirected_to_another_origin(stub: FhirStub) -> None:
    async with serve_stub() as elsewhere:
        stub.on(*SEARCH, redirect(f"{elsewhere.base_url}/steal", 307))
        assert (await failure(stub)).code is IssueCode.FOREIGN_ORIGIN
        assert elsewhere.seen == []


async def test_a_metadata_address_is_refused_even_as_base(stub: FhirStub) -> None:
    error = await failure(stub, base_url="http://169.254.169.254/fhir")
    assert (error.retryable, error.code) == (False, IssueCode.FORBIDDEN_ADDRESS)


async def test_the_base_url_may_be_anywhere_because_the_operator_named_it(stub: FhirStub) -> None:
    stub.on(*SEARCH, says(bundle(reference("a"))))
    assert keys(await listed(stub, allowed=())) == ["a"]
