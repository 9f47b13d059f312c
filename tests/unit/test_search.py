from tests.support.people import a_person

from chartwire.model.registry import IdentifierType, PersonalIdentifier
from chartwire.model.search import SearchTerm, parse_search, searchable


def test_words_must_all_hold() -> None:
    assert parse_search("Ana  ROE") == ((SearchTerm("ana"), SearchTerm("roe")),)


def test_quotes_make_a_phrase_and_a_minus_excludes() -> None:
    assert parse_search('"1  Elm St" -Fresno -"los angeles"') == (
        (SearchTerm("1 elm st"), SearchTerm("fresno", excluded=True), SearchTerm("los angeles", excluded=True)),
    )


def test_or_separates_alternatives() -> None:
    assert parse_search("ana roe or OR lee") == ((SearchTerm("ana"), SearchTerm("roe")), (SearchTerm("lee"),))


def test_what_says_nothing_is_nothing() -> None:
    assert parse_search(' - "" or " ') == ((SearchTerm("-"),),)
    assert parse_search("") == ()


def test_personal_identifiers_are_not_searched() -> None:
    person = a_person(personal_identifiers=(PersonalIdentifier(IdentifierType.SSN, "123456789"),))
    assert searchable(person) == "ana roe 1980-02-03 1 elm st ukiah ca 95482 7075550100 ana@example.org"
