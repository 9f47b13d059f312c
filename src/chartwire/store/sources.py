"""Which entry of which network is which document that is here: what is known is not fetched again."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Select, bindparam, select, update

from chartwire.model.document import Document, DocumentStatus, RemoteDocument
from chartwire.store import documents
from chartwire.store.schema import document, document_source

_LIFE = (DocumentStatus.CURRENT, DocumentStatus.SUPERSEDED, DocumentStatus.ENTERED_IN_ERROR)
"""A document goes this way alone: one network may not have heard yet what another says."""


@dataclass(frozen=True, slots=True)
class Held:
    """A document that is here, as far as a listing asks. `by_key`: this very entry of the network is known to be it."""

    id: str
    status: DocumentStatus
    by_key: bool


def find_listed(
    connection: Connection, patient_id: str, network: str, listed: Sequence[RemoteDocument]
) -> dict[str, Held]:
    """Those of some hundred listed documents that are here, by key: known by the key, or else by their master
    identifier (the newest that has it)."""
    by_identifier = {
        row.master_identifier: Held(row.id, DocumentStatus(row.status), by_key=False)
        for row in sorted(connection.execute(with_identifiers(patient_id, listed)), key=lambda row: row.id)
    }
    by_key = {
        row.remote_key: Held(row.id, DocumentStatus(row.status), by_key=True)
        for row in connection.execute(with_keys(patient_id, network, listed))
    }
    named = {remote.key: remote.master_identifier for remote in listed if remote.master_identifier in by_identifier}
    return {key: by_identifier[identifier] for key, identifier in named.items()} | by_key


_INSERT = document_source.insert()
_UPDATE = update(document_source).where(
    document_source.c.patient_id == bindparam("patient"),
    document_source.c.network == bindparam("from"),
    document_source.c.remote_key == bindparam("key"),
)


def add_source(connection: Connection, patient_id: str, network: str, remote_key: str, document_id: str) -> None:
    """Remember that a network's entry is this document, whatever it was before."""
    same = {"patient": patient_id, "from": network, "key": remote_key}
    if connection.execute(_UPDATE, {**same, "document_id": document_id}).rowcount == 0:
        key = {"patient_id": patient_id, "network": network, "remote_key": remote_key}
        connection.execute(_INSERT, {**key, "document_id": document_id})


def acknowledge(connection: Connection, patient_id: str, network: str, remote: RemoteDocument, held: Held) -> None:
    """A listed document is here: remember it by its entry, and take over what the network says has become of it."""
    if not held.by_key:
        add_source(connection, patient_id, network, remote.key, held.id)
    if _LIFE.index(remote.status) > _LIFE.index(held.status):
        documents.set_status(connection, held.id, remote.status)


def held_as(record: Document) -> Held:
    """A document that was found otherwise."""
    return Held(record.id, record.status, by_key=False)


def with_keys(patient_id: str, network: str, listed: Sequence[RemoteDocument]) -> Select[str, str, str]:
    """The held documents that are known by the entries' keys."""
    return (
        select(document_source.c.remote_key, document.c.id, document.c.status)
        .join(document, document.c.id == document_source.c.document_id)
        .where(
            document_source.c.patient_id == patient_id,
            document_source.c.network == network,
            document_source.c.remote_key.in_([remote.key for remote in listed]),
        )
    )


def with_identifiers(patient_id: str, listed: Sequence[RemoteDocument]) -> Select[str | None, str, str]:
    """The held documents that have the entries' master identifiers."""
    identifiers = [remote.master_identifier for remote in listed if remote.master_identifier is not None]
    return select(document.c.master_identifier, document.c.id, document.c.status).where(
        document.c.patient_id == patient_id, document.c.master_identifier.in_(identifiers)
    )
