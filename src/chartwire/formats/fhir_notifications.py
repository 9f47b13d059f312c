"""Notifications of FHIR subscriptions, and what is told of a subscription's status and events.

Subscriptions R5 Backport 1.1.0 for R4 (http://hl7.org/fhir/uv/subscriptions-backport): a `history` Bundle whose first
entry is a Parameters resource that stands for R5's SubscriptionStatus. How much it tells is the subscription's
`content`: `empty` names nothing, `id-only` names documents and patients by URL, `full-resource` brings the
DocumentReferences along.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

import orjson

from chartwire.clock import iso
from chartwire.formats.fhir_resources import binary_url, document_reference, document_reference_url
from chartwire.model.document import Document, JsonObject
from chartwire.model.subscription import (
    NotificationType,
    PayloadContent,
    Subscription,
    SubscriptionEvent,
    SubscriptionStatus,
)

BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport"
_STATUS_PROFILE = f"{BACKPORT}/StructureDefinition/backport-subscription-status-r4"
_BUNDLE_PROFILE = f"{BACKPORT}/StructureDefinition/backport-subscription-notification-r4"
_EVENT = "notification-event"
_SENT_UNDER = {
    NotificationType.HANDSHAKE: SubscriptionStatus.REQUESTED,
    NotificationType.HEARTBEAT: SubscriptionStatus.ACTIVE,
    NotificationType.EVENT_NOTIFICATION: SubscriptionStatus.ACTIVE,
}
"""What is sent is sent to subscriptions of this status alone, however long it had to wait for that."""

_NAMES_SOMEBODY = ("focus", "additional-context")


def topic_url(public_base: str) -> str:
    """The canonical URL of the one topic there is: a document has been stored and can be read."""
    return f"{public_base}/oauth/fhir/SubscriptionTopic/document-available"


def subscription_url(public_base: str, subscription_id: str) -> str:
    """Where a Subscription is."""
    return f"{public_base}/oauth/fhir/Subscription/{subscription_id}"


def notification(
    public_base: str,
    subscription: Subscription,
    kind: NotificationType,
    bundle_id: str,
    now: datetime,
    events: Sequence[SubscriptionEvent] = (),
    content: PayloadContent | None = None,
) -> JsonObject:
    """A notification, or the answer of `$events`. `content` stands in for the subscription's own."""
    content = content or subscription.content
    told = [] if content is PayloadContent.EMPTY else [event.document for event in events if event.document]
    entries = [_status_entry(public_base, subscription, kind, bundle_id, now, events, content)]
    if content is PayloadContent.FULL_RESOURCE:
        entries += [_document_entry(public_base, document) for document in told]
    return {
        "resourceType": "Bundle",
        "id": bundle_id,
        "meta": {"profile": [_BUNDLE_PROFILE]},
        "type": "history",
        "timestamp": iso(now),
        "entry": entries,
    }


def status_bundle(
    public_base: str, subscriptions: Iterable[tuple[Subscription, str]], url: str, now: datetime
) -> JsonObject:
    """The answer of `$status`, asked at `url`; each subscription comes with an id for the resource that tells of it."""
    resources = [
        status(public_base, subscription, NotificationType.QUERY_STATUS, resource_id, now)
        for subscription, resource_id in subscriptions
    ]
    entries = [
        {"fullUrl": f"urn:uuid:{resource['id']}", "resource": resource, "search": {"mode": "match"}}
        for resource in resources
    ]
    bundle = {
        "resourceType": "Bundle",
        "type": "searchset",
        "total": len(entries),
        "link": [{"relation": "self", "url": url}],
    }
    return {**bundle, "entry": entries} if entries else bundle


