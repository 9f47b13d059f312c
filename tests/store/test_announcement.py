"""When documents are told, to which endpoints, and what shares a message: the outbox of a real database."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import Connection, select
from tests.support.documents import NOW, a_document, add_patient
from tests.support.profile import open_connection

from chartwire.ingestion.announcement import Announcer
from chartwire.model.document import DocumentQuery, NetworkStep, QueryStatus, RemoteDocument, StepState
from chartwire.model.webhook import DeliveryMode, PayloadVersion
from chartwire.settings import Settings
from chartwire.store import documents, endpoints, queries, registry, schema
from chartwire.store.vault import Purpose, Vault

VAULT = Vault(bytes(32))
LEASE = timedelta(minutes=1)
MILLISECOND = timedelta(milliseconds=1)


class Desk:
    """An account whose documents are stored and announced without any network."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.announcer = Announcer(VAULT, Settings(public_url="http://chartwire.test"))
        self.account = registry.create_account(connection, "Clinic", NOW).id
        self._made = 0

    def endpoint(self, version: PayloadVersion, mode: DeliveryMode) -> int:
        """Another endpoint; returns its number."""
        made = endpoints.create_settings_endpoint(self.connection, self.account, NOW)
        changes = {"payload_version": version, "delivery": mode, "url": "http://app.test", "is_settings": False}
        return endpoints.update_endpoint(self.connection, made, changes).seq

    def ask(self, patient_id: str = "p1", metadata: dict[str, str] | None = None) -> NetworkStep:
        """Start the query of a patient who is new here, and claim its only step."""
        add_patient(self.connection, self.account, patient_id)
        query_id = f"query of {patient_id}"
        query = DocumentQuery(
            query_id, self.account, patient_id, None, QueryStatus.PROCESSING, NOW, metadata, override=False
        )
        queries.start_query(self.connection, query, ["mercy"])
        (step,) = queries.claim_network_steps(self.connection, "mercy", 1, NOW, LEASE)
        return step

    def store(self, asked: NetworkStep, at: datetime = NOW, **changes: Any) -> None:
        """Fetch and announce one document."""
        self._made += 1
        queries.add_intake_steps(self.connection, asked, [RemoteDocument(f"k{self._made}")], at)
        (step,) = queries.claim_intake_steps(self.connection, "mercy", 1, at, LEASE)
        content = f"content {self._made}".encode()
        record = a_document(self.account, asked.patient_id, content, query_id=asked.query_id, **changes)
        queries.settle_intake_step(self.connection, step, StepState.DONE, document_id=record.id)
        documents.insert_document(self.connection, record)
        self.announcer.announce(self.connection, record, asked.query_id, at)

    def end(self, asked: NetworkStep, state: StepState = StepState.DONE) -> None:
        """The network has nothing more."""
        queries.settle_network_step(self.connection, asked, state)
        self.announcer.end_query_if_over(self.connection, asked.query_id, NOW)

    def messages(self, endpoint_seq: int | None = None) -> list[Any]:
        """What is in the outbox, in its order: all of it, or what is for one endpoint."""
        query = select(schema.event.c.body).order_by(schema.event.c.seq)
        if endpoint_seq is not None:
            mine = select(schema.delivery.c.event_seq).where(schema.delivery.c.endpoint_seq == endpoint_seq)
            query = query.where(schema.event.c.seq.in_(mine))
        return [orjson.loads(VAULT.open(Purpose.PAYLOAD, body)) for body in self.connection.execute(query).scalars()]

    def counts(self, endpoint_seq: int | None = None) -> list[int]:
        """How many documents each message tells of."""
        return [
            sum(len(patient["documents"]) for patient in message["patients"]) for message in self.messages(endpoint_seq)
        ]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_connection(tmp_path) as connection:
        yield Desk(connection)


def test_the_first_goes_at_once_and_what_follows_within_the_window_together(desk: Desk) -> None:
    desk.endpoint(PayloadVersion.V2023_04, DeliveryMode.AS_AVAILABLE)
    asked = desk.ask()
    for milliseconds in (0, 10, 249):
        desk.store(asked, NOW + milliseconds * MILLISECOND)
    assert desk.counts() == [1]
    assert documents.next_announcement(desk.connection) == NOW + 250 * MILLISECOND
    desk.store(asked, NOW + 250 * MILLISECOND)
    assert desk.counts() == [1, 3]
    desk.store(asked, NOW + 501 * MILLISECOND)
    assert desk.counts() == [1, 3, 1]


def test_a_hundred_waiting_documents_do_not_wait_for_the_window(desk: Desk) -> None:
    desk.endpoint(PayloadVersion.V2023_04, DeliveryMode.AS_AVAILABLE)
    asked = desk.ask()
    for _ in range(202):
        desk.store(asked)
    assert desk.counts() == [1, 100, 100]


