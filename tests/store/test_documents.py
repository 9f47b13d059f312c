"""Documents, their sources, replacements and announcements, on a real database."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from tests.support.documents import CCD, NOW, a_document, add_patient
from tests.support.profile import open_connection

from chartwire.model.document import (
    CodeableConcept,
    Coding,
    Document,
    DocumentQuery,
    DocumentStatus,
    NetworkStep,
    QueryStatus,
    RemoteDocument,
    StepState,
)
from chartwire.store import documents, queries, registry, sources
from chartwire.store.database import Bell
from chartwire.store.documents import DocumentFilter

SECOND = timedelta(seconds=1)


class Store:
    """A connection with two accounts that have one patient each, and short names for what the tests do with it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.account = registry.create_account(connection, "Clinic", NOW).id
        self.other = registry.create_account(connection, "Another", NOW).id
        add_patient(connection, self.account, "p1")
        add_patient(connection, self.account, "p2")
        add_patient(connection, self.other, "p3")
        self._made = 0

    def keep(self, account_id: str | None = None, patient_id: str = "p1", **changes: Any) -> Document:
        """Write a document that differs from all before in its bytes."""
        self._made += 1
        record = a_document(account_id or self.account, patient_id, f"content {self._made}".encode(), **changes)
        documents.insert_document(self.connection, record)
        return record

    def get(self, record: Document) -> Document:
        """The document as it is now."""
        found = documents.get_document(self.connection, record.account_id, record.id)
        assert found is not None
        return found

    def list_ids(self, chosen: DocumentFilter, limit: int | None = None, after: str | None = None) -> list[str]:
        """Ids of the account's documents that fulfil a filter."""
        return [each.id for each in documents.list_documents(self.connection, self.account, chosen, limit, after)]

    def start_query(self) -> DocumentQuery:
        """A query of p1 at the network mercy."""
        query = DocumentQuery("q1", self.account, "p1", None, QueryStatus.PROCESSING, NOW)
        queries.start_query(self.connection, query, ["mercy"])
        return query


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_connection(tmp_path) as connection:
        yield Store(connection)


FULL: dict[str, Any] = {
    "declared_type": "text/xml",
    "master_identifier": "1.2.3",
    "category": CodeableConcept((Coding("s", "c", "d"),), "t"),
    "format": Coding("s", "f"),
    "period_start": NOW - SECOND,
    "period_end": NOW,
    "author": "Dr. Roe",
    "replaces": ("1.2.2", "1.2.1"),
    "replaced_by": "x",
}


def test_a_document_is_read_as_it_was_written(store: Store) -> None:
    bare = store.keep(type=None, indexed=None, description=None)
    full = store.keep(**FULL)
    assert store.get(bare) == bare
    assert store.get(full) == full


def test_documents_of_another_account_are_not_found(store: Store) -> None:
    record = store.keep(store.other, "p3")
    assert documents.get_document(store.connection, store.account, record.id) is None
    assert documents.get_document_by_file_name(store.connection, store.account, record.file_name) is None
    assert store.list_ids(DocumentFilter(patient_ids=("p3",))) == []
    assert store.list_ids(DocumentFilter()) == []
    assert documents.count_documents(store.connection, store.account, DocumentFilter(ids=(record.id,))) == 0


def test_a_document_is_found_by_its_file_name(store: Store) -> None:
    record = store.keep()
    assert documents.get_document_by_file_name(store.connection, store.account, record.file_name) == record
    assert documents.get_document_by_file_name(store.connection, store.account, record.file_name.upper()) is None


def test_the_same_bytes_are_kept_once_per_patient(store: Store) -> None:
    record = store.keep()
    twin = replace(record, id="twin", file_name="twin.pdf")
    with pytest.raises(IntegrityError), store.connection.begin_nested():
        documents.insert_document(store.connection, twin)
    documents.insert_document(store.connection, replace(twin, patient_id="p2"))


def test_deleting_a_patient_takes_its_documents_along(store: Store) -> None:
    record = store.keep()
    sources.add_source(store.connection, "p1", "mercy", "k1", record.id)
    documents.add_announcement(store.connection, store.account, record.id, "q1", 100, NOW)
    registry.delete_patient(store.connection, "p1")
    assert documents.find_document(store.connection, record.id) is None
    assert documents.next_announcement(store.connection) is None
    assert documents.referenced_digests(store.connection, [record.sha256]) == set()


# --- held or not ------------------------------------------------------------------------------------------------------


