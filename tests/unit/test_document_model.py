"""Master identifiers: one spelling, whichever way a network writes them."""

import pytest

from chartwire.model.document import normalise_identifier


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("urn:oid:2.999.1", "2.999.1"),
        ("URN:OID:2.999.1", "2.999.1"),
        ("2.999.1^abC", "2.999.1^abC"),
        ("urn:uuid:0E3F4C2A-0000-4000-8000-00000000000A", "0e3f4c2a-0000-4000-8000-00000000000a"),
        (" 0E3F4C2A-0000-4000-8000-00000000000A ", "0e3f4c2a-0000-4000-8000-00000000000a"),
        ("ABC-123", "ABC-123"),
        ("https://example.org/Doc/1", "https://example.org/Doc/1"),
    ],
)
def test_master_identifiers_have_one_spelling(written: str, normal: str) -> None:
    assert normalise_identifier(written) == normal
    assert normalise_identifier(normal) == normal
