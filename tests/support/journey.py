"""What an app does with Chartwire over its HTTP API, from a facility to a document query."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from chartwire.model.registry import Demographics

_PATIENCE_SECONDS = 60
_POLL_SECONDS = 0.02
ADDRESS = {"addressLine1": "1 Elm St", "city": "Ukiah", "state": "CA", "zip": "95482", "country": "USA"}


class Journey:
    """Calls with one API key. Every call must succeed."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self.webhook_key = ""

    async def call(self, method: str, path: str, body: Any = None, **params: str) -> Any:
        """The parsed answer of a call under `/medical/v1`, or elsewhere if `path` begins with `/`."""
        url = path if path.startswith("/") else f"/medical/v1/{path}"
        async with self._session.request(method, url, json=body, params=params) as answer:
            assert answer.status < 300, f"{method} {path}: {answer.status} {await answer.text()}"
            return await answer.json()

    async def save_webhook(self, url: str) -> str:
        """Save the receiver's URL; returns the webhook key."""
        await self.call("GET", "/settings")
        settings = await self.call("POST", "/settings", {"webhookUrl": url})
        self.webhook_key = settings["webhookKey"]
        return self.webhook_key

    async def add_facility(self, npi: str = "1234567893") -> str:
        """A facility's id."""
        facility = await self.call("POST", "facility", {"name": "Clinic", "npi": npi, "address": ADDRESS})
        return str(facility["id"])

    async def add_patient(self, facility_id: str, who: Demographics) -> str:
        """A patient's id."""
        body = {
            "firstName": who.first_name,
            "lastName": who.last_name,
            "dob": who.dob.isoformat(),
            "genderAtBirth": who.gender_at_birth.value,
            "personalIdentifiers": [],
            "address": [
                {"addressLine1": each.address_line1, "city": each.city, "state": each.state, "zip": each.zip}
                for each in who.address
            ],
        }
        return str((await self.call("POST", "patient", body, facilityId=facility_id))["id"])

    async def start_query(self, patient_id: str, facility_id: str) -> str:
        """Start a document query; returns its request id."""
        progress = await self.call("POST", "document/query", patientId=patient_id, facilityId=facility_id)
        return str(progress["requestId"])

    async def until_settled(self, within: float = _PATIENCE_SECONDS) -> None:
        """Return once nothing waits: all that was told by now has been received, and its answers are written down.

        Messages overtake each other, so one that has come in says nothing of those that were written before it.
        """
        async with asyncio.timeout(within):
            while (await self.call("GET", "/v1/webhooks/deliveries", state="waiting"))["deliveries"]:  # noqa: ASYNC110  as an app
                await asyncio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def journey(base_url: str, api_key: str) -> AsyncIterator[Journey]:
    """A journey with an API key."""
    async with aiohttp.ClientSession(base_url=base_url, headers={"x-api-key": api_key}) as session:
        yield Journey(session)
