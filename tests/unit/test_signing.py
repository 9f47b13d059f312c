"""Signatures: fixed vectors, independent verifiers, several keys."""

import base64
import hmac
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import example, given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from chartwire.delivery.headers import header_lines, headers_of
from chartwire.delivery.signing import sign, signature_headers
from chartwire.model.signing_key import SigningKey
from chartwire.model.webhook import DeliveryMode, Endpoint, EndpointState, PayloadVersion, SignatureScheme

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
KEY = SigningKey("abcdefghijklmnopqrstuvwxyz-_0123", bytes(range(32)), EPOCH)
OLD_KEY = SigningKey("0123456789012345678901234567_-ab", bytes(reversed(range(32))), EPOCH, EPOCH + timedelta(hours=1))
BODY = '{"meta":{"messageId":"1"},"patients":[{"patientId":"é"}]}'.encode()
MESSAGE_ID = "6f1f2c1c-9a53-4b0d-a6b5-3f2b0a5d2c11"


def an_endpoint(**changes: Any) -> Endpoint:
    values: dict[str, Any] = {
        "seq": 1,
        "id": "e1",
        "account_id": "a1",
        "is_settings": True,
        "url": "https://example.com/hook",
        "state": EndpointState.ENABLED,
        "verified": True,
        "status_detail": None,
        "payload_version": PayloadVersion.V2023_04,
        "delivery": DeliveryMode.AS_AVAILABLE,
        "send_webhook_key": True,
        "signature_scheme": SignatureScheme.V1,
        "timeout_seconds": None,
        "created_at": EPOCH,
        "version": 0,
    }
    return Endpoint(**{**values, **changes})


def headers_now(endpoint: Endpoint, *keys: SigningKey) -> dict[str, str]:
    return signature_headers(endpoint, keys, MESSAGE_ID, int(datetime.now(UTC).timestamp()), BODY)


def test_fixed_vector_of_both_symmetric_signatures() -> None:
    """Computed with `openssl dgst -sha256 -hmac abcdefghijklmnopqrstuvwxyz-_0123`."""
    headers = signature_headers(an_endpoint(), [KEY], "msg-1", 1735689600, b'{"a":1}')
    assert headers["webhook-id"] == "msg-1"
    assert headers["webhook-timestamp"] == "1735689600"
    assert headers["webhook-signature"] == "v1,G26RFP1g8/U6JZC1+ytmx9rvf2lBhUKtTIN0V+ceFgI="
    assert headers["x-metriport-signature"] == "1bfd8d99b0e98e468498985caa7b7a95254e67788310352762db05bf4d640771"


@given(key=st.text(max_size=80), body=st.binary())
def test_whatever_the_key_the_macs_are_those_of_the_standard_library(key: str, body: bytes) -> None:
    signed = headers_of(sign(SignatureScheme.V1, [SigningKey(key, KEY.seed, EPOCH)], MESSAGE_ID, 1735689600, body))
    proof = hmac.digest(key.encode(), f"{MESSAGE_ID}.1735689600.".encode() + body, "sha256")
    assert signed["x-metriport-signature"] == hmac.digest(key.encode(), body, "sha256").hex()
    assert signed["webhook-signature"] == f"v1,{base64.b64encode(proof).decode()}"


@given(message_id=st.text(max_size=40))
@example("a\r\nx: y")
@example("a\nx: y")
@example("a\0")
def test_an_id_is_the_value_of_its_header_or_nothing_is_signed(message_id: str) -> None:
    try:
        lines = sign(SignatureScheme.V1, [KEY, OLD_KEY], message_id, 1735689600, BODY)
    except ValueError:
        assert not (message_id.isascii() and message_id.isprintable())
    else:
        headers = headers_of(lines)
        assert headers["webhook-id"] == message_id
        assert lines == header_lines(headers)


def test_standardwebhooks_accepts_the_key_in_both_spellings() -> None:
    headers = headers_now(an_endpoint(), KEY)
    assert Webhook(KEY.symmetric).verify(BODY, headers)
    assert Webhook(KEY.webhook_key.encode()).verify(BODY, headers)


def test_an_altered_body_and_another_key_do_not_verify() -> None:
    headers = headers_now(an_endpoint(), KEY)
    with pytest.raises(WebhookVerificationError):
        Webhook(KEY.symmetric).verify(BODY + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD_KEY.symmetric).verify(BODY, headers)


def test_during_a_rotation_either_key_verifies_and_the_body_signature_is_the_new_ones() -> None:
    headers = headers_now(an_endpoint(), KEY, OLD_KEY)
    for key in (KEY, OLD_KEY):
        assert Webhook(key.symmetric).verify(BODY, headers)
    assert headers["x-metriport-signature"] == hmac.new(KEY.webhook_key.encode(), BODY, "sha256").hexdigest()


def test_ed25519_verifies_with_the_public_key_alone() -> None:
    headers = headers_now(an_endpoint(signature_scheme=SignatureScheme.V1A), KEY, OLD_KEY)
    signed = f"{MESSAGE_ID}.{headers['webhook-timestamp']}.".encode() + BODY
    for key, signature in zip((KEY, OLD_KEY), headers["webhook-signature"].split(" "), strict=True):
        scheme, _, proof = signature.partition(",")
        assert scheme == "v1a"
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.public.removeprefix("whpk_")))
        public.verify(base64.b64decode(proof), signed)
        with pytest.raises(InvalidSignature):
            public.verify(base64.b64decode(proof), signed + b" ")


@pytest.mark.parametrize(
    ("changes", "sent"),
    [
        ({}, True),
        ({"send_webhook_key": False}, False),
        ({"payload_version": PayloadVersion.V2025_10}, False),
    ],
)
def test_the_plain_key_goes_only_to_receivers_of_2023_that_want_it(changes: dict[str, Any], sent: bool) -> None:
    assert ("x-webhook-key" in headers_now(an_endpoint(**changes), KEY)) is sent


def test_a_key_shows_no_secret_when_printed() -> None:
    assert KEY.webhook_key not in repr(KEY)
    assert repr(KEY.seed) not in repr(KEY)