def test_a_document_is_held_by_its_bytes_or_else_by_its_master_identifier(store: Store) -> None:
    by_bytes = store.keep(master_identifier="1.1")
    by_name = store.keep(master_identifier="1.2")
    find = documents.find_held
    listed = RemoteDocument(key="k", master_identifier="1.2")
    assert find(store.connection, "p1", listed, by_bytes.sha256) == by_bytes
    assert find(store.connection, "p1", listed, "0" * 64) == by_name
    assert find(store.connection, "p1", listed, None) == by_name
    assert find(store.connection, "p2", listed, by_bytes.sha256) is None
    assert find(store.connection, "p1", RemoteDocument(key="k"), None) is None


def test_of_two_versions_under_one_master_identifier_the_newer_is_held(store: Store) -> None:
    store.keep(master_identifier="1.2")
    newer = store.keep(master_identifier="1.2")
    assert documents.find_held(store.connection, "p1", RemoteDocument("k", "1.2"), None) == newer


# --- versions ---------------------------------------------------------------------------------------------------------


def test_a_later_version_supersedes_the_earlier_one(store: Store) -> None:
    old = store.keep(master_identifier="1.1")
    new = store.keep(master_identifier="1.2", replaces=("1.1",))
    documents.apply_replacements(store.connection, new)
    assert (store.get(old).status, store.get(old).replaced_by) == (DocumentStatus.SUPERSEDED, new.id)
    assert (store.get(new).status, store.get(new).replaced_by) == (DocumentStatus.CURRENT, None)


def test_an_earlier_version_that_arrives_late_is_superseded_at_once(store: Store) -> None:
    new = store.keep(master_identifier="1.2", replaces=("1.1",))
    old = store.keep(master_identifier="1.1")
    documents.apply_replacements(store.connection, old)
    assert (store.get(old).status, store.get(old).replaced_by) == (DocumentStatus.SUPERSEDED, new.id)
    assert store.get(new).status is DocumentStatus.CURRENT


def test_replacements_stay_within_the_patient(store: Store) -> None:
    elsewhere = store.keep(patient_id="p2", master_identifier="1.1")
    new = store.keep(master_identifier="1.2", replaces=("1.1",))
    documents.apply_replacements(store.connection, new)
    assert store.get(elsewhere).status is DocumentStatus.CURRENT


def test_documents_without_identifiers_replace_nothing(store: Store) -> None:
    first, second = store.keep(), store.keep()
    documents.apply_replacements(store.connection, second)
    assert [store.get(each).status for each in (first, second)] == [DocumentStatus.CURRENT] * 2


@pytest.mark.parametrize("order", ["ABC", "CBA", "CAB", "BAC", "ACB", "BCA"])
def test_of_a_chain_of_versions_the_last_alone_is_current(store: Store, order: str) -> None:
    chain = {"A": (), "B": ("A",), "C": ("B",)}
    kept = {}
    for name in order:
        kept[name] = store.keep(master_identifier=name, replaces=chain[name])
        documents.apply_replacements(store.connection, kept[name])
    now = {name: store.get(record) for name, record in kept.items()}
    assert {name: record.replaced_by for name, record in now.items()} == {
        "A": kept["B"].id,
        "B": kept["C"].id,
        "C": None,
    }
    assert [now[name].status for name in "ABC"] == [DocumentStatus.SUPERSEDED] * 2 + [DocumentStatus.CURRENT]


def test_an_error_that_is_replaced_stays_an_error(store: Store) -> None:
    old = store.keep(master_identifier="1.1", status=DocumentStatus.ENTERED_IN_ERROR)
    new = store.keep(master_identifier="1.2", replaces=("1.1",))
    documents.apply_replacements(store.connection, new)
    assert (store.get(old).status, store.get(old).replaced_by) == (DocumentStatus.ENTERED_IN_ERROR, new.id)


# --- announcing -------------------------------------------------------------------------------------------------------


def _announce(store: Store, record: Document, size: int = 100, due_in: timedelta = SECOND, by: str = "q1") -> None:
    documents.add_announcement(store.connection, record.account_id, record.id, by, size, NOW + due_in)


def _taken(store: Store, limit: int = 100, size: int = 1000) -> list[str]:
    return [each.document.id for each in documents.take_announcements(store.connection, store.account, limit, size)]


