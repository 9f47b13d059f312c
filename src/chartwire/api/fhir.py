"""The stored documents as a FHIR R4 server shows them (IHE MHD ITI-67 and ITI-68)."""

from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from starlette.responses import Response

from chartwire import __version__
from chartwire.api.content import binary_answer, native_answer
from chartwire.api.dependencies import ServicesDep
from chartwire.api.errors import allowed_methods
from chartwire.api.fhir_routing import (
    BinaryReader,
    NotAcceptableError,
    ReferenceReader,
    new_fhir_router,
    outcome,
    outcome_responses,
    refuse_xml,
    resource_answer,
)
from chartwire.api.fhir_search import PARAMETERS, DocumentSearch, Parameters, parse_search
from chartwire.api.fhir_subscription_schemas import PARAMETERS as SUBSCRIPTION_PARAMETERS
from chartwire.api.negotiation import wants_fhir_json
from chartwire.api.tokens import SmartConfiguration, smart_configuration, token_router
from chartwire.errors import BadRequestError
from chartwire.formats.fhir_resources import (
    MEDIA_TYPE,
    SearchPage,
    binary_url,
    capability_statement,
    document_reference,
    document_reference_url,
    search_bundle,
)
from chartwire.formats.fhir_subscriptions import SERVER as SUBSCRIPTION_SERVER
from chartwire.formats.fhir_subscriptions import subscription_capability
from chartwire.model.document import Document, JsonObject
from chartwire.services.access import Grant
from chartwire.services.documents import DocumentService, Found

__all__ = ["router", "token_router"]

router = new_fhir_router()

_PAGE = "_page"
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
_RESOURCE: dict[str, Any] = {"content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_READABLE = {200: _RESOURCE, **outcome_responses(401, 403, 404, 406, 429)}
_SEARCHABLE = {200: _RESOURCE, **outcome_responses(400, 401, 403, 406, 429)}
_BINARY: dict[int | str, dict[str, Any]] = {
    200: {"description": "The bytes", "content": {"*/*": _BYTES, MEDIA_TYPE: {"schema": {"type": "object"}}}},
    206: {"description": "The range that was asked for", "content": {"*/*": _BYTES}},
    304: {"description": "The client has these bytes"},
    416: {"description": "The range is not within the document"},
    **outcome_responses(401, 403, 404, 406, 429),
}
_NAMED_PARAMETERS = [
    *((parameter.name, parameter.documentation) for parameter in PARAMETERS),
    ("_count", "Documents per page"),
    (_PAGE, "Opaque; in the link to the next page"),
]
_QUERY = {
    "parameters": [
        {"name": name, "in": "query", "description": description, "schema": {"type": "string"}}
        for name, description in _NAMED_PARAMETERS
    ]
}
_FORM = {
    "requestBody": {
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "properties": {
                        name: {"type": "string", "description": description} for name, description in _NAMED_PARAMETERS
                    },
                }
            }
        }
    }
}


@router.get("/metadata", responses={200: _RESOURCE, **outcome_responses(406)}, response_class=Response)
async def read_metadata(request: Request, services: ServicesDep) -> Response:
    """What this server can do; needs no key."""
    refuse_xml(request)
    service = services.documents
    base = service.public_base
    others = {SUBSCRIPTION_SERVER: subscription_capability(base, SUBSCRIPTION_PARAMETERS)}
    return resource_answer(capability_statement(base, __version__, service.started_at, PARAMETERS, others))


@router.get("/.well-known/smart-configuration", include_in_schema=False)
async def read_smart_configuration(services: ServicesDep) -> SmartConfiguration:
    """How to get an access token."""
    return smart_configuration(services.documents.public_base)


@router.get("/Binary/{document_id}", responses=_BINARY, response_class=Response)
async def read_binary(request: Request, document_id: str, services: ServicesDep, reader: BinaryReader) -> Response:
    """The bytes of a document, natively or (`Accept: application/fhir+json`) as a FHIR Binary."""
    return await _binary(request, document_id, services.documents, reader)


