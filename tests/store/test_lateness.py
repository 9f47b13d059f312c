"""How late steps are told to be, and whether networks are asked."""

from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection
from tests.support.documents import NOW, add_patient
from tests.support.profile import open_new_database

from chartwire.errors import IssueCode
from chartwire.ingestion.lateness import Lateness
from chartwire.model.document import DocumentQuery, QueryStatus
from chartwire.store import circuits, queries, registry
from chartwire.telemetry import Metrics


async def test_lateness_and_circuits_of_networks_are_told(tmp_path: Path) -> None:
    database, metrics = open_new_database(tmp_path, lambda _: None), Metrics()
    now = NOW

    def late(network: str) -> float | None:
        return metrics.registry.get_sample_value("chartwire_network_late_seconds", {"network": network})

    def circuit(network: str, state: str) -> float | None:
        labels = {"network": network, "state": state}
        return metrics.registry.get_sample_value("chartwire_network_circuit", labels)

    def ask(connection: Connection) -> None:
        account = registry.create_account(connection, "Clinic", NOW).id
        add_patient(connection, account, "p1")
        query = DocumentQuery("q1", account, "p1", None, QueryStatus.PROCESSING, NOW)
        queries.start_query(connection, query, ["mercy"])

    await database.write(ask)
    lateness = Lateness(database, ["mercy", "grace"], lambda: now, metrics)
    now = NOW + timedelta(seconds=40)
    await lateness.measure()
    assert (late("mercy"), late("grace")) == (40, 0)
    await database.write(lambda it: queries.claim_network_steps(it, "mercy", 1, now, timedelta(seconds=60)))
    await lateness.measure()
    assert late("mercy") == 0
    assert (circuit("mercy", "closed"), circuit("mercy", "open")) == (1, 0)
    pause = timedelta(seconds=10)
    for _ in range(10):
        await database.write(lambda it: circuits.note_failure(it, "mercy", IssueCode.TIMEOUT, now, now, pause))
    await lateness.measure()
    assert (circuit("mercy", "closed"), circuit("mercy", "open"), circuit("grace", "closed")) == (0, 1, 1)
    now += pause
    await lateness.measure()
    assert (circuit("mercy", "closed"), circuit("mercy", "open"), circuit("mercy", "half-open")) == (0, 0, 1)
    await database.close()
