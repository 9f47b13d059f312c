"""Routes of patients."""

import asyncio
from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import Query, Request
from starlette.responses import Response

from chartwire.api.dependencies import CallerDep, IfMatchDep, PatientWriteLimit, ServicesDep, bare_etag, settings_of
from chartwire.api.errors import problem_responses
from chartwire.api.registry_bodies import (
    DemographicsBody,
    FacilityAnswer,
    FacilityList,
    OptOutAnswer,
    PageMeta,
    PatientAnswer,
    PatientBody,
    PatientFacilitiesBody,
    PatientList,
    PatientUpdateBody,
)
from chartwire.api.routing import new_router
from chartwire.errors import BadRequestError
from chartwire.formats.fhir_patient import known_patient
from chartwire.model.document import JsonObject
from chartwire.model.registry import Patient
from chartwire.services.patients import EXTERNAL_SOURCES, PatientDraft, PatientListing
from chartwire.store.patient_lists import PatientFilter, PatientWindow

_PATH = "/medical/v1/patient"
_DEFAULT_COUNT = 50
_MAX_COUNT = 500

router = new_router(_PATH, "patient")

FacilityId = Annotated[str | None, Query(alias="facilityId", description="Needed when the patient has several")]


@router.post("", status_code=201, dependencies=[PatientWriteLimit], responses=problem_responses(404))
async def create_patient(
    body: PatientBody,
    facility_id: Annotated[str, Query(alias="facilityId", min_length=1)],
    caller: CallerDep,
    services: ServicesDep,
) -> PatientAnswer:
    """Create a patient in a facility; one who is known already, by demographics, is returned unchanged."""
    patients = services.registry.patients
    return PatientAnswer.of(await patients.create(caller.account_id, caller.actor, facility_id, _draft(body)))


@router.get("", response_model=PatientList, responses=problem_responses(404))
async def list_patients(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    facility_id: Annotated[str | None, Query(alias="facilityId")] = None,
    filters: Annotated[
        str | None,
        Query(max_length=1000, description='Words, `"a phrase"`, `-without`, `this or that`; parts of ids and names'),
    ] = None,
    from_item: Annotated[str | None, Query(alias="fromItem", description="First of the next page")] = None,
    to_item: Annotated[str | None, Query(alias="toItem", description="Last of the previous page")] = None,
    count: Annotated[int | None, Query(ge=0, le=_MAX_COUNT, description="50 when a page is asked for")] = None,
) -> Response:
    """List patients, the newest first: all, or a page if any of `count`, `fromItem` and `toItem` is given."""
    window = _window(count, from_item, to_item)
    listing = await services.registry.patients.list(
        caller.account_id, caller.actor, PatientFilter(facility_id, filters), window
    )
    kept = {"facilityId": facility_id, "filters": filters, "count": count}
    address = settings_of(request).public_base + _PATH
    # A whole list may be long: rendered in a thread, it keeps nobody else waiting.
    body = await asyncio.to_thread(_render, listing, address, kept)
    return Response(body, media_type="application/json")


@router.post("/match", responses=problem_responses(404))
async def match_patient(body: DemographicsBody, caller: CallerDep, services: ServicesDep) -> PatientAnswer:
    """Find the patient who is known by these demographics."""
    patients = services.registry.patients
    return PatientAnswer.of(await patients.match(caller.account_id, caller.actor, body.to_model()))


@router.get("/external-id", responses=problem_responses(404))
async def get_patient_by_external_id(
    external_id: Annotated[str, Query(alias="externalId", min_length=1)],
    caller: CallerDep,
    services: ServicesDep,
    source: Annotated[str | None, Query(description=f"One of {', '.join(EXTERNAL_SOURCES)}")] = None,
) -> PatientAnswer:
    """Get the patient of an id of the customer's, or of an id in another system."""
    patients = services.registry.patients
    found = await patients.find_by_external_id(caller.account_id, caller.actor, external_id, source)
    return PatientAnswer.of(found)


@router.get("/{patient_id}", responses=problem_responses(404), response_model=PatientAnswer | JsonObject)
async def get_patient(
    patient_id: str,
    caller: CallerDep,
    services: ServicesDep,
    output: Annotated[Literal["fhir", "dto"], Query(description="`fhir`: a FHIR R4 Patient")] = "dto",
) -> PatientAnswer | JsonObject:
    """Get a patient."""
    found = await services.registry.patients.get(caller.account_id, caller.actor, patient_id)
    return known_patient(found) if output == "fhir" else PatientAnswer.of(found)


