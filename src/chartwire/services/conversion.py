"""C-CDA documents made readable for people: HTML or PDF, made anew each time they are asked for."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE

from chartwire.errors import BadRequestError
from chartwire.formats import ccda, rendering
from chartwire.model.document import Document
from chartwire.services.links import Representation
from chartwire.store.blobs import BlobStore
from chartwire.telemetry import get_logger

MEDIA_TYPES = {Representation.HTML: "text/html; charset=utf-8", Representation.PDF: "application/pdf"}

_XML = "application/xml"
_LARGEST_BYTES = 20 * 1024 * 1024
_HEADER_BYTES = 1024 * 1024
_AT_ONE_TIME = min(os.cpu_count() or 1, 8)
"""Rendering is all CPU: more than the cores would only wait. Each holds its document in memory several times over."""


log = get_logger()


class Converter:
    """Renders stored documents in processes of their own, few at a time: a document may be made to be costly."""

    def __init__(self, blobs: BlobStore, seconds: float = rendering.SECONDS) -> None:
        """`seconds`: how long one document may take."""
        self._blobs = blobs
        self._seconds = seconds
        self._places = asyncio.Semaphore(_AT_ONE_TIME)

    async def convert(self, document: Document, representation: Representation) -> bytes:
        """The document as HTML or PDF. Raises `BadRequestError` if it is not C-CDA, too large, or too intricate."""
        async with self._places:
            xml = await self._read(document, _LARGEST_BYTES)
            status, rendered = await _render(xml, representation, self._seconds)
        match status:
            case 0:
                return rendered
            case rendering.NOT_CCDA:
                raise _not_convertible()
            case _:
                log.warning("conversion failed", status=status)
                raise BadRequestError("The document is too intricate to be converted")

    async def refuse_unless_convertible(self, document: Document) -> None:
        """Raises `BadRequestError` if the document does not begin as C-CDA does, or is too large."""
        head = await self._read(document, _HEADER_BYTES)
        if await asyncio.to_thread(ccda.recognise_start, head) is None:
            raise _not_convertible()

    async def _read(self, document: Document, limit: int) -> bytes:
        """The first `limit` bytes."""
        if document.mime_type != _XML:
            raise _not_convertible()
        if document.size > _LARGEST_BYTES:
            raise BadRequestError("The document is too large to be converted")
        end = min(document.size, limit)
        return b"".join([chunk async for chunk in self._blobs.read(document.sha256, 0, end)])


async def _render(xml: bytes, representation: Representation, seconds: float) -> tuple[int | None, bytes]:
    """Exit status and output of the renderer; None if it did not end in time. Its environment holds no secrets."""
    command = (sys.executable, "-I", "-m", rendering.__name__, representation.value)
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={})
    try:
        async with asyncio.timeout(seconds):
            rendered, _ = await process.communicate(xml)
    except TimeoutError:
        return None, b""
    finally:
        if process.returncode is None:  # out of time, or nobody waits any longer
            process.kill()
            await process.wait()
    return process.returncode, rendered


def _not_convertible() -> BadRequestError:
    return BadRequestError("Only C-CDA documents can be converted")
