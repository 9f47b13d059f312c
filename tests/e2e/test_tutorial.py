"""The tutorial does what it says: its commands and its receiver are run as they are printed there."""

import asyncio
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.ports import free_port
from tests.support.process import ChartwireProcess
from tests.support.receiver import PATIENTLY

pytestmark = pytest.mark.embedded


TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial" / "first-webhook.md"
DOCUMENTS = 7
needs_tools = pytest.mark.skipif(
    not (shutil.which("bash") and shutil.which("curl")),
    reason="the tutorial's commands need bash and curl: install both",
)


def blocks(language: str) -> list[str]:
    """The tutorial's code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)


class Reader:
    """The tutorial's reader: a folder, a receiver's port, and a shell that stays open."""

    def __init__(self, folder: Path, server: ChartwireProcess, shell: asyncio.subprocess.Process) -> None:
        self.folder = folder
        self._server = server
        self._shell = shell
        self._port = str(free_port())

    def adapt(self, text: str) -> str:
        """The printed text with this test's ports and program."""
        text = text.replace("http://127.0.0.1:8080", self._server.base_url).replace("4000", self._port)
        return text.replace(".venv/bin/chartwire", f"{sys.executable} -m chartwire")

    async def type(self, commands: str) -> str:
        """Run commands in the shell; returns what they print."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{self.adapt(commands)}\necho; echo --done--\n".encode())
        printed = []
        while (line := (await self._shell.stdout.readline()).decode()) != "--done--\n":
            assert line, f"a command failed: {commands}"
            printed.append(line)
        return "".join(printed)

    @asynccontextmanager
    async def receiver(self) -> AsyncIterator[asyncio.StreamReader]:
        """The tutorial's receiver, running; what it prints."""
        (program,) = blocks("python")
        (self.folder / "receiver.py").write_text(self.adapt(program))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "receiver.py", cwd=self.folder, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            await self._until_it_listens()
            yield process.stdout
        finally:
            process.kill()
            await process.wait()

    async def _until_it_listens(self) -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", int(self._port))
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


@pytest.fixture
async def reader(tmp_path: Path) -> AsyncIterator[Reader]:
    settings = {
        **PATIENTLY,
        "CHARTWIRE_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",  # as `make serve` sets it
        "CHARTWIRE_WEBHOOK_RETRY_SECONDS": str([0] + [5] * 40),  # a slow machine may miss the second attempt
    }
    async with ChartwireProcess(tmp_path / "data", settings) as server:
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-e", "-o", "pipefail"),
            cwd=tmp_path,
            env=server.env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        yield Reader(tmp_path, server, shell)
        shell.kill()
        await shell.communicate()


async def documents_until_the_end(output: asyncio.StreamReader) -> list[str]:
    """What the receiver prints of documents, once it has printed all of them and that the query is over."""
    documents: list[str] = []
    closed = False
    while not closed or len(documents) < DOCUMENTS:
        line = (await output.readline()).decode()
        assert line, "the receiver ended"
        closed = closed or line == "the query is completed\n"
        documents += [line] if line.startswith("document ") else []
    return documents


async def until_status(reader: Reader, commands: str, said: str) -> None:
    """Look at the webhook's status until it says so."""
    while True:
        if re.search(said, await reader.type(commands)):
            return
        await asyncio.sleep(0.1)


@needs_tools
async def test_the_commands_of_the_tutorial_lead_to_a_received_webhook(reader: Reader) -> None:
    key, url, status, registry, ask, fetch, again = blocks("sh")
    async with reader.receiver() as output:
        for commands in (key, url):
            await reader.type(commands)
        await until_status(reader, status, '"webhookEnabled":true')
        await reader.type(registry)
        assert '"processing"' in await reader.type(ask)
        first = await documents_until_the_end(output)
        assert "<ClinicalDocument" in await reader.type(fetch)
    assert len(first) == DOCUMENTS
    assert '"webhookRequestsProcessing":' in await reader.type(again)
    # On a slow machine nothing may wait yet when the two seconds are over.
    await until_status(reader, status, '"webhookRequestsProcessing":[1-9]')
    async with reader.receiver() as output:
        assert sorted(await documents_until_the_end(output)) == sorted(first)
