"""The whole of Chartwire behind a transaction pooler, with the settings that docs/how-to/operate.md names."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.support.customer import DOCUMENTS_EACH, JANE, SANDBOX
from tests.support.engine import announced, closed
from tests.support.journey import journey
from tests.support.pgbouncer import PROGRAM, running_pooler
from tests.support.postgres import shared_server
from tests.support.process import ChartwireProcess
from tests.support.receiver import Receiver

from chartwire.store.profile import run_once

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(PROGRAM is None, reason="no PgBouncer: apt install pgbouncer"),
]

CONNECTIONS = 3
"""So few that processes share them: what one leaves in a connection, another finds."""

SAMPLES = 40
GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "operate.md"


def statements_of_the_guide() -> list[str]:
    """What the guide says that the database must be told."""
    return re.findall(r"^ALTER ROLE chartwire SET .*;$", GUIDE.read_text(), re.MULTILINE)


def connections_of(url: str) -> int:
    """How many connections there are to a database, but for the one that asks."""
    asked = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
    return int(run_once(url, lambda connection: connection.execute(asked).scalar_one()))


async def test_everything_works_behind_a_transaction_pooler(tmp_path: Path) -> None:
    server = shared_server()
    server.execute("CREATE DATABASE pooled")
    assert len(statements_of_the_guide()) == 2
    for statement in statements_of_the_guide():
        server.execute(statement.replace("ALTER ROLE chartwire SET", "ALTER DATABASE pooled SET"))
    async with running_pooler(server, CONNECTIONS) as pooler, Receiver() as receiver:
        env = {
            **SANDBOX,
            "CHARTWIRE_NETWORKS": json.dumps([{"kind": "sandbox", "spread_seconds": 0.5}]),
            "CHARTWIRE_DATABASE_URL": pooler.url("pooled"),
            "CHARTWIRE_DATABASE_POOLER": "true",
        }
        api = ChartwireProcess(tmp_path / "data", {**env, "CHARTWIRE_ROLE": "api"})
        assert "applied 0001" in await api.run("migrate")
        worker = ChartwireProcess(tmp_path / "data", {**env, "CHARTWIRE_ROLE": "ingest"})
        poster = ChartwireProcess(tmp_path / "data", {**env, "CHARTWIRE_ROLE": "deliver"})
        async with api, worker, poster:
            _, api_key = await api.create_account("Clinic")
            async with journey(api.base_url, api_key) as app:
                receiver.webhook_key = await app.save_webhook(receiver.url)
                facility_id = await app.add_facility()
                request_id = await app.start_query(await app.add_patient(facility_id, JANE), facility_id)
                (endpoint,) = (await app.call("GET", "/v1/webhooks/endpoints"))["endpoints"]
                path = f"/v1/webhooks/endpoints/{endpoint['id']}/test"
                sent = {
                    (await app.call("POST", path, {"type": "medical.document-download"}))["messageId"]
                    for _ in range(SAMPLES)
                }
                await receiver.wait_for(lambda it: request_id in closed(it.messages))
                await app.until_settled()
            assert sent <= {each.message_id for each in receiver.messages}
            of_query = [each for each in receiver.messages if each.message_id not in sent]
            assert len(announced(of_query)) == len(set(announced(of_query))) == DOCUMENTS_EACH
            # Three processes, each with several connections, and the database saw no more than these.
            assert 1 <= await asyncio.to_thread(connections_of, server.url("pooled")) <= CONNECTIONS
            for process in (api, worker, poster):
                assert '"level": "error"' not in process.log()
    server.execute("DROP DATABASE pooled WITH (FORCE)")
