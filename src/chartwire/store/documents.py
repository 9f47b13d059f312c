"""Documents that are here: their references, which replaced which, which are to be announced.

Bytes are in `blobs`, by digest. Functions that a customer's request leads to take the account's id and find nothing of
any other account.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Row,
    Select,
    bindparam,
    delete,
    func,
    or_,
    select,
    update,
)

from chartwire.model.document import (
    CodeableConcept,
    Coding,
    Document,
    DocumentStatus,
    RemoteDocument,
    StepState,
)
from chartwire.model.listing import Part, Window
from chartwire.model.quarantine import QuarantineState
from chartwire.store.database import Bell, ring
from chartwire.store.listing import read_part
from chartwire.store.records import from_json, to_row
from chartwire.store.schema import announcement, document, document_replacement, intake_step, quarantined_document

ORDERS = {
    "arrived": document.c.id,
    "title": func.lower(func.coalesce(document.c.description, document.c.title)),
    "network": document.c.network,
    "type": document.c.mime_type,
    "size": document.c.size,
    "state": document.c.status,
}

# --- keeping ----------------------------------------------------------------------------------------------------------


_INSERT = document.insert()


def _newest(*conditions: ColumnElement[bool]) -> Select[Any]:
    return select(document).where(*conditions).order_by(document.c.id.desc()).limit(1)


_OF_PATIENT = document.c.patient_id == bindparam("patient")
_WITH_DIGEST = _newest(_OF_PATIENT, document.c.sha256 == bindparam("digest"))
_WITH_IDENTIFIER = _newest(_OF_PATIENT, document.c.master_identifier == bindparam("identifier"))

LATER_VERSIONS = select(document_replacement.c.document_id).where(
    document_replacement.c.patient_id == bindparam("patient"),
    document_replacement.c.master_identifier == bindparam("identifier"),
    document_replacement.c.document_id != bindparam("document"),
)
"""The documents that say they replace one."""


def insert_document(connection: Connection, record: Document) -> None:
    """Write a new document; its bytes must be safely stored already."""
    row = to_row(record)
    row["replaces"] = list(record.replaces)
    connection.execute(_INSERT, row)
    earlier = [
        {"patient_id": record.patient_id, "master_identifier": identifier, "document_id": record.id}
        for identifier in dict.fromkeys(record.replaces)
    ]
    if earlier:
        connection.execute(document_replacement.insert(), earlier)


def find_held(connection: Connection, patient_id: str, remote: RemoteDocument, sha256: str | None) -> Document | None:
    """The patient's document with the same bytes, or else with the same master identifier; the newest of these."""
    row = None
    if sha256 is not None:
        row = connection.execute(_WITH_DIGEST, {"patient": patient_id, "digest": sha256}).one_or_none()
    if row is None and remote.master_identifier is not None:
        same = {"patient": patient_id, "identifier": remote.master_identifier}
        row = connection.execute(_WITH_IDENTIFIER, same).one_or_none()
    return None if row is None else _document(row)


def set_status(connection: Connection, document_id: str, status: DocumentStatus) -> None:
    """Take over the status that a network now gives."""
    connection.execute(update(document).where(document.c.id == document_id).values(status=status))


def mark_replaced(connection: Connection, old_id: str, new_id: str) -> None:
    """The old version is superseded by the new one; one that was an error stays an error."""
    is_current = document.c.status == DocumentStatus.CURRENT
    connection.execute(update(document).where(document.c.id == old_id).values(replaced_by=new_id))
    connection.execute(
        update(document).where(document.c.id == old_id, is_current).values(status=DocumentStatus.SUPERSEDED)
    )


def apply_replacements(connection: Connection, record: Document) -> None:
    """Mark what `record` replaces; and `record` itself, if a later version arrived before it."""
    if record.replaces:
        for earlier in connection.execute(earlier_versions(record)).scalars().all():
            mark_replaced(connection, earlier, record.id)
    if record.master_identifier is not None:
        same = {"patient": record.patient_id, "identifier": record.master_identifier, "document": record.id}
        for later in connection.execute(LATER_VERSIONS, same).scalars().all():
            mark_replaced(connection, record.id, later)


def earlier_versions(record: Document) -> Select[str]:
    """The documents that `record` says it replaces."""
    return select(document.c.id).where(
        document.c.patient_id == record.patient_id,
        document.c.master_identifier.in_(record.replaces),
        document.c.id != record.id,
    )


# --- announcing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Announced:
    """A document that a message will name, with the query that brought it."""

    announcement_id: int
    query_id: str
    document: Document


@dataclass(frozen=True, slots=True)
class Waiting:
    """What of an account waits to be announced: how many documents, bytes of message, and until when."""

    count: int
    size: int
    due_at: datetime | None


