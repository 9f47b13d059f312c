"""Routes of documents: asking for them, listing them, links to them."""

import asyncio
import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

import orjson
from fastapi import Query, Request
from pydantic import BeforeValidator, WithJsonSchema
from starlette.responses import Response

from chartwire.api.content import converted_answer, native_answer
from chartwire.api.dependencies import CallerDep, QueryStartLimit, ServicesDep, TraceDep
from chartwire.api.document_bodies import (
    BulkAnswer,
    DocumentList,
    MetadataBody,
    ProgressAnswer,
    StageAnswer,
    UrlAnswer,
)
from chartwire.api.errors import problem_responses
from chartwire.api.routing import new_router
from chartwire.formats.fhir_resources import binary_url, document_reference
from chartwire.model.document import Document, JsonObject, QueryStatus
from chartwire.model.message import DocumentPart, document_dto
from chartwire.services.conversion import MEDIA_TYPES
from chartwire.services.documents import QueryProgress
from chartwire.services.links import Representation

router = new_router("/medical/v1/document", "document")
download_router = new_router("/download", "document")

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The document", "content": {"*/*": _BYTES}},
    206: {"description": "The range that was asked for", "content": {"*/*": _BYTES}},
    304: {"description": "The client has these bytes"},
    416: {"description": "The range is not within the document"},
}


def _parse_date(value: object) -> object:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        raise ValueError("must be a date, YYYY-MM-DD")
    return value


Day = Annotated[date, BeforeValidator(_parse_date), WithJsonSchema({"type": "string", "format": "date"})]
PatientId = Annotated[str, Query(alias="patientId", min_length=1)]
FileName = Annotated[str, Query(alias="fileName", min_length=1)]
ConversionType = Annotated[
    Literal["html", "pdf"] | None, Query(alias="conversionType", description="Make a C-CDA document readable")
]


@router.get("", responses=problem_responses(404), response_model=DocumentList)
async def list_documents(
    caller: CallerDep,
    services: ServicesDep,
    patient_id: PatientId,
    date_from: Annotated[Day | None, Query(alias="dateFrom")] = None,
    date_to: Annotated[Day | None, Query(alias="dateTo", description="This day is within")] = None,
    content: Annotated[str | None, Query(min_length=3, description="Looked for in titles, types, authors")] = None,
    output: Annotated[Literal["fhir", "dto"], Query(description="`dto`: flat records")] = "fhir",
) -> Response:
    """List the documents of a patient."""
    service = services.documents
    found = await service.list_documents(
        caller.account_id, caller.actor, patient_id, _start(date_from), _end(date_to), content
    )
    # A long list is rendered in a thread: it keeps nobody else waiting.
    if output == "fhir":
        return await asyncio.to_thread(lambda: _json(_fhir_list(found, service.public_base)))
    progress = await service.query_progress(caller.account_id, patient_id)
    return await asyncio.to_thread(lambda: _json(_flat_list(found, progress, service.public_base)))


@router.post("/query", dependencies=[QueryStartLimit], responses=problem_responses(404))
async def start_query(
    caller: CallerDep,
    services: ServicesDep,
    patient_id: PatientId,
    trace: TraceDep,
    facility_id: Annotated[str | None, Query(alias="facilityId")] = None,
    override: Annotated[bool, Query(description="Fetch documents again that are here already")] = False,
    body: MetadataBody | None = None,
) -> ProgressAnswer:
    """Ask every network for a patient's documents; while that is under way, its progress."""
    progress = await services.documents.start_query(
        caller.account_id, caller.actor, patient_id, facility_id, body.given() if body else None, override, trace
    )
    return ProgressAnswer.of(progress)


@router.get("/query", responses=problem_responses(404))
async def get_query_status(caller: CallerDep, services: ServicesDep, patient_id: PatientId) -> ProgressAnswer:
    """How far the patient's last document query is."""
    return ProgressAnswer.of(await services.documents.query_progress(caller.account_id, patient_id))


@router.get("/download-url", responses=problem_responses(404))
@router.get("/downloadUrl", responses=problem_responses(404), deprecated=True, operation_id="get_download_url_2023")
async def get_download_url(
    caller: CallerDep, services: ServicesDep, file_name: FileName, conversion_type: ConversionType = None
) -> UrlAnswer:
    """Get a link to a document by its file name."""
    wanted = Representation(conversion_type or Representation.ORIGINAL)
    return UrlAnswer(url=await services.documents.download_url(caller.account_id, caller.actor, file_name, wanted))


@router.post("/download-url/bulk", responses=problem_responses(404))
async def send_download_urls(
    caller: CallerDep,
    services: ServicesDep,
    patient_id: PatientId,
    trace: TraceDep,
    body: MetadataBody | None = None,
) -> BulkAnswer:
    """Have links to all current documents of a patient sent by webhook."""
    request_id = await services.documents.bulk_download_urls(
        caller.account_id, caller.actor, patient_id, body.given() if body else None, trace
    )
    return BulkAnswer(status=QueryStatus.PROCESSING, request_id=request_id)


@download_router.get(
    "/{document_id}", responses={**_CONTENT, **problem_responses(400, 403, 404)}, response_class=Response
)
@download_router.head(
    "/{document_id}", responses={**_CONTENT, **problem_responses(400, 403, 404)}, response_class=Response
)
async def download(
    request: Request,
    document_id: str,
    services: ServicesDep,
    representation: Annotated[str, Query(alias="type", min_length=1)],
    expires: Annotated[str, Query(min_length=1)],
    signature: Annotated[str, Query(min_length=1)],
) -> Response:
    """Read a document by a link that was handed out; needs no key."""
    service = services.documents
    document, wanted = await service.open_link(document_id, representation, expires, signature)
    if wanted is Representation.ORIGINAL:
        return await native_answer(request, service, document)
    content = await service.convert(document, wanted)
    stem = document.file_name.removesuffix(".xml")
    return converted_answer(content, MEDIA_TYPES[wanted], f"{stem}.{wanted}")


def _fhir_list(found: list[Document], public_base: str) -> JsonObject:
    return {"documents": [document_reference(each, binary_url(public_base, each.id)) for each in found]}


def _flat_list(found: list[Document], progress: QueryProgress | None, public_base: str) -> JsonObject:
    shown = ProgressAnswer.of(progress)
    is_under_way = shown.download is not None and shown.download.status is QueryStatus.PROCESSING
    return {
        "queryStatus": QueryStatus.PROCESSING if is_under_way else QueryStatus.COMPLETED,  # of 2023: it never failed
        **_stage("download", shown.download),
        **_stage("convert", shown.convert),
        "documents": [
            document_dto(None, DocumentPart(document, binary_url(public_base, document.id))) for document in found
        ],
    }


def _stage(name: str, stage: StageAnswer | None) -> JsonObject:
    return {} if stage is None else {name: stage.model_dump(by_alias=True, mode="json")}


def _json(body: JsonObject) -> Response:
    """FHIR bodies leave as bytes: they are built right, and checking thousands of them again would cost."""
    return Response(orjson.dumps(body), media_type="application/json")


def _start(day: date | None) -> datetime | None:
    return None if day is None else datetime(day.year, day.month, day.day, tzinfo=UTC)


def _end(day: date | None) -> datetime | None:
    """The first moment after a day; the last day that there is has none."""
    if day is None or day == date.max:
        return None
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
