"""Attempts against real sockets: every row of the table of outcomes."""

import asyncio
import gzip
import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
import trustme
from tests.support.names import HangingResolver, ScriptedResolver
from tests.support.patience import PATIENCE_SECONDS
from tests.support.posting import BODY, KEY, LOOPBACK, POLICY, a_delivery, a_poster
from tests.support.receiver import Answer, Receiver, read_request, serve_raw

from chartwire import __version__
from chartwire.delivery.attempt import Policy
from chartwire.delivery.egress import ANSWER_LIMIT
from chartwire.delivery.http import line
from chartwire.model.message import Meta, ping_message
from chartwire.model.webhook import EventType, Outcome
from chartwire.store.deliveries import AttemptResult

pytestmark = pytest.mark.embedded


RawAnswer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def post(url: str, timeout_seconds: int | None = None, attempt: int = 1) -> AttemptResult:
    async with a_poster() as poster:
        return await poster.attempt(a_delivery(url, timeout_seconds=timeout_seconds, attempt=attempt))


async def post_to(*answers: Answer) -> AttemptResult:
    async with Receiver() as receiver:
        receiver.answers.extend(answers)
        return await post(receiver.url)


async def post_raw(handler: RawAnswer, timeout_seconds: int | None = None) -> AttemptResult:
    async with serve_raw(handler) as port:
        return await post(f"http://127.0.0.1:{port}/", timeout_seconds)


