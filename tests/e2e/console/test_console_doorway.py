"""How people come to the console from the command line, and how the server ends while somebody watches."""

import asyncio
import json
import os
import pty
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from tests.support.client import http_client
from tests.support.process import COMMAND, ChartwireProcess, environment, run_command

pytestmark = pytest.mark.embedded


SAME_ORIGIN = {"sec-fetch-site": "same-origin"}
LINK = re.compile(r"http://127\.0\.0\.1:\d+/console/setup\?token=[0-9a-f]{40}")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ChartwireProcess]:
    async with ChartwireProcess(tmp_path / "data") as started:
        yield started


@asynccontextmanager
async def visiting(server: ChartwireProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with http_client(base_url=server.base_url, headers=SAME_ORIGIN) as client:
        yield client


async def sign_in(client: httpx.AsyncClient, email: str, password: str) -> int:
    """The status of an attempt; 303 leads in."""
    return (await client.post("/console/sign-in", data={"email": email, "password": password})).status_code


async def test_the_command_line_makes_members_and_helps_those_who_lost_their_password(server: ChartwireProcess) -> None:
    account = await server.run("account", "create", "--name", "Clinic", "--email", "Ada@clinic.example", "--json")
    made = json.loads(account)
    assert set(made) == {"accountId", "apiKey", "memberId", "password"}
    arguments = ("--account", made["accountId"], "--email", "eve@clinic.example", "--role", "auditor", "--json")
    second = json.loads(await server.run("member", "create", *arguments))
    listed = json.loads(await server.run("member", "list", "--account", made["accountId"], "--json"))
    assert [(each["email"], each["role"]) for each in listed] == [
        ("ada@clinic.example", "owner"),
        ("eve@clinic.example", "auditor"),
    ]
    async with visiting(server) as client:
        assert await sign_in(client, "eve@clinic.example", second["password"]) == 303
        assert (await client.get("/console/audit")).status_code == 200
        new = (await server.run("member", "reset", "eve@clinic.example")).split()[-1]
        assert (await client.get("/console/audit")).status_code == 303  # open sessions end
        assert await sign_in(client, "eve@clinic.example", second["password"]) == 403
        assert await sign_in(client, "eve@clinic.example", new) == 303


def test_what_cannot_be_is_said_in_one_line(tmp_path: Path) -> None:
    folder = {"CHARTWIRE_DATA_DIR": str(tmp_path)}
    made = run_command("account", "create", "--name", "A", "--email", "a@b.example", "--json", **folder)
    account = ("--account", json.loads(made.stdout)["accountId"])
    new = ("--email", "c@d.example")
    for arguments, said in (
        (("member", "create", *account, "--email", "A@B.example"), "has that e-mail address already"),
        (("member", "create", *account, "--email", "nonsense"), "not an e-mail address"),
        (("member", "create", *account, *new, "--role", "king"), "owner, developer, viewer, auditor"),
        (("member", "create", "--account", "absent", *new), "Could not find account"),
        (("member", "reset", "nobody@b.example"), "Could not find a member"),
    ):
        done = run_command(*arguments, **folder)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done
        assert said in done.stderr


async def test_on_a_terminal_the_server_prints_the_link_that_sets_it_up(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    settings = environment({"CHARTWIRE_DATA_DIR": str(tmp_path / "data"), "COLUMNS": "200"})
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "serve", "--port", "0", env=settings, stdout=theirs, stderr=asyncio.subprocess.PIPE
    )
    os.close(theirs)
    try:
        link = await asyncio.to_thread(read_link, ours)
        async with http_client(headers=SAME_ORIGIN) as client:
            assert "Welcome" in (await client.get(link)).text
    finally:
        process.terminate()
        _, log = await process.communicate()
        os.close(ours)
    assert b"token=" not in log


def read_link(terminal: int) -> str:
    """What is printed up to the link."""
    printed = ""
    while (found := LINK.search(printed)) is None:
        printed += os.read(terminal, 4096).decode()
    return found[0]


async def test_the_server_ends_while_somebody_watches(server: ChartwireProcess) -> None:
    made = json.loads(
        await server.run("account", "create", "--name", "Clinic", "--email", "ada@clinic.example", "--json")
    )
    async with visiting(server) as client:
        assert await sign_in(client, "ada@clinic.example", made["password"]) == 303
        async with client.stream("GET", "/console/live") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            events = stream.aiter_lines()
            assert await anext(events) == "retry: 1000"
            assert await server.stop() == 0
            assert [line async for line in events if line.startswith("data:") and line != "data:"] == []  # a clean end


async def test_news_says_nothing_but_that_there_is_some(server: ChartwireProcess) -> None:
    made = json.loads(
        await server.run("account", "create", "--name", "Clinic", "--email", "ada@clinic.example", "--json")
    )
    async with visiting(server) as client:
        assert await sign_in(client, "ada@clinic.example", made["password"]) == 303
        async with client.stream("GET", "/console/live") as stream:
            events = stream.aiter_lines()
            first = [line async for line in until(events, "data:")]
            body = {"url": "https://app.example/hook"}
            key = {"x-api-key": made["apiKey"]}
            assert (await client.post("/v1/webhooks/endpoints", json=body, headers=key)).status_code == 201
            told = [line async for line in until(events, "data:")]
        assert first[-1] == told[-1] == "data:"
        assert {line.partition(":")[0] for line in told} <= {"id", "event", "data", ""}
        assert [line for line in told if line.startswith("event:")] == ["event: news"]


async def until(lines: AsyncIterator[str], last: str) -> AsyncIterator[str]:
    """Lines up to the one that begins with `last`."""
    async for line in lines:
        yield line
        if line.startswith(last):
            return


async def test_a_stream_needs_a_session(server: ChartwireProcess) -> None:
    async with visiting(server) as client:
        assert (await client.get("/console/live")).headers["location"] == "/console/sign-in"
