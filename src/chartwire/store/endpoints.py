"""Endpoints and their signing keys. Plain functions of a connection; those that write are units of work."""

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, Row, case, delete, func, insert, or_, select, update

from chartwire import ids
from chartwire.model.signing_key import SEED_BYTES, WEBHOOK_KEY_LENGTH, SigningKey
from chartwire.model.webhook import (
    DeliveryMode,
    Endpoint,
    EndpointState,
    EndpointTls,
    EventType,
    PayloadVersion,
    SignatureScheme,
)
from chartwire.store import ring, schema
from chartwire.store.records import from_json, to_json
from chartwire.store.vault import Purpose, Vault
from chartwire.tls import TlsProfile

_ENDPOINT = schema.endpoint.c
_KEY = schema.signing_key.c
_IS_THERE = _ENDPOINT.deleted_at.is_(None)
_UNASKED = frozenset({EventType.ENDPOINT_DISABLED})
"""Types that existing parsers do not know: only endpoints that name them get them."""


def create_settings_endpoint(connection: Connection, account_id: str, now: datetime) -> Endpoint:
    """The endpoint that `/settings` shows and sets, still without a URL; an account has one from its creation."""
    return _create(connection, account_id, now, is_settings=True)


def create_endpoint(connection: Connection, account_id: str, now: datetime) -> Endpoint:
    """One more endpoint, still without a URL."""
    return _create(connection, account_id, now, is_settings=False)


def _create(connection: Connection, account_id: str, now: datetime, *, is_settings: bool) -> Endpoint:
    row = connection.execute(
        insert(schema.endpoint)
        .values(
            id=ids.new_id(),
            account_id=account_id,
            is_settings=is_settings,
            state=EndpointState.ENABLED,
            verified=False,
            payload_version=PayloadVersion.V2023_04,
            delivery=DeliveryMode.AS_AVAILABLE,
            send_webhook_key=True,
            signature_scheme=SignatureScheme.V1,
            created_at=now,
            version=0,
        )
        .returning(schema.endpoint)
    ).one()
    return to_endpoint(row)


def endpoints_of(connection: Connection, account_id: str) -> list[Endpoint]:
    """Every endpoint of an account, the oldest first."""
    query = select(schema.endpoint).where(_ENDPOINT.account_id == account_id, _IS_THERE).order_by(_ENDPOINT.seq)
    return [to_endpoint(row) for row in connection.execute(query)]


def settings_endpoint(connection: Connection, account_id: str) -> Endpoint:
    """The endpoint of `/settings`."""
    query = select(schema.endpoint).where(_ENDPOINT.account_id == account_id, _ENDPOINT.is_settings)
    return to_endpoint(connection.execute(query).one())


def find_endpoint(connection: Connection, account_id: str, endpoint_id: str) -> Endpoint | None:
    """One endpoint of an account."""
    query = select(schema.endpoint).where(_ENDPOINT.account_id == account_id, _ENDPOINT.id == endpoint_id, _IS_THERE)
    row = connection.execute(query).one_or_none()
    return None if row is None else to_endpoint(row)


def update_endpoint(connection: Connection, endpoint: Endpoint, values: Mapping[str, Any]) -> Endpoint:
    """Set columns of an endpoint; returns it as it is now."""
    statement = (
        update(schema.endpoint)
        .where(_ENDPOINT.seq == endpoint.seq)
        .values(**values, version=_ENDPOINT.version + 1)
        .returning(schema.endpoint)
    )
    return to_endpoint(connection.execute(statement).one())


def set_url(connection: Connection, endpoint: Endpoint, url: str | None, now: datetime) -> Endpoint:
    """Set or clear the URL. What was known of the old one is forgotten, and a disabled endpoint is enabled again."""
    return _begin_anew(connection, endpoint, {"url": url}, now)


def enable(connection: Connection, endpoint: Endpoint, now: datetime) -> Endpoint:
    """Post to it again, as if nothing had happened; what waits goes out."""
    return _begin_anew(connection, endpoint, {}, now)


