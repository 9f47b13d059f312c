"""What notifications tell at each content, and what is left of one when a patient is deleted."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from fhir.resources.R4B.bundle import Bundle
from tests.support.documents import a_document

from chartwire.api.fhir_search import parse_criteria
from chartwire.errors import BadRequestError
from chartwire.formats.fhir_notifications import notification, status_bundle, without_patient
from chartwire.model.document import DocumentStatus
from chartwire.model.subscription import (
    NotificationType,
    PayloadContent,
    Subscription,
    SubscriptionEvent,
    SubscriptionStatus,
)
from chartwire.model.webhook import (
    DeliveryMode,
    Endpoint,
    EndpointState,
    PayloadVersion,
    SignatureScheme,
)
from chartwire.store.documents import DocumentFilter

BASE = "https://chartwire.test"
NOW = datetime(2025, 1, 2, 3, 4, 5, 678000, UTC)
DOCUMENTS = (a_document("a1", "p1", b"1"), a_document("a1", "p2", b"2"), a_document("a1", "p1", b"3"))
EVENTS = [SubscriptionEvent(number, NOW, document) for number, document in enumerate(DOCUMENTS, 4)]


def a_subscription(
    asked: SubscriptionStatus = SubscriptionStatus.ACTIVE,
    *,
    content: PayloadContent = PayloadContent.ID_ONLY,
    state: EndpointState = EndpointState.ENABLED,
    verified: bool = True,
    detail: str | None = "OK",
    **changes: Any,
) -> Subscription:
    endpoint = Endpoint(
        seq=1,
        id="s1",
        account_id="a1",
        is_settings=False,
        url="https://app.example/hook",
        state=state,
        verified=verified,
        status_detail=detail,
        payload_version=PayloadVersion.FHIR_R4,
        delivery=DeliveryMode.AS_AVAILABLE,
        send_webhook_key=False,
        signature_scheme=SignatureScheme.V1,
        timeout_seconds=None,
        created_at=NOW,
        version=1,
    )
    values: dict[str, Any] = {
        "error": None,
        "reason": "r",
        "contact": None,
        "criteria": (),
        "heartbeat_seconds": None,
        "max_count": None,
        "ends_at": None,
        "event_count": 3,
        "updated_at": NOW,
        "version": 1,
    }
    return Subscription(endpoint=endpoint, asked=asked, content=content, **{**values, **changes})


def told(content: PayloadContent) -> bytes:
    kind = NotificationType.EVENT_NOTIFICATION
    bundle = notification(BASE, a_subscription(content=content), kind, "m1", NOW, EVENTS)
    Bundle.model_validate_json(orjson.dumps(bundle))
    return orjson.dumps(bundle)


def numbers_and_names(body: bytes) -> list[tuple[str, bool]]:
    parameters = orjson.loads(body)["entry"][0]["resource"]["parameter"]
    return [
        (each["part"][0]["valueString"], any(part["name"] == "focus" for part in each["part"]))
        for each in parameters
        if each["name"] == "notification-event"
    ]


@pytest.mark.parametrize("content", [PayloadContent.ID_ONLY, PayloadContent.FULL_RESOURCE])
def test_a_deleted_patient_is_taken_out_and_the_numbers_stay(content: PayloadContent) -> None:
    rest = without_patient(told(content), "p1")
    assert rest is not None
    Bundle.model_validate_json(rest)
    assert numbers_and_names(rest) == [("4", False), ("5", True), ("6", False)]
    assert b"p1" not in rest
    assert not [each for each in (DOCUMENTS[0], DOCUMENTS[2]) if each.id.encode() in rest]
    assert DOCUMENTS[1].id.encode() in rest
    assert len(orjson.loads(rest)["entry"]) == (2 if content is PayloadContent.FULL_RESOURCE else 1)


@pytest.mark.parametrize("content", list(PayloadContent))
def test_nothing_is_left_when_it_told_of_nobody_else(content: PayloadContent) -> None:
    rest = without_patient(told(content), "p1")
    assert (rest is None) == (content is PayloadContent.EMPTY)
    assert rest is None or without_patient(rest, "p2") is None


def test_an_id_that_ends_like_another_is_another() -> None:
    rest = without_patient(told(PayloadContent.ID_ONLY), "1")
    assert rest is not None
    assert numbers_and_names(rest) == [("4", True), ("5", True), ("6", True)]


def test_an_event_whose_document_is_gone_keeps_its_number() -> None:
    gone = [SubscriptionEvent(4, NOW, None)]
    kind, content = NotificationType.QUERY_EVENT, PayloadContent.FULL_RESOURCE
    bundle = notification(BASE, a_subscription(content=content), kind, "m1", NOW, gone)
    assert numbers_and_names(orjson.dumps(bundle)) == [("4", False)]
    assert len(bundle["entry"]) == 1


@pytest.mark.parametrize(
    ("subscription", "status", "trouble"),
    [
        (a_subscription(), "active", None),
        (a_subscription(SubscriptionStatus.REQUESTED, verified=False, detail=None), "requested", None),
        (a_subscription(SubscriptionStatus.ERROR, error="why", state=EndpointState.DISABLED), "error", "why"),
        (a_subscription(SubscriptionStatus.OFF, state=EndpointState.DISABLED, verified=False), "off", None),
        (a_subscription(state=EndpointState.DISABLED, verified=False, detail="gone"), "off", "gone"),
        (a_subscription(verified=False, detail="late"), "active", "late"),
        (a_subscription(ends_at=NOW), "off", "The subscription has ended"),
        (a_subscription(ends_at=NOW + timedelta(milliseconds=1)), "active", None),
    ],
)
def test_how_it_stands(subscription: Subscription, status: str, trouble: str | None) -> None:
    assert (subscription.status(NOW), subscription.trouble(NOW)) == (status, trouble)
    bundle = status_bundle(BASE, [(subscription, "x1")], f"{BASE}/$status", NOW)
    Bundle.model_validate_json(orjson.dumps(bundle))
    values = {each["name"]: each for each in bundle["entry"][0]["resource"]["parameter"]}
    assert values["status"]["valueCode"] == status
    assert values.get("error") == (
        None if trouble is None else {"name": "error", "valueCodeableConcept": {"text": trouble}}
    )


def test_what_is_sent_says_active_however_long_it_waited() -> None:
    waiting = a_subscription(SubscriptionStatus.ERROR, error="why", state=EndpointState.DISABLED)
    body = orjson.dumps(notification(BASE, waiting, NotificationType.EVENT_NOTIFICATION, "m1", NOW, EVENTS))
    assert b'"valueCode":"active"' in body
    assert b"why" not in body


def test_an_empty_list_of_statuses_is_a_good_bundle() -> None:
    bundle = status_bundle(BASE, [], f"{BASE}/$status", NOW)
    Bundle.model_validate_json(orjson.dumps(bundle))
    assert "entry" not in bundle


def test_filters_are_read_as_a_search_reads_them_and_all_must_hold() -> None:
    chosen = parse_criteria(
        ["DocumentReference?patient=Patient/p1,p2&status=current", "DocumentReference?type=http%3A%2F%2Floinc.org%7C1"]
    )
    assert chosen == DocumentFilter(
        patient_ids=("p1", "p2"), statuses=(DocumentStatus.CURRENT,), types=((("http://loinc.org", "1"),),)
    )
    assert parse_criteria([]) == DocumentFilter()


@pytest.mark.parametrize(
    "criteria",
    [
        "",
        "DocumentReference",
        "DocumentReference?",
        "Patient?patient=p1",
        "DocumentReference?patient.identifier=x",
        "DocumentReference?_count=1",
        "DocumentReference?patient=",
        "DocumentReference?patient=p1,p 2",
        "DocumentReference?status=current,final",
        "DocumentReference?patient:Patient=p1",
        "DocumentReference?type=a%00b",
        "DocumentReference?" + "&".join(["status=current"] * 60),
    ],
)
def test_a_filter_that_is_not_understood_is_refused(criteria: str) -> None:
    with pytest.raises(BadRequestError):
        parse_criteria([criteria])
