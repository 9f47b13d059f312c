"""The real server in a process of its own, on a port that it keeps over restarts."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from tests.support.ports import free_port
from tests.support.profile import settings_of

_START_SECONDS = 120
_STOP_SECONDS = 90  # a server lets attempts end, which may take 31 of them, then steps and farewells
_COMMAND_SECONDS = 180
_POLL_SECONDS = 0.02
COMMAND = (sys.executable, "-m", "chartwire")


class ChartwireProcess:
    """`chartwire serve` on a data folder; use it as `async with ChartwireProcess(folder) as server`.

    `env` holds settings as environment variables (`CHARTWIRE_…`). What the process logs is in `log_file`. Entering
    waits until the server is ready; leaving stops it, whatever state it is in.
    """

    def __init__(self, data_dir: Path, env: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.log_file = data_dir.with_name(f"{data_dir.name}.log")
        self.env = environment(
            {"CHARTWIRE_DATA_DIR": str(data_dir), **_as_variables(settings_of(data_dir)), **(env or {})}
        )
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The id of the running process."""
        return self._running().pid

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._process is not None:
            await self.stop()

    async def start(self) -> None:
        """Start the server and wait until it is ready."""
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *COMMAND, "serve", "--port", str(self.port), env=self.env, stdout=log, stderr=log
            )
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._wait_until_ready(self._process)
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"the server was not ready after {_START_SECONDS} s:\n{self.log()}") from None

    async def stop(self) -> int:
        """Ask the process to end (SIGTERM) and wait until it has; returns its exit status."""
        process = self._running()
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                status = await process.wait()
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"the server did not stop within {_STOP_SECONDS} s:\n{self.log()}") from None
        self._process = None
        return status

    async def kill(self) -> None:
        """End the process without a warning (SIGKILL)."""
        process = self._running()
        if process.returncode is None:
            process.kill()
        await process.wait()
        self._process = None

    async def restart(self) -> None:
        """Start again on the same folder and port; a server that still runs is stopped first."""
        if self._process is not None:
            await self.stop()
        await self.start()

    async def create_account(self, name: str) -> tuple[str, str]:
        """Make an account by the command line, beside the running server; returns its id and its API key."""
        answer = json.loads(await self.run("account", "create", "--name", name, "--json"))
        return answer["accountId"], answer["apiKey"]

    async def run(self, *arguments: str) -> str:
        """Run another command on the same installation; returns what it printed."""
        process = await asyncio.create_subprocess_exec(
            *COMMAND, *arguments, env=self.env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            printed, complaint = await process.communicate()
        finally:
            if process.returncode is None:  # whoever waited for it was told to end
                process.kill()
                await process.wait()
        assert process.returncode == 0, f"chartwire {arguments[0]} failed: {complaint.decode()}"
        return printed.decode()

    def log(self) -> str:
        """What the process logged, over all its lives."""
        return self.log_file.read_text()

    async def logged(self, text: str) -> str:
        """What the process logged, once `text` is in it: it answers before it has said all about its start."""
        async with asyncio.timeout(_START_SECONDS):
            # A line without an end is still being written. Another process does: there is no event.
            while text not in (log := self.log().rpartition("\n")[0]):  # noqa: ASYNC110
                await asyncio.sleep(_POLL_SECONDS)
        return log

    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "the server was not started, or has been stopped"
        return self._process

    async def _wait_until_ready(self, process: asyncio.subprocess.Process) -> None:
        async with aiohttp.ClientSession(base_url=self.base_url) as session:
            while not await _is_ready(session):
                if process.returncode is not None:
                    raise AssertionError(f"the server ended with status {process.returncode}:\n{self.log()}")
                await asyncio.sleep(_POLL_SECONDS)


async def _is_ready(session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get("/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientConnectionError:
        return False


def _as_variables(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"CHARTWIRE_{name.upper()}": value for name, value in settings.items()}


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with `settings` alone as Chartwire's settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHARTWIRE_")}
    return inherited | dict(settings)


def run_command(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `chartwire` to its end; `settings` are those that it finds in its environment."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=_COMMAND_SECONDS,
    )
