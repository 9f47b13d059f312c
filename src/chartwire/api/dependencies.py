"""What routes are given: who calls, the services, the version that a change is meant for."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Header, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from chartwire.api.errors import KeyRefusedError
from chartwire.api.limits import Limits
from chartwire.services.access import AccessService
from chartwire.services.api_keys import ApiKeyService
from chartwire.services.audit_trail import AuditService
from chartwire.services.browsing import BrowseService
from chartwire.services.documents import DocumentService
from chartwire.services.feed import FeedService
from chartwire.services.history import HistoryService
from chartwire.services.inspection import InspectionService
from chartwire.services.members import MemberService
from chartwire.services.operations import OperationsService
from chartwire.services.overview import OverviewService
from chartwire.services.quarantine import QuarantineService
from chartwire.services.registry import RegistryService
from chartwire.services.samples import SampleService
from chartwire.services.sign_in import SignInService
from chartwire.services.single_sign_on import SingleSignOn
from chartwire.services.subscriptions import SubscriptionService
from chartwire.services.trial import TrialService
from chartwire.services.webhooks import WebhookService
from chartwire.settings import Settings
from chartwire.tracing import read_traceparent


@dataclass(frozen=True, slots=True)
class Caller:
    """The account that calls, and the key it calls with."""

    account_id: str
    key_id: str

    @property
    def actor(self) -> str:
        """The caller as the audit trail names it."""
        return f"key:{self.key_id}"


@dataclass(frozen=True, slots=True)
class ConsoleServices:
    """What a member may do that an app may not."""

    sign_in: SignInService
    sso: SingleSignOn
    members: MemberService
    keys: ApiKeyService
    lists: BrowseService
    overview: OverviewService
    inspection: InspectionService
    operations: OperationsService
    audit: AuditService
    quarantine: QuarantineService
    trial: TrialService


@dataclass(frozen=True, slots=True)
class Services:
    """What a customer may do, by slice."""

    registry: RegistryService
    documents: DocumentService
    webhooks: WebhookService
    samples: SampleService
    history: HistoryService
    feed: FeedService
    subscriptions: SubscriptionService
    access: AccessService
    console: ConsoleServices


_api_key = APIKeyHeader(name="x-api-key", scheme_name="apiKey", auto_error=False)
_bearer = HTTPBearer(scheme_name="bearer", auto_error=False, description="An API key as bearer token")


def services_of(request: Request) -> Services:
    """The services of the app that serves this request."""
    return cast(Services, request.app.state.services)


def settings_of(request: Request) -> Settings:
    """The settings of the app that serves this request."""
    return cast(Settings, request.app.state.settings)


def limits_of(request: Request) -> Limits:
    """The rate limits of the app that serves this request."""
    return cast(Limits, request.app.state.limits)


async def authenticate(request: Request) -> Caller:
    """Who calls, by `x-api-key` or else `Authorization: Bearer`; raises `KeyRefusedError`.

    Called before the body is read (see `chartwire.api.routing`), and counts the call against the account's limit.
    """
    key = request.headers.get("x-api-key") or _bearer_token(request)
    known = await services_of(request).registry.authenticate(key) if key else None
    if known is None:
        raise KeyRefusedError
    caller = Caller(*known)
    limits_of(request).requests.attempt(caller.account_id)
    return caller


def _bearer_token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


async def current_caller(
    request: Request, _: Annotated[object, Security(_api_key)], __: Annotated[object, Security(_bearer)]
) -> Caller:
    """The caller; the two unused arguments put the ways to present a key into the OpenAPI document."""
    caller: Caller | None = getattr(request.state, "caller", None)
    return caller or await authenticate(request)


CallerDep = Annotated[Caller, Depends(current_caller)]
ServicesDep = Annotated[Services, Depends(services_of)]


def count_patient_write(request: Request, caller: CallerDep) -> None:
    """Counts a patient create or update."""
    limits_of(request).patient_writes.attempt(caller.account_id)


def count_query_start(request: Request, caller: CallerDep) -> None:
    """Counts a document query start."""
    limits_of(request).document_queries.attempt(caller.account_id)


PatientWriteLimit = Depends(count_patient_write)
QueryStartLimit = Depends(count_query_start)


def if_match(if_match: Annotated[str | None, Header(description="The `eTag` this is meant for")] = None) -> str | None:
    """The version named by `If-Match`, raw as clients send it or quoted as RFC 9110 §13.1.1 has it; `*` names none."""
    return bare_etag(if_match)


def bare_etag(value: str | None) -> str | None:
    """An entity tag without weakness mark and quotes; None for `*` and for nothing."""
    bare = "" if value is None else value.strip().removeprefix("W/").strip('"')
    return None if bare in {"", "*"} else bare


def trace_of_request(
    traceparent: Annotated[str | None, Header(description="W3C Trace Context, passed on with what follows")] = None,
) -> str | None:
    """The trace that the request belongs to; one that is malformed is ignored."""
    return read_traceparent(traceparent)


TraceDep = Annotated[str | None, Depends(trace_of_request)]
IfMatchDep = Annotated[str | None, Depends(if_match)]