_INSERT_ANNOUNCEMENT = announcement.insert()
_WAITING = select(func.count(), func.coalesce(func.sum(announcement.c.size), 0), func.min(announcement.c.due_at)).where(
    announcement.c.account_id == bindparam("account")
)
_NEXT = select(func.min(announcement.c.due_at))
_BY_ACCOUNT = select(announcement.c.account_id)
DUE_ACCOUNTS = _BY_ACCOUNT.where(announcement.c.due_at <= bindparam("now")).union(
    _BY_ACCOUNT.where(announcement.c.due_at > bindparam("too_late"))
)
"""Two ranges of the index of due times."""


def add_announcement(
    connection: Connection, account_id: str, document_id: str, query_id: str, size: int, due_at: datetime
) -> None:
    """Let a document be announced at `due_at` at the latest. `size` estimates its part of the message in bytes."""
    values = {"account_id": account_id, "document_id": document_id, "query_id": query_id}
    connection.execute(_INSERT_ANNOUNCEMENT, {**values, "size": size, "due_at": due_at})
    ring(connection, Bell.ANNOUNCE)


def waiting_announcements(connection: Connection, account_id: str) -> Waiting:
    """How much of an account waits to be announced."""
    row = connection.execute(_WAITING, {"account": account_id}).one()
    return Waiting(row[0], row[1], row[2])


def due_accounts(connection: Connection, now: datetime, window: timedelta) -> list[str]:
    """Accounts whose coalescing window has closed; or would close later than a whole `window` from now, because the
    clock has been put back since it opened."""
    return list(connection.execute(DUE_ACCOUNTS, {"now": now, "too_late": now + window}).scalars())


def next_announcement(connection: Connection) -> datetime | None:
    """When the next coalescing window closes."""
    earliest: datetime | None = connection.execute(_NEXT).scalar_one()
    return earliest


def take_announcements(connection: Connection, account_id: str, limit: int, size: int) -> list[Announced]:
    """Remove and return the account's oldest announcements: up to `limit` of them, and `size` bytes if they are more
    than one."""
    rows = connection.execute(
        select(document, announcement.c.id.label("number"), announcement.c.query_id.label("by"), announcement.c.size)
        .join(document, document.c.id == announcement.c.document_id)
        .where(announcement.c.account_id == account_id)
        .order_by(announcement.c.id)
        .limit(limit)
    ).all()
    taken: list[Announced] = []
    total = 0
    for row in rows:
        total += row[-1]
        if taken and total > size:
            break
        taken.append(Announced(row.number, row.by, _document(row)))
    connection.execute(delete(announcement).where(announcement.c.id.in_([item.announcement_id for item in taken])))
    return taken


# --- reading ----------------------------------------------------------------------------------------------------------


CodeGroup = tuple[tuple[str | None, str], ...]
"""Codes of which one is wanted, each with its system, or None for any."""


@dataclass(frozen=True, slots=True)
class DocumentFilter:
    """Which documents of an account: those that fulfil every part that is given. None asks for nothing, an empty
    tuple for what cannot be.

    Dates are compared with `indexed`, or with the time of storing where a network gave none. Identifiers are document
    ids and normalised master identifiers. Of each group of `types` and of `categories` a document has one code.
    `content` is looked for in title, description, type, author and file name, whatever its case.
    """

    patient_ids: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None
    identifiers: tuple[str, ...] | None = None
    statuses: tuple[DocumentStatus, ...] | None = None
    indexed_from: datetime | None = None
    indexed_before: datetime | None = None
    types: tuple[CodeGroup, ...] = ()
    categories: tuple[CodeGroup, ...] = ()
    content: str | None = None

    @property
    def needs_reading(self) -> bool:
        """Whether the database alone cannot tell: codes are JSON, and its idea of case ends with ASCII."""
        return bool(self.types or self.categories or self.content)

    def admits(self, record: Document) -> bool:
        """Whether a document fulfils the parts that `needs_reading` speaks of."""
        return (
            all(_has_code(record.type, group) for group in self.types)
            and all(_has_code(record.category, group) for group in self.categories)
            and (self.content is None or self.content.casefold() in _searched_text(record).casefold())
        )


def latest_documents(connection: Connection, account_id: str, limit: int) -> list[Document]:
    """The documents that arrived last, the newest first."""
    newest = select(document).where(document.c.account_id == account_id).order_by(document.c.id.desc()).limit(limit)
    return [_document(row) for row in connection.execute(newest)]


def get_document(connection: Connection, account_id: str, document_id: str) -> Document | None:
    """A document of the account by its id."""
    return _first(connection, document.c.account_id == account_id, document.c.id == document_id)


def get_document_by_file_name(connection: Connection, account_id: str, file_name: str) -> Document | None:
    """A document of the account by its file name."""
    return _first(connection, document.c.account_id == account_id, document.c.file_name == file_name)


def find_document(connection: Connection, document_id: str) -> Document | None:
    """A document by its id, whosoever it is: for a signed link, which stands for its account's consent."""
    return _first(connection, document.c.id == document_id)


