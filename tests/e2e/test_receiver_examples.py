"""The receivers that the documentation shows, started for real and posted to: genuine messages, and others."""

import asyncio
import os
import re
import shutil
import sqlite3
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import orjson
import pytest
from tests.support.client import http_client
from tests.support.node_clients import installed_clients
from tests.support.ports import free_port
from tests.support.posting import BODY, KEY, POLICY, a_delivery, a_poster

from chartwire.clock import system_clock
from chartwire.delivery.headers import headers_of
from chartwire.delivery.signing import sign
from chartwire.model.message import Meta, ping_message
from chartwire.model.signing_key import SigningKey
from chartwire.model.webhook import EventType, Outcome, SignatureScheme

pytestmark = pytest.mark.embedded


REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "docs" / "examples"
OTHER = SigningKey("another-key-another-key-another-", KEY.seed, KEY.created_at)
LANGUAGES = {"fastapi_receiver.py": "python", "express-receiver.js": "js", "verify.sh": "sh", "post-signed.sh": "sh"}


def now() -> int:
    return int(system_clock().timestamp())


def signed(
    body: bytes = BODY, message_id: str = "m1", at: int | None = None, keys: Sequence[SigningKey] = (KEY,)
) -> dict[str, str]:
    lines = sign(SignatureScheme.V1, keys, message_id, now() if at is None else at, body)
    return {"content-type": "application/json", **headers_of(lines)}


def test_the_page_shows_the_very_files() -> None:
    page = (REPOSITORY / "docs" / "how-to" / "receive-webhooks.md").read_text()
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == set(LANGUAGES)
    for name, language in LANGUAGES.items():
        assert f"```{language}\n{(EXAMPLES / name).read_text()}```\n" in page


# --- the receivers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Example:
    """A receiver that runs; `client` posts to it, `folder` is where it keeps what it took."""

    client: httpx.AsyncClient
    folder: Path

    @property
    def url(self) -> str:
        return str(self.client.base_url).rstrip("/") + "/webhook"

    async def post(self, headers: dict[str, str], body: bytes = BODY) -> int:
        return (await self.client.post("/webhook", headers=headers, content=body)).status_code

    def kept(self) -> list[str]:
        """Ids of the messages that it keeps."""
        database = self.folder / "messages.db"
        if not database.exists():
            return sorted(path.stem for path in self.folder.glob("*.json"))
        with closing(sqlite3.connect(database)) as connection:
            return [row[0] for row in connection.execute("SELECT id FROM message ORDER BY id")]


@asynccontextmanager
async def running(command: Sequence[str], env: dict[str, str], ready: str) -> AsyncIterator[str]:
    """Start a receiver; gives the line in which it says, on either stream, that it is ready."""
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **env}, stdout=PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while ready not in (line := (await process.stdout.readline()).decode()):
                assert line, "the receiver has ended"
        yield line
    finally:
        process.terminate()
        await process.communicate()


@pytest.fixture(params=["fastapi", "express"])
async def example(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Example]:
    env = {"WEBHOOK_KEY": KEY.webhook_key}
    if request.param == "fastapi":
        port = str(free_port())
        env["MESSAGES"] = str(tmp_path / "messages.db")
        command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "fastapi_receiver:app", "--port", port]
        ready = "running on"
    else:
        root = await asyncio.to_thread(installed_clients)
        env |= {"MESSAGES": str(tmp_path), "PORT": "0", "NODE_PATH": str(root / "node_modules")}
        command, ready = ["node", str(EXAMPLES / "express-receiver.js")], "listening on"
    async with running(command, env, ready) as line:
        (found,) = re.findall(r"listening on (\d+)|:(\d+) ", line)
        async with http_client(base_url=f"http://127.0.0.1:{''.join(found)}") as client:
            yield Example(client, tmp_path)


