"""The lists of the console: a part at a time, filtered, in the order that the address says."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from sqlalchemy import Connection

from chartwire.clock import Clock, to_milliseconds
from chartwire.model.document import Document
from chartwire.model.listing import Part, Scalar, Window, cut_part
from chartwire.model.member import Member
from chartwire.model.overview import EndpointReport, NetworkReport
from chartwire.model.registry import ApiKey, Patient
from chartwire.model.webhook import (
    AttemptFilter,
    AttemptSummary,
    DeliveryFilter,
    DeliverySummary,
    Replay,
    ReplayState,
)
from chartwire.services.listing import Asked, Listed, Listing
from chartwire.services.looks import record_look
from chartwire.services.registry_rules import find_facility
from chartwire.store import audit, documents, history, patient_lists, replays
from chartwire.store.database import Database
from chartwire.store.documents import DocumentFilter
from chartwire.store.patient_lists import PatientFilter
from chartwire.store.vault import Vault

T = TypeVar("T")
Columns = Mapping[str, Callable[[T], Scalar]]

_ENDPOINTS: Columns[EndpointReport] = {
    "added": lambda each: each.endpoint.seq,
    "endpoint": lambda each: (each.endpoint.description or each.endpoint.url or "").lower(),
    "state": lambda each: each.condition.value,
    "waiting": lambda each: each.waiting,
    "failed": lambda each: each.failed,
}
_NETWORKS: Columns[NetworkReport] = {
    "network": lambda each: each.name,
    "answered": lambda each: each.answered,
    "failed": lambda each: each.failed,
    "waiting": lambda each: each.waiting,
    "documents": lambda each: each.documents,
    "stored": lambda each: each.bytes,
}
_KEYS: Columns[ApiKey] = {
    "made": lambda each: to_milliseconds(each.created_at),
    "for": lambda each: each.label.lower(),
    "state": lambda each: "works" if each.revoked_at is None else "revoked",
}
_MEMBERS: Columns[Member] = {
    "email": lambda each: each.email,
    "role": lambda each: each.role.value,
    "factor": lambda each: int(each.has_second_factor),
    "added": lambda each: to_milliseconds(each.created_at),
}


class BrowseService:
    """Parts of the lists of one account at a time.

    Each raises `BadRequestError` for an order that the list does not have, and for an `after` that was not given out.
    """

    def __init__(self, database: Database, vault: Vault, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._deliveries = Listing(vault, "deliveries", history.DELIVERY_ORDERS, "-committed")
        self._attempts = Listing(vault, "attempts", history.ATTEMPT_ORDERS, "-began")
        self._replays = Listing(vault, "replays", replays.ORDERS, "-begun")
        self._patients = Listing(vault, "patients", patient_lists.ORDERS, "-added")
        self._documents = Listing(vault, "documents", documents.ORDERS, "-arrived")
        self._endpoints = Listing(vault, "endpoints", _ENDPOINTS, "added")
        self._networks = Listing(vault, "networks", _NETWORKS, "network")
        self._keys = Listing(vault, "keys", _KEYS, "-made")
        self._members = Listing(vault, "members", _MEMBERS, "email")

    async def deliveries(self, account_id: str, chosen: DeliveryFilter, asked: Asked) -> Listed[DeliverySummary]:
        """Deliveries."""
        return await self._read(
            self._deliveries, asked, lambda at, window: history.page_deliveries(at, account_id, chosen, window)
        )

    async def attempts(self, account_id: str, chosen: AttemptFilter, asked: Asked) -> Listed[AttemptSummary]:
        """Attempts."""
        return await self._read(
            self._attempts, asked, lambda at, window: history.page_attempts(at, account_id, chosen, window)
        )

    async def replays(self, account_id: str, state: ReplayState | None, asked: Asked) -> Listed[Replay]:
        """Replays."""
        return await self._read(
            self._replays, asked, lambda at, window: replays.page_replays(at, account_id, state, window)
        )

    async def patients(self, account_id: str, actor: str, chosen: PatientFilter, asked: Asked) -> Listed[Patient]:
        """Patients; that somebody looked is written down. Raises `NotFoundError` for an unknown facility."""

        def read(connection: Connection, window: Window) -> Part[Patient]:
            if chosen.facility_id is not None:
                find_facility(connection, account_id, chosen.facility_id)
            return patient_lists.sort_patients(connection, account_id, chosen, window)

        listed = await self._read(self._patients, asked, read)
        await self._note(account_id, actor, "patient.list")
        return listed

    async def documents(
        self, account_id: str, actor: str, chosen: DocumentFilter, network: str | None, asked: Asked
    ) -> Listed[Document]:
        """Documents of any patient; that somebody looked is written down."""
        listed = await self._read(
            self._documents, asked, lambda at, window: documents.page_documents(at, account_id, chosen, network, window)
        )
        only_patient = chosen.patient_ids[0] if chosen.patient_ids and len(chosen.patient_ids) == 1 else None
        await self._note(account_id, actor, "document.list", only_patient)
        return listed

    async def documents_of(
        self, account_id: str, actor: str, patient_id: str, text: str | None, asked: Asked, *, again: bool
    ) -> Listed[Document]:
        """Those of one patient, on a page that refreshes itself; see `record_look`."""
        chosen, now = DocumentFilter(patient_ids=(patient_id,), content=text), self._clock()
        listed = await self._read(
            self._documents, asked, lambda at, window: documents.page_documents(at, account_id, chosen, None, window)
        )
        await self._database.write(
            lambda at: record_look(at, now, account_id, actor, "document.list", patient_id, again=again)
        )
        return listed

    def endpoints(self, reports: Iterable[EndpointReport], asked: Asked) -> Listed[EndpointReport]:
        """Of all endpoints."""
        return _cut(self._endpoints, reports, _ENDPOINTS, lambda each: each.endpoint.seq, asked)

    def networks(self, reports: Iterable[NetworkReport], asked: Asked) -> Listed[NetworkReport]:
        """Of all networks."""
        return _cut(self._networks, reports, _NETWORKS, lambda each: each.name, asked)

    def keys(self, keys: Iterable[ApiKey], asked: Asked) -> Listed[ApiKey]:
        """Of all API keys."""
        return _cut(self._keys, keys, _KEYS, lambda each: each.id, asked)

    def members(self, members: Iterable[Member], asked: Asked) -> Listed[Member]:
        """Of all members."""
        return _cut(self._members, members, _MEMBERS, lambda each: each.id, asked)

    async def _read(self, listing: Listing, asked: Asked, read: Callable[[Connection, Window], Part[T]]) -> Listed[T]:
        window = listing.window(asked)
        return listing.listed(window, await self._database.read(lambda connection: read(connection, window)))

    async def _note(self, account_id: str, actor: str, action: str, patient_id: str | None = None) -> None:
        now = self._clock()
        await self._database.write(
            lambda connection: audit.record(connection, now, account_id, actor, action, patient_id)
        )


def _cut(
    listing: Listing, items: Iterable[T], columns: Columns[T], key: Callable[[T], Scalar], asked: Asked
) -> Listed[T]:
    window = listing.window(asked)
    return listing.listed(window, cut_part(items, columns, key, window))
