"""How the installation runs, and to whom the data of a patient went."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from chartwire.clock import Clock
from chartwire.model.listing import Order, Part, Window
from chartwire.model.operations import Disclosure, Queue, Storage, Worker
from chartwire.services.audit_trail import csv_lines, row_of
from chartwire.services.listing import Asked, Listed, Listing
from chartwire.services.overview import BACKLOG_BOUNDS
from chartwire.services.registry_rules import find_patient
from chartwire.settings import Settings
from chartwire.store import audit, disclosures, migrate, operations, quarantine, registry
from chartwire.store.audit import AuditEntry, AuditFilter
from chartwire.store.database import Database
from chartwire.store.vault import Vault

_BATCH = 1000
_COLUMNS = ("date", "recipient", "what", "purpose", "outcome")
_TREATMENT = "Treatment: the account's own app, as its settings say"
_QUERY = "Treatment: to find the patient's records there"
_LINK = "Treatment: a link that the account gave out"


@dataclass(frozen=True, slots=True)
class Operations:
    """The whole at one look. `made` is the last step of the schema that the database has, `head` the last there is."""

    workers: list[Worker]
    queues: list[Queue]
    storage: Storage
    made: str | None
    head: str


class OperationsService:
    """Looks at the installation for one account at a time."""

    def __init__(self, database: Database, vault: Vault, clock: Clock, settings: Settings) -> None:
        self._database = database
        self._clock = clock
        self._folder = settings.data_dir if settings.blobs.startswith("file:") else None
        self._disclosures = Listing(vault, "disclosures", disclosures.ORDERS, "-when")

    async def look(self, account_id: str) -> Operations:
        """How it runs now."""
        now = self._clock()
        disk = None if self._folder is None else await asyncio.to_thread(shutil.disk_usage, self._folder)

        def read(connection: Connection) -> Operations:
            count, size = operations.documents_kept(connection, account_id)
            made, head = migrate.where(connection)
            return Operations(
                workers=operations.workers(connection, now),
                queues=operations.queues(connection, account_id, now, BACKLOG_BOUNDS),
                storage=Storage(
                    documents=count,
                    document_bytes=size,
                    held=quarantine.count_held(connection, account_id),
                    database_bytes=operations.database_bytes(connection),
                    disk_free=None if disk is None else disk.free,
                    disk_total=None if disk is None else disk.total,
                ),
                made=made,
                head=head,
            )

        return await self._database.read(read)

    async def disclosures(self, account_id: str, actor: str, chosen: AuditFilter, asked: Asked) -> Listed[Disclosure]:
        """To whom the data of the chosen patient went (45 CFR 164.528); that somebody asked is written down.

        Raises `NotFoundError` for an unknown patient, and as `BrowseService`.
        """
        window = self._disclosures.window(asked)
        await self._note(account_id, actor, chosen)
        return self._disclosures.listed(window, await self._read(account_id, chosen, window))

    async def export_disclosures(self, account_id: str, actor: str, chosen: AuditFilter) -> AsyncIterator[bytes]:
        """All of them as CSV in UTF-8 (RFC 4180), the oldest first."""
        await self._note(account_id, actor, chosen)
        return self._lines(account_id, chosen)

    async def _lines(self, account_id: str, chosen: AuditFilter) -> AsyncIterator[bytes]:
        yield csv_lines([_COLUMNS])
        window: Window | None = Window(Order("when"), _BATCH)
        while window is not None:
            part = await self._read(account_id, chosen, window)
            yield csv_lines(
                [row_of(each.at, each.recipient, each.what, each.purpose, each.outcome) for each in part.items]
            )
            window = None if part.end is None else Window(window.order, _BATCH, part.end)

    async def _read(self, account_id: str, chosen: AuditFilter, window: Window) -> Part[Disclosure]:
        def read(connection: Connection) -> Part[Disclosure]:
            part = disclosures.page(connection, account_id, chosen, window)
            return Part(_told(connection, account_id, part.items), part.end)

        return await self._database.read(read)

    async def _note(self, account_id: str, actor: str, chosen: AuditFilter) -> None:
        now = self._clock()

        def unit(connection: Connection) -> None:
            if chosen.patient_id is not None:
                find_patient(connection, account_id, chosen.patient_id)
            audit.record(connection, now, account_id, actor, "disclosure.report", chosen.patient_id)

        await self._database.write(unit)


def _told(connection: Connection, account_id: str, entries: Sequence[AuditEntry]) -> list[Disclosure]:
    """Entries with names for what they speak of by ids."""
    endpoints = disclosures.endpoint_names(connection, account_id)
    keys = {key.id: key.label or key.hint for key in registry.list_api_keys(connection, account_id)}
    asked = [entry.subject for entry in entries if entry.action == "document.query" and entry.subject]
    networks = disclosures.networks_of(connection, asked)

    def tell(entry: AuditEntry) -> Disclosure:
        subject = entry.subject or ""
        match entry.action:
            case "webhook.attempt":
                recipient = f"App at {endpoints.get(subject.rpartition('/')[2], 'a deleted endpoint')}"
                what = f"Message {subject.split('/')[1]} by webhook" if "/" in subject else "Message by webhook"
                purpose = _TREATMENT
            case "document.query":
                names = networks.get(subject, [])
                recipient = f"Health networks: {', '.join(names)}" if names else "Health networks"
                what, purpose = f"Demographics, to ask for documents (request {subject})", _QUERY
            case "document.download":
                recipient, what, purpose = "Whoever had the signed link", f"Document {subject}", _LINK
            case action:
                kind, _, key_id = entry.actor.partition(":")
                recipient = f"App with the API key {keys.get(key_id, key_id)}" if kind == "key" else entry.actor
                what, purpose = f"{_WHAT.get(action, action)} {subject}".strip(), _TREATMENT
        return Disclosure(entry.seq, entry.at, recipient, what, purpose, entry.outcome)

    return [tell(entry) for entry in entries]


_WHAT = {
    "document.read": "Document",
    "document.list": "List of documents",
    "document.search": "List of documents",
    "event.read": "Payload of message",
    "event.pull": "Messages, pulled",
    "patient.read": "Demographics",
    "patient.match": "Demographics",
}
