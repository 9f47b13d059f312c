"""Which tests run on which profile (`tests/support/profile.py`)."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trustme

from tests.support.profile import IS_CLUSTER, drop_databases, made_databases, why_not

_UNIT = Path(__file__).parent / "unit"


def pytest_configure(config: pytest.Config) -> None:
    """Let one authority of nobody's stand for the system's, here and in what tests start.

    No test speaks to the world, and OpenSSL takes 30 ms to read all that are trusted there: longer than most tests.
    """
    folder = TemporaryDirectory(prefix="chartwire-authority-")
    config.add_cleanup(folder.cleanup)
    path = Path(folder.name) / "authority.pem"
    trustme.CA().cert_pem.write_to_path(path)
    os.environ["SSL_CERT_FILE"] = str(path)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not about this profile; what no profile changes runs on the embedded one alone."""
    left_out = [item for item in items if not _belongs(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if _belongs(item)]
    if reason := why_not():
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))


def _belongs(item: pytest.Item) -> bool:
    if IS_CLUSTER:
        return not item.get_closest_marker("embedded") and not item.path.is_relative_to(_UNIT)
    return not item.get_closest_marker("cluster")


@pytest.fixture(autouse=True)
def _databases() -> Iterator[None]:
    before = made_databases()  # those of fixtures that outlive a test
    yield
    drop_databases(before)