def test_announcements_are_counted_per_account(store: Store) -> None:
    assert documents.waiting_announcements(store.connection, store.account) == documents.Waiting(0, 0, None)
    _announce(store, store.keep(), size=100, due_in=2 * SECOND)
    _announce(store, store.keep(), size=50)
    _announce(store, store.keep(store.other, "p3"), due_in=3 * SECOND)
    waiting = documents.waiting_announcements(store.connection, store.account)
    assert waiting == documents.Waiting(2, 150, NOW + SECOND)
    assert documents.due_accounts(store.connection, NOW, 5 * SECOND) == []
    assert documents.due_accounts(store.connection, NOW + SECOND, 5 * SECOND) == [store.account]
    assert set(documents.due_accounts(store.connection, NOW + 3 * SECOND, 5 * SECOND)) == {store.account, store.other}
    assert documents.next_announcement(store.connection) == NOW + SECOND


def test_a_window_that_the_clock_was_put_back_behind_has_closed(store: Store) -> None:
    _announce(store, store.keep(), due_in=SECOND)
    hour_ago = NOW - timedelta(hours=1)
    assert documents.due_accounts(store.connection, hour_ago, SECOND) == [store.account]


def test_announcements_are_taken_once_in_order_with_their_documents(store: Store) -> None:
    first, second = store.keep(**FULL), store.keep()
    foreign = store.keep(store.other, "p3")
    for record in (first, foreign, second):
        _announce(store, record, by=f"by-{record.id}")
    taken = documents.take_announcements(store.connection, store.account, 100, 1000)
    assert [(each.document, each.query_id) for each in taken] == [
        (first, f"by-{first.id}"),
        (second, f"by-{second.id}"),
    ]
    assert _taken(store) == []
    assert documents.waiting_announcements(store.connection, store.other).count == 1


def test_announcements_are_taken_up_to_a_number(store: Store) -> None:
    records = [store.keep() for _ in range(3)]
    for record in records:
        _announce(store, record)
    assert _taken(store, limit=2) == [records[0].id, records[1].id]
    assert _taken(store, limit=2) == [records[2].id]


def test_announcements_are_taken_up_to_a_size_but_always_one(store: Store) -> None:
    records = [store.keep() for _ in range(4)]
    for record, size in zip(records, (400, 600, 1, 5000), strict=True):
        _announce(store, record, size)
    assert _taken(store, size=1000) == [records[0].id, records[1].id]
    assert _taken(store, size=1000) == [records[2].id]
    assert _taken(store, size=1000) == [records[3].id]


def test_an_announcement_shows_the_document_as_it_is_when_taken(store: Store) -> None:
    old = store.keep(master_identifier="1.1")
    _announce(store, old)
    documents.mark_replaced(store.connection, old.id, "newer")
    (taken,) = documents.take_announcements(store.connection, store.account, 10, 1000)
    assert taken.document.status is DocumentStatus.SUPERSEDED


def test_an_announcement_rings(store: Store) -> None:
    _announce(store, store.keep())
    assert Bell.ANNOUNCE in store.connection.info["bells"]


def test_documents_of_a_query_are_those_that_its_steps_brought(store: Store) -> None:
    store.start_query()
    first, held, second = store.keep(), store.keep(), store.keep()
    (network_step,) = queries.claim_network_steps(store.connection, "mercy", 1, NOW, SECOND)
    _bring(store, network_step, {"a": (second, StepState.DONE), "b": (first, StepState.DONE)})
    _bring(store, network_step, {"c": (held, StepState.HELD)})
    assert documents.documents_of_query(store.connection, "q1") == [first, second]


def _bring(store: Store, step: NetworkStep, brought: dict[str, tuple[Document, StepState]]) -> None:
    listed = [RemoteDocument(key=key) for key in brought]
    queries.add_intake_steps(store.connection, step, listed, NOW)
    for claimed in queries.claim_intake_steps(store.connection, "mercy", 10, NOW, SECOND):
        record, state = brought[claimed.remote.key]
        assert queries.settle_intake_step(store.connection, claimed, state, document_id=record.id)


# --- lists ------------------------------------------------------------------------------------------------------------


def test_documents_are_listed_newest_first_and_page_by_page(store: Store) -> None:
    ids = [store.keep().id for _ in range(5)][::-1]
    everything = DocumentFilter(patient_ids=("p1",))
    for chosen in (everything, replace(everything, types=((("http://loinc.org", "34133-9"),),))):
        assert store.list_ids(chosen) == ids
        assert store.list_ids(chosen, limit=2) == ids[:2]
        assert store.list_ids(chosen, limit=2, after=ids[1]) == ids[2:4]
        assert store.list_ids(chosen, limit=2, after=ids[4]) == []
        assert documents.count_documents(store.connection, store.account, chosen) == 5


