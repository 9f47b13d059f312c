"""What an attempt needs, made without a database."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from random import Random
from ssl import SSLContext
from typing import Any

from tests.support.patience import PATIENCE_SECONDS

from chartwire.addresses import IPNetwork
from chartwire.clock import Clock, system_clock
from chartwire.delivery.attempt import Policy, Poster
from chartwire.delivery.http.client import HttpEgress
from chartwire.delivery.http.resolution import Resolver
from chartwire.ids import new_message_id
from chartwire.model.signing_key import SigningKey
from chartwire.model.webhook import (
    DeliveryMode,
    Endpoint,
    EndpointState,
    EventType,
    PayloadVersion,
    SignatureScheme,
)
from chartwire.store.claims import ClaimedDelivery
from chartwire.store.targets import Target
from chartwire.store.vault import Purpose, Vault

LOOPBACK: Sequence[IPNetwork] = (IPv4Network("127.0.0.0/8"),)
KEY = SigningKey("abcdefghijklmnopqrstuvwxyz-_0123", bytes(range(32)), datetime(2025, 1, 1, tzinfo=UTC))
VAULT = Vault(bytes(32))
POLICY = Policy(timeout=PATIENCE_SECONDS, ping_timeout=PATIENCE_SECONDS, waits=(0, 5, 300), jitter=0)
BODY = b'{"meta":{"messageId":"1"},"patients":[]}'


def an_endpoint(url: str, **changes: Any) -> Endpoint:
    """An endpoint as the settings of a new account make it."""
    values: dict[str, Any] = {
        "seq": 1,
        "id": "e1",
        "account_id": "a1",
        "is_settings": True,
        "url": url,
        "state": EndpointState.ENABLED,
        "verified": True,
        "status_detail": None,
        "payload_version": PayloadVersion.V2023_04,
        "delivery": DeliveryMode.AS_AVAILABLE,
        "send_webhook_key": True,
        "signature_scheme": SignatureScheme.V1,
        "timeout_seconds": None,
        "created_at": KEY.created_at,
        "version": 0,
    }
    return Endpoint(**{**values, **changes})


def a_delivery(
    url: str,
    body: bytes = BODY,
    event_type: EventType = EventType.DOCUMENT_DOWNLOAD,
    attempt: int = 1,
    **endpoint: Any,
) -> ClaimedDelivery:
    """A claimed delivery of `body` to `url`."""
    now = system_clock()
    return ClaimedDelivery(
        seq=1,
        event_seq=1,
        event_id=new_message_id(),
        event_type=event_type,
        body=VAULT.seal(Purpose.PAYLOAD, body),
        created_at=now,
        attempt=attempt,
        lease="lease",
        lease_until=now + timedelta(minutes=2),
        target=Target(an_endpoint(url, **endpoint), (KEY,)),
    )


@asynccontextmanager
async def a_poster(
    allowed: Sequence[IPNetwork] = LOOPBACK,
    *,
    ssl_context: SSLContext | None = None,
    resolver: Resolver | None = None,
    clock: Clock = system_clock,
    policy: Policy = POLICY,
) -> AsyncIterator[Poster]:
    """A poster with a real egress; loopback is open unless told otherwise."""
    egress = HttpEgress(allowed, limit=50, ssl_context=ssl_context, resolver=resolver)
    try:
        yield Poster(egress, VAULT, clock, Random(1), policy)
    finally:
        await egress.close()
