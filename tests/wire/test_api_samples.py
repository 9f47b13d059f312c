"""Samples that a customer writes, from the API through the engine to a receiver and back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection
from tests.support.client import http_client
from tests.support.engine import make_settings
from tests.support.patience import PATIENCE_SECONDS
from tests.support.profile import make_tables
from tests.support.receiver import Answer, Receiver
from tests.support.server import running_app, running_installation

from chartwire.clock import system_clock
from chartwire.services import samples
from chartwire.store import registry
from chartwire.store.profile import run_once
from chartwire.wiring import start_installation

PATH = "/settings/webhook/sample-payload"
SAMPLE = {"meta": {"type": "medical.consolidated-data", "messageId": "mine"}, "patients": [{"patientId": "p1"}]}
RAW = b'{ "meta": {"type": "x", "n": 1.0, "e": 1E21}, "10": [], "9": {"b": null, "a": "\\u00e9\\/\\ud83e\\ude7a"} }'
AS_JAVASCRIPT_WRITES_IT = '{"9":{"b":null,"a":"é/🩺"},"10":[],"meta":{"type":"x","n":1,"e":1e+21}}'.encode()


@dataclass(frozen=True)
class App:
    """A customer's app: its calls, and its receiver."""

    client: httpx.AsyncClient
    receiver: Receiver

    async def send(self, body: Any = SAMPLE) -> httpx.Response:
        return await self.client.post(PATH, json=body)

    async def sent(self, body: Any = SAMPLE) -> Any:
        """The answer to a sample that was sent."""
        answer = await self.send(body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def get(self, path: str, **params: Any) -> Any:
        answer = await self.client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def of_settings(self) -> str:
        """The path of the endpoint of the settings."""
        endpoints = (await self.get("/v1/webhooks/endpoints"))["endpoints"]
        return "/v1/webhooks/endpoints/" + str(next(each["id"] for each in endpoints if each["isSettings"]))


@asynccontextmanager
async def running(folder: Path, **overrides: Any) -> AsyncIterator[App]:
    """A whole installation, whose one account has saved its URL and been pinged."""
    settings = make_settings(folder, [], **overrides)
    make_tables(settings.data_dir)
    key = run_once(settings.database, _create_key)
    async with (
        start_installation(settings, networks=[]) as app,
        running_app(lambda _: app) as base_url,
        Receiver() as receiver,
        http_client(base_url=base_url, headers={"x-api-key": key}) as client,
    ):
        saved = await client.post("/settings", json={"webhookUrl": receiver.url})
        receiver.webhook_key = saved.json()["webhookKey"]
        await receiver.wait_for(lambda it: bool(it.pings))
        yield App(client, receiver)


def _create_key(connection: Connection) -> str:
    account = registry.create_account(connection, "Clinic", system_clock())
    return registry.create_api_key(connection, account.id, "test", system_clock())[1]


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    async with running(tmp_path) as app:
        yield app


async def test_a_sample_is_posted_signed_and_its_answer_told(app: App) -> None:
    app.receiver.answers.append(Answer(202, b'{"seen": [1, 2.0]}'))
    told = await app.sent()
    (message,) = app.receiver.messages
    assert message.json == SAMPLE
    message.verify(str(app.receiver.webhook_key))
    assert message.headers["webhook-id"] == told.pop("messageId")
    assert told.pop("durationMillis") >= 0
    assert told == {
        "status": 202,
        "webhookResponse": {"seen": [1, 2.0]},
        "url": app.receiver.url,
        "outcome": "delivered",
    }


async def test_what_is_posted_is_what_javascript_would_write(app: App) -> None:
    answer = await app.client.post(PATH, content=RAW)
    assert answer.status_code == 200
    assert app.receiver.messages[-1].body == AS_JAVASCRIPT_WRITES_IT
    message_id = answer.json()["messageId"]
    kept = await app.client.get(f"/v1/webhooks/events/{message_id}/payload")
    assert kept.content == AS_JAVASCRIPT_WRITES_IT


DEEP = b"[" * 900 + b"]" * 900


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", b'""'),
        (b"thanks", b'"thanks"'),
        (b"\xff", '"\ufffd"'.encode()),
        (b"NaN", b'"NaN"'),
        (b"12345678901234567890123", b"12345678901234567890123"),
        (DEEP, DEEP),
        (b'"' + b"a" * 20_000 + b'"', b'"\\"' + b"a" * (16 * 1024 - 1) + b'"'),
    ],
    ids=["nothing", "text", "no text", "nearly JSON", "a huge number", "deep", "cut off"],
)
async def test_whatever_the_receiver_answers_is_passed_on(app: App, body: bytes, told: bytes) -> None:
    app.receiver.answers.append(Answer(200, body))
    answer = await app.send()
    assert answer.status_code == 200
    assert b'"webhookResponse":%s,' % told in answer.content