def list_documents(
    connection: Connection, account_id: str, chosen: DocumentFilter, limit: int | None = None, after: str | None = None
) -> list[Document]:
    """Documents of the account, newest first; `after` is the id of the last one already seen."""
    query = select(document).where(*_conditions(account_id, chosen)).order_by(document.c.id.desc())
    if after is not None:
        query = query.where(document.c.id < after)
    if not chosen.needs_reading:
        return [_document(row) for row in connection.execute(query.limit(limit))]
    admitted = (record for row in connection.execute(query) if chosen.admits(record := _document(row)))
    return list(islice(admitted, limit))


def page_documents(
    connection: Connection, account_id: str, chosen: DocumentFilter, network: str | None, window: Window
) -> Part[Document]:
    """A part of the documents that are chosen, ordered by one of `ORDERS`.

    `content` is looked for by the database, whose idea of case may end with ASCII.
    """
    query = select(document).where(*_conditions(account_id, chosen))
    if network is not None:
        query = query.where(document.c.network == network)
    if chosen.content is not None:
        texts = (document.c.title, document.c.description, document.c.author, document.c.file_name)
        wanted = chosen.content.lower()
        query = query.where(or_(*(func.lower(each).contains(wanted, autoescape=True) for each in texts)))
    return read_part(connection, query, ORDERS, document.c.id, window, _document)


def count_documents(connection: Connection, account_id: str, chosen: DocumentFilter) -> int:
    """How many documents `list_documents` would give without a limit."""
    if chosen.needs_reading:
        return len(list_documents(connection, account_id, chosen))
    return connection.execute(
        select(func.count()).select_from(document).where(*_conditions(account_id, chosen))
    ).scalar_one()


def documents_of_query(connection: Connection, query_id: str) -> list[Document]:
    """The documents that a query brought, in the order in which they came."""
    rows = connection.execute(
        select(document)
        .join(intake_step, intake_step.c.document_id == document.c.id)
        .where(intake_step.c.query_id == query_id, intake_step.c.state == StepState.DONE)
        .order_by(document.c.id)
    )
    return [_document(row) for row in rows]


def kept_digests(*digests: str) -> CompoundSelect[str]:
    """All content, or that of `digests`, that some document has, or one that is held for review or about to be taken
    in."""
    aside = quarantined_document.c
    kept = select(document.c.sha256)
    held = select(aside.sha256).where(aside.state != QuarantineState.DISCARDED)
    if digests:
        kept, held = kept.where(document.c.sha256.in_(digests)), held.where(aside.sha256.in_(digests))
    return kept.union(held)


def referenced_digests(connection: Connection, digests: Sequence[str]) -> set[str]:
    """Those of `digests` whose bytes are still needed."""
    return set(connection.execute(kept_digests(*digests)).scalars()) if digests else set()


def _conditions(account_id: str, chosen: DocumentFilter) -> list[ColumnElement[bool]]:
    dated = func.coalesce(document.c.indexed, document.c.created_at)
    conditions = [document.c.account_id == account_id]
    if chosen.patient_ids is not None:
        conditions.append(document.c.patient_id.in_(chosen.patient_ids))
    if chosen.ids is not None:
        conditions.append(document.c.id.in_(chosen.ids))
    if chosen.identifiers is not None:
        named = chosen.identifiers
        conditions.append(or_(document.c.id.in_(named), document.c.master_identifier.in_(named)))
    if chosen.statuses is not None:
        conditions.append(document.c.status.in_(chosen.statuses))
    if chosen.indexed_from is not None:
        conditions.append(dated >= chosen.indexed_from)
    if chosen.indexed_before is not None:
        conditions.append(dated < chosen.indexed_before)
    return conditions


def _has_code(concept: CodeableConcept | None, wanted: CodeGroup) -> bool:
    codings = concept.coding if concept else ()
    return any(coding.code == code and system in {None, coding.system} for coding in codings for system, code in wanted)


def _searched_text(record: Document) -> str:
    kind = record.type or CodeableConcept()
    parts = (record.title, record.description, record.author, record.file_name, kind.text)
    return "\n".join(part for part in (*parts, *(coding.display for coding in kind.coding)) if part)


def _first(connection: Connection, *conditions: ColumnElement[bool]) -> Document | None:
    row = connection.execute(_newest(*conditions)).one_or_none()
    return None if row is None else _document(row)


def _document(row: Row[Any]) -> Document:
    return Document(
        id=row.id,
        account_id=row.account_id,
        patient_id=row.patient_id,
        query_id=row.query_id,
        network=row.network,
        file_name=row.file_name,
        status=DocumentStatus(row.status),
        mime_type=row.mime_type,
        size=row.size,
        sha1=row.sha1,
        sha256=row.sha256,
        created_at=row.created_at,
        title=row.title,
        declared_type=row.declared_type,
        master_identifier=row.master_identifier,
        description=row.description,
        indexed=row.indexed,
        type=None if row.type is None else from_json(CodeableConcept, row.type),
        category=None if row.category is None else from_json(CodeableConcept, row.category),
        format=None if row.format is None else from_json(Coding, row.format),
        period_start=row.period_start,
        period_end=row.period_end,
        author=row.author,
        replaces=tuple(row.replaces),
        replaced_by=row.replaced_by,
    )
