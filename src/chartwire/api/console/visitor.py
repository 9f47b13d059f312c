"""Who visits: the session behind the cookie, what the role allows, and that forms were sent by our own pages.

A form is taken if its page's origin is ours (`Sec-Fetch-Site`, else `Origin`: OWASP CSRF cheat sheet, Fetch Metadata)
and, once signed in, if it holds the session's own word, which no other site can know.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.datastructures import FormData, ImmutableMultiDict
from starlette.responses import Response

from chartwire.api.dependencies import services_of, settings_of
from chartwire.errors import BadRequestError, ChartwireError, ForbiddenError
from chartwire.model.member import Member, Permission

_SAFE = frozenset({"GET", "HEAD"})
_LONGEST_FIELD = 10_000
_WITHOUT_SESSION = frozenset({"/console/sign-in", "/console/sign-in/code", "/console/setup"})


class SignInRequiredError(ChartwireError):
    """Nobody is signed in, or not any more."""


class FormRefusedError(ChartwireError):
    """The form was not sent by a page of this console, or its page is too old: go back, reload it, and try again."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """A member with an open session; `form_word` is what its forms hold."""

    member: Member
    token: str

    @property
    def account_id(self) -> str:
        """The member's account."""
        return self.member.account_id

    @property
    def actor(self) -> str:
        """As the audit trail names the member."""
        return self.member.actor

    @property
    def form_word(self) -> str:
        """Proves that a form is of this session; the token cannot be found out from it."""
        return sha256(b"form\n" + self.token.encode()).hexdigest()

    def may(self, permission: Permission) -> bool:
        """Whether the member's role grants it."""
        return self.member.may(permission)


async def know(request: Request) -> None:
    """Find out who visits, if anybody is signed in."""
    token = request.cookies.get(_cookie_name(request), "")
    member = await services_of(request).console.sign_in.resume(token) if token else None
    request.state.visitor = None if member is None else Visitor(member, token)


async def check_form(request: Request) -> None:
    """Raises `FormRefusedError` for a form that another site may have sent."""
    if request.method in _SAFE:
        return
    if not _is_from_here(request):
        raise FormRefusedError
    visitor: Visitor | None = request.state.visitor
    if visitor is None:
        if request.url.path in _WITHOUT_SESSION:
            return
        raise SignInRequiredError
    word = (await request.form()).get("form_word")
    if not isinstance(word, str) or not hmac.compare_digest(word.encode(), visitor.form_word.encode()):
        raise FormRefusedError


def _is_from_here(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def current_visitor(request: Request) -> Visitor:
    """Who visits; raises `SignInRequiredError`."""
    visitor: Visitor | None = request.state.visitor
    if visitor is None:
        raise SignInRequiredError
    return visitor


def require(permission: Permission) -> Callable[[Request], Visitor]:
    """Who visits, if the role grants `permission`; raises `SignInRequiredError` and `ForbiddenError`."""

    def allowed_visitor(request: Request) -> Visitor:
        visitor = current_visitor(request)
        if not visitor.may(permission):
            raise ForbiddenError("Your role does not allow this: ask an owner of the account")
        return visitor

    return allowed_visitor


VisitorDep = Annotated[Visitor, Depends(current_visitor)]
ReaderDep = Annotated[Visitor, Depends(require(Permission.READ_RECORDS))]
SteererDep = Annotated[Visitor, Depends(require(Permission.STEER))]
KeyKeeperDep = Annotated[Visitor, Depends(require(Permission.MANAGE_KEYS))]
AuditorDep = Annotated[Visitor, Depends(require(Permission.READ_AUDIT))]
OwnerDep = Annotated[Visitor, Depends(require(Permission.MANAGE_MEMBERS))]


async def watch(request: Request, visitor: VisitorDep) -> None:
    """Remember how far the account is before the page is made: what happens from then on makes the page look again."""
    request.state.mark = await services_of(request).console.overview.mark(visitor.account_id)


Live = Depends(watch)
"""For pages that stay fresh while they are open."""


class Form:
    """The fields of a form. Raises `BadRequestError` for what no field of ours can hold."""

    def __init__(self, data: FormData) -> None:
        self._data = data

    def text(self, name: str, *, strip: bool = True) -> str:
        """A field, empty if it is absent; passwords are not stripped."""
        return _checked(self._data.get(name, ""), strip=strip)

    def texts(self, name: str) -> list[str]:
        """A field that may be there several times."""
        return [_checked(value, strip=True) for value in self._data.getlist(name)]

    @property
    def fields(self) -> ImmutableMultiDict[str, str]:
        """Every field, as those of an address are read."""
        return ImmutableMultiDict([(name, _checked(value, strip=True)) for name, value in self._data.multi_items()])

    def has(self, name: str) -> bool:
        """Whether a box is ticked."""
        return name in self._data


def _checked(value: object, *, strip: bool) -> str:
    if not isinstance(value, str) or "\0" in value or len(value) > _LONGEST_FIELD:
        raise BadRequestError("A field of the form holds what it cannot hold")
    return value.strip() if strip else value


async def read_form(request: Request) -> Form:
    """The form that was sent."""
    return Form(await request.form())


FormDep = Annotated[Form, Depends(read_form)]


def begin_session(request: Request, answer: Response, token: str) -> Response:
    """Let the browser keep a session's token, out of reach of scripts and other sites."""
    secure = _is_secure(request)
    answer.set_cookie(_cookie_name(request), token, path="/", secure=secure, httponly=True, samesite="lax")
    return answer


def keep_ticket(request: Request, answer: Response, ticket: str | None) -> Response:
    """Let the browser keep, or forget, the ticket of a single sign-on until it is back from the provider."""
    secure, name = _is_secure(request), f"{_cookie_name(request)}-sso"
    if ticket is None:
        answer.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="lax")
    else:
        answer.set_cookie(name, ticket, max_age=600, path="/", secure=secure, httponly=True, samesite="lax")
    return answer


def ticket_of(request: Request) -> str:
    """The ticket that `keep_ticket` let the browser keep, if it brings one."""
    return request.cookies.get(f"{_cookie_name(request)}-sso", "")


def end_session(request: Request, answer: Response) -> Response:
    """Let the browser forget it."""
    secure = _is_secure(request)
    answer.delete_cookie(_cookie_name(request), path="/", secure=secure, httponly=True, samesite="lax")
    return answer


def _is_secure(request: Request) -> bool:
    return settings_of(request).public_base.startswith("https://")


def _cookie_name(request: Request) -> str:
    """`__Host-`: only this host could have set it, over TLS (RFC 6265bis §4.1.3.2)."""
    return "__Host-chartwire" if _is_secure(request) else "chartwire"