@router.put("/{patient_id}", dependencies=[PatientWriteLimit], responses=problem_responses(404, 412, 423))
async def update_patient(
    patient_id: str,
    body: PatientUpdateBody,
    caller: CallerDep,
    services: ServicesDep,
    if_match: IfMatchDep,
    facility_id: FacilityId = None,
) -> PatientAnswer:
    """Replace what is known of a patient: what is not in the body is gone."""
    changed = await services.registry.patients.update(
        caller.account_id, caller.actor, patient_id, _draft(body), facility_id, if_match or bare_etag(body.e_tag)
    )
    return PatientAnswer.of(changed)


@router.delete("/{patient_id}", status_code=204, responses=problem_responses(400, 404, 412))
async def delete_patient(
    patient_id: str,
    caller: CallerDep,
    services: ServicesDep,
    if_match: IfMatchDep,
    facility_id: FacilityId = None,
) -> None:
    """Delete a patient with documents, links and queries; messages that are kept lose what they tell of the patient."""
    await services.registry.patients.delete(caller.account_id, caller.actor, patient_id, facility_id, if_match)


@router.get("/{patient_id}/facility", responses=problem_responses(404))
async def get_patient_facilities(patient_id: str, caller: CallerDep, services: ServicesDep) -> FacilityList:
    """List the facilities of a patient."""
    records = await services.registry.patients.list_facilities(caller.account_id, caller.actor, patient_id)
    return FacilityList(facilities=[FacilityAnswer.of(record) for record in records])


@router.post("/{patient_id}/facility", responses=problem_responses(404, 412))
async def set_patient_facilities(
    patient_id: str, body: PatientFacilitiesBody, caller: CallerDep, services: ServicesDep, if_match: IfMatchDep
) -> FacilityList:
    """Replace the facilities of a patient."""
    records = await services.registry.patients.set_facilities(
        caller.account_id, caller.actor, patient_id, body.facility_ids, if_match or bare_etag(body.e_tag)
    )
    return FacilityList(facilities=[FacilityAnswer.of(record) for record in records])


@router.get("/{patient_id}/hie-opt-out", responses=problem_responses(404))
async def get_opt_out(patient_id: str, caller: CallerDep, services: ServicesDep) -> OptOutAnswer:
    """Get whether networks are asked about a patient."""
    return _opt_out(await services.registry.patients.get(caller.account_id, caller.actor, patient_id))


@router.put("/{patient_id}/hie-opt-out", responses=problem_responses(404))
async def set_opt_out(
    patient_id: str,
    hie_opt_out: Annotated[bool, Query(alias="hieOptOut")],
    caller: CallerDep,
    services: ServicesDep,
) -> OptOutAnswer:
    """Let networks be asked about a patient, or no longer."""
    patients = services.registry.patients
    return _opt_out(await patients.opt_out(caller.account_id, caller.actor, patient_id, hie_opt_out))


def _draft(body: PatientBody) -> PatientDraft:
    return PatientDraft(body.to_model(), body.external_id or None)


def _opt_out(patient: Patient) -> OptOutAnswer:
    state = "has opted out from" if patient.opted_out else "has opted in to"
    return OptOutAnswer(id=patient.id, hie_opt_out=patient.opted_out, message=f"Patient {state} the networks")


def _window(count: int | None, from_item: str | None, to_item: str | None) -> PatientWindow | None:
    if from_item is not None and to_item is not None:
        raise BadRequestError("Only one of fromItem and toItem can be given")
    if (count, from_item, to_item) == (None, None, None):
        return None
    return PatientWindow(_DEFAULT_COUNT if count is None else count, from_item, to_item)


def _render(listing: PatientListing, address: str, kept: dict[str, str | int | None]) -> bytes:
    """The answer; its links lead to the same list, `kept` being its filters."""
    filters = {name: value for name, value in kept.items() if value is not None}

    def link(name: str, item: str | None) -> str | None:
        return None if item is None else f"{address}?{urlencode({**filters, name: item})}"

    meta = PageMeta(
        items_on_page=len(listing.page.patients),
        items_in_total=listing.total,
        next_page=link("fromItem", listing.page.next_item),
        prev_page=link("toItem", listing.page.previous_item),
    )
    answer = PatientList(meta=meta, patients=[PatientAnswer.of(record) for record in listing.page.patients])
    return answer.model_dump_json(by_alias=True).encode()
