"""The egress port against everything that goes wrong between here and a receiver: each fault and its reason code."""

import asyncio
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import trustme
from tests.support.fault_proxy import RESET_ON_CLOSE, Fault, FaultProxy, Then, fault_proxy
from tests.support.names import FailingResolver, HangingResolver, ScriptedResolver
from tests.support.patience import PATIENCE_SECONDS
from tests.support.posting import BODY, LOOPBACK
from tests.support.receiver import read_request, serve_raw

from chartwire.addresses import IPNetwork
from chartwire.delivery.egress import ANSWER_LIMIT, PostAnswer, PostRequest, Recipient
from chartwire.delivery.headers import header_lines
from chartwire.delivery.http.client import HttpEgress
from chartwire.delivery.http.resolution import Resolver
from chartwire.model.webhook import Outcome
from chartwire.tls import TlsProfile

pytestmark = pytest.mark.embedded


ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nOK"
OTHER_ANSWER = b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def an_egress(
    allowed: Sequence[IPNetwork] = LOOPBACK,
    *,
    ssl_context: ssl.SSLContext | None = None,
    resolver: Resolver | None = None,
) -> AsyncIterator[HttpEgress]:
    egress = HttpEgress(allowed, limit=10, ssl_context=ssl_context, resolver=resolver)
    try:
        yield egress
    finally:
        await egress.close()


def a_request(
    port: int,
    *,
    url: str = "http://127.0.0.1",
    deadline: float = PATIENCE_SECONDS,
    body: bytes = BODY,
    tls: TlsProfile | None = None,
) -> PostRequest:
    recipient = Recipient(f"{url}:{port}/hook", {"content-type": "application/json"}, tls)
    return PostRequest(recipient, b"", body, deadline)


async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await read_request(reader):
        writer.write(ANSWER)


