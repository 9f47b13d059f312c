"""The published npm client, unchanged, driven from Python.

It is installed from `tests/clients` once per machine into the repository's `.tools/`, which git ignores.
"""

import asyncio
import fcntl
import itertools
import json
import shutil
import subprocess
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

_REPOSITORY = Path(__file__).parents[2]
_SOURCES = _REPOSITORY / "tests" / "clients"
_UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH")
_LINE_BYTES = 64 * 1024 * 1024


@cache
def installed_clients() -> Path:
    """The folder of the installed packages; skips the test when node is missing or npm's registry out of reach."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node 18 or later with npm: install it from https://nodejs.org or your system's packages")
    lock = (_SOURCES / "package-lock.json").read_bytes()
    folder = _REPOSITORY / ".tools" / f"clients-{sha256(lock).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # tests run in several processes
        if not (folder / "complete").exists():
            _install(folder)
            (folder / "complete").touch()
    return folder


def _install(folder: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_SOURCES / name, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0 and any(code in result.stderr for code in _UNREACHABLE):
        pytest.skip("needs npm's registry once, to install the client that is tested: run again with a network")
    assert result.returncode == 0, result.stderr


class NodeError(Exception):
    """What the client threw; `status` and `body` are those of the answer it got, if that is why."""

    def __init__(self, message: str, status: int | None, body: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class NodeClient:
    """A `MetriportMedicalApi` in a node process of its own; calls may overlap."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    async def call(self, method: str, *args: Any) -> Any:
        """Call a method of the client, of its class, or of `bridge.cjs`; raises `NodeError` for what it throws."""
        assert self._process.stdin is not None
        number = next(self._ids)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        request = {"id": number, "method": method, "args": args}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        return await self._waiting[number]

    async def read_answers(self) -> None:
        """Hand answers to their callers until the process ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            answer = json.loads(line)
            waiting = self._waiting.pop(answer["id"])
            if (error := answer.get("error")) is None:
                waiting.set_result(answer["value"])
            else:
                waiting.set_exception(NodeError(error["message"], error.get("status"), error.get("body")))
        for waiting in self._waiting.values():
            waiting.set_exception(RuntimeError("the node process has ended"))


@asynccontextmanager
async def node_client(api_key: str, base_url: str, **options: Any) -> AsyncIterator[NodeClient]:
    """The client, with its constructor's `options`."""
    root = installed_clients()
    command = ["node", str(_SOURCES / "bridge.cjs"), str(root), api_key, base_url, json.dumps(options)]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, limit=_LINE_BYTES)
    client = NodeClient(process)
    reading = asyncio.create_task(client.read_answers())
    try:
        yield client
    finally:
        process.kill()
        await process.wait()
        await reading
