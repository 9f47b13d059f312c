"""The bytes: from every place a document can be, in every wrapping, and with what servers do wrong."""

import gzip
import os
import ssl
import tracemalloc
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from tests.support.fhir_stub import (
    PATIENT_ID,
    FhirStub,
    break_off,
    bundle,
    connect,
    inline,
    never,
    raw,
    redirect,
    reference,
    says,
    serve_stub,
    status,
)

from chartwire.errors import IssueCode, NetworkError
from chartwire.model.document import RemoteDocument
from chartwire.model.registry import LinkState
from chartwire.networks.fhir.network import FhirNetwork
from chartwire.networks.network import PatientLink
from chartwire.tls import default_ssl_context

pytestmark = pytest.mark.embedded


LINK = PatientLink(PATIENT_ID, LinkState.CONFIRMED)
SEARCH = ("POST", "DocumentReference/_search")
XML = b"<ClinicalDocument xmlns='urn:hl7-org:v3'>" + b"x" * 500 + b"</ClinicalDocument>"
CHUNK = 256 * 1024


@pytest.fixture
async def stub() -> AsyncIterator[FhirStub]:
    async with serve_stub() as running:
        yield running


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    return file


async def read(network: FhirNetwork, document: RemoteDocument) -> tuple[bytes, str | None]:
    async with network.retrieve(document) as retrieval:
        chunks = [chunk async for chunk in retrieval.chunks]
    assert all(0 < len(chunk) <= CHUNK for chunk in chunks)
    return b"".join(chunks), retrieval.declared_type


async def fetch(stub: FhirStub, listed: dict[str, Any], **settings: Any) -> tuple[bytes, str | None]:
    """List the one document that `listed` is, then fetch it."""
    stub.on(*SEARCH, says(bundle(listed)))
    stub.on("GET", f"DocumentReference/{listed['id']}", says(listed))
    async with connect(stub, **settings) as network:
        return await read(network, (await network.query(LINK)).documents[0])


async def failure(stub: FhirStub, listed: dict[str, Any], **settings: Any) -> NetworkError:
    with pytest.raises(NetworkError) as caught:
        await fetch(stub, listed, **settings)
    assert "Ana" not in str(caught.value)
    return caught.value


async def test_a_relative_url_is_below_the_base(stub: FhirStub) -> None:
    stub.on("GET", "Binary/doc", raw(XML, "text/xml; charset=utf-8"))
    assert await fetch(stub, reference("doc")) == (XML, "text/xml")
    assert stub.asked("Binary/doc")[0].headers["Accept"] == "application/xml, */*;q=0.1"


async def test_an_absolute_url_of_the_server_gets_the_token(stub: FhirStub, token: Path) -> None:
    stub.on("GET", "/files/1", raw(XML, "application/xml"))
    listed = reference("doc", f"{stub.origin}/files/1")
    assert (await fetch(stub, listed, auth="bearer", bearer_token_file=token))[0] == XML
    assert stub.asked("/files/1")[0].headers["Authorization"] == "Bearer s3cret"


async def test_another_origin_never_gets_the_token(stub: FhirStub, token: Path) -> None:
    async with serve_stub() as elsewhere:
        elsewhere.on("GET", "/files/1", raw(XML, "application/xml"))
        listed = reference("doc", f"{elsewhere.origin}/files/1")
        assert (await fetch(stub, listed, auth="bearer", bearer_token_file=token))[0] == XML
        assert "Authorization" not in elsewhere.seen[0].headers


async def test_an_origin_that_the_operator_listed_gets_the_token(stub: FhirStub, token: Path) -> None:
    async with serve_stub() as elsewhere:
        elsewhere.on("GET", "/files/1", raw(XML))
        listed = reference("doc", f"{elsewhere.origin}/files/1")
        settings: dict[str, Any] = {"allowed_origins": [elsewhere.origin], "allowed": ()}
        assert (await fetch(stub, listed, auth="bearer", bearer_token_file=token, **settings))[0] == XML
        assert elsewhere.seen[0].headers["Authorization"] == "Bearer s3cret"


