"""What `chartwire listen`, `replay` and `trigger` do, over the same API that every customer has."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, get_args

import aiohttp
import orjson

from chartwire import __version__, ids
from chartwire.clock import Clock
from chartwire.delivery.headers import headers_of
from chartwire.delivery.signing import sign
from chartwire.errors import ChartwireError
from chartwire.model.signing_key import SEED_BYTES, WEBHOOK_KEY_LENGTH, SigningKey
from chartwire.model.webhook import MessageType, PayloadVersion, SignatureScheme

_WAIT_SECONDS = 30
_FORWARD_SECONDS = 15
_PAUSE_SECONDS = 1.0
_REFUSED = 400
_EVERY_TYPE = get_args(MessageType)  # pings are told only to who names them

Say = Callable[[str], None]


class ApiError(ChartwireError):
    """The API refused a call, or cannot be reached."""


@dataclass(frozen=True, slots=True)
class Forwarding:
    """Where events go, and how they are signed."""

    url: str
    key: SigningKey
    send_key: bool


class Api:
    """Calls with an account's key; what is not a success raises `ApiError`."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The JSON of the answer."""
        try:
            async with self._session.request(method, path, json=body, params=query) as answer:
                if answer.status >= _REFUSED:
                    raise ApiError(_refusal(answer.status, await answer.text()))
                return await answer.json()
        except (aiohttp.ClientConnectionError, TimeoutError):
            raise ApiError("the server cannot be reached: give its --url") from None

    async def settings_endpoint(self) -> Any:
        """The endpoint that `/settings` shows."""
        endpoints = (await self.call("GET", "/v1/webhooks/endpoints"))["endpoints"]
        return next(endpoint for endpoint in endpoints if endpoint["isSettings"])


def _refusal(status: int, text: str) -> str:
    """What a problem says, in one line for whoever typed the command."""
    if status == HTTPStatus.FORBIDDEN:
        return "the server does not know this API key: give another --api-key"
    try:
        problem = orjson.loads(text)
        return f"{problem['detail']} ({status})"
    except (ValueError, KeyError, TypeError):
        return f"the server answered {status} {HTTPStatus(status).phrase}: is it Chartwire? see --url"


@asynccontextmanager
async def open_api(url: str, api_key: str) -> AsyncIterator[Api]:
    """Calls to the server at `url`."""
    timeout = aiohttp.ClientTimeout(total=2 * _WAIT_SECONDS)
    async with aiohttp.ClientSession(url, headers={"x-api-key": api_key}, timeout=timeout) as session:
        yield Api(session)


async def listen(api: Api, url: str, types: Sequence[str], clock: Clock, say: Say) -> None:
    """Post each event from now on to `url`, signed, and tell how it was answered; until cancelled."""
    forwarding = await _forwarding(api, url, clock)
    cursor = (await api.call("GET", "/v1/events", after="end"))["cursor"]
    say(f"forwarding to {url}, signed with the key {forwarding.key.webhook_key}")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_FORWARD_SECONDS)) as session:
        while True:
            page = await _next_page(api, cursor, types, say)
            for event in page["events"]:
                if "payload" in event:
                    say(f"{event['type']}  {event['id']}  {await _forward(session, forwarding, event, clock)}")
            cursor = page["cursor"]


async def replay(api: Api, chosen: Mapping[str, Any], say: Say) -> None:
    """Send again everything that is chosen, and tell how far it is until it is done."""
    found = await api.call("POST", "/v1/webhooks/replays", body=chosen)
    said = None
    while True:
        if found["replayed"] != said:
            said = found["replayed"]
            say(f"{said} of {found['total']}")
        if found["state"] != "running":
            say(found["state"])
            return
        await asyncio.sleep(_PAUSE_SECONDS)
        found = await api.call("GET", f"/v1/webhooks/replays/{found['id']}")


async def count_replay(api: Api, chosen: Mapping[str, Any]) -> int:
    """How many deliveries a replay would send again."""
    return int((await api.call("POST", "/v1/webhooks/replays/preview", body=chosen))["count"])


async def trigger(api: Api, event_type: str, endpoint_id: str | None) -> str:
    """Send a sample to an endpoint, that of `/settings` if none is named; returns the message's id."""
    target = endpoint_id or (await api.settings_endpoint())["id"]
    answer = await api.call("POST", f"/v1/webhooks/endpoints/{target}/test", body={"type": event_type})
    return str(answer["messageId"])


async def _forwarding(api: Api, url: str, clock: Clock) -> Forwarding:
    """Signed as the endpoint of `/settings` is; one without a URL has no key, and gets one for this session."""
    endpoint = await api.settings_endpoint()
    keys = (await api.call("GET", f"/v1/webhooks/endpoints/{endpoint['id']}/keys"))["keys"]
    key = keys[0]["webhookKey"] if keys else ids.url_safe(WEBHOOK_KEY_LENGTH)
    send_key = endpoint["sendWebhookKey"] and endpoint["payloadVersion"] == PayloadVersion.V2023_04
    return Forwarding(url, SigningKey(key, bytes(SEED_BYTES), clock()), send_key)


async def _next_page(api: Api, cursor: str, types: Sequence[str], say: Say) -> Any:
    """The next events; a server that is away is asked again until it is back."""
    while True:
        try:
            return await api.call(
                "GET", "/v1/events", after=cursor, wait=_WAIT_SECONDS, types=list(types or _EVERY_TYPE)
            )
        except ApiError as error:
            say(f"{error}; trying again")
            await asyncio.sleep(_PAUSE_SECONDS)


async def _forward(session: aiohttp.ClientSession, to: Forwarding, event: Any, clock: Clock) -> str:
    body, now = event["payload"].encode(), clock()
    headers = {
        "content-type": "application/json",
        "user-agent": f"Chartwire/{__version__}",
        **headers_of(sign(SignatureScheme.V1, [to.key], event["id"], int(now.timestamp()), body)),
        **({"x-webhook-key": to.key.webhook_key} if to.send_key else {}),
    }
    started = asyncio.get_running_loop().time()
    try:
        async with session.post(to.url, data=body, headers=headers, allow_redirects=False) as answer:
            await answer.read()
            milliseconds = round((asyncio.get_running_loop().time() - started) * 1000)
            return f"{answer.status} in {milliseconds} ms"
    except aiohttp.ClientConnectionError:
        return "no connection"
    except TimeoutError:
        return f"no answer in {_FORWARD_SECONDS} s"
    except aiohttp.ClientError:
        return "no valid answer"
