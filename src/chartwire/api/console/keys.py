"""API keys of the account."""

from fastapi import Request
from starlette.responses import Response

from chartwire.api.console.filters import asked_of, given_of, says, text_of
from chartwire.api.console.rendering import page
from chartwire.api.console.route import new_pages, see
from chartwire.api.console.visitor import FormDep, KeyKeeperDep, Visitor
from chartwire.api.dependencies import Services, ServicesDep

router = new_pages()


@router.get("/keys")
async def list_keys(request: Request, visitor: KeyKeeperDep, services: ServicesDep) -> Response:
    """The keys, by their first characters."""
    return await _keys_page(request, visitor, services)


@router.post("/keys")
async def create_key(request: Request, form: FormDep, visitor: KeyKeeperDep, services: ServicesDep) -> Response:
    """Make a key and show it, on this one page."""
    secret = await services.console.keys.create(visitor.account_id, visitor.actor, form.text("label"))
    return await _keys_page(request, visitor, services, secret)


@router.post("/keys/{key_id}/revoke")
async def revoke_key(key_id: str, visitor: KeyKeeperDep, services: ServicesDep) -> Response:
    """Refuse a key from now on."""
    await services.console.keys.revoke(visitor.account_id, visitor.actor, key_id)
    return see("/console/keys?note=revoked")


async def _keys_page(request: Request, visitor: Visitor, services: Services, secret: str | None = None) -> Response:
    keys, text = await services.console.keys.list(visitor.account_id), text_of(request, "text")
    chosen = [key for key in keys if says(text, key.label, key.hint)]
    return page(
        request,
        "keys.html",
        listed=services.console.lists.keys(chosen, asked_of(request)),
        given=given_of(request, "text"),
        secret=secret,
    )
