"""Members of the account, and what a member does with itself."""

from fastapi import Request
from starlette.responses import Response

from chartwire.api.console.filters import asked_of, given_of, members_of, one_of, says, text_of
from chartwire.api.console.pictures import qr_code
from chartwire.api.console.rendering import page
from chartwire.api.console.route import new_pages, see
from chartwire.api.console.visitor import Form, FormDep, OwnerDep, Visitor, VisitorDep, begin_session
from chartwire.api.dependencies import Services, ServicesDep
from chartwire.errors import BadRequestError, ConflictError, CustomerError
from chartwire.model.member import Role
from chartwire.services.passwords import SHORTEST

router = new_pages()


@router.get("/members")
async def list_members(request: Request, visitor: OwnerDep, services: ServicesDep) -> Response:
    """Who can sign in."""
    return await _members_page(request, visitor, services)


@router.post("/members")
async def add_member(request: Request, form: FormDep, visitor: OwnerDep, services: ServicesDep) -> Response:
    """Let somebody in; the first password is shown on this one page."""
    email = form.text("email")
    try:
        password = await services.console.members.add(visitor.account_id, visitor.actor, email, _role(form))
    except (BadRequestError, ConflictError) as error:
        return await _members_page(request, visitor, services, problem=error)
    return await _members_page(request, visitor, services, password=password, email=email)


@router.post("/members/{member_id}/role")
async def change_role(
    request: Request, member_id: str, form: FormDep, visitor: OwnerDep, services: ServicesDep
) -> Response:
    """Give a member another role."""
    try:
        await services.console.members.change_role(visitor.account_id, visitor.actor, member_id, _role(form))
    except ConflictError as error:
        return await _members_page(request, visitor, services, problem=error)
    return see("/console/members?note=role")


@router.post("/members/{member_id}/reset")
async def reset(request: Request, member_id: str, visitor: OwnerDep, services: ServicesDep) -> Response:
    """A new password for somebody who lost it, shown on this one page."""
    password = await services.console.members.reset(visitor.account_id, visitor.actor, member_id)
    listed = await services.console.members.list(visitor.account_id)
    email = next((member.email for member in listed if member.id == member_id), "")
    return await _members_page(request, visitor, services, password=password, email=email)


@router.post("/members/{member_id}/remove")
async def remove(request: Request, member_id: str, visitor: OwnerDep, services: ServicesDep) -> Response:
    """Let somebody in no more."""
    try:
        await services.console.members.remove(visitor.account_id, visitor.actor, member_id)
    except ConflictError as error:
        return await _members_page(request, visitor, services, problem=error)
    return see("/console/members?note=removed")


@router.get("/me")
async def show_me(request: Request, visitor: VisitorDep) -> Response:
    """One's own password and second factor."""
    return _my_page(request, visitor)


@router.post("/me/password")
async def change_password(request: Request, form: FormDep, visitor: VisitorDep, services: ServicesDep) -> Response:
    """Replace one's password: every session ends, and this one begins anew."""
    try:
        await services.console.members.change_password(
            visitor.member, form.text("current", strip=False), form.text("new", strip=False)
        )
    except BadRequestError as error:
        return _my_page(request, visitor, error)
    signed_in = await services.console.sign_in.open_for(visitor.member)
    return begin_session(request, see("/console/me?note=saved"), signed_in.token)


@router.post("/me/second-factor")
async def begin_second_factor(request: Request, visitor: VisitorDep, services: ServicesDep) -> Response:
    """Show a secret for an authenticator app."""
    enrolment = services.console.members.begin_second_factor(visitor.member)
    return page(request, "second_factor.html", enrolment=enrolment, picture=qr_code(enrolment.uri), problem=None)


@router.post("/me/second-factor/confirm")
async def confirm_second_factor(
    request: Request, form: FormDep, visitor: VisitorDep, services: ServicesDep
) -> Response:
    """Ask for codes from now on, if the app shows the right one."""
    members, ticket = services.console.members, form.text("ticket")
    try:
        await members.confirm_second_factor(visitor.member, ticket, form.text("code"))
    except BadRequestError as error:
        enrolment = members.resume_second_factor(visitor.member, ticket)
        picture = qr_code(enrolment.uri)
        return page(request, "second_factor.html", 400, enrolment=enrolment, picture=picture, problem=str(error))
    return see("/console/me?note=factor-on")


@router.post("/me/second-factor/end")
async def end_second_factor(request: Request, form: FormDep, visitor: VisitorDep, services: ServicesDep) -> Response:
    """Ask for the password alone."""
    try:
        await services.console.members.end_second_factor(visitor.member, form.text("current", strip=False))
    except BadRequestError as error:
        return _my_page(request, visitor, error)
    return see("/console/me?note=factor-off")


async def _members_page(
    request: Request,
    visitor: Visitor,
    services: Services,
    password: str | None = None,
    email: str = "",
    problem: CustomerError | None = None,
) -> Response:
    text, role = text_of(request, "text"), one_of(Role, text_of(request, "of"))
    members = [
        member
        for member in await services.console.members.list(visitor.account_id)
        if role in {None, member.role} and says(text, member.email)
    ]
    return page(
        request,
        "members.html",
        200 if problem is None else problem.status,
        listed=services.console.lists.members(members, asked_of(request)),
        given=given_of(request, "text", "of"),
        password=password,
        email=email,
        problem=None if problem is None else str(problem),
        roles=tuple(Role),
    )


def _my_page(request: Request, visitor: Visitor, problem: BadRequestError | None = None) -> Response:
    return page(
        request,
        "me.html",
        200 if problem is None else 400,
        member=visitor.member,
        problem=None if problem is None else str(problem),
        shortest=SHORTEST,
    )


def _role(form: Form) -> Role:
    chosen = members_of(Role, [form.text("role")])
    if chosen is None:
        raise BadRequestError("Choose a role")
    return chosen[0]