async def test_a_redirect_within_the_server_keeps_the_token_and_one_out_of_it_drops_it(
    stub: FhirStub, token: Path
) -> None:
    async with serve_stub() as elsewhere:
        stub.on("GET", "Binary/doc", redirect("/second"))
        stub.on("GET", "/second", redirect(f"{elsewhere.origin}/third"))
        elsewhere.on("GET", "/third", redirect("/fourth"))
        elsewhere.on("GET", "/fourth", raw(XML))
        assert (await fetch(stub, reference("doc"), auth="bearer", bearer_token_file=token))[0] == XML
        assert stub.asked("/second")[0].headers["Authorization"] == "Bearer s3cret"
        assert all("Authorization" not in seen.headers for seen in elsewhere.seen)


async def test_a_fourth_redirect_is_one_too_many(stub: FhirStub) -> None:
    stub.on("GET", "Binary/doc", redirect("/1"))
    for number in range(1, 5):
        stub.on("GET", f"/{number}", redirect(f"/{number + 1}"))
    assert (await failure(stub, reference("doc"))).code is IssueCode.INVALID_ANSWER
    assert stub.asked("/4") == []


@pytest.mark.parametrize("target", ["http://10.1.2.3/x", "http://169.254.169.254/latest", "http://[::1]/x"])
async def test_a_url_or_redirect_to_an_address_that_is_not_public_is_refused(stub: FhirStub, target: str) -> None:
    assert (await failure(stub, reference("doc", target), allowed=())).code is IssueCode.FORBIDDEN_ADDRESS
    stub.on("GET", "Binary/doc", redirect(target))
    error = await failure(stub, reference("doc"), allowed=())
    assert (error.retryable, error.code) == (False, IssueCode.FORBIDDEN_ADDRESS)


async def test_another_port_of_the_named_host_is_another_place(stub: FhirStub) -> None:
    async with serve_stub() as elsewhere:
        listed = reference("doc", f"{elsewhere.origin}/admin")
        assert (await failure(stub, listed, allowed=())).code is IssueCode.FORBIDDEN_ADDRESS
        assert elsewhere.seen == []


@pytest.mark.parametrize("target", ["ftp://files.example/x", "", "http://", "http://[::1"])
async def test_a_redirect_to_nowhere_is_an_error(stub: FhirStub, target: str) -> None:
    stub.on("GET", "Binary/doc", redirect(target))
    assert (await failure(stub, reference("doc"))).code is IssueCode.INVALID_ANSWER


async def test_an_inline_document_is_read_when_its_turn_comes(stub: FhirStub) -> None:
    content = os.urandom(700_000)
    assert await fetch(stub, inline("doc", content, "image/png")) == (content, "image/png")
    assert len(stub.asked("DocumentReference/doc")) == 1


async def test_each_attachment_has_its_own_bytes(stub: FhirStub) -> None:
    contents = [{"attachment": {"data": b64encode(part).decode()}} for part in (b"first", b"second")]
    listed = reference("doc", content=contents)
    stub.on(*SEARCH, says(bundle(listed)))
    stub.on("GET", "DocumentReference/doc", says(listed))
    async with connect(stub) as network:
        documents = (await network.query(LINK)).documents
        assert [(await read(network, each))[0] for each in documents] == [b"first", b"second"]


async def test_a_signed_url_is_asked_for_again(stub: FhirStub) -> None:
    async with serve_stub() as elsewhere:
        elsewhere.on("GET", "/x", raw(XML))
        stub.on(*SEARCH, says(bundle(reference("doc", f"{elsewhere.origin}/x?sig=old"))))
        stub.on("GET", "DocumentReference/doc", says(reference("doc", f"{elsewhere.origin}/x?sig=new")))
        async with connect(stub) as network:
            document = (await network.query(LINK)).documents[0]
            assert "old" not in str(document.retrieval)
            assert (await read(network, document))[0] == XML
        assert elsewhere.seen[0].query == {"sig": "new"}


