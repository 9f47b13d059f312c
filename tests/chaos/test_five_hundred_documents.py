"""The promise, on real documents from an independent FHIR server: every document is announced exactly once, whatever is
done to the process meanwhile."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest
from tests.support.ccda_samples import needs_samples, sample_files
from tests.support.engine import announced, closed
from tests.support.fhir_server import load_documents, start_sekmet
from tests.support.journey import journey
from tests.support.process import ChartwireProcess
from tests.support.receiver import PATIENTLY, Receiver

from chartwire.model.registry import Address, Demographics, Gender

PATIENTS = 10
DOCUMENTS_EACH = 50
KILLS = 10
PATIENCE_SECONDS = 300

pytestmark = [pytest.mark.embedded, pytest.mark.chaos, needs_samples, pytest.mark.timeout(600)]

FAMILY_NAMES = ("Abbot", "Birch", "Cowell", "Dunmore", "Eastwick", "Fairfax", "Gorman", "Huxley", "Ibsen", "Jarvis")


def _people() -> list[Demographics]:
    address = (Address("1 Elm St", "Ukiah", "CA", "95482"),)
    return [
        Demographics("Ana", FAMILY_NAMES[number], date(1950 + 3 * number, 2, 3), Gender.F, address)
        for number in range(PATIENTS)
    ]


@dataclass
class Scene:
    """A server that has been asked for the documents of ten patients."""

    server: ChartwireProcess
    receiver: Receiver
    api_key: str
    request_ids: list[str]

    async def wait_for_ends(self) -> None:
        """Wait until all queries are told to be over, and until what was told before, or twice, has come in too."""
        await self.receiver.wait_for(lambda it: set(self.request_ids) <= closed(it.messages), timeout=PATIENCE_SECONDS)
        async with journey(self.server.base_url, self.api_key) as app:
            await app.until_settled()


@asynccontextmanager
async def _asked_for_everything(folder: Path) -> AsyncIterator[Scene]:
    samples = sorted({file.read_bytes(): file for file in sample_files()}.values())
    people = _people()
    async with start_sekmet(_made(folder / "sekmet")) as fhir, Receiver() as receiver:
        for person in people:
            await load_documents(fhir.base_url, person, random.Random(person.last_name).sample(samples, DOCUMENTS_EACH))
        config = folder / "chartwire.toml"
        config.write_text(f'[[networks]]\nname = "mercy"\nkind = "fhir"\nbase_url = "{fhir.base_url}"\n')
        env = {
            **PATIENTLY,
            "CHARTWIRE_CONFIG": str(config),
            "CHARTWIRE_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
        }
        async with ChartwireProcess(folder / "data", env) as server:
            _, api_key = await server.create_account("Clinic")
            async with journey(server.base_url, api_key) as app:
                receiver.webhook_key = await app.save_webhook(receiver.url)
                facility_id = await app.add_facility()
                patients = [await app.add_patient(facility_id, person) for person in people]
                requests = await asyncio.gather(*(app.start_query(patient, facility_id) for patient in patients))
            yield Scene(server, receiver, api_key, list(requests))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _check_everything_arrived_once(receiver: Receiver) -> None:
    ids = announced(receiver.messages)
    assert len(ids) == PATIENTS * DOCUMENTS_EACH
    assert len(set(ids)) == PATIENTS * DOCUMENTS_EACH
    assert receiver.refused == 0


async def test_ten_queries_at_once_announce_every_document_exactly_once(tmp_path: Path) -> None:
    async with _asked_for_everything(tmp_path) as scene:
        await scene.wait_for_ends()
        _check_everything_arrived_once(scene.receiver)
        ids = [message.message_id for message in scene.receiver.messages]
        assert len(ids) == len(set(ids))  # nothing was killed, so no message came twice


async def test_the_same_after_the_process_was_killed_ten_times(tmp_path: Path) -> None:
    moments = random.SystemRandom()
    async with _asked_for_everything(tmp_path) as scene:
        for _ in range(KILLS):
            await asyncio.sleep(moments.uniform(0, 0.4))  # not a wait: the random moment of the kill
            await scene.server.kill()
            await scene.server.start()
        await scene.wait_for_ends()
        _check_everything_arrived_once(scene.receiver)
        bodies: dict[str, set[bytes]] = {}
        for message in scene.receiver.messages:
            bodies.setdefault(message.message_id, set()).add(message.body)
        assert all(len(versions) == 1 for versions in bodies.values())  # a repeat has the same id and the same bytes
