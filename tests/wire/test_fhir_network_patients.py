"""Who is linked: `$match`, demographics search, and what neither server nor chance may bring about."""

from collections.abc import AsyncIterator
from datetime import date
from typing import Any
from urllib.parse import parse_qs

import orjson
import pytest
from tests.support.fhir_stub import FhirStub, bundle, connect, says, serve_stub, status

from chartwire.errors import IssueCode, PermanentNetworkError, TemporaryNetworkError
from chartwire.model.registry import (
    Address,
    Contact,
    Demographics,
    Gender,
    IdentifierType,
    LinkState,
    PersonalIdentifier,
)

pytestmark = pytest.mark.embedded


HOME = Address("1 Main St", "Boston", "MA", "02115")
ANA = Demographics("Ana", "Roe", date(1980, 2, 3), Gender.F, (HOME,))
GRADE = "http://hl7.org/fhir/StructureDefinition/match-grade"
MATCH = ("POST", "Patient/$match")
SEARCH = ("POST", "Patient/_search")


@pytest.fixture
async def stub() -> AsyncIterator[FhirStub]:
    async with serve_stub() as running:
        yield running


def patient(key: str = "pat-1", **members: object) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "id": key,
        "name": [{"family": "Roe", "given": ["Ana"]}],
        "birthDate": "1980-02-03",
        "gender": "female",
        "address": [{"postalCode": "02115-1234"}],
        **members,
    }


def graded(resource: dict[str, Any], grade: str | None, score: float | None = None) -> dict[str, Any]:
    search: dict[str, Any] = {"mode": "match"}
    if grade is not None:
        search["extension"] = [{"url": GRADE, "valueCode": grade}]
    if score is not None:
        search["score"] = score
    return {"resource": resource, "search": search}


def matches(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "searchset", "entry": list(entries)}


async def test_the_one_certain_match_is_linked_and_a_probable_one_is_not(stub: FhirStub) -> None:
    stub.on(*MATCH, says(matches(graded(patient("a"), "certain", 0.99), graded(patient("b"), "probable", 0.7))))
    async with connect(stub) as network:
        discovery = await network.discover(ANA)
    assert [(link.remote_id, link.state, link.score) for link in discovery.links] == [
        ("a", LinkState.CONFIRMED, 0.99),
        ("b", LinkState.PROBABLE, 0.7),
    ]
    assert discovery.issues == ()
    assert stub.asked("Patient/_search") == []


async def test_match_is_asked_with_all_that_is_known(stub: FhirStub) -> None:
    stub.on(*MATCH, says(matches()))
    who = Demographics(
        "Ana", "Roe", date(1980, 2, 3), Gender.F, (HOME,),
        (Contact(phone="6175550100"),), (PersonalIdentifier(IdentifierType.SSN, "123456789"),),
    )  # fmt: skip
    async with connect(stub) as network:
        assert (await network.discover(who)).links == ()
    asked = orjson.loads(stub.seen[0].body)
    assert asked["resourceType"] == "Parameters"
    sent = asked["parameter"][0]["resource"]
    assert sent["name"] == [{"family": "Roe", "given": ["Ana"]}]
    assert (sent["birthDate"], sent["gender"]) == ("1980-02-03", "female")
    assert sent["address"][0]["postalCode"] == "02115"
    assert sent["telecom"] == [{"system": "phone", "value": "6175550100"}]
    assert sent["identifier"] == [{"system": "http://hl7.org/fhir/sid/us-ssn", "value": "123456789"}]


@pytest.mark.parametrize(
    ("score", "state"), [(0.97, LinkState.CONFIRMED), (0.94, LinkState.PROBABLE), (None, LinkState.PROBABLE)]
)
async def test_without_a_grade_the_score_decides(stub: FhirStub, score: float | None, state: LinkState) -> None:
    stub.on(*MATCH, says(matches(graded(patient(), None, score))))
    async with connect(stub) as network:
        assert [link.state for link in (await network.discover(ANA)).links] == [state]


async def test_several_certain_matches_link_nobody(stub: FhirStub) -> None:
    stub.on(*MATCH, says(matches(graded(patient("a"), "certain"), graded(patient("b"), "certain"))))
    async with connect(stub) as network:
        discovery = await network.discover(ANA)
    assert {link.state for link in discovery.links} == {LinkState.PROBABLE}
    assert [issue.code for issue in discovery.issues] == [IssueCode.MULTIPLE_CANDIDATES]


