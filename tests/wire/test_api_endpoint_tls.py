"""TLS of an endpoint's own: an authority, a certificate and its key; checked, sealed, not shown again."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from tests.support.client import http_client
from tests.support.server import Installation, running_installation

pytestmark = pytest.mark.embedded


ENDPOINTS = "/v1/webhooks/endpoints"
URL = "https://receiver.example/hook"
CA = trustme.CA()
CLIENT = CA.issue_cert("chartwire.example")
OTHER = CA.issue_cert("other.example")
NOW = datetime.now(UTC)
EXPIRED = CA.issue_cert("old.example", not_before=NOW - timedelta(days=2), not_after=NOW - timedelta(days=1))


def pem(blob: trustme.Blob) -> str:
    return blob.bytes().decode()


def chain(leaf: trustme.LeafCert) -> str:
    return "".join(pem(part) for part in leaf.cert_chain_pems)


AUTHORITY = pem(CA.cert_pem)
CERTIFICATE, KEY = chain(CLIENT), pem(CLIENT.private_key_pem)
WHOLE = {"authority": AUTHORITY, "certificate": CERTIFICATE, "privateKey": KEY}


def under_a_password(key: str) -> str:
    loaded = load_pem_private_key(key.encode(), None)
    return loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode()


def weak() -> dict[str, str]:
    """A certificate that signs itself with a key of 1024 bits, which TLS refuses to use."""
    key = rsa.generate_private_key(65537, 1024)  # noqa: S505  that it is weak is the point
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "weak.example")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .sign(key, SHA256())
    )
    private_key = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    return {"certificate": certificate.public_bytes(Encoding.PEM).decode(), "privateKey": private_key}


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    async with running_installation(tmp_path) as installation:
        yield installation


@pytest.fixture
async def client(installation: Installation) -> AsyncIterator[httpx.AsyncClient]:
    key = await installation.create_account()
    async with http_client(base_url=installation.base_url, headers={"x-api-key": key}) as client:
        yield client


async def kept(installation: Installation) -> str:
    def unit(connection: Any) -> str:
        return str(connection.exec_driver_sql("SELECT tls FROM endpoint ORDER BY seq DESC LIMIT 1").scalar_one())

    return await installation.database.read(unit)


async def test_what_is_set_is_told_by_fingerprints_alone_and_sealed(
    installation: Installation, client: httpx.AsyncClient
) -> None:
    answer = await client.post(ENDPOINTS, json={"url": URL, "tls": WHOLE})
    assert answer.status_code == 201, answer.text
    told = answer.json()["tls"]
    for mark, text in ((told["authorities"][0], AUTHORITY), (told["certificate"], CERTIFICATE)):
        certificate = x509.load_pem_x509_certificate(text.encode())
        assert mark["sha256"] == certificate.fingerprint(SHA256()).hex()
        assert datetime.fromisoformat(mark["expiresAt"]) == certificate.not_valid_after_utc
    shown = (await client.get(f"{ENDPOINTS}/{answer.json()['id']}")).text + (await client.get(ENDPOINTS)).text
    everywhere = answer.text + shown + await kept(installation)
    lines = [line for text in (AUTHORITY, CERTIFICATE, KEY) for line in text.splitlines()]
    assert [line for line in lines if len(line) > 16 and line in everywhere] == []  # the last may be "Aw==", by chance


async def test_it_is_replaced_whole_and_cleared_with_null_or_with_its_endpoint(
    installation: Installation, client: httpx.AsyncClient
) -> None:
    made = (await client.post(ENDPOINTS, json={"url": URL, "tls": WHOLE})).json()
    path = f"{ENDPOINTS}/{made['id']}"
    changed = (await client.patch(path, json={"tls": {"authority": AUTHORITY}})).json()
    assert changed["tls"] == {"authorities": made["tls"]["authorities"]}
    assert "tls" in (await client.patch(path, json={"description": "the ward"})).json()
    assert "tls" not in (await client.patch(path, json={"tls": None})).json()
    await client.patch(path, json={"tls": WHOLE})
    await client.delete(path)
    assert await kept(installation) == "None"


@pytest.mark.parametrize(
    ("tls", "said"),
    [
        ({}, "tls: give an authority, or a certificate with its privateKey"),
        ({"authority": ""}, "tls.authority: it does not hold certificates in PEM"),
        ({"authority": "hush"}, "tls.authority: it does not hold certificates in PEM"),
        ({"authority": "ä"}, "tls.authority: it does not hold certificates in PEM"),
        ({"authority": KEY}, "tls.authority: it does not hold certificates in PEM"),
        ({"authority": AUTHORITY * 21}, "tls.authority: at most 20 certificates"),
        ({"authority": pem(EXPIRED.cert_chain_pems[0])}, "tls.authority: a certificate has expired"),
        ({"certificate": CERTIFICATE}, "tls: certificate and privateKey go together"),
        ({"authority": AUTHORITY, "privateKey": KEY}, "tls: certificate and privateKey go together"),
        ({"certificate": "hush", "privateKey": KEY}, "tls.certificate: it does not hold certificates in PEM"),
        ({"certificate": CERTIFICATE, "privateKey": "hush"}, "tls.privateKey: it is not a private key in PEM"),
        ({"certificate": CERTIFICATE, "privateKey": CERTIFICATE}, "tls.privateKey: it is not a private key in PEM"),
        (
            {"certificate": CERTIFICATE, "privateKey": under_a_password(KEY)},
            "tls.privateKey: it is under a password: give it without one",
        ),
        (
            {"certificate": chain(OTHER), "privateKey": KEY},
            "tls.privateKey: it does not belong to the first certificate of tls.certificate",
        ),
        (
            {"certificate": chain(EXPIRED), "privateKey": pem(EXPIRED.private_key_pem)},
            "tls.certificate: a certificate has expired",
        ),
        (weak(), "tls: it cannot be used: EE_KEY_TOO_SMALL"),
    ],
)
async def test_what_cannot_be_used_is_refused_in_clear_words_and_nothing_is_made(
    client: httpx.AsyncClient, tls: dict[str, str], said: str
) -> None:
    answer = await client.post(ENDPOINTS, json={"url": URL, "tls": tls})
    assert (answer.status_code, answer.json()["detail"]) == (400, said)
    assert len((await client.get(ENDPOINTS)).json()["endpoints"]) == 1


@pytest.mark.parametrize("tls", [[], "x", {"authority": 1}, {"authority": "x" * 70_000}, {"key": KEY}])
async def test_what_has_another_shape_is_refused_and_not_repeated(client: httpx.AsyncClient, tls: Any) -> None:
    answer = await client.post(ENDPOINTS, json={"url": URL, "tls": tls})
    assert answer.status_code == 400
    assert "PRIVATE" not in answer.text
