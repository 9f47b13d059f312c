from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, Select, func, select
from tests.support.people import ELM_STREET, NOW, NPIS, a_facility, a_patient
from tests.support.profile import open_new_database

from chartwire.errors import NotFoundError
from chartwire.model.document import DocumentQuery, QueryStatus
from chartwire.model.registry import Account, LinkState, Organization, OrganizationType, Patient
from chartwire.store import audit, patient_lists, queries, registry, schema
from chartwire.store.database import Database
from chartwire.store.endpoints import settings_endpoint
from chartwire.store.patient_lists import PatientFilter, PatientPage, PatientWindow


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = open_new_database(tmp_path, lambda _: None)
    yield database
    await database.close()


@pytest.fixture
async def account(database: Database) -> Account:
    """An account with the facility `f1`."""

    account = await database.write(lambda c: registry.create_account(c, "Clinic", NOW))
    await database.write(lambda c: registry.insert_facility(c, a_facility(account.id)))
    return account


async def add(database: Database, *patients: Patient) -> None:
    def unit(connection: Connection) -> None:
        for patient in patients:
            registry.insert_patient(connection, patient)

    await database.write(unit)


async def test_an_account_begins_with_the_endpoint_of_its_settings(database: Database) -> None:
    account = await database.write(lambda c: registry.create_account(c, "Clinic", NOW))
    assert await database.read(lambda c: registry.find_account(c, account.id)) == account
    assert await database.read(registry.list_accounts) == [account]
    endpoint = await database.read(lambda c: settings_endpoint(c, account.id))
    assert endpoint.url is None


async def test_a_key_is_kept_as_a_hash_and_opens_its_account(database: Database, account: Account) -> None:
    record, secret = await database.write(lambda c: registry.create_api_key(c, account.id, "app", NOW))
    assert secret.startswith("cw_")
    assert len(secret) >= 43
    stored = await database.read(lambda c: c.execute(select(schema.api_key)).one())
    assert secret not in str(tuple(stored))
    assert secret.startswith(stored.hint)
    assert await database.read(lambda c: registry.authenticate(c, secret)) == (account.id, record.id)
    assert await database.read(lambda c: registry.authenticate(c, secret + "x")) is None


async def test_a_revoked_key_opens_nothing_and_stays_listed(database: Database, account: Account) -> None:
    record, secret = await database.write(lambda c: registry.create_api_key(c, account.id, "app", NOW))
    await database.write(lambda c: registry.revoke_api_key(c, record.id, NOW))
    assert await database.read(lambda c: registry.authenticate(c, secret)) is None
    listed = await database.read(lambda c: registry.list_api_keys(c, account.id))
    assert [key.revoked_at for key in listed] == [NOW]
    with pytest.raises(NotFoundError):
        await database.write(lambda c: registry.revoke_api_key(c, record.id, NOW))


async def test_no_key_is_made_for_an_account_that_is_not(database: Database) -> None:
    with pytest.raises(NotFoundError, match="account"):
        await database.write(lambda c: registry.create_api_key(c, "nobody", "app", NOW))


async def test_an_organization_is_read_as_it_was_written(database: Database, account: Account) -> None:
    record = Organization("o1", account.id, "2.25.1", "Elm Health", OrganizationType.HOSPITAL, ELM_STREET, 3)
    assert await database.read(lambda c: registry.get_organization(c, account.id)) is None
    await database.write(lambda c: registry.insert_organization(c, record))
    assert await database.read(lambda c: registry.get_organization(c, account.id)) == record


async def test_facilities_are_found_in_their_account_alone(database: Database, account: Account) -> None:
    other = await database.write(lambda c: registry.create_account(c, "Other", NOW))
    mine = a_facility(account.id, "f0", NPIS[1])
    await database.write(lambda c: registry.insert_facility(c, mine))
    assert await database.read(lambda c: registry.get_facility(c, account.id, "f0")) == mine
    assert await database.read(lambda c: registry.get_facility(c, other.id, "f0")) is None
    assert await database.read(lambda c: registry.find_facility_by_npi(c, account.id, NPIS[1])) == mine
    assert await database.read(lambda c: registry.find_facility_by_npi(c, other.id, NPIS[1])) is None
    listed = await database.read(lambda c: registry.list_facilities(c, account.id))
    assert [facility.id for facility in listed] == ["f0", "f1"]
    assert await database.read(lambda c: registry.list_facilities(c, other.id)) == []


