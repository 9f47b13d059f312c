"""Answers that carry a document's bytes: whole or a range of them, streamed, never all in memory (RFC 9110 §13–14)."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import quote

import pybase64
from fastapi import Request
from starlette.responses import Response, StreamingResponse

from chartwire.formats.fhir_resources import MEDIA_TYPE, binary_envelope
from chartwire.model.document import Document
from chartwire.services.documents import DocumentService

_RANGE = re.compile(r"bytes\s*=\s*(?:(\d{1,18})\s*-\s*(\d{1,18})?|-\s*(\d{1,18}))\s*", re.IGNORECASE | re.ASCII)
_TAG = re.compile(r'(?:W/)?("[^"]*")')
_SHOWN_IN_BROWSERS = frozenset({"application/pdf", "image/gif", "image/jpeg", "image/png", "text/plain"})
_BASE64_GROUP = 3


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes from `start` up to but not including `end`."""

    start: int
    end: int


class UnsatisfiableRangeError(ValueError):
    """The range begins after the last byte."""


def parse_range(value: str | None, size: int) -> ByteRange | None:
    """The one range that a `Range` header asks for; None, which means everything, for several and for nonsense.

    Raises `UnsatisfiableRangeError`. A server may ignore ranges that are costly (RFC 9110 §14.2): many of them are.
    """
    match = _RANGE.fullmatch(value.strip()) if value else None
    if match is None:
        return None
    first, last, suffix = (int(part) if part else None for part in match.groups())
    if suffix is not None:
        if suffix == 0:
            raise UnsatisfiableRangeError
        return ByteRange(max(size - suffix, 0), size)
    start = first or 0
    if last is not None and last < start:
        return None
    if start >= size:
        raise UnsatisfiableRangeError
    return ByteRange(start, size if last is None else min(last + 1, size))


async def native_answer(request: Request, service: DocumentService, document: Document) -> Response:
    """The bytes in their own type, with `Range`, `HEAD` and conditional requests."""
    etag = f'"{document.sha256}"'
    headers = {
        **_common_headers(document.file_name, document.mime_type),
        "etag": etag,
        "accept-ranges": "bytes",
        "vary": "accept",
    }
    if _is_known(request, etag):
        return Response(status_code=304, headers=headers)
    try:
        wanted = _wanted_range(request, etag, document.size)
    except UnsatisfiableRangeError:
        return Response(status_code=416, headers={"etag": etag, "content-range": f"bytes */{document.size}"})
    span = wanted or ByteRange(0, document.size)
    if wanted is not None:
        headers["content-range"] = f"bytes {span.start}-{span.end - 1}/{document.size}"
    headers["content-length"] = str(span.end - span.start)
    status = 200 if wanted is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    return StreamingResponse(await _begun(service.read(document, span.start, span.end)), status, headers)


async def binary_answer(request: Request, service: DocumentService, document: Document) -> Response:
    """The bytes as a FHIR Binary in JSON, encoded as they pass."""
    head, tail = binary_envelope(document)
    groups = -(-document.size // _BASE64_GROUP)
    etag = f'"{document.sha256}-json"'
    headers = {
        **_common_headers(f"{document.id}.json", MEDIA_TYPE),
        "etag": etag,
        "vary": "accept",
        "content-length": str(len(head) + 4 * groups + len(tail)),
    }
    if _is_known(request, etag):
        del headers["content-length"]
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        return Response(headers=headers)
    encoded = _encoded(await _begun(service.read(document)), head, tail)
    return StreamingResponse(encoded, headers=headers)


def converted_answer(content: bytes, media_type: str, file_name: str) -> Response:
    """A document that was made readable: HTML or PDF."""
    headers = _common_headers(file_name, media_type)
    headers["content-disposition"] = _disposition("inline", file_name)
    return Response(content, headers=headers)


def _common_headers(file_name: str, media_type: str) -> dict[str, str]:
    """What keeps a document, whoever wrote it, from acting in a browser or staying in a shared cache."""
    shown = media_type in _SHOWN_IN_BROWSERS
    headers = {
        "content-type": media_type,
        "content-disposition": _disposition("inline" if shown else "attachment", file_name),
        "cache-control": "private, no-cache",
        "referrer-policy": "no-referrer",
    }
    if media_type != "application/pdf":  # browsers do not show a PDF in a sandbox
        headers["content-security-policy"] = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return headers


def _disposition(kind: str, file_name: str) -> str:
    """RFC 6266: a plain name for everybody, and the true one where it differs."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", file_name)
    exact = "" if plain == file_name else f"; filename*=UTF-8''{quote(file_name, safe='')}"
    return f'{kind}; filename="{plain}"{exact}'


def _is_known(request: Request, etag: str) -> bool:
    """`If-None-Match`: whether the client has these bytes already."""
    value = request.headers.get("if-none-match", "")
    return value.strip() == "*" or etag in _TAG.findall(value)


def _wanted_range(request: Request, etag: str, size: int) -> ByteRange | None:
    """`Range`, unless `If-Range` names other bytes; GET alone has ranges (RFC 9110 §14.2)."""
    if request.method != "GET" or request.headers.get("if-range", etag).strip() != etag:
        return None
    return parse_range(request.headers.get("range"), size)


async def _begun(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same chunks, the first one read already: what is wrong with the bytes is known before 200 is said."""
    first = await anext(chunks, b"")

    async def rest() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    return rest()


async def _encoded(chunks: AsyncIterator[bytes], head: bytes, tail: bytes) -> AsyncIterator[bytes]:
    yield head
    held = b""
    async for chunk in chunks:
        held += chunk
        whole = len(held) - len(held) % _BASE64_GROUP
        yield pybase64.b64encode(held[:whole])
        held = held[whole:]
    yield pybase64.b64encode(held) + tail
