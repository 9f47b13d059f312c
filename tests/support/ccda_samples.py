"""The real C-CDA documents that tests read in place, where they are."""

from pathlib import Path

import pytest
from lxml import etree

FOLDER = Path(__file__).parents[2] / "../shared/data/ccda"
HL7 = "{urn:hl7-org:v3}"

needs_samples = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the sample documents of ../shared/data are not here (see its SOURCES.md)"
)


def sample_files() -> list[Path]:
    """Every sample file, clinical document or fragment of one."""
    return sorted(path for path in FOLDER.rglob("*") if path.is_file())


def is_clinical_document(xml: bytes) -> bool:
    """Whether an independent reading finds CDA's root element: some samples are fragments without its namespace."""
    parser = etree.XMLParser(recover=True, resolve_entities=False, no_network=True, huge_tree=True)
    root = etree.fromstring(xml, parser)
    return root.tag == f"{HL7}ClinicalDocument"


def parse(xml: bytes) -> "etree._Element":
    """The tree of a sample without comments."""
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, huge_tree=True, remove_comments=True, remove_pis=True
    )
    return etree.fromstring(xml, parser)
