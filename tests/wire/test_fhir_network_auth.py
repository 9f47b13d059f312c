"""Credentials: where they come from, when they are renewed, and where they never go."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwt
from joserfc.jwk import ECKey
from tests.support.fhir_stub import (
    PATIENT_ID,
    FhirStub,
    bundle,
    connect,
    redirect,
    reference,
    says,
    serve_stub,
    status,
)

from chartwire.errors import ConfigurationError, IssueCode, NetworkError
from chartwire.model.registry import LinkState
from chartwire.networks.fhir.network import FhirNetwork
from chartwire.networks.network import PatientLink

pytestmark = pytest.mark.embedded


LINK = PatientLink(PATIENT_ID, LinkState.CONFIRMED)
SEARCH = ("POST", "DocumentReference/_search")
KEY = ec.generate_private_key(ec.SECP384R1())
METADATA = {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"}


def pem(key: Any) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    encoded: bytes = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return encoded


@pytest.fixture
async def stub() -> AsyncIterator[FhirStub]:
    async with serve_stub() as running:
        running.on(*SEARCH, says(bundle(reference("doc"))))
        yield running


@pytest.fixture
def smart(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "key.pem"
    file.write_bytes(pem(KEY))
    return {"auth": "smart", "client_id": "chartwire", "private_key_file": file, "key_id": "k1", "scope": "system/*.rs"}


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


def token(name: str = "t1", **members: object) -> dict[str, object]:
    return {"access_token": name, "token_type": "bearer", "expires_in": 300, **members}


def publish(stub: FhirStub, endpoint: str) -> None:
    stub.on("GET", ".well-known/smart-configuration", says({"token_endpoint": endpoint}))


def sent(stub: FhirStub) -> list[str | None]:
    """The credentials of each search."""
    return [seen.headers.get("Authorization") for seen in stub.asked("DocumentReference/_search")]


async def refusal(network: FhirNetwork) -> NetworkError:
    with pytest.raises(NetworkError) as caught:
        await network.query(LINK)
    return caught.value


async def test_without_auth_nothing_is_sent(stub: FhirStub) -> None:
    async with connect(stub) as network:
        await network.query(LINK)
    assert sent(stub) == [None]


async def test_a_replaced_bearer_token_is_read_when_the_old_one_is_refused(stub: FhirStub, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    async with connect(stub, auth="bearer", bearer_token_file=file) as network:
        await network.query(LINK)
        file.write_text("new\n")
        stub.on(*SEARCH, status(401), says(bundle()))
        await network.query(LINK)
    assert sent(stub) == ["Bearer old", "Bearer old", "Bearer new"]


async def test_a_refused_bearer_token_is_not_sent_again(stub: FhirStub, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    stub.on(*SEARCH, status(401))
    async with connect(stub, auth="bearer", bearer_token_file=file) as network:
        error = await refusal(network)
    assert (error.retryable, error.code) == (False, IssueCode.UNAUTHORIZED)
    assert len(sent(stub)) == 1


@pytest.mark.parametrize("content", [None, b"", b"two words", b"a\nb", "schlüssel".encode()])
async def test_a_file_without_a_usable_token_stops_the_start_and_ends_a_network_that_runs(
    stub: FhirStub, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    stub.on(*SEARCH, status(401))
    async with connect(stub, auth="bearer", bearer_token_file=file) as network:
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        error = await refusal(network)
    assert error.code is IssueCode.UNAUTHORIZED
    assert sent(stub) == ["Bearer old"]
    with pytest.raises(ConfigurationError, match="bearer_token_file") as caught:
        async with connect(stub, auth="bearer", bearer_token_file=file):
            pass
    assert content is None or not content.strip() or content.decode() not in str(caught.value)


async def test_smart_sends_a_signed_statement_and_gets_a_token(stub: FhirStub, smart: dict[str, Any]) -> None:
    endpoint = f"{stub.origin}/auth/token"
    publish(stub, endpoint)
    stub.on("POST", "/auth/token", says(token()))
    async with connect(stub, **smart) as network:
        await network.query(LINK)
    assert sent(stub) == ["Bearer t1"]
    form = {name: values[0] for name, values in parse_qs(stub.asked("/auth/token")[0].body.decode()).items()}
    assertion = form.pop("client_assertion")
    assert form == {
        "grant_type": "client_credentials",
        "scope": "system/*.rs",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    }
    decoded = jwt.decode(assertion, ECKey.import_key(pem(KEY)), algorithms=["ES384"])
    assert decoded.header == {"alg": "ES384", "typ": "JWT", "kid": "k1"}
    assert decoded.claims["iss"] == decoded.claims["sub"] == "chartwire"
    assert decoded.claims["aud"] == endpoint
    assert 0 < decoded.claims["exp"] - datetime.now(UTC).timestamp() <= 300
    assert "Authorization" not in stub.asked("/auth/token")[0].headers
    assert "Authorization" not in stub.asked(".well-known/smart-configuration")[0].headers


async def test_a_token_serves_until_shortly_before_it_expires(stub: FhirStub, smart: dict[str, Any]) -> None:
    publish(stub, f"{stub.origin}/auth/token")
    stub.on("POST", "/auth/token", says(token("t1")), says(token("t2")))
    time = Time()
    async with connect(stub, clock=time, **smart) as network:
        await network.query(LINK)
        time.now += timedelta(seconds=269)
        await network.query(LINK)
        time.now += timedelta(seconds=1)
        await network.query(LINK)
    assert sent(stub) == ["Bearer t1", "Bearer t1", "Bearer t2"]
    assertions = {seen.body for seen in stub.asked("/auth/token")}
    assert len(assertions) == 2  # each statement is new, with an id of its own


async def test_a_refused_token_is_renewed_once(stub: FhirStub, smart: dict[str, Any]) -> None:
    publish(stub, f"{stub.origin}/auth/token")
    stub.on("POST", "/auth/token", says(token("t1")), says(token("t2")))
    stub.on(*SEARCH, status(401), says(bundle()))
    async with connect(stub, **smart) as network:
        await network.query(LINK)
        assert sent(stub) == ["Bearer t1", "Bearer t2"]
        stub.on(*SEARCH, status(401))
        assert (await refusal(network)).code is IssueCode.UNAUTHORIZED
    assert len(sent(stub)) == 4


async def test_callers_at_the_same_time_share_one_token_request(stub: FhirStub, smart: dict[str, Any]) -> None:
    publish(stub, f"{stub.origin}/auth/token")
    names = iter(["t1", "t2", "t3"])

    async def give(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(token(next(names)))

    async def search(request: web.BaseRequest) -> web.StreamResponse:
        refused = request.headers["Authorization"] == "Bearer t1"
        return web.json_response(bundle(), status=401 if refused else 200)

    stub.on("POST", "/auth/token", give)
    stub.on(*SEARCH, search)
    async with connect(stub, **smart) as network:
        await asyncio.gather(*(network.query(LINK) for _ in range(20)))
    assert len(stub.asked("/auth/token")) == 2
    assert len(stub.asked(".well-known/smart-configuration")) == 1


async def test_an_endpoint_on_another_origin_is_taken_from_the_operator_alone(
    stub: FhirStub, smart: dict[str, Any]
) -> None:
    async with serve_stub() as issuer:
        issuer.on("POST", "/token", says(token("t9")))
        publish(stub, f"{issuer.origin}/token")
        async with connect(stub, **smart) as network:
            error = await refusal(network)
        assert (error.retryable, error.code) == (False, IssueCode.UNAUTHORIZED)
        assert "token_url" in str(error)
        assert (issuer.seen, sent(stub)) == ([], [])
        async with connect(stub, allowed=(), token_url=f"{issuer.origin}/token", **smart) as network:
            await network.query(LINK)
        assert sent(stub) == ["Bearer t9"]


async def test_the_statement_follows_no_redirect(stub: FhirStub, smart: dict[str, Any]) -> None:
    async with serve_stub() as thief:
        thief.on("POST", "/token", says(token()))
        publish(stub, f"{stub.origin}/auth/token")
        stub.on("POST", "/auth/token", redirect(f"{thief.origin}/token", 307))
        async with connect(stub, **smart) as network:
            assert (await refusal(network)).code is IssueCode.UNAUTHORIZED
        assert thief.seen == []


async def test_older_servers_name_the_endpoint_in_their_capabilities(stub: FhirStub, smart: dict[str, Any]) -> None:
    uris = {
        "url": "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris",
        "extension": [{"url": "token", "valueUri": f"{stub.origin}/old/token"}],
    }
    stub.on("GET", "metadata", says({**METADATA, "rest": [{"security": {"extension": [uris]}}]}))
    stub.on("POST", "/old/token", says(token()))
    async with connect(stub, **smart) as network:
        await network.query(LINK)
    assert sent(stub) == ["Bearer t1"]


@pytest.mark.parametrize(
    ("answer", "retryable", "code"),
    [
        (says({"error": "invalid_client"}, 401), False, IssueCode.UNAUTHORIZED),
        (says({"error": "invalid_scope"}, 400), False, IssueCode.UNAUTHORIZED),
        (status(404), False, IssueCode.UNAUTHORIZED),
        (status(500), True, IssueCode.SERVER_ERROR),
        (status(429, Retry_After="5"), True, IssueCode.THROTTLED),
        (says({}), False, IssueCode.UNAUTHORIZED),
        (says(token("a b")), False, IssueCode.UNAUTHORIZED),
        (says(token(token_type="mac")), False, IssueCode.UNAUTHORIZED),
        (says(token(expires_in="soon")), False, IssueCode.UNAUTHORIZED),
    ],
)
async def test_no_token_is_an_error_of_its_kind(
    stub: FhirStub, smart: dict[str, Any], answer: Any, retryable: bool, code: IssueCode
) -> None:
    publish(stub, f"{stub.origin}/auth/token")
    stub.on("POST", "/auth/token", answer)
    async with connect(stub, **smart) as network:
        error = await refusal(network)
    assert (error.retryable, error.code) == (retryable, code)
    assert sent(stub) == []


async def test_a_server_that_publishes_no_endpoint_is_an_error(stub: FhirStub, smart: dict[str, Any]) -> None:
    stub.on("GET", "metadata", says(METADATA))
    async with connect(stub, **smart) as network:
        assert (await refusal(network)).code is IssueCode.UNAUTHORIZED


@pytest.mark.parametrize(
    "content",
    [
        b"no key",
        b"",
        pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)),  # noqa: S505  too weak on purpose
        pem(ec.generate_private_key(ec.SECP256R1())),
        KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        None,
    ],
)
async def test_a_key_that_will_not_do_stops_the_start(
    stub: FhirStub, smart: dict[str, Any], tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "other.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="private_key_file"):
        async with connect(stub, **{**smart, "private_key_file": file}):
            pass


@pytest.mark.parametrize("origin", ["files.example", "ftp://files.example", "https://u:p@files.example"])
async def test_an_origin_that_is_none_stops_the_start(stub: FhirStub, origin: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed_origins"):
        async with connect(stub, allowed_origins=[origin]):
            pass


async def test_check_passes_on_a_server_that_accepts_us(stub: FhirStub, smart: dict[str, Any]) -> None:
    publish(stub, f"{stub.origin}/auth/token")
    stub.on("POST", "/auth/token", says(token()))
    stub.on("GET", "metadata", says(METADATA))
    stub.on("POST", "Patient/_search", says(bundle()))
    async with connect(stub, **smart) as network:
        await network.check()
    assert stub.asked("Patient/_search")[0].headers["Authorization"] == "Bearer t1"


@pytest.mark.parametrize("code", [400, 404, 405])
async def test_check_does_not_mind_that_its_search_is_not_liked(stub: FhirStub, code: int) -> None:
    stub.on("GET", "metadata", says(METADATA))
    stub.on("POST", "Patient/_search", status(code))
    async with connect(stub) as network:
        await network.check()


@pytest.mark.parametrize(
    ("metadata", "search", "code"),
    [
        (says(METADATA), status(401), IssueCode.UNAUTHORIZED),
        (says(METADATA), status(403), IssueCode.FORBIDDEN),
        (says(METADATA), status(500), IssueCode.SERVER_ERROR),
        (says({**METADATA, "fhirVersion": "5.0.0"}), says(bundle()), IssueCode.INVALID_ANSWER),
        (says({"resourceType": "Bundle"}), says(bundle()), IssueCode.INVALID_ANSWER),
        (status(404), says(bundle()), IssueCode.NOT_FOUND),
    ],
)
async def test_check_says_what_is_wrong(stub: FhirStub, metadata: Any, search: Any, code: IssueCode) -> None:
    stub.on("GET", "metadata", metadata)
    stub.on("POST", "Patient/_search", search)
    async with connect(stub) as network:
        with pytest.raises(NetworkError) as caught:
            await network.check()
    assert caught.value.code is code


async def test_a_closed_network_opens_again(stub: FhirStub) -> None:
    async with connect(stub) as network:
        await network.query(LINK)
        await network.close()
        assert len((await network.query(LINK)).documents) == 1
