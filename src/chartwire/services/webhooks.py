"""What a customer may do with webhooks: say where messages go, see how it goes, try again, rotate keys, expunge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypedDict

from sqlalchemy import Connection

from chartwire import ids
from chartwire.addresses import check_url
from chartwire.clock import Clock
from chartwire.errors import BadRequestError, ConflictError, InvalidUrlError, NotFoundError
from chartwire.model.message import Meta, ping_message
from chartwire.model.samples import sample_message
from chartwire.model.signing_key import SigningKey
from chartwire.model.webhook import (
    DeliveryMode,
    Endpoint,
    EndpointState,
    EventDraft,
    EventType,
    MessageType,
    MessageVersion,
    Outcome,
    PayloadVersion,
    SignatureScheme,
)
from chartwire.services.tls_profiles import check_tls
from chartwire.services.webhook_rules import check_headers
from chartwire.settings import Settings
from chartwire.store import audit, endpoints, outbox, ring
from chartwire.store.database import Bell, Database, lock_account
from chartwire.store.database import ring as ring_bell
from chartwire.store.vault import Vault
from chartwire.tls import TlsProfile

_PING_LENGTH = 21
_OPERATOR = "operator"
_ENGINES = frozenset({"signature_scheme", "description", "retry_seconds", "max_in_flight", "rate_per_second", "tls"})
"""What the engine alone is told of an endpoint: that of a FHIR subscription has it too."""


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """The settings of an account. `id` is the account's; `key` is None until a URL is set for the first time."""

    id: str
    url: str | None
    key: str | None
    mr_filters: Any = None


@dataclass(frozen=True, slots=True)
class WebhookStatus:
    """`enabled`: the last answer was good; `detail` says what was wrong with it, or OK."""

    enabled: bool
    detail: str | None
    waiting: int
    failed: int


class SettingsChanges(TypedDict, total=False):
    """What `POST /settings` may change; a key that is absent changes nothing."""

    webhook_url: str | None
    mr_filters: Any


class EndpointChanges(TypedDict, total=False):
    """What may be changed of an endpoint; a key that is absent changes nothing, None goes back to the default."""

    url: str | None
    payload_version: MessageVersion
    delivery: DeliveryMode
    send_webhook_key: bool
    signature_scheme: SignatureScheme
    timeout_seconds: int | None
    description: str | None
    event_types: Sequence[str] | None
    headers: Mapping[str, str] | None
    retry_seconds: Sequence[float] | None
    max_in_flight: int | None
    rate_per_second: int | None
    tls: Mapping[str, str | None] | None


