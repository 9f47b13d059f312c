"""What the console shows of an account, read from what the engine wrote."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, update
from tests.support.documents import a_document, add_patient
from tests.support.outbox_store import NOW, Store, bad, good, open_store

from chartwire.errors import IssueCode
from chartwire.model.circuit import Circuit, CircuitState
from chartwire.model.document import DocumentQuery, QueryStatus, StepState
from chartwire.model.overview import Condition, NetworkReport
from chartwire.model.webhook import EventType, Outcome
from chartwire.store import audit, circuits, documents, overview, queries, schema
from chartwire.store.audit import AuditFilter

HOUR = timedelta(hours=1)
BOUNDS = (timedelta(minutes=1), HOUR)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "data") as store:
        yield store


async def attempt(store: Store, at: datetime, *, fails: bool = False) -> None:
    """One attempt of what waits; one that fails is not made again."""
    claimed = await store.claim_one(at)
    result = (bad(None) if fails else good())._replace(started_at=at)
    assert await store.settle(claimed, result, at)


async def test_attempts_are_counted_by_hour_and_outcome(store: Store) -> None:
    endpoint, stranger = await store.add_endpoint(), await store.add_endpoint("a2")
    start = NOW.replace(minute=0, second=0)
    for hours, fails in ((-30, False), (-25, True), (-3, False), (-3, True), (-3, True), (0, False)):
        at = start + hours * HOUR
        await store.append(endpoint, at=at)
        await attempt(store, at, fails=fails)
    await store.append(stranger, at=start)
    await attempt(store, start)
    found = await store.database.read(lambda it: overview.attempts_by_hour(it, "a1", start - 24 * HOUR))
    assert [(each.start, each.counts) for each in found] == [
        (start - 3 * HOUR, {Outcome.DELIVERED: 1, Outcome.HTTP_ERROR: 2}),
        (start, {Outcome.DELIVERED: 1}),
    ]
    for since in (start + HOUR, start - 1000 * HOUR):
        counted = await store.database.read(partial(overview.attempts_by_hour, account_id="a1", since=since))
        assert sum(sum(each.counts.values()) for each in counted) == (0 if since > start else 6)


async def test_without_attempts_there_is_nothing_to_count(store: Store) -> None:
    await store.add_endpoint()
    assert await store.database.read(lambda it: overview.attempts_by_hour(it, "a1", NOW)) == []


async def test_what_waits_is_counted_by_age_and_lag_by_delivery(store: Store) -> None:
    endpoint, stranger = await store.add_endpoint(), await store.add_endpoint("a2")
    for minutes in (0, 30, 90, 91):
        await store.append(endpoint, at=NOW - timedelta(minutes=minutes))
    await store.append(stranger)
    assert await store.database.read(lambda it: overview.waiting_by_age(it, "a1", NOW, BOUNDS)) == (1, 1, 2)
    assert await store.database.read(lambda it: overview.delivery_lags(it, "a1", 10)) == []
    for claimed in (await store.claim()).deliveries:
        await store.settle(claimed, good(), NOW + timedelta(seconds=2))
    lags = await store.database.read(lambda it: overview.delivery_lags(it, "a1", 10))
    assert lags == [2000, 1_802_000, 5_402_000, 5_462_000]
    assert await store.database.read(lambda it: overview.waiting_by_age(it, "a1", NOW, BOUNDS)) == (0, 0, 0)


async def test_endpoints_tell_how_they_are_and_what_waits_for_them(store: Store) -> None:
    endpoint, unset = await store.add_endpoint(), await store.add_endpoint(url=None)
    await store.add_endpoint("a2")
    for kind in (EventType.DOCUMENT_DOWNLOAD, EventType.DOCUMENT_DOWNLOAD, EventType.PING):
        await store.append(endpoint, event_type=kind)
    await store.append(unset)
    reports = await store.database.read(lambda it: overview.endpoint_reports(it, "a1"))
    assert [(each.endpoint.id, each.condition, each.waiting, each.failed) for each in reports] == [
        (endpoint.id, Condition.UNPROVEN, 2, 0),
        (unset.id, Condition.UNSET, 0, 1),
    ]
    claimed, *_ = (await store.claim()).deliveries
    await store.settle(claimed, bad(None))
    (report, _) = await store.database.read(lambda it: overview.endpoint_reports(it, "a1"))
    assert (report.condition, report.health.failures) == (Condition.FAILING, 1)
    await store.database.write(lambda it: it.execute(update(schema.endpoint).values(breaker_waits=1)).rowcount)
    (report, _) = await store.database.read(lambda it: overview.endpoint_reports(it, "a1"))
    assert report.condition is Condition.PAUSED


async def test_networks_tell_how_asking_them_went_and_what_they_brought(store: Store) -> None:
    await store.add_endpoint()

    def unit(connection: Connection) -> None:
        add_patient(connection, "a1")
        documents.insert_document(connection, a_document("a1", content=b"12345", network="mercy"))
        documents.insert_document(connection, a_document("a1", content=b"123", network="gone"))
        for number, at in enumerate((NOW - 25 * HOUR, NOW, NOW)):
            query = DocumentQuery(f"q{number}", "a1", "p1", None, QueryStatus.PROCESSING, at)
            queries.start_query(connection, query, ["mercy", "slow"])
        steps = schema.network_step
        done = {"state": StepState.DONE}
        connection.execute(update(steps).where(steps.c.network == "mercy").values(**done))
        failed = {"state": StepState.FAILED, "issue": IssueCode.TIMEOUT}
        connection.execute(update(steps).where(steps.c.network == "slow", steps.c.query_id == "q2").values(**failed))
        for name in ("slow", "gone"):  # of which the second is none of the settings' any more
            for _ in range(10):
                circuits.note_failure(connection, name, IssueCode.TIMEOUT, NOW, NOW, HOUR)

    await store.database.write(unit)
    reports = await store.database.read(
        lambda it: overview.network_reports(it, "a1", ["mercy", "idle", "slow"], NOW, NOW - 24 * HOUR)
    )
    assert reports == [
        NetworkReport("mercy", answered=2, documents=1, bytes=5, last_answered=NOW),
        NetworkReport("idle"),
        NetworkReport(
            "slow",
            failed=1,
            waiting=1,
            issues=(("timeout", 1),),
            last_failed=NOW,
            circuit=Circuit(10, 1, IssueCode.TIMEOUT, NOW, NOW + timedelta(minutes=1)),
            circuit_state=CircuitState.OPEN,
        ),
        NetworkReport("gone", documents=1, bytes=3),
    ]
    nothing = await store.database.read(lambda it: overview.network_reports(it, "a2", ["mercy"], NOW, NOW))
    assert nothing == [NetworkReport("mercy")]


async def test_the_mark_moves_when_something_happens_and_only_then(store: Store) -> None:
    endpoint, stranger = await store.add_endpoint(), await store.add_endpoint("a2")
    marks = [await store.database.read(lambda it: overview.read_mark(it, "a1"))]

    async def moved() -> bool:
        marks.append(await store.database.read(lambda it: overview.read_mark(it, "a1")))
        return marks[-1] != marks[-2]

    assert not await moved()
    await store.append(endpoint)
    assert await moved()
    await attempt(store, NOW)
    assert await moved()
    await store.database.write(lambda it: add_patient(it, "a1"))
    await store.database.write(lambda it: documents.insert_document(it, a_document("a1")))
    assert await moved()
    await store.append(stranger)
    await attempt(store, NOW)
    await store.database.write(lambda it: audit.record(it, NOW, "a1", "member:m1", "patient.read"))
    assert not await moved()  # another account, and somebody who looks, are no news


async def test_the_trail_is_searched_by_each_of_its_parts(store: Store) -> None:
    def fill(connection: Connection) -> None:
        for number, (actor, action, patient) in enumerate(
            (("key:1", "document.read", "p1"), ("member:2", "document.list", "p2"), ("engine", "webhook.attempt", "p1"))
        ):
            at = NOW + number * HOUR
            audit.record(connection, at, "a1", actor, action, patient, subject=f"event/e{number}/endpoint/x_%")
        audit.record(connection, NOW, "a2", "key:1", "document.read", "p1")

    await store.database.write(fill)

    async def found(**chosen: object) -> list[str]:
        entries = await store.database.read(
            lambda it: audit.search(it, "a1", AuditFilter(**chosen), None, 10)  # type: ignore[arg-type]  # by name
        )
        return [entry.action for entry in entries]

    assert await found() == ["webhook.attempt", "document.list", "document.read"]
    assert await found(actor="key:1") == ["document.read"]
    assert await found(action="document.") == ["document.list", "document.read"]
    assert await found(action="document%") == []
    assert await found(patient_id="p1") == ["webhook.attempt", "document.read"]
    assert await found(subject="e1") == ["document.list"]
    assert await found(subject="x_%") == ["webhook.attempt", "document.list", "document.read"]
    assert await found(start=NOW + HOUR, end=NOW + 2 * HOUR) == ["document.list"]
    page = await store.database.read(lambda it: audit.search(it, "a1", AuditFilter(), None, 1))
    rest = await store.database.read(lambda it: audit.search(it, "a1", AuditFilter(), page[0].seq, 10))
    assert [entry.action for entry in rest] == ["document.list", "document.read"]
