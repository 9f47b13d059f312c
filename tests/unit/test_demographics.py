from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.people import NPIS

from chartwire.model.demographics import (
    INVENTED_ZIPS,
    STATES,
    TERRITORIES,
    check_birth_date,
    check_email,
    check_npi,
    normalise_phone,
    normalise_state,
    normalise_zip,
    split_names,
)


@pytest.mark.parametrize(("sent", "kept"), [("95482", "95482"), (" 95482 ", "95482"), ("9-5-4-8-2", "95482")])
def test_a_zip_is_its_five_digits(sent: str, kept: str) -> None:
    assert normalise_zip(sent) == kept


@pytest.mark.parametrize("sent", ["94114-1234", "9548", "954821", "", "abcde", "٩٥٤٨٢"])
def test_a_zip_of_another_length_is_refused(sent: str) -> None:
    with pytest.raises(ValueError, match="5 numbers"):
        normalise_zip(sent)


@pytest.mark.parametrize("zip_code", sorted(INVENTED_ZIPS))
def test_an_invented_zip_is_refused(zip_code: str) -> None:
    with pytest.raises(ValueError, match="Invalid zip code"):
        normalise_zip(zip_code)


def test_the_invented_zips_are_those_of_the_contract() -> None:
    expected = "00000 10000 20000 30000 40000 50000 60000 70000 80000 90000 99999 12345 54321"
    assert set(expected.split()) == INVENTED_ZIPS


@pytest.mark.parametrize("sent", ["7075550100", "+1 (707) 555-0100", "1-707-555-0100", "707.555.0100"])
def test_a_phone_number_is_its_ten_digits(sent: str) -> None:
    assert normalise_phone(sent) == "7075550100"


@pytest.mark.parametrize("sent", ["", "555-0100", "27075550100", "+44 20 7946 0000 1"])
def test_a_phone_number_of_another_length_is_refused(sent: str) -> None:
    with pytest.raises(ValueError, match="10 numbers"):
        normalise_phone(sent)


@given(st.text(alphabet="0123456789", min_size=10, max_size=10), st.text(alphabet=" ()-.+", max_size=3))
def test_normalising_a_phone_number_twice_changes_nothing(digits: str, noise: str) -> None:
    once = normalise_phone(noise.join(digits))
    assert normalise_phone(once) == once == digits


@pytest.mark.parametrize("email", ["a@b.co", "ana.roe+x@mail.example.org", "ána@example.org", "o'neil@example.org"])
def test_an_email_address_is_kept(email: str) -> None:
    assert check_email(email) == email


@pytest.mark.parametrize(
    "email",
    ["", "a", "a@b", "@b.co", "a@.co", "a b@c.co", "a@b.co ", "+17075550100@x.co", "a@@b.co", "a@-b.co", "a..b@c.co"],
)
def test_what_is_no_email_address_is_refused(email: str) -> None:
    with pytest.raises(ValueError, match="Invalid email address"):
        check_email(email)


def test_there_are_fifty_states_and_the_capital() -> None:
    assert len(STATES) == 51
    assert not STATES & TERRITORIES


@pytest.mark.parametrize("sent", ["CA", "ca", " Ca "])
def test_a_state_is_two_capital_letters(sent: str) -> None:
    assert normalise_state(sent, STATES) == "CA"


@pytest.mark.parametrize("sent", ["California", "XX", "", "PR"])
def test_what_is_no_state_is_refused(sent: str) -> None:
    with pytest.raises(ValueError, match="US state"):
        normalise_state(sent, STATES)


@pytest.mark.parametrize("sent", ["1900-01-01", "1980-02-03", "2024-02-29"])
def test_a_birth_date_is_a_day_since_1900(sent: str) -> None:
    assert check_birth_date(sent) == sent


@pytest.mark.parametrize(
    "sent", ["1899-12-31", "2023-02-29", "19800203", "1980-2-3", "03/02/1980", "1980-02-03T00:00:00Z", ""]
)
def test_what_is_no_birth_date_is_refused(sent: str) -> None:
    with pytest.raises(ValueError, match="Date of birth"):
        check_birth_date(sent)


@pytest.mark.parametrize("npi", NPIS)
def test_an_npi_with_a_right_check_digit_is_kept(npi: str) -> None:
    assert check_npi(npi) == npi


@pytest.mark.parametrize(
    "npi", ["1234567891", "1789123454", "3234567893", "123456789", "12345678931", "123456789a", ""]
)
def test_what_is_no_npi_is_refused(npi: str) -> None:
    with pytest.raises(ValueError, match="NPI is not valid"):
        check_npi(npi)


@given(st.sampled_from(NPIS), st.integers(0, 9), st.integers(1, 9))
def test_one_wrong_digit_breaks_an_npi(npi: str, place: int, shift: int) -> None:
    wrong = str((int(npi[place]) + shift) % 10)
    with pytest.raises(ValueError, match="NPI is not valid"):
        check_npi(npi[:place] + wrong + npi[place + 1 :])


@given(
    st.text(st.characters(exclude_categories=["Nd"])),
    st.sampled_from([normalise_zip, normalise_phone, check_email, check_birth_date, check_npi]),
)
def test_a_refusal_never_repeats_what_was_sent(value: str, rule: Callable[[str], str]) -> None:
    with pytest.raises(ValueError, match=r"^[^Ω]+$"):
        rule(f"Ω{value}Ω")


def test_names_are_separated_by_commas_and_spaces() -> None:
    assert split_names("Mary Ann,  Marie") == ("Mary", "Ann", "Marie")
    assert split_names(" , ") == ()
