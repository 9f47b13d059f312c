"""For those who operate: networks, storage, migrations, the audit trail."""

from collections.abc import AsyncIterator

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from chartwire.api.console.filters import asked_of, given_of, moment_of, one_of, says, text_of
from chartwire.api.console.rendering import page
from chartwire.api.console.route import new_pages
from chartwire.api.console.visitor import AuditorDep, Live, VisitorDep
from chartwire.api.dependencies import ServicesDep, settings_of
from chartwire.errors import BadRequestError
from chartwire.services.audit_trail import ExportForm
from chartwire.services.listing import Asked
from chartwire.store.audit import AuditFilter

router = new_pages()

_PRINTED = 500
"""Disclosures on one page: few patients have more, and what is printed should be whole."""
_EXPORTED = {ExportForm.CSV: "text/csv; charset=utf-8", ExportForm.NDJSON: "application/x-ndjson"}
_FIELDS = ("action", "actor", "patient", "subject", "from", "to")


@router.get("/networks", dependencies=[Live])
async def show_networks(request: Request, visitor: VisitorDep, services: ServicesDep) -> Response:
    """Whether networks answer, and what they brought."""
    kinds = {network.name: network.kind for network in settings_of(request).networks}
    reports = await services.console.overview.networks(visitor.account_id)
    chosen = [report for report in reports if says(text_of(request, "text"), report.name)]
    return page(
        request,
        "networks.html",
        reports=reports,
        listed=services.console.lists.networks(chosen, asked_of(request)),
        given=given_of(request, "text"),
        kinds=kinds,
    )


@router.get("/audit")
async def search_audit(request: Request, visitor: AuditorDep, services: ServicesDep) -> Response:
    """Who saw or changed whose data, the newest first."""
    listed = await services.console.audit.search(visitor.account_id, _chosen(request), asked_of(request))
    members = await services.console.members.list(visitor.account_id)
    names = {member.actor: member.email for member in members}
    return page(request, "audit.html", listed=listed, given=given_of(request, *_FIELDS), names=names)


@router.get("/audit/export")
async def export_audit(request: Request, visitor: AuditorDep, services: ServicesDep) -> Response:
    """The same, all of it, as CSV or as lines of JSON."""
    form = one_of(ExportForm, text_of(request, "form")) or ExportForm.CSV
    lines = await services.console.audit.export(visitor.account_id, visitor.actor, _chosen(request), form)
    return _download(lines, f"audit.{form}", _EXPORTED[form])


@router.get("/operations", dependencies=[Live])
async def show_operations(request: Request, visitor: VisitorDep, services: ServicesDep) -> Response:
    """Processes, what waits, what is kept, and whether the installation is fit."""
    return page(
        request,
        "operations.html",
        operations=await services.console.operations.look(visitor.account_id),
        missing=await request.app.state.ready(),
    )


@router.get("/disclosures")
async def show_disclosures(request: Request, visitor: AuditorDep, services: ServicesDep) -> Response:
    """To whom the data of one patient went."""
    chosen, listed = _of_patient(request), None
    if chosen.patient_id is not None:
        asked = Asked(text_of(request, "sort"), text_of(request, "after"), _PRINTED)
        listed = await services.console.operations.disclosures(visitor.account_id, visitor.actor, chosen, asked)
    return page(request, "disclosures.html", listed=listed, given=given_of(request, "patient", "from", "to"))


@router.get("/disclosures/export")
async def export_disclosures(request: Request, visitor: AuditorDep, services: ServicesDep) -> Response:
    """The same, all of it, as CSV."""
    chosen = _of_patient(request)
    if chosen.patient_id is None:
        raise BadRequestError("Say whose disclosures: patient=<id>")
    lines = await services.console.operations.export_disclosures(visitor.account_id, visitor.actor, chosen)
    return _download(lines, "disclosures.csv", _EXPORTED[ExportForm.CSV])


def _download(lines: AsyncIterator[bytes], name: str, media_type: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(lines, media_type=media_type, headers=headers)


def _of_patient(request: Request) -> AuditFilter:
    return AuditFilter(
        patient_id=text_of(request, "patient"),
        start=moment_of(text_of(request, "from")),
        end=moment_of(text_of(request, "to")),
    )


def _chosen(request: Request) -> AuditFilter:
    return AuditFilter(
        actor=text_of(request, "actor"),
        action=text_of(request, "action"),
        patient_id=text_of(request, "patient"),
        subject=text_of(request, "subject"),
        start=moment_of(text_of(request, "from")),
        end=moment_of(text_of(request, "to")),
    )
