"""The HTTP client on real sockets: what it connects to and what it refuses."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network

import aiohttp
import pytest
import trustme
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from chartwire.addresses import IPNetwork
from chartwire.outbound import authority, forbidden_address, vetted_session
from chartwire.tls import default_ssl_context

pytestmark = pytest.mark.embedded


LOOPBACK: tuple[IPNetwork, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


class TableResolver(AbstractResolver):
    """Resolves names by a table that a test may change while it runs."""

    def __init__(self, **names: list[str]) -> None:
        self.names = names
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST)
            for address in self.names[host]
        ]

    async def close(self) -> None:
        """Nothing to give back."""


class Server:
    """A web server on a free port that counts connections and shows what it was asked."""

    def __init__(self) -> None:
        self.requests: list[web.BaseRequest] = []
        self.port = 0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        if request.path == "/redirect":
            return web.Response(status=302, headers={"Location": "/", "Set-Cookie": "a=b"})
        return web.Response(body=b"\x1f\x8b not gzip at all", headers={"Content-Encoding": "gzip"})


@asynccontextmanager
async def serve(ssl_context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server()
    runner = web.ServerRunner(web.Server(server.answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context).start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serve() as running:
        yield running


def open_session(
    allowed: tuple[IPNetwork, ...] = (),
    always: frozenset[str] = frozenset(),
    resolver: AbstractResolver | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> aiohttp.ClientSession:
    return vetted_session(
        allowed,
        always_allowed_hosts=always,
        limit=10,
        limit_per_host=5,
        user_agent="Chartwire/test",
        resolver=resolver,
        ssl_context=ssl_context,
    )


async def get(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url, allow_redirects=False) as response:
        return await response.read()


async def assert_refused(session: aiohttp.ClientSession, url: str) -> None:
    with pytest.raises((aiohttp.ClientError, OSError)) as caught:
        await get(session, url)
    assert forbidden_address(caught.value)


async def test_an_opened_network_is_reached_over_plain_http(server: Server) -> None:
    async with open_session(LOOPBACK) as session:
        assert await get(session, f"http://127.0.0.1:{server.port}/")
    assert server.requests[0].headers["User-Agent"] == "Chartwire/test"
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "[::ffff:127.0.0.1]", "0x7f.1", "localhost"])
async def test_a_loopback_address_is_refused_in_every_spelling(server: Server, host: str) -> None:
    async with open_session() as session:
        await assert_refused(session, f"http://{host}:{server.port}/")
    assert server.requests == []


@pytest.mark.parametrize("host", ["2130706433", "017700000001", "127.1", "0"])
async def test_a_literal_of_digits_that_is_no_dotted_quad_reaches_nothing(server: Server, host: str) -> None:
    async with open_session() as session:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await get(session, f"http://{host}:{server.port}/")
    assert server.requests == []


async def test_a_name_with_a_public_and_a_forbidden_address_is_refused_whole(server: Server) -> None:
    resolver = TableResolver(mixed=["127.0.0.1", "10.0.0.1"], opened=["127.0.0.1", "127.0.0.1"])
    async with open_session(LOOPBACK, resolver=resolver) as session:
        await assert_refused(session, f"http://mixed:{server.port}/")
        assert server.requests == []
        assert await get(session, f"http://opened:{server.port}/")


async def test_a_name_that_changes_its_meaning_is_refused_at_the_next_connection(server: Server) -> None:
    resolver = TableResolver(app=["127.0.0.1"])
    async with open_session(LOOPBACK, resolver=resolver) as session:
        assert await get(session, f"http://app:{server.port}/")
        resolver.names["app"] = ["169.254.169.254"]
        assert isinstance(session.connector, aiohttp.TCPConnector)
        session.connector.clear_dns_cache()
        async with session.get(f"http://app:{server.port}/", headers={"Connection": "close"}) as response:
            await response.read()  # the pooled connection was vetted; it is closed now
        await assert_refused(session, f"http://app:{server.port}/")
    assert resolver.asked == 2


async def test_plain_http_to_a_public_address_is_refused_before_a_byte_is_sent() -> None:
    resolver = TableResolver(public=["1.1.1.1", "1.0.0.1", "2606:4700::1111"])
    async with open_session(LOOPBACK, resolver=resolver) as session:
        await assert_refused(session, "http://public/")
        await assert_refused(session, "http://1.1.1.1/")


async def test_what_the_operator_named_is_reached_at_its_port_alone(server: Server) -> None:
    url = URL(f"http://127.0.0.1:{server.port}/")
    async with open_session(always=frozenset({authority(url)})) as session:
        assert await get(session, str(url))
        await assert_refused(session, "http://127.0.0.1:1/")


async def test_a_named_host_at_a_metadata_address_stays_refused() -> None:
    resolver = TableResolver(cloud=["169.254.169.254"])
    async with open_session(always=frozenset({"cloud:80", "169.254.169.254:80"}), resolver=resolver) as session:
        await assert_refused(session, "http://cloud/")
        await assert_refused(session, "http://169.254.169.254/latest/meta-data")


async def test_redirects_cookies_and_compression_are_left_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    resolver = TableResolver(**{"app.example": ["127.0.0.1"]})  # of an address nobody keeps cookies anyway
    async with open_session(LOOPBACK, resolver=resolver) as session:
        async with session.get(f"http://app.example:{server.port}/redirect", allow_redirects=False) as response:
            assert response.status == 302
        assert await get(session, f"http://app.example:{server.port}/") == b"\x1f\x8b not gzip at all"
    assert "Cookie" not in server.requests[1].headers


async def test_a_server_with_an_unknown_certificate_is_refused_and_a_known_one_taken() -> None:
    issuer = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert("app.example").configure_cert(server_context)
    trusting = default_ssl_context()
    issuer.configure_trust(trusting)
    async with serve(server_context) as server:
        url = f"https://app.example:{server.port}/"
        resolver = TableResolver(**{"app.example": ["127.0.0.1"]})
        async with open_session(LOOPBACK, resolver=resolver) as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await get(session, url)
        async with open_session(LOOPBACK, resolver=resolver, ssl_context=trusting) as session:
            assert await get(session, url)
