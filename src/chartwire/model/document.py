"""What is asked and kept: document queries, what networks list, what is stored."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

_URN = re.compile(r"^urn:(?:oid|uuid):", re.IGNORECASE)
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


@dataclass(frozen=True, slots=True)
class Coding:
    """FHIR Coding; a missing part is None."""

    system: str | None = None
    code: str | None = None
    display: str | None = None


@dataclass(frozen=True, slots=True)
class CodeableConcept:
    """FHIR CodeableConcept."""

    coding: tuple[Coding, ...] = ()
    text: str | None = None


class DocumentStatus(StrEnum):
    """FHIR DocumentReference.status."""

    CURRENT = "current"
    SUPERSEDED = "superseded"
    ENTERED_IN_ERROR = "entered-in-error"


@dataclass(frozen=True, slots=True)
class RemoteDocument:
    """A document as a network lists it, before its bytes are here.

    `key` names it within its network, stable over queries. `master_identifier` is the author's unique id of the
    document (XDS uniqueId, FHIR masterIdentifier), normalised by `normalise_identifier`: one document listed by two
    networks has one. `replaces` holds master identifiers of earlier versions. `retrieval` is for the network that
    listed it alone: what it needs to fetch the bytes, short strings without secrets.
    `size` is in bytes and `sha1` lower-case hex, both as declared: never trusted before they are checked.
    """

    key: str
    master_identifier: str | None = None
    title: str | None = None
    description: str | None = None
    status: DocumentStatus = DocumentStatus.CURRENT
    indexed: datetime | None = None
    mime_type: str | None = None
    size: int | None = None
    sha1: str | None = None
    type: CodeableConcept | None = None
    category: CodeableConcept | None = None
    format: Coding | None = None
    period_start: datetime | None = None
    period_end: datetime | None = None
    author: str | None = None
    replaces: tuple[str, ...] = ()
    retrieval: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """A document whose bytes are stored. `declared_type` is what the network said, `mime_type` what the bytes are.

    `file_name` is unique within the account and opaque to customers. `size` is in bytes, digests are lower-case hex.
    """

    id: str
    account_id: str
    patient_id: str
    query_id: str
    network: str
    file_name: str
    status: DocumentStatus
    mime_type: str
    size: int
    sha1: str
    sha256: str
    created_at: datetime
    title: str
    declared_type: str | None = None
    master_identifier: str | None = None
    description: str | None = None
    indexed: datetime | None = None
    type: CodeableConcept | None = None
    category: CodeableConcept | None = None
    format: Coding | None = None
    period_start: datetime | None = None
    period_end: datetime | None = None
    author: str | None = None
    replaces: tuple[str, ...] = ()
    replaced_by: str | None = None


class QueryStatus(StrEnum):
    """State of a document query, and of its download and convert parts, as customers see it."""

    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class DocumentQuery:
    """One question for one patient's documents; `id` is the contract's `requestId`.

    `metadata` comes back as `meta.data` of every message of this query. `override` fetches documents that are held too.
    `trace` is the W3C `traceparent` of the request that started it.
    """

    id: str
    account_id: str
    patient_id: str
    facility_id: str | None
    status: QueryStatus
    started_at: datetime
    metadata: dict[str, str] | None = None
    override: bool = False
    ended_at: datetime | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of documents in a query: `total` to fetch, of which `successful` are stored and `errors` given up."""

    status: QueryStatus
    total: int = 0
    successful: int = 0
    errors: int = 0


class StepState(StrEnum):
    """State of one durable step of a query: asking one network, or fetching one document.

    `held`: the document turned out to be here already, so nothing new came of the step.
    """

    WAITING = "waiting"
    DONE = "done"
    HELD = "held"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class NetworkStep:
    """A claimed step: ask one network for the list of one patient's documents.

    `lease` proves the claim. `attempt` counts claims, this one too; `failures` those of them that ended in failure.
    """

    query_id: str
    account_id: str
    patient_id: str
    network: str
    attempt: int
    lease: str
    failures: int = 0


@dataclass(frozen=True, slots=True)
class IntakeStep:
    """A claimed step: fetch one listed document and store it. See `NetworkStep`."""

    id: int
    query_id: str
    account_id: str
    patient_id: str
    network: str
    remote: RemoteDocument
    attempt: int
    lease: str
    failures: int = 0


def normalise_identifier(value: str) -> str:
    """One spelling for a master identifier: without `urn:oid:` / `urn:uuid:`, UUIDs in lower case.

    Networks send the same id as a URN (ITI TF-3 §4.2.3.2.26) or bare; the two must meet for duplicates to be seen.
    """
    bare = _URN.sub("", value.strip(), count=1)
    return bare.lower() if _UUID.fullmatch(bare) else bare


JsonObject = dict[str, Any]
"""A parsed JSON object, at the edges where its shape is another's (FHIR, a customer's metadata)."""
