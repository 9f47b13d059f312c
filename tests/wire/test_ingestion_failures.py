"""Whatever goes wrong, a query comes to an end: poison steps, opting out, crashes, wrong clocks."""

import asyncio
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, select, update
from tests.support.documents import add_patient
from tests.support.engine import ACTOR, Engine, announced, make_settings, running_engine
from tests.support.profile import make_tables
from tests.support.receiver import Receiver
from tests.support.scripted_network import ScriptedNetwork

from chartwire.clock import system_clock
from chartwire.errors import IssueCode, SealBrokenError, TemporaryNetworkError
from chartwire.ingestion.announcement import Announcer
from chartwire.ingestion.breaker import Breaker
from chartwire.ingestion.document_query import DocumentQueryHandler
from chartwire.ingestion.steps import Retry, StepRunner
from chartwire.model.document import DocumentQuery, DocumentStatus, Progress, QueryStatus
from chartwire.store import documents, queries, registry
from chartwire.store.profile import run_once
from chartwire.store.schema import intake_step, network_step
from chartwire.store.sqlite import SqliteDatabase, sqlite_path
from chartwire.store.vault import Vault
from chartwire.telemetry import Metrics


def _named(engine: Engine) -> list[str]:
    return sorted(document["description"] for message in engine.receiver.messages for document in message.documents)


# --- poison -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [TypeError("bug"), OSError(28, "full"), SealBrokenError(), RecursionError()])
async def test_a_document_that_always_fails_unexpectedly_is_given_up(tmp_path: Path, error: Exception) -> None:
    network = ScriptedNetwork("mercy", failures={"poison": [error] * 10})
    network.add("poison")
    network.add("good", title="Good")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver, document_attempts=3) as engine:
        patient_id = await engine.add_patient()
        await engine.wait_for_end(await engine.start_query(patient_id))
        assert network.retrieved.count("poison") == 3
        assert _named(engine) == ["Good"]
        assert (await engine.progress(patient_id)).download == Progress(QueryStatus.COMPLETED, 2, 1, 1)


async def test_a_network_that_always_fails_unexpectedly_is_given_up(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy", failures={"": [KeyError("bug")] * 10})
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver, document_attempts=3) as engine:
        patient_id = await engine.add_patient()
        await engine.wait_for_end(await engine.start_query(patient_id))
        (asked,) = (await engine.progress(patient_id)).networks
        assert (network.asked, asked.issue) == (3, IssueCode.INTERNAL)


async def test_what_a_database_does_not_keep_is_replaced_in_the_texts_of_a_document(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("half", title="half a surrogate pair: \ud800")
    network.add("null", title="a null: \x00")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver, document_attempts=2) as engine:
        patient_id = await engine.add_patient()
        await engine.wait_for_end(await engine.start_query(patient_id))
        assert sorted(_named(engine)) == ["a null: \ufffd", "half a surrogate pair: \ufffd"]
        assert (await engine.progress(patient_id)).download.errors == 0


