"""Asking one network for the list of one patient's documents: discover the patient, list, write down what to fetch."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection

from chartwire.clock import Clock
from chartwire.errors import IssueCode
from chartwire.ingestion.announcement import Announcer
from chartwire.ingestion.breaker import AWAY, Breaker
from chartwire.model.document import DocumentQuery, DocumentStatus, NetworkStep, RemoteDocument, StepState
from chartwire.model.registry import Demographics, LinkState
from chartwire.networks.network import Discovery, Issue, Listing, Network
from chartwire.store import queries, registry, sources
from chartwire.store.database import Database, lock_patient
from chartwire.store.records import storable
from chartwire.telemetry import get_logger

_BATCH = 500  # listed documents per transaction: a listing of ten thousand must not keep every other write waiting
log = get_logger()


class DocumentQueryHandler:
    """Carries out network steps."""

    kind = "query"

    def __init__(
        self,
        database: Database,
        announcer: Announcer,
        breaker: Breaker,
        clock: Clock,
        patience: Callable[[], timedelta] = timedelta,
    ) -> None:
        """Steps are left to the tickets that name them for as long as `patience` says, by which they come sooner."""
        self._database = database
        self._announcer = announcer
        self._breaker = breaker
        self._clock = clock
        self._patience = patience

    def claim(self, connection: Connection, network: Network, limit: int, lease_margin: timedelta) -> list[NetworkStep]:
        """See `steps.Handler.claim`."""
        now, lease_for = self._clock(), timedelta(seconds=network.limits.list_deadline) + lease_margin
        return queries.claim_network_steps(connection, network.name, limit, now, lease_for, now - self._patience())

    def claim_of(
        self, connection: Connection, network: Network, query_id: str, lease_margin: timedelta
    ) -> NetworkStep | None:
        """The step of one query at `network`, if it is due and nobody has it."""
        lease_for = timedelta(seconds=network.limits.list_deadline) + lease_margin
        return queries.claim_network_step(connection, network.name, query_id, self._clock(), lease_for)

    def next_due(self, connection: Connection, network: Network) -> datetime | None:
        """See `steps.Handler.next_due`."""
        due = queries.next_network_step(connection, network.name)
        return None if due is None else due + self._patience()

    async def run(self, network: Network, step: NetworkStep) -> None:
        """See `steps.Handler.run`."""
        patient = await self._database.read(
            lambda connection: registry.get_patient(connection, step.account_id, step.patient_id)
        )
        if patient is None or patient.opted_out:  # nobody may be asked any more
            await self._database.write(lambda connection: self._finish(connection, step, Discovery()))
            return
        discovery, listing = await self._breaker.ask(
            network.name, lambda: _ask(network, patient.demographics), network.limits.list_deadline, AWAY
        )
        _report(step, discovery, listing)
        for place in range(0, len(listing.documents), _BATCH):
            await self._write_down(step, [storable(each) for each in listing.documents[place : place + _BATCH]], place)
        await self._database.write(lambda connection: self._finish(connection, step, discovery))

    def put_off(
        self, connection: Connection, step: NetworkStep, due_at: datetime, issue: IssueCode, *, is_failure: bool = True
    ) -> None:
        """See `steps.Handler.put_off`."""
        queries.postpone_network_step(connection, step, due_at, issue, is_failure=is_failure)

    def give_up(self, connection: Connection, step: NetworkStep, issue: IssueCode) -> None:
        """See `steps.Handler.give_up`."""
        lock_patient(connection, step.patient_id)
        if queries.settle_network_step(connection, step, StepState.FAILED, issue):
            self._announcer.end_query_if_over(connection, step.query_id, self._clock())

    async def _write_down(self, step: NetworkStep, listed: Sequence[RemoteDocument], place: int) -> None:
        """What of a part of the listing is to be fetched: that begins while the rest is still written down."""

        def unit(connection: Connection) -> None:
            lock_patient(connection, step.patient_id)
            query = queries.find_query(connection, step.query_id)
            if query is not None and queries.holds(connection, step):
                to_fetch = _not_held(connection, query, step.network, listed)
                queries.add_intake_steps(connection, step, to_fetch, self._clock(), place)

        await self._database.write(unit)

    def _finish(self, connection: Connection, step: NetworkStep, discovery: Discovery) -> None:
        """Write down links and end the step, once everything that it listed is written down."""
        now = self._clock()
        lock_patient(connection, step.patient_id)
        if queries.settle_network_step(connection, step, StepState.DONE):  # else deleted, or another holds it now
            registry.save_links(connection, step.patient_id, step.network, _links(discovery), now)
            self._announcer.end_query_if_over(connection, step.query_id, now)


async def _ask(network: Network, demographics: Demographics) -> tuple[Discovery, Listing]:
    discovery = await network.discover(demographics)
    found: dict[str, RemoteDocument] = {}
    issues: list[Issue] = []
    for link in discovery.links:
        if link.state is LinkState.CONFIRMED:
            listing = await network.query(link)
            issues += listing.issues
            for remote in listing.documents:
                found.setdefault(remote.key, remote)
    return discovery, Listing(tuple(found.values()), tuple(issues))


def _links(discovery: Discovery) -> Iterable[tuple[str, LinkState, float | None]]:
    return [(link.remote_id, link.state, link.score) for link in discovery.links]


def _report(step: NetworkStep, discovery: Discovery, listing: Listing) -> None:
    for issue in (*discovery.issues, *listing.issues):
        log.warning("network reported an issue", network=step.network, code=issue.code, count=issue.count)


def _not_held(
    connection: Connection, query: DocumentQuery, network: str, listed: Sequence[RemoteDocument]
) -> list[RemoteDocument]:
    """Those of the listed documents that are to be fetched; what is here already is acknowledged.

    What its author has withdrawn is not fetched, even with `override`.
    """
    held = sources.find_listed(connection, query.patient_id, network, listed)
    for remote in listed:
        if remote.key in held:
            sources.acknowledge(connection, query.patient_id, network, remote, held[remote.key])
    valid = (remote for remote in listed if remote.status is not DocumentStatus.ENTERED_IN_ERROR)
    return [remote for remote in valid if query.override or remote.key not in held]
