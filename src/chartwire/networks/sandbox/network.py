"""The sandbox as a health network: it matches on the first name alone and lets documents arrive one by one."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from chartwire.clock import Clock, iso, truncate
from chartwire.errors import IssueCode, PermanentNetworkError
from chartwire.model.document import CodeableConcept, Coding, RemoteDocument, normalise_identifier
from chartwire.model.registry import Demographics, LinkState
from chartwire.networks.network import Discovery, Limits, Listing, PatientLink, Retrieval
from chartwire.networks.sandbox.charts import chart_of, find_chart
from chartwire.networks.sandbox.records import Chart
from chartwire.settings import SandboxNetworkSettings

if TYPE_CHECKING:
    from chartwire.networks.sandbox.documents import SandboxDocument

_CHUNK = 256 * 1024
_CLINICAL_NOTE = CodeableConcept(
    (
        Coding(
            "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category",
            "clinical-note",
            "Clinical Note",
        ),
    ),
    "Clinical Note",
)


class SandboxNetwork:
    """Five invented patients; see `charts`.

    Document i of n can be read `spread_seconds * i / (n - 1)` after it was listed. The time is kept with the listed
    document, so that a restart in between neither shortens nor lengthens the wait.
    """

    def __init__(self, settings: SandboxNetworkSettings, clock: Clock) -> None:
        self.name = settings.name
        self.limits = Limits(list_deadline=30, retrieve_deadline=settings.spread_seconds + 30, concurrency=256)
        self._spread = settings.spread_seconds
        self._clock = clock

    async def discover(self, demographics: Demographics) -> Discovery:
        """One certain match by first name, whatever else is known of the patient, or none."""
        chart = find_chart(demographics.first_name)
        return Discovery((PatientLink(chart.key, LinkState.CONFIRMED, 1.0),)) if chart else Discovery()

    async def query(self, link: PatientLink) -> Listing:
        """The patient's seven documents."""
        chart = chart_of(link.remote_id)
        if chart is None:
            raise PermanentNetworkError(IssueCode.NOT_FOUND)
        documents = await asyncio.to_thread(_documents_of, chart)
        step = timedelta(seconds=self._spread / (len(documents) - 1))
        now = self._clock()
        parts = enumerate(documents)
        return Listing(tuple(_remote(chart, document, data, now + step * number) for number, (document, data) in parts))

    @asynccontextmanager
    async def retrieve(self, document: RemoteDocument) -> AsyncIterator[Retrieval]:
        """Waits until the document has arrived."""
        try:
            patient, name = document.retrieval["patient"], document.retrieval["document"]
            available = datetime.fromisoformat(document.retrieval["available"])
        except (KeyError, ValueError):
            raise PermanentNetworkError(IssueCode.NOT_FOUND) from None
        await asyncio.sleep(max(0.0, (available - self._clock()).total_seconds()))
        try:
            data = await asyncio.to_thread(_content, patient, name)
        except KeyError:
            raise PermanentNetworkError(IssueCode.NOT_FOUND) from None
        yield Retrieval(_chunks(data), document.mime_type)

    async def check(self) -> None:
        """The sandbox is always there."""

    async def close(self) -> None:
        """There is nothing to give back."""


def _documents_of(chart: Chart) -> "list[tuple[SandboxDocument, bytes]]":
    # Loaded by the first question: most processes are asked none, and PDF and image libraries take long to load.
    from chartwire.networks.sandbox.documents import content, documents_of

    return [(document, content(chart.key, document.name)) for document in documents_of(chart)]


def _content(patient: str, name: str) -> bytes:
    from chartwire.networks.sandbox.documents import content

    return content(patient, name)


def _remote(chart: Chart, document: "SandboxDocument", data: bytes, available: datetime) -> RemoteDocument:
    start, end = document.period or (None, None)
    return RemoteDocument(
        key=f"{chart.key}/{document.name}",
        master_identifier=normalise_identifier(document.master_identifier),
        title=document.title,
        description=document.description,
        status=document.status,
        indexed=truncate(document.indexed),
        mime_type=document.mime_type,
        size=len(data),
        sha1=hashlib.sha1(data, usedforsecurity=False).hexdigest(),
        type=document.type,
        category=_CLINICAL_NOTE,
        format=document.format,
        period_start=truncate(start) if start else None,
        period_end=truncate(end) if end else None,
        author=document.author.name,
        replaces=document.replaces,
        retrieval={"patient": chart.key, "document": document.name, "available": iso(available)},
    )


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _CHUNK):
        yield data[start : start + _CHUNK]
