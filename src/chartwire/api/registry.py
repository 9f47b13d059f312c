"""Routes of the organization and of its facilities."""

from typing import Annotated, Any

from fastapi import Header
from starlette.responses import Response

from chartwire.api.dependencies import CallerDep, IfMatchDep, ServicesDep, bare_etag
from chartwire.api.errors import problem_responses
from chartwire.api.registry_bodies import (
    FacilityAnswer,
    FacilityBody,
    FacilityList,
    FacilityUpdateBody,
    OrganizationAnswer,
    OrganizationBody,
    OrganizationUpdateBody,
)
from chartwire.api.routing import new_router
from chartwire.services.registry import FacilityDraft, OrganizationDraft

organization_router = new_router("/medical/v1/organization", "organization")
facility_router = new_router("/medical/v1/facility", "facility")

_NONE_YET: dict[int | str, dict[str, Any]] = {
    200: {"description": "The organization; nothing if there is none", "content": {"text/plain": {}}}
}


@organization_router.post("", status_code=201, responses=problem_responses(400))
async def create_organization(body: OrganizationBody, caller: CallerDep, services: ServicesDep) -> OrganizationAnswer:
    """Create the account's organization; there can be one."""
    return OrganizationAnswer.of(await services.registry.create_organization(caller.account_id, _organization(body)))


@organization_router.get("", response_model=OrganizationAnswer, responses=_NONE_YET)
async def get_organization(caller: CallerDep, services: ServicesDep) -> OrganizationAnswer | Response:
    """Get the account's organization: an empty body, which clients take for "none yet", if there is none."""
    record = await services.registry.get_organization(caller.account_id)
    return Response(media_type="text/plain") if record is None else OrganizationAnswer.of(record)


@organization_router.put("/{organization_id}", responses=problem_responses(404, 412))
async def update_organization(
    organization_id: str,
    body: OrganizationUpdateBody,
    caller: CallerDep,
    services: ServicesDep,
    if_match: IfMatchDep,
    e_tag: Annotated[str | None, Header(alias="ETag", description="As `If-Match`, for one client's sake")] = None,
) -> OrganizationAnswer:
    """Replace the organization."""
    version = if_match or bare_etag(e_tag or body.e_tag)
    record = await services.registry.update_organization(
        caller.account_id, organization_id, _organization(body), version
    )
    return OrganizationAnswer.of(record)


@facility_router.post("", status_code=201, responses=problem_responses(400))
async def create_facility(body: FacilityBody, caller: CallerDep, services: ServicesDep) -> FacilityAnswer:
    """Create a facility; its NPI must be new to the account."""
    return FacilityAnswer.of(await services.registry.create_facility(caller.account_id, _facility(body)))


@facility_router.get("")
async def list_facilities(caller: CallerDep, services: ServicesDep) -> FacilityList:
    """List the account's facilities by ascending id."""
    records = await services.registry.list_facilities(caller.account_id)
    return FacilityList(facilities=[FacilityAnswer.of(record) for record in records])


@facility_router.get("/{facility_id}", responses=problem_responses(404))
async def get_facility(facility_id: str, caller: CallerDep, services: ServicesDep) -> FacilityAnswer:
    """Get a facility."""
    return FacilityAnswer.of(await services.registry.get_facility(caller.account_id, facility_id))


@facility_router.put("/{facility_id}", responses=problem_responses(404, 412))
async def update_facility(
    facility_id: str, body: FacilityUpdateBody, caller: CallerDep, services: ServicesDep, if_match: IfMatchDep
) -> FacilityAnswer:
    """Replace a facility; its NPI cannot change."""
    record = await services.registry.update_facility(
        caller.account_id, facility_id, _facility(body), if_match or bare_etag(body.e_tag)
    )
    return FacilityAnswer.of(record)


@facility_router.delete("/{facility_id}", status_code=204, responses=problem_responses(400, 404, 412))
async def delete_facility(facility_id: str, caller: CallerDep, services: ServicesDep, if_match: IfMatchDep) -> None:
    """Delete a facility that has no patients."""
    await services.registry.delete_facility(caller.account_id, facility_id, if_match)


def _organization(body: OrganizationBody) -> OrganizationDraft:
    return OrganizationDraft(body.name, body.type, body.location.to_model())


def _facility(body: FacilityBody) -> FacilityDraft:
    return FacilityDraft(body.name, body.npi, body.address.to_model(), body.tin, body.active)
