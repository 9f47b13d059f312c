"""A document that says that it is about somebody else is held until somebody has looked, and told to nobody before."""

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.support.ccda import a_ccda
from tests.support.engine import ACTOR, Engine, announced, closed, running_engine
from tests.support.receiver import Receiver
from tests.support.scripted_network import ScriptedNetwork

from chartwire.errors import BadRequestError, ConflictError, NotFoundError
from chartwire.model.document import DocumentStatus, QueryStatus
from chartwire.model.matching import Disagreement
from chartwire.model.quarantine import HeldDocument, QuarantineState
from chartwire.model.webhook import DeliveryMode
from chartwire.services.listing import Asked
from chartwire.services.patients import PatientDraft
from chartwire.store import documents
from chartwire.store.audit import AuditFilter


async def held(engine: Engine, state: QuarantineState | None = None) -> list[HeldDocument]:
    """What is held, or in another state."""
    quarantine = engine.services.console.quarantine
    return (await quarantine.list(engine.account_id, ACTOR, state, None, Asked())).items


async def ask(engine: Engine, patient_id: str) -> str:
    """A query, to its end."""
    request_id = await engine.start_query(patient_id)
    await engine.wait_for_end(request_id)
    return request_id


async def test_it_is_held_let_in_with_a_reason_and_told_of_as_any_other(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("hers", a_ccda(), title="Hers")
    network.add("other", a_ccda(born="19620517", text="other"), title="Another's")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        quarantine, patient_id = engine.services.console.quarantine, await engine.add_patient()
        await ask(engine, patient_id)
        told = [each["title"] if "title" in each else each["description"] for each in _told(receiver)]
        assert told == ["Hers"]
        progress = await engine.progress(patient_id)
        assert (progress.download.successful, progress.download.errors) == (1, 1)
        (record,) = await held(engine)
        assert (record.reasons, record.state) == ((Disagreement.BIRTH_DATE,), QuarantineState.HELD)
        assert b"".join([chunk async for chunk in quarantine.read(record)]) == network.contents["other"]

        await ask(engine, patient_id)  # it comes again, and is held once
        assert [each.id for each in await held(engine)] == [record.id]

        network.contents["other"] = b"what is there by now"
        for note in ("", "x" * 501):
            with pytest.raises(BadRequestError):
                await quarantine.release(engine.account_id, ACTOR, record.id, note)
        released = await quarantine.release(engine.account_id, ACTOR, record.id, "mistyped")
        assert released.release_query_id is not None
        await engine.wait_for_end(released.release_query_id)
        (document,) = [each for each in _told(receiver) if each["description"] == "Another's"]
        stored = await engine.services.documents.get_document(engine.account_id, ACTOR, document["id"])
        assert (stored.sha256, stored.status) == (record.sha256, DocumentStatus.CURRENT)  # the bytes that were seen
        with pytest.raises(ConflictError):
            await quarantine.discard(engine.account_id, ACTOR, record.id, "too late")
        assert await _audited(engine, "quarantine.release") == [(ACTOR, patient_id, record.id)]


async def test_what_is_thrown_away_is_passed_over_when_it_comes_again(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("other", a_ccda(family="Zeller", given="Uwe", sex="M"))
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        quarantine, patient_id = engine.services.console.quarantine, await engine.add_patient()
        await ask(engine, patient_id)
        (record,) = await held(engine, QuarantineState.HELD)
        assert record.reasons == (Disagreement.NAME, Disagreement.SEX)
        assert await _referenced(engine, record) == {record.sha256}
        await quarantine.discard(engine.account_id, ACTOR, record.id, "not ours")
        assert await _referenced(engine, record) == set()  # the next sweep removes the bytes
        await ask(engine, patient_id)
        assert (await engine.progress(patient_id)).download.errors == 0
        assert announced(receiver.messages) == []
        (after,) = await held(engine)
        assert (after.state, after.note, after.decided_by) == (QuarantineState.DISCARDED, "not ours", ACTOR)
        with pytest.raises(NotFoundError):
            quarantine.read(after)
        with pytest.raises(NotFoundError):
            await quarantine.look("another account", ACTOR, record.id)
        assert await _audited(engine, "quarantine.discard") == [(ACTOR, patient_id, record.id)]


async def test_who_is_told_at_the_end_of_queries_is_told_of_what_is_let_in(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("other", a_ccda(born="19620517"))
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        (endpoint,) = await engine.services.webhooks.list_endpoints(engine.account_id)
        changes: Any = {"delivery": DeliveryMode.ON_COMPLETION}
        await engine.services.webhooks.change_endpoint(engine.account_id, endpoint.id, changes, ACTOR)
        request_id = await engine.start_query(await engine.add_patient())
        await receiver.wait_for(lambda it: request_id in closed(it.messages))
        (record,) = await held(engine)
        await engine.services.console.quarantine.release(engine.account_id, ACTOR, record.id, "hers after all")
        await receiver.wait_for(lambda it: len(announced(it.messages)) == 1)


async def test_what_is_let_in_counts_though_an_earlier_version_of_it_is_here(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("other", a_ccda(text="one"), master_identifier="1.2.3")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        patient_id = await engine.add_patient()
        await ask(engine, patient_id)
        network.contents["other"] = a_ccda(born="19620517", text="two")
        await engine.wait_for_end(await engine.start_query(patient_id, override=True))
        (record,) = await held(engine)
        released = await engine.services.console.quarantine.release(engine.account_id, ACTOR, record.id, "mistyped")
        await engine.wait_for_end(str(released.release_query_id))
        kept = await engine.services.documents.list_documents(engine.account_id, ACTOR, patient_id)
        assert record.sha256 in {document.sha256 for document in kept}


async def test_what_is_let_in_does_not_pass_for_a_query_of_the_app(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("other", a_ccda(born="19620517"))
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        patient_id = await engine.add_patient()
        await ask(engine, patient_id)
        (record,) = await held(engine)
        network.add("slow", b"another one")
        gate = network.hold("slow")
        request_id = await engine.start_query(patient_id)
        await network.reached["slow"].wait()
        released = await engine.services.console.quarantine.release(engine.account_id, ACTOR, record.id, "hers")
        await engine.wait_for_end(str(released.release_query_id))
        assert (await engine.progress(patient_id)).download.status is QueryStatus.PROCESSING
        assert await engine.start_query(patient_id) == request_id
        gate.set()
        await engine.wait_for_end(request_id)


async def test_what_agrees_by_now_is_not_held_any_more(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("other", a_ccda(born="19620517"))
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        patients, patient_id = engine.services.registry.patients, await engine.add_patient()
        await ask(engine, patient_id)
        known = (await patients.get(engine.account_id, ACTOR, patient_id)).demographics
        corrected = PatientDraft(replace(known, dob=date(1962, 5, 17)))
        await patients.update(engine.account_id, ACTOR, patient_id, corrected, None, None)
        await ask(engine, patient_id)
        (record,) = await held(engine)
        assert (record.state, record.decided_by) == (QuarantineState.RELEASED, "engine")
        assert len(announced(receiver.messages)) == 1


async def test_a_network_can_be_trusted_with_whose_documents_it_gives(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy", is_trusted=True)
    network.add("other", a_ccda(born="19620517"))
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        await ask(engine, await engine.add_patient())
        assert len(announced(receiver.messages)) == 1
        assert await held(engine) == []


async def test_what_was_held_of_a_network_that_is_trusted_by_now_is_not_held_any_more(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("other", a_ccda(born="19620517"))
    async with Receiver() as receiver:
        async with running_engine(tmp_path, [network], receiver) as engine:
            patient_id = await engine.add_patient()
            await ask(engine, patient_id)
            assert [each.state for each in await held(engine)] == [QuarantineState.HELD]
        network.is_trusted = True
        async with running_engine(tmp_path, [network], receiver) as engine:
            await ask(engine, patient_id)
            assert len(announced(receiver.messages)) == 1
            (record,) = await held(engine)
            assert (record.state, record.note) == (QuarantineState.RELEASED, "Its network is trusted by now")


async def test_what_could_not_be_fetched_is_listed_with_the_reason(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("large", b"x" * 5000, title="Too large")
    async with (
        Receiver() as receiver,
        running_engine(tmp_path, [network], receiver, max_document_bytes=4096) as engine,
    ):
        await ask(engine, await engine.add_patient())
        quarantine = engine.services.console.quarantine
        listed = await quarantine.list_untaken(engine.account_id, ACTOR, None, "mercy", Asked())
        assert [(each.remote.title, each.issue) for each in listed.items] == [("Too large", "too-large")]


def _told(receiver: Receiver) -> list[Any]:
    return [document for message in receiver.messages for document in message.documents]


async def _referenced(engine: Engine, record: HeldDocument) -> set[str]:
    database = engine.services.console.quarantine._database
    return await database.read(lambda connection: documents.referenced_digests(connection, [record.sha256]))


async def _audited(engine: Engine, action: str) -> list[tuple[str, str | None, str | None]]:
    found = await engine.services.console.audit.search(engine.account_id, AuditFilter(action=action), Asked())
    return [(each.actor, each.patient_id, each.subject) for each in found.items]
