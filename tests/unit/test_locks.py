"""The lock files fit `pyproject.toml` and each other."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT, EVERYTHING = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"


def locked(file: Path) -> set[str]:
    """The packages of a lock file with versions and conditions, as they are written there."""
    return {line.removesuffix(" \\") for line in file.read_text().splitlines() if re.match(r"[a-z0-9]", line)}


def names(requirements: set[str] | list[str]) -> set[str]:
    """The names alone, as indexes compare them (PEP 503)."""
    found = (re.match(r"[A-Za-z0-9._-]+", requirement) for requirement in requirements)
    return {re.sub(r"[-_.]+", "-", match[0]).lower() for match in found if match}


def test_everything_that_is_needed_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = names(project["project"]["dependencies"])
    assert needed - names(locked(PRODUCT)) == set(), "run `make lock`"
    assert needed | names(project["dependency-groups"]["dev"]) <= names(locked(EVERYTHING)), "run `make lock`"


def test_the_product_is_locked_to_what_is_tested() -> None:
    assert locked(PRODUCT) - locked(EVERYTHING) == set(), "run `make lock`"


@pytest.mark.parametrize("file", [PRODUCT, EVERYTHING], ids=lambda file: file.name)
def test_locks_hold_hashes_and_no_addresses(file: Path) -> None:
    text = file.read_text()
    assert "://" not in text
    assert all(f"{package} \\\n    --hash=sha256:" in text for package in locked(file))
