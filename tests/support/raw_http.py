"""HTTP as bytes: for requests that no HTTP library would send."""

import asyncio
import io
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any

import orjson
from tests.support.patience import PATIENCE_SECONDS


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        """The media type without parameters."""
        return self.headers.get("content-type", "").partition(";")[0]

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return orjson.loads(self.body)


class _Replay:
    """What was read from a connection, as `HTTPResponse` wants a socket."""

    def __init__(self, received: bytes) -> None:
        self.file = _Unclosed(received)

    def makefile(self, *_: object) -> "_Unclosed":
        return self.file


class _Unclosed(io.BytesIO):
    """Several answers are read from it, and `HTTPResponse` closes its file after one."""

    def close(self) -> None:
        """Stay open."""


async def exchange(port: int, sent: bytes) -> bytes:
    """Send bytes on a new connection to 127.0.0.1 and return all that comes until the server closes it.

    The last request must ask for that (`Connection: close`).
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    received = bytearray()
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            writer.write(sent)
            # Read at once: whoever waited until all is sent would miss what came before the connection was reset.
            while part := await reader.read(1 << 16):
                received += part
        except ConnectionError:
            pass  # the server has heard enough, and has closed before it read everything
        finally:
            writer.close()
    return bytes(received)


def read_answers(received: bytes, *methods: str) -> list[RawAnswer]:
    """The answers to requests with these methods, which say whether there is a body."""
    replay = _Replay(received)
    answers = []
    for method in methods:
        response = HTTPResponse(replay, method=method)  # type: ignore[arg-type]  # it calls nothing but makefile
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        answers.append(RawAnswer(response.status, headers, response.read()))
    assert not replay.file.read(), "there is more than was asked for"
    return answers


def request_bytes(method: str, target: str, headers: Mapping[str, str | bytes], body: bytes | None = None) -> bytes:
    """A request that is the last of its connection. `target` and values are sent as they are, in Latin-1."""
    lines: list[bytes] = [f"{method} {target} HTTP/1.1".encode("latin-1"), b"Host: 127.0.0.1", b"Connection: close"]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}".encode())
    for name, value in headers.items():
        lines.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode("latin-1")))
    return b"\r\n".join([*lines, b"", body or b""])
