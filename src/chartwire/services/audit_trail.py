"""The audit trail, to be searched and taken along. Whoever takes it along is in it."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from enum import StrEnum

import orjson

from chartwire.clock import Clock, iso
from chartwire.services.listing import Asked, Listed, Listing
from chartwire.store import audit
from chartwire.store.audit import AuditEntry, AuditFilter
from chartwire.store.database import Database
from chartwire.store.vault import Vault

_BATCH = 1000
_COLUMNS = ("at", "actor", "action", "patient_id", "subject", "outcome")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class ExportForm(StrEnum):
    """What an export is written as."""

    CSV = "csv"
    NDJSON = "ndjson"


class AuditService:
    """Reads the trail of one account at a time."""

    def __init__(self, database: Database, vault: Vault, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._listing = Listing(vault, "audit", audit.ORDERS, "-when")

    async def search(self, account_id: str, chosen: AuditFilter, asked: Asked) -> Listed[AuditEntry]:
        """Entries, the newest first unless asked otherwise. Raises as `BrowseService`."""
        window = self._listing.window(asked)
        part = await self._database.read(lambda connection: audit.page(connection, account_id, chosen, window))
        return self._listing.listed(window, part)

    async def export(
        self, account_id: str, actor: str, chosen: AuditFilter, form: ExportForm = ExportForm.CSV
    ) -> AsyncIterator[bytes]:
        """All that is chosen, the newest first; that it was taken is written down first.

        CSV is in UTF-8 (RFC 4180); NDJSON has an object a line, its keys those of the columns.
        """
        await self._database.write(
            lambda connection: audit.record(connection, self._clock(), account_id, actor, "audit.export")
        )
        return self._lines(account_id, chosen, form)

    async def _lines(self, account_id: str, chosen: AuditFilter, form: ExportForm) -> AsyncIterator[bytes]:
        if form is ExportForm.CSV:
            yield csv_lines([_COLUMNS])
        before: int | None = None
        while entries := await self._batch(account_id, chosen, before):
            yield csv_lines([_row(entry) for entry in entries]) if form is ExportForm.CSV else _ndjson(entries)
            before = entries[-1].seq

    async def _batch(self, account_id: str, chosen: AuditFilter, before: int | None) -> list[AuditEntry]:
        return await self._database.read(
            lambda connection: audit.search(connection, account_id, chosen, before, _BATCH)
        )


def _row(entry: AuditEntry) -> Sequence[str]:
    return row_of(entry.at, entry.actor, entry.action, entry.patient_id or "", entry.subject or "", entry.outcome)


def _ndjson(entries: Sequence[AuditEntry]) -> bytes:
    lines = ((iso(each.at), each.actor, each.action, each.patient_id, each.subject, each.outcome) for each in entries)
    return b"".join(orjson.dumps(dict(zip(_COLUMNS, line, strict=True))) + b"\n" for line in lines)


def row_of(at: datetime, *values: str) -> Sequence[str]:
    """A row of an export: a spreadsheet must not take a value for a formula."""
    return [iso(at), *(f"'{value}" if value.startswith(_FORMULA_STARTS) else value for value in values)]


def csv_lines(rows: Sequence[Sequence[str]]) -> bytes:
    """Rows of CSV."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
