"""What happens in the demo, in order. Nothing here is special: every call is one that your app can make."""

import asyncio
import os
import shutil
import signal
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console

from chartwire import __version__
from chartwire.demo.api import Api, open_api
from chartwire.demo.installation import DemoError, run_installation
from chartwire.demo.receiver import Received, Receiver, run_receiver
from chartwire.demo.show import Show, Timeline

_DEADLINE_SECONDS = 180
_LOOK_SECONDS = 0.1
_LOG_LINES = 5

_ADDRESS = {"addressLine1": "500 Market St", "city": "San Francisco", "state": "CA", "zip": "94104"}
_ORGANIZATION = {"name": "Demo Clinic", "type": "ambulatory", "location": _ADDRESS}
_FACILITY = {"name": "Demo Clinic, Market Street", "npi": "1234567893", "address": _ADDRESS}
_PATIENT = {  # one of the sandbox network's five invented patients
    "firstName": "Jane",
    "lastName": "Smith",
    "dob": "1996-02-10",
    "genderAtBirth": "F",
    "address": [{"addressLine1": "123 Arsenal St", "city": "Phoenix", "state": "AZ", "zip": "85300"}],
}

_NEXT_STEPS = (
    ("make serve", "a Chartwire that stays: http://127.0.0.1:8080, data in ./data"),
    ('.venv/bin/chartwire account create --name "My clinic"', "an API key"),
    ("curl -H 'x-api-key: KEY' http://127.0.0.1:8080/settings", "your first call"),
    ("http://127.0.0.1:8080/console", "the console; `make serve` prints the link that sets it up"),
    ("http://127.0.0.1:8080/docs", "every call there is"),
    ("docs/tutorial/first-webhook.md", "a receiver of your own in ten minutes"),
    ("docs/how-to/connect-a-fhir-server.md", "your documents, not invented ones"),
)


@dataclass(slots=True)
class _Outcome:
    """What came of the query that began at `started` (monotonic clock)."""

    started: float
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    messages: list[Received] = field(default_factory=list)
    stored: int = 0
    status: str = ""
    """How the query ended, once the closing message has come."""

    @property
    def is_over(self) -> bool:
        """Messages may overtake each other: the closing one need not be the last."""
        return bool(self.status) and len(self.documents) >= self.stored

    @property
    def seconds(self) -> float:
        """From the beginning to the last message."""
        return self.messages[-1].at - self.started


async def run_demo(console: Console, *, keep: bool) -> int:
    """Show the main job; returns the exit status: 0 if all of it happened within three minutes, else 1.

    The data is removed at the end, unless it is to be kept.
    """
    # Told to end, it stops what it started, as it does upon Ctrl-C.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os.kill, os.getpid(), signal.SIGINT)
    show = Show(console)
    folder = Path(tempfile.mkdtemp(prefix="chartwire-demo-"))
    try:
        async with asyncio.timeout(_DEADLINE_SECONDS):
            await _tell(show, folder)
    except TimeoutError:
        return _fail(show, folder, f"it was not over after {_DEADLINE_SECONDS} seconds")
    except (DemoError, aiohttp.ClientError) as error:
        return _fail(show, folder, str(error))
    finally:
        if keep:
            show.note(f"The data is kept in {folder}")
        else:
            shutil.rmtree(folder)
    return 0


def _fail(show: Show, folder: Path, message: str) -> int:
    log = folder / "chartwire.log"
    show.failure(message, log.read_text().splitlines()[-_LOG_LINES:] if log.exists() else [])
    return 1


async def _tell(show: Show, folder: Path) -> None:
    show.title()
    show.chapter(1, "Start")
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(run_receiver())
        with show.waiting("starting Chartwire"):
            installation = await stack.enter_async_context(run_installation(folder))
        show.step("Chartwire", installation.base_url, f"version {__version__}")
        show.step("its data", str(folder))
        show.step("your app", receiver.url, "played by this demo")
        show.chapter(2, "Set up")
        with show.waiting("making an account"):
            _, api_key = await installation.create_account("Demo Clinic")
        show.step("account", 'chartwire account create --name "Demo Clinic"', "gives an API key")
        async with open_api(installation.base_url, api_key) as api:
            patient_id, facility_id = await _register(show, api)
            webhook_key = await _save_webhook_url(show, api, receiver)
            outcome = await _ask(show, api, receiver, webhook_key, patient_id, facility_id)
            await _look_at_one(show, api, outcome)
    show.chapter(6, "What to try next")
    show.next_steps(_NEXT_STEPS)
    show.end(
        f"{len(outcome.documents)} documents announced in {len(outcome.messages)} signed messages; "
        f"the query was over after {outcome.seconds:.1f} s"
    )


