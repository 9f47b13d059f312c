"""Reading answers: the same whatever pieces they come in, and nothing but an answer whatever comes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from chartwire.delivery.egress import ANSWER_LIMIT, PostAnswer
from chartwire.delivery.http.answer import AnswerReader, Glance
from chartwire.model.webhook import Outcome

ANSWERS = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcde",
    b"HTTP/1.1 503 No\r\nRetry-After: 9\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 500 Oh\r\ncontent-length: 20000\r\n\r\n" + b"x" * 20_000,
)


def read(reader: AnswerReader, pieces: list[bytes]) -> PostAnswer | None:
    return next((answer for piece in pieces if (answer := reader.feed(piece)) is not None), None)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % len(data) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]


@settings(deadline=None)  # the machine may be busy
@given(
    order=st.lists(st.sampled_from(ANSWERS[:3]), min_size=1, max_size=5), places=st.lists(st.integers(0), max_size=9)
)
def test_an_answer_is_the_same_in_whatever_pieces_and_whatever_came_before(
    order: list[bytes], places: list[int]
) -> None:
    for data in order:
        reader = AnswerReader()
        answer = read(reader, cut(data, places))
        assert answer == read(AnswerReader(), [data])
        assert answer is not None
        assert answer.status
        assert reader.clean


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.binary(max_size=300) | st.sampled_from(ANSWERS), max_size=8))
def test_whatever_comes_is_an_answer_a_failure_or_not_enough(pieces: list[bytes]) -> None:
    answer = read(AnswerReader(), pieces)
    if answer is not None:
        assert (answer.status is None) == (answer.failure is not None)
        assert len(answer.body) <= ANSWER_LIMIT


def test_a_long_body_is_cut_and_the_connection_is_clean_only_if_all_of_it_was_read() -> None:
    reader = AnswerReader()
    head, body = ANSWERS[3].split(b"\r\n\r\n")
    assert read(reader, [ANSWERS[3]]) == PostAnswer(500, b"x" * ANSWER_LIMIT)
    assert reader.clean
    reader = AnswerReader()
    assert read(reader, [head + b"\r\n\r\n", body[:-1]]) == PostAnswer(500, b"x" * ANSWER_LIMIT)
    assert not reader.clean


def test_what_follows_in_the_same_piece_makes_the_connection_unclean() -> None:
    reader = AnswerReader()
    assert read(reader, [ANSWERS[0] + ANSWERS[1]]) == PostAnswer(200, b"abcde")
    assert not reader.clean


def test_an_answer_that_closes_is_whole_at_the_end_alone() -> None:
    reader = AnswerReader()
    assert read(reader, [b"HTTP/1.1 200 OK\r\n\r\nabc"]) is None
    assert reader.end() == PostAnswer(200, b"abc")
    assert not reader.clean


def test_the_limits_of_a_head_hold_over_interim_answers() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    answer = read(AnswerReader(), [interim * 200])
    assert answer == PostAnswer(failure=Outcome.TOO_LARGE_HEADERS)


# --- at a glance ------------------------------------------------------------------------------------------------------

LINES = st.sampled_from(
    [
        b"content-length: 2",
        b"content-length: 0",
        b"Transfer-Encoding: chunked",
        b"connection: close",
        b"x: y",
        b"nonsense",
    ]
)
HEADS = st.builds(
    lambda start, lines: b"\r\n".join([start, *lines, b"", b""]),
    st.sampled_from(
        [b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No", b"HTTP/1.1 429 No", b"HTTP/1.1 103 So"]
    ),
    st.lists(LINES, max_size=3),
)
BODIES = st.sampled_from([b"", b"OK", b"2\r\nOK\r\n0\r\n\r\n", b"\r\n"])
WHAT_COMES = st.lists(HEADS | BODIES | st.sampled_from(ANSWERS), max_size=4).map(b"".join)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(WHAT_COMES | st.binary(max_size=300), max_size=6))
def test_a_glance_sees_what_a_careful_reader_reads_and_leaves_a_clean_connection(pieces: list[bytes]) -> None:
    glance = Glance()
    for piece in pieces:
        reader = AnswerReader()
        read_with_care = read(reader, [piece])
        if (seen := glance.take(piece)) is not None:
            assert seen == read_with_care
            assert reader.clean
        assert glance.take(ANSWERS[0]) == PostAnswer(200, b"abcde")  # whatever it was shown before


def test_a_glance_takes_no_answer_that_a_limit_or_a_header_of_it_may_matter_for() -> None:
    headers = [b"HTTP/1.1 200 OK", b"content-length: 0", *[b"x: y"] * 98]
    whole = b"\r\n".join([*headers, b"", b""])
    assert Glance().take(whole) is None
    assert read(AnswerReader(), [whole]) == PostAnswer(200)
    assert Glance().take(b"\r\n".join([*headers[:-2], b"", b""])) == PostAnswer(200)
    assert Glance().take(b"HTTP/1.1 200 OK\r\ncontent-length: 16384\r\n\r\n" + b"x" * ANSWER_LIMIT) is None
    for late in (ANSWERS[1], ANSWERS[2], ANSWERS[3], b"HTTP/1.1 200 OK\r\n\r\nuntil the end", ANSWERS[0] * 2):
        assert Glance().take(late) is None