async def test_a_patient_is_read_as_it_was_written(database: Database, account: Account) -> None:
    await database.write(lambda c: registry.insert_facility(c, a_facility(account.id, "f2", NPIS[1])))
    record = a_patient(
        account.id, facility_ids=("f1", "f2"), external_id="x1", additional_ids={"canvas": ["c-1"]}, version=2
    )
    await add(database, record)
    assert await database.read(lambda c: registry.get_patient(c, account.id, "p1")) == record
    assert await database.read(lambda c: registry.get_patient(c, "another", "p1")) is None


async def test_a_patient_is_found_by_the_ids_of_others(database: Database, account: Account) -> None:
    record = a_patient(account.id, external_id="x1", additional_ids={"canvas": ["c-1", 'q"é']})
    await add(database, record, a_patient(account.id, "p2", external_id="x1"))
    assert await database.read(lambda c: registry.find_by_external_id(c, account.id, "x1")) == record
    assert await database.read(lambda c: registry.find_by_external_id(c, account.id, "x")) is None
    assert await database.read(lambda c: registry.find_by_external_id(c, "another", "x1")) is None
    assert await database.read(lambda c: registry.find_by_source_id(c, account.id, "canvas", 'q"é')) == record
    assert await database.read(lambda c: registry.find_by_source_id(c, account.id, "elation", "c-1")) is None


async def test_candidates_for_a_match_share_birth_date_and_gender(database: Database, account: Account) -> None:
    first, second = a_patient(account.id, "p1"), a_patient(account.id, "p2", person={"first_name": "Josephine"})
    younger = a_patient(account.id, "p3", person={"dob": NOW.date()})
    await add(database, second, first, younger)
    known = first.demographics
    found = await database.read(lambda c: registry.match_candidates(c, account.id, known.dob, known.gender_at_birth))
    assert found == [first, second]


async def test_deleting_a_patient_leaves_the_audit_trail_alone(database: Database, account: Account) -> None:
    await add(database, a_patient(account.id))
    await start_query(database, account, QueryStatus.PROCESSING)
    await database.write(lambda c: registry.save_links(c, "p1", "mercy", [("r1", LinkState.CONFIRMED, 0.99)], NOW))
    await database.write(lambda c: audit.record(c, NOW, account.id, "key:k1", "patient.read", "p1"))
    await database.write(lambda c: registry.delete_patient(c, "p1"))
    for table in (
        schema.patient,
        schema.patient_facility,
        schema.patient_link,
        schema.document_query,
        schema.network_step,
    ):
        count = select(func.count()).select_from(table)
        assert await database.read(partial(count_rows, count)) == 0, table.name
    entry = await database.read(lambda c: c.execute(select(schema.audit)).one())
    assert (entry.patient_id, entry.action, entry.at) == ("p1", "patient.read", NOW)


def count_rows(count: Select[int], connection: Connection) -> int:
    return connection.execute(count).scalar_one()


async def start_query(database: Database, account: Account, status: QueryStatus) -> None:
    query = DocumentQuery("q1", account.id, "p1", "f1", status, NOW)
    await database.write(lambda c: queries.start_query(c, query, ["mercy"]))


@pytest.mark.parametrize("status", QueryStatus)
async def test_a_query_runs_while_it_is_processing(database: Database, account: Account, status: QueryStatus) -> None:
    await add(database, a_patient(account.id))
    assert not await database.read(lambda c: registry.has_running_query(c, "p1"))
    await start_query(database, account, status)
    running = await database.read(lambda c: registry.has_running_query(c, "p1"))
    assert running is (status is QueryStatus.PROCESSING)


