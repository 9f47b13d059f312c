"""The short way from a commit to an attempt: what is handed over, and what waits in the ring as ever."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from tests.support.dispatching import RETENTION, VAULT
from tests.support.notes import held
from tests.support.profile import open_new_database

from chartwire.clock import system_clock
from chartwire.ids import new_message_id
from chartwire.model.webhook import Endpoint, EventDraft, EventType, PayloadVersion
from chartwire.store import claims, endpoints, outbox, registry
from chartwire.store.claims import ClaimedDelivery, Room
from chartwire.store.database import Bell, Database
from chartwire.store.handover import Handover, Slots
from chartwire.store.sqlite import SqliteDatabase
from chartwire.store.targets import Targets

pytestmark = pytest.mark.embedded

LEASE = timedelta(seconds=120)


class Desk:
    """A database with an endpoint that is known to a dispatcher's stand-in, which keeps what it is handed."""

    def __init__(self, folder: Path, per_endpoint: int = 2) -> None:
        self.bells: list[Bell] = []
        self.database: Database = open_new_database(folder, self.bells.append)
        self.targets, self.slots = Targets(VAULT), Slots(8)
        self.started: list[ClaimedDelivery] = []
        self.handover = Handover(self.targets, self.slots, per_endpoint, "mine", LEASE, self.started.append)
        self.endpoint: Endpoint

    async def open(self) -> None:
        """Let a first message be claimed, by which the endpoint becomes known."""
        self.endpoint = await self.database.write(_register)
        self.database.attach(self.handover)
        await self.append()
        claim = await self.claim()
        self.targets.keep(claimed.target for claimed in claim)
        self.bells.clear()
        self.handover.is_open = True

    async def append(self, *, fails: bool = False) -> None:
        await self.database.write(lambda connection: self._append(connection, fails=fails))

    async def claim(self) -> tuple[ClaimedDelivery, ...]:
        """What a claim finds."""
        now = system_clock()
        room = Room(8, 8, {})
        return (
            await self.database.write(lambda it: claims.claim(it, self.targets, room, "theirs", now, now + LEASE))
        ).deliveries

    async def change(self, sql: str) -> None:
        await self.database.write(lambda connection: connection.execute(text(sql)))

    def _append(self, connection: Connection, *, fails: bool) -> None:
        draft = EventDraft(
            new_message_id(), self.endpoint.account_id, EventType.DOCUMENT_DOWNLOAD, PayloadVersion.V2023_04, b"{}"
        )
        outbox.append(connection, VAULT, draft, [self.endpoint], system_clock(), RETENTION)
        if fails:
            raise LookupError("changed its mind")


def _register(connection: Connection) -> Endpoint:
    now = system_clock()
    account = registry.create_account(connection, "clinic", now)
    endpoint = endpoints.create_endpoint(connection, account.id, now)
    endpoints.add_key(connection, VAULT, endpoint.seq, now)
    return endpoints.set_url(connection, endpoint, "https://receiver.example/", now)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path)
    await desk.open()
    yield desk
    await desk.database.close()


async def test_what_is_written_is_handed_over_and_not_there_to_be_claimed(desk: Desk) -> None:
    await desk.append()
    (claimed,) = desk.started
    assert (claimed.attempt, claimed.lease, claimed.target.endpoint) == (1, "mine", desk.endpoint)
    assert Bell.DELIVERY not in desk.bells
    assert await desk.claim() == ()
    assert (desk.slots.left, desk.slots.busy()) == (7, {desk.endpoint.seq: 1})


async def test_what_is_rolled_back_is_not_handed_over_and_holds_no_room(desk: Desk) -> None:
    units = [desk.append(), desk.append(fails=True)]
    results = await asyncio.gather(*units, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), LookupError]
    assert len(desk.started) == 1
    assert desk.slots.left == 7


async def test_what_is_rolled_back_holds_no_room_when_the_next_unit_looks(desk: Desk) -> None:
    """It may be a claim, which would take the endpoint for full until a lease ends that nobody holds."""
    assert isinstance(desk.database, SqliteDatabase)
    async with held(desk.database) as gate:
        left: list[int] = []
        failing = asyncio.create_task(desk.append(fails=True))
        looking = asyncio.create_task(desk.database.write(lambda _: left.append(desk.slots.left)))
        await asyncio.sleep(0)  # both are in the writer's queue
        gate.opened.set()
        with pytest.raises(LookupError):
            await failing
        await looking
    assert left == [8]


async def test_what_has_no_room_waits_and_nothing_overtakes_it(desk: Desk) -> None:
    for _ in range(3):
        await desk.append()
    assert len(desk.started) == 2  # the endpoint's limit
    assert Bell.DELIVERY in desk.bells
    desk.slots.give(desk.endpoint.seq)
    await desk.append()
    assert len(desk.started) == 2
    assert len(await desk.claim()) == 2


@pytest.mark.parametrize(
    "trouble",
    [
        "state = 'disabled'",
        "rate_per_second = 10",
        "failures_in_row = 1",
        "breaker_waits = 1",
        "paused_until = 99999999999999",
        "held_until = 99999999999999",
        "version = version + 1",
    ],
)
async def test_an_endpoint_that_something_holds_is_left_to_the_ring(desk: Desk, trouble: str) -> None:
    await desk.change(f"UPDATE endpoint SET {trouble}")  # noqa: S608  written above
    await desk.append()
    assert desk.started == []
    assert desk.slots.left == 8


async def test_a_quarter_of_the_room_is_for_endpoints_that_have_little_under_way(tmp_path: Path) -> None:
    desk = Desk(tmp_path, per_endpoint=8)
    await desk.open()
    for _ in range(6):
        await desk.append()
    assert len(desk.started) == 3  # of eight: then four are left, two for it and as many for others, beside a quarter
    for other in range(100, 105):
        desk.slots.take(other)
    desk.slots.give(desk.endpoint.seq)
    desk.slots.give(desk.endpoint.seq)
    assert len(await desk.claim()) == 3
    await desk.append()
    assert len(desk.started) == 4
    await desk.database.close()


async def test_a_closed_handover_takes_nothing(desk: Desk) -> None:
    desk.handover.is_open = False
    await desk.append()
    assert desk.started == []
    assert len(await desk.claim()) == 1


async def test_what_its_holder_lost_is_claimed_when_the_lease_ends(desk: Desk) -> None:
    await desk.append()
    later = system_clock() + LEASE + timedelta(seconds=1)
    claim = await desk.database.write(
        lambda it: claims.claim(it, desk.targets, Room(8, 8, {}), "theirs", later, later + LEASE)
    )
    assert desk.started[0].seq in {claimed.seq for claimed in claim.deliveries}
