"""A message looked at closely: where it went, each attempt, the request as it was sent and how it was answered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from chartwire.errors import NotFoundError
from chartwire.model.signing_key import SigningKey
from chartwire.model.webhook import Attempt, DeliverySummary, Endpoint, EventSummary
from chartwire.store import endpoints, history
from chartwire.store.database import Database
from chartwire.store.vault import Vault

Sign = Callable[[Endpoint, Sequence[SigningKey], str, int, bytes], dict[str, str]]
"""The headers that prove a message: endpoint, keys, message id, seconds since 1970, body."""

HIDDEN = "••••••••"
"""Stands for a header's value that is a secret."""

_SECRET_HEADERS = frozenset({"x-webhook-key"})


@dataclass(frozen=True, slots=True)
class InspectedAttempt:
    """An attempt and the headers of its request; none if the key that signed it, or the payload, is kept no more."""

    attempt: Attempt
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class InspectedDelivery:
    """A delivery with its attempts, the first one first. `endpoint` is None once it was deleted."""

    delivery: DeliverySummary
    endpoint: Endpoint | None
    attempts: tuple[InspectedAttempt, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """An event and all that became of it. `patient_ids` are those of whom it tells.

    `body` is there if it tells of nobody; that of others is shown by `HistoryService.read_payload`, which is audited.
    """

    event: EventSummary
    patient_ids: tuple[str, ...]
    body: bytes | None
    deliveries: tuple[InspectedDelivery, ...]


class InspectionService:
    """Looks at one message of an account. What requests looked like is worked out anew: only outcomes are kept."""

    def __init__(self, database: Database, vault: Vault, sign: Sign) -> None:
        self._database = database
        self._vault = vault
        self._sign = sign

    async def inspect(self, account_id: str, event_id: str) -> Inspection:
        """An event; raises `NotFoundError`."""
        return await self._database.read(lambda connection: self._inspect(connection, account_id, event_id))

    def _inspect(self, connection: Connection, account_id: str, event_id: str) -> Inspection:
        event = history.find_event(connection, account_id, event_id)
        if event is None:
            raise NotFoundError("Could not find event")
        body = history.read_payload(connection, self._vault, account_id, event_id) if event.is_kept else None
        deliveries = history.deliveries_of_event(connection, account_id, event_id)
        subjects = tuple(history.subjects_of(connection, event.seq))
        return Inspection(
            event,
            subjects,
            None if subjects else body,
            tuple(self._delivery(connection, account_id, delivery, body) for delivery in deliveries),
        )

    def _delivery(
        self, connection: Connection, account_id: str, delivery: DeliverySummary, body: bytes | None
    ) -> InspectedDelivery:
        endpoint = endpoints.find_endpoint(connection, account_id, delivery.endpoint_id)
        attempts = history.list_attempts(connection, self._vault, delivery.seq)

        def headers(attempt: Attempt) -> tuple[tuple[str, str], ...]:
            if endpoint is None or body is None:
                return ()
            keys = endpoints.keys_of(connection, self._vault, endpoint.seq, attempt.started_at)
            return self._headers(endpoint, keys, delivery.event_id, attempt.started_at, body)

        return InspectedDelivery(
            delivery, endpoint, tuple(InspectedAttempt(attempt, headers(attempt)) for attempt in attempts)
        )

    def _headers(
        self, endpoint: Endpoint, keys: Sequence[SigningKey], event_id: str, at: datetime, body: bytes
    ) -> tuple[tuple[str, str], ...]:
        then = [key for key in keys if key.created_at <= at]
        if not then:
            return ()
        signed = self._sign(endpoint, then, event_id, int(at.timestamp()), body)
        own = [(name, HIDDEN) for name in endpoint.header_names]
        shown = [(name, HIDDEN if name in _SECRET_HEADERS else value) for name, value in signed.items()]
        return (*own, ("content-type", endpoint.payload_version.media_type), *shown, ("content-length", str(len(body))))
