"""What is told: endpoints, events, deliveries, attempts."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal, NamedTuple


class PayloadVersion(StrEnum):
    """A published shape of what is sent, kept for ever.

    Messages have a JSON Schema (`docs/reference/webhooks.md`). What goes to the endpoint of a FHIR subscription is a
    FHIR resource (`docs/reference/fhir-subscriptions.md`).
    """

    V2023_04 = "2023-04"
    V2025_10 = "2025-10"
    FHIR_R4 = "fhir-r4"

    @property
    def media_type(self) -> str:
        """The `content-type` under which it is sent."""
        return "application/fhir+json" if self is PayloadVersion.FHIR_R4 else "application/json"


MessageVersion = Literal[PayloadVersion.V2023_04, PayloadVersion.V2025_10]
"""The shapes that a customer may choose for an endpoint."""


class DeliveryMode(StrEnum):
    """When documents are announced: each as soon as it is stored, or all of a query in one message when it ends."""

    AS_AVAILABLE = "as-available"
    ON_COMPLETION = "on-completion"


class EventType(StrEnum):
    """The types of events; of messages the values are the contract's `meta.type`."""

    PING = "ping"
    DOCUMENT_DOWNLOAD = "medical.document-download"
    DOCUMENT_BULK_DOWNLOAD_URLS = "medical.document-bulk-download-urls"
    ENDPOINT_DISABLED = "webhook.endpoint-disabled"
    SAMPLE = "webhook.sample-payload"
    SUBSCRIPTION_HANDSHAKE = "subscription.handshake"
    SUBSCRIPTION_HEARTBEAT = "subscription.heartbeat"
    SUBSCRIPTION_EVENT = "subscription.event-notification"


MessageType = Literal[
    EventType.PING,
    EventType.DOCUMENT_DOWNLOAD,
    EventType.DOCUMENT_BULK_DOWNLOAD_URLS,
    EventType.ENDPOINT_DISABLED,
]
"""The types of messages that endpoints can take. The others go to the endpoints of FHIR subscriptions alone, and a
sample, whose `meta.type` is what the customer wrote, to that of the settings."""

SUBSCRIPTION_TYPES = (
    EventType.SUBSCRIPTION_HANDSHAKE,
    EventType.SUBSCRIPTION_HEARTBEAT,
    EventType.SUBSCRIPTION_EVENT,
)

PROBES = (EventType.PING, EventType.SAMPLE, EventType.SUBSCRIPTION_HANDSHAKE, EventType.SUBSCRIPTION_HEARTBEAT)
"""What asks how an endpoint answers now: made once, not repeated, and not counted as something to be told."""


class EndpointState(StrEnum):
    """Whether anything is posted: deliveries of a disabled endpoint wait."""

    ENABLED = "enabled"
    DISABLED = "disabled"


class DisabledReason(StrEnum):
    """Why the engine disabled an endpoint: a 410, or nothing but failures for days."""

    GONE = "gone"
    FAILING = "failing"


class SignatureScheme(StrEnum):
    """Standard Webhooks 1.0.0: symmetric HMAC-SHA256 or asymmetric Ed25519."""

    V1 = "v1"
    V1A = "v1a"


