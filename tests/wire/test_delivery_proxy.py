"""The way out through a proxy, to real proxies that speak CONNECT and SOCKS5."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trustme
from tests.support.names import ScriptedResolver
from tests.support.patience import PATIENCE_SECONDS
from tests.support.posting import BODY, LOOPBACK
from tests.support.receiver import read_request, serve_raw

from chartwire.delivery.egress import PostAnswer, PostRequest, Recipient
from chartwire.delivery.http.client import HttpEgress
from chartwire.model.webhook import Outcome

pytestmark = pytest.mark.embedded


ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK"
CREDENTIALS = b"Basic " + base64.b64encode(b"us:pw")


class TunnelProxy:
    """Speaks CONNECT and SOCKS5 on one port; `targets` is what it was asked for, as it was asked."""

    def __init__(self, *, guarded: bool = False) -> None:
        self.targets: list[bytes] = []
        self._guarded = guarded

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        port = await (self._socks(reader, writer) if first == b"\x05" else self._connect(reader, writer))
        if port:
            await self._relay(reader, writer, port)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        head = b"C" + await reader.readuntil(b"\r\n\r\n")
        if self._guarded and b"proxy-authorization: " + CREDENTIALS not in head:
            writer.write(b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n")
            return 0
        self.targets.append(head.split(b" ")[1])
        writer.write(b"HTTP/1.1 200 Go\r\nx: y\r\n\r\n")
        return int(self.targets[-1].rpartition(b":")[2])

    async def _socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        methods = await reader.readexactly((await reader.readexactly(1))[0])
        method = b"\x02" if self._guarded else b"\x00"
        if method not in methods:
            writer.write(b"\x05\xff")
            return 0
        writer.write(b"\x05" + method)
        if self._guarded:
            assert await reader.readexactly(7) == b"\x01\x02us\x02pw"
            writer.write(b"\x01\x00")
        assert await reader.readexactly(4) == b"\x05\x01\x00\x01"
        address, port = await reader.readexactly(4), int.from_bytes(await reader.readexactly(2), "big")
        self.targets.append(b"%d.%d.%d.%d:%d" % (*address, port))
        writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        return port

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        finally:
            far_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
    writer.close()


async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await read_request(reader):
        writer.write(ANSWER)


@asynccontextmanager
async def an_egress(proxy_url: str, ssl_context: ssl.SSLContext | None = None) -> AsyncIterator[HttpEgress]:
    names = {"app.example": ["127.0.0.1"], "inside.example": ["10.0.0.1"]}
    egress = HttpEgress(
        LOOPBACK, limit=10, ssl_context=ssl_context, resolver=ScriptedResolver(names), proxy_url=proxy_url
    )
    try:
        yield egress
    finally:
        await egress.close()


def a_request(url: str) -> PostRequest:
    return PostRequest(Recipient(url), b"", BODY, PATIENCE_SECONDS)


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_the_proxy_is_handed_the_vetted_address_and_the_receiver_the_request(scheme: str) -> None:
    proxy = TunnelProxy()
    async with (
        serve_raw(answer_all) as port,
        serve_raw(proxy.serve) as proxy_port,
        an_egress(f"{scheme}://127.0.0.1:{proxy_port}") as egress,
    ):
        for _ in range(2):
            answer = await egress.post(a_request(f"http://app.example:{port}/"))
            assert answer == PostAnswer(200, b"OK")
    assert proxy.targets == [b"127.0.0.1:%d" % port]


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_tls_is_spoken_with_the_receiver_under_its_name(scheme: str) -> None:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("app.example").configure_cert(server)
    authority.configure_trust(client)
    async with (
        serve_raw(answer_all, server) as port,
        serve_raw(TunnelProxy().serve) as proxy_port,
        an_egress(f"{scheme}://127.0.0.1:{proxy_port}", client) as egress,
    ):
        assert (await egress.post(a_request(f"https://app.example:{port}/"))).status == 200


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_a_guarded_proxy_is_told_who_asks(scheme: str) -> None:
    proxy = TunnelProxy(guarded=True)
    async with serve_raw(answer_all) as port, serve_raw(proxy.serve) as proxy_port:
        async with an_egress(f"{scheme}://us:pw@127.0.0.1:{proxy_port}") as egress:
            assert (await egress.post(a_request(f"http://app.example:{port}/"))).status == 200
        async with an_egress(f"{scheme}://127.0.0.1:{proxy_port}") as egress:
            answer = await egress.post(a_request(f"http://app.example:{port}/"))
    assert answer.failure is Outcome.REFUSED
    assert len(proxy.targets) == 1


@pytest.mark.parametrize("scheme", ["http", "socks5"])
@pytest.mark.parametrize("url", ["http://inside.example/", "https://10.0.0.1/", "https://169.254.169.254/"])
async def test_the_address_rule_holds_behind_a_proxy(scheme: str, url: str) -> None:
    proxy = TunnelProxy()
    async with serve_raw(proxy.serve) as proxy_port, an_egress(f"{scheme}://127.0.0.1:{proxy_port}") as egress:
        assert (await egress.post(a_request(url))).failure is Outcome.FORBIDDEN_ADDRESS
    assert proxy.targets == []


@pytest.mark.parametrize("scheme", ["http", "socks5"])
@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 502 No\r\n\r\n", b"\x05\xff", b"\x05\x00\x05\x05\x00\x01", b"x" * 9000]
)
async def test_a_proxy_that_does_not_lead_there_is_refused(scheme: str, said: bytes) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(3)
        writer.write(said)
        await writer.drain()

    async with serve_raw(refuse) as proxy_port, an_egress(f"{scheme}://127.0.0.1:{proxy_port}") as egress:
        assert (await egress.post(a_request("http://app.example/"))).failure is Outcome.REFUSED


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_a_proxy_that_is_silent_uses_up_the_deadline(scheme: str) -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()
        await asyncio.Event().wait()

    async with serve_raw(silent) as proxy_port, an_egress(f"{scheme}://127.0.0.1:{proxy_port}") as egress:
        answer = await egress.post(PostRequest(Recipient("http://app.example/"), b"", BODY, 0.2))
    assert answer.failure is Outcome.TIMEOUT
