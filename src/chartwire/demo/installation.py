"""A Chartwire of the demo's own: a process on a free port, with its data in a folder that goes away again."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import aiohttp

from chartwire.errors import ChartwireError

_STOP_SECONDS = 20
_LAST_WORD_SECONDS = 5
"""A process that dies has lost its connections before it is known that it has ended."""

_COMMAND = (sys.executable, "-m", "chartwire")


class DemoError(ChartwireError):
    """Something that the demo shows did not happen."""


@dataclass(frozen=True, slots=True)
class Installation:
    """A running Chartwire."""

    base_url: str
    environment: dict[str, str]

    async def create_account(self, name: str) -> tuple[str, str]:
        """An account and its first API key, made by the command line beside the running server."""
        process = await asyncio.create_subprocess_exec(
            *_COMMAND,
            "account",
            "create",
            "--name",
            name,
            "--json",
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await process.communicate()
        if process.returncode != 0:
            raise DemoError("`chartwire account create` failed")
        answer = json.loads(printed)
        return answer["accountId"], answer["apiKey"]


@asynccontextmanager
async def run_installation(folder: Path) -> AsyncIterator[Installation]:
    """Run `chartwire serve` on `folder`; its log goes to `chartwire.log` there."""
    environment = _environment(folder)
    process = await asyncio.create_subprocess_exec(
        *_COMMAND,
        *("serve", "--port", "0"),
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches the demo alone, which then stops the server
    )
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    reader = asyncio.ensure_future(_read_log(process, folder / "chartwire.log", port))
    try:
        base_url = f"http://127.0.0.1:{await port}"
        async with _alive(process):
            yield Installation(base_url, environment)
    finally:
        await _stop(process)
        await reader


@asynccontextmanager
async def _alive(process: asyncio.subprocess.Process) -> AsyncIterator[None]:
    """Raises `DemoError` as soon as the process ends, whatever is being waited for."""
    body = cast("asyncio.Task[Any]", asyncio.current_task())
    is_inside = True
    watch = asyncio.ensure_future(process.wait())
    watch.add_done_callback(lambda _: body.cancel() if is_inside else None)
    try:
        yield
    except asyncio.CancelledError:
        if not watch.done():
            raise
        body.uncancel()
        raise DemoError(f"Chartwire ended with status {process.returncode}") from None
    except aiohttp.ClientError:
        is_inside = False
        await asyncio.wait([watch], timeout=_LAST_WORD_SECONDS)
        if not watch.done():
            raise
        raise DemoError(f"Chartwire ended with status {process.returncode}") from None
    finally:
        is_inside = False
        watch.cancel()


def _environment(folder: Path) -> dict[str, str]:
    """The settings of whoever runs the demo are left out: it shows the same everywhere."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHARTWIRE_")}
    return inherited | {
        "CHARTWIRE_DATA_DIR": str(folder),
        "CHARTWIRE_LOG_FORMAT": "json",
        "CHARTWIRE_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",  # the demo's receiver listens there
        "CHARTWIRE_WEBHOOK_PING_TIMEOUT_SECONDS": "30",  # it is pinged once, and a slow machine is no failure
    }


async def _read_log(process: asyncio.subprocess.Process, path: Path, port: "asyncio.Future[int]") -> None:
    """Keep the log, and find the line that says where the server listens."""
    stream = cast(asyncio.StreamReader, process.stderr)  # a pipe was asked for
    line = b""
    with path.open("wb") as log:
        async for line in stream:
            log.write(line)
            with suppress(ValueError, KeyError):
                record = json.loads(line)
                if record["event"] == "serving":
                    port.set_result(record["port"])
    if not port.done():
        port.set_exception(DemoError(f"Chartwire did not start: {line.decode().strip()}"))


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
