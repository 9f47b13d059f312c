"""Document queries and the leases of their steps, on a real database."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event
from tests.support.documents import NOW, add_patient
from tests.support.profile import open_connection

from chartwire.errors import IssueCode
from chartwire.model.document import (
    CodeableConcept,
    Coding,
    DocumentQuery,
    IntakeStep,
    NetworkStep,
    Progress,
    QueryStatus,
    RemoteDocument,
    StepState,
)
from chartwire.store import queries, registry
from chartwire.store.database import Bell
from chartwire.store.queries import Asked

SECOND = timedelta(seconds=1)
LEASE = timedelta(seconds=60)


class Store:
    """A connection with one patient, and short names for what the tests do with it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.account = registry.create_account(connection, "Clinic", NOW).id
        add_patient(connection, self.account, "p1")

    def start(self, query_id: str = "q1", *networks: str, at: datetime = NOW) -> DocumentQuery:
        """A query at `networks`, or at mercy alone."""
        query = DocumentQuery(query_id, self.account, "p1", None, QueryStatus.PROCESSING, at)
        queries.start_query(self.connection, query, networks or ("mercy",))
        return query

    def claim_networks(self, network: str = "mercy", at: datetime = NOW, limit: int = 10) -> list[NetworkStep]:
        """Claim network steps."""
        return queries.claim_network_steps(self.connection, network, limit, at, LEASE)

    def claim_documents(self, network: str = "mercy", at: datetime = NOW, limit: int = 10) -> list[IntakeStep]:
        """Claim intake steps."""
        return queries.claim_intake_steps(self.connection, network, limit, at, LEASE)

    def listed(self, count: int = 1, query_id: str = "q1") -> None:
        """Mercy is asked and lists documents."""
        self.start(query_id)
        (step,) = self.claim_networks()
        remotes = [RemoteDocument(key=f"k{number}") for number in range(count)]
        assert queries.settle_network_step(self.connection, step, StepState.DONE)
        queries.add_intake_steps(self.connection, step, remotes, NOW)

    def end(self, query_id: str = "q1") -> QueryStatus | None:
        """End the query if it is over."""
        ended = queries.end_query_if_over(self.connection, query_id, NOW + SECOND)
        return None if ended is None else ended.status

    def progress(self, query_id: str = "q1") -> Progress:
        """How far the query is."""
        query = queries.find_query(self.connection, query_id)
        assert query is not None
        return queries.read_progress(self.connection, query)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_connection(tmp_path) as connection:
        yield Store(connection)


# --- queries ----------------------------------------------------------------------------------------------------------


def test_a_query_is_read_as_it_was_started(store: Store) -> None:
    query = DocumentQuery("q1", store.account, "p1", "f1", QueryStatus.PROCESSING, NOW, {"k": "v"}, override=True)
    queries.start_query(store.connection, query, ["mercy"])
    assert queries.find_query(store.connection, "q1") == query
    assert Bell.INTAKE in store.connection.info["bells"]


def test_the_latest_query_is_the_account_s_and_the_patient_s(store: Store) -> None:
    add_patient(store.connection, store.account, "p2")
    first, second = store.start("q1"), store.start("q2")
    latest = queries.latest_query
    assert latest(store.connection, store.account, "p1") == second != first
    assert latest(store.connection, store.account, "p2") is None
    assert latest(store.connection, "another", "p1") is None


def test_progress_counts_what_is_to_fetch_and_not_what_was_held(store: Store) -> None:
    store.listed(4)
    done, held, failed, _ = store.claim_documents()
    for step, state in ((done, StepState.DONE), (held, StepState.HELD), (failed, StepState.FAILED)):
        queries.settle_intake_step(store.connection, step, state)
    assert store.progress() == Progress(QueryStatus.PROCESSING, total=3, successful=1, errors=1)


def test_a_query_ends_once_with_its_last_step(store: Store) -> None:
    store.listed(2)
    first, second = store.claim_documents()
    assert store.end() is None
    queries.settle_intake_step(store.connection, first, StepState.DONE)
    assert store.end() is None
    queries.settle_intake_step(store.connection, second, StepState.FAILED, IssueCode.GONE)
    assert store.end() is QueryStatus.COMPLETED
    assert store.end() is None
    query = queries.find_query(store.connection, "q1")
    assert query is not None
    assert (query.status, query.ended_at) == (QueryStatus.COMPLETED, NOW + SECOND)


