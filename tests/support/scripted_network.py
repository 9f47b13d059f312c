"""A health network under a test's control: it lists what it is told and gives bytes when it is told."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from chartwire.model.document import RemoteDocument
from chartwire.model.registry import Demographics, LinkState
from chartwire.networks.network import Discovery, Limits, Listing, Network, PatientLink, Retrieval


@dataclass
class ScriptedNetwork:
    """Fulfils `Network`. Counts what it is asked; a document whose key is in `gates` waits for its gate."""

    name: str
    documents: list[RemoteDocument] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    failures: dict[str, list[Exception]] = field(default_factory=dict)
    """Errors to raise, in order, before a key is given; `""` stands for discovery."""
    limits: Limits = field(default_factory=lambda: Limits(list_deadline=20, retrieve_deadline=20, concurrency=8))
    knows_patient: bool = True
    is_trusted: bool = False
    """Whether the settings say that its documents are whose it says."""
    asked: int = 0
    calls: int = 0
    most_calls: int = 0
    """Calls in flight now, and at most at one time."""
    reached: defaultdict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    """Set once a key is being given, or waits at its gate."""
    retrieved: list[str] = field(default_factory=list)

    def add(self, key: str, content: bytes = b"", **listed: object) -> RemoteDocument:
        """List a document, by default with bytes of its own."""
        remote = RemoteDocument(key=key, **listed)  # type: ignore[arg-type]  # the record checks its own fields
        self.documents.append(remote)
        self.contents[key] = content or f"document {key} of {self.name}".encode()
        return remote

    def hold(self, key: str) -> asyncio.Event:
        """Let a document's bytes wait until the returned gate is opened."""
        self.gates[key] = asyncio.Event()
        return self.gates[key]

    async def discover(self, demographics: Demographics) -> Discovery:
        """See `Network.discover`."""
        del demographics
        self.asked += 1
        with self._in_flight():
            await self._pass("")
        return Discovery((PatientLink("remote-1", LinkState.CONFIRMED),)) if self.knows_patient else Discovery()

    async def query(self, link: PatientLink) -> Listing:
        """See `Network.query`."""
        del link
        return Listing(tuple(self.documents))

    @asynccontextmanager
    async def retrieve(self, document: RemoteDocument) -> AsyncIterator[Retrieval]:
        """See `Network.retrieve`."""
        self.retrieved.append(document.key)
        with self._in_flight():
            await self._pass(document.key)
        yield Retrieval(_chunks(self.contents[document.key]), document.mime_type)

    async def check(self) -> None:
        """See `Network.check`."""

    async def close(self) -> None:
        """See `Network.close`."""

    @contextmanager
    def _in_flight(self) -> Iterator[None]:
        self.calls += 1
        self.most_calls = max(self.most_calls, self.calls)
        try:
            yield
        finally:
            self.calls -= 1

    async def _pass(self, key: str) -> None:
        self.reached[key].set()
        if key in self.gates:
            await self.gates[key].wait()
        if self.failures.get(key):
            raise self.failures[key].pop(0)


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    yield content


def as_network(network: ScriptedNetwork) -> Network:
    """Proof to the type checker that the contract is fulfilled."""
    return network
