"""Samples that a customer writes: sent to the URL of the settings once, as every message is, and the answer told."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from chartwire import ids
from chartwire.clock import Clock
from chartwire.errors import BadRequestError, ConflictError
from chartwire.model.javascript import stringify
from chartwire.model.webhook import Attempt, Endpoint, EndpointState, EventDraft, EventType
from chartwire.settings import Settings
from chartwire.store import audit, endpoints, history, outbox
from chartwire.store.database import Database, lock_account
from chartwire.store.vault import Vault

_MARGIN_SECONDS = 3.0
"""What finding the delivery and writing its outcome down may take beside the attempt itself."""

_FIRST_LOOK_SECONDS = 0.01
_LONGEST_LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample that was sent, and the one attempt of it."""

    message_id: str
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class _Sent:
    message_id: str
    delivery_seq: int
    seconds: float
    """How long its attempt and what goes with it may take."""


class SampleService:
    """Whatever process posts a sample, its outcome is read in the database."""

    def __init__(self, database: Database, vault: Vault, clock: Clock, settings: Settings) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._timeout = settings.webhook_timeout_seconds
        self._retention = timedelta(days=settings.payload_retention_days)

    async def send(self, account_id: str, actor: str, payload: dict[str, Any], trace: str | None = None) -> Sample:
        """Send a payload as JavaScript would write it, and wait until its attempt has ended.

        Raises `BadRequestError` without a URL, and `ConflictError` if the endpoint is disabled, or takes nothing now:
        then the sample is taken back.
        """
        try:
            body = stringify(payload).encode()
        except ValueError:
            raise BadRequestError("The payload is nested too deeply") from None
        sent = await self._database.write(lambda connection: self._append(connection, account_id, actor, body, trace))
        attempt = await self._wait_for_attempt(sent) or await self._take_back(sent)
        return Sample(sent.message_id, attempt)

    def _append(self, connection: Connection, account_id: str, actor: str, body: bytes, trace: str | None) -> _Sent:
        now = self._clock()
        lock_account(connection, account_id)
        endpoint = _ready(endpoints.settings_endpoint(connection, account_id))
        message_id = ids.new_message_id()
        draft = EventDraft(message_id, account_id, EventType.SAMPLE, endpoint.payload_version, body, trace=trace)
        outbox.append_for(connection, self._vault, draft, [endpoint], now, self._retention)
        audit.record(connection, now, account_id, actor, "endpoint.sample", subject=endpoint.id)
        (delivery,) = history.deliveries_of_event(connection, account_id, message_id)
        return _Sent(message_id, delivery.seq, (endpoint.timeout_seconds or self._timeout) + _MARGIN_SECONDS)

    async def _wait_for_attempt(self, sent: _Sent) -> Attempt | None:
        """Look until the attempt has ended; None if it does not in time."""
        pause = _FIRST_LOOK_SECONDS
        give_up_at = asyncio.get_running_loop().time() + sent.seconds
        while asyncio.get_running_loop().time() < give_up_at:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_LOOK_SECONDS)
            attempt = await self._database.read(lambda connection: self._attempt(connection, sent))
            if attempt is not None:
                return attempt
        return None

    def _attempt(self, connection: Connection, sent: _Sent) -> Attempt | None:
        return next(iter(history.list_attempts(connection, self._vault, sent.delivery_seq)), None)

    async def _take_back(self, sent: _Sent) -> Attempt:
        """What is told to have not been sent must not be sent later."""

        def unit(connection: Connection) -> tuple[bool, Attempt | None]:
            withdrawn = outbox.withdraw(connection, sent.delivery_seq, self._clock())
            return withdrawn, self._attempt(connection, sent)  # it may have ended a moment ago

        withdrawn, attempt = await self._database.write(unit)
        if withdrawn:
            raise ConflictError("Nothing was sent: the endpoint is paused after failures, or has too much to do")
        if attempt is None:
            raise ConflictError(f"The attempt has not ended in time: see /v1/webhooks/events/{sent.message_id}")
        return attempt


def _ready(endpoint: Endpoint) -> Endpoint:
    if endpoint.url is None:
        raise BadRequestError("The webhook URL is not set, and so there is no key: save a webhookUrl first")
    if endpoint.state is EndpointState.DISABLED:
        raise ConflictError("The endpoint is disabled: enable it first")
    return endpoint