class DeliveryState(StrEnum):
    """`failed` deliveries stay listed and can be retried; `dropped` ones lost their endpoint, or came too late."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"
    DROPPED = "dropped"


class Outcome(StrEnum):
    """How an attempt ended; the codes that customers see (`webhooks.md` §3)."""

    DELIVERED = "delivered"
    REDIRECT = "redirect"
    GONE = "gone"
    SLOW_DOWN = "slow_down"
    HTTP_ERROR = "http_error"
    BAD_PONG = "bad_pong"
    DNS = "dns"
    REFUSED = "refused"
    TLS = "tls"
    TIMEOUT = "timeout"
    RESET = "reset"
    PROTOCOL = "protocol"
    TOO_LARGE_HEADERS = "too_large_headers"
    FORBIDDEN_ADDRESS = "forbidden_address"
    NO_URL = "no_url"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class CertificateMark:
    """What may be told of a certificate: SHA-256 over its DER form, in hex, and until when it holds."""

    sha256: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class EndpointTls:
    """What may be told of an endpoint's TLS profile: `authorities` it trusts, and the `certificate` it is shown."""

    authorities: tuple[CertificateMark, ...] = ()
    certificate: CertificateMark | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where messages of an account go. `verified` is the contract's `webhookEnabled`: the last answer was good.

    `retry_seconds` are the waits after each failed attempt. The values of headers and the TLS profile itself are
    secrets, and not in here.
    """

    seq: int
    id: str
    account_id: str
    is_settings: bool
    url: str | None
    state: EndpointState
    verified: bool
    status_detail: str | None
    payload_version: PayloadVersion
    delivery: DeliveryMode
    send_webhook_key: bool
    signature_scheme: SignatureScheme
    timeout_seconds: int | None
    created_at: datetime
    version: int
    description: str | None = None
    event_types: tuple[str, ...] | None = None
    header_names: tuple[str, ...] = ()
    retry_seconds: tuple[float, ...] | None = None
    max_in_flight: int | None = None
    rate_per_second: int | None = None
    tls: EndpointTls | None = None


@dataclass(frozen=True, slots=True)
class EventDraft:
    """A message about to be written to the outbox; `body` is exactly the bytes that will be sent and signed.

    `trace` is the W3C `traceparent` of the request that gave rise to it.
    """

    id: str
    account_id: str
    type: EventType
    payload_version: PayloadVersion
    body: bytes
    patient_ids: tuple[str, ...] = ()
    query_id: str | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries, or events, of an account; None chooses all. Times are those of the event's commit."""

    types: tuple[EventType, ...] | None = None
    endpoint_id: str | None = None
    states: tuple[DeliveryState, ...] | None = None
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class EventSummary:
    """An event as it is listed; `is_kept`: its payload can still be read and sent."""

    seq: int
    id: str
    type: EventType
    payload_version: PayloadVersion
    request_id: str | None
    size: int
    created_at: datetime
    expires_at: datetime
    is_kept: bool


@dataclass(frozen=True, slots=True)
class DeliverySummary:
    """A delivery as it is listed, with the outcome of its last attempt. `attempts` counts since the schedule began.

    While it is under way `due_at` is when it would be given up for lost.
    """

    seq: int
    event_id: str
    event_type: EventType
    request_id: str | None
    endpoint_id: str
    state: DeliveryState
    attempts: int
    due_at: datetime
    outcome: Outcome | None
    http_status: int | None
    created_at: datetime
    settled_at: datetime | None
    is_kept: bool
    is_under_way: bool = False

    @property
    def id(self) -> str:
        """An event has one delivery per endpoint."""
        return f"{self.event_id}_{self.endpoint_id}"


class Timing(NamedTuple):
    """How long each step of a request took, in microseconds; None for a step that it did not come to, or did not need.

    The last step may have failed: then it is how long that took. `first_byte` is from the request's sending to the
    first byte of its answer. A request that `is_reused` went over a connection that stood already: it needs the last
    step alone.
    """

    is_reused: bool = False
    dns: int | None = None
    connect: int | None = None
    tls: int | None = None
    first_byte: int | None = None


UNTIMED = Timing()
"""A request that came to no step."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request of a delivery; `answer` is what came back, at most 16 KiB.

    `timing` is None for those made before it was kept, and for those that came to no step of it.
    """

    number: int
    started_at: datetime
    duration_ms: int
    outcome: Outcome
    http_status: int | None
    url: str
    answer: bytes
    timing: Timing | None = None


@dataclass(frozen=True, slots=True)
class AttemptFilter:
    """Which attempts of an account; None chooses all. Times are those at which they began."""

    outcomes: tuple[Outcome, ...] | None = None
    endpoint_id: str | None = None
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class AttemptSummary:
    """An attempt as it is listed; `endpoint` is how its endpoint is called."""

    event_id: str
    event_type: EventType
    endpoint: str
    number: int
    started_at: datetime
    duration_ms: int
    outcome: Outcome
    http_status: int | None
    timing: Timing | None


class ReplayState(StrEnum):
    """A replay is worked off until everything that was chosen is sent again, or it is cancelled."""

    RUNNING = "running"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Replay:
    """Deliveries sent again: `replayed` of `total` so far."""

    id: str
    account_id: str
    state: ReplayState
    chosen: DeliveryFilter
    total: int
    replayed: int
    after_seq: int
    until_seq: int
    created_at: datetime
    ended_at: datetime | None