def test_a_query_without_networks_completes_at_once(store: Store) -> None:
    query = DocumentQuery("q1", store.account, "p1", None, QueryStatus.PROCESSING, NOW)
    queries.start_query(store.connection, query, [])
    assert store.end() is QueryStatus.COMPLETED


@pytest.mark.parametrize(
    ("mercy", "lakeside", "status"),
    [
        (StepState.FAILED, StepState.FAILED, QueryStatus.FAILED),
        (StepState.FAILED, StepState.DONE, QueryStatus.COMPLETED),
        (StepState.DONE, StepState.DONE, QueryStatus.COMPLETED),
    ],
)
def test_a_query_fails_if_every_network_failed(
    store: Store, mercy: StepState, lakeside: StepState, status: QueryStatus
) -> None:
    store.start("q1", "mercy", "lakeside")
    for network, state in (("mercy", mercy), ("lakeside", lakeside)):
        assert store.end() is None
        (step,) = store.claim_networks(network)
        queries.settle_network_step(store.connection, step, state)
    assert store.end() is status


def test_a_query_that_is_gone_does_not_end(store: Store) -> None:
    store.start()
    registry.delete_patient(store.connection, "p1")
    assert store.end() is None
    assert store.claim_networks() == []


def test_networks_tell_how_far_they_are_and_why(store: Store) -> None:
    store.start("q1", "mercy", "lakeside", "hilltop")
    (mercy,), (lakeside,) = store.claim_networks("mercy"), store.claim_networks("lakeside")
    queries.settle_network_step(store.connection, mercy, StepState.FAILED, IssueCode.UNAUTHORIZED)
    queries.postpone_network_step(store.connection, lakeside, NOW + SECOND, IssueCode.TIMEOUT)
    assert queries.networks_asked(store.connection, "q1") == [
        Asked("hilltop", StepState.WAITING, None),
        Asked("lakeside", StepState.WAITING, IssueCode.TIMEOUT),
        Asked("mercy", StepState.FAILED, IssueCode.UNAUTHORIZED),
    ]


# --- leases -----------------------------------------------------------------------------------------------------------


def test_a_claimed_step_is_not_claimed_again_until_its_lease_runs_out(store: Store) -> None:
    store.start()
    (first,) = store.claim_networks()
    assert store.claim_networks(at=NOW + LEASE - SECOND) == []
    (second,) = store.claim_networks(at=NOW + LEASE)
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.lease != second.lease


def test_a_claimed_document_is_not_claimed_again_until_its_lease_runs_out(store: Store) -> None:
    store.listed()
    (first,) = store.claim_documents()
    assert store.claim_documents(at=NOW + LEASE - SECOND) == []
    (second,) = store.claim_documents(at=NOW + LEASE)
    assert (first.attempt, second.attempt) == (1, 2)
    assert (second.id, second.remote) == (first.id, first.remote)


def test_who_lost_the_lease_cannot_settle_or_postpone(store: Store) -> None:
    store.listed()
    (late,) = store.claim_documents()
    (holder,) = store.claim_documents(at=NOW + LEASE)
    assert not queries.settle_intake_step(store.connection, late, StepState.DONE, document_id="d1")
    assert not queries.postpone_intake_step(store.connection, late, NOW, IssueCode.TIMEOUT)
    assert not queries.is_done_in_query(store.connection, "q1", "d1")
    assert queries.settle_intake_step(store.connection, holder, StepState.DONE, document_id="d2")
    assert queries.is_done_in_query(store.connection, "q1", "d2")


def test_a_network_step_is_settled_by_its_holder_once(store: Store) -> None:
    store.start()
    (late,) = store.claim_networks()
    (holder,) = store.claim_networks(at=NOW + LEASE)
    assert not queries.settle_network_step(store.connection, late, StepState.DONE)
    assert not queries.postpone_network_step(store.connection, late, NOW, IssueCode.TIMEOUT)
    assert queries.settle_network_step(store.connection, holder, StepState.DONE)
    assert not queries.settle_network_step(store.connection, holder, StepState.FAILED)
    assert store.claim_networks(at=NOW + 10 * LEASE) == []


def test_a_postponed_step_is_claimed_when_it_is_due(store: Store) -> None:
    store.listed()
    (step,) = store.claim_documents()
    assert queries.postpone_intake_step(store.connection, step, NOW + SECOND, IssueCode.THROTTLED)
    assert queries.next_intake_step(store.connection, "mercy") == NOW + SECOND
    assert store.claim_documents() == []
    (again,) = store.claim_documents(at=NOW + SECOND)
    assert again.attempt == 2