async def test_a_receiver_takes_what_is_genuine_once_and_nothing_else(example: Example) -> None:
    assert await example.post(signed()) == 200
    assert await example.post(signed(at=now() - 200)) == 200  # the same one, a little late
    assert await example.post(signed(message_id="m2", keys=(OTHER, KEY))) == 200  # after a rotation
    assert example.kept() == ["m1", "m2"]

    assert await example.post(signed(message_id="m3", keys=(OTHER,))) == 401
    assert await example.post(signed(message_id="m3", at=now() - 400)) == 401
    assert await example.post(signed(message_id="m3", at=now() + 400)) == 401
    assert await example.post(signed(message_id="m3"), BODY + b" ") == 401
    assert await example.post({**signed(message_id="m3"), "webhook-id": "m4"}) == 401
    assert await example.post({**signed(message_id="m3"), "webhook-timestamp": "soon"}) == 401
    assert await example.post({**signed(message_id="m3"), "webhook-signature": "v1, v2,x"}) == 401
    assert await example.post({"content-type": "application/json"}) == 401
    assert await example.post({}) == 401
    assert example.kept() == ["m1", "m2"]


async def test_what_chartwire_posts_is_taken(example: Example) -> None:
    ping = ping_message("p" * 21, Meta("m1", system_clock(), EventType.PING))
    patiently = replace(POLICY, timeout=60, ping_timeout=60)  # how soon they answer is the machine's to say
    async with a_poster(policy=patiently) as poster:
        message = await poster.attempt(a_delivery(example.url))
        answered = await poster.attempt(a_delivery(example.url, ping, EventType.PING))
    assert (message.outcome, answered.outcome) == (Outcome.DELIVERED, Outcome.DELIVERED)
    assert orjson.loads(answered.answer) == {"pong": "p" * 21}
    assert len(example.kept()) == 1  # a ping is not kept


# --- curl and openssl -------------------------------------------------------------------------------------------------


async def run_script(name: str, *arguments: str, env: dict[str, str], given: bytes = b"") -> tuple[int | None, str]:
    """Exit status, and what was printed, of a script."""
    if shutil.which("openssl") is None or shutil.which("curl") is None:
        pytest.skip("needs openssl and curl: install them from your system's packages")
    command = ("sh", str(EXAMPLES / name), *arguments)
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, "WEBHOOK_KEY": KEY.webhook_key, **env}, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    printed, complaint = await process.communicate(given)
    return process.returncode, (printed + complaint).decode().strip()


@pytest.mark.parametrize(
    ("keys", "age", "body", "expected"),
    [
        ((KEY,), 0, BODY, (0, "genuine")),
        ((OTHER, KEY), 200, BODY, (0, "genuine")),
        ((OTHER,), 0, BODY, (1, "the signature does not fit")),
        ((KEY,), 0, BODY + b"\n", (1, "the signature does not fit")),
        ((KEY,), 400, BODY, (1, "not of these five minutes")),
        ((KEY,), -400, BODY, (1, "not of these five minutes")),
    ],
)
async def test_openssl_verifies(keys: Sequence[SigningKey], age: int, body: bytes, expected: tuple[int, str]) -> None:
    headers = signed(at=now() - age, keys=keys)
    env = {name.upper().replace("-", "_"): value for name, value in headers.items() if name.startswith("webhook-")}
    assert await run_script("verify.sh", given=body, env=env) == expected


async def test_curl_posts_what_receivers_take(example: Example, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(BODY)
    late = {"WEBHOOK_ID": "m2", "WEBHOOK_TIMESTAMP": str(now() - 400)}
    for env, status in (
        ({"WEBHOOK_ID": "m1"}, "200"),
        ({"WEBHOOK_ID": "m1"}, "200"),
        (late, "401"),
        ({"WEBHOOK_KEY": "guessed"}, "401"),
    ):
        _, printed = await run_script("post-signed.sh", example.url, str(body), env=env)
        assert printed.endswith(status)
    assert example.kept() == ["m1"]