def raw(answer: bytes) -> RawAnswer:
    """Reads a request, answers these bytes, closes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await writer.drain()

    return handle


# --- what is sent -----------------------------------------------------------------------------------------------------


async def test_the_request_is_what_receivers_expect() -> None:
    async with Receiver(webhook_key=KEY.webhook_key) as receiver, a_poster() as poster:
        delivery = a_delivery(receiver.url)
        result = await poster.attempt(delivery)
    (request,) = receiver.requests
    assert result.outcome is Outcome.DELIVERED
    assert request.body == BODY
    assert request.message_id == delivery.event_id
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == f"Chartwire/{__version__}"
    assert request.headers["content-length"] == str(len(BODY))
    assert request.headers["x-webhook-key"] == KEY.webhook_key


async def test_the_trace_goes_on_with_a_span_of_each_attempts_own() -> None:
    async with Receiver() as receiver, a_poster() as poster:
        traced = a_delivery(receiver.url)._replace(trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        for delivery in (traced, traced, a_delivery(receiver.url)):
            await poster.attempt(delivery)
    first, second, untraced = (request.headers.get("traceparent") for request in receiver.requests)
    for header in (first, second):
        assert header is not None
        assert re.fullmatch("00-0af7651916cd43dd8448eb211c80319c-[0-9a-f]{16}-01", header)
    assert len({first, second, traced.trace}) == 3
    assert untraced is None


async def test_a_body_of_several_megabytes_arrives_whole() -> None:
    body = b'{"meta":{"messageId":"1"},"patients":"' + b"x" * 3_000_000 + b'"}'
    async with Receiver(webhook_key=KEY.webhook_key) as receiver, a_poster() as poster:
        result = await poster.attempt(a_delivery(receiver.url, body))
    assert result.outcome is Outcome.DELIVERED
    assert receiver.requests[0].body == body


async def test_timestamp_and_signature_are_fresh_on_each_attempt_and_the_id_is_not() -> None:
    moments = (datetime(2025, 1, day, tzinfo=UTC) for day in count(1))
    async with Receiver() as receiver, a_poster(clock=lambda: next(moments)) as poster:
        delivery = a_delivery(receiver.url)
        for _ in range(2):
            await poster.attempt(delivery)
    first, second = receiver.requests
    assert first.message_id == second.message_id
    assert first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    assert first.body == second.body


async def test_connections_are_kept_and_used_again() -> None:
    peers = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_request(reader):
            peers.add(writer.get_extra_info("peername"))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK")

    async with serve_raw(handle) as port, a_poster() as poster:
        for _ in range(5):
            result = await poster.attempt(a_delivery(f"http://127.0.0.1:{port}/"))
            assert result.outcome is Outcome.DELIVERED
    assert len(peers) == 1


async def test_over_tls_with_a_certificate_that_is_trusted(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    async with Receiver(ssl_context=server_context) as receiver, a_poster(ssl_context=client_context) as poster:
        result = await poster.attempt(a_delivery(receiver.url))
    assert result.outcome is Outcome.DELIVERED


async def test_each_step_is_timed_and_a_connection_used_again_needs_the_last_alone(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    async with Receiver(ssl_context=server_context) as receiver, a_poster(ssl_context=client_context) as poster:
        first = await poster.attempt(a_delivery(receiver.url))
        second = await poster.attempt(a_delivery(receiver.url))
    steps = [micros for micros in first.timing[1:] if micros is not None]
    assert (first.timing.is_reused, len(steps)) == (False, 4)
    assert all(micros > 0 for micros in steps[1:])  # the name may be known already
    assert sum(steps) <= (first.duration_ms + 1) * 1000
    assert second.timing[:4] == (True, None, None, None)
    assert second.timing.first_byte


async def test_of_a_request_that_failed_the_steps_up_to_there_are_timed() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)

    async with serve_raw(hang_up) as port:
        cut = await post(f"http://127.0.0.1:{port}/")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = await post(f"http://127.0.0.1:{unused.getsockname()[1]}/")
    async with a_poster(resolver=ScriptedResolver({})) as poster:
        unknown = await poster.attempt(a_delivery("http://nobody.invalid/"))

    def steps(result: AttemptResult) -> tuple[bool, ...]:
        return tuple(micros is not None for micros in result.timing[1:])

    assert (cut.outcome, steps(cut)) == (Outcome.RESET, (False, True, False, False))
    assert (refused.outcome, steps(refused)) == (Outcome.REFUSED, (False, True, False, False))
    assert (unknown.outcome, steps(unknown)) == (Outcome.DNS, (True, False, False, False))
    assert not any(result.timing.is_reused for result in (cut, refused, unknown))


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.DELIVERED),
        (202, Outcome.DELIVERED),
        (204, Outcome.DELIVERED),
        (299, Outcome.DELIVERED),
        (304, Outcome.REDIRECT),
        (400, Outcome.HTTP_ERROR),
        (401, Outcome.HTTP_ERROR),
        (404, Outcome.HTTP_ERROR),
        (410, Outcome.GONE),
        (429, Outcome.SLOW_DOWN),
        (500, Outcome.HTTP_ERROR),
        (501, Outcome.HTTP_ERROR),
        (502, Outcome.SLOW_DOWN),
        (503, Outcome.SLOW_DOWN),
        (504, Outcome.SLOW_DOWN),
    ],
)
async def test_a_status_means_what_the_table_says(status: int, outcome: Outcome) -> None:
    result = await post_to(Answer(status))
    assert (result.outcome, result.http_status) == (outcome, status)
    delivered = outcome is Outcome.DELIVERED
    assert result.detail == ("OK" if delivered else f"Request failed with status code {status}")
    assert (result.retry_at is None) == delivered
    assert (result.pause_until is not None) == (outcome is Outcome.SLOW_DOWN)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 306, 307, 308, 399])
async def test_a_redirect_is_never_followed(status: int) -> None:
    async with Receiver() as elsewhere:
        result = await post_to(Answer(status, headers={"Location": elsewhere.url}))
        assert result.outcome is Outcome.REDIRECT
        assert elsewhere.requests == []


async def test_the_schedule_ends_with_its_last_attempt() -> None:
    async with Receiver() as receiver:
        receiver.answers.append(Answer(500))
        assert (await post(receiver.url, attempt=3)).retry_at is None


NOW = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "wait", "pause"),
    [
        (None, 5, 5),
        ("60", 60, 60),
        ("1", 5, 1),
        ("Thu, 02 Jan 2025 03:14:05 GMT", 600, 600),
        ("99999999999", 86400, 86400),
        ("tomorrow", 5, 5),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_respected_in_every_form_and_within_reason(
    status: int, value: str | None, wait: int, pause: int
) -> None:
    async with Receiver() as receiver, a_poster(clock=lambda: NOW) as poster:
        receiver.answers.append(Answer(status, headers={"Retry-After": value} if value else {}))
        result = await poster.attempt(a_delivery(receiver.url))
    assert result.retry_at == NOW + timedelta(seconds=wait)
    assert result.pause_until == NOW + timedelta(seconds=pause)


async def test_the_answer_is_kept_up_to_its_limit() -> None:
    result = await post_to(Answer(500, b"x" * ANSWER_LIMIT * 3))
    assert result.answer == b"x" * ANSWER_LIMIT


async def test_an_endless_answer_is_left_after_the_limit() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 4096)
            await writer.drain()

    result = await post_raw(endless)
    assert result.outcome is Outcome.DELIVERED
    assert len(result.answer) == ANSWER_LIMIT


async def test_a_compressed_answer_is_kept_as_it_came() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    result = await post_to(Answer(200, bomb, {"Content-Encoding": "gzip"}))
    assert result.outcome is Outcome.DELIVERED
    assert result.answer == bomb[:ANSWER_LIMIT]


async def test_interim_answers_are_passed_over() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 50
    result = await post_raw(raw(interim + b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"))
    assert result.outcome is Outcome.DELIVERED


# --- no answer --------------------------------------------------------------------------------------------------------


async def test_one_deadline_covers_a_slow_drip() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)  # the pace of the peer, not a wait of the test

    started = asyncio.get_running_loop().time()
    result = await post_raw(drip, timeout_seconds=1)
    assert result.outcome is Outcome.TIMEOUT  # its thousandth byte would have made it an answer
    assert asyncio.get_running_loop().time() - started > 0.9


async def test_silence_is_a_timeout() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    assert (await post_raw(silent, timeout_seconds=1)).outcome is Outcome.TIMEOUT


async def test_a_peer_that_never_shakes_hands_is_a_timeout() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()
        await asyncio.Event().wait()

    async with serve_raw(silent) as port:
        assert (await post(f"https://localhost:{port}/", timeout_seconds=1)).outcome is Outcome.TIMEOUT


async def test_a_storm_of_interim_answers_ends_at_the_limit_of_headers() -> None:
    async def storm(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        while True:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await writer.drain()

    assert (await post_raw(storm)).outcome is Outcome.TOO_LARGE_HEADERS


async def test_a_closed_port_is_refused() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        result = await post(f"http://127.0.0.1:{bound.getsockname()[1]}/")
    assert result.outcome is Outcome.REFUSED
    assert result.http_status is None
    assert result.retry_at is not None


async def test_a_peer_that_hangs_up_without_an_answer_is_a_reset() -> None:
    assert (await post_raw(raw(b""))).outcome is Outcome.RESET


async def test_a_peer_that_hangs_up_within_its_answer_is_a_reset() -> None:
    for cut in (
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n123",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n123",
    ):
        assert (await post_raw(raw(cut))).outcome is Outcome.RESET


async def test_a_tcp_reset_is_a_reset() -> None:
    async def abort(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # on, zero seconds: close() sends RST
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    assert (await post_raw(abort)).outcome is Outcome.RESET


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnot-hex\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        bytes(range(1, 255)),
    ],
)
async def test_what_is_not_http_is_a_protocol_error(answer: bytes) -> None:
    assert (await post_raw(raw(answer))).outcome is Outcome.PROTOCOL


@pytest.mark.parametrize(
    "headers",
    [b"x-long: " + b"a" * 100_000 + b"\r\n", b"".join(b"x-%d: a\r\n" % number for number in range(1000))],
    ids=["one long", "many"],
)
async def test_headers_have_a_limit(headers: bytes) -> None:
    result = await post_raw(raw(b"HTTP/1.1 200 OK\r\n" + headers + b"content-length: 0\r\n\r\n"))
    assert result.outcome is Outcome.TOO_LARGE_HEADERS


async def test_headers_that_are_not_ascii_do_no_harm() -> None:
    answer = "HTTP/1.1 200 ÖK\r\nx-name: Zoë 𝄞\r\ncontent-length: 0\r\n\r\n".encode()
    assert (await post_raw(raw(answer))).outcome is Outcome.DELIVERED


async def test_a_name_that_does_not_exist_is_a_dns_failure() -> None:
    async with a_poster(resolver=ScriptedResolver({})) as poster:
        result = await poster.attempt(a_delivery("https://receiver.invalid/"))
    assert result.outcome is Outcome.DNS


async def test_a_resolver_that_hangs_is_a_timeout() -> None:
    async with a_poster(resolver=HangingResolver()) as poster:
        result = await poster.attempt(a_delivery("https://receiver.invalid/", timeout_seconds=1))
    assert result.outcome is Outcome.TIMEOUT


async def test_a_certificate_that_nobody_vouches_for_is_a_tls_failure(server_context: ssl.SSLContext) -> None:
    async with Receiver(ssl_context=server_context) as receiver:
        result = await post(receiver.url)
    assert result.outcome is Outcome.TLS
    assert receiver.requests == []


async def test_a_certificate_of_another_name_is_a_tls_failure(
    authority: trustme.CA, client_context: ssl.SSLContext
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.example").configure_cert(context)
    async with Receiver(ssl_context=context) as receiver, a_poster(ssl_context=client_context) as poster:
        result = await poster.attempt(a_delivery(receiver.url))
    assert result.outcome is Outcome.TLS


async def test_plain_http_on_a_tls_port_is_a_tls_failure() -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with serve_raw(plain) as port:
        assert (await post(f"https://localhost:{port}/")).outcome is Outcome.TLS


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_by_default_no_private_address_is_connected_to(scheme: str, host: str) -> None:
    async with Receiver() as receiver, a_poster(allowed=()) as poster:
        url = receiver.url.replace("http", scheme, 1).replace("localhost", host)
        result = await poster.attempt(a_delivery(url))
        assert receiver.requests == []
    assert result.outcome is Outcome.FORBIDDEN_ADDRESS
    assert host not in result.detail


async def test_a_name_with_one_forbidden_address_is_refused_whole() -> None:
    async with a_poster(LOOPBACK, resolver=ScriptedResolver({"mixed.example": ["127.0.0.1", "10.0.0.1"]})) as poster:
        result = await poster.attempt(a_delivery("https://mixed.example/"))
    assert result.outcome is Outcome.FORBIDDEN_ADDRESS


# --- connections that are waited for ----------------------------------------------------------------------------------


@pytest.fixture
def patient_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a connection does not lose patience, however long an answer takes here."""
    monkeypatch.setattr(line, "_PATIENCE_SECONDS", PATIENCE_SECONDS)


