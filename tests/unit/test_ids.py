"""Identifiers."""

from uuid import UUID

from chartwire import ids
from chartwire.clock import system_clock, to_milliseconds


def test_a_message_id_has_the_form_of_version_4_and_begins_with_the_time() -> None:
    before = to_milliseconds(system_clock())
    made = [UUID(ids.new_message_id()) for _ in range(1_000)]
    after = to_milliseconds(system_clock())
    assert {(each.version, each.variant) for each in made} == {(4, "specified in RFC 4122")}
    assert all(before <= each.int >> 80 <= after for each in made)
    assert len(set(made)) == len(made)
