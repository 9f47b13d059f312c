"""Is it running: for load balancers, for Prometheus, for a person with a browser."""

from typing import Any, Literal

from fastapi import Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from chartwire.api.models import ApiModel
from chartwire.api.pages import CONTENT_SECURITY_POLICY, reference_page, status_page
from chartwire.api.routing import new_router

router = new_router("", "status")


class Status(ApiModel):
    """All is well."""

    status: str = "OK"


class Readiness(ApiModel):
    """`missing` names what keeps this process from serving, and what is wrong with it.

    `degraded` names what is away without which it serves, but slower or by fewer.
    """

    status: Literal["OK", "degraded", "unavailable"]
    missing: dict[str, str]
    degraded: dict[str, str]


_STATUS_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}, "text/html": {"schema": {"type": "string"}}}}
}
_TEXT_CONTENT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


@router.head("/", include_in_schema=False)
@router.get("/", response_model=Status, responses=_STATUS_CONTENT)
async def read_status(request: Request) -> Response:
    """That the service runs: JSON for clients, a page for a browser, `OK` for everything else."""
    accepted = request.headers.get("accept", "")
    if "text/html" in accepted:
        return _html(status_page(await request.app.state.ready()))
    return JSONResponse({"status": "OK"}) if "application/json" in accepted else PlainTextResponse("OK")


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def read_health() -> Status:
    """That the process answers; says nothing of what it depends on."""
    return Status()


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
async def read_readiness(request: Request) -> Response:
    """Whether requests can be served now."""
    missing, degraded = await request.app.state.ready(), request.app.state.degraded()
    body = Readiness(
        status="unavailable" if missing else "degraded" if degraded else "OK", missing=missing, degraded=degraded
    )
    return JSONResponse(body.model_dump(by_alias=True), 503 if missing else 200)


@router.get("/metrics", response_class=PlainTextResponse, responses=_TEXT_CONTENT)
async def read_metrics(request: Request) -> Response:
    """Prometheus metrics of this process; no label holds anything of a customer."""
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/openapi.json", include_in_schema=False)
async def read_openapi(request: Request) -> Response:
    """The OpenAPI 3.1 document."""
    return JSONResponse(request.app.openapi())


@router.get("/docs", include_in_schema=False)
async def read_reference(request: Request) -> Response:
    """The OpenAPI document as a page."""
    return _html(reference_page(request.app.openapi()))


def _html(page: str) -> HTMLResponse:
    return HTMLResponse(
        page, headers={"content-security-policy": CONTENT_SECURITY_POLICY, "referrer-policy": "same-origin"}
    )
