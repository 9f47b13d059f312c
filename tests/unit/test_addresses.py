"""The address rule: ranges, transition formats, spellings, and what a customer may save."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chartwire.addresses import check_url, is_allowed, parse_literal, vet
from chartwire.errors import ForbiddenAddressError, InvalidUrlError

EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))

FORBIDDEN = (
    "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.0.9",
    "169.254.0.1", "169.254.169.254", "169.254.170.2", "168.63.129.16", "172.16.0.1", "172.31.255.255", "192.0.0.8",
    "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.1.1", "192.175.48.1", "198.18.0.1",
    "198.19.255.255", "198.51.100.7", "203.0.113.7", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "100.100.100.200", "2620:4f:8000::1",
    "::", "::1", "::7f00:1", "100::1", "64:ff9b:1::1", "2001::1", "2001:2::1", "2001:10::1", "2001:db8::1", "3fff::1",
    "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fd12:3456::1", "fe80::1", "fec0::1", "ff02::1",
)  # fmt: skip
PUBLIC = (
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
    "169.253.255.255", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "198.17.255.255", "198.20.0.0",
    "223.255.255.255", "2000::1", "2001:200::1", "2606:4700::1111", "2a00:1450:4001::200e",
)  # fmt: skip
METADATA = (
    "169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254",
    "100.100.100.200", "168.63.129.16", "169.254.42.42", "169.254.0.23", "192.0.0.192", "fd00:42::42",
)  # fmt: skip

ipv4 = st.ip_addresses(v=4).map(lambda address: IPv4Address(int(address))) | st.sampled_from(
    [IPv4Address(text) for text in METADATA if ":" not in text]  # which chance would hardly ever draw
)


def mapped(address: IPv4Address) -> IPv6Address:
    return IPv6Address(0xFFFF << 32 | int(address))


def nat64(address: IPv4Address) -> IPv6Address:
    return IPv6Address(int(IPv6Address("64:ff9b::")) | int(address))


def six_to_four(address: IPv4Address) -> IPv6Address:
    return IPv6Address(0x2002 << 112 | int(address) << 80 | 1)


def teredo_client(address: IPv4Address) -> IPv6Address:
    return IPv6Address(0x20010000 << 96 | 0x08080808 << 64 | (~int(address) & 0xFFFFFFFF))


def teredo_server(address: IPv4Address) -> IPv6Address:
    return IPv6Address(0x20010000 << 96 | int(address) << 64 | (~0x08080808 & 0xFFFFFFFF))


def compatible(address: IPv4Address) -> IPv6Address:
    return IPv6Address(int(address))


def translated(address: IPv4Address) -> IPv6Address:
    return IPv6Address(int(IPv6Address("::ffff:0:0:0")) | int(address))


def local_nat64_96(address: IPv4Address) -> IPv6Address:
    return IPv6Address(int(IPv6Address("64:ff9b:1::")) | int(address))


def local_nat64_48(address: IPv4Address) -> IPv6Address:
    high, low = int(address) >> 16, int(address) & 0xFFFF
    return IPv6Address(int(IPv6Address("64:ff9b:1::")) | high << 64 | low << 40)


TRANSITIONS = (
    mapped, nat64, six_to_four, teredo_client, teredo_server, compatible, translated, local_nat64_96, local_nat64_48,
)  # fmt: skip


@pytest.mark.parametrize("text", FORBIDDEN)
def test_an_address_that_is_not_public_is_refused(text: str) -> None:
    assert not is_allowed(ip_address(text), ())


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_allowed(text: str) -> None:
    assert is_allowed(ip_address(text), ())


@pytest.mark.parametrize("text", METADATA)
def test_a_metadata_address_stays_refused_when_everything_is_opened(text: str) -> None:
    assert not is_allowed(ip_address(text), EVERYTHING)
    assert not is_allowed(ip_address(text), [ip_network(text)])


@pytest.mark.parametrize("carry", TRANSITIONS)
@settings(deadline=None)  # the machine may be busy
@given(address=ipv4)
def test_a_transition_address_is_never_better_than_the_address_inside(carry: object, address: IPv4Address) -> None:
    assert callable(carry)
    if not is_allowed(address, ()):
        assert not is_allowed(carry(address), ())
    if not is_allowed(address, EVERYTHING):
        assert not is_allowed(carry(address), EVERYTHING)


@settings(deadline=None)  # the machine may be busy
@given(address=ipv4)
def test_mapped_and_nat64_addresses_are_judged_exactly_as_the_address_inside(address: IPv4Address) -> None:
    for allowed in ((), (ip_network("10.0.0.0/8"),), EVERYTHING):
        assert is_allowed(mapped(address), allowed) == is_allowed(address, allowed)
        assert is_allowed(nat64(address), allowed) == is_allowed(address, allowed)


def test_the_unspecified_address_is_refused() -> None:
    assert not is_allowed(IPv4Address(0), ())


def test_an_opened_network_is_reached_and_nothing_beside_it() -> None:
    allowed = [ip_network("10.1.0.0/16"), ip_network("fd12::/16")]
    assert is_allowed(ip_address("10.1.2.3"), allowed)
    assert is_allowed(ip_address("::ffff:10.1.2.3"), allowed)
    assert is_allowed(ip_address("fd12::9"), allowed)
    assert not is_allowed(ip_address("10.2.0.1"), allowed)
    assert not is_allowed(ip_address("fd13::9"), allowed)


def test_a_zone_does_not_hide_an_address() -> None:
    assert not is_allowed(IPv6Address("fe80::1%eth0"), ())
    assert is_allowed(IPv6Address("fe80::1%eth0"), [ip_network("fe80::/10")])


spelled_number = st.sampled_from(("{:d}", "0{:o}", "0x{:x}", "0X{:X}", "00{:o}", "0x00{:x}"))


@settings(deadline=None)  # the machine may be busy
@given(address=ipv4, count=st.integers(1, 4), data=st.data())
def test_every_spelling_that_inet_aton_takes_is_recognised(
    address: IPv4Address, count: int, data: st.DataObject
) -> None:
    value = int(address)
    heads = [value >> shift & 0xFF for shift in (24, 16, 8)][: count - 1]
    numbers = [*heads, value & (1 << 8 * (5 - count)) - 1]
    text = ".".join(data.draw(spelled_number).format(number) for number in numbers)
    assert socket.inet_aton(text) == address.packed
    assert parse_literal(text) == address
    assert parse_literal(text + ".") == address


@settings(deadline=None)  # the machine may be busy
@given(text=st.text(alphabet="0123456789abcdefxX.", max_size=16))
def test_what_inet_aton_takes_for_an_address_is_one_here_too(text: str) -> None:
    try:
        packed = socket.inet_aton(text)
    except OSError:
        assume(not text.endswith("."))
        assert parse_literal(text) is None
    else:
        assert parse_literal(text) == IPv4Address(packed)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("[fe80::1%25eth0]", "fe80::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1"),
        ("0000:0000:0000:0000:0000:0000:0000:0001", "::1"),
        ("１２７.0.0.1", "127.0.0.1"),
        ("127。0。0。1", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1"),
        ("①②⑦.0.0.1", "127.0.0.1"),
    ],
)
def test_odd_spellings_of_literals_are_recognised(text: str, address: str) -> None:
    assert parse_literal(text) == ip_address(address)


@pytest.mark.parametrize(
    "text", ["example.org", "localhost", "", ".", "1.2.3.4.5", "256.1.1.1", "0x", "08", "a.b", ":::", "1..2"]
)
def test_a_name_is_not_taken_for_a_literal(text: str) -> None:
    assert parse_literal(text) is None


def test_a_name_with_one_forbidden_address_is_refused_whole() -> None:
    vet(["1.1.1.1", "2606:4700::1111"], ())
    with pytest.raises(ForbiddenAddressError) as caught:
        vet(["1.1.1.1", "10.20.30.40"], ())
    assert "10.20" not in str(caught.value)


def test_an_address_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ForbiddenAddressError):
        vet(["not an address"], EVERYTHING)


LOOPBACK = (ip_network("127.0.0.0/8"),)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/hook",
        "https://example.org:8443/hook?tenant=1",
        "https://1.1.1.1/",
        "https://[2606:4700::1111]/",
        "HTTPS://EXAMPLE.ORG",
        "https://bücher.example/",
    ],
)
def test_a_public_https_url_is_accepted(url: str) -> None:
    check_url(url, ())


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/", "example.org/hook", "//example.org", "file:///etc/passwd", "", "https://", "https:///path",
        "https://user:secret@example.org/", "https://user@example.org/", "https://example.org/#part", "https://example.org/#",
        "https://exa mple.org/", "https://example.org\\@127.0.0.1/", "https://example.org/\n", "https://example.org:99999/",
        "https://[::1/", "https://%31%32%37.0.0.1/", "https://127.0.0.1/", "https://2130706433/", "https://0x7f.1/",
        "https://0177.0.0.1/", "https://[::ffff:10.0.0.1]/", "https://[::1]:8443/", "https://１２７.0.0.1/",
        "https://localhost/", "https://LOCALHOST.:9/", "https://app.localhost/", "https://169.254.169.254/latest",
        "http://example.org/hook", "http://1.1.1.1/", "https://example.org/" + "a" * 2048,
    ],
)  # fmt: skip
def test_an_unfit_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidUrlError):
        check_url(url, ())


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/", "http://localhost:9/", "https://127.0.0.1/", "http://receiver.internal/"]
)
def test_an_opened_network_may_be_named_over_plain_http(url: str) -> None:
    check_url(url, LOOPBACK)


def test_opening_a_network_does_not_open_plain_http_to_public_literals() -> None:
    with pytest.raises(InvalidUrlError, match="https"):
        check_url("http://1.1.1.1/", LOOPBACK)
    with pytest.raises(InvalidUrlError):
        check_url("http://10.0.0.1/", LOOPBACK)


def test_https_can_be_left_to_the_caller() -> None:
    check_url("http://example.org/", (), require_https=False)
    with pytest.raises(InvalidUrlError):
        check_url("http://127.0.0.1/", (), require_https=False)
