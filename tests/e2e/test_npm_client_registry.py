"""The npm client, unchanged, with the registry: what it sends is understood, what it gets it accepts."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.node_clients import NodeClient, NodeError, node_client
from tests.support.people import NPIS, address_body, facility_body, patient_body
from tests.support.server import Installation, running_installation

pytestmark = pytest.mark.embedded


ORGANIZATION = {"name": "Elm Health", "type": "ambulatory", "location": address_body()}


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    async with running_installation(tmp_path) as installation:
        yield installation


@pytest.fixture
async def client(installation: Installation) -> AsyncIterator[NodeClient]:
    async with node_client(await installation.create_account(), installation.base_url) as client:
        yield client


async def test_an_organization_is_made_read_and_changed(client: NodeClient) -> None:
    assert await client.call("getOrganization") is None
    created = await client.call("createOrganization", ORGANIZATION)
    assert await client.call("getOrganization") == created
    changed = await client.call("updateOrganization", {**created, "name": "Oak Health"})
    assert changed["name"] == "Oak Health"
    with pytest.raises(NodeError) as stale:
        await client.call("updateOrganization", {**created, "name": "Ash Health"})
    assert stale.value.status == 412


async def test_a_facility_is_made_read_changed_listed_and_deleted(client: NodeClient) -> None:
    assert await client.call("listFacilities") == []
    created = await client.call("createFacility", facility_body(tin=None, address=address_body(addressLine2="Apt 2")))
    assert await client.call("getFacility", created["id"]) == created
    changed = await client.call("updateFacility", {**created, "name": "Oak Clinic"})
    assert await client.call("listFacilities") == [changed]
    with pytest.raises(NodeError) as stale:
        await client.call("deleteFacility", created["id"], created["eTag"])
    assert stale.value.status == 412
    await client.call("deleteFacility", changed["id"], changed["eTag"])
    with pytest.raises(NodeError) as gone:
        await client.call("getFacility", created["id"])
    assert (gone.value.status, gone.value.body["detail"]) == (404, "Could not find facility")


async def test_a_patient_is_made_found_changed_and_deleted(client: NodeClient) -> None:
    facility = await client.call("createFacility", facility_body())
    sent = patient_body(externalId="x 1/2", personalIdentifiers=[{"type": "ssn", "value": "123456789"}])
    created = await client.call("createPatient", sent, facility["id"], {"rerunPdOnNewDemographics": True})
    assert created["facilityIds"] == [facility["id"]]
    assert await client.call("getPatient", created["id"]) == created
    assert await client.call("getPatientByExternalId", "x 1/2") == created
    assert await client.call("matchPatient", patient_body(firstName="Anna")) == created
    assert await client.call("matchPatient", patient_body(firstName="Josephine", personalIdentifiers=[])) is None
    changed = await client.call("updatePatient", {**created, "lastName": "Lee"}, facility["id"])
    assert (changed["lastName"], changed["externalId"]) == ("Lee", "x 1/2")
    with pytest.raises(NodeError) as stale:
        await client.call("deletePatient", created["id"], facility["id"], created["eTag"])
    assert stale.value.status == 412
    await client.call("deletePatient", created["id"], facility["id"], changed["eTag"])
    with pytest.raises(NodeError) as gone:
        await client.call("getPatient", created["id"])
    assert gone.value.status == 404


async def test_facilities_of_a_patient_and_opting_out(client: NodeClient) -> None:
    facilities = [await client.call("createFacility", facility_body(npi)) for npi in NPIS[:2]]
    patient = await client.call("createPatient", patient_body(), facilities[0]["id"])
    ids = [facility["id"] for facility in facilities]
    for answer in (
        await client.call("setPatientFacilities", patient["id"], ids),
        await client.call("getPatientFacilities", patient["id"]),
    ):
        assert [facility["id"] for facility in answer] == ids
    opted_out = await client.call("updatePatientHieOptOut", patient["id"], True)
    assert (opted_out["id"], opted_out["hieOptOut"]) == (patient["id"], True)


async def test_patients_are_listed_page_by_page(client: NodeClient) -> None:
    facility = await client.call("createFacility", facility_body())
    created = [
        await client.call("createPatient", patient_body(firstName=name, contact=[]), facility["id"])
        for name in ("Ana", "Benjamin", "Cleopatra")
    ]
    expected = [patient["id"] for patient in reversed(created)]
    whole = await client.call("listPatients", {})
    assert [patient["id"] for patient in whole["patients"]] == expected
    page = await client.call("listPatients", {"facilityId": facility["id"], "pagination": {"count": 2}})
    found = [patient["id"] for patient in page["patients"]]
    while link := page["meta"].get("nextPage"):
        page = await client.call("listPatientsPage", link)
        found += [patient["id"] for patient in page["patients"]]
    assert found == expected
    filtered = await client.call("listPatients", {"filters": "cleopatra"})
    assert [patient["id"] for patient in filtered["patients"]] == expected[:1]


async def test_an_api_key_as_bearer_token_is_accepted(installation: Installation) -> None:
    key = await installation.create_account()
    async with node_client(key, installation.base_url, mode="jwt") as client:
        assert await client.call("listFacilities") == []


async def test_a_wrong_key_is_refused(installation: Installation) -> None:
    async with node_client("wrong", installation.base_url) as client:
        with pytest.raises(NodeError) as refused:
            await client.call("listFacilities")
    assert (refused.value.status, refused.value.body) == (403, {"message": "Forbidden"})
