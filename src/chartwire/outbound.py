"""The HTTP client for health networks, under the address rule (`chartwire.addresses`); receivers: `delivery.http`.

Every address is vetted where the connection is made, so that neither a name that changes its meaning nor an odd
spelling of a literal slips by. Callers pass `allow_redirects=False` with each request and follow, if at all, by their
own rules; they read bounded bodies and set their own deadlines.
"""

import socket
import ssl
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType
from aiohttp.tracing import Trace
from yarl import URL

from chartwire.addresses import IPNetwork, in_networks, is_allowed, parse_literal, vet
from chartwire.errors import ForbiddenAddressError
from chartwire.tls import default_ssl_context

_CONNECT_SECONDS = 10.0
_EVERYWHERE: tuple[IPNetwork, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))

_target: ContextVar[tuple[str, bool]] = ContextVar("_target")
"""The authority that is being connected to, and whether TLS will be spoken: a socket factory is told neither."""


class _RefusedPeerError(ForbiddenAddressError, OSError):
    """The address is not allowed.

    An `OSError` too, because that is what aiohttp takes for the failure of one address and wraps in its own.
    """


def vetted_session(
    allowed: Sequence[IPNetwork],
    *,
    always_allowed_hosts: frozenset[str] = frozenset(),
    limit: int,
    limit_per_host: int,
    user_agent: str,
    ssl_context: ssl.SSLContext | None = None,
    resolver: AbstractResolver | None = None,
) -> aiohttp.ClientSession:
    """A session that connects to public addresses over https, and to `allowed` networks over https or http.

    `always_allowed_hosts` are authorities as `authority` writes them (`host:port`) that the operator named: they may be
    anywhere but at a cloud metadata address, over http too. `limit` connections in all, `limit_per_host` per authority.
    Nothing is taken from the environment, no cookie is kept, no answer is decompressed. Needs a running event loop.
    """
    connector = _VettedConnector(
        tuple(allowed),
        always_allowed_hosts,
        ssl=ssl_context or default_ssl_context(),
        resolver=resolver or aiohttp.ThreadedResolver(),
        limit=limit,
        limit_per_host=limit_per_host,
    )
    return aiohttp.ClientSession(
        connector=connector,
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"User-Agent": user_agent, "Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
    )


def authority(url: URL) -> str:
    """`host:port` of a URL, in lower case, the port always written."""
    return f"{(url.raw_host or '').lower()}:{url.port}"


def forbidden_address(error: BaseException) -> bool:
    """Whether the address rule is behind `error`, anywhere down the chain of its causes."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        if isinstance(link, ForbiddenAddressError):
            return True
        seen.add(id(link))
        link = link.__cause__ or link.__context__
    return False


class _VettedConnector(aiohttp.TCPConnector):
    """Vets the addresses of names when they are resolved, and each address again when it is connected to."""

    def __init__(
        self,
        allowed: tuple[IPNetwork, ...],
        always_allowed_hosts: frozenset[str],
        *,
        resolver: AbstractResolver,
        **options: Any,  # aiohttp's own, handed on
    ) -> None:
        self._allowed = allowed
        self._always_allowed_hosts = always_allowed_hosts
        super().__init__(
            resolver=_VettedResolver(resolver, self._opened_for), socket_factory=self._open_socket, **options
        )

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  the signature is aiohttp's
    ) -> aiohttp.connector.Connection:
        token = _target.set((authority(req.url), req.is_ssl()))
        try:
            return await super().connect(req, traces, timeout)
        finally:
            _target.reset(token)

    def _opened_for(self, target: str) -> Sequence[IPNetwork]:
        return _EVERYWHERE if target in self._always_allowed_hosts else self._allowed

    def _open_socket(self, info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, peer = info
        target, encrypted = _target.get()
        opened = self._opened_for(target)
        address = parse_literal(str(peer[0]))
        if address is None or not is_allowed(address, opened):
            raise _RefusedPeerError
        if not encrypted and not in_networks(address, opened):
            raise _RefusedPeerError("Plain http is not allowed to this address.")
        return socket.socket(family=family, type=kind, proto=protocol)


class _VettedResolver(AbstractResolver):
    """Refuses a name whole when any of its addresses is forbidden."""

    def __init__(self, inner: AbstractResolver, opened_for: Callable[[str], Sequence[IPNetwork]]) -> None:
        self._inner = inner
        self._opened_for = opened_for

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        results = await self._inner.resolve(host, port, family)
        try:
            vet((result["host"] for result in results), self._opened_for(f"{host.lower()}:{port}"))
        except ForbiddenAddressError as error:
            raise _RefusedPeerError from error
        return results

    async def close(self) -> None:
        await self._inner.close()
