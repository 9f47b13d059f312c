"""Which listed documents are here already, on a real database."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from tests.support.documents import NOW, a_document, add_patient
from tests.support.profile import open_connection

from chartwire.model.document import Document, DocumentStatus, RemoteDocument
from chartwire.store import documents, registry, sources
from chartwire.store.sources import Held


class Store:
    """A connection with two patients of one account."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.account = registry.create_account(connection, "Clinic", NOW).id
        add_patient(connection, self.account, "p1")
        add_patient(connection, self.account, "p2")
        self._made = 0

    def keep(self, **changes: Any) -> Document:
        """Write a document of p1 that differs from all before in its bytes."""
        self._made += 1
        record = a_document(self.account, "p1", f"content {self._made}".encode(), **changes)
        documents.insert_document(self.connection, record)
        return record

    def find(self, *listed: RemoteDocument, patient_id: str = "p1", network: str = "mercy") -> dict[str, Held]:
        """Which of `listed` are held."""
        return sources.find_listed(self.connection, patient_id, network, listed)

    def acknowledge(self, remote: RemoteDocument) -> None:
        """Mercy lists what is held."""
        sources.acknowledge(self.connection, "p1", "mercy", remote, self.find(remote)[remote.key])

    def status(self, record: Document) -> DocumentStatus:
        """The document's status now."""
        found = documents.find_document(self.connection, record.id)
        assert found is not None
        return found.status


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_connection(tmp_path) as connection:
        yield Store(connection)


def test_a_source_leads_to_its_document_within_its_patient_and_network(store: Store) -> None:
    record, later = store.keep(), store.keep()
    listed = RemoteDocument("k1")
    assert store.find(listed) == {}
    sources.add_source(store.connection, "p1", "mercy", "k1", record.id)
    assert store.find(listed) == {"k1": Held(record.id, DocumentStatus.CURRENT, by_key=True)}
    assert store.find(listed, network="other") == {}
    assert store.find(listed, patient_id="p2") == {}
    sources.add_source(store.connection, "p1", "mercy", "k1", later.id)
    assert store.find(listed) == {"k1": Held(later.id, DocumentStatus.CURRENT, by_key=True)}


def test_a_listed_document_is_held_by_its_key_or_else_by_its_master_identifier(store: Store) -> None:
    by_key = store.keep(master_identifier="1.1")
    older, newer = store.keep(master_identifier="1.2"), store.keep(master_identifier="1.2")
    sources.add_source(store.connection, "p1", "mercy", "k1", by_key.id)
    found = store.find(
        RemoteDocument("k1", master_identifier="1.2"),
        RemoteDocument("k2", master_identifier="1.2"),
        RemoteDocument("k3", master_identifier="1.3"),
        RemoteDocument("k4"),
    )
    assert {key: held.id for key, held in found.items()} == {"k1": by_key.id, "k2": newer.id}
    assert older.id not in {held.id for held in found.values()}


def test_what_was_acknowledged_is_known_by_its_key(store: Store) -> None:
    record = store.keep(master_identifier="1.1")
    store.acknowledge(RemoteDocument("k1", master_identifier="1.1"))
    assert store.find(RemoteDocument("k1"))["k1"].id == record.id


@pytest.mark.parametrize("before", list(DocumentStatus))
@pytest.mark.parametrize("listed", list(DocumentStatus))
def test_a_status_goes_from_current_to_superseded_to_error_and_never_back(
    store: Store, before: DocumentStatus, listed: DocumentStatus
) -> None:
    record = store.keep(master_identifier="1.1", status=before)
    store.acknowledge(RemoteDocument("k1", master_identifier="1.1", status=listed))
    life = list(DocumentStatus)
    assert store.status(record) is max(before, listed, key=life.index)
