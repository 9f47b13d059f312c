"""Where Chartwire may connect: the address rule for receivers and for URLs that a network's server hands us.

The ranges are written out, because `ipaddress.is_global` answers differently from one Python version to the next.
Sources: the IANA special-purpose address registries for IPv4 and IPv6 (RFC 6890), and the RFCs named below.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import SplitResult, urlsplit

from chartwire.errors import ForbiddenAddressError, InvalidUrlError

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

MAX_URL_LENGTH = 2048

_REFUSED_IPV4 = tuple(
    IPv4Network(cidr)
    for cidr in (
        "0.0.0.0/8",  # this network, unspecified
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # automatic multicast tunnelling
        "192.88.99.0/24",  # 6to4 relays, deprecated
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, limited broadcast
    )
)

_REFUSED_IPV6 = tuple(
    IPv6Network(cidr)
    for cidr in (
        # Global unicast is 2000::/3. The three ranges around it hold unspecified, loopback, IPv4-compatible,
        # discard-only, local NAT64 (64:ff9b:1::/48), unique local (fc00::/7), link-local, site-local, multicast,
        # and what is not assigned.
        "::/3",
        "4000::/2",
        "8000::/1",
        "2001::/23",  # IETF protocol assignments: Teredo, benchmarking, ORCHID
        "2001:db8::/32",  # documentation
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)

_METADATA = tuple(
    IPv4Network(cidr)
    for cidr in (
        "100.100.100.200/32",  # Alibaba Cloud
        "168.63.129.16/32",  # Azure's host agent
        "169.254.0.23/32",  # Tencent Cloud
        "169.254.42.42/32",  # Scaleway
        "169.254.169.0/24",  # AWS, Azure, Google Cloud, Oracle Cloud, OpenStack and others
        "169.254.170.0/24",  # AWS container and pod credentials
        "192.0.0.192/32",  # Oracle Cloud, classic
    )
) + tuple(
    IPv6Network(cidr)
    for cidr in (
        "fd00:42::42/128",  # Scaleway
        "fd00:ec2::/32",  # AWS
        "fd20:ce::254/128",  # Google Cloud
    )
)

_SAME_AS_IPV4 = tuple(
    IPv6Network(cidr)
    for cidr in (
        "::ffff:0:0/96",  # IPv4-mapped (RFC 4291 §2.5.5.2): the socket speaks IPv4
        "64:ff9b::/96",  # NAT64, well-known prefix (RFC 6052): what public IPv4 hosts are called on IPv6-only networks
    )
)
_SIX_TO_FOUR = IPv6Network("2002::/16")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_TEREDO = IPv6Network("2001::/32")
_LOW_32_BITS = (IPv6Network("::/96"), IPv6Network("::ffff:0:0:0/96"), _LOCAL_NAT64)


def is_allowed(address: IPAddress, allowed: Sequence[IPNetwork]) -> bool:
    """Whether a connection to `address` may be made.

    Public addresses may be reached, and what the operator opened (`allowed`). A transition address (IPv4-mapped, NAT64,
    6to4, …) is judged by the IPv4 address inside it too. Cloud metadata services are refused whatever is opened.
    """
    address = _plain(address)
    inner = list(_embedded(address))
    if any(_within(each, _METADATA) for each in (address, *inner)):
        return False
    if _within(address, allowed):
        return True
    return all(_is_public(each) or _within(each, allowed) for each in inner) and _is_public(address)


def vet(addresses: Iterable[str], allowed: Sequence[IPNetwork]) -> None:
    """Raise `ForbiddenAddressError` if any of a name's addresses is forbidden: the name is refused whole."""
    for text in addresses:
        address = parse_literal(text)
        if address is None or not is_allowed(address, allowed):
            raise ForbiddenAddressError


def parse_literal(host: str) -> IPAddress | None:
    """The address that `host` spells, in any way a resolver would take it for one; None if it is a name.

    Takes what `inet_aton` takes (decimal, octal, hexadecimal, one to four parts), IPv6 with or without brackets and
    zone, a trailing dot, and the digits and dots of other scripts that IDNA maps to ASCII.
    """
    text = unicodedata.normalize("NFKC", host).replace("。", ".").strip("[]").removesuffix(".")
    if ":" not in text:
        return _parse_inet_aton(text)
    try:
        return IPv6Address(text.partition("%")[0])
    except ValueError:
        return None


