"""Endpoints, their keys and tests: `/v1/webhooks/endpoints`."""

from datetime import datetime, timedelta
from typing import Annotated, cast

from fastapi import Path
from pydantic import Field

from chartwire.addresses import MAX_URL_LENGTH
from chartwire.api.dependencies import CallerDep, ServicesDep, TraceDep
from chartwire.api.errors import problem_responses
from chartwire.api.models import ApiModel, Omittable, StrictModel
from chartwire.api.routing import new_router
from chartwire.api.webhooks import Url
from chartwire.clock import iso
from chartwire.model.signing_key import SigningKey
from chartwire.model.webhook import (
    CertificateMark,
    DeliveryMode,
    Endpoint,
    EndpointState,
    EndpointTls,
    MessageType,
    MessageVersion,
    PayloadVersion,
    SignatureScheme,
)
from chartwire.services.webhooks import EndpointChanges

router = new_router("/v1/webhooks", "webhook")

_LONGEST_OVERLAP_HOURS = 24 * 30
_LONGEST_RETRY_WAIT = 7 * 24 * 3600
_LONGEST_PEM = 64 * 1024
_MOST_TYPES = 20

Id = Annotated[str, Path(max_length=64)]
Pem = Annotated[str, Field(max_length=_LONGEST_PEM)]
RetryWait = Annotated[float, Field(ge=1, le=_LONGEST_RETRY_WAIT, allow_inf_nan=False)]


class CertificateAnswer(ApiModel):
    """A certificate by its SHA-256 fingerprint (of the DER form, in hex), and until when it holds."""

    sha256: str
    expires_at: str


class TlsAnswer(ApiModel):
    """What was set of TLS: the `authorities` that are trusted and the `certificate` that we show."""

    authorities: Omittable[list[CertificateAnswer]] = None
    certificate: Omittable[CertificateAnswer] = None


class TlsBody(StrictModel):
    """TLS beyond the system's authorities, in PEM. It replaces what was set before, and is not shown again."""

    authority: Pem | None = Field(default=None, description="Certificates that are trusted instead of the system's")
    certificate: Pem | None = Field(
        default=None, description="Our certificate, then its chain, for a receiver that asks"
    )
    private_key: Pem | None = Field(default=None, description="The key of `certificate`, without a password")


class EndpointAnswer(ApiModel):
    """Where messages go, and in which form. What is left out has its default."""

    id: str
    url: str | None
    state: EndpointState
    verified: bool
    status_detail: Omittable[str] = None
    payload_version: PayloadVersion
    delivery: DeliveryMode
    signature_scheme: SignatureScheme
    send_webhook_key: bool
    timeout_seconds: Omittable[int] = None
    description: Omittable[str] = None
    event_types: Omittable[list[str]] = None
    header_names: Omittable[list[str]] = Field(default=None, description="Custom headers; their values are not shown")
    retry_seconds: Omittable[list[float]] = None
    max_in_flight: Omittable[int] = None
    rate_per_second: Omittable[int] = None
    tls: Omittable[TlsAnswer] = None
    is_settings: bool = Field(description="The endpoint that /settings shows and sets")
    created_at: str


class EndpointsAnswer(ApiModel):
    """Every endpoint of the account."""

    endpoints: list[EndpointAnswer]


class EndpointPatch(StrictModel):
    """What to change; null goes back to the default. A `url` that is saved is pinged; null clears it and its keys."""

    url: Url | None = None
    payload_version: MessageVersion = PayloadVersion.V2023_04
    delivery: DeliveryMode = DeliveryMode.AS_AVAILABLE
    send_webhook_key: bool = True
    signature_scheme: SignatureScheme = SignatureScheme.V1
    timeout_seconds: Annotated[int, Field(ge=1, le=30)] | None = None
    description: Annotated[str, Field(max_length=500)] | None = None
    event_types: Annotated[list[MessageType], Field(min_length=1, max_length=_MOST_TYPES)] | None = None
    headers: dict[str, str] | None = Field(
        default=None, description="Sent with every message; they replace those that were set before"
    )
    retry_seconds: Annotated[list[RetryWait], Field(max_length=30)] | None = Field(
        default=None, description="The wait after each failed attempt; an empty list means one attempt"
    )
    max_in_flight: Annotated[int, Field(ge=1, le=256)] | None = None
    rate_per_second: Annotated[int, Field(ge=1, le=1000)] | None = None
    tls: TlsBody | None = None


