"""Documents that came and were not taken in: somebody has to look at them first."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from chartwire.errors import IssueCode
from chartwire.model.document import RemoteDocument
from chartwire.model.matching import Disagreement, Stated


class QuarantineState(StrEnum):
    """`held` until somebody decides; what is `released` is taken in as it is, what is `discarded` is forgotten."""

    HELD = "held"
    RELEASED = "released"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class HeldDocument:
    """A document whose bytes are kept and which no customer is told of. Digests and size as those of `Document`.

    `stated` is of whom it says that it is, `reasons` in what that differs from the patient it was listed for.
    `decided_by` and `note` tell who let it in or threw it away, and why; `release_query_id` is the query that takes it
    in.
    """

    id: str
    account_id: str
    patient_id: str
    query_id: str
    network: str
    remote: RemoteDocument
    reasons: tuple[Disagreement, ...]
    stated: Stated
    declared_type: str | None
    mime_type: str
    size: int
    sha1: str
    sha256: str
    held_at: datetime
    state: QuarantineState = QuarantineState.HELD
    decided_at: datetime | None = None
    decided_by: str | None = None
    note: str | None = None
    release_query_id: str | None = None


@dataclass(frozen=True, slots=True)
class UntakenDocument:
    """A listed document that could not be fetched, and why: nothing of it is here."""

    patient_id: str
    query_id: str
    network: str
    remote: RemoteDocument
    issue: IssueCode
    asked_at: datetime
