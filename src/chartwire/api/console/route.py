"""Routes of the console: errors become pages that say what to do, and every answer has the console's headers."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from chartwire.api.console.rendering import page
from chartwire.api.console.visitor import FormRefusedError, SignInRequiredError, check_form, know
from chartwire.errors import CustomerError, NotFoundError

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'none'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; object-src 'none'"
)
_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class ConsoleRoute(APIRoute):
    """A page, or what a form of a page does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with the console's rules around it."""
        handle = super().get_route_handler()

        async def handle_visit(request: Request) -> Response:
            request.state.route = self.path_format
            try:
                await know(request)
                await check_form(request)
                answer = await handle(request)
            except SignInRequiredError:
                answer = _to_sign_in(request)
            except (CustomerError, FormRefusedError, RequestValidationError, HTTPException) as error:
                answer = _error_page(request, error)
            finally:
                await request.close()  # files that a form brought, which none of ours has
            for name, value in _HEADERS.items():
                answer.headers.setdefault(name, value)
            return answer

        return handle_visit


def new_pages() -> APIRouter:
    """A router for pages: they are not the API, so they are not in its description."""
    return APIRouter(prefix="/console", route_class=ConsoleRoute, include_in_schema=False)


def see(path: str) -> Response:
    """After a form: go and see what it did."""
    return RedirectResponse(path, 303)


def _to_sign_in(request: Request) -> Response:
    if request.headers.get("hx-request"):  # a part of a page whose session is over: the whole page has to go
        return Response(status_code=204, headers={"hx-redirect": "/console/sign-in"})
    return see("/console/sign-in")


def _error_page(request: Request, error: Exception) -> Response:
    match error:
        case NotFoundError():
            status, message = 404, "There is nothing here, or it is not yours."
        case CustomerError():
            status, message = error.status, str(error)
        case FormRefusedError():
            status, message = 403, str(error)
        case HTTPException():
            status, message = error.status_code, "The request could not be read."
        case _:
            status, message = 400, "Something in the address or the form is not as it should be."
    return page(request, "error.html", status, message=message, code=status)