def answering(*pieces: bytes) -> Handler:
    """Reads a request, answers in pieces that arrive apart, closes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.001)  # so that they are pieces

    return handle


async def post_to(handler: Handler, deadline: float = PATIENCE_SECONDS, body: bytes = BODY) -> PostAnswer:
    async with serve_raw(handler) as port, an_egress() as egress:
        return await egress.post(a_request(port, deadline=deadline, body=body))


@asynccontextmanager
async def a_faulty_way(fault: Fault) -> AsyncIterator[FaultProxy]:
    async with serve_raw(answer_all) as port, fault_proxy(port, fault) as proxy:
        yield proxy


async def post_through(fault: Fault, deadline: float = PATIENCE_SECONDS) -> PostAnswer:
    async with a_faulty_way(fault) as proxy, an_egress() as egress:
        return await egress.post(a_request(proxy.port, deadline=deadline))


# --- the connection ends, or does not -------------------------------------------------------------------------------


@pytest.mark.parametrize("passed", [0, 1, 20, len(ANSWER) - 3, len(ANSWER) - 1])
@pytest.mark.parametrize("then", [Then.RESET, Then.CLOSE])
async def test_an_end_before_or_within_the_answer_is_a_reset(then: Then, passed: int) -> None:
    assert (await post_through(Fault(passed, then))).failure is Outcome.RESET


@pytest.mark.parametrize("then", [Then.RESET, Then.CLOSE])
async def test_an_end_right_after_the_answer_takes_nothing_away(then: Then) -> None:
    async with a_faulty_way(Fault(len(ANSWER), then)) as proxy, an_egress() as egress:
        assert (await egress.post(a_request(proxy.port))).status == 200
        await proxy.left.wait()
        assert (await egress.post(a_request(proxy.port))).status == 200
    assert proxy.connections == 2


@pytest.mark.parametrize("passed", [0, 20, len(ANSWER) - 1])
async def test_silence_before_or_within_the_answer_is_a_timeout(passed: int) -> None:
    assert (await post_through(Fault(passed, Then.SILENCE), deadline=0.3)).failure is Outcome.TIMEOUT


async def test_a_byte_now_and_then_is_a_timeout() -> None:
    assert (await post_through(Fault(0, Then.DRIP), deadline=0.5)).failure is Outcome.TIMEOUT


async def test_an_answer_that_comes_a_byte_at_a_time_is_an_answer() -> None:
    assert (await post_through(Fault(0, Then.DRIP, pace=0.0))) == PostAnswer(200, b"OK")


async def test_a_peer_that_resets_at_once_is_a_reset() -> None:
    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        writer.transport.abort()

    assert (await post_to(reset)).failure is Outcome.RESET


async def test_a_connection_that_nobody_takes_is_a_timeout() -> None:
    """A full backlog drops our SYN, as a firewall does."""
    with socket.socket() as listener, socket.socket() as filler:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filler.connect(listener.getsockname())
        async with an_egress() as egress:
            answer = await egress.post(a_request(listener.getsockname()[1], deadline=0.3))
    assert answer.failure is Outcome.TIMEOUT


# --- answers that are odd -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nuntil the end", b"until the end"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n3;x=y\r\ncde\r\n0\r\nt: 1\r\n\r\n",
            b"abcde",
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nupgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 1\r\n\r\na", b"a"),
    ],
)
async def test_a_body_ends_in_every_way_there_is(answer: bytes, body: bytes) -> None:
    assert (await post_to(answering(answer))).body == body
    assert (await post_to(answering(*(answer[at : at + 7] for at in range(0, len(answer), 7))))).body == body


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"\r\n\r\nICY 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx y: z\r\n\r\n",
        "HTTP/1.1 200 OK\r\nnäme: z\r\n\r\n".encode(),
        b"HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
    ],
)
async def test_what_can_be_read_in_two_ways_is_a_protocol_error(answer: bytes) -> None:
    assert (await post_to(answering(answer))).failure is Outcome.PROTOCOL


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\nx", b"\r\n"])
async def test_a_head_without_an_end_is_left_at_its_limit(start: bytes) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(start)
        while True:
            writer.write(start[:2] * 512 if start == b"\r\n" else b"x" * 1024)
            await writer.drain()

    assert (await post_to(endless)).failure is Outcome.TOO_LARGE_HEADERS


@pytest.mark.parametrize(
    ("start", "again"),
    [
        (b"transfer-encoding: chunked\r\n\r\n", b"1;" + b"x" * 4000 + b"\r\na\r\n"),
        (b"transfer-encoding: chunked\r\n\r\n1;", b"x" * 4000),
        (b"transfer-encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 1000),
        (b"content-length: 999999999\r\n\r\n", b"a" * 4000),
    ],
    ids=["chunk extensions", "one chunk extension", "small chunks", "length"],
)
async def test_a_body_without_an_end_is_left_at_its_limit(start: bytes, again: bytes) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + start)
        while True:
            writer.write(again)
            await writer.drain()

    answer = await post_to(endless)
    assert answer.status == 200
    assert len(answer.body) <= ANSWER_LIMIT


async def test_trailers_without_an_end_have_the_limit_of_headers() -> None:
    start = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"
    assert (await post_to(answering(start + b"x: y\r\n" * 200))).failure is Outcome.TOO_LARGE_HEADERS


async def test_retry_after_is_taken_from_the_answer_and_not_from_what_went_before() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nretry-after: 1\r\n\r\n"
    answer = await post_to(answering(interim + b"HTTP/1.1 503 No\r\nRetry-After: 120\r\ncontent-length: 0\r\n\r\n"))
    assert (answer.status, answer.retry_after) == (503, "120")
    answer = await post_to(answering(interim + b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"))
    assert (answer.status, answer.retry_after) == (503, None)


# --- answers that come too early, or too often ----------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["reads on", "hears nothing", "hangs up"])
async def test_an_answer_before_the_request_was_read_is_taken_and_the_connection_is_not_used_again(ending: str) -> None:
    connections = 0

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nNo")
        await writer.drain()
        while ending == "reads on" and await reader.read(1 << 16):
            pass
        if ending == "hears nothing":
            await asyncio.Event().wait()

    async with serve_raw(early) as port, an_egress() as egress:
        for _ in range(2):
            answer = await egress.post(a_request(port, body=b"x" * 8_000_000))
            assert answer == PostAnswer(413, b"No")
    assert connections == 2


@pytest.mark.parametrize("said", [OTHER_ANSWER, b"garbage", b"H"])
async def test_what_follows_an_answer_at_once_does_not_reach_the_next(said: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_request(reader):
            writer.write(ANSWER + said)

    async with serve_raw(handle) as port, an_egress() as egress:
        assert [(await egress.post(a_request(port))).status for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize("said", [OTHER_ANSWER, b"garbage", b"H"])
async def test_what_follows_an_answer_later_ends_the_connection(said: bytes) -> None:
    async with a_faulty_way(Fault(len(ANSWER), Then.SAY, said)) as proxy, an_egress() as egress:
        for _ in range(3):
            proxy.left.clear()
            assert (await egress.post(a_request(proxy.port))).status == 200
            await proxy.left.wait()
    assert proxy.connections == 3


async def test_a_cancelled_post_leaves_no_connection_whose_answer_another_could_get() -> None:
    asked = asyncio.Event()
    bodies = []

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append(await read_request(reader))
        if len(bodies) == 1:
            asked.set()
            await reader.read()
        writer.write(ANSWER)

    async with serve_raw(slow) as port, an_egress() as egress:
        first = asyncio.create_task(egress.post(a_request(port)))
        await asked.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await egress.post(a_request(port))).status == 200


@pytest.mark.parametrize("value", ["a\r\nx: b", "a\nb", "a\rb", "a\0b", "☃"])
async def test_a_header_that_would_be_another_is_not_sent(value: str) -> None:
    async with serve_raw(answer_all) as port, an_egress() as egress:
        recipient = Recipient(f"http://127.0.0.1:{port}/", {"x": value})
        answer = await egress.post(PostRequest(recipient, b"", BODY, PATIENCE_SECONDS))
    assert answer.failure is Outcome.PROTOCOL
    with pytest.raises(ValueError, match="a header holds"):
        header_lines({"x": value})


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def a_profile(authority: trustme.CA, client: trustme.LeafCert | None = None) -> TlsProfile:
    root = authority.cert_pem.bytes().decode()
    if client is None:
        return TlsProfile(root)
    chain = "".join(part.bytes().decode() for part in client.cert_chain_pems)
    return TlsProfile(root, chain, client.private_key_pem.bytes().decode())


async def post_over_tls(
    context: ssl.SSLContext, profile: TlsProfile | None, handler: Handler = answer_all, name: str = "localhost"
) -> PostAnswer:
    resolver = ScriptedResolver({name: ["127.0.0.1"]})
    async with serve_raw(handler, context) as port, an_egress(resolver=resolver) as egress:
        return await egress.post(a_request(port, url=f"https://{name}", tls=profile))


async def test_an_endpoint_may_have_an_authority_of_its_own(authority: trustme.CA) -> None:
    context = server_context(authority.issue_cert("app.example"))
    assert (await post_over_tls(context, a_profile(authority), name="app.example")).status == 200
    assert (await post_over_tls(context, None, name="app.example")).failure is Outcome.TLS
    assert (await post_over_tls(context, a_profile(trustme.CA()), name="app.example")).failure is Outcome.TLS


async def test_the_name_is_told_to_the_server_and_in_the_host_header(authority: trustme.CA) -> None:
    context = server_context(authority.issue_cert("app.example"))
    names: list[str | None] = []
    context.sni_callback = lambda _, name, __: names.append(name)
    heads = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_request(reader))
        writer.write(ANSWER)

    assert (await post_over_tls(context, a_profile(authority), handle, "app.example")).status == 200
    assert names == ["app.example"]
    assert b"\r\nhost: app.example:" in heads[0]


async def test_a_receiver_may_ask_who_is_calling(authority: trustme.CA) -> None:
    context = server_context(authority.issue_cert("localhost"))
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # with 1.3, asyncio's server hangs up and does not say why
    client = authority.issue_cert("chartwire.example")
    assert (await post_over_tls(context, a_profile(authority, client))).status == 200
    assert (await post_over_tls(context, a_profile(authority))).failure is Outcome.TLS


@pytest.mark.parametrize("profile", [TlsProfile("no PEM"), TlsProfile(None, "no", "PEM"), TlsProfile("ä")])
async def test_a_profile_that_cannot_be_used_is_a_tls_failure(authority: trustme.CA, profile: TlsProfile) -> None:
    assert (await post_over_tls(server_context(authority.issue_cert("localhost")), profile)).failure is Outcome.TLS


async def test_connections_are_not_shared_between_profiles(authority: trustme.CA) -> None:
    context = server_context(authority.issue_cert("localhost"))
    async with serve_raw(answer_all, context) as port, an_egress() as egress:
        trusted = a_request(port, url="https://localhost", tls=a_profile(authority))
        assert (await egress.post(trusted)).status == 200
        assert (await egress.post(a_request(port, url="https://localhost"))).failure is Outcome.TLS


async def test_a_certificate_that_has_expired_is_a_tls_failure(authority: trustme.CA) -> None:
    now = datetime.now(UTC)
    expired = authority.issue_cert("localhost", not_before=now - timedelta(2), not_after=now - timedelta(1))
    assert (await post_over_tls(server_context(expired), a_profile(authority))).failure is Outcome.TLS


async def test_a_certificate_of_another_name_is_a_tls_failure(authority: trustme.CA) -> None:
    context = server_context(authority.issue_cert("other.example"))
    assert (await post_over_tls(context, a_profile(authority))).failure is Outcome.TLS


async def test_old_tls_is_a_tls_failure(authority: trustme.CA) -> None:
    context = server_context(authority.issue_cert("localhost"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that it is deprecated is the point
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    assert (await post_over_tls(context, a_profile(authority))).failure is Outcome.TLS


@pytest.mark.parametrize("then", [Then.RESET, Then.CLOSE])
async def test_an_end_within_the_handshake_is_a_tls_failure(authority: trustme.CA, then: Then) -> None:
    context = server_context(authority.issue_cert("localhost"))
    async with (
        serve_raw(answer_all, context) as port,
        fault_proxy(port, Fault(100, then)) as proxy,
        an_egress() as egress,
    ):
        answer = await egress.post(a_request(proxy.port, url="https://localhost", tls=a_profile(authority)))
    assert answer.failure is Outcome.TLS


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (ANSWER, PostAnswer(200, b"OK")),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", PostAnswer(200, b"until the end")),
        (ANSWER[:-1], PostAnswer(failure=Outcome.RESET)),
        (b"", PostAnswer(failure=Outcome.RESET)),
    ],
)
@pytest.mark.parametrize("politely", [True, False], ids=["close_notify", "no close_notify"])
async def test_it_does_not_matter_whether_tls_is_ended_in_good_order(
    authority: trustme.CA, politely: bool, answer: bytes, expected: PostAnswer
) -> None:
    """The length says whether an answer is whole; of one without, the status alone matters to a delivery."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await writer.drain()
        if not politely:
            writer.transport.abort()

    context = server_context(authority.issue_cert("localhost"))
    assert await post_over_tls(context, a_profile(authority), handle) == expected


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [socket.EAI_NONAME, socket.EAI_AGAIN, socket.EAI_FAIL])
async def test_a_name_that_cannot_be_resolved_is_a_dns_failure(code: int) -> None:
    """NXDOMAIN, SERVFAIL or servers that do not answer, and a failure for good."""
    async with an_egress(resolver=FailingResolver(code)) as egress:
        assert (await egress.post(a_request(443, url="https://app.example"))).failure is Outcome.DNS


