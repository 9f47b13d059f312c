"""From a question to messages at a real receiver: the rules of the document query."""

import asyncio
from pathlib import Path

import pytest
from tests.support.engine import ACTOR, Engine, announced, patients_in, running_engine
from tests.support.receiver import Receiver
from tests.support.scripted_network import ScriptedNetwork

from chartwire.errors import IssueCode, PermanentNetworkError, TemporaryNetworkError
from chartwire.model.document import DocumentStatus, QueryStatus
from chartwire.model.webhook import DeliveryMode
from chartwire.networks.network import Limits


def _named(engine: Engine) -> list[str]:
    return sorted(document["description"] for message in engine.receiver.messages for document in message.documents)


async def test_each_document_is_announced_once_and_the_end_is_told(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    for number in range(5):
        network.add(f"d{number}", title=f"Note {number}", mime_type="text/plain")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        receiver.webhook_key = engine.webhook_key
        patient_id = await engine.add_patient()
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        request_id = await engine.start_query(patient_id, {"case": "7"}, trace=trace)
        await engine.wait_for_end(request_id)

        assert _named(engine) == [f"Note {number}" for number in range(5)]
        assert len(set(announced(receiver.messages))) == 5
        assert receiver.refused == 0
        assert {message.headers["traceparent"].split("-")[1] for message in receiver.messages} == {trace[3:35]}
        (last,) = [message.json for message in receiver.messages if not message.documents]
        assert last["meta"]["requestId"] == request_id
        assert last["meta"]["data"] == {"case": "7"}
        assert last["patients"][0]["status"] == "completed"
        assert last["patients"][0]["documents"] == []
        download = (await engine.progress(patient_id)).download
        assert (download.status, download.total, download.successful, download.errors) == (
            QueryStatus.COMPLETED,
            5,
            5,
            0,
        )


async def test_a_slow_document_does_not_hold_back_a_quick_one(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("slow", title="Slow")
    network.add("quick", title="Quick")
    gate = network.hold("slow")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        patient_id = await engine.add_patient()
        request_id = await engine.start_query(patient_id)
        await receiver.wait_for(lambda _: _named(engine) == ["Quick"])  # while the slow one still waits at its gate
        assert (await engine.progress(patient_id)).download.status is QueryStatus.PROCESSING
        gate.set()
        await engine.wait_for_end(request_id)
        assert _named(engine) == ["Quick", "Slow"]


async def test_a_network_that_hangs_delays_nothing_of_another(tmp_path: Path) -> None:
    hanging = ScriptedNetwork("hanging", limits=Limits(list_deadline=20, retrieve_deadline=20, concurrency=1))
    gate = hanging.hold("")
    quick = ScriptedNetwork("quick")
    quick.add("d1", title="One")
    async with Receiver() as receiver, running_engine(tmp_path, [hanging, quick], receiver) as engine:
        first, second = await engine.add_patient(), await engine.add_patient()
        requests = [await engine.start_query(first), await engine.start_query(second)]
        await receiver.wait_for(lambda _: _named(engine) == ["One", "One"])
        gate.set()
        await engine.wait_for_end(*requests)


async def test_a_network_past_its_deadline_fails_and_spoils_nothing(tmp_path: Path) -> None:
    dead = ScriptedNetwork("dead", limits=Limits(list_deadline=0.05, retrieve_deadline=1, concurrency=2))
    dead.hold("")
    alive = ScriptedNetwork("alive")
    alive.add("d1", title="One")
    async with (
        Receiver() as receiver,
        running_engine(tmp_path, [dead, alive], receiver, document_attempts=2) as engine,
    ):
        patient_id = await engine.add_patient()
        await engine.wait_for_end(await engine.start_query(patient_id))
        assert dead.asked == 2
        assert (await engine.progress(patient_id)).download.status is QueryStatus.COMPLETED
        assert receiver.messages[-1].json["patients"][0]["status"] == "completed"


async def test_all_networks_failing_is_told_as_failed_without_documents(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy", failures={"": [PermanentNetworkError(IssueCode.UNAUTHORIZED)]})
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        patient_id = await engine.add_patient()
        await engine.wait_for_end(await engine.start_query(patient_id))
        (message,) = receiver.messages
        (patient,) = message.json["patients"]
        assert (patient["status"], patient["documents"]) == ("failed", [])
        assert (await engine.progress(patient_id)).download.status is QueryStatus.FAILED


async def test_temporary_failures_are_retried_and_permanent_ones_counted(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("flaky", title="Flaky")
    network.add("gone", title="Gone")
    network.failures = {
        "": [TemporaryNetworkError(IssueCode.UNREACHABLE)],
        "flaky": [TemporaryNetworkError(IssueCode.SERVER_ERROR), TemporaryNetworkError(IssueCode.THROTTLED)],
        "gone": [PermanentNetworkError(IssueCode.GONE)],
    }
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        patient_id = await engine.add_patient()
        await engine.wait_for_end(await engine.start_query(patient_id))
        assert _named(engine) == ["Flaky"]
        assert network.retrieved.count("flaky") == 3
        assert network.retrieved.count("gone") == 1
        download = (await engine.progress(patient_id)).download
        assert (download.total, download.successful, download.errors) == (2, 1, 1)


async def test_nothing_new_is_told_with_no_documents_and_nothing_is_fetched_again(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("d1", title="One")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        patient_id = await engine.add_patient()
        await engine.wait_for_end(await engine.start_query(patient_id))
        again = await engine.start_query(patient_id)
        await engine.wait_for_end(again)
        assert _named(engine) == ["One"]
        assert network.retrieved == ["d1"]
        assert (await engine.progress(patient_id)).download.total == 0


async def test_override_fetches_and_announces_again_without_a_second_document(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("d1", title="One")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        patient_id = await engine.add_patient()
        await engine.wait_for_end(await engine.start_query(patient_id))
        await engine.wait_for_end(await engine.start_query(patient_id, override=True))
        ids = announced(receiver.messages)
        assert len(ids) == 2
        assert len(set(ids)) == 1
        assert network.retrieved == ["d1", "d1"]


async def test_override_of_a_changed_document_gives_a_version_that_supersedes(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("d1", title="One", master_identifier="2.999.1")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        patient_id = await engine.add_patient()
        await engine.wait_for_end(await engine.start_query(patient_id))
        network.contents["d1"] = b"other words"
        await engine.wait_for_end(await engine.start_query(patient_id, override=True))
        listed = await engine.services.documents.list_documents(engine.account_id, ACTOR, patient_id)
        assert [(item.status, item.replaced_by) for item in listed] == [
            (DocumentStatus.CURRENT, None),
            (DocumentStatus.SUPERSEDED, listed[0].id),
        ]


@pytest.mark.parametrize("shared", ["identifier", "bytes"])
async def test_the_same_document_from_two_networks_is_kept_and_announced_once(tmp_path: Path, shared: str) -> None:
    networks = [ScriptedNetwork("mercy"), ScriptedNetwork("grace")]
    for network in networks:
        if shared == "identifier":
            network.add("d1", title="Same", master_identifier="2.999.7")
        else:
            network.add(f"{network.name}-1", b"the same bytes", title="Same")
    async with Receiver() as receiver, running_engine(tmp_path, networks, receiver) as engine:
        patient_id = await engine.add_patient()
        await engine.wait_for_end(await engine.start_query(patient_id))
        assert len(announced(receiver.messages)) == 1
        listed = await engine.services.documents.list_documents(engine.account_id, ACTOR, patient_id)
        assert len(listed) == 1
        download = (await engine.progress(patient_id)).download
        assert (download.total, download.successful) == (1, 1)
        fetched = sum(len(network.retrieved) for network in networks)
        await engine.wait_for_end(await engine.start_query(patient_id))
        assert sum(len(network.retrieved) for network in networks) == fetched  # known by both names now


async def test_a_later_version_supersedes_whichever_comes_first(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("new", title="New", master_identifier="2.999.2", replaces=("2.999.1",))
    network.add("old", title="Old", master_identifier="2.999.1")
    gate = network.hold("old")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        patient_id = await engine.add_patient()
        request_id = await engine.start_query(patient_id)
        await receiver.wait_for(lambda _: _named(engine) == ["New"])
        gate.set()
        await engine.wait_for_end(request_id)
        listed = await engine.services.documents.list_documents(engine.account_id, ACTOR, patient_id)
        assert {item.title: item.status for item in listed} == {
            "New": DocumentStatus.CURRENT,
            "Old": DocumentStatus.SUPERSEDED,
        }
        told = {document["description"]: document["status"] for m in receiver.messages for document in m.documents}
        assert told == {"New": "current", "Old": "superseded"}


async def test_a_query_in_progress_is_joined_not_restarted(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    gate = network.hold("")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        patient_id = await engine.add_patient()
        requests = await asyncio.gather(*(engine.start_query(patient_id) for _ in range(5)))
        assert len(set(requests)) == 1
        gate.set()
        await engine.wait_for_end(requests[0])
        assert network.asked == 1
        assert len(receiver.messages) == 1


async def test_on_completion_sends_one_message_with_all_documents(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    for number in range(3):
        network.add(f"d{number}", title=f"Note {number}")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        (endpoint,) = await engine.services.webhooks.list_endpoints(engine.account_id)
        await engine.services.webhooks.change_endpoint(
            engine.account_id, endpoint.id, {"delivery": DeliveryMode.ON_COMPLETION}
        )
        patient_id = await engine.add_patient()
        request_id = await engine.start_query(patient_id)
        await receiver.wait_for(lambda it: bool(it.messages))
        (message,) = receiver.messages
        assert sorted(document["description"] for document in message.documents) == ["Note 0", "Note 1", "Note 2"]
        assert message.json["meta"]["requestId"] == request_id


async def test_documents_of_several_patients_share_messages_but_not_across_metadata(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("first", title="First")
    network.add("second", title="Second")
    gate = network.hold("second")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        patients = [await engine.add_patient() for _ in range(3)]
        requests = [
            await engine.start_query(patients[0], {"case": "1"}),
            await engine.start_query(patients[1], {"case": "1"}),
            await engine.start_query(patients[2], {"case": "2"}),
        ]
        await receiver.wait_for(lambda _: _named(engine) == ["First"] * 3)
        gate.set()  # the three arrive within one window
        await engine.wait_for_end(*requests)
        case_of = dict(zip(requests, ["1", "1", "2"], strict=True))
        for message in receiver.messages:
            for patient in patients_in(message):
                assert message.json["meta"]["data"] == {"case": case_of[patient["requestId"]]}
        assert len(set(announced(receiver.messages))) == 6


async def test_opting_out_stops_a_query_at_its_next_step(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("d1", title="One")
    gate = network.hold("")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        patient_id = await engine.add_patient()
        request_id = await engine.start_query(patient_id)
        await engine.services.registry.patients.opt_out(engine.account_id, ACTOR, patient_id, opted_out=True)
        gate.set()
        await engine.wait_for_end(request_id)
        assert network.retrieved == []
        assert announced(receiver.messages) == []


@pytest.mark.embedded  # which knows at its start that nobody holds a lease
async def test_a_stopped_installation_goes_on_where_it_was(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("early", title="Early")
    network.add("late", title="Late")
    network.hold("late")
    async with Receiver() as receiver:
        async with running_engine(tmp_path, [network], receiver) as engine:
            request_id = await engine.start_query(await engine.add_patient())
            await receiver.wait_for(lambda _: _named(engine) == ["Early"])
        network.gates.clear()
        async with running_engine(tmp_path, [network], receiver) as engine:
            await engine.wait_for_end(request_id)
        assert _named(engine) == ["Early", "Late"]
        assert network.asked == 1
        assert network.retrieved.count("early") == 1


async def test_a_network_taken_out_of_the_settings_does_not_leave_a_query_open(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.hold("")
    async with Receiver() as receiver:
        async with running_engine(tmp_path, [network], receiver) as engine:
            patient_id = await engine.add_patient()
            request_id = await engine.start_query(patient_id)
        async with running_engine(tmp_path, [ScriptedNetwork("other")], receiver) as engine:
            await engine.wait_for_end(request_id)
            assert (await engine.progress(patient_id)).download.status is QueryStatus.FAILED


async def test_a_document_over_the_limit_counts_as_an_error_and_leaves_no_bytes(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("big", bytes(5000))
    network.add("empty")
    network.contents["empty"] = b""
    network.add("small", title="Small")
    async with (
        Receiver() as receiver,
        running_engine(tmp_path, [network], receiver, max_document_bytes=4096) as engine,
    ):
        patient_id = await engine.add_patient()
        await engine.wait_for_end(await engine.start_query(patient_id))
        assert _named(engine) == ["Small"]
        assert (await engine.progress(patient_id)).download.errors == 2
        sizes = [path.stat().st_size for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
        assert max(sizes) < 4096


async def test_a_silenced_query_is_carried_out_and_told_to_nobody(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("d1", title="One")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        quiet, loud = await engine.add_patient(), await engine.add_patient()
        await engine.start_query(quiet, {"disableWHFlag": "true"})
        await engine.wait_for_end(await engine.start_query(loud))
        await engine.wait_for_status(quiet, QueryStatus.COMPLETED)
        assert {patient["patientId"] for message in receiver.messages for patient in patients_in(message)} == {loud}
        listed = await engine.services.documents.list_documents(engine.account_id, ACTOR, quiet)
        assert [document.title for document in listed] == ["One"]