async def test_a_document_that_lost_its_content_meanwhile_has_none(stub: FhirStub) -> None:
    stub.on(*SEARCH, says(bundle(inline("doc", b"text"))))
    stub.on("GET", "DocumentReference/doc", says(reference("doc", content=[])))
    async with connect(stub) as network:
        document = (await network.query(LINK)).documents[0]
        with pytest.raises(NetworkError) as caught:
            await read(network, document)
    assert caught.value.code is IssueCode.NO_CONTENT


async def test_inline_data_that_is_no_base64_is_an_error(stub: FhirStub) -> None:
    listed = reference("doc", content=[{"attachment": {"data": "no base64!"}}])
    assert (await failure(stub, listed)).code is IssueCode.INVALID_ANSWER


async def test_binary_json_xml_and_bare_base64_are_unwrapped(stub: FhirStub) -> None:
    text = b64encode(XML).decode()
    as_json = {"resourceType": "Binary", "contentType": "text/xml", "data": text}
    stub.on("GET", "Binary/doc", says(as_json))
    assert await fetch(stub, reference("doc")) == (XML, "text/xml")
    as_xml = f'<Binary xmlns="http://hl7.org/fhir"><contentType value="text/xml"/><data value="{text}"/></Binary>'
    stub.on("GET", "Binary/doc", raw(as_xml.encode(), "application/fhir+xml"))
    assert await fetch(stub, reference("doc")) == (XML, "text/xml")
    stub.on("GET", "Binary/doc", raw(text.encode(), "text/plain"))
    assert await fetch(stub, reference("doc")) == (XML, None)


async def test_a_server_that_has_no_native_type_is_asked_for_a_binary(stub: FhirStub) -> None:
    wrapped = {"resourceType": "Binary", "contentType": "text/xml", "data": b64encode(XML).decode()}
    stub.on("GET", "Binary/doc", status(406), says(wrapped))
    assert (await fetch(stub, reference("doc")))[0] == XML
    assert stub.asked("Binary/doc")[1].headers["Accept"] == "application/fhir+json"


@pytest.mark.parametrize(
    ("coding", "compress"),
    [
        ("gzip", gzip.compress),
        ("GZIP", lambda body: gzip.compress(body[:100]) + gzip.compress(body[100:])),
        ("deflate", zlib.compress),
        ("identity", bytes),
    ],
)
async def test_compression_that_nobody_asked_for_is_undone(stub: FhirStub, coding: str, compress: Any) -> None:
    content = XML + os.urandom(300_000) + b"\0" * 3_000_000
    stub.on("GET", "Binary/doc", raw(compress(content), "application/xml", Content_Encoding=coding))
    assert (await fetch(stub, reference("doc")))[0] == content
    assert stub.asked("Binary/doc")[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("coding", "body", "retryable"),
    [("gzip", gzip.compress(XML, mtime=0)[:-9], True), ("gzip", XML, True), ("br", XML, False)],
)
async def test_compression_that_cannot_be_undone_is_an_error(
    stub: FhirStub, coding: str, body: bytes, retryable: bool
) -> None:
    stub.on("GET", "Binary/doc", raw(body, "application/xml", Content_Encoding=coding))
    error = await failure(stub, reference("doc"))
    assert (error.retryable, error.code) == (retryable, IssueCode.INVALID_ANSWER)


@pytest.mark.parametrize(
    ("code", "retryable", "issue"),
    [
        (404, False, IssueCode.NOT_FOUND),
        (410, False, IssueCode.GONE),
        (403, False, IssueCode.FORBIDDEN),
        (406, False, IssueCode.REJECTED),
        (429, True, IssueCode.THROTTLED),
        (503, True, IssueCode.SERVER_ERROR),
    ],
)
async def test_a_refused_document_says_why(stub: FhirStub, code: int, retryable: bool, issue: IssueCode) -> None:
    stub.on("GET", "Binary/doc", status(code))
    error = await failure(stub, reference("doc"))
    assert (error.retryable, error.code) == (retryable, issue)


