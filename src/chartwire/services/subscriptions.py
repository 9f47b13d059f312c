"""What a customer may do with FHIR subscriptions.

A subscription's channel is an endpoint of the webhook engine that takes nothing else; the two have one id. Whatever
asks for the subscription to be active sends a handshake, whose outcome decides (`store.subscriptions.note_attempt`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Connection

from chartwire.addresses import check_url
from chartwire.clock import Clock
from chartwire.errors import (
    BadRequestError,
    InvalidUrlError,
    NotFoundError,
    UnacceptableElementError,
    VersionMismatchError,
)
from chartwire.formats.fhir_notifications import notification
from chartwire.ids import new_message_id
from chartwire.model.subscription import (
    NotificationType,
    PayloadContent,
    Subscription,
    SubscriptionEvent,
    SubscriptionStatus,
)
from chartwire.model.webhook import (
    SUBSCRIPTION_TYPES,
    Endpoint,
    EventDraft,
    EventType,
    PayloadVersion,
)
from chartwire.services.links import PageSealer
from chartwire.services.webhook_rules import check_headers
from chartwire.settings import Settings
from chartwire.store import audit, endpoints, outbox, subscriptions
from chartwire.store.database import Database, lock_account
from chartwire.store.documents import DocumentFilter
from chartwire.store.records import to_json
from chartwire.store.vault import Vault


@dataclass(frozen=True, slots=True)
class SubscriptionDraft:
    """What a customer asks for. A header whose value is None keeps the value that it has.

    `chosen` is what `criteria` say. Periods are in seconds.
    """

    status: SubscriptionStatus
    reason: str
    contact: Any
    criteria: tuple[str, ...]
    chosen: DocumentFilter
    url: str
    headers: Mapping[str, str | None]
    content: PayloadContent
    heartbeat_seconds: int | None
    timeout_seconds: int | None
    max_count: int | None
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class SubscriptionSearch:
    """Which subscriptions; None asks for nothing."""

    ids: frozenset[str] | None = None
    statuses: frozenset[str] | None = None
    urls: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class SubscriptionPage:
    """How many match in all, those of the page, and whether more follow."""

    total: int
    subscriptions: tuple[Subscription, ...]
    has_more: bool


class SubscriptionService:
    """Subscriptions of one account at a time. Nothing of another account is ever found."""

    def __init__(self, database: Database, vault: Vault, clock: Clock, settings: Settings) -> None:
        self._database = database
        self._vault = vault
        self._allowed = settings.webhook_allowed_networks
        self._retention = timedelta(days=settings.payload_retention_days)
        self.public_base = settings.public_base
        self.now = clock
        self.pages = PageSealer(vault)

    async def create(self, account_id: str, actor: str, draft: SubscriptionDraft) -> Subscription:
        """A new subscription, and its handshake unless it is to be off. Raises `UnacceptableElementError`."""
        now = self.now()
        self._check(draft, now)

        def unit(connection: Connection) -> Subscription:
            lock_account(connection, account_id)
            endpoint = endpoints.create_endpoint(connection, account_id, now)
            endpoint = endpoints.update_endpoint(connection, endpoint, self._channel(draft, {}))
            endpoints.add_key(connection, self._vault, endpoint.seq, now)
            made = subscriptions.create(connection, endpoint, _columns(draft, SubscriptionStatus.OFF), now)
            audit.record(connection, now, account_id, actor, "subscription.create", subject=made.id)
            return self._activate(connection, made, draft, now)

        return await self._database.write(unit)

    async def replace(
        self, account_id: str, actor: str, subscription_id: str, draft: SubscriptionDraft, version: str | None
    ) -> Subscription:
        """Change a subscription to what is asked; `version` is the one that this is meant for, None any.

        Raises `NotFoundError`, `VersionMismatchError` and `UnacceptableElementError`.
        """
        now = self.now()
        self._check(draft, now)

        def unit(connection: Connection) -> Subscription:
            lock_account(connection, account_id)
            known = _find(connection, account_id, subscription_id)
            if version is not None and version != str(known.version):
                raise VersionMismatchError
            kept = endpoints.sealed_headers(connection, known.endpoint)
            endpoints.update_endpoint(connection, known.endpoint, self._channel(draft, kept))
            changed = subscriptions.change(connection, known, _columns(draft, known.asked), now)
            audit.record(connection, now, account_id, actor, "subscription.change", subject=known.id)
            return self._activate(connection, changed, draft, now)

        return await self._database.write(unit)

    async def delete(self, account_id: str, actor: str, subscription_id: str) -> None:
        """Forget a subscription and drop what waits for it. Raises `NotFoundError`."""
        now = self.now()

        def unit(connection: Connection) -> None:
            lock_account(connection, account_id)
            known = _find(connection, account_id, subscription_id)
            subscriptions.delete(connection, known)
            outbox.drop_waiting(connection, known.endpoint, now)
            endpoints.delete_endpoint(connection, known.endpoint, now)
            audit.record(connection, now, account_id, actor, "subscription.delete", subject=known.id)

        await self._database.write(unit)

    async def get(self, account_id: str, subscription_id: str) -> Subscription:
        """One subscription; raises `NotFoundError`."""
        return await self._database.read(lambda connection: _find(connection, account_id, subscription_id))

    async def search(
        self, account_id: str, chosen: SubscriptionSearch, limit: int | None = None, after: str | None = None
    ) -> SubscriptionPage:
        """Those that are chosen, the oldest first, from behind the one with the id `after`."""
        now = self.now()
        known = await self._database.read(lambda connection: subscriptions.subscriptions_of(connection, account_id))
        matching = [each for each in known if _is_chosen(each, chosen, now)]
        rest = [each for each in matching if after is None or each.id > after]  # ids are in the order of creation
        page = rest if limit is None else rest[:limit]
        return SubscriptionPage(len(matching), tuple(page), len(page) < len(rest))

    async def list_events(
        self, account_id: str, actor: str, subscription_id: str, span: tuple[int, int], limit: int, *, named: bool
    ) -> tuple[Subscription, list[SubscriptionEvent]]:
        """Its events from the first number of `span` to the second, `limit` at most; `named`: documents are shown.

        Raises `NotFoundError`.
        """
        now = self.now()

        def unit(connection: Connection) -> tuple[Subscription, list[SubscriptionEvent]]:
            known = _find(connection, account_id, subscription_id)
            found = subscriptions.list_events(connection, known, *span, limit)
            seen = {event.document.patient_id for event in found if event.document} if named else set()
            for patient_id in sorted(seen):
                audit.record(connection, now, account_id, actor, "subscription.events", patient_id, known.id)
            return known, found

        return await self._database.write(unit)

    def _activate(
        self, connection: Connection, known: Subscription, draft: SubscriptionDraft, now: datetime
    ) -> Subscription:
        """Let it be as `draft.status` asks: off, active as it is, or active once a handshake has been answered."""
        endpoint = known.endpoint
        if draft.status is SubscriptionStatus.OFF:
            endpoints.disable(connection, endpoints.set_url(connection, endpoint, draft.url, now))
            columns: dict[str, Any] = {"status": SubscriptionStatus.OFF, "error": None, "handshake_id": None}
        elif _stays_active(known, draft, now):
            columns = {}
        else:
            outbox.drop_waiting(connection, endpoint, now)  # until there is a good answer: it may be somebody else's
            endpoint = endpoints.set_url(connection, endpoint, draft.url, now)
            columns = {"status": SubscriptionStatus.REQUESTED, "error": None}
            columns["handshake_id"] = self._shake_hands(connection, known, endpoint, now)
        changed = subscriptions.amend(connection, known, columns)
        subscriptions.schedule(connection, endpoint.seq, subscriptions.next_due(changed, now))
        return changed

    def _shake_hands(self, connection: Connection, known: Subscription, endpoint: Endpoint, now: datetime) -> str:
        message_id = new_message_id()
        bundle = notification(self.public_base, known, NotificationType.HANDSHAKE, message_id, now)
        draft = EventDraft(
            id=message_id,
            account_id=endpoint.account_id,
            type=EventType.SUBSCRIPTION_HANDSHAKE,
            payload_version=endpoint.payload_version,
            body=orjson.dumps(bundle),
        )
        outbox.append_for(connection, self._vault, draft, [endpoint], now, self._retention)
        return message_id

    def _check(self, draft: SubscriptionDraft, now: datetime) -> None:
        try:
            check_url(draft.url, self._allowed)
        except InvalidUrlError as error:
            raise UnacceptableElementError("channel.endpoint", str(error)) from None
        try:
            check_headers({name: value or "-" for name, value in draft.headers.items()})
        except BadRequestError as error:
            raise UnacceptableElementError("channel.header", str(error)) from None
        is_over = draft.ends_at is not None and draft.ends_at <= now
        if is_over and draft.status is not SubscriptionStatus.OFF:
            raise UnacceptableElementError("end", "the end must be in the future")

    def _channel(self, draft: SubscriptionDraft, kept: Mapping[str, str]) -> dict[str, Any]:
        """The columns of the endpoint; its URL is set when it is activated."""
        lacking = [name for name, value in draft.headers.items() if value is None and name not in kept]
        if lacking:
            raise UnacceptableElementError("channel.header", "a header that is masked has no value here yet")
        given = {name: value for name, value in draft.headers.items() if value is not None}
        sealed = endpoints.seal_headers(self._vault, given)
        return {
            "payload_version": PayloadVersion.FHIR_R4,
            "event_types": list(SUBSCRIPTION_TYPES),
            "send_webhook_key": False,
            "timeout_seconds": draft.timeout_seconds,
            "headers": {name: sealed.get(name) or kept[name] for name in draft.headers},
        }


def _columns(draft: SubscriptionDraft, asked: SubscriptionStatus) -> dict[str, Any]:
    return {
        "status": asked,
        "reason": draft.reason,
        "contact": draft.contact,
        "criteria": list(draft.criteria),
        "chosen": to_json(draft.chosen),
        "content": draft.content,
        "heartbeat_seconds": draft.heartbeat_seconds,
        "max_count": draft.max_count,
        "ends_at": draft.ends_at,
    }


def _stays_active(known: Subscription, draft: SubscriptionDraft, now: datetime) -> bool:
    """Whether the handshake that was answered still stands for what is asked."""
    is_active = known.status(now) is SubscriptionStatus.ACTIVE
    return is_active and draft.status is SubscriptionStatus.ACTIVE and known.endpoint.url == draft.url


def _is_chosen(subscription: Subscription, chosen: SubscriptionSearch, now: datetime) -> bool:
    return (
        (chosen.ids is None or subscription.id in chosen.ids)
        and (chosen.statuses is None or subscription.status(now) in chosen.statuses)
        and (chosen.urls is None or subscription.endpoint.url in chosen.urls)
    )


def _find(connection: Connection, account_id: str, subscription_id: str) -> Subscription:
    known = subscriptions.find(connection, account_id, subscription_id)
    if known is None:
        raise NotFoundError("Could not find subscription")
    return known