def test_steps_are_claimed_oldest_first_up_to_a_number_per_network(store: Store) -> None:
    store.start("q2", "mercy", "lakeside", at=NOW + SECOND)
    store.start("q1", "mercy", at=NOW)
    claimed = store.claim_networks(at=NOW + SECOND, limit=1)
    claimed += store.claim_networks(at=NOW + SECOND, limit=1)
    assert [step.query_id for step in claimed] == ["q1", "q2"]
    assert [step.network for step in store.claim_networks("lakeside", at=NOW + SECOND)] == ["lakeside"]


def test_the_next_step_is_the_earliest_due_or_the_end_of_a_lease(store: Store) -> None:
    assert queries.next_network_step(store.connection, "mercy") is None
    store.start("q1", at=NOW)
    store.start("q2", at=NOW + 2 * LEASE)
    assert queries.next_network_step(store.connection, "mercy") == NOW
    store.claim_networks()
    assert queries.next_network_step(store.connection, "mercy") == NOW + LEASE
    assert queries.next_network_step(store.connection, "lakeside") is None


def test_after_a_restart_what_was_leased_is_due_and_what_waits_still_waits(store: Store) -> None:
    store.listed(2)
    leased, postponed = store.claim_documents()
    queries.postpone_intake_step(store.connection, postponed, NOW + LEASE, IssueCode.TIMEOUT)
    queries.release_leases(store.connection, NOW + SECOND)
    (again,) = store.claim_documents(at=NOW + SECOND)
    assert again.id == leased.id
    assert not queries.settle_intake_step(store.connection, leased, StepState.DONE)


def test_steps_of_a_network_that_is_no_more_fail(store: Store) -> None:
    store.start("q1", "mercy", "gone")
    (asking,) = queries.asking_others(store.connection, ["mercy"], 10)
    queries.abandon_steps(store.connection, asking.id, ["mercy"])
    assert queries.asking_others(store.connection, ["mercy"], 10) == []
    asked = {each.network: each.state for each in queries.networks_asked(store.connection, "q1")}
    assert asked == {"mercy": StepState.WAITING, "gone": StepState.FAILED}


def test_a_listed_document_survives_as_it_was_listed(store: Store) -> None:
    store.start()
    (step,) = store.claim_networks()
    listed = RemoteDocument(
        key="k",
        master_identifier="1.2.3",
        title="Épisode",
        indexed=NOW,
        size=17,
        type=CodeableConcept((Coding("s", "c", "d"),), "t"),
        replaces=("1.2.2",),
        retrieval={"url": "https://x.example/1"},
    )
    queries.add_intake_steps(store.connection, step, [listed], NOW)
    (claimed,) = store.claim_documents()
    assert claimed.remote == listed
    assert replace(claimed, remote=listed, lease="") == IntakeStep(
        claimed.id, "q1", store.account, "p1", "mercy", listed, 1, ""
    )


@pytest.mark.embedded
@pytest.mark.parametrize("table", ["network_step", "intake_step"])
@pytest.mark.parametrize("look", ["claim", "next"])
def test_due_steps_are_found_by_their_index(store: Store, table: str, look: str) -> None:
    """Whatever has ended must not slow down finding what is due."""
    store.listed()
    looks: dict[tuple[str, str], Callable[[], object]] = {
        ("network_step", "claim"): store.claim_networks,
        ("network_step", "next"): lambda: queries.next_network_step(store.connection, "mercy"),
        ("intake_step", "claim"): store.claim_documents,
        ("intake_step", "next"): lambda: queries.next_intake_step(store.connection, "mercy"),
    }
    with _plans(store.connection, f"FROM {table}") as plans:
        looks[table, look]()
    assert plans
    index = "ix_intake_step_turn" if (table, look) == ("intake_step", "claim") else f"ix_{table}_due"
    assert all(index in plan for plan in plans)


@contextmanager
def _plans(connection: Connection, fragment: str) -> Iterator[list[str]]:
    """SQLite's plans of the SELECTs that hold `fragment`."""
    plans: list[str] = []

    def explain(_c: object, _u: object, statement: str, parameters: Any, *_: object) -> None:
        if statement.startswith("SELECT") and fragment in statement:
            rows = connection.connection.cursor()
            rows.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.append(" ".join(str(row[3]) for row in rows.fetchall()))

    event.listen(connection.engine, "before_cursor_execute", explain)
    try:
        yield plans
    finally:
        event.remove(connection.engine, "before_cursor_execute", explain)
