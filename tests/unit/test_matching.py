from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.people import a_patient, a_person

from chartwire.model.matching import (
    THRESHOLD,
    Disagreement,
    Stated,
    disagreements,
    find_match,
    is_same_person,
    similarity,
)
from chartwire.model.registry import Address, Contact, Gender, IdentifierType, PersonalIdentifier


def license_of(value: str, state: str = "CA") -> PersonalIdentifier:
    return PersonalIdentifier(IdentifierType.DRIVERS_LICENSE, value, state)


def ssn(value: str) -> PersonalIdentifier:
    return PersonalIdentifier(IdentifierType.SSN, value)


SAME: list[dict[str, Any]] = [
    {},
    {"first_name": "ANA", "last_name": "roe"},
    {"first_name": "Anna"},
    {"address": (Address("1 Elm Street", "Ukiah", "CA", "95482"),)},
    {"contact": ()},
    {"contact": (Contact(None, "ana@example.org"), Contact("7075550100"))},
    {"first_name": "Ana,  "},
    {"address": (Address("1 Elm St", "Ukiah", "CA", "95482", "Apt 2"),)},
]

OTHERS: list[dict[str, Any]] = [
    {"dob": date(1980, 3, 2)},
    {"gender_at_birth": Gender.M},
    {"first_name": "Josephine"},
    {"first_name": "Ben", "last_name": "Lee"},
    {
        "address": (Address("99 Quartz Blvd", "Boston", "MA", "02110"),),
        "contact": (Contact("6175550123", "q@example.com"),),
    },
]


@pytest.mark.parametrize("changes", SAME)
def test_records_of_one_person_match(changes: dict[str, Any]) -> None:
    assert is_same_person(a_person(), a_person(**changes))


@pytest.mark.parametrize("changes", OTHERS)
def test_records_of_two_persons_do_not_match(changes: dict[str, Any]) -> None:
    assert not is_same_person(a_person(), a_person(**changes))


def test_a_shared_identifier_matches_whatever_else_has_changed() -> None:
    moved = Address("99 Quartz Blvd", "Boston", "MA", "02110")
    before = a_person(personal_identifiers=(license_of("D-123 456"),))
    after = a_person(last_name="Lee", address=(moved,), contact=(), personal_identifiers=(license_of("d123456"),))
    assert similarity(before, after) < THRESHOLD
    assert is_same_person(before, after)


def test_the_same_number_of_another_state_is_another_identifier() -> None:
    one = a_person(personal_identifiers=(license_of("D1", "CA"),), last_name="Lee")
    other = a_person(personal_identifiers=(license_of("D1", "OR"),), first_name="Josephine")
    assert not is_same_person(one, other)


def test_twins_with_numbers_of_their_own_are_two_persons() -> None:
    one = a_person(first_name="Jayden", personal_identifiers=(ssn("123-45-6789"),))
    other = a_person(first_name="Hayden", personal_identifiers=(ssn("123-45-6780"),))
    assert similarity(one, other) >= THRESHOLD
    assert not is_same_person(one, other)


def test_identifiers_of_different_kinds_say_nothing() -> None:
    one = a_person(personal_identifiers=(ssn("123456789"),))
    other = a_person(personal_identifiers=(license_of("D1"),))
    assert is_same_person(one, other)


def test_an_identifier_of_punctuation_alone_is_none() -> None:
    one = a_person(first_name="Josephine", personal_identifiers=(ssn("---"),))
    assert not is_same_person(one, a_person(personal_identifiers=(ssn("///"),)))


def test_the_first_candidate_that_qualifies_is_found() -> None:
    stranger = a_patient("a1", "p1", person={"first_name": "Josephine"})
    first, second = a_patient("a1", "p2", person={"first_name": "Anna"}), a_patient("a1", "p3")
    assert find_match(a_person(), [stranger, first, second]) is first
    assert find_match(a_person(), [stranger]) is None


names = st.text(alphabet="abcdefghij -,éß", min_size=1, max_size=12)


@given(names, names, names, names)
def test_similarity_is_symmetric_and_bounded(first: str, last: str, other_first: str, other_last: str) -> None:
    one, other = a_person(first_name=first, last_name=last), a_person(first_name=other_first, last_name=other_last)
    score = similarity(one, other)
    assert score == pytest.approx(similarity(other, one))
    assert 0 <= score <= 1
    assert similarity(one, one) == 1


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (Stated(), ()),
        (Stated("Roe", "Ana", date(1980, 2, 3), Gender.F), ()),
        (Stated("ROE", "A", date(1980, 2, 3)), ()),
        (Stated("Roe-Smith", "Ana Maria"), ()),
        (Stated("Smith", "Ana"), ()),  # by marriage
        (Stated("Roe", "Benjamin"), ()),  # a nickname, a middle name
        (Stated("Roe", "Ana", gender=Gender.M), ()),  # corrected
        (Stated("Roe", "Ana", gender=Gender.U), ()),
        (Stated("Roe", "Ana", date(1980, 3, 2), Gender.F), (Disagreement.BIRTH_DATE,)),
        (Stated("Zeller", "Uwe"), (Disagreement.NAME,)),
        (Stated("Zeller", "Ana", gender=Gender.M), (Disagreement.SEX,)),
        (Stated("Zeller", "Uwe", date(1950, 1, 1), Gender.M), tuple(Disagreement)),
    ],
)
def test_a_document_disagrees_with_a_patient_where_chance_does_not_explain_it(
    stated: Stated, expected: tuple[Disagreement, ...]
) -> None:
    assert disagreements(a_person(), stated) == expected