def disable(connection: Connection, endpoint: Endpoint) -> Endpoint:
    """Post nothing more to it; what waits is held."""
    return update_endpoint(connection, endpoint, {"state": EndpointState.DISABLED, "ready_at": None})


def delete_endpoint(connection: Connection, endpoint: Endpoint, now: datetime) -> None:
    """Show it to nobody and forget its secrets. The history of its deliveries stays."""
    gone = {"deleted_at": now, "url": None, "headers": None, "tls": None, "ready_at": None}
    update_endpoint(connection, endpoint, gone)
    drop_keys(connection, endpoint.seq)


def seal_headers(vault: Vault, headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as they are kept: their values may be credentials."""
    return {
        name: base64.b64encode(vault.seal(Purpose.HEADER, value.encode())).decode() for name, value in headers.items()
    }


def sealed_headers(connection: Connection, endpoint: Endpoint) -> dict[str, str]:
    """The headers of an endpoint, still sealed."""
    query = select(_ENDPOINT.headers).where(_ENDPOINT.seq == endpoint.seq)
    return dict(connection.execute(query).scalar_one() or {})


def open_headers(vault: Vault, sealed: Mapping[str, str] | None) -> dict[str, str]:
    """The inverse of `seal_headers`."""
    return {
        name: vault.open(Purpose.HEADER, base64.b64decode(value)).decode() for name, value in (sealed or {}).items()
    }


def seal_tls(vault: Vault, profile: TlsProfile, shown: EndpointTls) -> dict[str, Any]:
    """A TLS profile as it is kept, beside what may be told of it."""
    sealed = vault.seal(Purpose.TLS, orjson.dumps(to_json(profile)))
    return {"sealed": base64.b64encode(sealed).decode(), "shown": to_json(shown)}


def open_tls(vault: Vault, kept: Mapping[str, Any] | None) -> TlsProfile | None:
    """The inverse of `seal_tls`."""
    if kept is None:
        return None
    return from_json(TlsProfile, orjson.loads(vault.open(Purpose.TLS, base64.b64decode(kept["sealed"]))))


def _begin_anew(connection: Connection, endpoint: Endpoint, changes: Mapping[str, Any], now: datetime) -> Endpoint:
    fresh = {
        "state": EndpointState.ENABLED,
        "verified": False,
        "status_detail": None,
        "failures_in_row": 0,
        "failing_since": None,
        "strains_in_row": 0,
        "breaker_waits": 0,
        "paused_until": None,
        "ready_at": None,
    }
    changed = update_endpoint(connection, endpoint, {**fresh, **changes})
    ring.release(connection, [endpoint.seq], now)
    return changed


def count_by_health(connection: Connection) -> dict[str, int]:
    """How many endpoints that have a URL are `closed` (well), `open` (their breaker is) or `disabled`."""
    state = case(
        (_ENDPOINT.state == EndpointState.DISABLED, "disabled"), (_ENDPOINT.breaker_waits > 0, "open"), else_="closed"
    )
    query = select(state, func.count()).where(_ENDPOINT.url.is_not(None)).group_by(state)
    return {row[0]: row[1] for row in connection.execute(query)}


def medical_record_filters(connection: Connection, account_id: str) -> Any:
    """`mrFilters` of `/settings`, as the customer gave them."""
    query = select(_ENDPOINT.mr_filters).where(_ENDPOINT.account_id == account_id, _ENDPOINT.is_settings)
    return connection.execute(query).scalar_one()


def wants(endpoint: Endpoint, event_type: EventType) -> bool:
    """Whether an endpoint takes a type of message."""
    if endpoint.event_types is None:
        return event_type not in _UNASKED
    return event_type in endpoint.event_types or event_type is EventType.PING


def add_key(connection: Connection, vault: Vault, endpoint_seq: int, now: datetime) -> SigningKey:
    """A new current key."""
    key = SigningKey(ids.url_safe(WEBHOOK_KEY_LENGTH), ids.secret_bytes(SEED_BYTES), now)
    sealed = vault.seal(Purpose.SIGNING_KEY, key.seed + key.webhook_key.encode())
    connection.execute(insert(schema.signing_key).values(endpoint_seq=endpoint_seq, secret=sealed, created_at=now))
    _note_change(connection, endpoint_seq)
    return key


def keys_of(connection: Connection, vault: Vault, endpoint_seq: int, now: datetime) -> tuple[SigningKey, ...]:
    """The keys that sign now, the current one first; none for an endpoint that never had a URL."""
    return keys_by_endpoint(connection, vault, [endpoint_seq], now).get(endpoint_seq, ())


def keys_by_endpoint(
    connection: Connection, vault: Vault, endpoint_seqs: Sequence[int], now: datetime
) -> dict[int, tuple[SigningKey, ...]]:
    """As `keys_of`, of several endpoints at once."""
    query = (
        select(schema.signing_key)
        .where(_KEY.endpoint_seq.in_(endpoint_seqs), or_(_KEY.expires_at.is_(None), _KEY.expires_at > now))
        .order_by(_KEY.id.desc())
    )
    keys: dict[int, tuple[SigningKey, ...]] = {}
    for row in connection.execute(query):
        keys[row.endpoint_seq] = (*keys.get(row.endpoint_seq, ()), _to_key(vault, row))
    return keys


def rotate_key(
    connection: Connection, vault: Vault, endpoint_seq: int, now: datetime, overlap: timedelta
) -> SigningKey:
    """A new current key; the one before signs too for `overlap`, one from an earlier rotation as long as it would."""
    keep_until = now + overlap
    connection.execute(
        update(schema.signing_key)
        .where(
            _KEY.endpoint_seq == endpoint_seq,
            or_(_KEY.expires_at.is_(None), _KEY.expires_at > keep_until),
        )
        .values(expires_at=keep_until)
    )
    forget_expired_keys(connection, now)
    return add_key(connection, vault, endpoint_seq, now)


def drop_keys(connection: Connection, endpoint_seq: int) -> None:
    """Forget every key of an endpoint."""
    connection.execute(delete(schema.signing_key).where(_KEY.endpoint_seq == endpoint_seq))
    _note_change(connection, endpoint_seq)


def forget_expired_keys(connection: Connection, now: datetime) -> None:
    """A key that signs no more is not kept."""
    connection.execute(delete(schema.signing_key).where(_KEY.expires_at <= now))


def _note_change(connection: Connection, endpoint_seq: int) -> None:
    """Whoever keeps what signs for an endpoint learns from its version that it must look anew (`store.targets`)."""
    grown = update(schema.endpoint).where(_ENDPOINT.seq == endpoint_seq).values(version=_ENDPOINT.version + 1)
    connection.execute(grown)


def to_endpoint(row: Row[Any]) -> Endpoint:
    """A row of `endpoint`, or one that holds its columns."""
    return Endpoint(
        seq=row.seq,
        id=row.id,
        account_id=row.account_id,
        is_settings=row.is_settings,
        url=row.url,
        state=EndpointState(row.state),
        verified=row.verified,
        status_detail=row.status_detail,
        payload_version=PayloadVersion(row.payload_version),
        delivery=DeliveryMode(row.delivery),
        send_webhook_key=row.send_webhook_key,
        signature_scheme=SignatureScheme(row.signature_scheme),
        timeout_seconds=row.timeout_seconds,
        created_at=row.created_at,
        version=row.version,
        description=row.description,
        event_types=None if row.event_types is None else tuple(row.event_types),
        header_names=tuple(sorted(row.headers or ())),
        retry_seconds=None if row.retry_seconds is None else tuple(row.retry_seconds),
        max_in_flight=row.max_in_flight,
        rate_per_second=row.rate_per_second,
        tls=None if row.tls is None else from_json(EndpointTls, row.tls["shown"]),
    )


def _to_key(vault: Vault, row: Row[Any]) -> SigningKey:
    secret = vault.open(Purpose.SIGNING_KEY, row.secret)
    return SigningKey(secret[SEED_BYTES:].decode(), secret[:SEED_BYTES], row.created_at, row.expires_at)
