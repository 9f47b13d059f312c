"""Where to connect, and the bytes that every request to a recipient begins with."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from weakref import WeakValueDictionary

from yarl import URL

from chartwire import __version__
from chartwire.delivery.egress import Recipient
from chartwire.delivery.headers import header_lines
from chartwire.errors import ForbiddenAddressError
from chartwire.tls import TlsProfile

_MANY = 4096  # recipients that are kept prepared


class Origin(NamedTuple):
    """Whom a URL names. `host` is a name or spells an address."""

    host: str
    port: int
    encrypted: bool


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Place:
    """What a connection leads to: an origin under one TLS profile.

    A post looks it up many times, so it equals nothing but itself: `prepare` gives the same one to all who go there.
    """

    origin: Origin
    profile: TlsProfile | None = None


class Destination(NamedTuple):
    """A recipient, prepared. `head` is the request line and the headers that are the same for every message."""

    place: Place
    head: bytes


@lru_cache(maxsize=_MANY)
def prepare(recipient: Recipient) -> Destination:
    """Raises `ForbiddenAddressError` for a URL that nothing is posted to, and `ValueError` as `header_lines` does."""
    origin, head = parse_destination(recipient.url)
    return Destination(_place(origin, recipient.tls), head + header_lines(recipient.headers))


_places: WeakValueDictionary[tuple[Origin, TlsProfile | None], Place] = WeakValueDictionary()


def _place(origin: Origin, profile: TlsProfile | None) -> Place:
    """The one that anybody holds, as long as somebody does: two would be two pools of connections."""
    return _places.setdefault((origin, profile), Place(origin, profile))


@lru_cache(maxsize=_MANY)
def parse_destination(url: str) -> tuple[Origin, bytes]:
    """Take an http(s) URL apart: its origin, and how requests to it begin.

    Raises `ForbiddenAddressError` for anything else: nothing is connected to.
    """
    try:
        parts = URL(url)
    except (ValueError, IndexError):  # the latter of `https://[]@`
        raise ForbiddenAddressError from None
    host, port = parts.raw_host, parts.port
    if parts.scheme not in {"http", "https"} or not host or not port or parts.raw_user is not None:
        raise ForbiddenAddressError
    if re.search(r"[^!-~]", host + parts.raw_path_qs) is not None:  # nothing may end the request line early
        raise ForbiddenAddressError
    origin = Origin(host.lower().removesuffix("."), port, parts.scheme == "https")
    return origin, _head(parts)


def _head(parts: URL) -> bytes:
    lines = (
        f"POST {parts.raw_path_qs} HTTP/1.1",
        f"host: {parts.host_port_subcomponent}",
        f"user-agent: Chartwire/{__version__}",
        "accept: */*",
        "accept-encoding: identity",
    )
    return "\r\n".join(lines).encode("ascii")