@pytest.mark.usefixtures("patient_lines")
async def test_what_finds_no_connection_idle_waits_for_one_that_is_in_use() -> None:
    peers = []

    async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer)
        while True:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with serve_raw(answer_all) as port, a_poster() as poster:
        delivery = a_delivery(f"http://127.0.0.1:{port}/")
        results = await asyncio.gather(*(poster.attempt(delivery) for _ in range(10)))
    assert {result.outcome for result in results} == {Outcome.DELIVERED}
    assert len(peers) == 1


async def test_a_connection_that_does_not_come_free_is_not_waited_for_long() -> None:
    peers = []
    released = asyncio.Event()

    async def hold_the_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer)
        number = len(peers)
        await read_request(reader)
        if number == 1:
            await released.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with serve_raw(hold_the_first) as port, a_poster() as poster:
        delivery = a_delivery(f"http://127.0.0.1:{port}/")
        attempts = {asyncio.create_task(poster.attempt(delivery)) for _ in range(2)}
        (done,), (held,) = await asyncio.wait(attempts, return_when=asyncio.FIRST_COMPLETED)
        assert done.result().outcome is Outcome.DELIVERED
        released.set()
        assert (await held).outcome is Outcome.DELIVERED
    assert len(peers) == 2


@pytest.mark.usefixtures("patient_lines")
async def test_whoever_waits_for_a_connection_that_ends_opens_one() -> None:
    peers = []

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer)
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    async with serve_raw(answer_once) as port, a_poster() as poster:
        delivery = a_delivery(f"http://127.0.0.1:{port}/")
        results = await asyncio.gather(*(poster.attempt(delivery) for _ in range(3)))
    assert {result.outcome for result in results} == {Outcome.DELIVERED}
    assert len(peers) == 3


