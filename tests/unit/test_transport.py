"""What travels over the broker is sealed, opens as what it was, and as nothing else."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartwire.delivery.egress import PostAnswer, PostRequest, Recipient
from chartwire.delivery.transport import Answered, Posting, Transport
from chartwire.errors import SealBrokenError
from chartwire.model.webhook import UNTIMED, Outcome, Timing
from chartwire.tls import TlsProfile

KEY = bytes(range(32))
TRANSPORT = Transport(KEY)
APP = Recipient("https://app.example")
BEGIN_BY = datetime(2025, 3, 1, 12, 0, 0, 250_000, UTC)

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
HEADERS = st.dictionaries(TEXT, TEXT, max_size=4)
PROFILES = st.none() | st.builds(TlsProfile, authority=TEXT, certificate=TEXT, private_key=TEXT)
REQUESTS = st.builds(
    PostRequest,
    recipient=st.builds(Recipient, url=TEXT, headers=HEADERS, tls=PROFILES),
    lines=st.binary(max_size=80),
    body=st.binary(max_size=200),
    deadline=st.floats(0.1, 30),
)
ANSWERS = st.builds(
    PostAnswer,
    status=st.none() | st.integers(100, 599),
    body=st.binary(max_size=200),
    retry_after=st.none() | TEXT,
    failure=st.none() | st.sampled_from(Outcome),
    seconds=st.none() | st.floats(0, 30),
)
MICROSECONDS = st.none() | st.integers(0, 30_000_000)
TIMINGS = st.builds(Timing, st.booleans(), MICROSECONDS, MICROSECONDS, MICROSECONDS, MICROSECONDS)


@given(request=REQUESTS)
def test_a_posting_opens_as_what_it_was(request: PostRequest) -> None:
    posting = Posting("a1", "sender", BEGIN_BY, request)
    opened = Transport(KEY).open_posting(TRANSPORT.seal_posting(posting))
    assert (opened.id, opened.sender, opened.begin_by) == ("a1", "sender", BEGIN_BY)
    assert (opened.request.body, opened.request.deadline) == (request.body, request.deadline)
    before, after = request.recipient, opened.request.recipient
    assert (after.url, after.tls) == (before.url, before.tls)
    assert (after.headers, opened.request.lines) == (before.headers, request.lines)


@given(answer=ANSWERS, timing=TIMINGS)
def test_an_answer_opens_as_what_it_was(answer: PostAnswer, timing: Timing) -> None:
    answered = Answered("a1", answer, timing)
    assert Transport(KEY).open_answer(TRANSPORT.seal_answer(answered)) == answered


def a_posting() -> Posting:
    return Posting("a1", "sender", BEGIN_BY, PostRequest(APP, b"\r\nwebhook-id: m", b"body", 15))


@given(place=st.integers(0), bit=st.integers(0, 7))
def test_what_was_altered_does_not_open(place: int, bit: int) -> None:
    frame = bytearray(TRANSPORT.seal_posting(a_posting()))
    frame[place % len(frame)] ^= 1 << bit
    with pytest.raises(SealBrokenError):
        TRANSPORT.open_posting(bytes(frame))


@pytest.mark.parametrize("size", [0, 1, 16, 28, 40])
def test_a_part_does_not_open(size: int) -> None:
    with pytest.raises(SealBrokenError):
        TRANSPORT.open_posting(TRANSPORT.seal_posting(a_posting())[:size])


def test_an_answer_is_no_posting_and_another_key_opens_nothing() -> None:
    answer = TRANSPORT.seal_answer(Answered("a1", PostAnswer(200), UNTIMED))
    with pytest.raises(SealBrokenError):
        TRANSPORT.open_posting(answer)
    with pytest.raises(SealBrokenError):
        Transport(bytes(32)).open_answer(answer)


def test_no_nonce_comes_twice_under_a_key_of_a_sender() -> None:
    frames = [each.seal_posting(a_posting()) for each in (TRANSPORT, Transport(KEY)) for _ in range(100)]
    assert len({frame[:28] for frame in frames}) == 200  # salt and nonce
    assert len({frame[:16] for frame in frames}) == 2  # a salt each


def test_the_tag_tells_keys_apart_and_stays() -> None:
    assert Transport(KEY).tag == TRANSPORT.tag != Transport(bytes(32)).tag
