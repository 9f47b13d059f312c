"""How an account is doing, and what needs attention first: read from what everything else wrote."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256

from sqlalchemy import Connection

from chartwire.clock import Clock
from chartwire.model.circuit import CircuitState
from chartwire.model.document import Document
from chartwire.model.overview import (
    Backlog,
    Concern,
    ConcernKind,
    Condition,
    EndpointReport,
    HourOfAttempts,
    Lag,
    NetworkReport,
)
from chartwire.settings import Settings
from chartwire.store import documents, overview, quarantine, registry
from chartwire.store.database import Database

DAY = timedelta(hours=24)
BACKLOG_BOUNDS = (timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=1), timedelta(hours=24))
_OLD_FROM = 2
"""Deliveries in this part of the backlog and those after it have waited for too long."""
_LATEST = 12
_LAGS = 500
_CONDITIONS = {
    Condition.DISABLED: ConcernKind.ENDPOINT_DISABLED,
    Condition.PAUSED: ConcernKind.ENDPOINT_PAUSED,
    Condition.FAILING: ConcernKind.ENDPOINT_FAILING,
}


@dataclass(frozen=True, slots=True)
class FirstSteps:
    """What a new account has done already."""

    receiver: bool
    patient: bool
    document: bool
    key: bool

    @property
    def are_done(self) -> bool:
        """Whether nothing is left to be shown."""
        return self.receiver and self.patient and self.document and self.key


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything at one look, the most pressing concern first. `attempts` are of the last 24 hours."""

    concerns: list[Concern]
    steps: FirstSteps
    endpoints: list[EndpointReport]
    networks: list[NetworkReport]
    documents: list[Document]
    attempts: list[HourOfAttempts]
    backlog: Backlog
    lag: Lag | None


class OverviewService:
    """Looks at one account at a time. Nothing here tells of whom a document is."""

    def __init__(self, database: Database, clock: Clock, settings: Settings) -> None:
        self._database = database
        self._clock = clock
        self._networks = [network.name for network in settings.networks]

    async def mark(self, account_id: str) -> str:
        """A word that changes whenever something happened in the account; it tells nothing else."""
        mark = await self._database.read(lambda connection: overview.read_mark(connection, account_id))
        return sha256(repr(mark).encode()).hexdigest()[:16]

    async def look(self, account_id: str) -> Overview:
        """How the account is doing now."""
        now = self._clock()

        def read(connection: Connection) -> Overview:
            endpoints = overview.endpoint_reports(connection, account_id)
            networks = overview.network_reports(connection, account_id, self._networks, now, now - DAY)
            latest = documents.latest_documents(connection, account_id, _LATEST)
            backlog = Backlog(overview.waiting_by_age(connection, account_id, now, BACKLOG_BOUNDS))
            steps = FirstSteps(
                receiver=any(report.endpoint.url is not None for report in endpoints),
                patient=overview.has_patient(connection, account_id),
                document=bool(latest),
                key=any(key.revoked_at is None for key in registry.list_api_keys(connection, account_id)),
            )
            return Overview(
                concerns=sorted_concerns(endpoints, networks, backlog, quarantine.count_held(connection, account_id)),
                steps=steps,
                endpoints=endpoints,
                networks=networks,
                documents=latest,
                attempts=overview.attempts_by_hour(connection, account_id, now - DAY),
                backlog=backlog,
                lag=_lag(overview.delivery_lags(connection, account_id, _LAGS)),
            )

        return await self._database.read(read)

    async def endpoints(self, account_id: str) -> list[EndpointReport]:
        """The endpoints and how they are."""
        return await self._database.read(lambda connection: overview.endpoint_reports(connection, account_id))

    async def networks(self, account_id: str) -> list[NetworkReport]:
        """The networks and how asking them went in the last 24 hours."""
        now = self._clock()
        return await self._database.read(
            lambda connection: overview.network_reports(connection, account_id, self._networks, now, now - DAY)
        )


def sorted_concerns(
    endpoints: Iterable[EndpointReport], networks: Iterable[NetworkReport], backlog: Backlog, held: int = 0
) -> list[Concern]:
    """What may need attention, the most pressing first."""
    found = [*_endpoint_concerns(endpoints), *_network_concerns(networks)]
    if old := sum(backlog.counts[_OLD_FROM:]):
        found.append(Concern(ConcernKind.BACKLOG_OLD, count=old))
    if held:
        found.append(Concern(ConcernKind.DOCUMENTS_HELD, count=held))
    order = list(ConcernKind)
    return sorted(found, key=lambda concern: order.index(concern.kind))


def _endpoint_concerns(reports: Iterable[EndpointReport]) -> Iterable[Concern]:
    for report in reports:
        endpoint = report.endpoint
        label, detail = endpoint.description or endpoint.url or "", endpoint.status_detail or ""
        if kind := _CONDITIONS.get(report.condition):
            yield Concern(kind, endpoint.id, label, report.waiting, detail)
        if report.failed:
            yield Concern(ConcernKind.DELIVERIES_FAILED, endpoint.id, label, report.failed, detail)


def _network_concerns(reports: Iterable[NetworkReport]) -> Iterable[Concern]:
    for report in reports:
        if report.circuit is not None and report.circuit_state is not CircuitState.CLOSED:
            yield Concern(ConcernKind.NETWORK_AWAY, report.name, report.name, report.waiting, report.circuit.code)
        elif report.failed or (report.waiting and report.issues):
            issue = report.issues[0][0] if report.issues else ""
            yield Concern(ConcernKind.NETWORK_FAILING, report.name, report.name, report.failed + report.waiting, issue)


def _lag(milliseconds: Sequence[int]) -> Lag | None:
    """Of sorted times."""
    if not milliseconds:
        return None
    count = len(milliseconds)
    return Lag(count, milliseconds[count // 2], milliseconds[min(count * 95 // 100, count - 1)])