# --- pooled connections that died -------------------------------------------------------------------------------------


async def test_a_pooled_connection_that_the_peer_closed_is_replaced_at_once() -> None:
    closed = asyncio.Event()
    connections = 0

    async def one_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        closed.set()

    async with serve_raw(one_answer) as port, a_poster() as poster:
        for _ in range(20):
            closed.clear()
            result = await poster.attempt(a_delivery(f"http://127.0.0.1:{port}/"))
            assert result.outcome is Outcome.DELIVERED
            await closed.wait()
    assert connections == 20


async def test_a_pooled_connection_that_dies_in_our_hands_is_replaced_as_long_as_nothing_was_sent() -> None:
    requests = []
    peers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer)
        while True:
            requests.append(await read_request(reader))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with serve_raw(handle) as port, a_poster() as poster:
        delivery = a_delivery(f"http://127.0.0.1:{port}/")
        assert (await poster.attempt(delivery)).outcome is Outcome.DELIVERED
        # The peer's end is at our socket now, and the event loop has had no turn to see it.
        with socket.socket(fileno=os.dup(peers[0].get_extra_info("socket").fileno())) as peer:
            peer.shutdown(socket.SHUT_RDWR)
        assert (await poster.attempt(delivery)).outcome is Outcome.DELIVERED
    assert (len(peers), len(requests)) == (2, 2)


