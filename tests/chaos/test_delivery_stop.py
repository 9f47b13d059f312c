"""The engine under load, stopped in good order, and on a disk that is full for a while: nothing lost or repeated."""

import asyncio
import resource
from collections import Counter
from pathlib import Path

import pytest
from tests.support.load import LOAD_ENV, arrived, load_on
from tests.support.process import ChartwireProcess
from tests.support.receiver import Answer, Receiver

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


async def test_sigterm_under_load_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """What is in flight is finished, its outcome written down, and the rest left to the next start."""
    async with (
        Receiver() as receiver,
        ChartwireProcess(tmp_path / "data", LOAD_ENV) as server,
        load_on(server, receiver) as load,
    ):
        for stop in range(3):
            gate = asyncio.Event()
            receiver.answers.extend([Answer(gate=gate)] * 8)
            load.up.set()
            await load.until(20 * (stop + 1))
            load.up.clear()
            stopping = asyncio.create_task(server.stop())
            await asyncio.sleep(0)
            gate.set()
            assert await stopping == 0
            await server.start()
        await receiver.wait_for(lambda it: set(load.acknowledged) <= arrived(it), timeout=60)
    counts = Counter(message.message_id for message in receiver.messages)
    assert set(counts.values()) == {1}


@pytest.mark.embedded  # elsewhere the database's files are another server's
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux, to limit another process")
async def test_a_disk_that_is_full_for_a_while_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """No file of the server may grow: messages are refused, and outcomes wait to be written down until it may."""
    async with (
        Receiver() as receiver,
        ChartwireProcess(tmp_path / "data", LOAD_ENV) as server,
        load_on(server, receiver) as load,
    ):
        gate = asyncio.Event()
        load.up.set()
        await load.until(20)
        receiver.answers.extend([Answer(gate=gate)] * 16)
        await load.until(60)
        largest = max(path.stat().st_size for path in server.data_dir.iterdir() if path.is_file())
        before = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (largest, before[1]))
        gate.set()
        await load.until_refused(20)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, before)
        await load.until(len(load.acknowledged) + 20)
        load.up.clear()
        await receiver.wait_for(lambda it: set(load.acknowledged) <= arrived(it), timeout=60)
    counts = Counter(message.message_id for message in receiver.messages)
    assert set(counts.values()) == {1}