def status(
    public_base: str,
    subscription: Subscription,
    kind: NotificationType,
    resource_id: str,
    now: datetime,
    events: Sequence[SubscriptionEvent] = (),
    content: PayloadContent | None = None,
) -> JsonObject:
    """The Parameters that stand for a SubscriptionStatus. An `empty` one does not say what it is about, either."""
    content = content or subscription.content
    total = max((subscription.event_count, *(event.number for event in events)))
    parameters: list[JsonObject] = [
        {"name": "subscription", "valueReference": {"reference": subscription_url(public_base, subscription.id)}}
    ]
    if content is not PayloadContent.EMPTY:
        parameters.append({"name": "topic", "valueCanonical": topic_url(public_base)})
    parameters += [
        {"name": "status", "valueCode": _SENT_UNDER.get(kind, subscription.status(now)).value},
        {"name": "type", "valueCode": kind.value},
        {"name": "events-since-subscription-start", "valueString": str(total)},
        *(_event(public_base, event, content) for event in events),
    ]
    if kind not in _SENT_UNDER and (trouble := subscription.trouble(now)) is not None:
        parameters.append({"name": "error", "valueCodeableConcept": {"text": trouble}})
    profile = {"profile": [_STATUS_PROFILE]}
    return {"resourceType": "Parameters", "id": resource_id, "meta": profile, "parameter": parameters}


def without_patient(body: bytes, patient_id: str) -> bytes | None:
    """The notification without what it says of one patient; None when it says nothing of anybody else.

    The numbers of events stay: whoever counts them must not find any missing.
    """
    bundle = orjson.loads(body)
    head, *others = bundle["entry"]
    rest = []
    gone: set[str] = set()
    for parameter in head["resource"]["parameter"]:
        if parameter["name"] == _EVENT and _is_about(parameter, patient_id):
            gone |= {part["valueReference"]["reference"] for part in parameter["part"] if part["name"] == "focus"}
            parameter["part"] = [part for part in parameter["part"] if part["name"] not in _NAMES_SOMEBODY]
        rest.append(parameter)
    if not any(_names_somebody(parameter) for parameter in rest):
        return None
    head["resource"]["parameter"] = rest
    bundle["entry"] = [head, *(entry for entry in others if entry["fullUrl"] not in gone)]
    return orjson.dumps(bundle)


def _status_entry(
    public_base: str,
    subscription: Subscription,
    kind: NotificationType,
    resource_id: str,
    now: datetime,
    events: Sequence[SubscriptionEvent],
    content: PayloadContent,
) -> JsonObject:
    """Each entry of a history has the request that it would answer (Bundle, invariants bdl-3 and bdl-4)."""
    return {
        "fullUrl": f"urn:uuid:{resource_id}",
        "resource": status(public_base, subscription, kind, resource_id, now, events, content),
        "request": {"method": "GET", "url": f"{subscription_url(public_base, subscription.id)}/$status"},
        "response": {"status": "200"},
    }


def _document_entry(public_base: str, document: Document) -> JsonObject:
    return {
        "fullUrl": document_reference_url(public_base, document.id),
        "resource": document_reference(document, binary_url(public_base, document.id)),
        "request": {"method": "POST", "url": "DocumentReference"},
        "response": {"status": "201"},
    }


def _event(public_base: str, event: SubscriptionEvent, content: PayloadContent) -> JsonObject:
    parts: list[JsonObject] = [
        {"name": "event-number", "valueString": str(event.number)},
        {"name": "timestamp", "valueInstant": iso(event.at)},
    ]
    if event.document is not None and content is not PayloadContent.EMPTY:
        focus = document_reference_url(public_base, event.document.id)
        parts += [
            {"name": "focus", "valueReference": {"reference": focus, "type": "DocumentReference"}},
            {"name": "additional-context", "valueReference": _patient(public_base, event.document.patient_id)},
        ]
    return {"name": _EVENT, "part": parts}


def _patient(public_base: str, patient_id: str) -> JsonObject:
    """Absolute, since nothing in the status would resolve a relative reference."""
    return {"reference": f"{public_base}/oauth/fhir/Patient/{patient_id}", "type": "Patient"}


def _is_about(parameter: JsonObject, patient_id: str) -> bool:
    return any(
        part["name"] == "additional-context" and part["valueReference"]["reference"].endswith(f"/Patient/{patient_id}")
        for part in parameter["part"]
    )


def _names_somebody(parameter: JsonObject) -> bool:
    return any(part["name"] in _NAMES_SOMEBODY for part in parameter.get("part", ()))
