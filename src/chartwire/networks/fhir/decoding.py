"""A response's body as a bounded stream of chunks, each of at most 256 KiB."""

import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

import aiohttp

from chartwire.errors import IssueCode, PermanentNetworkError, TemporaryNetworkError
from chartwire.networks.fhir.failures import wire_errors

CHUNK_BYTES = 256 * 1024
MAX_BODY_BYTES = 8 * 1024**3
_READ_BYTES = 64 * 1024


async def decoded(response: aiohttp.ClientResponse, limit: int = MAX_BODY_BYTES) -> AsyncGenerator[bytes, None]:
    """The body, decompressed if the server compressed it unasked. More than `limit` bytes raise TOO_LARGE."""
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    total = 0
    async for chunk in _decompressed(response, coding):
        total += len(chunk)
        if total > limit:
            raise PermanentNetworkError(IssueCode.TOO_LARGE)
        yield chunk


async def _decompressed(response: aiohttp.ClientResponse, coding: str) -> AsyncIterator[bytes]:
    if coding in {"identity", ""}:
        async for chunk in _raw(response):
            yield chunk
        return
    if coding not in {"gzip", "x-gzip", "deflate"}:
        raise PermanentNetworkError(IssueCode.INVALID_ANSWER, "the answer's content encoding is unknown")
    inflater = _Inflater()
    async for chunk in _raw(response):
        for part in inflater.feed(chunk):
            yield part
    if not inflater.finished:
        raise TemporaryNetworkError(IssueCode.INVALID_ANSWER, "the answer's compression is cut off")


async def _raw(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    while True:
        with wire_errors():
            chunk = await response.content.read(_READ_BYTES)
        if not chunk:
            return
        yield chunk


class _Inflater:
    """Decompresses gzip and zlib streams in parts of at most `CHUNK_BYTES`, so that a bomb costs time, not memory."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(zlib.MAX_WBITS | 32)

    @property
    def finished(self) -> bool:
        return self._stream.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        more = True
        while data or more:
            if self._stream.eof and data:  # a further gzip member (RFC 1952 §2.2)
                self._stream = zlib.decompressobj(zlib.MAX_WBITS | 32)
            try:
                part = self._stream.decompress(data, CHUNK_BYTES)
            except zlib.error:
                raise TemporaryNetworkError(IssueCode.INVALID_ANSWER, "the answer's compression is broken") from None
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            more = len(part) == CHUNK_BYTES  # a full part may have left output behind
            if part:
                yield part
