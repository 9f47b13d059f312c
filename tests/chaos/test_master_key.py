"""The master key and the data key are changed under servers that run, by commands that are killed on the way."""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.support.customer import SANDBOX, Customer, settle
from tests.support.process import ChartwireProcess
from tests.support.profile import IS_CLUSTER
from tests.support.receiver import Receiver

from chartwire.store.master_key import as_text, new_master_key, read_key_file, write_key_file

pytestmark = [pytest.mark.chaos]

DIE = """
import os, signal, time
from datetime import timedelta
from chartwire.clock import system_clock
from chartwire.settings import load_settings
from chartwire.store import data_keys, rotation

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

settings = load_settings()
"""
DIE_AS_THE_FILE_HAS_TWO_KEYS = f"{DIE}data_keys.seal_anew = die\nrotation.rotate(settings)"
DIE_AMID_RESEALING = f"""{DIE}
rotation._BATCH = 3
rotation.add_data_key(settings, system_clock(), timedelta(seconds=20))  # busy servers look every five
time.sleep((rotation.when_settled(settings, system_clock()) - system_clock()).total_seconds())
rotation.reseal(settings, system_clock, lambda done, total: die() if done > 3 else None)"""


async def die(server: ChartwireProcess, script: str) -> None:
    """Run a script on the installation that kills itself."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, env=server.env)
    assert await process.wait() == -signal.SIGKILL


async def status(server: ChartwireProcess) -> dict[str, Any]:
    """What `master-key status` says."""
    answer: dict[str, Any] = json.loads(await server.run("master-key", "status", "--json"))
    return answer


async def see_everything(server: ChartwireProcess, *customers: Customer) -> None:
    """Each customer's key of webhooks and documents open."""
    for customer in customers:
        headers = {"x-api-key": customer.api_key}
        async with aiohttp.ClientSession(base_url=server.base_url, headers=headers) as session:
            async with session.get("/settings") as answer:
                assert (await answer.json())["webhookKey"] == customer.webhook_key
            for document in customer.documents:
                async with session.get(f"/oauth/fhir/Binary/{document['id']}") as answer:
                    assert len(await answer.read()) == document["size"]


async def test_keys_change_under_running_servers(tmp_path: Path) -> None:
    path = tmp_path / "data" / "master.key"
    async with Receiver() as receiver, ChartwireProcess(tmp_path / "data", SANDBOX) as server:
        first = await settle(server, receiver, "Before")
        (old,) = read_key_file(path)
        if IS_CLUSTER:
            write_key_file(path, [new_master_key(), old])
        else:
            await die(server, DIE_AS_THE_FILE_HAS_TWO_KEYS)
        new = read_key_file(path)[0]
        assert (await status(server))["masterKeys"] == [new.id, old.id]
        await server.restart()  # in the middle of it

        await server.run("master-key", "rotate", "--drop")
        state = await status(server)
        assert state["masterKeys"] == [new.id]
        assert {key["masterKey"] for key in state["dataKeys"]} == {new.id}
        await see_everything(server, first)
        second = await settle(server, receiver, "After the master key")
        if IS_CLUSTER:
            env = {**SANDBOX, "CHARTWIRE_MASTER_KEY": as_text(new)}
            async with ChartwireProcess(tmp_path / "data", env) as beside:  # one that never saw the old key
                await see_everything(beside, first, second)

        await die(server, DIE_AMID_RESEALING)
        third = await settle(server, receiver, "Amid the resealing")
        assert sum(key["things"] > 0 for key in (await status(server))["dataKeys"]) == 2
        await server.run("master-key", "reseal")
        before, newest = (await status(server))["dataKeys"]
        assert before["things"] == 0
        assert newest["things"] > 0

        await see_everything(server, first, second, third)
        async with aiohttp.ClientSession() as session, session.get(third.download_url) as answer:
            assert answer.status == 200
        await server.restart()
        await see_everything(server, first, second, third)
