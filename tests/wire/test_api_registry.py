"""Organization and facilities over HTTP: what existing clients send and what they get."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.support.medical import STALE, assert_problem, create_facility, create_patient, medical
from tests.support.people import NPIS, address_body, facility_body
from tests.support.server import Installation, running_installation

ORGANIZATION = {"name": "Elm Health", "type": "ambulatory", "location": address_body()}


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    async with running_installation(tmp_path) as installation:
        yield installation


@pytest.fixture
async def client(installation: Installation) -> AsyncIterator[httpx.AsyncClient]:
    async with medical(installation, await installation.create_account()) as client:
        yield client


@pytest.fixture
async def stranger(installation: Installation) -> AsyncIterator[httpx.AsyncClient]:
    """A client of another account."""
    async with medical(installation, await installation.create_account("Other")) as client:
        yield client


@pytest.fixture
async def facility_id(client: httpx.AsyncClient) -> str:
    return await create_facility(client)


@pytest.fixture
async def patient(client: httpx.AsyncClient, facility_id: str) -> Any:
    """Ana Roe of the facility, as answered."""
    return (await create_patient(client, facility_id)).json()


# --- organization -----------------------------------------------------------------------------------------------------


async def test_an_account_without_an_organization_gets_an_empty_answer(client: httpx.AsyncClient) -> None:
    answer = await client.get("/organization")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_an_organization_is_created_once(client: httpx.AsyncClient) -> None:
    created = await client.post("/organization", json=ORGANIZATION)
    assert created.status_code == 201
    body = created.json()
    assert body.keys() == {"id", "eTag", "oid", "name", "type", "location"}
    assert {key: body[key] for key in ORGANIZATION} == ORGANIZATION
    assert (await client.get("/organization")).json() == body
    assert_problem(
        await client.post("/organization", json=ORGANIZATION),
        400,
        "BadRequestError",
        "Organization already exists for this customer",
    )


@pytest.mark.parametrize("header", ["If-Match", "ETag"])
async def test_an_organization_is_changed_in_the_version_that_was_seen(client: httpx.AsyncClient, header: str) -> None:
    seen = (await client.post("/organization", json=ORGANIZATION)).json()
    path, changed = f"/organization/{seen['id']}", {**ORGANIZATION, "name": "Oak Health", "type": "hospital"}
    answer = await client.put(path, json=changed, headers={header: seen["eTag"]})
    assert answer.status_code == 200
    assert (answer.json()["name"], answer.json()["type"]) == ("Oak Health", "hospital")
    assert answer.json()["eTag"] != seen["eTag"]
    stale = await client.put(path, json=changed, headers={header: seen["eTag"]})
    assert_problem(stale, 412, "VersionMismatchError", STALE)


async def test_only_the_own_organization_is_changed(client: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    theirs = (await stranger.post("/organization", json=ORGANIZATION)).json()
    await client.post("/organization", json=ORGANIZATION)
    for identifier in (theirs["id"], "unknown"):
        answer = await client.put(f"/organization/{identifier}", json=ORGANIZATION)
        assert_problem(answer, 404, "NotFoundError", "Could not find organization")


# --- facility ---------------------------------------------------------------------------------------------------------


async def test_a_facility_is_created_without_an_organization(client: httpx.AsyncClient) -> None:
    sent = facility_body(tin="12-345", active=True, address=address_body(addressLine2=" ", zip=95482, state="ca"))
    created = await client.post("/facility", json=sent)
    assert created.status_code == 201
    body = created.json()
    assert body.keys() == {"id", "eTag", "oid", "name", "npi", "tin", "active", "address"}
    assert body["address"] == address_body()
    assert (await client.get(f"/facility/{body['id']}")).json() == body


async def test_what_is_unset_is_left_out_of_an_answer(client: httpx.AsyncClient) -> None:
    body = (await client.post("/facility", json=facility_body(tin=None, active=None))).json()
    assert body.keys() == {"id", "eTag", "oid", "name", "npi", "address"}


async def test_an_npi_is_used_once_in_an_account(client: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    await create_facility(client)
    again = await client.post("/facility", json=facility_body())
    assert_problem(again, 400, "BadRequestError", "A facility with this NPI already exists")
    assert (await stranger.post("/facility", json=facility_body())).status_code == 201


async def test_facilities_are_listed_by_ascending_id(client: httpx.AsyncClient) -> None:
    assert (await client.get("/facility")).json() == {"facilities": []}
    ids = [await create_facility(client, npi) for npi in NPIS[:3]]
    listed = (await client.get("/facility")).json()["facilities"]
    assert [facility["id"] for facility in listed] == ids == sorted(ids)


@pytest.mark.parametrize("how", ["raw", "quoted", "weak", "body"])
async def test_a_facility_is_changed_in_the_version_that_was_seen(client: httpx.AsyncClient, how: str) -> None:
    seen = (await client.post("/facility", json=facility_body())).json()
    tag = {"quoted": f'"{seen["eTag"]}"', "weak": f'W/"{seen["eTag"]}"'}.get(how, seen["eTag"])
    headers = {} if how == "body" else {"If-Match": tag}
    sent = {**facility_body(name="Oak"), **({"eTag": tag, "id": seen["id"]} if how == "body" else {})}
    answer = await client.put(f"/facility/{seen['id']}", json=sent, headers=headers)
    assert (answer.status_code, answer.json()["name"]) == (200, "Oak")
    assert_problem(
        await client.put(f"/facility/{seen['id']}", json=sent, headers=headers), 412, "VersionMismatchError", STALE
    )


async def test_the_version_of_the_header_wins_over_that_of_the_body(client: httpx.AsyncClient) -> None:
    seen = (await client.post("/facility", json=facility_body())).json()
    path = f"/facility/{seen['id']}"
    stale = {**facility_body(), "eTag": "stale"}
    assert (await client.put(path, json=stale)).status_code == 412
    assert (await client.put(path, json=stale, headers={"If-Match": seen["eTag"]})).status_code == 200
    assert (await client.put(path, json=facility_body())).status_code == 200


async def test_the_npi_of_a_facility_stays(client: httpx.AsyncClient, facility_id: str) -> None:
    answer = await client.put(f"/facility/{facility_id}", json=facility_body(NPIS[1]))
    assert_problem(answer, 400, "BadRequestError", "The NPI of a facility cannot be changed")


async def test_a_facility_is_deleted_when_it_has_no_patients(client: httpx.AsyncClient, patient: Any) -> None:
    path = f"/facility/{patient['facilityIds'][0]}"
    refused = await client.delete(path)
    assert_problem(refused, 400, "BadRequestError", "The facility has patients: move or delete them first")
    await client.delete(f"/patient/{patient['id']}")
    assert (await client.delete(path, headers={"If-Match": "stale"})).status_code == 412
    gone = await client.delete(path)
    assert (gone.status_code, gone.content) == (204, b"")
    assert_problem(await client.get(path), 404, "NotFoundError", "Could not find facility")


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"npi": "1234567891"}, "NPI is not valid, on [npi]"),
        ({"name": " "}, "String should have at least 1 character, on [name]"),
        ({"address": address_body(zip="00000")}, "Invalid zip code, on [address,zip]"),
        ({"address": address_body(zip="94114-1234")}, "Zip must be a string consisting of 5 numbers, on [address,zip]"),
        (
            {"address": address_body(state="California")},
            "State must be the two letters of a US state, on [address,state]",
        ),
        ({"address": address_body(country="CAN")}, "Input should be 'USA', on [address,country]"),
        (
            {"name": 1, "npi": "x"},
            "Input should be a valid string, on [name], NPI is not valid, on [npi]",
        ),
    ],
)
async def test_a_wrong_facility_is_refused_with_every_reason(
    client: httpx.AsyncClient, changes: dict[str, Any], detail: str
) -> None:
    answer = await client.post("/facility", json=facility_body() | changes)
    assert_problem(answer, 400, "Missing or invalid parameters", detail)
