"""A TCP proxy that lets a number of the answer's bytes pass and then goes wrong in the way it was told."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Self

from tests.support.receiver import serve_raw

RESET_ON_CLOSE = b"\x01\x00\x00\x00\x00\x00\x00\x00"
"""SO_LINGER on, for zero seconds: closing sends RST."""


class Then(Enum):
    """What happens after the bytes that pass."""

    RESET = auto()
    CLOSE = auto()
    SILENCE = auto()
    SAY = auto()
    DRIP = auto()


@dataclass(frozen=True, slots=True)
class Fault:
    """`after` bytes of a connection's answers pass. `said` is what is said then; `pace` the seconds between drips."""

    after: int
    then: Then
    said: bytes = b""
    pace: float = 0.05


@dataclass(slots=True)
class FaultProxy:
    """Counts connections; `left` is set when one has ended."""

    port: int = 0
    connections: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def fault_proxy(target_port: int, fault: Fault) -> AsyncIterator[FaultProxy]:
    """Stands before a server on 127.0.0.1; every connection suffers `fault`."""
    proxy = FaultProxy()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy.connections += 1
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", target_port)
        forth = asyncio.create_task(_pump(reader, upstream_writer, proxy.left))
        try:
            writer.write(await upstream_reader.readexactly(fault.after))
            await _go_wrong(fault, upstream_reader, writer)
        finally:
            forth.cancel()
            upstream_writer.close()

    async with serve_raw(relay) as proxy.port:
        yield proxy


class Line:
    """Stands before a server on 127.0.0.1, as `async with Line(port) as line`; it can be cut without a word.

    While it is cut what is said gets lost on it and new connections hear nothing. Mending it ends the connections
    that were there.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port = target_port
        self._cut = asyncio.Event()
        self._whole = asyncio.Event()
        self._whole.set()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.port = await self._stack.enter_async_context(serve_raw(self._relay))
        return self

    async def __aexit__(self, *details: object) -> None:
        await self._stack.aclose()

    def cut(self) -> None:
        """From now on nothing passes."""
        self._whole.clear()
        self._cut.set()

    def mend(self) -> None:
        """New connections pass again."""
        self._cut.clear()
        self._whole.set()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut.is_set():
            await self._whole.wait()
            raise ConnectionResetError
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        pumps = [
            asyncio.create_task(_pump(reader, upstream_writer, asyncio.Event())),
            asyncio.create_task(_pump(upstream_reader, writer, asyncio.Event())),
        ]
        cut = asyncio.create_task(self._cut.wait())
        try:
            await asyncio.wait([*pumps, cut], return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await self._whole.wait()
        finally:
            cut.cancel()
            for pump in pumps:
                pump.cancel()
            upstream_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ended: asyncio.Event) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
    except ConnectionError:
        pass  # the client went away without a word
    finally:
        ended.set()


async def _go_wrong(fault: Fault, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    match fault.then:
        case Then.RESET:
            await writer.drain()
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            writer.transport.abort()
        case Then.CLOSE:
            writer.close()
            await writer.wait_closed()
        case Then.SILENCE:
            await asyncio.Event().wait()
        case Then.SAY:
            writer.write(fault.said)
            await asyncio.Event().wait()
        case Then.DRIP:
            while byte := await upstream.read(1):
                writer.write(byte)
                await asyncio.sleep(fault.pace)  # the pace of the network, not a wait of the test
