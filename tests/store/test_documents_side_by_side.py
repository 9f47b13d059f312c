"""Documents of one account, kept by several processes at once: what waits for what on PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import orjson
import pytest
from sqlalchemy import Connection, select
from tests.support.documents import NOW, a_document, add_patient
from tests.support.gate import Gate, until_one_waits_for_a_lock
from tests.support.profile import database_url

from chartwire.ingestion.announcement import Announcer
from chartwire.model.document import DocumentQuery, QueryStatus
from chartwire.settings import Settings
from chartwire.store import documents, endpoints, queries, registry, schema
from chartwire.store.database import Database, lock_patient
from chartwire.store.postgres import PostgresDatabase
from chartwire.store.vault import Purpose, Vault

pytestmark = pytest.mark.cluster

VAULT = Vault(bytes(32))
Start = Callable[[], Database]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts one more process on the test's database."""
    async with AsyncExitStack() as stack:

        def start() -> Database:
            database = PostgresDatabase(database_url(tmp_path), lambda _: None)
            stack.push_async_callback(database.close)
            return database

        yield start


class Desk:
    """An account with an endpoint, whose patients' documents are kept as intake does, without any network."""

    def __init__(self, connection: Connection, *patients: str) -> None:
        self.announcer = Announcer(VAULT, Settings(public_url="http://chartwire.test"))
        self.account = registry.create_account(connection, "Clinic", NOW).id
        endpoint = endpoints.create_settings_endpoint(connection, self.account, NOW)
        endpoints.update_endpoint(connection, endpoint, {"url": "http://app.test"})
        for patient_id in patients:
            add_patient(connection, self.account, patient_id)
            query = DocumentQuery(
                f"of {patient_id}", self.account, patient_id, None, QueryStatus.PROCESSING, NOW, override=False
            )
            queries.start_query(connection, query, ["mercy"])

    def keep(self, connection: Connection, patient_id: str) -> None:
        """Write one document and announce it."""
        lock_patient(connection, patient_id)
        record = a_document(self.account, patient_id, patient_id.encode(), query_id=f"of {patient_id}")
        documents.insert_document(connection, record)
        self.announcer.announce(connection, record, record.query_id, NOW)

    def told(self, connection: Connection) -> list[int]:
        """How many documents each message tells of, in the order of the messages."""
        bodies = connection.execute(select(schema.event.c.body).order_by(schema.event.c.seq)).scalars()
        messages = [orjson.loads(VAULT.open(Purpose.PAYLOAD, body)) for body in bodies]
        return [sum(len(patient["documents"]) for patient in message["patients"]) for message in messages]


async def test_those_of_two_patients_do_not_wait_for_each_other(start: Start) -> None:
    database, gate = start(), Gate()
    desk = await database.write(lambda connection: Desk(connection, "p0", "p1", "p2"))
    await database.write(lambda connection: desk.keep(connection, "p0"))  # told at once, and a window is open

    def keep_slowly(connection: Connection) -> None:
        desk.keep(connection, "p1")
        gate.wait(connection)

    keeping = asyncio.create_task(database.write(keep_slowly))
    await gate.reached.wait()
    await start().write(lambda connection: desk.keep(connection, "p2"))
    assert not keeping.done()
    gate.opened.set()
    await keeping
    at = NOW + desk.announcer.window
    await database.write(lambda connection: desk.announcer.compose(connection, desk.account, at))
    assert await database.read(desk.told) == [1, 2]


async def test_of_those_that_come_to_an_idle_account_at_once_one_goes_before_the_window(start: Start) -> None:
    database, gate = start(), Gate()
    desk = await database.write(lambda connection: Desk(connection, "p1", "p2"))

    def keep_slowly(connection: Connection) -> None:
        desk.keep(connection, "p1")
        gate.wait(connection)

    keeping = asyncio.create_task(database.write(keep_slowly))
    await gate.reached.wait()
    following = asyncio.create_task(start().write(lambda connection: desk.keep(connection, "p2")))
    await until_one_waits_for_a_lock(database)
    gate.opened.set()
    await asyncio.gather(keeping, following)
    assert await database.read(desk.told) == [1]
    assert await database.read(documents.next_announcement) == NOW + desk.announcer.window


async def test_giving_up_networks_that_are_no_more_and_keeping_do_not_wait_for_each_other(start: Start) -> None:
    """Both take patients' locks before the account's: the other way round, each would have what the other wants."""
    database, gate = start(), Gate()
    desk = await database.write(lambda connection: Desk(connection, "p0", "p1", "p2"))
    runs = []

    def keep_slowly(connection: Connection) -> None:
        runs.append("keep")
        lock_patient(connection, "p2")
        gate.wait(connection)
        desk.keep(connection, "p2")

    keeping = asyncio.create_task(database.write(keep_slowly))
    await gate.reached.wait()

    def give_up(connection: Connection) -> bool:
        runs.append("give up")
        return desk.announcer.abandon_other_networks(connection, ["other"], NOW)

    giving_up = asyncio.create_task(start().write(give_up))
    await until_one_waits_for_a_lock(database)
    gate.opened.set()
    await keeping
    assert await giving_up
    assert runs == ["keep", "give up"]  # whoever has to end a deadlock is run again
    assert sorted(await database.read(desk.told)) == [0, 0, 0, 1]
