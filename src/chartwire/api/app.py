"""The web application: routers, middleware, errors, OpenAPI."""

import asyncio
from collections.abc import Awaitable, Callable

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from chartwire import __version__
from chartwire.api import (
    documents,
    endpoints,
    events,
    feed,
    fhir,
    fhir_subscription_operations,
    fhir_subscriptions,
    patients,
    registry,
    status,
    tokens,
    webhook_requests,
    webhooks,
)
from chartwire.api.console.pages import PAGES
from chartwire.api.dependencies import Services
from chartwire.api.errors import install_error_handlers
from chartwire.api.limits import Limits
from chartwire.api.middleware import BodyLimitMiddleware, ObservationMiddleware, PathMiddleware
from chartwire.api.openapi import TAGS, describe
from chartwire.clock import Clock, system_clock
from chartwire.settings import Settings
from chartwire.telemetry import Metrics

_ROUTERS = (
    status.router,
    registry.organization_router,
    registry.facility_router,
    patients.router,
    documents.router,
    documents.download_router,
    fhir_subscription_operations.router,
    fhir_subscriptions.router,
    fhir.router,  # answers for every path below it that no router before has
    tokens.token_router,
    webhooks.settings_router,
    webhook_requests.router,
    endpoints.router,
    events.router,
    feed.router,
)

Readiness = Callable[[], Awaitable[dict[str, str]]]
"""What keeps this process from serving: name of the part, what is wrong with it. Nothing: it is ready."""

Degradation = Callable[[], dict[str, str]]
"""What is away without keeping this process from serving, in the same form."""


def create_app(
    services: Services | None,
    settings: Settings,
    metrics: Metrics,
    ready: Readiness,
    clock: Clock = system_clock,
    degraded: Degradation = dict,
) -> FastAPI:
    """The application, which serves until whoever made its parts closes them; without `services` it tells its status
    alone."""
    routers = _ROUTERS if services else (status.router,)
    app = FastAPI(
        title="Chartwire",
        version=__version__,
        summary="Ask once for a patient's documents, receive them by signed webhook as soon as each is available.",
        servers=[{"url": settings.public_base}],
        openapi_tags=TAGS,
        openapi_url=None,  # this and the page to read it are in `status`; FastAPI's page loads third parties' scripts
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},  # spans hold URLs
    )
    app.state.services = services
    app.state.clock = clock
    app.state.stopping = asyncio.Event()
    app.state.settings = settings
    app.state.limits = Limits(settings, clock)
    app.state.metrics = metrics
    app.state.ready = ready
    app.state.degraded = degraded
    app.state.routes = [route for router in routers for route in router.routes]
    pages = [route for each in PAGES for route in each.routes] if services else []
    # Not by `include_router`: it would build every route, complete as it is, once more for each application.
    app.router.routes += [*app.state.routes, *pages]
    install_error_handlers(app)
    _install_middleware(app, settings, metrics)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


def _install_middleware(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    """The last one added is the outermost."""
    app.add_middleware(BodyLimitMiddleware, max_bytes=settings.max_request_bytes)
    app.add_middleware(PathMiddleware)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=["*"],
    )
    app.add_middleware(ObservationMiddleware, metrics=metrics)