@pytest.mark.parametrize("host", ["a." * 150 + "example", "a" * 64 + ".example", "a..example"])
async def test_a_name_that_cannot_be_asked_for_is_a_dns_failure(host: str) -> None:
    async with an_egress() as egress:
        assert (await egress.post(a_request(443, url=f"https://{host}"))).failure is Outcome.DNS


async def test_a_name_without_addresses_is_a_dns_failure() -> None:
    async with an_egress(resolver=ScriptedResolver({"app.example": []})) as egress:
        assert (await egress.post(a_request(443, url="https://app.example"))).failure is Outcome.DNS


async def test_slow_dns_uses_up_the_deadline() -> None:
    async with an_egress(resolver=HangingResolver()) as egress:
        assert (await egress.post(a_request(443, url="https://a.example", deadline=0.2))).failure is Outcome.TIMEOUT


async def test_a_name_is_vetted_at_each_connection() -> None:
    """Rebinding: allowed at first, then an address inside."""
    requests = []

    async def one_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await read_request(reader))
        writer.write(ANSWER)

    resolver = ScriptedResolver({"app.example": ["127.0.0.1"]})
    async with serve_raw(one_answer) as port, an_egress(resolver=resolver) as egress:
        request = a_request(port, url="http://app.example")
        assert (await egress.post(request)).status == 200
        for address in ("10.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "::1"):
            resolver.names["app.example"] = [address]
            assert (await egress.post(request)).failure is Outcome.FORBIDDEN_ADDRESS
    assert len(requests) == 1


@pytest.mark.parametrize("addresses", [["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"], ["127.0.0.1", "::1"]])
async def test_one_forbidden_address_is_enough(addresses: list[str]) -> None:
    resolver = ScriptedResolver({"app.example": addresses})
    async with serve_raw(answer_all) as port, an_egress(resolver=resolver) as egress:
        answer = await egress.post(a_request(port, url="http://app.example"))
    assert answer.failure is Outcome.FORBIDDEN_ADDRESS


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111"])
async def test_plain_http_goes_to_opened_networks_alone(address: str) -> None:
    resolver = ScriptedResolver({"public.example": [address], "mixed.example": ["127.0.0.1", address]})
    async with an_egress(resolver=resolver) as egress:
        for name in resolver.names:
            answer = await egress.post(a_request(80, url=f"http://{name}"))
            assert answer.failure is Outcome.FORBIDDEN_ADDRESS


@pytest.mark.parametrize("host", ["0x7f.1", "0177.0.0.1", "2130706433", "127.1", "127.0.0.1.", "[::ffff:7f00:1]"])
async def test_an_odd_spelling_leads_where_it_says_and_is_vetted_as_that(host: str) -> None:
    async with serve_raw(answer_all) as port:
        async with an_egress(resolver=ScriptedResolver({})) as egress:
            assert (await egress.post(a_request(port, url=f"http://{host}"))).status == 200
        async with an_egress((), resolver=ScriptedResolver({})) as egress:
            answer = await egress.post(a_request(port, url=f"http://{host}"))
    assert answer.failure is Outcome.FORBIDDEN_ADDRESS


async def test_an_address_that_refuses_gives_way_to_the_next() -> None:
    resolver = ScriptedResolver({"app.example": ["127.0.0.2", "127.0.0.1"]})
    async with serve_raw(answer_all) as port, an_egress(resolver=resolver) as egress:
        assert (await egress.post(a_request(port, url="http://app.example"))).status == 200


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://u@127.0.0.1", "http://", "https://[::1", "nothing"])
async def test_what_is_no_url_leads_nowhere(url: str) -> None:
    async with an_egress() as egress:
        assert (await egress.post(a_request(80, url=url))).failure is Outcome.FORBIDDEN_ADDRESS
