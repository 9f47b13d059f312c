"""Heartbeats of FHIR subscriptions, and their ends: what is due by the clock and not by an event.

When it is due is in the database. A heartbeat is sent when nothing else has been for a whole period; while something
waits for the endpoint none is added to it, so that whoever hears nothing asks for the status.
"""

import asyncio
from datetime import datetime, timedelta
from functools import partial

import orjson
from sqlalchemy import Connection

from chartwire.clock import Clock
from chartwire.formats.fhir_notifications import notification
from chartwire.ids import new_message_id
from chartwire.model.subscription import NotificationType, Subscription, SubscriptionStatus
from chartwire.model.webhook import EventDraft, EventType
from chartwire.settings import Settings
from chartwire.store import endpoints, outbox, subscriptions
from chartwire.store.database import Database, lock_account
from chartwire.store.vault import Vault
from chartwire.telemetry import get_logger

_LOOK_EVERY_SECONDS = 1.0
_BATCH = 200

log = get_logger()


class Heartbeats:
    """Sends what is due."""

    def __init__(self, database: Database, vault: Vault, clock: Clock, settings: Settings) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._public_base = settings.public_base
        self._retention = timedelta(days=settings.payload_retention_days)

    async def run(self) -> None:
        """Work until cancelled. A database that fails is tried again at the next turn."""
        while True:
            try:
                await self.send_due()
            except Exception:  # whatever the database raises, heartbeats must go on after it
                log.exception("sending heartbeats failed")
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def send_due(self) -> None:
        """Look at everything that is due now."""
        now = self._clock()
        while due := await self._database.read(partial(subscriptions.due_subscriptions, now=now, limit=_BATCH)):
            for subscription in due:
                await self._database.write(partial(self._look_at, subscription.endpoint.account_id, subscription.id))

    def _look_at(self, account_id: str, subscription_id: str, connection: Connection) -> None:
        now = self._clock()
        lock_account(connection, account_id)
        subscription = subscriptions.find(connection, account_id, subscription_id)
        if subscription is None or not subscriptions.take_due(connection, subscription, now):
            return
        if subscription.has_ended(now):
            endpoints.disable(connection, subscription.endpoint)
        else:
            self._beat(connection, subscription, now)

    def _beat(self, connection: Connection, subscription: Subscription, now: datetime) -> None:
        endpoint = subscription.endpoint
        is_active = subscription.status(now) is SubscriptionStatus.ACTIVE
        if not is_active or outbox.is_waiting(connection, endpoint):
            return
        message_id = new_message_id()
        bundle = notification(self._public_base, subscription, NotificationType.HEARTBEAT, message_id, now)
        draft = EventDraft(
            id=message_id,
            account_id=endpoint.account_id,
            type=EventType.SUBSCRIPTION_HEARTBEAT,
            payload_version=endpoint.payload_version,
            body=orjson.dumps(bundle),
        )
        outbox.append_for(connection, self._vault, draft, [endpoint], now, self._retention)
