"""Coming in and going out: set-up, sign-in, second factor, sign-out."""

from typing import assert_never

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from chartwire.api.console import words
from chartwire.api.console.rendering import page
from chartwire.api.console.route import new_pages, see
from chartwire.api.console.visitor import FormDep, VisitorDep, begin_session, end_session, keep_ticket, ticket_of
from chartwire.api.dependencies import ServicesDep
from chartwire.errors import BadRequestError
from chartwire.identity import Failure, IdentityError
from chartwire.services.passwords import SHORTEST
from chartwire.services.sign_in import CodeNeeded, Refused, SignedIn
from chartwire.telemetry import get_logger

router = new_pages()
log = get_logger()

_REFUSED = "That did not work: the e-mail address, the password or the code is not right."


@router.get("/sign-in")
async def show_sign_in(request: Request, services: ServicesDep) -> Response:
    """The form; for somebody who is in already, the first page."""
    if request.state.visitor is not None:
        return see("/console")
    leave = await services.console.sso.sign_out_url() if "out" in request.query_params else None
    is_new = await services.console.members.needs_setup()
    sso = services.console.sso.label
    return page(request, "sign_in.html", problem=None, email="", is_new=is_new, sso=sso, leave=leave)


@router.post("/sign-in")
async def sign_in(request: Request, form: FormDep, services: ServicesDep) -> Response:
    """Try an e-mail address and a password."""
    email = form.text("email")
    outcome = await services.console.sign_in.sign_in(email, form.text("password", strip=False))
    match outcome:
        case SignedIn():
            return begin_session(request, see("/console"), outcome.token)
        case CodeNeeded():
            return page(request, "sign_in_code.html", problem=None, ticket=outcome.ticket)
        case Refused():
            said = {"problem": _explain(outcome), "email": email, "is_new": False}
            return page(request, "sign_in.html", _status(outcome), **said, sso=services.console.sso.label, leave=None)
        case _:
            assert_never(outcome)


@router.post("/sign-in/code")
async def confirm(request: Request, form: FormDep, services: ServicesDep) -> Response:
    """Try a code after the password."""
    ticket = form.text("ticket")
    outcome = await services.console.sign_in.confirm(ticket, form.text("code"))
    match outcome:
        case SignedIn():
            return begin_session(request, see("/console"), outcome.token)
        case Refused():
            return page(request, "sign_in_code.html", _status(outcome), problem=_explain(outcome), ticket=ticket)
        case _:
            assert_never(outcome)


@router.post("/sign-out")
async def sign_out(request: Request, visitor: VisitorDep, services: ServicesDep) -> Response:
    """End the session."""
    await services.console.sign_in.sign_out(visitor.token, visitor.member)
    return end_session(request, see("/console/sign-in?out=1" if services.console.sso.label else "/console/sign-in"))


@router.get("/sso")
async def begin_single_sign_on(request: Request, services: ServicesDep) -> Response:
    """Off to the provider, with a ticket to bring back."""
    try:
        url, ticket = await services.console.sso.begin()
    except IdentityError as error:
        return _sso_page(request, error)
    return keep_ticket(request, RedirectResponse(url, 303), ticket)


@router.get("/sso/callback")
async def finish_single_sign_on(request: Request, services: ServicesDep) -> Response:
    """Back from the provider."""
    try:
        signed_in = await services.console.sso.finish(ticket_of(request), request.query_params)
    except IdentityError as error:
        return _sso_page(request, error)
    return keep_ticket(request, begin_session(request, see("/console"), signed_in.token), None)


def _sso_page(request: Request, error: IdentityError) -> Response:
    log.warning("single sign-on did not lead in", code=error.failure)
    status = 503 if error.failure in {Failure.UNREACHABLE, Failure.MISCONFIGURED} else 403
    return page(request, "sso_failed.html", status, failure=words.SIGN_ON_FAILURES[error.failure])


@router.get("/setup")
async def show_setup(request: Request, services: ServicesDep, token: str = "") -> Response:
    """Where the link that `serve` prints leads, as long as nobody can sign in."""
    if not await services.console.members.needs_setup():
        return see("/console/sign-in")
    return page(request, "setup.html", problem=None, token=token, account="", email="", shortest=SHORTEST)


@router.post("/setup")
async def set_up(request: Request, form: FormDep, services: ServicesDep) -> Response:
    """Make the first account and its owner, who is signed in."""
    token, account, email = form.text("token"), form.text("account"), form.text("email")
    try:
        owner = await services.console.members.set_up(token, account, email, form.text("password", strip=False))
    except BadRequestError as error:
        return page(
            request, "setup.html", 400, problem=str(error), token=token, account=account, email=email, shortest=SHORTEST
        )
    signed_in = await services.console.sign_in.open_for(owner)
    return begin_session(request, RedirectResponse("/console", 303), signed_in.token)


def _status(refused: Refused) -> int:
    return 403 if refused.wait is None else 429


def _explain(refused: Refused) -> str:
    if refused.wait is None:
        return _REFUSED
    seconds = max(1, round(refused.wait.total_seconds()))
    return f"Too many attempts have failed. Try again in {seconds} s."
