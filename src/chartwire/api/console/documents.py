"""A document: what is known of it, its content to look at, the file."""

from enum import StrEnum

from fastapi import Request
from starlette.responses import Response

from chartwire.api.console.filters import asked_of, given_of, members_of, text_of
from chartwire.api.console.rendering import page
from chartwire.api.console.route import new_pages
from chartwire.api.console.visitor import ReaderDep
from chartwire.api.content import converted_answer, native_answer
from chartwire.api.dependencies import ServicesDep
from chartwire.errors import NotFoundError
from chartwire.formats.ccda_html import CONTENT_SECURITY_POLICY
from chartwire.model.document import Document, DocumentStatus
from chartwire.services.conversion import MEDIA_TYPES
from chartwire.services.links import Representation
from chartwire.store.documents import DocumentFilter

router = new_pages()

_FRAMED = {"x-frame-options": "SAMEORIGIN"}
_IMAGES = frozenset({"image/gif", "image/jpeg", "image/png"})


class Shown(StrEnum):
    """How a document is looked at; `NOT`: it can only be taken along."""

    CCDA = "ccda"
    FRAME = "frame"
    IMAGE = "image"
    NOT = "not"


@router.get("/documents")
async def list_documents(request: Request, visitor: ReaderDep, services: ServicesDep) -> Response:
    """Documents of every patient, the newest first."""
    patient_id, network = text_of(request, "patient"), text_of(request, "network")
    chosen = DocumentFilter(
        patient_ids=(patient_id,) if patient_id else None,
        statuses=members_of(DocumentStatus, request.query_params.getlist("state")),
        content=text_of(request, "text"),
    )
    reports = await services.console.overview.networks(visitor.account_id)
    return page(
        request,
        "documents.html",
        listed=await services.console.lists.documents(
            visitor.account_id, visitor.actor, chosen, network, asked_of(request)
        ),
        given=given_of(request, "text", "network", "state", "patient"),
        networks=[report.name for report in reports],
        states=tuple(DocumentStatus),
    )


@router.get("/documents/{document_id}")
async def show_document(request: Request, document_id: str, visitor: ReaderDep, services: ServicesDep) -> Response:
    """What is known of a document, and the document."""
    document = await services.documents.get_document(visitor.account_id, visitor.actor, document_id)
    return page(request, "document.html", document=document, shown=_how_shown(document))


@router.get("/documents/{document_id}/view")
async def view(request: Request, document_id: str, visitor: ReaderDep, services: ServicesDep) -> Response:
    """The content, for a frame or a picture of our own page: it can do nothing there."""
    document = await services.documents.get_document(visitor.account_id, visitor.actor, document_id)
    match _how_shown(document):
        case Shown.CCDA:
            html = await services.documents.convert(document, Representation.HTML)
            answer = converted_answer(html, MEDIA_TYPES[Representation.HTML], f"{document.id}.html")
            answer.headers["content-security-policy"] = f"sandbox; {CONTENT_SECURITY_POLICY}; frame-ancestors 'self'"
        case Shown.NOT:
            raise NotFoundError
        case _:
            answer = await native_answer(request, services.documents, document)
            policy = answer.headers.get("content-security-policy", "default-src 'none'; object-src 'self'")
            answer.headers["content-security-policy"] = f"{policy}; frame-ancestors 'self'"
    answer.headers.update(_FRAMED)
    return answer


@router.get("/documents/{document_id}/file")
async def download(request: Request, document_id: str, visitor: ReaderDep, services: ServicesDep) -> Response:
    """The bytes, to be taken along."""
    document = await services.documents.get_document(visitor.account_id, visitor.actor, document_id)
    answer = await native_answer(request, services.documents, document)
    if "content-disposition" in answer.headers:
        answer.headers["content-disposition"] = answer.headers["content-disposition"].replace("inline", "attachment", 1)
    return answer


def _how_shown(document: Document) -> Shown:
    if document.mime_type == "application/xml":
        return Shown.CCDA
    if document.mime_type in _IMAGES:
        return Shown.IMAGE
    return Shown.FRAME if document.mime_type in {"application/pdf", "text/plain"} else Shown.NOT
