"""The contract that every health network fulfils: discover, query, retrieve.

A network never raises for one bad entry: it leaves the entry out and reports an `Issue`. It raises
`TemporaryNetworkError` or `PermanentNetworkError` when the step as a whole failed. Deadlines, retries and what follows
from an answer are the caller's (`ingestion`); a network makes each call once, but for the token refresh and the
re-connect that its protocol asks for.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from chartwire.errors import IssueCode
from chartwire.model.document import RemoteDocument
from chartwire.model.registry import Demographics, LinkState


@dataclass(frozen=True, slots=True)
class Issue:
    """Something a network could not do, safe to show and to log. `count` documents were affected, if any."""

    code: IssueCode
    count: int = 0


@dataclass(frozen=True, slots=True)
class PatientLink:
    """A remote record of the patient: `remote_id` is the network's id of it, `score` 0 to 1 if the network gave one.

    Only a `confirmed` link is queried.
    """

    remote_id: str
    state: LinkState
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Discovery:
    """Who the network says the patient is. No confirmed link: nothing to query there."""

    links: tuple[PatientLink, ...] = ()
    issues: tuple[Issue, ...] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """What documents the network has for a link."""

    documents: tuple[RemoteDocument, ...] = ()
    issues: tuple[Issue, ...] = ()


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Bytes under way: `chunks` of at most 256 KiB each, `declared_type` as the answer's header or wrapper said."""

    chunks: AsyncIterator[bytes]
    declared_type: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What the network bears. Deadlines in seconds cover a whole call; `concurrency` is calls in flight."""

    list_deadline: float
    retrieve_deadline: float
    concurrency: int


class Network(Protocol):
    """A health network."""

    @property
    def name(self) -> str:
        """The name that the operator gave it; appears in logs and metrics."""

    @property
    def limits(self) -> Limits:
        """Deadlines and concurrency."""

    async def discover(self, demographics: Demographics) -> Discovery:
        """Find the patient."""

    async def query(self, link: PatientLink) -> Listing:
        """List the documents of a confirmed link."""

    def retrieve(self, document: RemoteDocument) -> AbstractAsyncContextManager[Retrieval]:
        """Open the bytes of one listed document; they are read within the context."""

    async def check(self) -> None:
        """Raise `NetworkError` if the network cannot be reached or does not accept our credentials."""

    async def close(self) -> None:
        """Give back connections."""
