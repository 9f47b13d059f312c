"""A receiver that does as little as one can, in a process of its own on the last core: it is not what is measured.

Run as `python -m bench.sink '{"hosts": 100, …}'` (a `Crowd`). Prints the port of its counters, then one port for each
host (127.0.0.1, 127.0.0.2, …), and serves until it is killed. Whoever connects to the counters is told, as JSON, how
many connections were accepted and how many requests were read.
"""

import asyncio
import json
import os
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory
from typing import cast

import httptools
import trustme
import uvloop

from bench.turns import pin
from chartwire.tls import default_ssl_context

_GOOD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nserver: sink\r\ncontent-length: 2\r\n\r\nOK"
_BAD = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"
_SLOW_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Crowd:
    """So many hosts; of these the first hang, the next answer 500, the next answer late, and the rest are well."""

    hosts: int = 100
    hanging: int = 0
    failing: int = 0
    slow: int = 0

    @property
    def ill(self) -> int:
        """How many are not well."""
        return self.hanging + self.failing + self.slow


@dataclass(frozen=True, slots=True)
class Receivers:
    """Where the hosts of a crowd listen; `authority` is the certificate to trust, in PEM, if they speak TLS."""

    crowd: Crowd
    urls: tuple[str, ...]
    counters: int
    pid: int
    authority: str | None = None

    def context(self) -> ssl.SSLContext | None:
        """What a client needs to trust them."""
        if self.authority is None:
            return None
        context = default_ssl_context()
        context.load_verify_locations(cadata=self.authority)
        return context


@contextmanager
def receivers(crowd: Crowd, *, encrypted: bool = False) -> Iterator[Receivers]:
    """A crowd that listens."""
    with TemporaryDirectory(prefix="chartwire-bench-") as folder:
        command, authority = [sys.executable, "-m", "bench.sink", json.dumps(asdict(crowd))], None
        if encrypted:
            issuer, path = trustme.CA(), Path(folder, "certificate.pem")
            names = [f"127.0.0.{host + 1}" for host in range(crowd.hosts)]
            issuer.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(path)
            authority = issuer.cert_pem.bytes().decode()
            command.append(str(path))
        with Popen(command, stdout=PIPE, text=True) as process:  # noqa: S603  our own program
            assert process.stdout is not None
            counters, *ports = process.stdout.readline().split()
            scheme = "https" if encrypted else "http"
            urls = tuple(f"{scheme}://127.0.0.{n + 1}:{port}/webhook" for n, port in enumerate(ports))
            try:
                yield Receivers(crowd, urls, int(counters), process.pid, authority)
            finally:
                process.kill()


async def counters(port: int) -> tuple[int, int]:
    """Connections accepted and requests read so far."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    connections, requests = json.loads(await reader.read())
    writer.close()
    return connections, requests


class Sink(asyncio.Protocol):
    """Gives the same answer to whatever is asked; None is no answer."""

    connections = 0
    requests = 0

    def __init__(self, answer: bytes | None, seconds: float) -> None:
        self._answer = answer
        self._seconds = seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Sink.connections += 1
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        Sink.requests += 1
        if self._answer is None:
            return
        if self._seconds:
            asyncio.get_running_loop().call_later(self._seconds, self._transport.write, self._answer)
        else:
            self._transport.write(self._answer)


async def _count(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(json.dumps([Sink.connections, Sink.requests]).encode())
    writer.close()


async def _serve(crowd: Crowd, certificate: str | None) -> None:
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    manners: list[tuple[bytes | None, float]] = [(None, 0.0)] * crowd.hanging
    manners += [(_BAD, 0.0)] * crowd.failing + [(_GOOD, _SLOW_SECONDS)] * crowd.slow
    manners += [(_GOOD, 0.0)] * (crowd.hosts - crowd.ill)
    servers: list[asyncio.Server] = [await asyncio.start_server(_count, "127.0.0.1", 0)]
    for host, manner in enumerate(manners):
        servers.append(await loop.create_server(partial(Sink, *manner), f"127.0.0.{host + 1}", 0, ssl=context))
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    pin((os.cpu_count() or 1) - 1)
    uvloop.run(_serve(Crowd(**json.loads(sys.argv[1])), sys.argv[2] if len(sys.argv) > 2 else None))
