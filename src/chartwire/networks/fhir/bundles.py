"""Searches: `searchset` Bundles, page after page.

A `next` link is followed as it is, within bounds: trusted origins, no page twice, a cap on pages. The rest of a search
whose further pages fail for good is reported as an issue; one that may work later raises.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from yarl import URL

from chartwire.errors import IssueCode, PermanentNetworkError
from chartwire.model.document import JsonObject
from chartwire.networks.fhir.client import FhirClient
from chartwire.networks.fhir.datatypes import has_errors, objects, text
from chartwire.networks.fhir.failures import RefusedError

_POST_NOT_TAKEN = frozenset({404, 405, 406, 411, 415, 501})


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a search. `trouble`: why no further page follows though there is one, or that a part is missing."""

    entries: tuple[JsonObject, ...]
    trouble: tuple[IssueCode, ...] = ()


async def search(
    client: FhirClient, resource_type: str, parameters: Mapping[str, str], *, max_pages: int, seconds: float
) -> AsyncIterator[Page]:
    """The pages of a search; the first that cannot be had raises. `seconds` for each page."""
    bundle = await _ask_first(client, resource_type, parameters, seconds)
    seen: set[URL] = set()
    for number in range(1, max_pages + 1):
        page, following = _read(client, bundle, seen)
        if following is not None and number == max_pages:
            page, following = _with_trouble(page, IssueCode.TOO_MANY_PAGES), None
        if following is not None:
            try:
                bundle = await client.get_json(following, seconds)
            except PermanentNetworkError as error:
                page, following = _with_trouble(page, error.code), None
        yield page
        if following is None:
            return


async def _ask_first(
    client: FhirClient, resource_type: str, parameters: Mapping[str, str], seconds: float
) -> JsonObject:
    try:
        return await client.post_form(f"{resource_type}/_search", parameters, seconds)
    except RefusedError as refused:
        if refused.status not in _POST_NOT_TAKEN:
            raise
    query = URL.build(query=dict(parameters)).raw_query_string
    return await client.get_json(f"{resource_type}?{query}", seconds)


def _read(client: FhirClient, bundle: JsonObject, seen: set[URL]) -> tuple[Page, URL | None]:
    entries, trouble = read_entries(bundle)
    page = Page(entries, (IssueCode.SERVER_ERROR,) if trouble else ())
    link = _next_link(bundle)
    if link is None:
        return page, None
    try:
        url = client.resolve(link)
    except ValueError:
        return _with_trouble(page, IssueCode.INVALID_ANSWER), None
    if url in seen:
        return _with_trouble(page, IssueCode.INVALID_ANSWER), None
    if not client.trusts(url):
        return _with_trouble(page, IssueCode.FOREIGN_ORIGIN), None
    seen.add(url)
    return page, url


def read_entries(bundle: JsonObject) -> tuple[tuple[JsonObject, ...], bool]:
    """The entries of a Bundle that hold what was searched, and whether the server reported an error among them.

    Raises `PermanentNetworkError` if it is no Bundle: an OperationOutcome with status 200, say.
    """
    if bundle.get("resourceType") != "Bundle":
        raise PermanentNetworkError(IssueCode.INVALID_ANSWER, "the answer is not a Bundle")
    entries = objects(bundle.get("entry"))
    outcomes = [resource(entry) for entry in entries if resource(entry).get("resourceType") == "OperationOutcome"]
    found = tuple(entry for entry in entries if resource(entry).get("resourceType") != "OperationOutcome")
    return found, any(has_errors(outcome) for outcome in outcomes)


def resource(entry: JsonObject) -> JsonObject:
    """The resource of an entry, or an empty one."""
    held = entry.get("resource")
    return held if isinstance(held, dict) else {}


def _next_link(bundle: JsonObject) -> str | None:
    return next((text(link.get("url")) for link in objects(bundle.get("link")) if link.get("relation") == "next"), None)


def _with_trouble(page: Page, code: IssueCode) -> Page:
    return Page(page.entries, (*page.trouble, code))
