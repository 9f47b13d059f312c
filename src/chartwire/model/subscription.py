"""FHIR subscriptions (Subscriptions R5 Backport 1.1.0, for R4): who is notified of which documents, and how."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from chartwire.model.document import Document
from chartwire.model.webhook import Endpoint, EndpointState

_ENDED = "The subscription has ended"


class SubscriptionStatus(StrEnum):
    """FHIR Subscription.status. `off` is what its owner turned off, what has ended, and what the engine gave up."""

    REQUESTED = "requested"
    ACTIVE = "active"
    ERROR = "error"
    OFF = "off"


class PayloadContent(StrEnum):
    """How much a notification tells: that something is there, which documents, or all that is known of them."""

    EMPTY = "empty"
    ID_ONLY = "id-only"
    FULL_RESOURCE = "full-resource"


class NotificationType(StrEnum):
    """What a status is told for (value set subscription-notification-type)."""

    HANDSHAKE = "handshake"
    HEARTBEAT = "heartbeat"
    EVENT_NOTIFICATION = "event-notification"
    QUERY_STATUS = "query-status"
    QUERY_EVENT = "query-event"


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription and the endpoint that is its channel; the two have one id.

    `asked` is what its owner asked for, and what became of the handshake; `status` says how it stands at a moment.
    `criteria` are filters as their owner wrote them. `event_count` is the number of the last event.
    """

    endpoint: Endpoint
    asked: SubscriptionStatus
    error: str | None
    reason: str
    contact: Any
    criteria: tuple[str, ...]
    content: PayloadContent
    heartbeat_seconds: int | None
    max_count: int | None
    ends_at: datetime | None
    event_count: int
    updated_at: datetime
    version: int

    @property
    def id(self) -> str:
        """The id of the subscription and of its endpoint."""
        return self.endpoint.id

    def status(self, now: datetime) -> SubscriptionStatus:
        """How it stands."""
        if self.has_ended(now):
            return SubscriptionStatus.OFF
        is_given_up = self.endpoint.state is EndpointState.DISABLED and self.asked is not SubscriptionStatus.ERROR
        return SubscriptionStatus.OFF if is_given_up else self.asked

    def has_ended(self, now: datetime) -> bool:
        """Whether its `end` is over."""
        return self.ends_at is not None and self.ends_at <= now

    def counts_events(self, now: datetime) -> bool:
        """Whether what happens is an event of it: also while it cannot be told, but not once it is over."""
        return self.asked is not SubscriptionStatus.OFF and not self.has_ended(now)

    def trouble(self, now: datetime) -> str | None:
        """Subscription.error: why it is off or in error, or what is wrong with the last answer."""
        if self.asked is SubscriptionStatus.OFF:
            return None
        if self.has_ended(now):
            return _ENDED
        if self.asked is SubscriptionStatus.ERROR:
            return self.error
        return None if self.endpoint.verified else self.endpoint.status_detail


@dataclass(frozen=True, slots=True)
class SubscriptionEvent:
    """Something that happened under a subscription; `document` is None once it is not here any more."""

    number: int
    at: datetime
    document: Document | None