async def test_an_error_answer_is_told_and_not_asked_for_again(app: App) -> None:
    app.receiver.answers.append(Answer(500, b"no"))
    told = await app.sent()
    assert (told["status"], told["webhookResponse"], told["outcome"]) == (500, "no", "http_error")
    status = await app.get("/settings/webhook")
    assert (status["webhookRequestsProcessing"], status["webhookRequestsFailed"]) == (0, 0)
    assert (await app.client.post("/settings/webhook/retry")).text == "OK"
    assert (await app.sent())["status"] == 200
    assert len(app.receiver.messages) == 2


async def test_no_answer_is_told_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_MARGIN_SECONDS", PATIENCE_SECONDS)
    async with running(tmp_path, webhook_timeout_seconds=1) as app:
        app.receiver.answers.append(Answer(gate=asyncio.Event()))
        told = await app.sent()
        assert (told["status"], told["webhookResponse"], told["outcome"]) == (None, None, "timeout")
        assert told["durationMillis"] >= 900
    async with running(tmp_path / "other") as app:
        await app.receiver.__aexit__(None, None, None)
        told = await app.sent()
        assert (told["status"], told["webhookResponse"], told["outcome"]) == (None, None, "refused")
        assert told["url"] == app.receiver.url


async def test_a_sample_is_no_news_and_goes_nowhere_else(app: App) -> None:
    async with Receiver() as other:
        created = await app.client.post("/v1/webhooks/endpoints", json={"url": other.url})
        assert created.status_code == 201
        await other.wait_for(lambda it: bool(it.pings))
        await app.client.patch(await app.of_settings(), json={"eventTypes": ["medical.document-download"]})
        message_id = (await app.sent())["messageId"]
        assert len(app.receiver.messages) == 1
        assert not other.messages
    assert (await app.get("/v1/events"))["events"] == []
    assert (await app.get("/settings/webhook/request"))["requests"] == []
    listed = await app.get("/v1/webhooks/events", type="webhook.sample-payload")
    assert [each["id"] for each in listed["events"]] == [message_id]
    (delivery,) = (await app.get(f"/v1/webhooks/events/{message_id}"))["deliveries"]
    assert (delivery["type"], delivery["state"]) == ("webhook.sample-payload", "delivered")
    preview = await app.client.post("/v1/webhooks/replays/preview", json={})
    assert preview.json() == {"count": 0}


async def test_a_sample_gets_no_link_to_a_document_by_being_sent_again(app: App) -> None:
    forged = {"meta": {"type": "x"}, "patients": [{"documents": [{"id": "somebody's", "url": "x"}]}]}
    message_id = (await app.sent(forged))["messageId"]
    assert (await app.client.post(f"/settings/webhook/request/{message_id}/retry")).status_code == 409
    (delivery,) = (await app.get(f"/v1/webhooks/events/{message_id}"))["deliveries"]
    assert (await app.client.post(f"/v1/webhooks/deliveries/{delivery['id']}/resend")).status_code == 202
    await app.receiver.wait_for(lambda it: len(it.messages) == 2)
    assert [each.json for each in app.receiver.messages] == [forged, forged]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        b"{}",
        b'{"meta": null}',
        b'{"meta": "type"}',
        b'{"meta": []}',
        b'{"meta": {}}',
        b'{"meta": {"type": 7}}',
        b'{"meta": {"type": null}}',
        b'{"meta": {"type": "x"}',
        b'{"meta": {"type": "\\ud800"}}',
        b'{"meta": {"type": "x"}, "deep": ' + b"[" * 500 + b"]" * 500 + b"}",
    ],
    ids=repr,
)
async def test_what_is_no_message_is_refused(app: App, body: bytes) -> None:
    answer = await app.client.post(PATH, content=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["status"] == 400
    assert not app.receiver.messages
    assert len((await app.get("/v1/webhooks/events"))["events"]) == 1  # the ping


async def test_without_a_url_there_is_nowhere_to_send_it(app: App) -> None:
    await app.client.post("/settings", json={"webhookUrl": ""})
    answer = await app.send()
    assert (answer.status_code, answer.json()["title"]) == (400, "BadRequestError")
    assert "webhook URL is not set" in answer.json()["detail"]


async def test_a_disabled_endpoint_takes_no_sample(app: App) -> None:
    assert (await app.client.post(f"{await app.of_settings()}/disable")).status_code == 200
    assert (await app.send()).status_code == 409
    assert not app.receiver.messages


async def test_what_nobody_has_begun_to_send_in_time_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "_MARGIN_SECONDS", -14.9)
    async with running_installation(tmp_path) as installation:  # which delivers nothing
        headers = {"x-api-key": await installation.create_account()}
        async with http_client(base_url=installation.base_url, headers=headers) as client:
            await client.post("/settings", json={"webhookUrl": "https://receiver.example/hook"})
            answer = await client.post(PATH, json=SAMPLE)
            assert (answer.status_code, answer.json()["title"]) == (409, "ConflictError")
            assert answer.json()["detail"].startswith("Nothing was sent")
            listed = (await client.get("/v1/webhooks/deliveries", params={"state": "dropped"})).json()
            assert [each["type"] for each in listed["deliveries"]] == ["webhook.sample-payload"]
