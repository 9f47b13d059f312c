"""What a URL says: where to connect, and the bytes that every request to it begins with."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from yarl import URL

from chartwire import __version__
from chartwire.errors import ForbiddenAddressError

_MANY = 4096  # endpoints whose URLs are kept parsed


class Origin(NamedTuple):
    """Whom a connection is to; a tuple, because each post looks one up. `host` is a name or spells an address."""

    host: str
    port: int
    encrypted: bool


@dataclass(frozen=True, slots=True)
class Destination:
    """A URL, taken apart. `head` is the request line and the headers that are the same for every message."""

    origin: Origin
    head: bytes


@lru_cache(maxsize=_MANY)
def parse_destination(url: str) -> Destination:
    """Take an http(s) URL apart; raises `ForbiddenAddressError` for anything else: nothing is connected to."""
    try:
        parts = URL(url)
    except ValueError:
        raise ForbiddenAddressError from None
    host, port = parts.raw_host, parts.port
    if parts.scheme not in {"http", "https"} or not host or not port or parts.raw_user is not None:
        raise ForbiddenAddressError
    if re.search(r"[^!-~]", host + parts.raw_path_qs) is not None:  # nothing may end the request line early
        raise ForbiddenAddressError
    origin = Origin(host.lower().removesuffix("."), port, parts.scheme == "https")
    return Destination(origin, _head(parts))


def _head(parts: URL) -> bytes:
    lines = (
        f"POST {parts.raw_path_qs} HTTP/1.1",
        f"host: {parts.host_port_subcomponent}",
        f"user-agent: Chartwire/{__version__}",
        "accept: */*",
        "accept-encoding: identity",
    )
    return "\r\n".join(lines).encode("ascii")
