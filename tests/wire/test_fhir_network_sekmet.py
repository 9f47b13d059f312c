"""The FHIR network against an independent server, with real documents."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tests.support.ccda_samples import needs_samples, sample_files
from tests.support.fhir_server import SekmetServer, load_documents, start_sekmet

from chartwire.clock import system_clock
from chartwire.errors import IssueCode, PermanentNetworkError
from chartwire.model.registry import Address, Demographics, Gender, LinkState
from chartwire.networks.fhir import FhirNetwork
from chartwire.settings import FhirNetworkSettings

pytestmark = [pytest.mark.embedded, needs_samples]

HOME = Address("1 Main St", "Boston", "MA", "02115")
ANA = Demographics("Ana", "Roe", date(1980, 2, 3), Gender.F, (HOME,))
BEN = Demographics("Ben", "Roe", date(1980, 2, 3), Gender.M, (HOME,))


@pytest.fixture
async def sekmet(tmp_path: Path) -> AsyncIterator[SekmetServer]:
    async with start_sekmet(tmp_path / "sekmet") as server:
        yield server


@asynccontextmanager
async def connect(server: SekmetServer, **settings: object) -> AsyncIterator[FhirNetwork]:
    values = {"kind": "fhir", "name": "mercy", "base_url": server.base_url, "page_size": 10, **settings}
    network = FhirNetwork(FhirNetworkSettings.model_validate(values), [ip_network("127.0.0.0/8")], system_clock)
    try:
        yield network
    finally:
        await network.close()


async def fetch_all(network: FhirNetwork, who: Demographics) -> list[bytes]:
    """Everything there is of one patient: found, listed over several pages, fetched."""
    discovery = await network.discover(who)
    assert [link.state for link in discovery.links] == [LinkState.CONFIRMED]
    listing = await network.query(discovery.links[0])
    assert listing.issues == ()
    contents = []
    for document in listing.documents:
        async with network.retrieve(document) as retrieval:
            content = b"".join([chunk async for chunk in retrieval.chunks])
        assert len(content) == document.size
        contents.append(content)
    return contents


async def refused(network: FhirNetwork) -> IssueCode:
    with pytest.raises(PermanentNetworkError) as caught:
        await network.check()
    return caught.value.code


async def test_every_real_document_comes_back_byte_for_byte(sekmet: SekmetServer) -> None:
    files = sample_files()
    await load_documents(sekmet.base_url, ANA, files[::2])
    await load_documents(sekmet.base_url, BEN, files[1::2])
    async with connect(sekmet) as network:
        await network.check()
        assert sorted(await fetch_all(network, ANA)) == sorted(file.read_bytes() for file in files[::2])
        assert sorted(await fetch_all(network, BEN)) == sorted(file.read_bytes() for file in files[1::2])


async def test_nobody_is_linked_who_is_not_there_or_there_twice(sekmet: SekmetServer) -> None:
    files = sample_files()[:1]
    await load_documents(sekmet.base_url, ANA, files)
    await load_documents(sekmet.base_url, ANA, files)
    async with connect(sekmet) as network:
        assert (await network.discover(BEN)).links == ()
        twice = await network.discover(ANA)
    assert [link.state for link in twice.links] == [LinkState.PROBABLE, LinkState.PROBABLE]
    assert [issue.code for issue in twice.issues] == [IssueCode.MULTIPLE_CANDIDATES]


async def test_a_bearer_token_opens_the_server_and_a_wrong_one_does_not(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("wrong\n")  # a network whose file cannot be read does not start
    async with (
        start_sekmet(tmp_path / "sekmet", {"types": ["bearer"], "tokens": ["s3cret"]}) as server,
        connect(server, auth="bearer", bearer_token_file=str(token)) as network,
    ):
        await load_documents(server.base_url, ANA, sample_files()[:3], {"Authorization": "Bearer s3cret"})
        assert await refused(network) is IssueCode.UNAUTHORIZED
        token.write_text("s3cret\n")
        await network.check()
        assert len(await fetch_all(network, ANA)) == 3


async def test_smart_backend_services_open_the_server(tmp_path: Path) -> None:
    clients = [
        register("rsa", rsa.generate_private_key(public_exponent=65537, key_size=2048), tmp_path),
        register("elliptic", ec.generate_private_key(ec.SECP384R1()), tmp_path),
    ]
    auth = {"types": ["smart", "bearer"], "tokens": ["loader"], "smart_clients": clients}
    async with start_sekmet(tmp_path / "sekmet", auth) as server:
        await load_documents(server.base_url, ANA, sample_files()[:3], {"Authorization": "Bearer loader"})
        for name in ("rsa", "elliptic"):
            key = str(tmp_path / f"{name}.pem")
            async with connect(server, auth="smart", client_id=name, private_key_file=key) as network:
                await network.check()
                assert len(await fetch_all(network, ANA)) == 3
            async with connect(server, auth="smart", client_id="nobody", private_key_file=key) as stranger:
                assert await refused(stranger) is IssueCode.UNAUTHORIZED


def register(name: str, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, folder: Path) -> dict[str, str]:
    """Write a client's key pair into files; returns what sekmet is told of the client."""
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pem").write_bytes(private)
    (folder / f"{name}.pub").write_bytes(public)
    return {"client_id": name, "public_key_path": str(folder / f"{name}.pub"), "scopes": "system/*.rs"}
