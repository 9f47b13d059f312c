"""Wrappers taken off a stream: every form, every cut, every escape; and documents that only look like wrappers."""

import os
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chartwire.errors import IssueCode, TemporaryNetworkError
from chartwire.networks.fhir.unwrapping import find_wrapper, read_head, unwrapped

XML = b"<ClinicalDocument xmlns='urn:hl7-org:v3'>" + b"x" * 300 + b"</ClinicalDocument>"
FHIR = 'xmlns="http://hl7.org/fhir"'


async def stream(chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def take_off(
    chunks: Sequence[bytes], answered: str = "", declared: str | None = "application/xml"
) -> tuple[bytes, str | None] | None:
    """The document and its type as the wrapper says; None if there is no wrapper."""
    rest = stream(chunks)
    head = await read_head(rest)
    wrapper = find_wrapper(head, answered, declared)
    if wrapper is None:
        return None
    return b"".join([chunk async for chunk in unwrapped(wrapper, head, rest)]), wrapper.content_type


def cut(body: bytes, *places: int) -> list[bytes]:
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


def in_json(content: bytes) -> bytes:
    return orjson.dumps({"resourceType": "Binary", "contentType": "text/xml", "data": b64encode(content).decode()})


def in_xml(content: bytes) -> bytes:
    return (
        f'<Binary {FHIR}><contentType value="text/xml"/><data value="{b64encode(content).decode()}"/></Binary>'.encode()
    )


@settings(deadline=None)  # the machine may be busy
@given(content=st.binary(min_size=1), places=st.lists(st.integers(0, 400), max_size=6))
async def test_binary_json_is_taken_off_however_it_is_cut(content: bytes, places: list[int]) -> None:
    assert await take_off(cut(in_json(content), *places)) == (content, "text/xml")


@settings(deadline=None)  # the machine may be busy
@given(content=st.binary(min_size=1), places=st.lists(st.integers(0, 400), max_size=6))
async def test_binary_xml_is_taken_off_however_it_is_cut(content: bytes, places: list[int]) -> None:
    assert await take_off(cut(in_xml(content), *places)) == (content, "text/xml")


@pytest.mark.parametrize("wrap", [in_json, in_xml])
async def test_a_document_of_many_chunks_comes_through(wrap: object) -> None:
    assert callable(wrap)
    content = os.urandom(1_000_001)
    body = wrap(content)
    assert await take_off([body[at : at + 65_536] for at in range(0, len(body), 65_536)]) == (content, "text/xml")


@settings(deadline=None, max_examples=20)
@given(places=st.lists(st.integers(66_000, 140_000), max_size=8))
async def test_escapes_beyond_the_head_survive_every_cut(places: list[int]) -> None:
    content = b"\xfb\xef\xbe" * 30_000  # Base64 of nothing but + and /
    text = b64encode(content).decode()
    as_json = text.replace("+", "\\u002b").replace("/", "\\/")
    assert await take_off(cut(f'{{"resourceType":"Binary","data":"{as_json}"}}'.encode(), *places)) == (content, None)
    as_xml = text.replace("+", "&#x2b;").replace("/", "&#47;")
    assert await take_off(cut(f"<Binary {FHIR}><data value='{as_xml}'/></Binary>".encode(), *places)) == (content, None)


async def test_line_breaks_within_base64_are_nothing() -> None:
    text = b64encode(XML).decode()
    lines = "\\r\\n".join(text[at : at + 76] for at in range(0, len(text), 76))
    assert await take_off([f'{{"resourceType":"Binary","data":"{lines}"}}'.encode()]) == (XML, None)
    in_attribute = "&#xA;".join(text[at : at + 76] for at in range(0, len(text), 76))
    assert await take_off([f'<Binary {FHIR}><data value="{in_attribute}\n"/></Binary>'.encode()]) == (XML, None)


async def test_missing_padding_is_added() -> None:
    assert await take_off([b'{"resourceType":"Binary","data":"YWI"}']) == (b"ab", None)


@pytest.mark.parametrize(
    "head",
    [
        '{"resourceType" : "Binary" , "meta":{"data":"x","tag":[{"code":"}]"}]},"n":1.5,"t":true,"contentType":"a/b",',
        '\ufeff\n{"id":"a\\"b","resourceType":"Binary",\n "contentType":"a/b", ',
        '{"contentType":"a/b",',
    ],
)
async def test_members_may_come_in_any_order(head: str) -> None:
    body = f'{head}"data":"{b64encode(XML).decode()}","resourceType":"Binary"}}'.encode()
    assert await take_off([body]) == (XML, "a/b")


@pytest.mark.parametrize(
    "head",
    [
        f"<?xml version='1.0'?>\n<!-- <Binary> --><Binary {FHIR} >\n<id value='1'/><contentType id='c' value='a/b'/>",
        f"\ufeff<Binary id='x' {FHIR}><meta><tag><code value='data'/></tag></meta><contentType value='a/b'/>",
    ],
)
async def test_xml_may_be_written_in_many_ways(head: str) -> None:
    body = f"{head}<data value = '{b64encode(XML).decode()}' /></Binary>".encode()
    assert await take_off([body]) == (XML, "a/b")


async def test_a_prefixed_binary_is_taken_off() -> None:
    data = b64encode(XML).decode()
    body = f'<f:Binary xmlns:f="http://hl7.org/fhir"><f:data value="{data}"/></f:Binary>'.encode()
    assert await take_off([body]) == (XML, None)


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize(
    "content", [XML, b"%PDF-1.7 ...........", b"\x89PNG\r\n\x1a\n......", b"\xff\xd8\xff\xe0 ......"]
)
async def test_bare_base64_of_a_known_kind_is_decoded(quote: str, content: bytes) -> None:
    body = f"{quote}{b64encode(content).decode()}{quote}\n".encode()
    assert await take_off([body[:40], body[40:]]) == (content, None)


async def test_bare_base64_longer_than_the_head_is_decoded() -> None:
    content = XML + os.urandom(300_000)
    body = b64encode(content)
    assert await take_off([body[at : at + 65_536] for at in range(0, len(body), 65_536)]) == (content, None)


@pytest.mark.parametrize(
    "document",
    [
        XML,
        b"%PDF-1.7",
        b"",
        b"plain text, nothing else",
        b"c29tZSB0ZXh0IHRoYXQgbWVhbnMgaXRzZWxm",
        b'{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Binary","data":"YWI="}}]}',
        b'{"resourceType":"Media","data":"YWI="}',
        b'{"data":{"x":1},"resourceType":"Binary"}',
        b'{"resourceType":"Binary"}',
        b"<Binary><data value='YWI='/></Binary>",
        b"<Binary xmlns='urn:other'><data value='YWI='/></Binary>",
        b"<x><Binary xmlns='http://hl7.org/fhir'><data value='YWI='/></Binary></x>",
        b"{" + b'"' * 50_000,
        b'{"x":"' + b'\\"' * 40_000,
        b" " * 70_000,
        b"<Binary xmlns='http://hl7.org/fhir'>" + b"<data " * 10_000,
    ],
)
@pytest.mark.timeout(10)
async def test_what_is_no_wrapper_is_left_alone(document: bytes) -> None:
    assert await take_off([document]) is None


async def test_a_json_document_with_a_member_named_data_is_left_alone() -> None:
    body = b'{"id":"1","data":"YWI="}'
    assert await take_off([body], "application/json", "application/json") is None
    assert await take_off([body], "application/fhir+json", "application/json") == (b"ab", None)


@pytest.mark.parametrize("wrap", [in_json, in_xml])
@pytest.mark.parametrize("kept", [0.5, 0.9])
async def test_a_wrapper_that_breaks_off_is_no_document(wrap: object, kept: float) -> None:
    assert callable(wrap)
    body = wrap(XML)
    with pytest.raises(TemporaryNetworkError) as caught:
        await take_off([body[: int(len(body) * kept)]])
    assert caught.value.code is IssueCode.INVALID_ANSWER


@pytest.mark.parametrize("data", ["not base64!", "YWI=YWI=", "YW\\\\", "YW\\u00e4", 'YW\\"', "Y"])
async def test_what_is_no_base64_is_no_document(data: str) -> None:
    with pytest.raises(TemporaryNetworkError):
        await take_off([f'{{"resourceType":"Binary","data":"{data}"}}'.encode()])


@pytest.mark.parametrize("reference", ["&#99999999999999999999;", "&#xD800;", "&#x110000;"])
async def test_a_reference_to_no_character_is_no_base64(reference: str) -> None:
    with pytest.raises(TemporaryNetworkError):
        await take_off([f'<Binary {FHIR}><data value="YWI{reference}"/></Binary>'.encode()])
