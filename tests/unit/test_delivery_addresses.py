"""Whatever a URL spells and a resolver answers: nothing is connected to but what the address rule lets pass."""

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from hypothesis import example, given, settings
from hypothesis import strategies as st

from chartwire.addresses import IPAddress, IPNetwork
from chartwire.delivery.http.connecting import Connector
from chartwire.delivery.http.destination import parse_destination
from chartwire.delivery.http.laps import Laps
from chartwire.delivery.http.tls import TlsContexts
from chartwire.errors import ForbiddenAddressError

NAT64 = IPv6Network("64:ff9b::/96")
CONTEXTS = TlsContexts()


class Resolver:
    """Answers one thing, or, as `getaddrinfo` does, takes what spells an IPv4 address for that."""

    def __init__(self, answer: Sequence[str] | None) -> None:
        self._answer = answer

    async def resolve(self, host: str) -> Sequence[str]:
        if self._answer is not None:
            return self._answer
        try:
            return [socket.inet_ntoa(socket.inet_aton(host))]
        except (OSError, UnicodeError):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None

    def forget(self, host: str) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing to give back."""


def reached(url: str, answer: Sequence[str] | None = None, allowed: Sequence[IPNetwork] = ()) -> Sequence[IPAddress]:
    """The addresses that would have been connected to."""
    seen: list[IPAddress] = []

    async def route(addresses: Sequence[IPAddress], port: int) -> socket.socket:
        del port
        seen.extend(addresses)
        raise ConnectionRefusedError

    async def connect() -> None:
        origin, _ = parse_destination(url)
        await Connector(allowed, Resolver(answer), CONTEXTS, route, freed=lambda _: None).connect(origin, None, Laps())

    with contextlib.suppress(ForbiddenAddressError, OSError, ValueError):
        asyncio.run(connect())
    return seen


def is_public(address: IPAddress) -> bool:
    """Judged by the standard library, and by the IPv4 address inside."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        return inner.is_global if inner is not None else address.is_global and address.teredo is None
    return address.is_global and not address.is_multicast


inside = st.sampled_from(
    [IPv4Network(each) for each in ("10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")]
).flatmap(lambda network: st.ip_addresses(network=network))
carried = st.builds(
    lambda prefix, shift, address: str(IPv6Address(int(IPv6Address(prefix)) | int(address) << shift)),
    st.sampled_from(["::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b::", "64:ff9b:1::", "2001::", "2002::"]),
    st.sampled_from([0, 0, 0, 64, 80]),
    st.one_of(inside, st.ip_addresses(v=4)),
)
answers = st.one_of(
    st.ip_addresses().map(str), inside.map(str), carried, st.sampled_from(["fe80::1%eth0", "", "x", "1.1.1.1", "::1"])
)


@settings(deadline=None)  # the machine may be busy
@given(answer=st.lists(answers, max_size=4))
@example(answer=["1.1.1.1", "2606:4700::1111"])
def test_of_what_a_resolver_answers_all_is_public_or_nothing_is_reached(answer: list[str]) -> None:
    addresses = reached("https://app.example/", answer)
    assert all(map(is_public, addresses))
    assert len(addresses) in {0, len(answer)}


def test_public_addresses_are_reached() -> None:
    answer = ["1.1.1.1", "2606:4700::1111"]
    assert [str(address) for address in reached("https://app.example/", answer)] == answer
    assert [str(address) for address in reached("https://0x01.1.257/")] == ["1.1.1.1"]


spelled_number = st.sampled_from(("{:d}", "0{:o}", "0x{:x}", "0X{:X}", "00{:o}", "0x00{:x}"))
script = st.sampled_from(("0123456789.", "０１２３４５６７８９。", "⓪①②③④⑤⑥⑦⑧⑨.", "𝟬𝟭𝟮𝟯𝟰𝟱𝟲𝟳𝟴𝟵．"))


@settings(deadline=None)  # the machine may be busy
@given(address=inside, count=st.integers(1, 4), script=script, dot=st.booleans(), data=st.data())
def test_no_spelling_leads_inside(
    address: IPv4Address, count: int, script: str, dot: bool, data: st.DataObject
) -> None:
    value = int(address)
    numbers = [*[value >> shift & 255 for shift in (24, 16, 8)][: count - 1], value & (1 << 8 * (5 - count)) - 1]
    text = ".".join(data.draw(spelled_number).format(number) for number in numbers) + "." * dot
    assert reached(f"https://{text.translate(str.maketrans('0123456789.', script))}/") == []


@settings(deadline=None)  # the machine may be busy
@given(address=carried, zone=st.sampled_from(["", "%25eth0", "%eth0"]), upper=st.booleans())
def test_no_transition_format_leads_inside(address: str, zone: str, upper: bool) -> None:
    text = ip_address(address).exploded if upper else address
    assert all(map(is_public, reached(f"https://[{text}{zone}]/")))


@settings(deadline=None)  # the machine may be busy
@given(url=st.text(alphabet="https:/[]@.%#?\\12507xaf \t\n", max_size=40).map(lambda rest: f"https://{rest}"))
@example("https://[]@")
def test_no_odd_url_leads_inside(url: str) -> None:
    assert all(map(is_public, reached(url)))
