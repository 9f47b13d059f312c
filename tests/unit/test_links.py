"""Signed links open exactly what they were made for, for as long as they were made for."""

from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.documents import NOW

from chartwire.clock import MILLISECOND
from chartwire.errors import BadRequestError, ForbiddenError
from chartwire.services.links import LinkSigner, PageSealer, Representation
from chartwire.store.vault import Vault

BASE = "https://records.example.org"
LIFETIME = timedelta(seconds=180)
DOCUMENT = "019500d2-0000-7000-8000-000000000001"


def _signer(later: timedelta = timedelta(), master_key: bytes = bytes(32)) -> LinkSigner:
    return LinkSigner(Vault(master_key), BASE, lambda: NOW + later)


def _parts(url: str) -> list[str]:
    """Document id, representation, expiry and signature of a link."""
    split = urlsplit(url)
    query = parse_qs(split.query)
    return [split.path.rpartition("/")[2], *(query[name][0] for name in ("type", "expires", "signature"))]


@pytest.mark.parametrize("representation", list(Representation))
def test_a_link_opens_what_it_was_made_for(representation: Representation) -> None:
    url = _signer().sign(DOCUMENT, representation, LIFETIME)
    assert url.startswith(f"{BASE}/download/{DOCUMENT}?")
    assert _signer(LIFETIME - timedelta(seconds=1)).verify(*_parts(url)) is representation


def test_a_link_expires_after_its_lifetime() -> None:
    parts = _parts(_signer().sign(DOCUMENT, Representation.ORIGINAL, LIFETIME))
    _signer(LIFETIME - timedelta(seconds=1)).verify(*parts)
    with pytest.raises(ForbiddenError, match="expired"):
        _signer(LIFETIME + MILLISECOND).verify(*parts)


@given(st.integers(0, 3), st.data())
def test_any_alteration_of_a_link_is_refused(which: int, data: st.DataObject) -> None:
    parts = _parts(_signer().sign(DOCUMENT, Representation.ORIGINAL, LIFETIME))
    text = parts[which]
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, len(text) - at))
    put = data.draw(st.text(max_size=8) | st.sampled_from(["pdf", "html", "0", "A", "\n", " ", "９"]))
    altered = text[:at] + put + text[at + cut :]
    if altered == text:
        return
    parts[which] = altered
    with pytest.raises(ForbiddenError, match="not valid"):
        _signer().verify(*parts)


def test_upper_case_spelling_of_a_signature_is_refused() -> None:
    parts = _parts(_signer().sign(DOCUMENT, Representation.ORIGINAL, LIFETIME))
    parts[-1] = parts[-1].upper()
    with pytest.raises(ForbiddenError, match="not valid"):
        _signer().verify(*parts)


def test_parts_of_a_link_cannot_be_shifted_into_each_other() -> None:
    *_, expires, signature = _parts(_signer().sign(DOCUMENT, Representation.ORIGINAL, LIFETIME))
    with pytest.raises(ForbiddenError, match="not valid"):
        _signer().verify(f"{DOCUMENT}\noriginal", expires, "", signature)


def test_a_link_of_another_installation_is_refused() -> None:
    url = _signer(master_key=b"x" * 32).sign(DOCUMENT, Representation.ORIGINAL, LIFETIME)
    with pytest.raises(ForbiddenError, match="not valid"):
        _signer().verify(*_parts(url))


def test_a_page_word_gives_back_the_search_and_hides_it() -> None:
    pages = PageSealer(Vault(bytes(32)))
    word = pages.seal([("patient", "p-17"), ("type", "a|b")], DOCUMENT)
    assert pages.open(word) == ([("patient", "p-17"), ("type", "a|b")], DOCUMENT)
    assert word.isascii()
    assert "p-17" not in word


@given(st.text(max_size=80))
def test_a_page_word_that_was_not_given_is_refused(word: str) -> None:
    with pytest.raises(BadRequestError):
        PageSealer(Vault(bytes(32))).open(word)
