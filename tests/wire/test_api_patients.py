"""Patients over HTTP: what existing clients send and what they get."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update
from tests.support.medical import STALE, assert_problem, create_facility, create_patient, medical
from tests.support.people import NOW, NPIS, address_body, facility_body, patient_body
from tests.support.server import Installation, running_installation

from chartwire.ids import new_id
from chartwire.model.document import DocumentQuery, QueryStatus
from chartwire.store import queries, schema


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


async def test_a_patient_is_read_as_fhir(client: httpx.AsyncClient, facility_id: str) -> None:
    sent = patient_body(
        firstName="Ana, Maria",
        externalId="x1",
        contact={"phone": "7075550100", "email": "ana@example.org"},
        personalIdentifiers=[
            {"type": "ssn", "value": "123456789"},
            {"type": "driversLicense", "state": "CA", "value": "D1"},
        ],
        address=address_body(addressLine2="Apt 2"),
    )
    patient_id = (await client.post("/patient", params={"facilityId": facility_id}, json=sent)).json()["id"]
    read = await client.get(f"/patient/{patient_id}", params={"output": "fhir"})
    licence = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "DL"}]}
    assert (read.status_code, read.json()) == (
        200,
        {
            "resourceType": "Patient",
            "id": patient_id,
            "identifier": [
                {"value": "x1"},
                {"system": "http://hl7.org/fhir/sid/us-ssn", "value": "123456789"},
                {"type": licence, "value": "D1", "assigner": {"display": "CA"}},
            ],
            "name": [{"family": "Roe", "given": ["Ana", "Maria"]}],
            "telecom": [{"system": "phone", "value": "7075550100"}, {"system": "email", "value": "ana@example.org"}],
            "gender": "female",
            "birthDate": sent["dob"],
            "address": [
                {
                    "line": [sent["address"]["addressLine1"], "Apt 2"],
                    "city": sent["address"]["city"],
                    "state": sent["address"]["state"],
                    "postalCode": sent["address"]["zip"],
                    "country": "USA",
                }
            ],
        },
    )
    plain = (await client.get(f"/patient/{patient_id}")).json()
    assert (await client.get(f"/patient/{patient_id}", params={"output": "dto"})).json() == plain
    assert plain["firstName"] == "Ana, Maria"
    assert (await client.get(f"/patient/{patient_id}", params={"output": "xml"})).status_code == 400


async def test_a_patient_without_more_is_fhir_without_empty_lists(client: httpx.AsyncClient, facility_id: str) -> None:
    created = (await create_patient(client, facility_id)).json()
    read = (await client.get(f"/patient/{created['id']}", params={"output": "fhir"})).json()
    assert read["name"] == [{"family": "Roe", "given": ["Ana"]}]
    assert "identifier" not in read
    assert [] not in read.values()


async def test_a_patient_is_created_and_read(client: httpx.AsyncClient, facility_id: str) -> None:
    sent = patient_body(
        externalId="x1",
        personalIdentifiers=[
            {"type": "driversLicense", "state": "ca", "value": "D1", "period": {"start": "2020-01-01"}},
            {"type": "ssn", "value": "123456789", "state": "CA"},
            {"type": "ssn", "value": " "},
        ],
        unknown="stripped",
    )
    created = await client.post("/patient", params={"facilityId": facility_id, "commonwell": "true"}, json=sent)
    assert created.status_code == 201
    body = created.json()
    expected = patient_body(
        id=body["id"],
        eTag=body["eTag"],
        facilityIds=[facility_id],
        externalId="x1",
        dateCreated=body["dateCreated"],
        personalIdentifiers=[
            {"type": "driversLicense", "state": "CA", "value": "D1", "period": {"start": "2020-01-01"}},
            {"type": "ssn", "value": "123456789"},
        ],
    )
    assert body == expected
    assert body["dateCreated"].endswith("Z")
    assert (await client.get(f"/patient/{body['id']}")).json() == body


async def test_one_address_and_one_contact_become_lists(client: httpx.AsyncClient, facility_id: str) -> None:
    created = await create_patient(
        client, facility_id, address=address_body(), contact={"phone": 17075550100}, personalIdentifiers=None
    )
    assert created.json()["address"] == [address_body()]
    assert created.json()["contact"] == [{"phone": "7075550100"}]
    without = await create_patient(client, facility_id, firstName="Josephine", contact=[])
    assert without.json()["contact"] == []


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"firstName": " "}, "String should have at least 1 character, on [firstName]"),
        ({"dob": "1899-12-31"}, "Date of birth must be in 1900 or later, on [dob]"),
        ({"genderAtBirth": "X"}, "Input should be 'F', 'M', 'O' or 'U', on [genderAtBirth]"),
        ({"address": []}, "List should have at least 1 item after validation, not 0, on [address]"),
        (
            {"address": [{}, 1]},
            "Field required, on [address,0,addressLine1], Field required, on [address,0,city], Field required, on"
            " [address,0,state], Field required, on [address,0,zip], Input should be a valid dictionary or object to"
            " extract fields from, on [address,1]",
        ),
        ({"contact": {}}, "Either email or phone must be present, on [contact,0]"),
        (
            {"contact": [{"phone": "555-0100"}]},
            "Phone must be a string consisting of 10 numbers. For example: 1231231234, on [contact,0,phone]",
        ),
        ({"contact": {"email": "secret"}}, "Invalid email address, on [contact,0,email]"),
        ({"externalId": None}, "Input should be a valid string, on [externalId]"),
        (
            {"personalIdentifiers": [{"type": "driversLicense", "value": "secret"}]},
            "A driversLicense needs a state, on [personalIdentifiers,0]",
        ),
        (
            {"personalIdentifiers": [{"type": "passport", "value": "secret"}]},
            "Input should be 'driversLicense' or 'ssn', on [personalIdentifiers,0,type]",
        ),
    ],
)
async def test_a_wrong_patient_is_refused_without_repeating_what_was_sent(
    client: httpx.AsyncClient, facility_id: str, changes: dict[str, Any], detail: str
) -> None:
    answer = await create_patient(client, facility_id, **changes)
    assert_problem(answer, 400, "Missing or invalid parameters", detail)
    assert "secret" not in answer.text


async def test_texts_that_nobody_has_are_refused(client: httpx.AsyncClient, facility_id: str) -> None:
    """Comparing two patients takes time by the product of the lengths of their names."""
    too_long = await create_patient(client, facility_id, firstName="a" * 1001)
    detail = "String should have at most 1000 characters, on [firstName]"
    assert_problem(too_long, 400, "Missing or invalid parameters", detail)
    assert (await create_patient(client, facility_id, firstName="a" * 1000)).status_code == 201
    assert (await create_patient(client, facility_id, firstName=" ")).status_code == 400


async def test_a_body_of_very_many_values_is_refused_before_they_are_looked_at(
    client: httpx.AsyncClient, facility_id: str
) -> None:
    many = await create_patient(client, facility_id, address=[1] * 100_000)
    assert (many.status_code, many.json()["title"]) == (413, "PayloadTooLargeError")
    fewer = await create_patient(client, facility_id, address=[1] * 1000)
    assert fewer.status_code == 400
    assert fewer.json()["detail"].count(", on [") == 100


async def test_nobody_is_born_in_the_future(client: httpx.AsyncClient, facility_id: str) -> None:
    answer = await create_patient(client, facility_id, dob="2999-01-01")
    assert_problem(answer, 400, "BadRequestError", "Date of birth can't be in the future")


async def test_a_patient_needs_a_facility_of_the_account(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    missing = await client.post("/patient", json=patient_body())
    assert_problem(missing, 400, "BadRequestError", "Missing facilityId query param")
    empty = await client.post("/patient?facilityId=", json=patient_body())
    assert_problem(empty, 400, "BadRequestError", "Missing facilityId query param")
    theirs = await create_facility(stranger)
    for facility_id in (theirs, "unknown"):
        answer = await create_patient(client, facility_id)
        assert_problem(answer, 404, "NotFoundError", "Could not find facility")


async def test_a_patient_who_is_known_is_returned_unchanged(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, patient: Any
) -> None:
    other_facility = await create_facility(client, NPIS[1])
    again = await create_patient(client, other_facility, firstName="Anna", externalId="new")
    assert again.status_code == 201
    assert again.json() == patient
    elsewhere = await create_patient(stranger, await create_facility(stranger))
    assert elsewhere.json()["id"] != patient["id"]


async def test_a_patient_is_matched(client: httpx.AsyncClient, stranger: httpx.AsyncClient, patient: Any) -> None:
    matched = await client.post("/patient/match", json=patient_body(firstName="Anna"))
    assert (matched.status_code, matched.json()) == (200, patient)
    nobody = await client.post("/patient/match", json=patient_body(firstName="Josephine"))
    assert_problem(nobody, 404, "NotFoundError", "Could not find patient")
    assert (await stranger.post("/patient/match", json=patient_body())).status_code == 404


async def test_a_patient_is_found_by_external_id(client: httpx.AsyncClient, facility_id: str) -> None:
    created = (await create_patient(client, facility_id, externalId="a b/c")).json()
    found = await client.get("/patient/external-id", params={"externalId": "a b/c"})
    assert found.json() == created
    absent = {"externalId": "a b/c", "source": "canvas"}
    assert (await client.get("/patient/external-id", params=absent)).status_code == 404
    wrong = await client.get("/patient/external-id", params={"externalId": "a", "source": "epic"})
    assert wrong.status_code == 400
    missing = await client.get("/patient/external-id")
    assert_problem(missing, 400, "BadRequestError", "Missing externalId query param")


async def test_a_patient_is_found_by_the_id_of_another_system(
    client: httpx.AsyncClient, installation: Installation, patient: Any
) -> None:
    known = update(schema.patient).values(additional_ids={"canvas": ["c-1"]})
    await installation.database.write(lambda connection: connection.execute(known).rowcount)
    found = await client.get("/patient/external-id", params={"externalId": "c-1", "source": "canvas"})
    assert found.json() == patient | {"additionalIds": {"canvas": ["c-1"]}}


async def test_an_update_replaces_everything(client: httpx.AsyncClient, facility_id: str) -> None:
    seen = (await create_patient(client, facility_id, externalId="x1")).json()
    sent = patient_body(lastName="Lee", contact=[], id="ignored", facilityIds=["ignored"])
    answer = await client.put(f"/patient/{seen['id']}", json=sent, headers={"If-Match": seen["eTag"]})
    assert answer.status_code == 200
    changed = seen | {"lastName": "Lee", "contact": [], "eTag": answer.json()["eTag"]}
    del changed["externalId"]
    assert answer.json() == changed
    stale = await client.put(f"/patient/{seen['id']}", json=sent, headers={"If-Match": seen["eTag"]})
    assert_problem(stale, 412, "VersionMismatchError", STALE)


async def test_a_change_names_a_facility_of_the_patient(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, patient: Any
) -> None:
    path, first = f"/patient/{patient['id']}", patient["facilityIds"][0]
    second, theirs = await create_facility(client, NPIS[1]), await create_facility(stranger)

    async def put(**params: str) -> httpx.Response:
        return await client.put(path, params=params, json=patient_body())

    assert (await put(facilityId=first)).status_code == 200
    assert_problem(await put(facilityId=second), 400, "BadRequestError", "Patient not associated with given facility")
    assert_problem(await put(facilityId=theirs), 404, "NotFoundError", "Could not find facility")
    await client.post(f"{path}/facility", json={"facilityIds": [first, second]})
    assert (await put(facilityId=second)).status_code == 200
    ambiguous = "Patient is associated with more than one facility (facilityId is required)"
    assert_problem(await put(), 400, "BadRequestError", ambiguous)
    assert_problem(await client.delete(path), 400, "BadRequestError", ambiguous)
    assert (await client.delete(path, params={"facilityId": second})).status_code == 204


async def test_a_patient_is_not_changed_while_a_query_runs(
    client: httpx.AsyncClient, installation: Installation, patient: Any
) -> None:
    account_id = await installation.database.read(
        lambda connection: connection.execute(select(schema.patient.c.account_id)).scalar_one()
    )
    query = DocumentQuery(new_id(), account_id, patient["id"], None, QueryStatus.PROCESSING, NOW)
    await installation.database.write(lambda connection: queries.start_query(connection, query, ["mercy"]))
    answer = await client.put(f"/patient/{patient['id']}", json=patient_body())
    assert answer.status_code == 423
    assert answer.json() == "A document query of this patient is in progress"
    assert (await client.delete(f"/patient/{patient['id']}")).status_code == 204


async def test_a_deleted_patient_is_gone(client: httpx.AsyncClient, patient: Any) -> None:
    path = f"/patient/{patient['id']}"
    assert (await client.delete(path, headers={"If-Match": "stale"})).status_code == 412
    gone = await client.delete(path, headers={"If-Match": patient["eTag"]})
    assert (gone.status_code, gone.content) == (204, b"")
    for answer in (await client.get(path), await client.delete(path), await client.put(path, json=patient_body())):
        assert_problem(answer, 404, "NotFoundError", "Could not find patient")


async def test_the_facilities_of_a_patient_are_replaced(client: httpx.AsyncClient, patient: Any) -> None:
    path = f"/patient/{patient['id']}/facility"
    before = (await client.get(path)).json()["facilities"]
    assert [facility["id"] for facility in before] == patient["facilityIds"]
    second = await create_facility(client, NPIS[1])
    changed = await client.post(path, json={"facilityIds": [second, second]}, headers={"If-Match": patient["eTag"]})
    assert changed.status_code == 200
    assert [facility["id"] for facility in changed.json()["facilities"]] == [second]
    assert (await client.get(f"/patient/{patient['id']}")).json()["facilityIds"] == [second]
    assert (await client.get(path)).json() == changed.json()
    assert (await client.post(path, json={"facilityIds": ["unknown"]})).status_code == 404
    assert (await client.post(path, json={"facilityIds": []})).status_code == 400
    assert (await client.post(path, json={"facilityIds": [second], "eTag": patient["eTag"]})).status_code == 412


async def test_a_patient_opts_out_and_in(client: httpx.AsyncClient, patient: Any) -> None:
    path = f"/patient/{patient['id']}/hie-opt-out"
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert (await client.get(path)).json()["hieOptOut"] is False
    out = await client.put(path, params={"hieOptOut": "true"}, content=b"", headers=form)
    assert out.json() == {
        "id": patient["id"],
        "hieOptOut": True,
        "message": "Patient has opted out from the networks",
    }
    assert (await client.get(path)).json() == out.json()
    back = await client.put(path, params={"hieOptOut": "false"})
    assert back.json()["hieOptOut"] is False
    assert_problem(await client.put(path), 400, "BadRequestError", "Missing hieOptOut query param")


async def test_another_account_finds_nothing(
    installation: Installation, client: httpx.AsyncClient, stranger: httpx.AsyncClient, patient: Any
) -> None:
    facility_id = patient["facilityIds"][0]
    requests: list[tuple[str, str, Any]] = [
        ("GET", f"/facility/{facility_id}", None),
        ("PUT", f"/facility/{facility_id}", facility_body()),
        ("DELETE", f"/facility/{facility_id}", None),
        ("GET", f"/patient/{patient['id']}", None),
        ("PUT", f"/patient/{patient['id']}", patient_body()),
        ("DELETE", f"/patient/{patient['id']}", None),
        ("GET", f"/patient/{patient['id']}/facility", None),
        ("POST", f"/patient/{patient['id']}/facility", {"facilityIds": [facility_id]}),
        ("GET", f"/patient/{patient['id']}/hie-opt-out", None),
        ("PUT", f"/patient/{patient['id']}/hie-opt-out?hieOptOut=true", None),
        ("GET", f"/patient?facilityId={facility_id}", None),
    ]
    for method, path, body in requests:
        theirs = await stranger.request(method, path, json=body)
        unknown = await stranger.request(
            method, path.replace(patient["id"], "absent").replace(facility_id, "absent"), json=body
        )
        assert theirs.status_code == unknown.status_code == 404, (method, path)
        assert theirs.json() == unknown.json()
    assert (await stranger.get("/patient")).json()["patients"] == []
    assert (await client.get(f"/patient/{patient['id']}")).json() == patient


async def test_every_touch_of_a_patient_is_in_the_audit_trail(
    client: httpx.AsyncClient, installation: Installation, patient: Any
) -> None:
    path = f"/patient/{patient['id']}"
    await client.get(path)
    await client.post("/patient/match", json=patient_body())
    await client.put(path, json=patient_body())
    await client.put(f"{path}/hie-opt-out?hieOptOut=true")
    await client.get("/patient")
    await client.get("/patient/absent")
    await client.delete(path)
    entries = select(schema.audit).order_by(schema.audit.c.seq)
    rows = await installation.database.read(lambda connection: connection.execute(entries).all())
    assert [(row.action, row.patient_id) for row in rows] == [
        ("patient.create", patient["id"]),
        ("patient.read", patient["id"]),
        ("patient.read", patient["id"]),
        ("patient.update", patient["id"]),
        ("patient.opt-out", patient["id"]),
        ("patient.list", None),
        ("patient.delete", patient["id"]),
    ]
    assert {row.actor.split(":")[0] for row in rows} == {"key"}
