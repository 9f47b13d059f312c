"""The Medical API as tests call it: a client of one account, the usual creations, the error body."""

from typing import Any

import httpx
from tests.support.client import http_client
from tests.support.people import NPIS, facility_body, patient_body
from tests.support.server import Installation

STALE = "The eTag of the request does not match the current version: get the resource again and retry"


def medical(installation: Installation, key: str) -> httpx.AsyncClient:
    """A client of the account that `key` belongs to; paths begin after `/medical/v1`."""
    return http_client(base_url=f"{installation.base_url}/medical/v1", headers={"x-api-key": key})


async def create_facility(client: httpx.AsyncClient, npi: str = NPIS[0], **changes: Any) -> str:
    """A new facility's id."""
    return str((await client.post("/facility", json=facility_body(npi, **changes))).json()["id"])


async def create_patient(client: httpx.AsyncClient, facility_id: str, **changes: Any) -> httpx.Response:
    """The answer to creating Ana Roe, or somebody who differs from her in `changes`."""
    return await client.post("/patient", params={"facilityId": facility_id}, json=patient_body(**changes))


def assert_problem(response: httpx.Response, status: int, title: str, detail: str) -> None:
    """Assert that the answer is exactly this error."""
    name = {400: "Bad Request", 404: "Not Found", 412: "Precondition Failed"}[status]
    assert response.status_code == status
    assert response.json() == {"status": status, "title": title, "detail": detail, "name": name}
