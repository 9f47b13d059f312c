"""Sealing under data keys."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chartwire.errors import ConfigurationError, SealBrokenError
from chartwire.store.vault import DataKey, Purpose, Vault

VAULT = Vault(bytes(range(32)))


@given(plain=st.binary(max_size=1000), purpose=st.sampled_from(Purpose))
def test_what_was_sealed_opens(plain: bytes, purpose: Purpose) -> None:
    sealed = VAULT.seal(purpose, plain)
    assert len(sealed) == 12 + len(plain) + 16
    assert VAULT.open(purpose, sealed) == plain
    assert Vault(bytes(range(32))).open(purpose, sealed) == plain  # after a restart


def test_equal_content_does_not_look_equal() -> None:
    assert VAULT.seal(Purpose.PAYLOAD, b"same") != VAULT.seal(Purpose.PAYLOAD, b"same")


@given(position=st.integers(0, 12 + 7 + 15), bit=st.integers(0, 7))
def test_one_altered_bit_breaks_the_seal(position: int, bit: int) -> None:
    sealed = bytearray(VAULT.seal(Purpose.PAYLOAD, b"content"))
    sealed[position] ^= 1 << bit
    with pytest.raises(SealBrokenError):
        VAULT.open(Purpose.PAYLOAD, bytes(sealed))


@given(size=st.integers(0, 12 + 7 + 15))
def test_a_cut_off_seal_is_broken(size: int) -> None:
    with pytest.raises(SealBrokenError):
        VAULT.open(Purpose.PAYLOAD, VAULT.seal(Purpose.PAYLOAD, b"content")[:size])


def test_a_seal_holds_for_its_purpose_and_key_alone() -> None:
    sealed = VAULT.seal(Purpose.SIGNING_KEY, b"content")
    for purpose in set(Purpose) - {Purpose.SIGNING_KEY}:
        with pytest.raises(SealBrokenError):
            VAULT.open(purpose, sealed)
    with pytest.raises(SealBrokenError):
        Vault(bytes(32)).open(Purpose.SIGNING_KEY, sealed)


def test_every_purpose_has_a_key_of_its_own() -> None:
    keys = {VAULT.key(purpose) for purpose in Purpose} | {bytes(range(32))}
    assert len(keys) == len(Purpose) + 1
    assert {len(key) for key in keys} == {32}


def test_derived_keys_are_the_same_for_ever() -> None:
    """HKDF-SHA256 (RFC 5869) without salt, worked out step by step. Were this to change, nothing stored would open."""
    import hmac

    extracted = hmac.digest(bytes(32), bytes(range(32)), "sha256")
    assert VAULT.key(Purpose.BLOB) == hmac.digest(extracted, b"chartwire/1/blob\x01", "sha256")


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_has_32_bytes(size: int) -> None:
    with pytest.raises(ConfigurationError, match="32 bytes"):
        Vault(bytes(size))


OLD = DataKey(bytes(range(32)))
FIRST, SECOND = DataKey(b"1" * 32, b"first..."), DataKey(b"2" * 32, b"second..")


def test_what_is_sealed_names_its_key_and_opens_while_that_is_held() -> None:
    sealed = Vault.of([FIRST]).seal(Purpose.PAYLOAD, b"content")
    assert sealed.startswith(FIRST.name)
    later = Vault.of([SECOND, FIRST])
    assert later.open(Purpose.PAYLOAD, sealed) == b"content"
    assert later.seal(Purpose.PAYLOAD, b"content").startswith(SECOND.name)
    with pytest.raises(SealBrokenError):
        Vault.of([SECOND]).open(Purpose.PAYLOAD, sealed)


def test_a_key_under_the_name_of_another_opens_nothing() -> None:
    sealed = Vault.of([FIRST]).seal(Purpose.PAYLOAD, b"content")
    with pytest.raises(SealBrokenError):
        Vault.of([DataKey(SECOND.secret, FIRST.name), OLD]).open(Purpose.PAYLOAD, sealed)


def test_what_was_sealed_before_keys_had_names_opens_beside_what_is_sealed_now() -> None:
    vault = Vault.of([FIRST, OLD])
    assert vault.open(Purpose.PAYLOAD, VAULT.seal(Purpose.PAYLOAD, b"content")) == b"content"
    assert vault.open(Purpose.PAYLOAD, vault.seal(Purpose.PAYLOAD, b"content")) == b"content"


def test_a_running_vault_takes_up_a_new_key_and_a_pinned_one_keeps_its_own() -> None:
    vault = Vault.of([FIRST])
    pinned = vault.pinned()
    vault.hold([SECOND, FIRST])
    assert (vault.name, pinned.name) == (SECOND.name, FIRST.name)
    assert vault.keys(Purpose.LINK) == [Vault.of([key]).key(Purpose.LINK) for key in (SECOND, FIRST)]


def test_a_new_key_does_not_change_the_eldest() -> None:
    vault = Vault.of([FIRST])
    eldest = vault.eldest_key(Purpose.TRANSPORT)
    vault.hold([replace(SECOND, since=1), FIRST])
    assert vault.eldest_key(Purpose.TRANSPORT) == eldest != vault.key(Purpose.TRANSPORT)


def test_a_key_is_not_shown() -> None:
    assert "1" * 8 not in repr(FIRST)