async def test_the_same_record_twice_is_one_match(stub: FhirStub) -> None:
    stub.on(*MATCH, says(matches(graded(patient("a"), "certain"), graded(patient("a"), "certain"))))
    async with connect(stub) as network:
        assert [link.state for link in (await network.discover(ANA)).links] == [LinkState.CONFIRMED]


@pytest.mark.parametrize(
    "wrong",
    [
        {"birthDate": "1980-02-04"},
        {"birthDate": "1980"},
        {"birthDate": None},
        {"name": [{"family": "Doe", "given": ["Ana"]}]},
        {"name": "Roe"},
        {"gender": "male"},
        {"link": [{"type": "replaced-by", "other": {"reference": "Patient/x"}}]},
        {"id": "../secrets"},
        {"resourceType": "Person"},
    ],
)
async def test_a_certain_match_that_is_somebody_else_is_not_linked(stub: FhirStub, wrong: dict[str, Any]) -> None:
    stub.on(*MATCH, says(matches(graded({**patient(), **wrong}, "certain", 1.0))))
    async with connect(stub) as network:
        assert (await network.discover(ANA)).links == ()


async def test_a_match_that_is_certainly_not_is_nobody(stub: FhirStub) -> None:
    stub.on(*MATCH, says(matches(graded(patient(), "certainly-not", 1.0))))
    async with connect(stub) as network:
        assert (await network.discover(ANA)).links == ()


@pytest.mark.parametrize("code", [400, 403, 404, 405, 415, 422, 501])
async def test_a_server_without_match_is_searched(stub: FhirStub, code: int) -> None:
    stub.on(*MATCH, status(code))
    stub.on(*SEARCH, says(bundle(patient())))
    async with connect(stub) as network:
        assert [link.state for link in (await network.discover(ANA)).links] == [LinkState.CONFIRMED]
    form = parse_qs(stub.asked("Patient/_search")[0].body.decode())
    assert (form["family"], form["birthdate"]) == (["Roe"], ["1980-02-03"])
    assert stub.asked("Patient/_search")[0].query == {}


async def test_match_alone_or_search_alone_can_be_demanded(stub: FhirStub) -> None:
    stub.on(*SEARCH, says(bundle(patient())))
    async with connect(stub, match="operation") as network:
        with pytest.raises(PermanentNetworkError) as caught:
            await network.discover(ANA)
    assert caught.value.code is IssueCode.NOT_FOUND
    async with connect(stub, match="search") as network:
        assert len((await network.discover(ANA)).links) == 1
    assert len(stub.asked("Patient/$match")) == 1


async def test_a_server_that_fails_is_not_searched_instead(stub: FhirStub) -> None:
    stub.on(*MATCH, status(500))
    async with connect(stub) as network:
        with pytest.raises(TemporaryNetworkError):
            await network.discover(ANA)
    assert len(stub.seen) == 1


@pytest.mark.parametrize("code", [404, 405, 415, 501])
async def test_a_search_goes_by_get_where_post_is_refused(stub: FhirStub, code: int) -> None:
    stub.on(*SEARCH, status(code))
    stub.on("GET", "Patient", says(bundle(patient())))
    async with connect(stub, match="search") as network:
        assert len((await network.discover(ANA)).links) == 1
    assert stub.asked("Patient")[0].query["family"] == "Roe"


async def test_a_search_that_asks_too_little_is_repeated_with_more(stub: FhirStub) -> None:
    stub.on(*SEARCH, status(400), says(bundle(patient())))
    async with connect(stub, match="search") as network:
        assert len((await network.discover(ANA)).links) == 1
    form = parse_qs(stub.seen[1].body.decode())
    assert (form["given"], form["gender"]) == (["Ana"], ["female"])


@pytest.mark.parametrize(
    "other",
    [
        {"name": [{"family": "Roe", "given": ["Anabel"]}]},
        {"name": [{"family": "Roe"}]},
        {"gender": "unknown"},
        {"gender": None},
        {"address": [{"postalCode": "90210"}]},
    ],
)
async def test_a_hit_that_may_be_somebody_else_is_probable(stub: FhirStub, other: dict[str, Any]) -> None:
    stub.on(*SEARCH, says(bundle(patient(**other))))
    async with connect(stub, match="search") as network:
        assert [link.state for link in (await network.discover(ANA)).links] == [LinkState.PROBABLE]


