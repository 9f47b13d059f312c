"""How late steps are told to be."""

from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection
from tests.support.documents import NOW, add_patient
from tests.support.profile import open_new_database

from chartwire.ingestion.lateness import Lateness
from chartwire.model.document import DocumentQuery, QueryStatus
from chartwire.store import queries, registry
from chartwire.telemetry import Metrics


async def test_a_step_is_late_from_when_it_is_due_until_it_is_taken(tmp_path: Path) -> None:
    database, metrics = open_new_database(tmp_path, lambda _: None), Metrics()
    now = NOW

    def late(network: str) -> float | None:
        return metrics.registry.get_sample_value("chartwire_network_late_seconds", {"network": network})

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
    await database.close()
