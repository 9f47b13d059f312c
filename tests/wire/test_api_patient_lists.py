"""Lists of patients over HTTP: whole, filtered, page by page."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.medical import create_facility, create_patient, medical
from tests.support.server import Installation, running_installation


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    async with running_installation(tmp_path) as installation:
        yield installation


@pytest.fixture
async def client(installation: Installation) -> AsyncIterator[httpx.AsyncClient]:
    async with medical(installation, await installation.create_account()) as client:
        yield client


@pytest.fixture
async def facility_id(client: httpx.AsyncClient) -> str:
    return await create_facility(client)


NAMES = ("Ana", "Benjamin", "Cleopatra", "Dorothea", "Evangeline")


@pytest.fixture
async def people(client: httpx.AsyncClient, facility_id: str) -> list[str]:
    """Ids of five patients, the newest first."""
    created = [await create_patient(client, facility_id, firstName=name, contact=[]) for name in NAMES]
    return [answer.json()["id"] for answer in reversed(created)]


def ids_of(answer: Any) -> list[str]:
    return [patient["id"] for patient in answer["patients"]]


async def test_a_list_is_whole_unless_a_page_is_asked_for(client: httpx.AsyncClient, people: list[str]) -> None:
    answer = (await client.get("/patient")).json()
    assert ids_of(answer) == people
    assert answer["meta"] == {"itemsOnPage": 5, "itemsInTotal": 5}


async def test_pages_are_walked_by_their_links_there_and_back(
    client: httpx.AsyncClient, facility_id: str, people: list[str]
) -> None:
    params = {"count": "2", "facilityId": facility_id, "filters": "roe"}
    pages = [(await client.get("/patient", params=params)).json()]
    while link := pages[-1]["meta"].get("nextPage"):
        pages.append((await client.get(link)).json())
    assert [ids_of(page) for page in pages] == [people[:2], people[2:4], people[4:]]
    assert [page["meta"].get("itemsInTotal") for page in pages] == [5, None, None]
    assert "prevPage" not in pages[0]["meta"]
    back = [pages[-1]]
    while link := back[-1]["meta"].get("prevPage"):
        back.append((await client.get(link)).json())
    assert [ids_of(page) for page in back] == [people[4:], people[2:4], people[:2]]


async def test_a_link_is_absolute_and_carries_the_filters(
    client: httpx.AsyncClient, installation: Installation, facility_id: str, people: list[str]
) -> None:
    params = {"count": "1", "facilityId": facility_id, "filters": "-ana roe"}
    link = httpx.URL((await client.get("/patient", params=params)).json()["meta"]["nextPage"])
    assert str(link).startswith(f"{installation.settings.public_base}/medical/v1/patient?")
    assert dict(link.params) == params | {"fromItem": people[1]}


async def test_a_list_is_filtered(client: httpx.AsyncClient, people: list[str]) -> None:
    found = (await client.get("/patient", params={"filters": "ana or doro"})).json()
    assert ids_of(found) == [people[1], people[4]]
    assert found["meta"] == {"itemsOnPage": 2, "itemsInTotal": 2}


async def test_a_page_of_none_tells_the_total_alone(client: httpx.AsyncClient, people: list[str]) -> None:
    answer = (await client.get("/patient", params={"count": 0})).json()
    assert answer == {"meta": {"itemsOnPage": 0, "itemsInTotal": len(people)}, "patients": []}


@pytest.mark.parametrize("query", ["count=501", "count=-1", "count=x", "fromItem=a&toItem=b", "count=1&count=2"])
async def test_a_wrong_page_is_refused(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/patient?{query}")
    assert answer.status_code == 400
    assert answer.json()["status"] == 400
