"""What a customer may know of what was sent, and have sent again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from sqlalchemy import Connection

from chartwire import ids
from chartwire.clock import Clock
from chartwire.errors import BadRequestError, ConflictError, NotFoundError
from chartwire.model.message import with_fresh_links, with_id
from chartwire.model.webhook import (
    PROBES,
    Attempt,
    DeliveryFilter,
    DeliveryState,
    DeliverySummary,
    EventDraft,
    EventSummary,
    PayloadVersion,
    Replay,
)
from chartwire.services.links import LinkSigner, PageSealer, Representation
from chartwire.settings import Settings
from chartwire.store import audit, endpoints, history, outbox, replays
from chartwire.store.database import Database, lock_account
from chartwire.store.replays import Renew
from chartwire.store.vault import Vault
from chartwire.store.webhook_requests import RequestPage, RequestWindow, page_requests

T = TypeVar("T")

_REQUESTS_LISTED_FOR = timedelta(days=30)
_MOST_REPLAYS = 10


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list, and the word that the next part is asked by; None at the end."""

    items: list[T]
    next: str | None


@dataclass(frozen=True, slots=True)
class EventHistory:
    """An event and what became of it at each endpoint."""

    event: EventSummary
    deliveries: list[DeliverySummary]


class HistoryService:
    """Events, deliveries, attempts and replays of one account at a time."""

    def __init__(self, database: Database, vault: Vault, clock: Clock, settings: Settings) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._pages = PageSealer(vault)
        self._renew = link_renewer(vault, clock, settings)
        self._retention = timedelta(days=settings.payload_retention_days)

    async def list_events(
        self, account_id: str, chosen: DeliveryFilter, after: str | None, limit: int
    ) -> Page[EventSummary]:
        """Events, the newest first. Raises `BadRequestError` for an `after` that was not given out."""
        before = self._opened(after)
        found = await self._database.read(
            lambda connection: history.list_events(connection, account_id, chosen, before, limit + 1)
        )
        return Page(found[:limit], self._sealed(found[limit - 1].seq) if len(found) > limit else None)

    async def list_deliveries(
        self, account_id: str, chosen: DeliveryFilter, after: str | None, limit: int
    ) -> Page[DeliverySummary]:
        """Deliveries, the newest first. Raises as `list_events`."""
        before = self._opened(after)
        found = await self._database.read(
            lambda connection: history.list_deliveries(connection, account_id, chosen, before, limit + 1)
        )
        return Page(found[:limit], self._sealed(found[limit - 1].seq) if len(found) > limit else None)

    async def get_event(self, account_id: str, event_id: str) -> EventHistory:
        """One event; raises `NotFoundError`."""

        def unit(connection: Connection) -> EventHistory:
            event = _found(history.find_event(connection, account_id, event_id), "event")
            return EventHistory(event, history.deliveries_of_event(connection, account_id, event_id))

        return await self._database.read(unit)

    async def read_payload(self, account_id: str, event_id: str, actor: str) -> bytes:
        """Exactly the bytes that were sent, while they are kept. Raises `NotFoundError`."""
        now = self._clock()

        def unit(connection: Connection) -> bytes:
            event = _found(history.find_event(connection, account_id, event_id), "event")
            body = history.read_payload(connection, self._vault, account_id, event_id)
            if body is None:
                raise NotFoundError("The payload is not kept any more")
            nobody: Sequence[str | None] = [None]
            for patient_id in history.subjects_of(connection, event.seq) or nobody:
                audit.record(connection, now, account_id, actor, "event.read", patient_id, event_id)
            return body

        return await self._database.write(unit)

    async def list_attempts(self, account_id: str, delivery_id: str) -> list[Attempt]:
        """Every attempt of a delivery; raises `NotFoundError`."""

        def unit(connection: Connection) -> list[Attempt]:
            delivery = _delivery(connection, account_id, delivery_id)
            return history.list_attempts(connection, self._vault, delivery.seq)

        return await self._database.read(unit)

    async def resend(self, account_id: str, delivery_id: str, actor: str) -> DeliverySummary:
        """Send a settled delivery again, under its id and with the whole schedule before it.

        Raises `NotFoundError`, and `ConflictError` for one that still waits, or has nothing or nowhere to be sent.
        """
        now = self._clock()

        def unit(connection: Connection) -> DeliverySummary:
            lock_account(connection, account_id)
            delivery = _delivery(connection, account_id, delivery_id)
            _require_replayable(connection, account_id, delivery)
            replays.send_again(connection, self._vault, [delivery], self._renew, now)
            audit.record(connection, now, account_id, actor, "delivery.resend", subject=delivery.event_id)
            return _delivery(connection, account_id, delivery_id)

        return await self._database.write(unit)

    async def resend_as_new(self, account_id: str, event_id: str, actor: str) -> bytes:
        """Send an event to the endpoint of the settings under a new id, with fresh links; returns its payload.

        Raises `NotFoundError`, and `ConflictError` if the payload is not kept any more.
        """
        now = self._clock()

        def unit(connection: Connection) -> bytes:
            lock_account(connection, account_id)
            event = _found(history.find_event(connection, account_id, event_id), "webhook request")
            if event.payload_version is PayloadVersion.FHIR_R4:
                raise NotFoundError("Could not find webhook request")  # it was none, and is of no use to that endpoint
            body = history.read_payload(connection, self._vault, account_id, event_id)
            if body is None or event.type in PROBES:
                raise ConflictError("The payload is not kept any more")
            message_id = ids.new_message_id()
            fresh = with_id(self._renew(body), message_id)
            subjects = tuple(history.subjects_of(connection, event.seq))
            draft = EventDraft(
                message_id, account_id, event.type, event.payload_version, fresh, subjects, event.request_id
            )
            target = endpoints.settings_endpoint(connection, account_id)
            outbox.append_for(connection, self._vault, draft, [target], now, self._retention)
            audit.record(connection, now, account_id, actor, "event.resend", subject=event_id)
            return fresh

        return await self._database.write(unit)

    async def list_requests(self, account_id: str, window: RequestWindow) -> RequestPage:
        """What was sent to the endpoint of the settings in the last 30 days."""
        since = self._clock() - _REQUESTS_LISTED_FOR
        return await self._database.read(lambda connection: page_requests(connection, account_id, since, window))

    async def count_replay(self, account_id: str, chosen: DeliveryFilter) -> int:
        """How many deliveries a replay would send again now. Raises `NotFoundError` for an unknown endpoint."""

        def unit(connection: Connection) -> int:
            _require_endpoint(connection, account_id, chosen)
            return replays.count(connection, account_id, chosen)

        return await self._database.read(unit)

    async def start_replay(self, account_id: str, chosen: DeliveryFilter, actor: str) -> Replay:
        """Send again everything that is chosen and there now.

        Raises `NotFoundError` for an unknown endpoint, and `ConflictError` if too many replays run: all accounts' take
        turns.
        """
        now = self._clock()

        def unit(connection: Connection) -> Replay:
            lock_account(connection, account_id)
            _require_endpoint(connection, account_id, chosen)
            if replays.count_running(connection, account_id) >= _MOST_REPLAYS:
                raise ConflictError(f"{_MOST_REPLAYS} replays are under way: let one end, or cancel it")
            replay = replays.start(connection, account_id, chosen, now)
            audit.record(connection, now, account_id, actor, "replay.start", subject=replay.id)
            return replay

        return await self._database.write(unit)

    async def list_replays(self, account_id: str, limit: int) -> list[Replay]:
        """The last replays, the newest first."""
        return await self._database.read(lambda connection: replays.list_replays(connection, account_id, limit))

    async def get_replay(self, account_id: str, replay_id: str) -> Replay:
        """One replay; raises `NotFoundError`."""
        return await self._database.read(
            lambda connection: _found(replays.find(connection, account_id, replay_id), "replay")
        )

    async def cancel_replay(self, account_id: str, replay_id: str, actor: str) -> Replay:
        """Send nothing more of a replay again. Raises `NotFoundError`."""
        now = self._clock()

        def unit(connection: Connection) -> Replay:
            replay = _found(replays.find(connection, account_id, replay_id), "replay")
            replays.cancel(connection, replay, now)
            audit.record(connection, now, account_id, actor, "replay.cancel", subject=replay.id)
            return _found(replays.find(connection, account_id, replay_id), "replay")

        return await self._database.write(unit)

    def _sealed(self, seq: int) -> str:
        return self._pages.seal((), str(seq))

    def _opened(self, after: str | None) -> int | None:
        if after is None:
            return None
        parameters, seq = self._pages.open(after)
        if parameters or not seq.isdecimal():
            raise BadRequestError("The link to the next page is not one that was given")
        return int(seq)


