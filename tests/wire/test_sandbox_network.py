"""The sandbox as a network: whom it finds, what it lists, and when its documents arrive."""

import asyncio
import hashlib
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest
from tests.support.patience import PATIENCE_SECONDS

from chartwire.clock import system_clock
from chartwire.errors import PermanentNetworkError
from chartwire.model.document import DocumentStatus, RemoteDocument
from chartwire.model.registry import Address, Demographics, Gender, LinkState
from chartwire.networks.network import Discovery, Network, PatientLink
from chartwire.networks.sandbox import SandboxNetwork
from chartwire.settings import SandboxNetworkSettings

pytestmark = pytest.mark.embedded


NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


def sandbox(spread: float, clock: Callable[[], datetime] = system_clock) -> SandboxNetwork:
    return SandboxNetwork(SandboxNetworkSettings(kind="sandbox", spread_seconds=spread), clock)


def somebody(first_name: str) -> Demographics:
    address = (Address("1 Elm St", "Ukiah", "CA", "95482"),)
    return Demographics(first_name, "Roe", date(1980, 2, 3), Gender.U, address)


async def documents_of(network: Network, first_name: str) -> tuple[RemoteDocument, ...]:
    (link,) = (await network.discover(somebody(first_name))).links
    return (await network.query(link)).documents


async def read(network: Network, document: RemoteDocument) -> bytes:
    async with network.retrieve(document) as retrieval:
        assert retrieval.declared_type == document.mime_type
        return b"".join([chunk async for chunk in retrieval.chunks])


async def test_a_patient_is_found_by_first_name_alone() -> None:
    found = await sandbox(0).discover(somebody("JANE"))
    assert found == Discovery((PatientLink("jane", LinkState.CONFIRMED, 1.0),))
    assert await sandbox(0).discover(somebody("Janet")) == Discovery()


async def test_documents_are_what_was_declared() -> None:
    network = sandbox(0)
    documents = await documents_of(network, "kyla")
    assert len(documents) == 7
    for document in documents:
        data = await read(network, document)
        assert (len(data), hashlib.sha1(data, usedforsecurity=False).hexdigest()) == (document.size, document.sha1)
    assert len({document.key for document in documents}) == 7
    replaced = [document for document in documents if document.status is DocumentStatus.SUPERSEDED]
    assert [document.master_identifier for document in replaced] == [old for new in documents for old in new.replaces]


async def test_asking_again_lists_the_same_documents() -> None:
    network = sandbox(0, lambda: NOON)
    assert await documents_of(network, "ollie") == await documents_of(network, "Ollie")


async def test_documents_arrive_one_after_the_other_and_none_waits_for_another() -> None:
    now = NOON
    network = sandbox(600, lambda: now)
    documents = await documents_of(network, "chris")
    for number, document in enumerate(documents):
        now = NOON + timedelta(seconds=100 * number)
        later = [asyncio.create_task(read(network, each)) for each in reversed(documents[number + 1 :])]
        for arrived in (document, *documents[: number + 1]):
            assert await read(network, arrived)
        assert not any(reading.done() for reading in later)
        for reading in later:
            reading.cancel()
        await asyncio.gather(*later, return_exceptions=True)
    assert network.limits.concurrency >= 64


async def test_whoever_waits_for_a_document_gets_it_when_it_arrives() -> None:
    network = sandbox(0.6)
    documents = await documents_of(network, "chris")
    assert all(await asyncio.gather(*[read(network, document) for document in documents]))


async def test_each_document_has_its_own_moment_of_arrival() -> None:
    documents = await documents_of(sandbox(3, lambda: NOON), "jane")
    moments = [datetime.fromisoformat(document.retrieval["available"]) for document in documents]
    assert moments == [NOON + timedelta(seconds=number / 2) for number in range(7)]


async def test_a_document_whose_moment_has_passed_comes_at_once() -> None:
    """A restart in between changes nothing: the moment was kept with the listed document."""
    documents = await documents_of(sandbox(600, lambda: NOON), "andreas")
    later = sandbox(600, lambda: NOON + timedelta(seconds=600))
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await read(later, documents[-1])


@pytest.mark.parametrize(
    "retrieval",
    [
        {},
        {"patient": "jane", "document": "none", "available": "2025-06-01T12:00:00.000Z"},
        {"patient": "none", "document": "summary", "available": "2025-06-01T12:00:00.000Z"},
        {"patient": "jane", "document": "summary", "available": "soon"},
    ],
)
async def test_what_was_never_listed_cannot_be_read(retrieval: dict[str, str]) -> None:
    with pytest.raises(PermanentNetworkError):
        await read(sandbox(0), RemoteDocument(key="x", retrieval=retrieval))


async def test_an_unknown_link_cannot_be_queried() -> None:
    with pytest.raises(PermanentNetworkError):
        await sandbox(0).query(PatientLink("nobody", LinkState.CONFIRMED))
