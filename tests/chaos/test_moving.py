"""An installation moves from SQLite and a folder to PostgreSQL and a bucket, and back, in the middle of its work."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from tests.support.customer import JANE, SANDBOX, Customer, settle
from tests.support.engine import announced, closed
from tests.support.journey import journey
from tests.support.process import ChartwireProcess
from tests.support.receiver import Answer, Receiver
from tests.support.seaweed import running_object_store

from chartwire.store.archive import Archive

pytestmark = [pytest.mark.cluster, pytest.mark.chaos, pytest.mark.timeout(600)]

SLOWLY = {
    **SANDBOX,
    "CHARTWIRE_NETWORKS": json.dumps([{"kind": "sandbox", "spread_seconds": 6}]),
    "CHARTWIRE_WEBHOOK_RETRY_SECONDS": "[0, 10, 10, 10]",
}
ON_SQLITE = {**SLOWLY, "CHARTWIRE_DATABASE_URL": ""}


async def see_everything(server: ChartwireProcess, customer: Customer) -> None:
    """API key, webhook key, documents, and a link that was given before."""
    headers = {"x-api-key": customer.api_key}
    async with aiohttp.ClientSession(base_url=server.base_url, headers=headers) as session:
        async with session.get("/settings") as answer:
            assert (await answer.json())["webhookKey"] == customer.webhook_key
        for document in customer.documents:
            async with session.get(f"/oauth/fhir/Binary/{document['id']}") as answer:
                assert len(await answer.read()) == document["size"]
        link = urlsplit(customer.download_url)
        async with session.get(f"{link.path}?{link.query}", headers={}) as answer:
            assert answer.status == 200


async def test_an_installation_moves_up_in_the_middle_of_its_work_and_back(tmp_path: Path) -> None:
    async with Receiver() as receiver, running_object_store(tmp_path) as store:
        first, up, back = tmp_path / "first", tmp_path / "up", tmp_path / "back"
        async with ChartwireProcess(first, ON_SQLITE) as embedded:
            customer = await settle(embedded, receiver, "Moving")
            await embedded.run("export", str(tmp_path / "archive"))
            async with journey(embedded.base_url, customer.api_key) as app:
                patient = await app.add_patient(customer.facility_id, replace(JANE, first_name="Janet"))
                other = await app.start_query(patient, customer.facility_id)
                receiver.answers.append(Answer(500))
                again = await app.start_query(customer.patient_id, customer.facility_id)
            await receiver.wait_for(lambda it: not it.answers)
        await embedded.run("export", str(tmp_path / "archive"))  # what has changed since

        cluster = ChartwireProcess(up, {**SLOWLY, "CHARTWIRE_BLOB_URL": store.url("moved"), **store.environment()})
        shutil.copy2(first / "master.key", up / "master.key")
        await cluster.run("import", str(tmp_path / "archive"))
        await cluster.run("export", str(tmp_path / "control"))
        sent, arrived = (Archive(tmp_path / name).read_manifest() for name in ("archive", "control"))
        assert (arrived.documents.rows, arrived.lost_documents) == (7, 0)
        assert sent.tables == arrived.tables
        async with cluster:
            await see_everything(cluster, customer)
            await receiver.wait_for(lambda it: {other, again} <= set(closed(it.messages)), 120)
            after = await settle(cluster, receiver, "After the move")
        assert set(announced(receiver.messages)) >= {document["id"] for document in after.documents}

        await cluster.run("export", str(tmp_path / "control"))
        returned = ChartwireProcess(back, ON_SQLITE)
        shutil.copy2(first / "master.key", back / "master.key")
        await returned.run("import", str(tmp_path / "control"))
        await returned.run("export", str(tmp_path / "archive"))
        sent, arrived = (Archive(tmp_path / name).read_manifest() for name in ("control", "archive"))
        assert sent.tables == arrived.tables
        assert sent.documents.rows == arrived.documents.rows
        async with returned:
            await see_everything(returned, customer)
            await see_everything(returned, after)
            await settle(returned, receiver, "Back again")
