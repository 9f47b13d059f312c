"""Subscriptions of a server that is killed without warning: every document is an event once, numbered without gaps, and
every event arrives."""

import asyncio
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from tests.support.customer import JANE, SANDBOX, patient_of, subscription_for
from tests.support.journey import Journey, journey
from tests.support.people import NPIS
from tests.support.process import ChartwireProcess
from tests.support.profile import database_url
from tests.support.receiver import Received, Receiver

from chartwire.model.registry import Demographics
from chartwire.store.profile import run_once

PEOPLE = [replace(JANE, first_name=name) for name in ("Jane", "Chris", "Ollie")]
"""Whom the sandbox knows by their first names; at each one's query the server dies once."""

ENV = {**SANDBOX, "CHARTWIRE_NETWORKS": json.dumps([{"kind": "sandbox", "spread_seconds": 1}])}

# A cluster waits for leases, where an installation that is alone begins anew: tests/chaos/test_cluster.py.
pytestmark = [pytest.mark.embedded, pytest.mark.chaos, pytest.mark.timeout(600)]


def numbered(received: Received) -> list[tuple[int, str]]:
    """The events of a notification: number and document."""
    events = [
        {part["name"]: part for part in each["part"]}
        for each in received.json["entry"][0]["resource"]["parameter"]
        if each["name"] == "notification-event"
    ]
    return [
        (int(event["event-number"]["valueString"]), event["focus"]["valueReference"]["reference"].rpartition("/")[2])
        for event in events
    ]


def arrived(receiver: Receiver) -> dict[int, str]:
    """Documents by event number; a number never stands for two."""
    pairs = {pair for received in receiver.requests if "entry" in received.json for pair in numbered(received)}
    assert len({number for number, _ in pairs}) == len(pairs), "a number was given twice"
    return dict(pairs)


def stored(data_dir: Path) -> set[str]:
    """Ids of the documents that are here."""

    def unit(connection: Connection) -> set[str]:
        return set(connection.execute(text("SELECT id FROM document")).scalars())

    return run_once(database_url(data_dir), unit, read_only=True)


async def test_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    chance = random.Random()
    async with Receiver() as receiver, ChartwireProcess(tmp_path / "data", ENV) as server:
        _, api_key = await server.create_account("Clinic")
        async with journey(server.base_url, api_key) as app:
            body = subscription_for(server.base_url, receiver.url, "requested")
            made = await app.call("POST", "/oauth/fhir/Subscription", body)
            await receiver.wait_for(lambda it: bool(it.requests))
            facility_id = await app.add_facility(NPIS[0])
            patients = [await add(app, facility_id, who) for who in PEOPLE]
        for patient_id in patients:
            async with journey(server.base_url, api_key) as app:
                await app.start_query(patient_id, facility_id)
            await asyncio.sleep(chance.uniform(0, 1.2))  # chance picks the moment of death, and none may matter
            await server.kill()
            await server.start()
        async with journey(server.base_url, api_key) as app:
            async with asyncio.timeout(200):
                while not await is_over(app, patients):
                    pass
            documents = stored(server.data_dir)
            await receiver.wait_for(lambda it: set(arrived(it).values()) == documents, 200)
            status = await app.call("GET", f"/oauth/fhir/Subscription/{made['id']}/$status")
    told = arrived(receiver)
    assert sorted(told) == list(range(1, len(documents) + 1))
    assert {"name": "events-since-subscription-start", "valueString": str(len(documents))} in (
        status["entry"][0]["resource"]["parameter"]
    )


async def add(app: Journey, facility_id: str, who: Demographics) -> str:
    patient = await app.call("POST", "patient", patient_of(who), facilityId=facility_id)
    return str(patient["id"])


async def is_over(app: Journey, patients: list[str]) -> bool:
    answers = [await app.call("GET", "document/query", patientId=patient_id) for patient_id in patients]
    return all(answer["download"]["status"] != "processing" for answer in answers)
