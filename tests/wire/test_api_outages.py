"""The API while the database cannot be written to: a clear word, nothing changed, and on it goes afterwards."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.client import http_client
from tests.support.server import running_installation

from chartwire.store import sqlite

pytestmark = pytest.mark.embedded


async def test_while_the_database_is_locked_writes_are_told_to_come_back_and_reads_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.05)  # a minute otherwise
    async with running_installation(tmp_path) as installation:
        headers = {"x-api-key": await installation.create_account()}
        async with http_client(base_url=installation.base_url, headers=headers) as client:
            body = {"webhookUrl": "https://receiver.example/"}
            with closing(sqlite3.connect(tmp_path / "chartwire.db", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                refused = await client.post("/settings", json=body)
                assert (refused.status_code, refused.json()["name"]) == (503, "Service Unavailable")
                assert refused.headers["retry-after"] == "5"
                assert (await client.get("/settings")).json()["webhookUrl"] is None
                other.execute("ROLLBACK")
            assert (await client.post("/settings", json=body)).json()["webhookUrl"] == body["webhookUrl"]
