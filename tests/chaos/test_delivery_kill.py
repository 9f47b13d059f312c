"""The engine, killed without warning at random moments under load: zero lost, repeats only of attempts in flight, no
repeat of a settled one.

`KILLS=100 pytest -n 0 tests/chaos/test_delivery_kill.py --junit-xml=kills.xml` kills as often as the promise says, and
its report holds the figures; a few kills do for every day.
"""

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from tests.support.load import LOAD_ENV, arrived, load_on
from tests.support.process import ChartwireProcess
from tests.support.profile import database_url
from tests.support.receiver import Receiver

from chartwire.store.profile import run_once

KILLS = int(os.environ.get("KILLS", "4"))
IN_FLIGHT = 16

# A cluster waits for leases, where an installation that is alone begins anew: tests/chaos/test_cluster.py.
pytestmark = [pytest.mark.embedded, pytest.mark.chaos, pytest.mark.timeout(300 + 60 * KILLS)]


def settled_in(data_dir: Path) -> set[str]:
    """Ids of the messages that a dead server had settled as delivered."""
    query = text("SELECT event.id FROM delivery JOIN event ON event.seq = event_seq WHERE state = 'delivered'")

    def unit(connection: Connection) -> set[str]:
        return set(connection.execute(query).scalars())

    return run_once(database_url(data_dir), unit)


async def test_nothing_is_lost_and_only_what_was_in_flight_is_repeated(
    tmp_path: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    chance = random.Random()
    async with (
        Receiver() as receiver,
        ChartwireProcess(tmp_path / "data", LOAD_ENV) as server,
        load_on(server, receiver) as load,
    ):
        for _ in range(KILLS):
            load.up.set()
            await load.until(len(load.acknowledged) + chance.randrange(5, 60))
            load.up.clear()
            await server.kill()
            settled, seen = settled_in(server.data_dir), len(receiver.requests)
            await server.start()
            await receiver.wait_for(lambda it: set(load.acknowledged) <= arrived(it), timeout=60)
            again = {message.message_id for message in receiver.requests[seen:]}
            assert not again & settled, "a settled message was sent again"
    counts = Counter(message.message_id for message in receiver.messages)
    repeated = counts.total() - len(counts)
    record_testsuite_property(
        "kills", f"{KILLS} kills, {len(load.acknowledged)} acknowledged, {len(counts)} arrived, {repeated} repeated"
    )
    assert set(load.acknowledged) <= set(counts), "a message was lost"
    assert max(counts.values()) <= 1 + KILLS
    assert repeated <= KILLS * IN_FLIGHT
