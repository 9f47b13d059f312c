"""Stored documents as FHIR R4 (4.0.1) resources, by IHE MHD 4.2 (ITI-67, ITI-68) and the API's own contract.

Every function returns a plain JSON object; keys without a value are left out, because FHIR knows no null and no empty
arrays (FHIR R4 §2.6.2).
"""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from chartwire.clock import iso
from chartwire.model.document import CodeableConcept, Coding, Document, JsonObject

MEDIA_TYPE = "application/fhir+json"
DATA_SOURCE = "https://public.metriport.com/fhir/StructureDefinition/data-source.json"
URI_SYSTEM = "urn:ietf:rfc:3986"

_FHIR_VERSION = "4.0.1"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_OID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
_SPACES = re.compile(r"\s")
_DATA_SOURCE_EXTENSION = {"url": DATA_SOURCE, "valueCoding": {"system": DATA_SOURCE, "code": "METRIPORT"}}
_SMART_SERVICE = "http://terminology.hl7.org/CodeSystem/restful-security-service"
_OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"


@dataclass(frozen=True, slots=True)
class SearchParameter:
    """A search parameter that the server obeys; `type` is FHIR's (`token`, `reference`, `date`, `string`)."""

    name: str
    type: str
    documentation: str


@dataclass(frozen=True, slots=True)
class SearchPage:
    """A page of a search: how many match in all, links by relation (`self`, `next`), resources by their full URL."""

    total: int
    links: Mapping[str, str]
    resources: Sequence[tuple[str, JsonObject]] = ()


def binary_url(public_base: str, document_id: str) -> str:
    """Where the bytes of a document are: its `location`."""
    return f"{public_base}/oauth/fhir/Binary/{document_id}"


def document_reference_url(public_base: str, document_id: str) -> str:
    """Where a document's DocumentReference is."""
    return f"{public_base}/oauth/fhir/DocumentReference/{document_id}"


def document_reference(document: Document, location: str) -> JsonObject:
    """A DocumentReference of a stored document. `size` and `hash` speak of the bytes that `location` gives."""
    return _compact(
        resourceType="DocumentReference",
        id=document.id,
        meta={"lastUpdated": iso(document.created_at), "source": _SPACES.sub("%20", document.file_name)},
        extension=[_DATA_SOURCE_EXTENSION],
        masterIdentifier=master_identifier(document),
        identifier=[{"use": "official", **_uri_identifier(f"urn:uuid:{document.id}")}],
        status=document.status.value,
        type=_concept(document.type),
        category=_listed(_concept(document.category)),
        subject=_patient(document),
        date=iso(document.indexed or document.created_at),
        # Networks name authors without saying whether they are people or organizations: a name is all that is known.
        author=[{"display": document.author}] if document.author else None,
        relatesTo=[_replaces(old) for old in document.replaces] or None,
        description=document.description,
        content=[_content(document, location)],
        context=_compact(period=_period(document), sourcePatientInfo=_patient(document)),
    )


def master_identifier(document: Document) -> JsonObject:
    """The author's identifier of the document; ours if the author gave none, because MHD wants one always."""
    return as_identifier(document.master_identifier or document.id)


def as_identifier(value: str) -> JsonObject:
    """A normalised master identifier (`model.document.normalise_identifier`) as FHIR writes it.

    `root^extension` is a system and a value; OIDs and UUIDs become URNs (FHIR R4 §2.24.0.13, MHD 4.2 appendix Z).
    """
    root, caret, extension = value.partition("^")
    if caret and extension and (urn := _urn(root)):
        return {"system": urn, "value": extension}
    if urn := _urn(value):
        return _uri_identifier(urn)
    return _uri_identifier(value) if _URI.fullmatch(value) else {"value": value}


def search_bundle(page: SearchPage) -> JsonObject:
    """A `searchset` Bundle; an empty one is a good answer (MHD ITI-67)."""
    return _compact(
        resourceType="Bundle",
        type="searchset",
        total=page.total,
        link=[{"relation": relation, "url": url} for relation, url in page.links.items()],
        entry=[{"fullUrl": url, "resource": resource, "search": {"mode": "match"}} for url, resource in page.resources]
        or None,
    )


def operation_outcome(code: str, diagnostics: str, expression: str | None = None) -> JsonObject:
    """An error as FHIR tells it; `code` is of the value set `issue-type`, `expression` names an element."""
    places = None if expression is None else [expression]
    issue = _compact(severity="error", code=code, diagnostics=diagnostics, expression=places)
    return {"resourceType": "OperationOutcome", "issue": [issue]}


