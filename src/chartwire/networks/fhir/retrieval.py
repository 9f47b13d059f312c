"""The bytes of one listed document (MHD ITI-68): from a URL, or out of its DocumentReference."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import aiohttp
import pybase64
from yarl import URL

from chartwire.errors import IssueCode, PermanentNetworkError
from chartwire.model.document import JsonObject, RemoteDocument
from chartwire.networks.fhir.client import FHIR_JSON, FhirClient, finish
from chartwire.networks.fhir.datatypes import first, objects, text
from chartwire.networks.fhir.decoding import CHUNK_BYTES, decoded
from chartwire.networks.fhir.documents import media_type, retrieval_url
from chartwire.networks.fhir.failures import RefusedError
from chartwire.networks.fhir.unwrapping import find_wrapper, read_head, unwrapped
from chartwire.networks.network import Retrieval

_SPACE = re.compile(r"\s+")
_BASE64_PIECE = CHUNK_BYTES // 3 * 4


@asynccontextmanager
async def open_document(client: FhirClient, document: RemoteDocument, seconds: float) -> AsyncIterator[Retrieval]:
    """Open a document that `list_documents` listed; a document without a byte raises NO_CONTENT."""
    attachment: JsonObject = {}
    url = URL(document.retrieval["url"]) if "url" in document.retrieval else None
    if url is None:
        attachment = await _read_again(client, document.retrieval, seconds)
        url = retrieval_url(attachment, client.resolve)
    opened = _from_data(attachment) if url is None else _from_url(client, url, document.mime_type, seconds)
    async with opened as retrieval, aclosing(_not_empty(retrieval.chunks)) as chunks:
        yield Retrieval(chunks, retrieval.declared_type)


async def _read_again(client: FhirClient, retrieval: dict[str, str], seconds: float) -> JsonObject:
    """The attachment as it is now."""
    reference = await client.get_json(f"DocumentReference/{retrieval.get('reference')}", seconds)
    contents = objects(reference.get("content"))
    number = int(retrieval.get("content", "0"))
    return first(contents[number].get("attachment")) if number < len(contents) else {}


@asynccontextmanager
async def _from_data(attachment: JsonObject) -> AsyncIterator[Retrieval]:
    data = attachment.get("data")
    if not isinstance(data, str) or not data:
        raise PermanentNetworkError(IssueCode.NO_CONTENT)
    yield Retrieval(_decoded_pieces(data), media_type(attachment.get("contentType")))


async def _decoded_pieces(data: str) -> AsyncIterator[bytes]:
    """A piece at a time: all of it at once would keep everybody else waiting."""
    waiting = ""
    for at in range(0, len(data), _BASE64_PIECE):
        ready = waiting + _SPACE.sub("", data[at : at + _BASE64_PIECE])
        is_last = at + _BASE64_PIECE >= len(data)
        usable = len(ready) if is_last else len(ready) // 4 * 4
        waiting = ready[usable:]
        try:
            yield pybase64.b64decode(ready[:usable], validate=True)
        except ValueError:
            raise PermanentNetworkError(IssueCode.INVALID_ANSWER, "the attachment's data is not Base64") from None


@asynccontextmanager
async def _from_url(
    client: FhirClient, url: URL, declared_type: str | None, seconds: float
) -> AsyncIterator[Retrieval]:
    response = await _fetch(client, url, declared_type, seconds)
    try:
        answered_type = text(response.headers.get("Content-Type")) or ""
        async with aclosing(decoded(response)) as stream:
            head = await read_head(stream)
            wrapper = find_wrapper(head, answered_type.lower(), declared_type)
            if wrapper is None:
                yield Retrieval(_joined(head, stream), media_type(answered_type))
            else:
                yield Retrieval(unwrapped(wrapper, head, stream), media_type(wrapper.content_type))
    finally:
        finish(response)


async def _fetch(client: FhirClient, url: URL, declared_type: str | None, seconds: float) -> aiohttp.ClientResponse:
    """Ask for the declared type, the only one a server must have; a server that has a Binary alone may give that."""
    anything = "*/*" if declared_type is None else f"{declared_type}, */*;q=0.1"
    try:
        return await client.fetch(url, anything, seconds)
    except RefusedError as refused:
        if refused.status != 406:
            raise
    return await client.fetch(url, FHIR_JSON, seconds)


async def _joined(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if head:
        yield head
    async for chunk in rest:
        yield chunk


async def _not_empty(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    empty = True
    async for chunk in chunks:
        empty = False
        yield chunk
    if empty:
        raise PermanentNetworkError(IssueCode.NO_CONTENT)