async def test_a_document_that_breaks_off_is_tried_again(stub: FhirStub) -> None:
    stub.on("GET", "Binary/doc", break_off)
    error = await failure(stub, reference("doc"))
    assert (error.retryable, error.code) == (True, IssueCode.UNREACHABLE)


async def test_a_document_that_does_not_come_is_tried_again(stub: FhirStub) -> None:
    stub.on("GET", "Binary/doc", never)
    error = await failure(stub, reference("doc"), retrieve_deadline_seconds=0.1)
    assert (error.retryable, error.code) == (True, IssueCode.TIMEOUT)


@pytest.mark.parametrize("answer", [raw(b"", "application/xml"), raw(b"", None, 204)])
async def test_a_document_without_a_byte_is_none(stub: FhirStub, answer: Any) -> None:
    stub.on("GET", "Binary/doc", answer)
    assert (await failure(stub, reference("doc"))).code is IssueCode.NO_CONTENT


async def test_what_the_caller_raises_while_reading_comes_out_as_it_is(stub: FhirStub) -> None:
    stub.on("GET", "Binary/doc", raw(XML))
    stub.on(*SEARCH, says(bundle(reference("doc"))))
    async with connect(stub) as network:
        document = (await network.query(LINK)).documents[0]
        with pytest.raises(OSError, match="disk full"):
            async with network.retrieve(document):
                raise OSError("disk full")
        assert (await read(network, document))[0] == XML


async def test_a_large_document_costs_no_memory_raw_or_wrapped(stub: FhirStub) -> None:
    part, parts = os.urandom(3 * 64 * 1024), 400
    expected = sha256(part * parts).hexdigest()

    async def send_raw(request: web.BaseRequest) -> web.StreamResponse:
        return await send(request, part, b"", b"")

    async def send_wrapped(request: web.BaseRequest) -> web.StreamResponse:
        return await send(request, b64encode(part), b'{"resourceType":"Binary","data":"', b'"}')

    async def send(request: web.BaseRequest, piece: bytes, before: bytes, after: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(before)
        for _ in range(parts):
            await response.write(piece)
        await response.write(after)
        return response

    stub.on(*SEARCH, says(bundle(reference("doc"))))
    for answer in (send_raw, send_wrapped):
        stub.on("GET", "Binary/doc", answer)
        async with connect(stub) as network:
            document = (await network.query(LINK)).documents[0]
            digest = sha256()
            tracemalloc.start()
            async with network.retrieve(document) as retrieval:
                async for chunk in retrieval.chunks:
                    digest.update(chunk)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert digest.hexdigest() == expected
        assert peak < 8 * 1024 * 1024  # of 75 MiB


async def test_tls_is_verified() -> None:
    issuer = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert("127.0.0.1").configure_cert(server_context)
    trusting = default_ssl_context()
    issuer.configure_trust(trusting)
    async with serve_stub(server_context) as stub:
        stub.on("GET", "Binary/doc", raw(XML))
        assert (await fetch(stub, reference("doc"), ssl_context=trusting, allowed=()))[0] == XML
        error = await failure(stub, reference("doc"))
    assert (error.retryable, error.code) == (False, IssueCode.UNREACHABLE)


async def test_a_document_whose_place_is_not_known_has_no_content(stub: FhirStub) -> None:
    stub.on("GET", "DocumentReference/doc", says(reference("doc", "urn:oid:1.2")))
    async with connect(stub) as network:
        lost = RemoteDocument("doc", retrieval={"reference": "doc", "content": "0"})
        for document in (lost, replace(lost, retrieval={"reference": "doc", "content": "5"})):
            with pytest.raises(NetworkError) as caught:
                await read(network, document)
            assert caught.value.code is IssueCode.NO_CONTENT
