"""What a query meets while a network is away, which other queries have found out."""

from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection
from tests.support.ccda import a_ccda
from tests.support.engine import ACTOR, Engine, announced, make_settings, running_engine
from tests.support.receiver import Receiver
from tests.support.scripted_network import ScriptedNetwork

from chartwire.clock import system_clock
from chartwire.errors import IssueCode, PermanentNetworkError
from chartwire.model.circuit import Circuit, CircuitState
from chartwire.model.document import QueryStatus
from chartwire.model.overview import ConcernKind
from chartwire.networks.network import Limits
from chartwire.services.listing import Asked
from chartwire.store import circuits
from chartwire.store.profile import run_once

NEVER = timedelta(days=1)
"""A pause that does not end while a test runs, cut to the longest there is."""


async def open_circuit(
    folder: Path, network: ScriptedNetwork, pause: timedelta = NEVER, ago: timedelta = timedelta()
) -> None:
    """Other queries have not been answered, for the first time a while ago."""
    settings, now = make_settings(folder, [network]), system_clock()

    def fail(connection: Connection) -> None:
        for at in [now - ago] * 10 + [now]:
            circuits.note_failure(connection, network.name, IssueCode.TIMEOUT, at, at, pause)

    run_once(settings.database, fail)


async def read_circuit(engine: Engine) -> tuple[Circuit | None, CircuitState]:
    (report,) = await engine.services.console.overview.networks(engine.account_id)
    return report.circuit, report.circuit_state


async def test_a_query_of_a_network_that_has_been_away_for_long_ends_with_the_reason(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver, document_attempts=1) as engine:
        await open_circuit(tmp_path, network, ago=timedelta(minutes=6))
        patient_id = await engine.add_patient()
        await engine.wait_for_end(await engine.start_query(patient_id))
        progress = await engine.progress(patient_id)
        assert (progress.download.status, network.asked) == (QueryStatus.FAILED, 0)
        assert [asked.issue for asked in progress.networks] == [IssueCode.TIMEOUT]
        assert (await read_circuit(engine))[1] is CircuitState.OPEN
        concerns = (await engine.services.console.overview.look(engine.account_id)).concerns
        assert [(each.kind, each.label, each.detail) for each in concerns] == [
            (ConcernKind.NETWORK_AWAY, "mercy", "timeout")
        ]


async def test_a_pause_costs_a_backlog_of_documents_no_attempts(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy", limits=Limits(list_deadline=60, retrieve_deadline=60, concurrency=2))
    for number in range(30):
        network.add(f"d{number:02}")
    network.hold("d00")
    network.hold("d01")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver, document_attempts=1) as engine:
        patient_id = await engine.add_patient()
        request_id = await engine.start_query(patient_id)
        for key in network.gates:
            await network.reached[key].wait()
        await open_circuit(tmp_path, network, timedelta(seconds=1))
        network.failures["d00"] = [PermanentNetworkError(IssueCode.NOT_FOUND)]
        for gate in network.gates.values():
            gate.set()
        await engine.wait_for_end(request_id)
        progress = (await engine.progress(patient_id)).download
        assert (progress.total, progress.successful, progress.errors) == (30, 29, 1)


async def test_what_was_refused_is_asked_once_the_pause_is_over_and_an_answer_ends_it(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("d1")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver, document_attempts=1) as engine:
        await open_circuit(tmp_path, network, timedelta(milliseconds=200))
        await engine.wait_for_end(await engine.start_query(await engine.add_patient()))
        assert (network.asked, len(announced(receiver.messages))) == (1, 1)
        assert await read_circuit(engine) == (None, CircuitState.CLOSED)


async def test_a_document_of_which_the_bytes_are_here_needs_no_network(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("other", a_ccda(born="19620517"))
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver, document_attempts=1) as engine:
        await engine.wait_for_end(await engine.start_query(await engine.add_patient()))
        quarantine = engine.services.console.quarantine
        (held,) = (await quarantine.list(engine.account_id, ACTOR, None, None, Asked())).items
        await open_circuit(tmp_path, network)
        released = await quarantine.release(engine.account_id, ACTOR, held.id, "mistyped")
        assert released.release_query_id is not None
        await engine.wait_for_end(released.release_query_id)
        assert len(announced(receiver.messages)) == 1
        assert (await read_circuit(engine))[1] is CircuitState.OPEN