def link_renewer(vault: Vault, clock: Clock, settings: Settings) -> Renew:
    """Makes the links of a payload good again for as long as those of a new one."""
    signer = LinkSigner(vault, settings.public_base, clock)
    lifetime = timedelta(seconds=settings.bulk_download_url_seconds)

    def link(document_id: str) -> str:
        return signer.sign(document_id, Representation.ORIGINAL, lifetime)

    return lambda body: with_fresh_links(body, link)


def _found(item: T | None, name: str) -> T:
    if item is None:
        raise NotFoundError(f"Could not find {name}")
    return item


def _delivery(connection: Connection, account_id: str, delivery_id: str) -> DeliverySummary:
    event_id, _, endpoint_id = delivery_id.partition("_")
    return _found(history.find_delivery(connection, account_id, event_id, endpoint_id), "delivery")


def _require_endpoint(connection: Connection, account_id: str, chosen: DeliveryFilter) -> None:
    if chosen.endpoint_id is not None:
        _found(endpoints.find_endpoint(connection, account_id, chosen.endpoint_id), "endpoint")


def _require_replayable(connection: Connection, account_id: str, delivery: DeliverySummary) -> None:
    if delivery.state is DeliveryState.WAITING:
        raise ConflictError("The delivery is under way")
    if not delivery.is_kept:
        raise ConflictError("The payload is not kept any more")
    endpoint = endpoints.find_endpoint(connection, account_id, delivery.endpoint_id)
    if endpoint is None or endpoint.url is None:
        raise ConflictError("The endpoint has no URL")
