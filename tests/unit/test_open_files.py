"""How many files a server may have open."""

import resource
import subprocess
import sys

import pytest

from chartwire.open_files import most_open_files, needed_open_files

pytestmark = pytest.mark.embedded

_ASKS = """
import resource
from chartwire.open_files import allow_open_files
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
allow_open_files()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def allowed(soft: int, hard: int) -> list[int]:
    """What a process with these limits has once it has asked: soft and hard."""
    asks = [sys.executable, "-c", _ASKS.format(soft=soft, hard=hard)]
    return [int(each) for each in subprocess.run(asks, check=True, capture_output=True, text=True).stdout.split()]


def test_a_server_takes_what_the_system_lets_it_have() -> None:
    assert allowed(256, 2048) == [2048, 2048]


def test_what_is_high_enough_is_left_as_it_is() -> None:
    assert allowed(2048, 2048) == [2048, 2048]


def test_the_most_is_the_hard_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert most_open_files() == (65_536 if hard == resource.RLIM_INFINITY else hard)


def test_each_attempt_needs_its_connection_and_two_that_idle() -> None:
    assert needed_open_files(512) == 3 * 512 + 256