async def test_a_link_keeps_when_it_was_first_seen(database: Database, account: Account) -> None:
    await add(database, a_patient(account.id))
    later = NOW + timedelta(days=1)
    await database.write(lambda c: registry.save_links(c, "p1", "mercy", [("r1", LinkState.PROBABLE, 0.5)], NOW))
    await database.write(lambda c: registry.save_links(c, "p1", "mercy", [("r1", LinkState.CONFIRMED, None)], later))
    row = await database.read(lambda c: c.execute(select(schema.patient_link)).one())
    assert (row.state, row.score, row.first_seen_at, row.updated_at) == ("confirmed", None, NOW, later)


# --- lists ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def people(database: Database, account: Account) -> None:
    """Five patients `p1` to `p5` of facility `f1`; `p3` and `p5` belong to `f2`, Oak Hospital, too."""
    await database.write(lambda c: registry.insert_facility(c, a_facility(account.id, "f2", NPIS[1], "Oak Hospital")))
    for number, name in enumerate(["Ana", "Ben", "Cleo", "Dan", "Eve"], start=1):
        facilities = ("f1", "f2") if number in {3, 5} else ("f1",)
        await add(
            database,
            a_patient(
                account.id,
                f"p{number}",
                person={"first_name": name, "contact": ()},
                external_id=f"X{number}_100%",
                facility_ids=facilities,
            ),
        )


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ana", "p1"),
        ("ANA roe", "p1"),
        ("ana ben", ""),
        ("ana or ben", "p2 p1"),
        ("roe -ana -ben", "p5 p4 p3"),
        ('"elm st"', "p5 p4 p3 p2 p1"),
        ('"st elm"', ""),
        ("oak hosp", "p5 p3"),
        ("x2", "p2"),
        ("3_100%", "p3"),
        ("%", "p5 p4 p3 p2 p1"),
        ("_", "p5 p4 p3 p2 p1"),
        ("p4", "p4"),
        ("nobody", ""),
    ],
)
async def test_patients_are_found_by_free_text(database: Database, account: Account, text: str, found: str) -> None:
    listed = await database.read(lambda c: patient_lists.list_patients(c, account.id, PatientFilter(text=text)))
    assert [patient.id for patient in listed] == found.split()
    assert await database.read(lambda c: patient_lists.count_patients(c, account.id, PatientFilter(text=text))) == len(
        found.split()
    )


@pytest.mark.usefixtures("people")
async def test_patients_are_listed_by_facility_and_account(database: Database, account: Account) -> None:
    async def ids(account_id: str, chosen: PatientFilter) -> list[str]:
        listed = await database.read(lambda c: patient_lists.list_patients(c, account_id, chosen))
        return [patient.id for patient in listed]

    assert await ids(account.id, PatientFilter()) == ["p5", "p4", "p3", "p2", "p1"]
    assert await ids(account.id, PatientFilter("f2")) == ["p5", "p3"]
    assert await ids(account.id, PatientFilter("f2", "eve")) == ["p5"]
    assert await ids("another", PatientFilter()) == []


@pytest.mark.usefixtures("people")
async def test_pages_follow_each_other_both_ways(database: Database, account: Account) -> None:
    async def page(from_item: str | None = None, to_item: str | None = None) -> PatientPage:
        window = PatientWindow(2, from_item, to_item)
        return await database.read(lambda c: patient_lists.page_patients(c, account.id, PatientFilter(), window))

    def seen(page: PatientPage) -> tuple[list[str], str | None, str | None]:
        return [patient.id for patient in page.patients], page.next_item, page.previous_item

    assert seen(await page()) == (["p5", "p4"], "p3", None)
    assert seen(await page(from_item="p3")) == (["p3", "p2"], "p1", "p4")
    assert seen(await page(from_item="p1")) == (["p1"], None, "p2")
    assert seen(await page(to_item="p2")) == (["p3", "p2"], "p1", "p4")
    assert seen(await page(to_item="p4")) == (["p5", "p4"], "p3", None)
    assert seen(await page(from_item="p0")) == ([], None, "p1")


@pytest.mark.usefixtures("people")
async def test_a_page_of_none_leads_nowhere(database: Database, account: Account) -> None:
    page = await database.read(lambda c: patient_lists.page_patients(c, account.id, PatientFilter(), PatientWindow(0)))
    assert page == PatientPage([])