class NewEndpoint(EndpointPatch):
    """An endpoint to make; it gets a key of its own."""

    url: Annotated[str, Field(min_length=1, max_length=MAX_URL_LENGTH)]


class TestBody(StrictModel):
    """Which message to send a sample of."""

    type: MessageType


class SentAnswer(ApiModel):
    """The `webhook-id` of the message that is on its way."""

    message_id: str


class KeyAnswer(ApiModel):
    """A signing key: `webhookKey` and `secret` are one key in two spellings, `publicKey` verifies `v1a` signatures."""

    webhook_key: str
    secret: str
    public_key: str
    created_at: str
    expires_at: Omittable[str] = Field(default=None, description="Left out for the current key")


class KeysAnswer(ApiModel):
    """The keys that sign now, the current one first."""

    keys: list[KeyAnswer]


class RotateBody(StrictModel):
    """For how long the key before signs too."""

    overlap_hours: Annotated[float, Field(ge=0, le=_LONGEST_OVERLAP_HOURS, allow_inf_nan=False)] | None = None


@router.get("/endpoints")
async def list_endpoints(caller: CallerDep, services: ServicesDep) -> EndpointsAnswer:
    """Every endpoint of the account."""
    endpoints = await services.webhooks.list_endpoints(caller.account_id)
    return EndpointsAnswer(endpoints=[_endpoint_answer(endpoint) for endpoint in endpoints])


@router.post("/endpoints", status_code=201)
async def create_endpoint(body: NewEndpoint, caller: CallerDep, services: ServicesDep) -> EndpointAnswer:
    """Make one more endpoint; its URL is pinged."""
    changes = cast(EndpointChanges, body.model_dump(exclude_unset=True))
    return _endpoint_answer(await services.webhooks.create_endpoint(caller.account_id, caller.actor, changes))


@router.get("/endpoints/{endpoint_id}", responses=problem_responses(404))
async def get_endpoint(endpoint_id: Id, caller: CallerDep, services: ServicesDep) -> EndpointAnswer:
    """One endpoint."""
    return _endpoint_answer(await services.webhooks.get_endpoint(caller.account_id, endpoint_id))


@router.patch("/endpoints/{endpoint_id}", responses=problem_responses(404, 409))
async def change_endpoint(
    endpoint_id: Id, body: EndpointPatch, caller: CallerDep, services: ServicesDep
) -> EndpointAnswer:
    """Change an endpoint; what is not named stays as it is."""
    changes = cast(EndpointChanges, body.model_dump(exclude_unset=True))
    webhooks = services.webhooks
    return _endpoint_answer(await webhooks.change_endpoint(caller.account_id, endpoint_id, changes, caller.actor))


@router.delete("/endpoints/{endpoint_id}", status_code=204, responses=problem_responses(404, 409))
async def delete_endpoint(endpoint_id: Id, caller: CallerDep, services: ServicesDep) -> None:
    """Delete an endpoint and drop what waits for it; the history stays. That of `/settings` cannot be deleted."""
    await services.webhooks.delete_endpoint(caller.account_id, endpoint_id, caller.actor)


@router.post("/endpoints/{endpoint_id}/enable", responses=problem_responses(404, 409))
async def enable_endpoint(endpoint_id: Id, caller: CallerDep, services: ServicesDep) -> EndpointAnswer:
    """Post to an endpoint again: what waits goes out now, whatever its breaker was."""
    return _endpoint_answer(await services.webhooks.enable_endpoint(caller.account_id, endpoint_id, caller.actor))