async def _register(show: Show, api: Api) -> tuple[str, str]:
    """Say who asks, where, and for whom."""
    organization = await api.post("/medical/v1/organization", _ORGANIZATION)
    show.step("organization", "POST /medical/v1/organization", organization["name"])
    facility = await api.post("/medical/v1/facility", _FACILITY)
    show.step("facility", "POST /medical/v1/facility", facility["name"])
    patient = await api.post("/medical/v1/patient", _PATIENT, facilityId=facility["id"])
    show.step("patient", "POST /medical/v1/patient?facilityId=…", f"{patient['firstName']} {patient['lastName']}")
    return patient["id"], facility["id"]


async def _save_webhook_url(show: Show, api: Api, receiver: Receiver) -> str:
    """Say where messages go; returns the key that they are signed with."""
    settings = await api.post("/settings", {"webhookUrl": receiver.url})
    webhook_key: str = settings["webhookKey"]
    show.step("webhook URL", "POST /settings", "answered with the webhook key")
    ping = await receiver.received.get()
    if not ping.verified(webhook_key) or "ping" not in ping.message:
        raise DemoError("the first message is not a ping with two right signatures")
    await _until_enabled(api)
    show.step("ping, pong", "your app answered: the webhook is enabled", "signatures verified")
    return webhook_key


async def _until_enabled(api: Api) -> None:
    """The pong has been sent; Chartwire has yet to write down that it came."""
    while True:
        status = await api.get("/settings/webhook")
        if status["webhookEnabled"]:
            return
        await asyncio.sleep(_LOOK_SECONDS)


async def _ask(
    show: Show, api: Api, receiver: Receiver, webhook_key: str, patient_id: str, facility_id: str
) -> _Outcome:
    """Start the query, then watch documents arrive until the closing message."""
    show.chapter(3, "Ask once, receive each document as soon as it is there")
    outcome = _Outcome(time.monotonic())
    with show.timeline() as timeline:
        query = await api.post("/medical/v1/document/query", patientId=patient_id, facilityId=facility_id)
        asked = f"POST /medical/v1/document/query?patientId=… is {_download(query)['status']}"
        timeline.event(time.monotonic() - outcome.started, "asked", asked)
        while not outcome.is_over:
            received = await _next(receiver)
            now = received.at if received else time.monotonic()
            download = _download(await api.get("/medical/v1/document/query", patientId=patient_id))
            outcome.stored = download.get("successful", 0)
            timeline.stored(now - outcome.started, outcome.stored, download.get("total", 0))
            if received:
                _take(timeline, outcome, received, webhook_key)
        timeline.closed(outcome.seconds, outcome.status)
    return outcome


def _download(query: dict[str, Any]) -> dict[str, Any]:
    progress: dict[str, Any] = query["download"]
    return progress


async def _next(receiver: Receiver) -> Received | None:
    """The next message, or None after a moment without one."""
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            return await receiver.received.get()
    except TimeoutError:
        return None


def _take(timeline: Timeline, outcome: _Outcome, received: Received, webhook_key: str) -> None:
    if not received.verified(webhook_key):
        raise DemoError("a message came whose signatures are wrong")
    outcome.messages.append(received)
    for patient in received.message["patients"]:
        for document in patient["documents"]:
            timeline.received(received.at - outcome.started, document)
            outcome.documents[document["id"]] = document
        if not patient["documents"]:  # the closing message tells how the query ended
            outcome.status = patient["status"]


async def _look_at_one(show: Show, api: Api, outcome: _Outcome) -> None:
    """Fetch a document by the link in its message, and show the message."""
    if not outcome.documents:
        raise DemoError("the query ended without a document")
    show.chapter(4, "Fetch a document by its location, with the API key")
    chosen = next((each for each in outcome.documents.values() if "xml" in each["mimeType"]), None)
    chosen = chosen or next(iter(outcome.documents.values()))
    media_type, body = await api.fetch(chosen["location"])
    if len(body) != int(chosen["size"]):
        raise DemoError("a document has not the size that its message told")
    show.document(chosen["location"], media_type, body)
    show.chapter(5, "One of the messages, as your app received it")
    show.message(outcome.messages[0].headers, outcome.messages[0].message)
