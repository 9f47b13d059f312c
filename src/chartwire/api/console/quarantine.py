"""Documents that came and were not taken in: what is wrong with them, and what becomes of them."""

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from chartwire.api.console.filters import asked_of, given_of, one_of, text_of
from chartwire.api.console.rendering import page
from chartwire.api.console.route import new_pages, see
from chartwire.api.console.visitor import FormDep, ReaderDep, SteererDep
from chartwire.api.dependencies import ServicesDep
from chartwire.errors import IssueCode
from chartwire.model.quarantine import QuarantineState

router = new_pages()


@router.get("/quarantine")
async def list_held(request: Request, visitor: ReaderDep, services: ServicesDep) -> Response:
    """What is held, or was."""
    state, network = one_of(QuarantineState, text_of(request, "state")), text_of(request, "network")
    listed = await services.console.quarantine.list(
        visitor.account_id, visitor.actor, state, network, asked_of(request)
    )
    reports = await services.console.overview.networks(visitor.account_id)
    return page(
        request,
        "quarantine.html",
        listed=listed,
        given=given_of(request, "state", "network"),
        states=tuple(QuarantineState),
        networks=[report.name for report in reports],
    )


@router.get("/quarantine/untaken")
async def list_untaken(request: Request, visitor: ReaderDep, services: ServicesDep) -> Response:
    """What was listed and could not be fetched."""
    issue, network = one_of(IssueCode, text_of(request, "why")), text_of(request, "network")
    listed = await services.console.quarantine.list_untaken(
        visitor.account_id, visitor.actor, issue, network, asked_of(request)
    )
    reports = await services.console.overview.networks(visitor.account_id)
    return page(
        request,
        "untaken.html",
        listed=listed,
        given=given_of(request, "why", "network"),
        issues=tuple(IssueCode),
        networks=[report.name for report in reports],
    )


@router.get("/quarantine/{held_id}")
async def show_held(request: Request, held_id: str, visitor: ReaderDep, services: ServicesDep) -> Response:
    """One of them, beside the patient whom it was listed for."""
    held = await services.console.quarantine.look(visitor.account_id, visitor.actor, held_id)
    patient = await services.registry.patients.get(visitor.account_id, visitor.actor, held.patient_id)
    members = await services.console.members.list(visitor.account_id)
    return page(
        request,
        "held.html",
        held=held,
        known=patient.demographics,
        names={member.actor: member.email for member in members},
    )


@router.get("/quarantine/{held_id}/file")
async def download(held_id: str, visitor: ReaderDep, services: ServicesDep) -> Response:
    """The bytes, to be taken along: they are shown in no frame of ours."""
    held = await services.console.quarantine.look(visitor.account_id, visitor.actor, held_id)
    headers = {
        "content-disposition": f'attachment; filename="held-{held.id}"',
        "content-length": str(held.size),
        "x-content-type-options": "nosniff",
    }
    return StreamingResponse(
        services.console.quarantine.read(held), media_type="application/octet-stream", headers=headers
    )


@router.post("/quarantine/{held_id}/release")
async def release(held_id: str, form: FormDep, visitor: SteererDep, services: ServicesDep) -> Response:
    """Let it in as it is."""
    await services.console.quarantine.release(visitor.account_id, visitor.actor, held_id, form.text("note"))
    return see(f"/console/quarantine/{held_id}?note=released")


@router.post("/quarantine/{held_id}/discard")
async def discard(held_id: str, form: FormDep, visitor: SteererDep, services: ServicesDep) -> Response:
    """Throw it away."""
    await services.console.quarantine.discard(visitor.account_id, visitor.actor, held_id, form.text("note"))
    return see(f"/console/quarantine/{held_id}?note=discarded")
