"""Patients: searched, looked at, asked for, opted out."""

from typing import Any

from fastapi import Request
from pydantic import ValidationError
from starlette.responses import Response

from chartwire.api.console.filters import asked_of, given_of, text_of
from chartwire.api.console.rendering import page
from chartwire.api.console.route import new_pages, see
from chartwire.api.console.visitor import Form, FormDep, Live, ReaderDep, SteererDep
from chartwire.api.dependencies import ServicesDep
from chartwire.api.registry_bodies import FacilityBody, PatientBody
from chartwire.errors import BadRequestError
from chartwire.model.demographics import STATES, TERRITORIES
from chartwire.model.registry import Gender
from chartwire.services.patients import PatientDraft
from chartwire.services.registry import FacilityDraft
from chartwire.store.patient_lists import PatientFilter

router = new_pages()

_QUERIES = 20
_GENDERS = {Gender.F: "Female", Gender.M: "Male", Gender.O: "Other", Gender.U: "Unknown"}
_PLACE = ("address_line1", "address_line2", "city", "state", "zip")


@router.get("/patients")
async def list_patients(request: Request, visitor: ReaderDep, services: ServicesDep) -> Response:
    """The patients that are found, the newest first."""
    chosen = PatientFilter(text_of(request, "facility"), text_of(request, "text"))
    listed = await services.console.lists.patients(visitor.account_id, visitor.actor, chosen, asked_of(request))
    return page(
        request,
        "patients.html",
        listed=listed,
        given=given_of(request, "text", "facility"),
        facilities=await services.registry.list_facilities(visitor.account_id),
        can_try=services.console.trial.is_possible,
    )


@router.get("/patients/new")
async def show_new_patient(request: Request, visitor: SteererDep, services: ServicesDep) -> Response:
    """The form of a new patient."""
    facilities = await services.registry.list_facilities(visitor.account_id)
    return _patient_form(request, facilities, {}, None)


@router.post("/patients")
async def create_patient(request: Request, form: FormDep, visitor: SteererDep, services: ServicesDep) -> Response:
    """Add a patient, or find the one who is known by these demographics."""
    facilities = await services.registry.list_facilities(visitor.account_id)
    try:
        body = _patient_body(form)
        draft = PatientDraft(body.to_model(), body.external_id or None)
        patients = services.registry.patients
        patient = await patients.create(visitor.account_id, visitor.actor, form.text("facility"), draft)
    except (ValidationError, BadRequestError) as error:
        return _patient_form(request, facilities, form.fields, _complaint(error))
    return see(f"/console/patients/{patient.id}")


@router.post("/facilities")
async def create_facility(request: Request, form: FormDep, visitor: SteererDep, services: ServicesDep) -> Response:
    """Add a facility, which every patient belongs to."""
    try:
        body = FacilityBody(name=form.text("name"), npi=form.text("npi"), address=_place(form))  # type: ignore[arg-type]  # pydantic reads the fields
        draft = FacilityDraft(body.name, body.npi, body.address.to_model())
        await services.registry.create_facility(visitor.account_id, draft)
    except (ValidationError, BadRequestError) as error:
        facilities = await services.registry.list_facilities(visitor.account_id)
        return _patient_form(request, facilities, form.fields, _complaint(error))
    return see("/console/patients/new?note=saved")


@router.get("/patients/{patient_id}", dependencies=[Live])
async def show_patient(request: Request, patient_id: str, visitor: ReaderDep, services: ServicesDep) -> Response:
    """Who it is, what was asked, what is here."""
    account_id, actor = visitor.account_id, visitor.actor
    again = request.headers.get("hx-request") == "true"
    patient = await services.registry.patients.look(account_id, actor, patient_id, again=again)
    text = text_of(request, "text")
    return page(
        request,
        "patient.html",
        patient=patient,
        genders=_GENDERS,
        queries=await services.documents.query_timeline(account_id, patient_id, _QUERIES),
        listed=await services.console.lists.documents_of(
            account_id, actor, patient_id, text, asked_of(request), again=again
        ),
        given=given_of(request, "text"),
    )


@router.post("/patients/{patient_id}/ask")
async def ask(patient_id: str, visitor: SteererDep, services: ServicesDep) -> Response:
    """Ask every network for the patient's documents."""
    await services.documents.start_query(
        visitor.account_id, visitor.actor, patient_id, None, metadata=None, override=False
    )
    return see(f"/console/patients/{patient_id}?note=asked")


@router.post("/patients/{patient_id}/consent")
async def set_consent(patient_id: str, form: FormDep, visitor: SteererDep, services: ServicesDep) -> Response:
    """Let networks be asked about the patient, or no longer."""
    opted_out = form.text("opted_out") == "yes"
    await services.registry.patients.opt_out(visitor.account_id, visitor.actor, patient_id, opted_out)
    return see(f"/console/patients/{patient_id}?note={'opted-out' if opted_out else 'opted-in'}")


def _patient_form(request: Request, facilities: Any, given: Any, problem: str | None) -> Response:
    return page(
        request,
        "patient_new.html",
        200 if problem is None else 400,
        facilities=facilities,
        given=given,
        problem=problem,
        genders=_GENDERS,
        states=sorted(STATES | TERRITORIES),
    )


def _patient_body(form: Form) -> PatientBody:
    return PatientBody.model_validate(
        {
            "first_name": form.text("first_name"),
            "last_name": form.text("last_name"),
            "dob": form.text("dob"),
            "gender_at_birth": form.text("gender"),
            "address": [_place(form)],
            "external_id": form.text("external_id"),
        },
        by_name=True,
    )


def _place(form: Form) -> dict[str, str]:
    return {name: form.text(name) for name in _PLACE}


def _complaint(error: ValidationError | BadRequestError) -> str:
    """What is wrong, by field; never what was typed."""
    if isinstance(error, BadRequestError):
        return str(error)
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = str(first["loc"][-1]).replace("_", " ").replace("Line", " line ")
    return f"{field}: {first['msg'].removeprefix('Value error, ')}"