@pytest.mark.embedded  # which knows at its start that nobody holds a lease
async def test_a_step_that_was_under_way_at_a_hundred_crashes_is_taken_for_their_cause(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("killer")
    network.hold("killer")
    async with Receiver() as receiver:
        async with running_engine(tmp_path, [network], receiver) as engine:
            patient_id = await engine.add_patient()
            request_id = await engine.start_query(patient_id)
            await network.reached["killer"].wait()
        many = update(intake_step).values(attempts=100)
        run_once(make_settings(tmp_path, [network]).database, lambda connection: connection.execute(many))
        async with running_engine(tmp_path, [network], receiver) as engine:
            await engine.wait_for_end(request_id)
            assert network.retrieved == ["killer"]
            assert (await engine.progress(patient_id)).download.errors == 1


@pytest.mark.embedded  # which knows at its start that nobody holds a lease
async def test_restarts_do_not_cost_a_document_its_retries(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("slow", title="Slow")
    network.hold("slow")
    async with Receiver() as receiver:
        async with running_engine(tmp_path, [network], receiver, document_attempts=2) as engine:
            request_id = await engine.start_query(await engine.add_patient())
            await network.reached["slow"].wait()
        network.reached.clear()
        async with running_engine(tmp_path, [network], receiver, document_attempts=2) as engine:
            await network.reached["slow"].wait()
        network.gates.clear()
        network.failures["slow"] = [TemporaryNetworkError(IssueCode.UNREACHABLE)]
        async with running_engine(tmp_path, [network], receiver, document_attempts=2) as engine:
            await engine.wait_for_end(request_id)
            assert _named(engine) == ["Slow"]


# --- what a person decides meanwhile ----------------------------------------------------------------------------------


async def test_what_arrives_after_its_patient_has_opted_out_is_not_kept(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("d1")
    gate = network.hold("d1")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        patient_id = await engine.add_patient()
        request_id = await engine.start_query(patient_id)
        await network.reached["d1"].wait()
        await engine.services.registry.patients.opt_out(engine.account_id, ACTOR, patient_id, opted_out=True)
        gate.set()
        await engine.wait_for_end(request_id)
        assert announced(receiver.messages) == []
        assert await engine.services.documents.list_documents(engine.account_id, ACTOR, patient_id) == []


async def test_what_arrives_after_its_patient_was_deleted_is_not_kept(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("d1", title="One")
    gate = network.hold("d1")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        patient_id, other = await engine.add_patient(), await engine.add_patient()
        await engine.start_query(patient_id)
        await network.reached["d1"].wait()
        await engine.services.registry.patients.delete(engine.account_id, ACTOR, patient_id, None, None)
        gate.set()
        await engine.wait_for_end(await engine.start_query(other))
        assert len(announced(receiver.messages)) == 1
        assert receiver.messages[-1].json["patients"][0]["patientId"] == other


async def test_a_withdrawn_document_is_marked_and_not_fetched_again_even_with_override(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("d1", title="One", status=DocumentStatus.SUPERSEDED)
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        patient_id = await engine.add_patient()
        await engine.wait_for_end(await engine.start_query(patient_id))
        network.documents.clear()
        network.add("d1", title="One", status=DocumentStatus.ENTERED_IN_ERROR)
        await engine.wait_for_end(await engine.start_query(patient_id, override=True))
        (kept,) = await engine.services.documents.list_documents(engine.account_id, ACTOR, patient_id)
        assert kept.status is DocumentStatus.ENTERED_IN_ERROR
        assert network.retrieved == ["d1"]


# --- start and stop ---------------------------------------------------------------------------------------------------


@pytest.mark.embedded  # whose writer can be held
async def test_a_claim_that_is_under_way_at_the_stop_leaves_nothing_running(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.hold("")
    settings = make_settings(tmp_path, [network])
    make_tables(settings.data_dir)
    run_once(settings.database, _start_a_query)
    database = SqliteDatabase(sqlite_path(settings.database), lambda _: None)
    breaker = Breaker(database, system_clock, timedelta())
    handler = DocumentQueryHandler(database, Announcer(Vault(bytes(32)), settings), breaker, system_clock)
    runner = StepRunner(database, system_clock, [network], [handler], Retry(1, 0), Metrics())
    may_commit = threading.Event()
    writing = asyncio.create_task(database.write(lambda _: may_commit.wait()))
    await asyncio.sleep(0)
    running = asyncio.create_task(runner.run())
    await asyncio.sleep(0)  # one turn of the loop each: now the claim waits behind the write
    await asyncio.sleep(0)
    await runner.stop(grace=0)
    may_commit.set()
    await asyncio.gather(writing, running)
    claims = await database.read(lambda connection: connection.execute(select(network_step.c.attempts)).scalar_one())
    await database.close()
    assert claims == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}


def _start_a_query(connection: Connection) -> None:
    account_id = registry.create_account(connection, "Clinic", system_clock()).id
    add_patient(connection, account_id)
    query = DocumentQuery("q1", account_id, "p1", None, QueryStatus.PROCESSING, system_clock())
    queries.start_query(connection, query, ["mercy"])


async def test_a_start_that_ends_a_query_rings_no_bell_that_is_not_there(tmp_path: Path) -> None:
    wrong: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    network = ScriptedNetwork("mercy")
    network.hold("")
    async with Receiver() as receiver:
        async with running_engine(tmp_path, [network], receiver) as engine:
            request_id = await engine.start_query(await engine.add_patient())
        async with running_engine(tmp_path, [ScriptedNetwork("other")], receiver) as engine:
            await engine.wait_for_end(request_id)
    assert wrong == []


# --- clocks -----------------------------------------------------------------------------------------------------------


async def test_an_announcement_from_before_the_clock_was_put_back_does_not_wait_for_its_time(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("d1", title="One")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        request_id = await engine.start_query(await engine.add_patient())
        await engine.wait_for_end(request_id)
        (document_id,) = announced(receiver.messages)
        in_an_hour = system_clock() + timedelta(hours=1)
        run_once(
            make_settings(tmp_path, [network]).database,
            lambda connection: documents.add_announcement(
                connection, engine.account_id, document_id, request_id, 100, in_an_hour
            ),
        )
        await receiver.wait_for(lambda it: announced(it.messages) == [document_id] * 2)


@pytest.mark.embedded  # which knows at its start that nobody holds a lease
async def test_work_that_was_written_by_a_clock_far_ahead_is_done_after_a_restart(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy", failures={"": [TemporaryNetworkError(IssueCode.UNREACHABLE)]})
    network.add("d1", title="One")
    async with Receiver() as receiver:
        async with running_engine(tmp_path, [network], receiver, document_retry_seconds=60) as engine:
            request_id = await engine.start_query(await engine.add_patient())
            await network.reached[""].wait()
        later = update(network_step).values(due_at=system_clock() + timedelta(days=20_000), lease=None)
        run_once(make_settings(tmp_path, [network]).database, lambda connection: connection.execute(later))
        async with running_engine(tmp_path, [network], receiver) as engine:
            await engine.wait_for_end(request_id)
            assert _named(engine) == ["One"]
