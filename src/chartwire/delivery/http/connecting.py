"""New connections: the name, the address rule, TCP, TLS."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial

import aiofastnet

from chartwire.addresses import IPAddress, IPNetwork, in_networks, parse_literal, vet
from chartwire.delivery.http.answer import Glance
from chartwire.delivery.http.connection import Connection
from chartwire.delivery.http.destination import Origin
from chartwire.delivery.http.laps import Laps
from chartwire.delivery.http.resolution import Resolver
from chartwire.delivery.http.routes import Route
from chartwire.delivery.http.tls import TlsContexts
from chartwire.errors import ForbiddenAddressError
from chartwire.tls import TlsProfile

_TLS_FAREWELL_SECONDS = 2.0


class Connector:
    """Opens connections to addresses that were vetted, each time, and to no others."""

    def __init__(
        self,
        allowed: Sequence[IPNetwork],
        resolver: Resolver,
        contexts: TlsContexts,
        route: Route,
        freed: Callable[[Connection], None],
    ) -> None:
        """`freed`: see `Connection`."""
        self._allowed = tuple(allowed)
        self._resolver = resolver
        self._contexts = contexts
        self._route = route
        self._protocol = partial(Connection, Glance(), freed)

    async def connect(self, origin: Origin, profile: TlsProfile | None, laps: Laps) -> Connection:
        """Raises `ForbiddenAddressError`, `ssl.SSLError`, `socket.gaierror`, another `OSError` or `ValueError`."""
        addresses = await self._vetted_addresses(origin, laps)
        try:
            with laps.step("connect"):
                reached = await self._route(addresses, origin.port)
        except OSError:
            self._resolver.forget(origin.host)
            raise
        return await self._speak(reached, origin, profile, laps)

    async def _vetted_addresses(self, origin: Origin, laps: Laps) -> Sequence[IPAddress]:
        literal = parse_literal(origin.host)
        found: Sequence[str] = [str(literal)]
        if literal is None:
            with laps.step("dns"):
                found = await self._resolver.resolve(origin.host)
        addresses = [address for text in found if (address := parse_literal(text)) is not None]
        if not addresses or len(addresses) < len(found):
            raise socket.gaierror(socket.EAI_NONAME, "no usable address")
        vet((str(address) for address in addresses), self._allowed)
        if not origin.encrypted and not all(in_networks(address, self._allowed) for address in addresses):
            raise ForbiddenAddressError
        return addresses

    async def _speak(
        self, reached: socket.socket, origin: Origin, profile: TlsProfile | None, laps: Laps
    ) -> Connection:
        """Make a connection of a socket; it is closed if that fails."""
        loop = asyncio.get_running_loop()
        unused: socket.socket | None = reached
        try:
            reached.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if origin.encrypted:
                with laps.step("tls"):
                    connection = await self._shake_hands(reached, origin, profile)
            else:
                _, connection = await loop.create_connection(self._protocol, sock=reached)
            unused = None
            return connection
        finally:
            if unused is not None:
                unused.close()

    async def _shake_hands(self, reached: socket.socket, origin: Origin, profile: TlsProfile | None) -> Connection:
        try:
            _, connection = await aiofastnet.create_connection(
                asyncio.get_running_loop(),
                self._protocol,
                sock=reached,
                ssl=self._contexts.get(profile),
                server_hostname=str(parse_literal(origin.host) or origin.host),
                ssl_shutdown_timeout=_TLS_FAREWELL_SECONDS,
            )
        except (ConnectionError, ssl.SSLEOFError) as error:  # many servers hang up on a handshake that they do not like
            raise ssl.SSLError("the connection ended within the handshake") from error
        return connection
