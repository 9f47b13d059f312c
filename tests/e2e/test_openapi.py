"""The server answers nothing that its OpenAPI document does not say, whatever it is asked."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families
from tests.support.customer import JANE, SANDBOX, Customer, patient_of, settle, subscription_for
from tests.support.journey import journey
from tests.support.people import NPIS
from tests.support.process import ChartwireProcess
from tests.support.receiver import Receiver

from chartwire.services.access import SCOPES

pytestmark = [pytest.mark.embedded, pytest.mark.asyncio(loop_scope="module")]

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
EXAMPLES_EACH = 12
SHARE_OF_REAL_VALUES = 0.8


LEFT_TO_CHANCE = {("DELETE", "/medical/v1/facility/{facility_id}")}
"""A facility that has patients cannot be deleted, and schemathesis gives ids that it has met in answers to other
requests: some of them put patients into the one that is meant to go."""


@dataclass(frozen=True)
class Scene:
    """A server with a customer, and what its things are called."""

    server: ChartwireProcess
    customer: Customer
    values: Mapping[str, Sequence[str]]
    """Values that reach deep, by the place where schemathesis is to put them."""
    condemned: Mapping[str, Sequence[str]]
    """The same for deletions: things that nothing else needs."""
    reserved: Mapping[str, Mapping[str, Sequence[str]]]
    """The same for single routes: things that no other request takes away."""
    forms: Mapping[str, Mapping[str, str]]
    """Values by place and route: a request that lacks one of them is refused whatever else it holds."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("openapi")
    async with Receiver() as receiver, ChartwireProcess(folder / "data", SANDBOX) as server:
        customer = await settle(server, receiver, "Clinic")
        condemned = await _condemn(server, receiver, customer)
        spare, steady, delivery_id = await _add_endpoints(server, receiver, customer)
        values = {**_values_of(customer, receiver), "path.endpoint_id": [spare]}
        forms = await _add_match(server, customer) | _forms_of(customer, receiver)
        yield Scene(server, customer, values, condemned, _reserve(steady, delivery_id), forms)


async def _condemn(server: ChartwireProcess, receiver: Receiver, customer: Customer) -> dict[str, list[str]]:
    """A facility, a patient, an endpoint, a subscription and a message that may go."""
    async with journey(server.base_url, customer.api_key) as app:
        facility_id = await app.add_facility(NPIS[1])
        body = {**patient_of(JANE), "firstName": "Ephemeral", "dob": "1970-01-01"}
        endpoint = await app.call("POST", "/v1/webhooks/endpoints", {"url": receiver.url})
        subscription = await app.call(
            "POST", "/oauth/fhir/Subscription", subscription_for(server.base_url, receiver.url)
        )
        patient = await app.call("POST", "patient", body, facilityId=customer.facility_id)
    return {
        "path.facility_id": [facility_id],
        "path.patient_id": [patient["id"]],
        "path.event_id": [receiver.pings[0].message_id],
        "path.subscription_id": [subscription["id"]],
        "path.endpoint_id": [endpoint["id"]],
    }


async def _add_endpoints(server: ChartwireProcess, receiver: Receiver, customer: Customer) -> tuple[str, str, str]:
    """An endpoint for every request, one that stays as it is, and a settled delivery to that one.

    The endpoint of the settings has neither to do with: what is posted to it must not depend on chance.
    """
    async with journey(server.base_url, customer.api_key) as app:
        spare, steady = [
            str((await app.call("POST", "/v1/webhooks/endpoints", {"url": receiver.url}))["id"]) for _ in range(2)
        ]
        delivered: list[Any] = []
        async with asyncio.timeout(60):
            while not delivered:
                answer = await app.call("GET", "/v1/webhooks/deliveries", endpointId=steady, state="delivered")
                delivered = answer["deliveries"]
    return spare, steady, str(delivered[0]["id"])


