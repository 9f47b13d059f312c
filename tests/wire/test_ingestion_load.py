"""Many documents at once: nobody waits behind somebody else's, and nothing is lost in the crowd."""

from pathlib import Path

import pytest
from tests.support.engine import Engine, announced, running_engine
from tests.support.receiver import Receiver
from tests.support.scripted_network import ScriptedNetwork

from chartwire.model.document import Progress, QueryStatus
from chartwire.model.webhook import DeliveryMode
from chartwire.networks.network import Limits

pytestmark = pytest.mark.embedded


async def _switch_to_on_completion(engine: Engine) -> None:
    (endpoint,) = await engine.services.webhooks.list_endpoints(engine.account_id)
    await engine.services.webhooks.change_endpoint(
        engine.account_id, endpoint.id, {"delivery": DeliveryMode.ON_COMPLETION}
    )


async def test_a_network_never_has_more_calls_in_flight_than_it_bears(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy", limits=Limits(list_deadline=20, retrieve_deadline=20, concurrency=2))
    for number in range(4):
        network.add(f"d{number}")
    gates = [network.hold(f"d{number}") for number in range(4)]
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        patients = [await engine.add_patient() for _ in range(3)]
        requests = [await engine.start_query(patients[0])]
        await network.reached["d1"].wait()  # two documents are being fetched: there is no place for a listing
        requests += [await engine.start_query(patient_id) for patient_id in patients[1:]]
        await engine.add_patient()  # time enough for a claim
        for gate in gates:
            gate.set()
        await engine.wait_for_end(*requests)
        assert network.most_calls == 2
        assert len(set(announced(receiver.messages))) == 12


async def test_a_patient_with_few_documents_does_not_wait_for_one_with_many(tmp_path: Path) -> None:
    network = ScriptedNetwork("mercy", limits=Limits(list_deadline=20, retrieve_deadline=20, concurrency=1))
    for number in range(100):
        network.add(f"many-{number}")
    gate = network.hold("many-5")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        first, second = await engine.add_patient(), await engine.add_patient()
        requests = [await engine.start_query(first)]
        await network.reached["many-5"].wait()
        network.documents.clear()
        for number in range(3):
            network.add(f"few-{number}")
        requests.append(await engine.start_query(second))
        gate.set()
        await engine.wait_for_end(*requests)
        assert len(network.retrieved) == 103
        assert network.retrieved.index("few-2") < 20


@pytest.mark.parametrize("mode", list(DeliveryMode))
async def test_a_listing_of_many_parts_is_told_whole_and_is_known_afterwards(
    tmp_path: Path, mode: DeliveryMode
) -> None:
    network = ScriptedNetwork("mercy", limits=Limits(list_deadline=20, retrieve_deadline=20, concurrency=64))
    for number in range(510):
        network.add(f"d{number}")
    async with Receiver() as receiver, running_engine(tmp_path, [network], receiver) as engine:
        if mode is DeliveryMode.ON_COMPLETION:
            await _switch_to_on_completion(engine)
        patient_id = await engine.add_patient()
        await engine.start_query(patient_id, {"case": "7"})
        await receiver.wait_for(lambda it: len(announced(it.messages)) == 510)
        assert len(set(announced(receiver.messages))) == 510
        assert all(message.json["meta"]["data"] == {"case": "7"} for message in receiver.messages)
        await engine.wait_for_end(await engine.start_query(patient_id))  # in this mode or that, nothing is to be told
        assert len(network.retrieved) == 510
        assert (await engine.progress(patient_id)).download == Progress(QueryStatus.COMPLETED)