def check_url(url: str, allowed: Sequence[IPNetwork], *, require_https: bool = True) -> None:
    """Raise `InvalidUrlError`, in words for a customer, if `url` cannot be a receiver's address.

    The rule is applied again to the addresses behind a name at each connection, because names can change their meaning;
    plain http to a name is therefore accepted here as soon as the operator opened any network.
    """
    host = _checked_parts(url).hostname or ""
    address = _literal_or_localhost(host, allowed)
    if address is not None and not is_allowed(address, allowed):
        raise InvalidUrlError("The URL points to an address that is not public and not allowed here")
    if require_https and url[:5].lower() != "https":
        opened = bool(allowed) if address is None else _within(_plain(address), allowed)
        if not opened:
            raise InvalidUrlError("The URL must begin with https://")


def in_networks(address: IPAddress, networks: Sequence[IPNetwork]) -> bool:
    """Whether `address`, or the IPv4 address it stands for, lies in one of `networks`."""
    return _within(_plain(address), networks)


def _checked_parts(url: str) -> SplitResult:
    if len(url) > MAX_URL_LENGTH:
        raise InvalidUrlError(f"The URL is longer than {MAX_URL_LENGTH} characters")
    if re.search(r"[\s\\\x00-\x1f\x7f]", url) is not None:
        raise InvalidUrlError("The URL holds a blank, a backslash or a control character")
    try:
        parts = urlsplit(url)
        _ = parts.port  # read for its check alone: it raises on a port that is no port
    except ValueError:
        raise InvalidUrlError("The URL is malformed") from None
    if parts.scheme not in {"http", "https"}:
        raise InvalidUrlError("The URL must begin with https://")
    if "@" in parts.netloc:
        raise InvalidUrlError("The URL must not hold a user name or password")
    if "#" in url:
        raise InvalidUrlError("The URL must not have a fragment (#)")
    if not parts.hostname or re.search(r"[%<>^|\"`{}]", parts.hostname) is not None:
        raise InvalidUrlError("The URL has no valid host name")
    return parts


def _literal_or_localhost(host: str, allowed: Sequence[IPNetwork]) -> IPAddress | None:
    """The address that `host` surely means: resolvers answer `localhost` with a loopback address (RFC 6761 §6.3)."""
    name = host.removesuffix(".")
    if name != "localhost" and not name.endswith(".localhost"):
        return parse_literal(host)
    loopback = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
    return next((address for address in loopback if is_allowed(address, allowed)), loopback[0])


def _parse_inet_aton(text: str) -> IPv4Address | None:
    parts = text.split(".")
    numbers = [_parse_number(part) for part in parts]
    if len(parts) > 4 or None in numbers:
        return None
    *heads, last = [number for number in numbers if number is not None]
    room = 8 * (4 - len(heads))
    if any(head > 255 for head in heads) or last >= 1 << room:
        return None
    value = sum(head << (24 - 8 * place) for place, head in enumerate(heads)) + last
    return IPv4Address(value)


def _parse_number(text: str) -> int | None:
    """A part of a dotted address as C's `strtoul` reads it: `0x` hexadecimal, a leading zero octal, else decimal."""
    if re.fullmatch(r"0[xX][0-9a-fA-F]+", text, re.ASCII):
        return int(text, 16)
    if re.fullmatch(r"0[0-7]*", text, re.ASCII):
        return int(text, 8)
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,20}", text, re.ASCII) else None


def _plain(address: IPAddress) -> IPAddress:
    if isinstance(address, IPv6Address) and _within(address, _SAME_AS_IPV4):
        return _low_32_bits(address)
    return IPv6Address(int(address)) if isinstance(address, IPv6Address) else address


def _embedded(address: IPAddress) -> Iterator[IPv4Address]:
    """The IPv4 addresses that a transition format carries inside `address`."""
    if not isinstance(address, IPv6Address):
        return
    value = int(address)
    if address in _SIX_TO_FOUR:  # RFC 3056 §2
        yield IPv4Address(value >> 80 & 0xFFFFFFFF)
    if address in _TEREDO:  # RFC 4380 §4: the server's address, and the client's with its bits flipped
        yield IPv4Address(value >> 64 & 0xFFFFFFFF)
        yield IPv4Address(~value & 0xFFFFFFFF)
    if address in _LOCAL_NAT64:  # RFC 8215, embedded as by RFC 6052 §2.2 with a prefix of 48 bits
        yield IPv4Address((value >> 64 & 0xFFFF) << 16 | value >> 40 & 0xFFFF)
    if _within(address, _LOW_32_BITS):
        yield _low_32_bits(address)


def _low_32_bits(address: IPv6Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFFFFFF)


def _is_public(address: IPAddress) -> bool:
    return not _within(address, _REFUSED_IPV4) and not _within(address, _REFUSED_IPV6)


def _within(address: IPAddress, networks: Sequence[IPNetwork]) -> bool:
    return any(address in network for network in networks)
