"""The way out through a proxy: HTTP CONNECT (RFC 9110 §9.3.6) or SOCKS5 (RFC 1928, RFC 1929).

The proxy is handed an address that was vetted here, never a name that it could understand in another way. Where the
proxy itself is, is the operator's word. Whatever goes wrong with it, the receiver could not be reached: `refused`.
"""

import asyncio
import base64
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiohappyeyeballs import start_connection
from yarl import URL

from chartwire.addresses import IPAddress

_HEAD_LIMIT = 8 * 1024
_SOCKS_PORT = 1080
_SOCKS_ADDRESS_BYTES = {1: 4, 4: 16}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy as `webhook_proxy_url` names it: `http://` or `socks5://`, with `user:password@` if it wants one."""

    scheme: str
    host: str
    port: int
    user: str | None
    password: str = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> "Proxy":
        """From a URL that the settings have checked."""
        parts = URL(url)
        return cls(parts.scheme, parts.host or "", parts.port or _SOCKS_PORT, parts.user, parts.password or "")

    async def reach(self, addresses: Sequence[IPAddress], port: int) -> socket.socket:
        """See `Route`. The addresses are tried in turn."""
        failure: OSError = ConnectionRefusedError("no address")
        for address in addresses:
            try:
                return await self._tunnel(address, port)
            except OSError as error:
                failure = error
        raise ConnectionRefusedError("the proxy does not lead there") from failure

    async def _tunnel(self, address: IPAddress, port: int) -> socket.socket:
        infos = await asyncio.get_running_loop().getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        proxy = await start_connection(infos, happy_eyeballs_delay=0.25)
        try:
            await (self._connect(proxy, address, port) if self.scheme == "http" else self._socks(proxy, address, port))
        except BaseException:
            proxy.close()
            raise
        return proxy

    async def _connect(self, proxy: socket.socket, address: IPAddress, port: int) -> None:
        target = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"host: {target}"]
        if self.user is not None:
            credentials = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            lines.append(f"proxy-authorization: Basic {credentials}")
        await _send(proxy, "\r\n".join([*lines, "", ""]).encode())
        head = b""
        while not head.endswith(b"\r\n\r\n") and len(head) < _HEAD_LIMIT:
            head += await _receive(proxy, 1)  # what follows belongs to the receiver
        _require(head[:7] == b"HTTP/1." and head[8:10] == b" 2")

    async def _socks(self, proxy: socket.socket, address: IPAddress, port: int) -> None:
        method = b"\x00" if self.user is None else b"\x02"
        await _send(proxy, b"\x05\x01" + method)
        _require(await _receive(proxy, 2) == b"\x05" + method)
        if self.user is not None:
            user, password = self.user.encode(), self.password.encode()
            await _send(proxy, b"\x01%c%b%c%b" % (len(user), user, len(password), password))
            _require((await _receive(proxy, 2))[1:] == b"\x00")
        kind = b"\x01" if address.version == 4 else b"\x04"
        await _send(proxy, b"\x05\x01\x00" + kind + address.packed + port.to_bytes(2, "big"))
        version, reply, _, bound = await _receive(proxy, 4)
        _require((version, reply) == (5, 0) and bound in _SOCKS_ADDRESS_BYTES)
        await _receive(proxy, _SOCKS_ADDRESS_BYTES[bound] + 2)


async def _send(proxy: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(proxy, data)


async def _receive(proxy: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = await asyncio.get_running_loop().sock_recv(proxy, count - len(data))
        _require(bool(part))
        data += part
    return data


def _require(fulfilled: bool) -> None:
    if not fulfilled:
        raise ConnectionRefusedError("the proxy refused")