@router.head("/Binary/{document_id}", responses=_BINARY, response_class=Response)
async def head_binary(request: Request, document_id: str, services: ServicesDep, reader: BinaryReader) -> Response:
    """As GET, without the bytes."""
    return await _binary(request, document_id, services.documents, reader)


@router.get("/DocumentReference", responses=_SEARCHABLE, openapi_extra=_QUERY, response_class=Response)
async def search_by_url(request: Request, services: ServicesDep, reader: ReferenceReader) -> Response:
    """Find documents. Parameters that are not known are ignored."""
    return await _search(request, request.query_params.multi_items(), services.documents, reader)


@router.post("/DocumentReference/_search", responses=_SEARCHABLE, openapi_extra=_FORM, response_class=Response)
async def search_by_form(request: Request, services: ServicesDep, reader: ReferenceReader) -> Response:
    """Find documents by a form, which keeps identifiers of patients out of URLs."""
    fields = [(name, value) for name, value in (await request.form()).multi_items() if isinstance(value, str)]
    return await _search(request, [*request.query_params.multi_items(), *fields], services.documents, reader)


@router.get("/DocumentReference/{document_id}", responses=_READABLE, response_class=Response)
async def read_document_reference(
    request: Request, document_id: str, services: ServicesDep, reader: ReferenceReader
) -> Response:
    """What is known of a document."""
    refuse_xml(request)
    document = await services.documents.get_document(reader.account_id, reader.actor, document_id)
    return resource_answer(_reference(services.documents, document))


@router.api_route("/{path:path}", methods=_METHODS, include_in_schema=False)
async def refuse_anything_else(request: Request, path: str) -> Response:
    """Whatever else FHIR knows is not here, and what is here cannot be asked in every way."""
    del path
    allowed = allowed_methods(request)
    if allowed == sorted(_METHODS):  # those of this route: no other has the path
        return outcome(404, "This server has DocumentReference, Binary and Subscription alone")
    return outcome(405, "This cannot be done to this resource", {"allow": ", ".join(allowed)})


async def _binary(request: Request, document_id: str, service: DocumentService, reader: Grant) -> Response:
    document = await service.get_document(reader.account_id, reader.actor, document_id)
    accept = request.headers.get("accept", "")
    as_json = wants_fhir_json(accept, request.query_params.get("_format", ""), document.mime_type)
    if as_json is None:
        raise NotAcceptableError("The document is given in its own media type, or as a FHIR Binary in JSON")
    answer = binary_answer if as_json else native_answer
    return await answer(request, service, document)


async def _search(request: Request, parameters: Parameters, service: DocumentService, reader: Grant) -> Response:
    refuse_xml(request)
    if any("\0" in value for _, value in parameters):
        raise BadRequestError("A parameter holds a NUL character")
    page = next((value for name, value in parameters if name == _PAGE), None)
    parameters, after = service.pages.open(page) if page else (parameters, None)
    search = parse_search(parameters, service.public_base)
    found = await service.search(reader.account_id, reader.actor, search.chosen, search.patients, search.count, after)
    return resource_answer(_bundle(service, search, found, page))


def _bundle(service: DocumentService, search: DocumentSearch, found: Found, page: str | None) -> JsonObject:
    base = f"{service.public_base}/oauth/fhir/DocumentReference"
    links = {"self": f"{base}?{urlencode({_PAGE: page} if page else search.obeyed)}"}
    if found.has_more:
        links["next"] = f"{base}?{urlencode({_PAGE: service.pages.seal(search.obeyed, found.documents[-1].id)})}"
    resources = [
        (document_reference_url(service.public_base, document.id), _reference(service, document))
        for document in found.documents
    ]
    return search_bundle(SearchPage(found.total, links, resources))


def _reference(service: DocumentService, document: Document) -> JsonObject:
    return document_reference(document, binary_url(service.public_base, document.id))
