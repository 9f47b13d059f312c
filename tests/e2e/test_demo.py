"""`chartwire demo`, as a newcomer runs it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.process import COMMAND, environment

pytestmark = pytest.mark.embedded


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="finds the demo's server in /proc, which Linux has")


@contextmanager
def started_demo(folder: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """The demo, with `folder` as the place for temporary files and settings that must not disturb it."""
    env = environment(
        {"TMPDIR": str(folder), "CHARTWIRE_PORT": "1", "CHARTWIRE_PUBLIC_URL": "https://elsewhere.example"}
    )
    process = subprocess.Popen(
        [*COMMAND, "demo", *arguments], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: "subprocess.Popen[str]", text: str) -> str:
    """What the demo prints up to the line that holds `text`."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"the demo never said {text!r}:\n{''.join(lines)}")


def children(pid: int) -> list[int]:
    """The processes that `pid` started and that still run."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    """Whether there is such a process, and not only its remains."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_demo_shows_the_main_job_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with started_demo(tmp_path) as process:
        printed, complaint = process.communicate(timeout=240)
    assert (process.returncode, complaint) == (0, ""), printed
    assert "\x1b" not in printed, "no terminal, no terminal codes"
    lines = printed.splitlines()
    announced = [line for line in lines if " webhook  " in line]
    assert len(announced) == 7
    assert all(" webhook  ✓✓ " in line for line in announced)
    assert [line for line in lines if " stored " in line][-1].endswith("7 of 7")
    for expected in ("POST /medical/v1/organization", "Jane Smith", "ping, pong", "asked", "closing", "GET http://127"):
        assert any(expected in line for line in lines), expected
    for expected in ('"patientId": ', '"location": "http://127.0.0.1:', "webhook-signature: v1,", "make serve"):
        assert expected in printed, expected
    assert lines[-1].startswith("✓ 7 documents announced in ")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_kept_when_asked_for(tmp_path: Path) -> None:
    with started_demo(tmp_path, "--keep") as process:
        printed, _ = process.communicate(timeout=240)
    (folder,) = tmp_path.iterdir()
    assert f"The data is kept in {folder}" in printed
    assert (folder / "chartwire.db").is_file()


@needs_proc
def test_a_server_that_dies_fails_the_demo_with_a_clear_message(tmp_path: Path) -> None:
    with started_demo(tmp_path) as process:
        read_until(process, "webhook URL")
        for child in children(process.pid):
            os.kill(child, signal.SIGKILL)
        printed, complaint = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "The demo failed: Chartwire ended with status -9" in printed
    assert complaint == ""
    assert list(tmp_path.iterdir()) == []


@needs_proc
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_cleans_up(tmp_path: Path, sent: signal.Signals) -> None:
    with started_demo(tmp_path) as process:
        read_until(process, " stored ")
        started = children(process.pid)
        process.send_signal(sent)
        _, complaint = process.communicate(timeout=240)
    assert process.returncode != 0
    assert "Traceback" not in complaint
    assert started
    assert [child for child in started if is_running(child)] == []
    assert list(tmp_path.iterdir()) == []
