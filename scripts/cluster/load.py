"""The load: an app that registers patients, asks for their documents, and has sample messages sent."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from tests.support.customer import patient_of

from chartwire.networks.sandbox.charts import CHARTS

_ADDRESS = {"addressLine1": "500 Market St", "city": "San Francisco", "state": "CA", "zip": "94104"}
_FACILITY = {"name": "Demo Clinic", "npi": "1234567893", "address": _ADDRESS}
_SAMPLE = {"type": "medical.document-download"}
_PAUSE_SECONDS = 0.1


class CallError(Exception):
    """An answer that is no success."""


@dataclass(slots=True)
class Asked:
    """What the app asked for and what it was promised in return."""

    acknowledged: list[str] = field(default_factory=list)
    """Ids of the messages that the API said it has."""
    unanswered: int = 0
    """Requests for a message whose answer never came: each may have been carried out, or not."""
    queries: dict[str, str] = field(default_factory=dict)
    """The id of the query of each patient, by the patient's id."""


class App:
    """Calls any of several APIs with one key: one that does not answer is passed over, as a load balancer would."""

    def __init__(self, session: aiohttp.ClientSession, apis: Sequence[str]) -> None:
        self.asked = Asked()
        self._session = session
        self._turns = itertools.cycle(apis)
        self._facility_id = ""

    async def set_up(self, receiver_url: str) -> str:
        """Save the webhook's URL, and make a facility; returns the webhook key."""
        self._facility_id = (await self._insist("POST", "/medical/v1/facility", _FACILITY))["id"]
        await self._insist("GET", "/settings")
        settings = await self._insist("POST", "/settings", {"webhookUrl": receiver_url})
        return str(settings["webhookKey"])

    async def add_patients(self, count: int) -> list[str]:
        """Register so many of the sandbox network's patients, as it knows them: documents that say that they are about
        somebody else would be held. Returns their ids."""
        path = f"/medical/v1/patient?facilityId={self._facility_id}"
        return [(await self._insist("POST", path, patient_of(chart.demographics)))["id"] for chart in CHARTS[:count]]

    async def ask_for_documents(self, patients: Sequence[str], seconds: float) -> None:
        """Start a query for each patient, spread over so many seconds."""
        for patient_id in patients:
            path = f"/medical/v1/document/query?patientId={patient_id}&facilityId={self._facility_id}"
            self.asked.queries[patient_id] = (await self._insist("POST", path))["requestId"]
            await asyncio.sleep(seconds / len(patients))

    async def send_samples(self, pause: float) -> None:
        """Ask for one message after the other, until cancelled."""
        (endpoint,) = (await self._insist("GET", "/v1/webhooks/endpoints"))["endpoints"]
        path = f"/v1/webhooks/endpoints/{endpoint['id']}/test"
        while True:
            try:
                self.asked.acknowledged.append((await self._call("POST", path, _SAMPLE))["messageId"])
            except aiohttp.ClientConnectorError:
                pass  # nobody listens: nothing was sent
            except aiohttp.ClientError:
                self.asked.unanswered += 1
            await asyncio.sleep(pause)

    async def documents_of(self, patient_id: str) -> dict[str, Any]:
        """How the patient's query went."""
        answer = await self._insist("GET", f"/medical/v1/document/query?patientId={patient_id}")
        return dict(answer["download"])

    async def _insist(self, method: str, path: str, body: Any = None) -> Any:
        """A call that is made again until it is answered."""
        while True:
            try:
                return await self._call(method, path, body)
            except aiohttp.ClientError:
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        async with self._session.request(method, next(self._turns) + path, json=body) as answer:
            if not answer.ok:
                raise CallError(f"{method} {path.partition('?')[0]} was answered with {answer.status}")
            return await answer.json()