async def _add_match(server: ChartwireProcess, customer: Customer) -> dict[str, dict[str, str]]:
    """A patient who is found by what a form holds; nobody else's request is about them."""
    person = {"firstName": "Constance", "lastName": "Ibsen", "dob": "1961-07-08", "genderAtBirth": "F"}
    home = {"addressLine1": "7 Elm St", "city": "Ukiah", "state": "CA", "zip": "95482"}
    async with journey(server.base_url, customer.api_key) as app:
        await app.call("POST", "patient", {**person, "address": [home]}, facilityId=customer.facility_id)
    of_home = {f"body.{place}.{name}": value for place in ("address", "address[*]") for name, value in home.items()}
    return {"POST /medical/v1/patient/match": {f"body.{name}": value for name, value in person.items()} | of_home}


def _reserve(endpoint_id: str, delivery_id: str) -> dict[str, dict[str, list[str]]]:
    actions = ("keys/rotate", "ping", "test", "enable")
    of_endpoint = {f"POST /v1/webhooks/endpoints/{{endpoint_id}}/{action}": endpoint_id for action in actions}
    return {
        **{route: {"path.endpoint_id": [value]} for route, value in of_endpoint.items()},
        "POST /v1/webhooks/deliveries/{delivery_id}/resend": {"path.delivery_id": [delivery_id]},
    }


def _values_of(customer: Customer, receiver: Receiver) -> dict[str, list[str]]:
    link = urlsplit(customer.download_url)
    signed = parse_qs(link.query)
    documents = [str(each["id"]) for each in customer.documents]
    return {
        "path.organization_id": [customer.organization_id],
        "path.facility_id": [customer.facility_id],
        "path.patient_id": [customer.patient_id],
        "path.document_id": [customer.document_id],
        "path.subscription_id": [customer.subscription_id],
        "path.event_id": [customer.event_id],
        "path.delivery_id": [customer.delivery_id],
        "header.if-match": ["*"],
        "query.id": [customer.subscription_id],
        "query.eventsSinceNumber": ["1", "3"],
        "query.content": ["empty", "id-only", "full-resource"],
        "query.patientId": [customer.patient_id],
        "query.facilityId": [customer.facility_id],
        "query.fromItem": [customer.patient_id],
        "query.toItem": [customer.patient_id],
        "query.filters": ["jane", '"jane smith"', "-nobody", customer.external_id],
        "query.externalId": [customer.external_id],
        "query.fileName": [str(each["fileName"]) for each in customer.documents],
        "query.dateFrom": ["1990-01-01"],
        "query.dateTo": ["2100-12-31"],
        "query.signature": signed["signature"],
        "query.expires": signed["expires"],
        "query.patient": [customer.patient_id, f"Patient/{customer.patient_id}"],
        "query._id": documents,
        "query.identifier": [f"urn:uuid:{each}" for each in documents],
        "query._count": ["0", "1", "3"],
        "query.date": ["ge1990", "lt2100-01-01"],
        "query.status": ["current", "current,superseded"],
        "body.meta.type": ["medical.consolidated-data", ""],
        "body.npi": list(NPIS),
        "body.dob": [JANE.dob.isoformat(), "1950-12-31"],
        "body.lastName": [JANE.last_name, "Zoë O'Neill"],
        "body.facilityIds[*]": [customer.facility_id],
        "body.webhookUrl": [receiver.url],
        "body.url": [receiver.url],
        "body.id": [customer.subscription_id],
        "body.criteria": [customer.topic],
        "body.channel.endpoint": [receiver.url],
        **{f"body.{place}.zip": ["85007", "95482"] for place in ("address", "address[*]", "location")},
        **{f"body.{place}.state": ["AZ", "ca"] for place in ("address", "address[*]", "location")},
        **{f"body.{place}.phone": ["6025550142"] for place in ("contact", "contact[*]")},
        **{f"body.{place}.email": ["jane@example.com"] for place in ("contact", "contact[*]")},
        "body.personalIdentifiers[*].state": ["AZ"],
    }


