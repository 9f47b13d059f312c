"""Document-query steps that a broker hands out: sooner than the database tells, and never more than a hint."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.engine import make_settings, running_engine
from tests.support.nats import Nats, running_nats
from tests.support.ports import closed_port
from tests.support.profile import make_tables
from tests.support.receiver import Receiver
from tests.support.scripted_network import ScriptedNetwork
from tests.support.workers import a_bus

from chartwire import step_tickets
from chartwire.clock import system_clock
from chartwire.delivery.nats.bus import NatsBus
from chartwire.delivery.transport import Transport
from chartwire.networks.network import Limits
from chartwire.store.master_key import ensure_key_file
from chartwire.store.opening import make_keys
from chartwire.store.vault import Purpose

HOURS = timedelta(hours=1)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nats]:
    async with running_nats(tmp_path_factory.mktemp("nats")) as server:
        yield server


@asynccontextmanager
async def the_bus_of(folder: Path, broker: Nats) -> AsyncIterator[NatsBus]:
    """Another process of the same installation, as far as the broker can tell."""
    make_tables(folder)
    _, vault = make_keys(make_settings(folder, ()), system_clock())
    async with a_bus(broker.url, Transport(vault.eldest_key(Purpose.TRANSPORT)), is_inside=False) as bus:
        yield bus


async def not_acknowledged(bus: NatsBus, lane: str) -> object:
    assert bus._stream is not None
    return (await bus._stream.consumer_info(bus.stream_name(step_tickets.STEPS), lane)).num_ack_pending


async def test_a_ticket_brings_a_step_that_nobody_looked_for(
    tmp_path: Path, broker: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_tickets, "_PATIENCE", HOURS)  # the database would tell too late
    networks = [ScriptedNetwork("mercy"), ScriptedNetwork("grace")]
    gate = networks[0].hold("")
    async with (
        the_bus_of(tmp_path, broker) as bus,
        Receiver() as receiver,
        running_engine(tmp_path, networks, receiver, nats_url=broker.url) as engine,
    ):
        request_id = await engine.start_query(await engine.add_patient())
        await networks[0].reached[""].wait()
        assert await not_acknowledged(bus, "mercy") == 1  # for another, if this process dies at it
        gate.set()
        await engine.wait_for_end(request_id)
    assert [network.asked for network in networks] == [1, 1]


async def test_without_its_ticket_a_step_is_found_in_the_database(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    with closed_port() as port:
        async with (
            Receiver() as receiver,
            running_engine(tmp_path, [network], receiver, nats_url=f"nats://127.0.0.1:{port}") as engine,
        ):
            await engine.wait_for_end(await engine.start_query(await engine.add_patient()))
    assert network.asked == 1


async def test_tickets_of_what_is_done_or_never_was_do_nothing(tmp_path: Path, broker: Nats) -> None:
    network = ScriptedNetwork("mercy")
    async with (
        the_bus_of(tmp_path, broker) as bus,
        Receiver() as receiver,
        running_engine(tmp_path, [network], receiver, nats_url=broker.url) as engine,
    ):
        request_id = await engine.start_query(await engine.add_patient())
        await engine.wait_for_end(request_id)
        for number, payload in enumerate([request_id.encode(), request_id.encode(), b"unknown", b"\xff", b""]):
            await bus.publish(step_tickets.STEPS, "mercy", f"again-{number}", payload)
        again = await engine.start_query(await engine.add_patient())
        await engine.wait_for_end(again)
    assert network.asked == 2


async def test_a_network_is_never_asked_more_than_it_bears(
    tmp_path: Path, broker: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_tickets, "_PATIENCE", timedelta())  # tickets and those who look compete
    network = ScriptedNetwork("mercy", limits=Limits(list_deadline=20, retrieve_deadline=20, concurrency=2))
    gate = network.hold("")
    async with (
        Receiver() as receiver,
        running_engine(tmp_path, [network], receiver, nats_url=broker.url) as engine,
    ):
        patients = [await engine.add_patient() for _ in range(6)]
        requests = await asyncio.gather(*(engine.start_query(patient_id) for patient_id in patients))
        await network.reached[""].wait()
        gate.set()
        await engine.wait_for_end(*requests)
    assert network.asked == 6
    assert network.most_calls <= 2


async def test_a_transport_key_that_was_given_takes_the_place_of_the_derived_one(tmp_path: Path, broker: Nats) -> None:
    file = tmp_path / "transport.key"
    (key,) = ensure_key_file(file)
    async with (
        Receiver() as receiver,
        running_engine(tmp_path, [], receiver, nats_url=broker.url, transport_key_file=file),
        a_bus(broker.url, Transport(key.secret), is_inside=False) as bus,
    ):
        assert bus._stream is not None
        await bus._stream.stream_info(bus.stream_name(step_tickets.STEPS))
