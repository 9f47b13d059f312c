"""Messages as they are sent: rendered once, to exactly the bytes that are signed and posted.

The bytes are what JavaScript's `JSON.stringify` would write, because receivers exist that verify a signature over the
re-serialised body: compact, UTF-8, `meta` first (a ping: `ping` first), and keys that look like array indexes before
all others, as JavaScript orders them. A key without a value is left out, never null. The shapes are published as JSON
Schemas (`load_schema`) and described in `docs/reference/webhooks.md`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from typing import Any

import orjson

from chartwire.clock import iso
from chartwire.model.document import CodeableConcept, Document, JsonObject, QueryStatus
from chartwire.model.javascript import in_order
from chartwire.model.webhook import DisabledReason, Endpoint, EventDraft, EventType, PayloadVersion


@dataclass(frozen=True, slots=True)
class Meta:
    """What every message says of itself; `data` is the metadata that the customer gave with the query."""

    message_id: str
    when: datetime
    type: EventType
    request_id: str | None = None
    data: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class DocumentPart:
    """A document in a message: `location` is its Binary here, `url` a signed link (bulk download alone)."""

    document: Document
    location: str
    url: str | None = None


@dataclass(frozen=True, slots=True)
class PatientPart:
    """One patient's documents. `request_id` is set when the documents of one message stem from several queries."""

    patient_id: str
    status: QueryStatus
    external_id: str | None = None
    additional_ids: Mapping[str, list[str]] = field(default_factory=dict)
    documents: Sequence[DocumentPart] = ()
    request_id: str | None = None


def document_message(version: PayloadVersion, meta: Meta, patients: Sequence[PatientPart]) -> bytes:
    """The message that documents are available, or with `EventType.DOCUMENT_BULK_DOWNLOAD_URLS` their links.

    Raises `ValueError` for a patient whose status is `processing`: receivers know completed and failed alone.
    """
    return _render({"meta": _meta(meta), "patients": [_patient(version, meta.type, part) for part in patients]})


def is_silenced(metadata: Mapping[str, str] | None) -> bool:
    """Whether the customer asked, with the metadata of a request, that its messages be kept but sent to nobody."""
    return metadata is not None and metadata.get("disableWHFlag") == "true"


def ping_message(ping: str, meta: Meta) -> bytes:
    """The question whose answer must repeat `ping` as `pong`."""
    return _render({"ping": ping, "meta": _meta(meta)})


def endpoint_disabled_message(meta: Meta, endpoint_id: str, reason: DisabledReason) -> bytes:
    """The operational message that nothing is posted to an endpoint any more."""
    return _render({"meta": _meta(meta), "endpoint": {"id": endpoint_id, "reason": reason.value}})


def endpoint_disabled(message_id: str, when: datetime, endpoint: Endpoint, reason: DisabledReason) -> EventDraft:
    """The same, ready for the outbox."""
    meta = Meta(message_id, when, EventType.ENDPOINT_DISABLED)
    return EventDraft(
        id=message_id,
        account_id=endpoint.account_id,
        type=meta.type,
        payload_version=PayloadVersion.V2025_10,  # this type looks the same in every version
        body=endpoint_disabled_message(meta, endpoint.id, reason),
    )


def document_dto(version: PayloadVersion | None, part: DocumentPart) -> JsonObject:
    """The flat shape of a document; `size` is a string of bytes in version 2023-04 and a number everywhere else."""
    document = part.document
    return _without_unset(
        id=document.id,
        fileName=document.file_name,
        location=part.location,
        description=document.description,
        status=document.status.value,
        indexed=iso(document.indexed) if document.indexed else None,
        mimeType=document.mime_type,
        size=str(document.size) if version is PayloadVersion.V2023_04 else document.size,
        type=_concept(document.type) if document.type else None,
        url=part.url,
    )


def load_schema(version: PayloadVersion, event_type: EventType) -> JsonObject:
    """The JSON Schema (draft 2020-12) of one type of message, strict: it knows every key that may occur."""
    published: JsonObject = orjson.loads((files("chartwire.model") / "schemas" / f"{version}.json").read_bytes())
    return {
        "$schema": published["$schema"],
        "$ref": f"#/$defs/{event_type}",
        "$defs": published["$defs"],
    }


def without_patient(body: bytes, patient_id: str) -> bytes | None:
    """The message without one patient's part, for expunging; None when nothing is left to tell."""
    message = orjson.loads(body)
    patients = [patient for patient in message.get("patients", []) if patient["patientId"] != patient_id]
    return _render({**message, "patients": patients}) if patients else None


def with_fresh_links(body: bytes, link: Callable[[str], str]) -> bytes:
    """The message with a new link for each document that had one; `link` is given the document's id."""
    message = orjson.loads(body)
    for patient in message.get("patients", []):
        for document in patient["documents"]:
            if "url" in document:
                document["url"] = link(document["id"])
    return _render(message)


def with_id(body: bytes, message_id: str) -> bytes:
    """The message under another id."""
    message = orjson.loads(body)
    return _render({**message, "meta": {**message["meta"], "messageId": message_id}})


def _meta(meta: Meta) -> JsonObject:
    return _without_unset(
        messageId=meta.message_id,
        requestId=meta.request_id,
        when=iso(meta.when),
        type=meta.type.value,
        data=None if meta.data is None else in_order(meta.data),
    )


def _patient(version: PayloadVersion, event_type: EventType, part: PatientPart) -> JsonObject:
    if part.status is QueryStatus.PROCESSING:
        raise ValueError("a message tells of what is completed or failed")
    return _without_unset(
        patientId=part.patient_id,
        externalId=part.external_id,
        additionalIds=in_order(part.additional_ids) or None,
        requestId=part.request_id,
        type=event_type.removeprefix("medical."),  # receivers of 2023 switch on it
        documents=[document_dto(version, document) for document in part.documents],
        status=part.status.value,
    )


def _concept(concept: CodeableConcept) -> JsonObject:
    coding = [_without_unset(system=each.system, code=each.code, display=each.display) for each in concept.coding]
    return _without_unset(coding=coding or None, text=concept.text)


def _without_unset(**values: Any) -> JsonObject:
    return {key: value for key, value in values.items() if value is not None}


def _render(message: JsonObject) -> bytes:
    try:
        return orjson.dumps(message)
    except orjson.JSONEncodeError:
        return orjson.dumps(_well_formed(message))


def _well_formed(value: Any) -> Any:
    """Half a surrogate pair, which no UTF-8 can carry, becomes U+FFFD: one odd title must not hold back a message."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_well_formed(key): _well_formed(item) for key, item in value.items()}
    return [_well_formed(item) for item in value] if isinstance(value, list) else value
