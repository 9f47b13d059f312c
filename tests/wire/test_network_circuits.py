"""What a query meets while a network is away, which other queries have found out."""

from datetime import timedelta
from pathlib import Path

from tests.support.ccda import a_ccda
from tests.support.engine import ACTOR, Engine, announced, make_settings, running_engine
from tests.support.receiver import Receiver
from tests.support.scripted_network import ScriptedNetwork

from chartwire.clock import system_clock
from chartwire.errors import IssueCode
from chartwire.model.circuit import Circuit, CircuitState
from chartwire.model.document import QueryStatus
from chartwire.model.overview import ConcernKind
from chartwire.services.listing import Asked
from chartwire.store import circuits
from chartwire.store.profile import run_once

NEVER = timedelta(days=1)
"""A pause that does not end while a test runs, cut to the longest there is."""


async def open_circuit(folder: Path, network: ScriptedNetwork, pause: timedelta) -> None:
    """Other queries have not been answered."""
    settings, now = make_settings(folder, [network]), system_clock()
    for _ in range(5):
        run_once(
            settings.database,
            lambda connection: circuits.note_failure(connection, network.name, IssueCode.TIMEOUT, now, pause),
        )


async def read_circuit(engine: Engine) -> tuple[Circuit | None, CircuitState]:
    (report,) = await engine.services.console.overview.networks(engine.account_id)
    return report.circuit, report.circuit_state


async def test_a_network_that_is_away_is_not_asked_and_the_query_ends_with_the_reason(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver, document_attempts=1) as engine:
        await open_circuit(tmp_path, network, NEVER)
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


async def test_what_was_refused_is_asked_once_the_pause_is_over_and_an_answer_ends_it(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy")
    network.add("d1")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver, document_attempts=20) as engine:
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
        await open_circuit(tmp_path, network, NEVER)
        released = await quarantine.release(engine.account_id, ACTOR, held.id, "mistyped")
        assert released.release_query_id is not None
        await engine.wait_for_end(released.release_query_id)
        assert len(announced(receiver.messages)) == 1
        assert (await read_circuit(engine))[1] is CircuitState.OPEN
