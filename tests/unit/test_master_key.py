"""Where the master key comes from: a file, the environment, a command."""

import base64
import os
import shlex
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from chartwire.errors import ConfigurationError
from chartwire.settings import Settings
from chartwire.store.master_key import (
    MasterKey,
    as_text,
    ensure_key_file,
    load_master_keys,
    new_master_key,
    read_key_file,
    write_key_file,
)

NEW, OLD = MasterKey(b"n" * 32), MasterKey(b"o" * 32)


def python(script: str) -> str:
    """A command that runs a script without a shell."""
    return shlex.join([sys.executable, "-c", script])


def test_a_key_is_known_by_an_id_and_never_shown() -> None:
    assert NEW.id != OLD.id
    assert len(NEW.id) == 16
    assert "nnnn" not in repr(NEW)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_master_key_has_32_bytes(size: int) -> None:
    with pytest.raises(ConfigurationError, match="32 bytes"):
        MasterKey(bytes(size))


def test_what_it_seals_opens_under_its_name_alone() -> None:
    sealed = NEW.seal("a", b"key")
    assert NEW.open("a", sealed) == b"key"
    assert NEW.open("b", sealed) is None
    assert OLD.open("a", sealed) is None
    assert NEW.open("a", sealed[:-1]) is None


def test_the_file_is_made_once_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "master.key"
    keys = ensure_key_file(path)
    assert len(keys) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert ensure_key_file(path) == read_key_file(path) == keys
    assert os.listdir(path.parent) == ["master.key"]  # noqa: PTH208  names are what is asked for
    assert ensure_key_file(tmp_path / "other.key") != keys


def test_those_who_start_together_get_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    barrier = threading.Barrier(8)
    found: list[list[MasterKey]] = []

    def start() -> None:
        barrier.wait()
        found.append(ensure_key_file(path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [read_key_file(path)] * 8


def test_a_file_may_hold_the_next_key_before_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    (old,) = ensure_key_file(path)
    write_key_file(path, [NEW, old])
    assert read_key_file(path) == [NEW, old]
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["master.key"]  # noqa: PTH208  names are what is asked for


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master.key"
    ensure_key_file(path)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_key_file(path)


@pytest.mark.parametrize("content", [b"not Base64!", b"\xff" * 44, base64.b64encode(bytes(32))[:-2], b" ", b"c2hvcnQ="])
def test_a_malformed_key_is_a_wrong_setting_and_is_not_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "master.key"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"Base64|holds no key") as caught:
        read_key_file(path)
    assert not content.strip() or content.decode("latin-1") not in str(caught.value)


def test_an_absent_or_impossible_key_file_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read_key_file(tmp_path / "absent.key")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="File exists"):
        ensure_key_file(tmp_path / "file" / "master.key")


@pytest.mark.parametrize("between", [" ", "\n", ",", " , "])
def test_the_environment_gives_keys(between: str) -> None:
    settings = Settings(master_key=as_text(NEW) + between + as_text(OLD))  # type: ignore[arg-type]
    assert load_master_keys(settings) == [NEW, OLD]
    assert as_text(NEW) not in repr(settings)


def test_a_command_gives_keys_and_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHARTWIRE_MASTER_KEY", as_text(OLD))
    script = f"import os; print({as_text(NEW)!r}, *(k for k in os.environ if k == 'CHARTWIRE_MASTER_KEY'))"
    settings = Settings(master_key="", master_key_command=python(script))  # type: ignore[arg-type]
    assert load_master_keys(settings) == [NEW]


def test_a_command_runs_without_a_shell(tmp_path: Path) -> None:
    command = f"echo {as_text(NEW)} ; touch {tmp_path / 'made'}"
    with pytest.raises(ConfigurationError, match="Base64"):
        load_master_keys(Settings(master_key_command=command))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (python("import sys; sys.stderr.write('hush'); print('hush'); sys.exit(3)"), "ended with status 3"),
        (python("print('hush')"), "32 bytes in Base64"),
        (python("print('A' * 100_000)"), "more than a key"),
        ("/nowhere/hush", "cannot be run: No such file"),
        ("'hush", "quotation mark"),
    ],
)
def test_a_command_that_gives_no_key_is_a_wrong_setting_and_what_it_said_is_not_told(
    command: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_master_keys(Settings(master_key_command=command))
    assert "hush" not in str(caught.value)


def test_a_command_that_does_not_end_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    fifo = tmp_path / "held"
    os.mkfifo(fifo)
    # The grandchild opens the pipe for writing: when nobody holds it any longer, reading comes to an end.
    script = f"import subprocess, sys; subprocess.run(['sh', '-c', 'exec sleep 600 > {fifo}'])"
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(ConfigurationError, match="no answer within 2 seconds"):
        load_master_keys(Settings(master_key_command=python(script), master_key_command_seconds=2))
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""
    os.close(reader)


@pytest.mark.parametrize(
    "two",
    [
        ("master_key", "master_key_command"),
        ("master_key_file", "master_key"),
        ("master_key_file", "master_key_command"),
    ],
)
def test_the_key_comes_from_one_place(two: tuple[str, str], tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "master_key": as_text(NEW),
        "master_key_command": "true",
        "master_key_file": tmp_path / "master.key",
    }
    with pytest.raises(ConfigurationError, match=f"{two[0]} and {two[1]}"):
        load_master_keys(Settings(**{name: given[name] for name in two}))


def test_keys_are_made_by_chance() -> None:
    assert new_master_key() != new_master_key()
