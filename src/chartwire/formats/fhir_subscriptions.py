"""Subscriptions as FHIR R4 resources (profile backport-subscription of Subscriptions R5 Backport 1.1.0)."""

from collections.abc import Iterable
from typing import Any

from chartwire.clock import iso
from chartwire.formats.fhir_notifications import BACKPORT, topic_url
from chartwire.formats.fhir_resources import MEDIA_TYPE, SearchParameter
from chartwire.model.document import JsonObject
from chartwire.model.subscription import Subscription, SubscriptionStatus

PROFILE = f"{BACKPORT}/StructureDefinition/backport-subscription"
SERVER = f"{BACKPORT}/CapabilityStatement/backport-subscription-server-r4"
FILTER = f"{BACKPORT}/StructureDefinition/backport-filter-criteria"
CONTENT = f"{BACKPORT}/StructureDefinition/backport-payload-content"
HEARTBEAT = f"{BACKPORT}/StructureDefinition/backport-heartbeat-period"
TIMEOUT = f"{BACKPORT}/StructureDefinition/backport-timeout"
MAX_COUNT = f"{BACKPORT}/StructureDefinition/backport-max-count"
CHANNEL_TYPE = f"{BACKPORT}/StructureDefinition/backport-channel-type"

REST_HOOK = "rest-hook"
MASK = "***"
"""What is shown of a header's value, which is a secret; sent back, it stands for the value that is here."""

_TOPICS = f"{BACKPORT}/StructureDefinition/capabilitystatement-subscriptiontopic-canonical"
_OPERATIONS = {
    "status": f"{BACKPORT}/OperationDefinition/backport-subscription-status",
    "events": f"{BACKPORT}/OperationDefinition/backport-subscription-events",
}
_INTERACTIONS = ("read", "create", "update", "delete", "search-type")


def subscription_resource(
    public_base: str, subscription: Subscription, status: SubscriptionStatus, trouble: str | None
) -> JsonObject:
    """A Subscription, as it stands."""
    return _compact(
        resourceType="Subscription",
        id=subscription.id,
        meta={
            "versionId": str(subscription.version),
            "lastUpdated": iso(subscription.updated_at),
            "profile": [PROFILE],
        },
        status=status.value,
        contact=subscription.contact,
        end=None if subscription.ends_at is None else iso(subscription.ends_at),
        reason=subscription.reason,
        criteria=topic_url(public_base),
        _criteria=_extended(*({"url": FILTER, "valueString": each} for each in subscription.criteria)),
        error=trouble,
        channel=_channel(subscription),
    )


def subscription_capability(public_base: str, parameters: Iterable[SearchParameter]) -> JsonObject:
    """What the server can do with Subscriptions; where R5 has a resource for topics, R4 names them here."""
    return {
        "extension": [{"url": _TOPICS, "valueCanonical": topic_url(public_base)}],
        "type": "Subscription",
        "supportedProfile": [PROFILE],
        "documentation": "Topic-based; rest-hook alone, with the headers of Standard Webhooks.",
        "interaction": [{"code": code} for code in _INTERACTIONS],
        "versioning": "versioned-update",
        "searchParam": [
            {"name": item.name, "type": item.type, "documentation": item.documentation} for item in parameters
        ],
        "operation": [{"name": name, "definition": definition} for name, definition in _OPERATIONS.items()],
    }


def _channel(subscription: Subscription) -> JsonObject:
    numbers = (
        (HEARTBEAT, "valueUnsignedInt", subscription.heartbeat_seconds),
        (TIMEOUT, "valueUnsignedInt", subscription.endpoint.timeout_seconds),
        (MAX_COUNT, "valuePositiveInt", subscription.max_count),
    )
    return _compact(
        extension=[{"url": url, kind: value} for url, kind, value in numbers if value is not None] or None,
        type=REST_HOOK,
        endpoint=subscription.endpoint.url,
        payload=MEDIA_TYPE,
        _payload=_extended({"url": CONTENT, "valueCode": subscription.content.value}),
        header=[f"{name}: {MASK}" for name in subscription.endpoint.header_names] or None,
    )


def _extended(*extensions: JsonObject) -> JsonObject | None:
    """What FHIR's JSON has beside a primitive value."""
    return {"extension": list(extensions)} if extensions else None


def _compact(**values: Any) -> JsonObject:
    return {key: value for key, value in values.items() if value is not None}
