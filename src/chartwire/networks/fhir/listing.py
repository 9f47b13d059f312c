"""What documents there are: a search of DocumentReference (MHD ITI-67, US Core)."""

from collections import Counter
from collections.abc import Mapping

import orjson

from chartwire.errors import IssueCode, PermanentNetworkError
from chartwire.model.document import JsonObject
from chartwire.networks.fhir.bundles import resource, search
from chartwire.networks.fhir.client import FhirClient
from chartwire.networks.fhir.documents import Origin, read_documents
from chartwire.networks.fhir.failures import RefusedError
from chartwire.networks.network import Issue, Listing

# MHD asks for `status`, US Core promises `patient` alone; some servers answer only when a category is named.
_WAYS_TO_ASK: tuple[Mapping[str, str], ...] = (
    {"status": "current,superseded"},
    {},
    {"category": "clinical-note"},
)
_LARGEST_LIST = 64 * 1024 * 1024
"""Bytes of all pages without their attachments' data: some twenty thousand documents, held in memory at one time."""
_TRY_ANOTHER_WAY = frozenset({400, 405, 406, 409, 412, 422, 501})


async def list_documents(
    client: FhirClient, patient_id: str, *, page_size: int, max_pages: int, seconds: float
) -> Listing:
    """All documents of one remote patient. `seconds` for each page."""
    common = {"patient": patient_id, "_count": str(page_size)}
    refusals: list[RefusedError] = []
    for way in _WAYS_TO_ASK:
        try:
            return await _list(client, patient_id, common | dict(way), max_pages, seconds)
        except RefusedError as refused:
            if refused.status not in _TRY_ANOTHER_WAY:
                raise
            refusals.append(refused)
    raise refusals[0]


async def _list(
    client: FhirClient, patient_id: str, parameters: Mapping[str, str], max_pages: int, seconds: float
) -> Listing:
    references: list[JsonObject] = []
    size = 0
    issues: Counter[IssueCode] = Counter()
    async for page in search(client, "DocumentReference", parameters, max_pages=max_pages, seconds=seconds):
        issues.update(dict.fromkeys(page.trouble, 0))
        found = [_without_data(resource(entry)) for entry in page.entries]
        size += len(orjson.dumps(found))
        if size > _LARGEST_LIST:
            raise PermanentNetworkError(IssueCode.TOO_LARGE, "the list of documents is too large")
        references += found
    documents, left_out = read_documents(references, patient_id, Origin(client.resolve, client.trusts))
    issues.update(left_out)
    return Listing(documents, tuple(Issue(code, count) for code, count in issues.items()))


def _without_data(reference: JsonObject) -> JsonObject:
    """Attachments that lie inside their entries are read again when their turn comes: memory holds one page of them."""
    contents = reference.get("content")
    for content in contents if isinstance(contents, list) else ():
        attachment = content.get("attachment") if isinstance(content, dict) else None
        if isinstance(attachment, dict) and attachment.get("data"):
            attachment["data"] = "held by the server"
    return reference