async def test_a_request_that_was_sent_on_a_dying_connection_is_not_sent_a_second_time() -> None:
    bodies = []

    async def answer_then_hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append(await read_request(reader))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        bodies.append(await read_request(reader))

    async with serve_raw(answer_then_hang_up) as port, a_poster() as poster:
        url = f"http://127.0.0.1:{port}/"
        assert (await poster.attempt(a_delivery(url))).outcome is Outcome.DELIVERED
        assert (await poster.attempt(a_delivery(url))).outcome is Outcome.RESET
    assert len(bodies) == 2


# --- pings ------------------------------------------------------------------------------------------------------------

PING = ping_message("p" * 21, Meta("m1", NOW, EventType.PING))


async def ping(*answers: Answer, policy: Policy = POLICY) -> AttemptResult:
    async with Receiver() as receiver, a_poster(policy=policy) as poster:
        receiver.answers.extend(answers)
        return await poster.attempt(a_delivery(receiver.url, PING, EventType.PING))


async def test_a_ping_that_is_repeated_is_good() -> None:
    result = await ping()
    assert (result.outcome, result.detail) == (Outcome.DELIVERED, "OK")


@pytest.mark.parametrize(
    "body", [b"", b"OK", b"{}", b"[]", b'{"pong":"x"}', b'{"ping":"ppppppppppppppppppppp"}', b"\xff", b'"pong"']
)
async def test_a_ping_that_is_not_repeated_is_bad_whatever_its_status(body: bytes) -> None:
    result = await ping(Answer(200, body))
    assert (result.outcome, result.detail) == (Outcome.BAD_PONG, "Bad response from webhook call")
    assert result.retry_at is None


async def test_a_ping_that_is_answered_by_an_error_says_which_and_is_not_tried_again() -> None:
    result = await ping(Answer(500))
    assert (result.outcome, result.detail) == (Outcome.HTTP_ERROR, "Request failed with status code 500")
    assert result.retry_at is None


async def test_a_ping_that_is_answered_late_is_a_timeout() -> None:
    late = Answer(200, b'{"pong":"ppppppppppppppppppppp"}', gate=asyncio.Event())
    assert (await ping(late, policy=replace(POLICY, ping_timeout=0.5))).outcome is Outcome.TIMEOUT
