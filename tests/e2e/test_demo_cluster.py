"""`make demo-cluster`, as an operator runs it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.process import environment

pytestmark = [pytest.mark.cluster, pytest.mark.chaos, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]


@contextmanager
def started(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """The demo, leading a group of processes that end with it at the latest."""
    command: Sequence[str] = (sys.executable, "-m", "scripts.cluster", "demo", *arguments)
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if is_any_left(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def is_any_left(group: int) -> bool:
    """Whether a process of this group still runs."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_everything_arrives_whoever_is_killed() -> None:
    with started("--patients", "3", "--seconds", "6") as process:
        printed, complaint = process.communicate(timeout=800)
        assert (process.returncode, complaint) == (0, ""), printed
        assert not is_any_left(process.pid)
    lines = printed.splitlines()
    assert "\x1b" not in printed, "no terminal, no terminal codes"
    assert lines[-1] == "✓ 8 processes were killed (kill -9), and everything arrived"
    assert sum("killed (kill -9)   acknowledged" in line for line in lines) == 8
    assert sum(line.endswith(" is back") for line in lines) == 8
    assert "  ✓ 21 of 21 documents of 3 queries announced, 0 of them in two messages" in lines
    assert not [line for line in lines if "✗" in line]


def test_a_demo_that_is_told_to_end_leaves_nothing_behind() -> None:
    with started() as process:
        assert process.stdout is not None
        while "starting api-1" not in (line := process.stdout.readline()):
            assert line, "the demo ended"
        process.send_signal(signal.SIGTERM)
        _, complaint = process.communicate(timeout=200)
        assert process.returncode != 0
        assert "Traceback" not in complaint
        assert not is_any_left(process.pid)
