"""A sample of every type of message, about nobody, for those who write receivers."""

from datetime import UTC, datetime
from typing import assert_never

from chartwire.model.document import CodeableConcept, Coding, Document, DocumentStatus, QueryStatus
from chartwire.model.message import (
    DocumentPart,
    Meta,
    PatientPart,
    document_message,
    endpoint_disabled_message,
    ping_message,
)
from chartwire.model.webhook import DisabledReason, EventType, MessageType, PayloadVersion

_METADATA = {"sample": "true"}
_PATIENT = "00000000-0000-7000-8000-000000000001"
_REQUEST = "00000000-0000-7000-8000-000000000002"
_DOCUMENT = "00000000-0000-7000-8000-000000000003"
_PING = "sample-ping-123456789"
_AT = datetime(2024, 2, 29, 12, 0, tzinfo=UTC)


def sample_message(
    version: PayloadVersion, event_type: MessageType, message_id: str, when: datetime, endpoint_id: str, fhir_base: str
) -> bytes:
    """A message of a type; `meta.data` says that it is a sample, and its document cannot be fetched."""
    match event_type:
        case EventType.PING:
            return ping_message(_PING, Meta(message_id, when, event_type))
        case EventType.ENDPOINT_DISABLED:
            return endpoint_disabled_message(Meta(message_id, when, event_type), endpoint_id, DisabledReason.GONE)
        case EventType.DOCUMENT_DOWNLOAD | EventType.DOCUMENT_BULK_DOWNLOAD_URLS:
            meta = Meta(message_id, when, event_type, _REQUEST, _METADATA)
            return document_message(version, meta, [_patient(event_type, fhir_base)])
        case _:
            assert_never(event_type)


def _patient(event_type: EventType, fhir_base: str) -> PatientPart:
    location = f"{fhir_base}/Binary/{_DOCUMENT}"
    url = location if event_type is EventType.DOCUMENT_BULK_DOWNLOAD_URLS else None
    return PatientPart(
        _PATIENT, QueryStatus.COMPLETED, external_id="SAMPLE-1", documents=[DocumentPart(_document(), location, url)]
    )


def _document() -> Document:
    return Document(
        id=_DOCUMENT,
        account_id="",
        patient_id=_PATIENT,
        query_id=_REQUEST,
        network="sample",
        file_name="sample/continuity-of-care.xml",
        status=DocumentStatus.CURRENT,
        mime_type="application/xml",
        size=48_213,
        sha1="",
        sha256="",
        created_at=_AT,
        title="Continuity of Care Document",
        description="Continuity of Care Document",
        indexed=_AT,
        type=CodeableConcept((Coding("http://loinc.org", "34133-9", "Summary of episode note"),)),
    )
