"""What operators see: processes, what waits, what is kept; to whom a patient's data went; the trail, taken along."""

import csv
import io
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.console import add_account, add_member, visiting
from tests.support.engine import ACTOR, Engine, running_engine
from tests.support.patience import PATIENCE_SECONDS
from tests.support.profile import database_url
from tests.support.receiver import Receiver
from tests.support.scripted_network import ScriptedNetwork
from tests.support.server import Installation, running_installation

from chartwire.errors import NotFoundError
from chartwire.model.operations import Worker
from chartwire.services import presence
from chartwire.services.listing import Asked
from chartwire.services.operations import Operations
from chartwire.store import operations
from chartwire.store.audit import AuditFilter
from chartwire.store.profile import run_once


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    async with running_installation(tmp_path) as installation:
        yield installation


async def look(engine: Engine) -> Operations:
    """How the engine's installation runs."""
    return await engine.services.console.operations.look(engine.account_id)


async def test_a_process_says_that_it_is_there_and_goodbye(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "_FAREWELL_SECONDS", PATIENCE_SECONDS)  # else it may be forgotten later
    async with Receiver() as receiver, running_engine(tmp_path, [ScriptedNetwork("mercy")], receiver) as engine:
        while not (found := await look(engine)).workers:
            pass
        (worker,) = found.workers
        assert (worker.role, found.made) == ("all", found.head)
    assert run_once(database_url(tmp_path), lambda connection: operations.workers(connection, worker.started_at)) == []


async def test_a_process_that_was_killed_is_forgotten(installation: Installation) -> None:
    now = installation.clock()
    killed = Worker("w1", "ingest", "machine", 7, "0.1.0", now, now)
    alive = replace(killed, id="w2", seen_at=now + timedelta(minutes=2))
    until = now + timedelta(minutes=1)

    async def known(at: timedelta) -> list[str]:
        return await installation.database.read(
            lambda connection: [each.id for each in operations.workers(connection, now + at)]
        )

    await installation.database.write(lambda connection: operations.greet(connection, killed, until))
    assert await known(timedelta(minutes=1)) == ["w1"]
    assert await known(timedelta(minutes=1, seconds=1)) == []
    await installation.database.write(
        lambda connection: operations.greet(connection, alive, until + timedelta(minutes=2))
    )
    assert await known(timedelta()) == ["w2"]  # its row is gone, too


async def test_what_waits_is_told_by_kind_and_age(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    for number in range(3):
        network.add(f"d{number}")
        network.hold(f"d{number}")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        await engine.start_query(await engine.add_patient())
        for key in network.gates:
            await network.reached[key].wait()
        found = {queue.kind: queue.counts for queue in (await look(engine)).queues}
        assert found == {
            "questions": (0,) * 5, "documents": (3, 0, 0, 0, 0), "deliveries": (0,) * 5, "replays": (0,) * 5
        }  # fmt: skip
        for gate in network.gates.values():
            gate.set()


async def test_disclosures_tell_when_to_whom_what_and_why(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("d1")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        patient_id, stranger = await engine.add_patient(), await engine.add_patient()
        await engine.wait_for_end(await engine.start_query(patient_id), await engine.start_query(stranger))
        (document,) = await engine.services.documents.list_documents(engine.account_id, "member:m1", patient_id)
        secret = await engine.services.console.keys.create(engine.account_id, ACTOR, "Scheduling")
        known = await engine.services.registry.authenticate(secret)
        assert known is not None
        await engine.services.documents.get_document(engine.account_id, f"key:{known[1]}", document.id)
        await engine.services.documents.get_document(engine.account_id, "member:m1", document.id)  # use

        service, chosen = engine.services.console.operations, AuditFilter(patient_id=patient_id)
        listed = await service.disclosures(engine.account_id, "member:m1", chosen, Asked("when"))
        told = [(each.recipient, each.what.split()[0], each.purpose.split(":")[0]) for each in listed.items]
        app = f"App at {receiver.url}"
        assert told == [
            ("Health networks: mercy", "Demographics,", "Treatment"),
            (app, "Message", "Treatment"),
            (app, "Message", "Treatment"),
            ("App with the API key Scheduling", "Document", "Treatment"),
        ]
        lines = b"".join(
            [line async for line in await service.export_disclosures(engine.account_id, "member:m1", chosen)]
        )
        rows = list(csv.DictReader(io.StringIO(lines.decode())))
        assert [row["recipient"] for row in rows] == [each.recipient for each in listed.items]
        later = replace(chosen, start=listed.items[-1].at)
        assert len((await service.disclosures(engine.account_id, "member:m1", later, Asked())).items) == 1
        with pytest.raises(NotFoundError):
            await service.disclosures("another", "member:m1", chosen, Asked())
        asked = AuditFilter(action="disclosure.report")
        assert len((await engine.services.console.audit.search(engine.account_id, asked, Asked())).items) == 3


async def test_the_trail_is_taken_along_as_lines_of_json(installation: Installation) -> None:
    await add_member(installation, await add_account(installation), "ada@clinic.example")
    async with visiting(installation, "ada@clinic.example") as visit:
        answer = await visit.get("/console/audit/export", form="ndjson", action="console.")
        assert answer.headers["content-type"] == "application/x-ndjson"
        entries = [json.loads(line) for line in answer.text.splitlines()]
        assert [(each["action"], each["patient_id"], each["outcome"]) for each in entries] == [
            ("console.sign-in", None, "ok")
        ]
        assert (await visit.get("/console/audit/export", form="xml")).status_code == 400
        assert (await visit.get("/console/disclosures/export")).status_code == 400
        assert (await visit.get("/console/disclosures", patient="nobody")).status_code == 404
        assert "No process has been heard of" in (await visit.get("/console/operations")).text