@router.post("/endpoints/{endpoint_id}/disable", responses=problem_responses(404, 409))
async def disable_endpoint(endpoint_id: Id, caller: CallerDep, services: ServicesDep) -> EndpointAnswer:
    """Post nothing more to an endpoint until it is enabled; what waits is held."""
    return _endpoint_answer(await services.webhooks.disable_endpoint(caller.account_id, endpoint_id, caller.actor))


@router.get("/endpoints/{endpoint_id}/keys", responses=problem_responses(404))
async def list_keys(endpoint_id: Id, caller: CallerDep, services: ServicesDep) -> KeysAnswer:
    """The keys that sign now; none before the endpoint has a URL."""
    return _keys_answer(await services.webhooks.list_keys(caller.account_id, endpoint_id))


@router.post("/endpoints/{endpoint_id}/keys/rotate", responses=problem_responses(404, 409))
async def rotate_key(
    endpoint_id: Id, caller: CallerDep, services: ServicesDep, body: RotateBody | None = None
) -> KeysAnswer:
    """Make a new key; old and new both sign until the overlap is over."""
    hours = None if body is None else body.overlap_hours
    overlap = None if hours is None else timedelta(hours=hours)
    return _keys_answer(await services.webhooks.rotate_key(caller.account_id, endpoint_id, caller.actor, overlap))


@router.post("/endpoints/{endpoint_id}/ping", status_code=202, responses=problem_responses(404, 409))
async def ping_endpoint(endpoint_id: Id, caller: CallerDep, services: ServicesDep) -> SentAnswer:
    """Send a ping; the endpoint's `verified` and `statusDetail` tell how it was answered."""
    return SentAnswer(message_id=await services.webhooks.ping(caller.account_id, endpoint_id))


@router.post("/endpoints/{endpoint_id}/test", status_code=202, responses=problem_responses(404, 409))
async def send_test_event(
    endpoint_id: Id, body: TestBody, caller: CallerDep, services: ServicesDep, trace: TraceDep
) -> SentAnswer:
    """Send a sample message of a type, about nobody; the endpoint gets it whatever its `eventTypes` are."""
    return SentAnswer(message_id=await services.webhooks.send_sample(caller.account_id, endpoint_id, body.type, trace))


def _endpoint_answer(endpoint: Endpoint) -> EndpointAnswer:
    return EndpointAnswer(
        id=endpoint.id,
        url=endpoint.url,
        state=endpoint.state,
        verified=endpoint.verified,
        status_detail=endpoint.status_detail,
        payload_version=endpoint.payload_version,
        delivery=endpoint.delivery,
        signature_scheme=endpoint.signature_scheme,
        send_webhook_key=endpoint.send_webhook_key,
        timeout_seconds=endpoint.timeout_seconds,
        description=endpoint.description,
        event_types=None if endpoint.event_types is None else list(endpoint.event_types),
        header_names=list(endpoint.header_names) or None,
        retry_seconds=None if endpoint.retry_seconds is None else list(endpoint.retry_seconds),
        max_in_flight=endpoint.max_in_flight,
        rate_per_second=endpoint.rate_per_second,
        tls=None if endpoint.tls is None else _tls_answer(endpoint.tls),
        is_settings=endpoint.is_settings,
        created_at=iso(endpoint.created_at),
    )


def _tls_answer(tls: EndpointTls) -> TlsAnswer:
    certificate = None if tls.certificate is None else _certificate_answer(tls.certificate)
    return TlsAnswer(
        authorities=[_certificate_answer(each) for each in tls.authorities] or None, certificate=certificate
    )


def _certificate_answer(mark: CertificateMark) -> CertificateAnswer:
    return CertificateAnswer(sha256=mark.sha256, expires_at=iso(mark.expires_at))


def _keys_answer(keys: tuple[SigningKey, ...]) -> KeysAnswer:
    return KeysAnswer(
        keys=[
            KeyAnswer(
                webhook_key=key.webhook_key,
                secret=key.symmetric,
                public_key=key.public,
                created_at=iso(key.created_at),
                expires_at=_iso_or_none(key.expires_at),
            )
            for key in keys
        ]
    )


def _iso_or_none(moment: datetime | None) -> str | None:
    return None if moment is None else iso(moment)