def test_a_filter_that_allows_nothing_finds_nothing(store: Store) -> None:
    store.keep()
    for chosen in (DocumentFilter(patient_ids=()), DocumentFilter(ids=()), DocumentFilter(statuses=())):
        assert store.list_ids(chosen) == []


def test_documents_are_filtered_by_patient_id_and_status(store: Store) -> None:
    mine, old = store.keep(), store.keep(status=DocumentStatus.SUPERSEDED)
    other = store.keep(patient_id="p2")
    assert set(store.list_ids(DocumentFilter())) == {mine.id, old.id, other.id}
    assert store.list_ids(DocumentFilter(patient_ids=("p2", "p3"))) == [other.id]
    assert store.list_ids(DocumentFilter(ids=(mine.id, "unknown"))) == [mine.id]
    assert store.list_ids(DocumentFilter(statuses=(DocumentStatus.SUPERSEDED,))) == [old.id]


def test_documents_are_filtered_by_either_identifier(store: Store) -> None:
    named, unnamed = store.keep(master_identifier="1.2.3"), store.keep()
    store.keep()
    assert store.list_ids(DocumentFilter(identifiers=("1.2.3", unnamed.id))) == [unnamed.id, named.id]


def test_documents_are_filtered_by_date_from_including_to_excluding(store: Store) -> None:
    early, late = store.keep(indexed=NOW), store.keep(indexed=NOW + SECOND)
    assert store.list_ids(DocumentFilter(indexed_from=NOW)) == [late.id, early.id]
    assert store.list_ids(DocumentFilter(indexed_from=NOW + SECOND)) == [late.id]
    assert store.list_ids(DocumentFilter(indexed_before=NOW + SECOND)) == [early.id]


def test_a_document_without_a_date_of_its_own_has_that_of_its_storing(store: Store) -> None:
    record = store.keep(indexed=None, created_at=NOW)
    assert store.list_ids(DocumentFilter(indexed_from=NOW, indexed_before=NOW + SECOND)) == [record.id]
    assert store.list_ids(DocumentFilter(indexed_from=NOW + SECOND)) == []


def test_documents_are_filtered_by_codes_of_every_group(store: Store) -> None:
    both = CodeableConcept((Coding("http://loinc.org", "34133-9"), Coding("local", "CCD")))
    two, one, none = store.keep(type=both), store.keep(type=CCD), store.keep(type=None)
    loinc, local = ("http://loinc.org", "34133-9"), (None, "CCD")
    assert store.list_ids(DocumentFilter(types=((loinc,),))) == [one.id, two.id]
    assert store.list_ids(DocumentFilter(types=((loinc, local),))) == [one.id, two.id]
    assert store.list_ids(DocumentFilter(types=((loinc,), (local,)))) == [two.id]
    assert store.list_ids(DocumentFilter(types=((("urn:other", "34133-9"),),))) == []
    assert store.list_ids(DocumentFilter(categories=((loinc,),))) == []
    assert none.id in store.list_ids(DocumentFilter())


@pytest.mark.parametrize("words", ["title", "VISIT NOTE", "dr. roe", "lungs_1", "ÉPISODE", "summ"])
def test_documents_are_found_by_words_of_each_of_their_texts_whatever_their_case(store: Store, words: str) -> None:
    kind = CodeableConcept((Coding(display="épisode"),), "Summary")
    record = store.keep(title="A Title", description="Visit note", author="Dr. Roe", file_name="Lungs_1.pdf", type=kind)
    store.keep(title="Another", description=None, author=None, type=None)
    assert store.list_ids(DocumentFilter(content=words)) == [record.id]


@pytest.mark.parametrize("words", ["100%", "vis_t", "%", "unheard of"])
def test_signs_that_mean_something_to_databases_mean_nothing(store: Store, words: str) -> None:
    store.keep(title="Visit", description="100 percent")
    assert store.list_ids(DocumentFilter(content=words)) == []


def test_digests_that_some_document_has_are_known(store: Store) -> None:
    record = store.keep()
    assert documents.referenced_digests(store.connection, [record.sha256, "0" * 64]) == {record.sha256}
    assert documents.referenced_digests(store.connection, []) == set()