def test_half_a_mebibyte_does_not_wait_for_the_window_and_is_not_exceeded(desk: Desk) -> None:
    desk.endpoint(PayloadVersion.V2023_04, DeliveryMode.AS_AVAILABLE)
    asked = desk.ask(metadata={"k": "v" * 500})
    for _ in range(9):
        desk.store(asked, description="d" * 100_000)
    assert desk.counts() == [1, 5, 1]  # with the sixth there was too much; it was told alone
    assert all(len(orjson.dumps(message)) < 512 * 1024 for message in desk.messages())
    desk.store(asked, description="d" * 2_000_000)
    assert sum(desk.counts()) == 10


def test_a_clock_that_was_put_back_keeps_no_document_longer_than_a_window(desk: Desk) -> None:
    desk.endpoint(PayloadVersion.V2023_04, DeliveryMode.AS_AVAILABLE)
    asked = desk.ask()
    desk.store(asked)
    desk.store(asked)
    hour_ago = NOW - timedelta(hours=1)
    desk.store(asked, hour_ago)
    assert documents.next_announcement(desk.connection) == hour_ago + 250 * MILLISECOND


def test_each_endpoint_is_told_in_its_version_and_its_mode(desk: Desk) -> None:
    old = desk.endpoint(PayloadVersion.V2023_04, DeliveryMode.AS_AVAILABLE)
    new = desk.endpoint(PayloadVersion.V2025_10, DeliveryMode.AS_AVAILABLE)
    twin = desk.endpoint(PayloadVersion.V2025_10, DeliveryMode.AS_AVAILABLE)
    late = desk.endpoint(PayloadVersion.V2025_10, DeliveryMode.ON_COMPLETION)
    asked = desk.ask(metadata={"case": "7"})
    for _ in range(3):
        desk.store(asked)
    desk.end(asked)
    assert desk.counts(old) == desk.counts(new) == desk.counts(twin) == [1, 2, 0]
    assert desk.counts(late) == [3]
    assert isinstance(desk.messages(old)[0]["patients"][0]["documents"][0]["size"], str)
    assert isinstance(desk.messages(new)[0]["patients"][0]["documents"][0]["size"], int)
    assert len(desk.messages()) == 3 + 3 + 1  # the twins share theirs
    assert all(message["meta"]["data"] == {"case": "7"} for message in desk.messages())
    assert all(message["meta"]["requestId"] == asked.query_id for message in desk.messages())


def test_several_patients_share_a_message_of_the_first_version_alone(desk: Desk) -> None:
    old = desk.endpoint(PayloadVersion.V2023_04, DeliveryMode.AS_AVAILABLE)
    new = desk.endpoint(PayloadVersion.V2025_10, DeliveryMode.AS_AVAILABLE)
    first, second, other = desk.ask("p1"), desk.ask("p2"), desk.ask("p3", {"case": "7"})
    desk.store(first)  # goes at once
    for asked in (first, second, other):
        desk.store(asked)
    desk.end(other)
    assert sorted(desk.counts(old)) == [0, 1, 1, 2]
    assert sorted(desk.counts(new)) == [0, 1, 1, 1, 1]
    (shared,) = [message for message in desk.messages(old) if len(message["patients"]) == 2]
    assert "requestId" not in shared["meta"]
    assert {part["requestId"] for part in shared["patients"]} == {first.query_id, second.query_id}


def test_the_closing_message_comes_after_everything_that_its_query_brought(desk: Desk) -> None:
    desk.endpoint(PayloadVersion.V2023_04, DeliveryMode.AS_AVAILABLE)
    asked = desk.ask()
    for _ in range(150):
        desk.store(asked)
    desk.end(asked)
    assert desk.counts() == [1, 100, 49, 0]


def test_a_query_whose_networks_all_failed_is_told_without_documents_in_either_mode(desk: Desk) -> None:
    for mode in DeliveryMode:
        desk.endpoint(PayloadVersion.V2023_04, mode)
    asked = desk.ask()
    desk.end(asked, StepState.FAILED)
    told = [(patient["status"], patient["documents"]) for message in desk.messages() for patient in message["patients"]]
    assert told == [("failed", [])] * 2


def test_without_an_endpoint_that_wants_them_documents_are_not_told_and_do_not_wait(desk: Desk) -> None:
    only = endpoints.settings_endpoint(desk.connection, desk.account)
    endpoints.update_endpoint(desk.connection, only, {"event_types": ["medical.document-bulk-download-urls"]})
    asked = desk.ask()
    for _ in range(3):
        desk.store(asked)
    desk.end(asked)
    assert desk.messages() == []
    assert documents.next_announcement(desk.connection) is None
