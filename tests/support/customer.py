"""A customer who has one of everything, for tests that look at a running installation from outside."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from tests.support.engine import announced, closed
from tests.support.journey import ADDRESS, Journey, journey
from tests.support.process import ChartwireProcess
from tests.support.receiver import PATIENTLY, Received, Receiver

from chartwire.model.registry import Address, Demographics, Gender

JANE = Demographics(
    "Jane", "Smith", date(1996, 2, 10), Gender.F, (Address("123 Arsenal St", "Phoenix", "AZ", "85007"),)
)
"""A patient whom the sandbox network knows."""

DOCUMENTS_EACH = 7

SANDBOX = {
    **PATIENTLY,
    "CHARTWIRE_NETWORKS": json.dumps([{"kind": "sandbox", "spread_seconds": 0}]),
    "CHARTWIRE_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
    "CHARTWIRE_PATIENT_WRITES_PER_MINUTE": "0",
    "CHARTWIRE_DOCUMENT_QUERIES_PER_MINUTE": "0",
    "CHARTWIRE_REQUESTS_PER_SECOND": "0",
    "CHARTWIRE_DOWNLOAD_URL_SECONDS": "3600",
}
"""Settings of a server whose sandbox gives everything at once, for a receiver on this machine, without rate limits. The
links that it gives last as long as any test, which may come to one minutes after it was made."""


@dataclass(frozen=True, slots=True)
class Customer:
    """An account with an organization, a facility, a patient with documents, and a webhook that was told of them."""

    account_id: str
    api_key: str
    webhook_key: str
    endpoint_id: str
    subscription_id: str
    topic: str
    organization_id: str
    facility_id: str
    patient_id: str
    external_id: str
    request_id: str
    event_id: str
    documents: tuple[Mapping[str, Any], ...]
    download_url: str

    @property
    def document_id(self) -> str:
        """The document that is a C-CDA."""
        return str(_ccda(self.documents)["id"])

    @property
    def file_name(self) -> str:
        """The file name of that document."""
        return str(_ccda(self.documents)["fileName"])

    @property
    def delivery_id(self) -> str:
        """The delivery of the message that told of that document."""
        return f"{self.event_id}_{self.endpoint_id}"

    @property
    def ids(self) -> frozenset[str]:
        """Everything that only this customer may know."""
        return frozenset(
            {
                *(self.account_id, self.endpoint_id, self.organization_id, self.facility_id, self.patient_id),
                self.subscription_id,
                *(self.external_id, self.request_id, self.event_id, self.document_id, self.file_name),
            }
        )


async def settle(server: ChartwireProcess, receiver: Receiver, name: str) -> Customer:
    """Make a customer who does all that a new customer does; returns when everything has been told and answered."""
    account_id, api_key = await server.create_account(name)
    async with journey(server.base_url, api_key) as app:
        webhook_key = await app.save_webhook(receiver.url)
        organization = {"name": name, "type": "ambulatory", "location": ADDRESS}
        organization_id = (await app.call("POST", "organization", organization))["id"]
        facility_id = await app.add_facility()
        patient_id, external_id = await _add_patient(app, facility_id, f"{name}-17")
        request_id = await app.start_query(patient_id, facility_id)
        await receiver.wait_for(lambda it: request_id in closed(it.messages))
        await app.until_settled()
        documents = (await app.call("GET", "document", patientId=patient_id, output="dto"))["documents"]
        assert len(documents) == DOCUMENTS_EACH
        ccda = _ccda(documents)
        subscription = subscription_for(server.base_url, receiver.url)
        link = await app.call("GET", "document/download-url", fileName=ccda["fileName"])
        return Customer(
            account_id=account_id,
            api_key=api_key,
            webhook_key=webhook_key,
            endpoint_id=(await app.call("GET", "/v1/webhooks/endpoints"))["endpoints"][0]["id"],
            subscription_id=(await app.call("POST", "/oauth/fhir/Subscription", subscription))["id"],
            topic=topic_of(server.base_url),
            organization_id=organization_id,
            facility_id=facility_id,
            patient_id=patient_id,
            external_id=external_id,
            request_id=request_id,
            event_id=_message_with(receiver, ccda["id"]).message_id,
            documents=tuple(documents),
            download_url=link["url"],
        )


def topic_of(base_url: str) -> str:
    """What subscriptions of a server are about."""
    return f"{base_url}/oauth/fhir/SubscriptionTopic/document-available"


def subscription_for(base_url: str, url: str, status: str = "off") -> dict[str, Any]:
    """A FHIR Subscription as clients send it; one that is off is told nothing."""
    content = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/backport-payload-content"
    payload = {"extension": [{"url": content, "valueCode": "id-only"}]}
    return {
        "resourceType": "Subscription",
        "status": status,
        "reason": "New documents",
        "criteria": topic_of(base_url),
        "channel": {"type": "rest-hook", "endpoint": url, "payload": "application/fhir+json", "_payload": payload},
    }


def _ccda(documents: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return next(document for document in documents if document["mimeType"] == "application/xml")


async def _add_patient(app: Journey, facility_id: str, external_id: str) -> tuple[str, str]:
    body = {**patient_of(JANE), "externalId": external_id}
    patient = await app.call("POST", "patient", body, facilityId=facility_id)
    return patient["id"], patient["externalId"]


def patient_of(who: Demographics) -> dict[str, Any]:
    """A person as clients send a patient."""
    return {
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


def _message_with(receiver: Receiver, document_id: str) -> Received:
    return next(message for message in receiver.messages if document_id in announced([message]))