@pytest.mark.parametrize(
    ("first_name", "last_name", "theirs"),
    [
        ("José", "Núñez", {"family": "NUNEZ", "given": ["JOSE"]}),
        ("Mary Ann", "O'Neil", {"family": "ONeil", "given": ["Mary", "Ann"]}),
        ("Mary,Maria", "Roe, Roberts", {"family": "Roberts", "given": ["Maria"]}),
        ("Ana", "de la Cruz", {"family": "De La Cruz", "given": ["Ana", "B."]}),
        ("Ana", "Smith-Jones", {"family": "Smith Jones", "given": ["Ana"]}),
    ],
)
async def test_names_agree_however_they_are_written(
    stub: FhirStub, first_name: str, last_name: str, theirs: dict[str, Any]
) -> None:
    stub.on(*SEARCH, says(bundle(patient(name=[theirs]))))
    who = Demographics(first_name, last_name, date(1980, 2, 3), Gender.F, (HOME,))
    async with connect(stub, match="search") as network:
        assert [link.state for link in (await network.discover(who)).links] == [LinkState.CONFIRMED]


async def test_a_hit_without_an_address_is_certain(stub: FhirStub) -> None:
    stub.on(*SEARCH, says(bundle(patient(address=[]))))
    async with connect(stub, match="search") as network:
        assert [link.state for link in (await network.discover(ANA)).links] == [LinkState.CONFIRMED]


async def test_a_second_certain_hit_on_a_later_page_is_seen(stub: FhirStub) -> None:
    stub.on(*SEARCH, says(bundle(patient("a"), following=f"{stub.base_url}/Patient?page=2")))
    stub.on("GET", "Patient", says(bundle(patient("b"))))
    async with connect(stub, match="search") as network:
        discovery = await network.discover(ANA)
    assert {link.state for link in discovery.links} == {LinkState.PROBABLE}
    assert [issue.code for issue in discovery.issues] == [IssueCode.MULTIPLE_CANDIDATES]


async def test_nobody_is_certain_while_hits_remain_unseen(stub: FhirStub) -> None:
    pages = (says(bundle(patient("a"), following=f"{stub.base_url}/Patient?page={page}")) for page in range(2, 9))
    stub.on(*SEARCH, says(bundle(patient("a"), following=f"{stub.base_url}/Patient?page=1")))
    stub.on("GET", "Patient", *pages)
    async with connect(stub, match="search") as network:
        discovery = await network.discover(ANA)
    assert [link.state for link in discovery.links] == [LinkState.PROBABLE]
    assert [issue.code for issue in discovery.issues] == [IssueCode.TOO_MANY_PAGES]


async def test_a_server_that_ignores_what_it_is_asked_links_nobody_wrong(stub: FhirStub) -> None:
    strangers = [patient(f"p{number}", birthDate=f"19{number}-01-01") for number in range(10, 40)]
    stub.on(*SEARCH, says(bundle(*strangers, patient("right"))))
    async with connect(stub, match="search") as network:
        assert [link.remote_id for link in (await network.discover(ANA)).links] == ["right"]


async def test_an_outcome_among_the_hits_leaves_the_hit_unconfirmed(stub: FhirStub) -> None:
    outcome = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "incomplete"}]}
    stub.on(*SEARCH, says(bundle(patient(), outcome)))
    async with connect(stub, match="search") as network:
        discovery = await network.discover(ANA)
    assert [link.state for link in discovery.links] == [LinkState.PROBABLE]
    assert [issue.code for issue in discovery.issues] == [IssueCode.SERVER_ERROR]


async def test_an_answer_that_is_an_outcome_is_an_error_without_its_text(stub: FhirStub) -> None:
    stub.on(*SEARCH, status(200))
    async with connect(stub, match="search") as network:
        with pytest.raises(PermanentNetworkError) as caught:
            await network.discover(ANA)
    assert caught.value.code is IssueCode.INVALID_ANSWER
    assert "Ana" not in str(caught.value)