class WebhookService:
    """Settings, endpoints, keys and messages of one account at a time.

    What decides where health data goes is in the audit trail; `actor` is who decided.
    """

    def __init__(self, database: Database, vault: Vault, clock: Clock, settings: Settings) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._fhir_base = f"{settings.public_base}/oauth/fhir"
        self._allowed = settings.webhook_allowed_networks
        self._retention = timedelta(days=settings.payload_retention_days)
        self._overlap = timedelta(hours=settings.webhook_key_overlap_hours)

    async def get_settings(self, account_id: str) -> WebhookSettings:
        """The settings of an account."""
        return await self._database.read(lambda connection: self._settings(connection, account_id))

    async def save_settings(self, account_id: str, changes: SettingsChanges, actor: str = _OPERATOR) -> WebhookSettings:
        """Change settings.

        A URL is pinged each time it is saved. None or an empty one clears it, and its key with it: the next URL gets a
        new key. Raises `BadRequestError` for a URL that may not be used.
        """
        if "webhook_url" in changes:
            self._check_url(changes["webhook_url"])
        now = self._clock()

        def unit(connection: Connection) -> WebhookSettings:
            lock_account(connection, account_id)
            endpoint = endpoints.settings_endpoint(connection, account_id)
            if "mr_filters" in changes:
                endpoint = endpoints.update_endpoint(connection, endpoint, {"mr_filters": changes["mr_filters"]})
            if "webhook_url" in changes:
                self._save_url(connection, endpoint, changes["webhook_url"] or None, now)
            audit.record(connection, now, account_id, actor, "settings.change", subject=endpoint.id)
            return self._settings(connection, account_id)

        return await self._database.write(unit)

    async def save_url(self, account_id: str, url: str | None) -> WebhookSettings:
        """Set or clear the URL of the settings."""
        return await self.save_settings(account_id, {"webhook_url": url})

    async def webhook_status(self, account_id: str) -> WebhookStatus:
        """How delivery to the URL of the settings is going, and how much waits and has failed; pings do not count."""

        def unit(connection: Connection) -> WebhookStatus:
            endpoint = endpoints.settings_endpoint(connection, account_id)
            counts = outbox.count_deliveries(connection, account_id)
            return WebhookStatus(endpoint.verified, endpoint.status_detail, counts.waiting, counts.failed)

        return await self._database.read(unit)

    async def retry_failed(self, account_id: str) -> int:
        """Attempt again what failed, oldest first, with the whole schedule; returns how many deliveries that is."""
        return await self._database.write(lambda connection: outbox.retry_failed(connection, account_id, self._clock()))

    async def list_endpoints(self, account_id: str) -> list[Endpoint]:
        """Every endpoint of an account."""
        return await self._database.read(lambda connection: endpoints.endpoints_of(connection, account_id))

    async def get_endpoint(self, account_id: str, endpoint_id: str) -> Endpoint:
        """One endpoint; raises `NotFoundError`."""
        return await self._database.read(lambda connection: _find(connection, account_id, endpoint_id))

    async def create_endpoint(self, account_id: str, actor: str, changes: EndpointChanges) -> Endpoint:
        """Make one more endpoint, with a key of its own; its URL is pinged. Raises `BadRequestError`."""
        columns = self._columns(changes)
        now = self._clock()

        def unit(connection: Connection) -> Endpoint:
            endpoint = endpoints.create_endpoint(connection, account_id, now)
            audit.record(connection, now, account_id, actor, "endpoint.create", subject=endpoint.id)
            changed = endpoints.update_endpoint(connection, endpoint, columns)
            return self._save_url(connection, changed, changes.get("url") or None, now)

        return await self._database.write(unit)

    async def change_endpoint(
        self, account_id: str, endpoint_id: str, changes: EndpointChanges, actor: str = _OPERATOR
    ) -> Endpoint:
        """Change an endpoint; a URL is treated as by `save_settings`.

        Raises `NotFoundError`, `BadRequestError`, and `ConflictError` for what a FHIR Subscription says of its channel.
        """
        columns = self._columns(changes)
        now = self._clock()

        def unit(connection: Connection) -> Endpoint:
            lock_account(connection, account_id)
            known = _find(connection, account_id, endpoint_id)
            if not set(changes) <= _ENGINES:
                _refuse_channel(known)
            endpoint = endpoints.update_endpoint(connection, known, columns)
            audit.record(connection, now, account_id, actor, "endpoint.change", subject=endpoint.id)
            ring.release(connection, [endpoint.seq], now)  # a limit may have been lifted
            return self._save_url(connection, endpoint, changes["url"] or None, now) if "url" in changes else endpoint

        return await self._database.write(unit)

    async def enable_endpoint(self, account_id: str, endpoint_id: str, actor: str) -> Endpoint:
        """Post to an endpoint again; what waits goes out. Raises `NotFoundError`, and `ConflictError` without a URL."""
        now = self._clock()

        def unit(connection: Connection) -> Endpoint:
            lock_account(connection, account_id)
            endpoint = _find_own(connection, account_id, endpoint_id)
            _require_url(endpoint)
            audit.record(connection, now, account_id, actor, "endpoint.enable", subject=endpoint.id)
            ring_bell(connection, Bell.DELIVERY)
            return endpoints.enable(connection, endpoint, now)

        return await self._database.write(unit)

    async def hasten(self, account_id: str, endpoint_id: str, actor: str) -> int:
        """Attempt what waits for an endpoint now, not when its schedule says; returns how much that is.

        Its attempts so far count on. Raises `NotFoundError`, and `ConflictError` if nothing can be sent.
        """
        now = self._clock()

        def unit(connection: Connection) -> int:
            endpoint = endpoints.enable(connection, _reachable(_find(connection, account_id, endpoint_id)), now)
            audit.record(connection, now, account_id, actor, "endpoint.hasten", subject=endpoint.id)
            return outbox.hasten(connection, endpoint, now)

        return await self._database.write(unit)

    async def disable_endpoint(self, account_id: str, endpoint_id: str, actor: str) -> Endpoint:
        """Post nothing more to an endpoint; what waits is held. Raises `NotFoundError`."""
        now = self._clock()

        def unit(connection: Connection) -> Endpoint:
            lock_account(connection, account_id)
            endpoint = _find_own(connection, account_id, endpoint_id)
            audit.record(connection, now, account_id, actor, "endpoint.disable", subject=endpoint.id)
            return endpoints.disable(connection, endpoint)

        return await self._database.write(unit)

    async def delete_endpoint(self, account_id: str, endpoint_id: str, actor: str) -> None:
        """Delete an endpoint and drop what waits for it. Raises `NotFoundError`, and `ConflictError` for that of the
        settings, which every account has."""
        now = self._clock()

        def unit(connection: Connection) -> None:
            lock_account(connection, account_id)
            endpoint = _find_own(connection, account_id, endpoint_id)
            if endpoint.is_settings:
                raise ConflictError("The endpoint of the settings cannot be deleted: clear its URL")
            outbox.drop_waiting(connection, endpoint, now)
            endpoints.delete_endpoint(connection, endpoint, now)
            audit.record(connection, now, account_id, actor, "endpoint.delete", subject=endpoint.id)

        await self._database.write(unit)

    async def send_sample(
        self, account_id: str, endpoint_id: str, event_type: MessageType, trace: str | None = None
    ) -> str:
        """Send a sample message of a type, whatever types the endpoint takes; returns its id.

        Without a URL it can be pulled. Raises `NotFoundError`, and `ConflictError` for a disabled endpoint.
        """
        now = self._clock()

        def unit(connection: Connection) -> str:
            lock_account(connection, account_id)
            endpoint = _find_own(connection, account_id, endpoint_id)
            _refuse_disabled(endpoint)
            message_id, version = ids.new_message_id(), endpoint.payload_version
            body = sample_message(version, event_type, message_id, now, endpoint.id, self._fhir_base)
            draft = EventDraft(message_id, account_id, event_type, version, body, trace=trace)
            outbox.append_for(connection, self._vault, draft, [endpoint], now, self._retention)
            return message_id

        return await self._database.write(unit)

    async def list_keys(self, account_id: str, endpoint_id: str) -> tuple[SigningKey, ...]:
        """The keys that sign for an endpoint now, the current one first; none before it has a URL."""
        now = self._clock()

        def unit(connection: Connection) -> tuple[SigningKey, ...]:
            endpoint = _find(connection, account_id, endpoint_id)
            return endpoints.keys_of(connection, self._vault, endpoint.seq, now)

        return await self._database.read(unit)

    async def reveal_keys(self, account_id: str, endpoint_id: str, actor: str) -> tuple[SigningKey, ...]:
        """As `list_keys`, for a person: that they were seen is in the audit trail."""
        now = self._clock()

        def unit(connection: Connection) -> tuple[SigningKey, ...]:
            endpoint = _find(connection, account_id, endpoint_id)
            audit.record(connection, now, account_id, actor, "endpoint.reveal-key", subject=endpoint.id)
            return endpoints.keys_of(connection, self._vault, endpoint.seq, now)

        return await self._database.write(unit)

    async def rotate_key(
        self, account_id: str, endpoint_id: str, actor: str, overlap: timedelta | None = None
    ) -> tuple[SigningKey, ...]:
        """Make a new key, and let the one before sign too for `overlap`, or as long as the installation's setting says.

        Raises `NotFoundError`, and `ConflictError` for an endpoint without a URL, which has no key.
        """
        now = self._clock()

        def unit(connection: Connection) -> tuple[SigningKey, ...]:
            lock_account(connection, account_id)
            endpoint = _find(connection, account_id, endpoint_id)
            _require_url(endpoint)
            overlapping = self._overlap if overlap is None else overlap
            endpoints.rotate_key(connection, self._vault, endpoint.seq, now, overlapping)
            audit.record(connection, now, account_id, actor, "endpoint.rotate-key", subject=endpoint.id)
            return endpoints.keys_of(connection, self._vault, endpoint.seq, now)

        return await self._database.write(unit)

    async def ping(self, account_id: str, endpoint_id: str) -> str:
        """Send a ping; returns the message's id. Raises `NotFoundError`, and `ConflictError` if nothing can be sent."""
        now = self._clock()

        def unit(connection: Connection) -> str:
            lock_account(connection, account_id)
            return self._append_ping(connection, _reachable(_find_own(connection, account_id, endpoint_id)), now)

        return await self._database.write(unit)

    async def expunge(self, account_id: str, event_id: str, actor: str) -> None:
        """Forget the payload of a message at once; its history stays. Raises `NotFoundError`."""
        now = self._clock()

        def unit(connection: Connection) -> None:
            lock_account(connection, account_id)
            if not outbox.expunge_event(connection, account_id, event_id, now):
                raise NotFoundError("Could not find event")
            audit.record(connection, now, account_id, actor, "event.expunge", subject=event_id)

        await self._database.write(unit)

    def _settings(self, connection: Connection, account_id: str) -> WebhookSettings:
        endpoint = endpoints.settings_endpoint(connection, account_id)
        keys = endpoints.keys_of(connection, self._vault, endpoint.seq, self._clock())
        filters = endpoints.medical_record_filters(connection, account_id)
        return WebhookSettings(account_id, endpoint.url, keys[0].webhook_key if keys else None, filters)

    def _columns(self, changes: EndpointChanges) -> dict[str, Any]:
        """The columns that changes set, but for the URL. Raises `BadRequestError` for what may not be set."""
        columns: dict[str, Any] = {name: value for name, value in changes.items() if name != "url"}
        self._check_url(changes.get("url"))
        headers = changes.get("headers")
        if headers is not None:
            columns["headers"] = endpoints.seal_headers(self._vault, check_headers(headers))
        tls = changes.get("tls")
        if tls is not None:
            columns["tls"] = endpoints.seal_tls(self._vault, *check_tls(TlsProfile(**tls), self._clock()))
        return columns

    def _check_url(self, url: str | None) -> None:
        try:
            if url:
                check_url(url, self._allowed)
        except InvalidUrlError as error:
            raise BadRequestError(f"Invalid URL: {error}") from None

    def _save_url(self, connection: Connection, endpoint: Endpoint, url: str | None, now: datetime) -> Endpoint:
        saved = endpoints.set_url(connection, endpoint, url, now)
        if url is None:
            endpoints.drop_keys(connection, endpoint.seq)
            outbox.fail_waiting(connection, endpoint, Outcome.NO_URL, now)
            return saved
        if not endpoints.keys_of(connection, self._vault, endpoint.seq, now):
            endpoints.add_key(connection, self._vault, endpoint.seq, now)
        self._append_ping(connection, saved, now)
        return saved

    def _append_ping(self, connection: Connection, endpoint: Endpoint, now: datetime) -> str:
        meta = Meta(ids.new_message_id(), now, EventType.PING)
        draft = EventDraft(
            id=meta.message_id,
            account_id=endpoint.account_id,
            type=meta.type,
            payload_version=endpoint.payload_version,
            body=ping_message(ids.url_safe(_PING_LENGTH), meta),
        )
        outbox.append(connection, self._vault, draft, [endpoint], now, self._retention)
        return meta.message_id


def _find(connection: Connection, account_id: str, endpoint_id: str) -> Endpoint:
    endpoint = endpoints.find_endpoint(connection, account_id, endpoint_id)
    if endpoint is None:
        raise NotFoundError("Could not find endpoint")
    return endpoint


def _find_own(connection: Connection, account_id: str, endpoint_id: str) -> Endpoint:
    """An endpoint that is not led by something else. Raises `NotFoundError`, and `ConflictError`."""
    endpoint = _find(connection, account_id, endpoint_id)
    _refuse_channel(endpoint)
    return endpoint


def _refuse_channel(endpoint: Endpoint) -> None:
    if endpoint.payload_version is PayloadVersion.FHIR_R4:
        raise ConflictError("The endpoint belongs to a FHIR Subscription: change that")


def _reachable(endpoint: Endpoint) -> Endpoint:
    _require_url(endpoint)
    _refuse_disabled(endpoint)
    return endpoint


def _refuse_disabled(endpoint: Endpoint) -> None:
    if endpoint.state is EndpointState.DISABLED:
        raise ConflictError("The endpoint is disabled: enable it first")


def _require_url(endpoint: Endpoint) -> None:
    if endpoint.url is None:
        raise ConflictError("The endpoint has no URL")
