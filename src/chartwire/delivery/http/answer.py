"""From bytes to an answer (RFC 9112), within bounds and without decompression."""

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from chartwire.delivery.egress import ANSWER_LIMIT, PostAnswer
from chartwire.model.webhook import Outcome

_HEAD_LIMIT = 32 * 1024
"""Bytes of head, those of interim (1xx) answers included: a storm of them ends here."""
_HEADERS_LIMIT = 100
_WIRE_LIMIT = 16 * ANSWER_LIMIT
"""Bytes after which a body is left even if it is small: what surrounds its chunks has no limit of its own."""


class _StopParsing(Exception):  # noqa: N818  not an error: it makes the parser stop at a byte
    """The rest is of no interest."""


class Glance:
    """Takes what nearly every answer is at once: a good one, whole, in one piece, after which the connection is kept.

    Nobody asks for a header of such an answer, so none is handed over by the parser, which costs more than all the
    rest. Anything else, and whatever may be beyond a limit, is not for it. One serves all connections of a loop.
    """

    __slots__ = ("_begun", "_body", "_is_kept", "_parser")

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)

    def take(self, data: bytes) -> PostAnswer | None:
        """The answer, if that is what `data` is; else somebody has to read it with care."""
        if len(data) > ANSWER_LIMIT or data.count(b"\n") > _HEADERS_LIMIT:
            return None
        self._begun, self._body, self._is_kept = 0, b"", False
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._is_kept = False
        if self._is_kept and self._begun == 1 and 200 <= (status := self._parser.get_status_code()) < 300:
            return PostAnswer(status, self._body)
        self._parser = HttpResponseParser(self)  # who knows where it stopped
        return None

    # --- called by the parser -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """An answer begins; a second one is either that after an interim one or was not asked for."""
        self._begun += 1

    def on_body(self, piece: bytes) -> None:
        """A part of the body, free of chunks."""
        self._body += piece

    def on_message_complete(self) -> None:
        """An answer is whole."""
        self._is_kept = self._parser.should_keep_alive()


class AnswerReader:
    """Reads one answer with care: `feed` until there is one.

    `clean` says, once there is an answer, whether the connection is exactly at its end and may carry another request.
    """

    __slots__ = (
        "_body", "_head_bytes", "_headers", "_in_body", "_is_sized", "_oversized", "_parser", "_received",
        "_retry_after", "_status", "_whole", "clean",
    )  # fmt: skip

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self._body = bytearray()
        self._status = 0
        self._retry_after: str | None = None
        self._headers = self._head_bytes = self._received = 0
        self._in_body = self._is_sized = self._whole = self._oversized = self.clean = False

    def feed(self, data: bytes) -> PostAnswer | None:
        """Take what was received; returns the answer, or why there is none, as soon as that is known."""
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            return self._stopped()
        if self._whole:
            return self._answer()
        if self._in_body:
            return self._answer() if len(self._body) >= ANSWER_LIMIT or self._received > _WIRE_LIMIT else None
        return PostAnswer(failure=Outcome.TOO_LARGE_HEADERS) if self._received > _HEAD_LIMIT else None

    def end(self) -> PostAnswer | None:
        """The peer has sent all it will: the answer, if its body was to last until then; None if something lacks."""
        return self._answer() if self._in_body and not self._is_sized else None

    def _answer(self) -> PostAnswer:
        return PostAnswer(self._status, bytes(self._body), self._retry_after)

    def _stopped(self) -> PostAnswer:
        self.clean = False
        if self._whole:  # what follows was not asked for, and must not be taken for the next answer
            return self._answer()
        return PostAnswer(failure=Outcome.TOO_LARGE_HEADERS if self._oversized else Outcome.PROTOCOL)

    # --- called by the parser -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """An answer begins; there may be interim ones before the one, and none after it."""
        if self._whole:
            raise _StopParsing
        self._retry_after = None
        self._is_sized = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of any answer, or a trailer."""
        self._headers += 1
        self._head_bytes += len(name) + len(value)
        if self._headers > _HEADERS_LIMIT or self._head_bytes > _HEAD_LIMIT:
            self._oversized = True
            raise _StopParsing
        match name.lower():
            case b"content-length":
                self._is_sized = True
            case b"transfer-encoding":
                self._is_sized = value.lower().endswith(b"chunked")
            case b"retry-after":
                self._retry_after = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The head of an answer is there."""
        self._status = self._parser.get_status_code()
        self._in_body = self._status >= 200

    def on_body(self, piece: bytes) -> None:
        """A part of the body, free of chunks."""
        room = ANSWER_LIMIT - len(self._body)
        if room > 0:
            self._body += piece[:room]

    def on_message_complete(self) -> None:
        """An answer is whole."""
        if self._in_body:
            self._whole = True
            self.clean = self._parser.should_keep_alive()
