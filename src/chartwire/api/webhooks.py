"""`/settings` as existing clients know it; everything else of webhooks is in `chartwire.api.endpoints`."""

from typing import Annotated, Any, Literal, cast

import orjson
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import PlainTextResponse, Response

from chartwire.addresses import MAX_URL_LENGTH
from chartwire.api.dependencies import CallerDep, ServicesDep, TraceDep
from chartwire.api.errors import problem_responses
from chartwire.api.models import ApiModel, Omittable, StrictModel
from chartwire.api.routing import new_router
from chartwire.model.webhook import Outcome
from chartwire.services.webhooks import SettingsChanges, WebhookSettings

settings_router = new_router("/settings", "webhook")

Url = Annotated[str, Field(max_length=MAX_URL_LENGTH)]
FilterKey = Literal[
    "reports",
    "conditions",
    "medications",
    "allergies",
    "procedures",
    "social-history",
    "vitals",
    "labs",
    "observations",
    "immunizations",
    "family-member-history",
    "related-persons",
    "tasks",
    "coverages",
    "encounters",
    "documents",
]


class DateFilter(ApiModel):
    """A span of time; each end may be open."""

    from_: Omittable[str] = Field(default=None, alias="from")
    to: Omittable[str] = None


class MedicalRecordFilter(ApiModel):
    """How one section of a medical record is narrowed down."""

    key: FilterKey
    date_filter: Omittable[DateFilter] = None
    string_filter: Omittable[str] = None


class SettingsBody(StrictModel):
    """What to change. An empty or null `webhookUrl` clears it and its key; one that is absent changes nothing."""

    webhook_url: Url | None = None
    mr_filters: list[MedicalRecordFilter] | None = Field(default=None, min_length=16)


class SettingsAnswer(ApiModel):
    """`webhookKey` signs what is posted to `webhookUrl`."""

    id: str
    webhook_url: str | None
    webhook_key: str | None
    mr_filters: Omittable[list[MedicalRecordFilter]] = None


class StatusAnswer(ApiModel):
    """`webhookEnabled`: the last answer was good. The counts are of deliveries that wait and that have failed."""

    webhook_enabled: bool
    webhook_status_detail: str | None
    webhook_requests_processing: int
    webhook_requests_failed: int


class SampleMeta(BaseModel):
    """Whatever you like, with a `type`."""

    model_config = ConfigDict(extra="allow")
    type: str


class SampleBody(BaseModel):
    """A message of your own; it is sent as it is."""

    model_config = ConfigDict(extra="allow")
    meta: SampleMeta


class SampleAnswer(ApiModel):
    """How a sample was answered. `status` and `webhookResponse` are null if no answer came: `outcome` says why."""

    status: int | None = Field(description="The HTTP status of the answer")
    webhook_response: Any = Field(description="The body of the answer: JSON if it is JSON, else text; at most 16 KiB")
    url: str = Field(description="Where it was sent")
    duration_millis: int
    outcome: Outcome
    message_id: str = Field(description="The `webhook-id` it was sent under, to find it in the history")


class AccessAnswer(ApiModel):
    """Whether the account may use the Medical API."""

    has_mapi_access: bool


@settings_router.get("")
async def get_settings(caller: CallerDep, services: ServicesDep) -> SettingsAnswer:
    """The settings of the account."""
    return _settings_answer(await services.webhooks.get_settings(caller.account_id))


@settings_router.post("")
async def save_settings(caller: CallerDep, services: ServicesDep, body: SettingsBody | None = None) -> SettingsAnswer:
    """Change settings; a URL is pinged each time it is saved."""
    changes = {} if body is None else body.model_dump(exclude_unset=True)
    if body is not None and body.mr_filters is not None:
        changes["mr_filters"] = [each.model_dump(by_alias=True) for each in body.mr_filters]
    webhooks = services.webhooks
    saved = await webhooks.save_settings(caller.account_id, cast(SettingsChanges, changes), caller.actor)
    return _settings_answer(saved)


@settings_router.get("/mapi-access")
async def get_medical_api_access(_: CallerDep) -> AccessAnswer:
    """Whether the account may use the Medical API: every account with a key may."""
    return AccessAnswer(has_mapi_access=True)


@settings_router.get("/webhook")
async def get_webhook_status(caller: CallerDep, services: ServicesDep) -> StatusAnswer:
    """How delivery is going."""
    status = await services.webhooks.webhook_status(caller.account_id)
    return StatusAnswer(
        webhook_enabled=status.enabled,
        webhook_status_detail=status.detail,
        webhook_requests_processing=status.waiting,
        webhook_requests_failed=status.failed,
    )


@settings_router.post("/webhook/retry", response_class=PlainTextResponse)
async def retry_webhook_requests(caller: CallerDep, services: ServicesDep) -> str:
    """Attempt again everything that failed, oldest first."""
    await services.webhooks.retry_failed(caller.account_id)
    return "OK"


@settings_router.post("/webhook/sample-payload", response_model=SampleAnswer, responses=problem_responses(409))
async def send_sample_payload(
    request: Request, body: SampleBody, caller: CallerDep, services: ServicesDep, trace: TraceDep
) -> Response:
    """Send a message of your own to the URL of the settings, signed as every message, once; answers what came back."""
    del body  # it has been looked at; what is sent are all its members in the order in which they came
    sample = await services.samples.send(caller.account_id, caller.actor, await request.json(), trace)
    attempt = sample.attempt
    answer = {
        "status": attempt.http_status,
        "webhookResponse": None if attempt.http_status is None else _as_json(attempt.answer),
        "url": attempt.url,
        "durationMillis": attempt.duration_ms,
        "outcome": attempt.outcome,
        "messageId": sample.message_id,
    }
    return Response(orjson.dumps(answer), media_type="application/json")


def _as_json(answer: bytes) -> Any:
    """JSON is passed on byte for byte: parsed and written again, a deep or a huge one would be refused or altered."""
    try:
        orjson.loads(answer)
    except orjson.JSONDecodeError:
        return answer.decode(errors="replace")
    return orjson.Fragment(answer)


def _settings_answer(settings: WebhookSettings) -> SettingsAnswer:
    return SettingsAnswer(
        id=settings.id, webhook_url=settings.url, webhook_key=settings.key, mr_filters=settings.mr_filters
    )