def _forms_of(customer: Customer, receiver: Receiver) -> dict[str, dict[str, str]]:
    link = {"query.type": "original"}
    return {
        "GET /download/{document_id}": link,
        "HEAD /download/{document_id}": link,
        "POST /settings": {"body.webhookUrl": receiver.url},
        "POST /oauth/fhir/DocumentReference/_search": {"body.patient": customer.patient_id},
        "POST /oauth/token": {
            "body.grant_type": "client_credentials",
            "body.client_id": customer.account_id,
            "body.client_secret": customer.api_key,
            "body.scope": SCOPES[0],
        },
    }


async def test_every_boundary_of_every_route(scene: Scene, tmp_path: Path) -> None:
    """Each parameter and member at its limits, just over them, of other types, left out; each method."""
    await _run_schemathesis(scene, tmp_path, "examples,coverage", "")


async def test_good_and_bad_requests_by_the_hundred(scene: Scene, tmp_path: Path) -> None:
    """Chance, within the schema and against it, mostly with ids that exist and values that pass the rules."""
    await _run_schemathesis(scene, tmp_path, "fuzzing", _configuration(scene))
    assert await _routes_without_success(scene.server) <= LEFT_TO_CHANCE


async def _routes_without_success(server: ChartwireProcess) -> set[tuple[str, str]]:
    """The routes of the OpenAPI document that have refused everything so far, as the server's own metrics tell."""
    async with aiohttp.ClientSession(base_url=server.base_url) as session:
        async with session.get("/openapi.json") as answer:
            paths = (await answer.json())["paths"]
        async with session.get("/metrics") as answer:
            families = list(text_string_to_metric_families(await answer.text()))
    answered = [sample.labels for family in families for sample in family.samples if "status" in sample.labels]
    succeeded = {(each["method"], each["route"]) for each in answered if each["status"].startswith("2")}
    return {(method.upper(), path) for path, methods in paths.items() for method in methods} - succeeded


async def _run_schemathesis(scene: Scene, folder: Path, phases: str, configuration: str) -> None:
    """Run its command on the running server; it ends with a report of what it found, or with success."""
    (folder / "schemathesis.toml").write_text(configuration)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{scene.server.base_url}/openapi.json"),
        *("--url", scene.server.base_url, "--header", f"x-api-key: {scene.customer.api_key}"),
        *("--phases", phases, "--checks", ",".join(CHECKS), "--warnings", "off", "--no-color"),
        *("--seed", "1", "--generation-deterministic"),
        *("--max-examples", str(EXAMPLES_EACH), "--suppress-health-check", "all", "--request-timeout", "60"),
        cwd=folder,
        env={**os.environ, "PYTHONWARNINGS": "default"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    report, _ = await process.communicate()
    assert process.returncode == 0, report.decode()
    assert '"level": "error"' not in scene.server.log()


def _configuration(scene: Scene) -> str:
    """A `schemathesis.toml` that has most requests hold values that exist."""
    lines = []
    for group, places in (("values", scene.values), ("condemned", scene.condemned)):
        for place, known in places.items():
            lines.append(f"[dictionaries.{_name(group, place)}]\nvalues = {json.dumps(known)}")
    lines.append("[parameters]")
    lines += [_binding("values", place) for place in scene.values]
    lines.append('[[operations]]\ninclude-method = "DELETE"\n[operations.parameters]')
    lines += [_binding("condemned", place) for place in scene.condemned]
    for route, places in scene.reserved.items():
        for place, known in places.items():
            lines.insert(0, f"[dictionaries.{_name(route, place)}]\nvalues = {json.dumps(known)}")
        lines.append(f'[[operations]]\ninclude-name = "{route}"\n[operations.parameters]')
        lines += [_binding(route, place) for place in places]
    for route, fields in scene.forms.items():
        lines.append(f'[[operations]]\ninclude-name = "{route}"\n[operations.parameters]')
        lines += [f'"{place}" = "{value}"' for place, value in fields.items()]
    return "\n".join(lines)


def _binding(group: str, place: str) -> str:
    return f'"{place}" = {{ dictionary = "{_name(group, place)}", probability = {SHARE_OF_REAL_VALUES} }}'


def _name(group: str, place: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in f"{group}-{place}")