def binary_envelope(document: Document) -> tuple[bytes, bytes]:
    """What stands before and after the Base64 of the bytes in a Binary resource as JSON."""
    head = orjson.dumps(
        {
            "resourceType": "Binary",
            "id": document.id,
            "meta": {"lastUpdated": iso(document.created_at)},
            "contentType": document.mime_type,
            "data": "",
        }
    )
    return head.removesuffix(b'"}'), b'"}'


def capability_statement(
    public_base: str,
    version: str,
    released: datetime,
    parameters: Iterable[SearchParameter],
    others: Mapping[str, JsonObject],
) -> JsonObject:
    """What the server can do, and nothing that it cannot.

    `others` are resources beside documents, each by the URL of the CapabilityStatement that they fulfil.
    """
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": iso(released),
        "kind": "instance",
        "instantiates": list(others),
        "software": {"name": "Chartwire", "version": version},
        "implementation": {"description": "Documents of this installation", "url": f"{public_base}/oauth/fhir"},
        "fhirVersion": _FHIR_VERSION,
        "format": [MEDIA_TYPE],
        "rest": [
            {
                "mode": "server",
                "security": _security(public_base),
                "resource": [_document_references(parameters), _binaries(), *others.values()],
            }
        ],
    }


def _document_references(parameters: Iterable[SearchParameter]) -> JsonObject:
    return {
        "type": "DocumentReference",
        "interaction": [{"code": "read"}, {"code": "search-type"}],
        "versioning": "no-version",
        "searchParam": [
            {"name": item.name, "type": item.type, "documentation": item.documentation} for item in parameters
        ],
    }


def _binaries() -> JsonObject:
    return {
        "type": "Binary",
        "interaction": [{"code": "read"}],
        "versioning": "no-version",
        "documentation": "Native bytes by default, FHIR JSON on demand; Range, HEAD and conditional requests.",
    }


def _security(public_base: str) -> JsonObject:
    return {
        "cors": True,
        "service": [{"coding": [{"system": _SMART_SERVICE, "code": "SMART-on-FHIR"}]}],
        "description": "An API key as x-api-key, or a bearer token by OAuth 2.0 client credentials.",
        "extension": [{"url": _OAUTH_URIS, "extension": [{"url": "token", "valueUri": f"{public_base}/oauth/token"}]}],
    }


def _content(document: Document, location: str) -> JsonObject:
    return _compact(
        extension=[_DATA_SOURCE_EXTENSION],
        attachment=_compact(
            contentType=document.mime_type,
            url=location,
            size=document.size,
            hash=base64.b64encode(bytes.fromhex(document.sha1)).decode(),
            title=document.file_name,
            creation=iso(document.indexed) if document.indexed else None,
        ),
        format=_coding(document.format) if document.format else None,
    )


def _patient(document: Document) -> JsonObject:
    return {"reference": f"Patient/{document.patient_id}", "type": "Patient"}


def _replaces(old: str) -> JsonObject:
    """The earlier version by its identifier, because it need not be here."""
    return {"code": "replaces", "target": {"type": "DocumentReference", "identifier": as_identifier(old)}}


def _period(document: Document) -> JsonObject | None:
    start, end = document.period_start, document.period_end
    return _compact(start=iso(start) if start else None, end=iso(end) if end else None) or None


def _concept(concept: CodeableConcept | None) -> JsonObject | None:
    if concept is None:
        return None
    codings = [coding for each in concept.coding if (coding := _coding(each))]
    return _compact(coding=codings or None, text=concept.text) or None


def _coding(coding: Coding) -> JsonObject | None:
    return _compact(system=coding.system, code=coding.code, display=coding.display) or None


def _uri_identifier(uri: str) -> JsonObject:
    return {"system": URI_SYSTEM, "value": uri}


def _urn(value: str) -> str | None:
    if _OID.fullmatch(value):
        return f"urn:oid:{value}"
    return f"urn:uuid:{value.lower()}" if _UUID.fullmatch(value) else None


def _listed(value: JsonObject | None) -> list[JsonObject] | None:
    return None if value is None else [value]


def _compact(**values: Any) -> JsonObject:
    """Without what is None, and without text that says nothing, which FHIR forbids."""
    return {key: value for key, value in values.items() if value is not None and value != ""}
