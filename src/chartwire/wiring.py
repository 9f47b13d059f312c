"""The only place where parts are built and joined, and where their order of start and stop is written down."""

import asyncio
import fcntl
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Protocol, assert_never
from urllib.parse import urlsplit

from fastapi import FastAPI

from chartwire.api.app import Degradation, Readiness, create_app
from chartwire.api.dependencies import ConsoleServices, Services
from chartwire.clock import Clock, system_clock
from chartwire.delivery.attempt import Policy, Poster
from chartwire.delivery.bus import Broker, Bus, Queue
from chartwire.delivery.dispatcher import Dispatcher
from chartwire.delivery.http.client import HttpEgress
from chartwire.delivery.relay import RelayEgress
from chartwire.delivery.retention import Retention
from chartwire.delivery.signing import signature_headers
from chartwire.delivery.transport import ANSWERS, POSTINGS, Transport
from chartwire.delivery.worker import Worker
from chartwire.errors import ChartwireError, ConfigurationError
from chartwire.ingestion.announcement import Announcer
from chartwire.ingestion.breaker import Breaker
from chartwire.ingestion.coalescing import WindowCloser
from chartwire.ingestion.document_intake import DocumentIntakeHandler
from chartwire.ingestion.document_query import DocumentQueryHandler
from chartwire.ingestion.lateness import Lateness
from chartwire.ingestion.steps import Handler, Retry, StepRunner
from chartwire.ingestion.sweeping import Sweeper
from chartwire.networks.fhir.network import FhirNetwork
from chartwire.networks.folder import FolderNetwork
from chartwire.networks.network import Network
from chartwire.networks.sandbox import SandboxNetwork
from chartwire.services.access import AccessService
from chartwire.services.api_keys import ApiKeyService
from chartwire.services.audit_trail import AuditService
from chartwire.services.browsing import BrowseService
from chartwire.services.documents import Begun, DocumentService
from chartwire.services.feed import FeedService
from chartwire.services.heartbeats import Heartbeats
from chartwire.services.history import HistoryService
from chartwire.services.inspection import InspectionService
from chartwire.services.key_watch import KeyWatch
from chartwire.services.members import MemberService
from chartwire.services.operations import OperationsService
from chartwire.services.overview import OverviewService
from chartwire.services.presence import Presence
from chartwire.services.quarantine import QuarantineService
from chartwire.services.registry import RegistryService
from chartwire.services.replaying import Replayer
from chartwire.services.samples import SampleService
from chartwire.services.sign_in import SignInService
from chartwire.services.single_sign_on import SingleSignOn
from chartwire.services.subscriptions import SubscriptionService
from chartwire.services.trial import TrialService
from chartwire.services.webhooks import WebhookService
from chartwire.settings import (
    FhirNetworkSettings,
    FolderNetworkSettings,
    NetworkSettings,
    Role,
    SandboxNetworkSettings,
    Settings,
)
from chartwire.step_tickets import STEPS, StepTickets
from chartwire.store import deliveries, queries
from chartwire.store.blobs import BlobStore, open_blob_store
from chartwire.store.database import Bell, Database, ping
from chartwire.store.master_key import read_key
from chartwire.store.migrate import lacking, upgrade
from chartwire.store.opening import make_keys
from chartwire.store.profile import is_shared, open_database
from chartwire.store.vault import Purpose, Vault
from chartwire.telemetry import Metrics, get_logger

_STEP_GRACE_SECONDS = 5.0
_CHECK_SECONDS = 5.0
_LONGEST_ATTEMPT_SECONDS = 31.0  # an endpoint may set 30, and its outcome must be written down
log = get_logger()


def build_network(settings: NetworkSettings, installation: Settings, clock: Clock) -> Network:
    """The network that a `[[networks]]` table describes."""
    match settings:
        case SandboxNetworkSettings():
            return SandboxNetwork(settings, clock)
        case FolderNetworkSettings():
            return FolderNetwork(settings, clock)
        case FhirNetworkSettings():
            return FhirNetwork(settings, installation.network_allowed_networks, clock)
        case _:
            assert_never(settings)


def _build_networks(settings: Settings, clock: Clock) -> list[Network]:
    built = []
    for network in settings.networks:
        try:
            built.append(build_network(network, settings, clock))
        except ConfigurationError as error:
            raise ConfigurationError(f"wrong setting: network {network.name}: {error}") from None
        if isinstance(network, FolderNetworkSettings) and not network.path.is_dir():  # it may be mounted later
            log.warning("the folder of this network is not there: no query finds anything in it", network=network.name)
    return built


class _Chore(Protocol):
    async def run(self) -> None:
        """Work until cancelled."""


@dataclass(frozen=True, slots=True)
class _Ground:
    """What every role stands on. `bells` says who hears which bell in this process."""

    settings: Settings
    clock: Clock
    vault: Vault
    database: Database
    blobs: BlobStore
    metrics: Metrics
    bells: dict[Bell, Callable[[], None]]
    stack: AsyncExitStack
    transport: Transport
    bus: Bus | None = None
    tickets: StepTickets | None = None


@asynccontextmanager
async def start_installation(
    settings: Settings, clock: Clock = system_clock, networks: Sequence[Network] | None = None
) -> AsyncIterator[FastAPI]:
    """Run an installation, or what this process's role does of it; gives its HTTP application, ready to be served.

    `networks` stands in for the configured ones, under the same names.

    Start: lock, schema, key, database, engine. Stop, in reverse: the API has been stopped by its server; then nothing
    more is claimed, what is in flight is drained, and the database is closed last.
    """
    async with AsyncExitStack() as stack:
        if settings.is_worker:
            yield await _start_worker(stack, settings, clock)
            return
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        ground = await _lay_ground(stack, settings, clock)
        if settings.role.does(Role.DELIVER):
            await _start_delivery(ground)
        if settings.role.does(Role.INGEST):
            await _start_ingestion(ground, networks)
        _run_chores(ground, Presence(database=ground.database, clock=clock, settings=settings))
        services = _start_services(ground) if settings.role.does(Role.API) else None
        yield create_app(services, settings, ground.metrics, _readiness(ground), clock, _lacking(ground))


async def _lay_ground(stack: AsyncExitStack, settings: Settings, clock: Clock) -> _Ground:
    if is_shared(settings.database):
        await asyncio.to_thread(upgrade, settings.database)
    elif settings.role is not Role.ALL:
        raise ConfigurationError("role: several processes need PostgreSQL; set CHARTWIRE_DATABASE_URL")
    else:
        stack.enter_context(only_server(settings))
        await asyncio.to_thread(upgrade, settings.database)
    keyring, vault = await asyncio.to_thread(make_keys, settings, clock())
    blobs = open_blob_store(settings.blobs, vault, settings.spool)
    stack.push_async_callback(blobs.close)
    bells: dict[Bell, Callable[[], None]] = {}
    database = open_database(settings, lambda bell: bells.get(bell, _nobody)())
    stack.push_async_callback(database.close)
    metrics, transport = Metrics(), _open_transport(settings, vault)
    bus = tickets = None
    if settings.nats_url:
        bus = await _start_bus(stack, settings, transport, _queues(settings.role), metrics)
        tickets = StepTickets(bus)
    ground = _Ground(settings, clock, vault, database, blobs, metrics, bells, stack, transport, bus, tickets)
    _run_chores(ground, KeyWatch(database, keyring, vault, clock, settings))
    return ground


def _queues(role: Role) -> tuple[Queue, ...]:
    """What a process hands out or takes from."""
    match role:
        case Role.API | Role.INGEST:
            return (STEPS,)
        case Role.DELIVER:
            return (POSTINGS, ANSWERS)
        case Role.ALL:
            return (STEPS, POSTINGS, ANSWERS)


def _open_transport(settings: Settings, vault: Vault) -> Transport:
    """Under the key that everybody was given, or one that no change of the master key changes."""
    path = settings.transport_key_file
    return Transport(read_key(path, "transport_key_file") if path else vault.eldest_key(Purpose.TRANSPORT))


async def _start_bus(
    stack: AsyncExitStack, settings: Settings, transport: Transport, queues: Sequence[Queue], metrics: Metrics
) -> Bus:
    from chartwire.delivery.nats.bus import NatsBus  # its client is loaded where there is a broker

    bus = await NatsBus(describe_broker(settings), transport.tag, queues, metrics).start()
    stack.push_async_callback(bus.close)
    return bus


def describe_broker(settings: Settings) -> Broker:
    """The broker that the settings name. Raises `ConfigurationError`."""
    credentials, servers = settings.nats_credentials_file, settings.nats_url.split(",")
    if credentials is not None and not os.access(credentials, os.R_OK):
        raise ConfigurationError(f"nats_credentials_file: {credentials} cannot be read")
    try:
        for server in servers:
            _ = urlsplit(server).port
    except ValueError:
        raise ConfigurationError("nats_url: cannot be read as a URL") from None
    return Broker(servers, credentials, settings.nats_replicas)


async def _start_worker(stack: AsyncExitStack, settings: Settings, clock: Clock) -> FastAPI:
    """A process that has the broker and the transport key, and posts what others hand it."""
    assert settings.transport_key_file is not None  # noqa: S101  what the settings have checked
    transport = Transport(read_key(settings.transport_key_file, "transport_key_file"))
    metrics = Metrics()
    bus = await _start_bus(stack, settings, transport, (), metrics)
    egress = _open_egress(stack, settings)
    worker = Worker(bus, transport, egress, clock, settings.webhook_concurrency, metrics)
    _run(stack, worker.run(), lambda: worker.drain(_LONGEST_ATTEMPT_SECONDS))

    async def check() -> dict[str, str]:
        trouble = bus.trouble()
        return {} if trouble is None else {"broker": trouble}

    return create_app(None, settings, metrics, check, clock)


async def _start_delivery(ground: _Ground) -> None:
    """From due rows to customers' answers, and the upkeep of the outbox."""
    settings, clock, database = ground.settings, ground.clock, ground.database
    if not is_shared(settings.database):
        await database.write(lambda connection: deliveries.release_leases(connection, clock()))
    dispatcher = _build_delivery(ground)
    replayer = Replayer(database, ground.vault, clock, settings)
    ground.bells.update({Bell.DELIVERY: dispatcher.ring, Bell.REPLAY: replayer.ring})
    _run(ground.stack, dispatcher.run(), lambda: dispatcher.drain(_LONGEST_ATTEMPT_SECONDS))
    heartbeats = Heartbeats(database, ground.vault, clock, settings)
    _run_chores(ground, Retention(database, clock, ground.metrics, settings), replayer, heartbeats)


async def _start_ingestion(ground: _Ground, networks: Sequence[Network] | None) -> None:
    """From questions to stored documents and their messages."""
    settings, clock, database = ground.settings, ground.clock, ground.database
    if networks is None:
        networks = _build_networks(settings, clock)
    for network in networks:
        ground.stack.push_async_callback(network.close)
    announcer = Announcer(ground.vault, settings)
    names = [network.name for network in networks]
    if not is_shared(settings.database):  # who is alone knows that whoever held a lease is gone; others' run out
        await database.write(lambda connection: queries.release_leases(connection, clock()))
    while not await database.write(lambda connection: announcer.abandon_other_networks(connection, names, clock())):
        pass
    breaker = Breaker(ground.database, ground.clock, timedelta(seconds=ground.settings.document_retry_seconds))
    query_steps = _query_steps(ground, announcer, breaker)
    steps = _build_steps(ground, announcer, breaker, networks, query_steps)
    windows = WindowCloser(database, announcer, clock)
    ground.bells.update({Bell.INTAKE: steps.ring, Bell.ANNOUNCE: windows.ring})
    _run(ground.stack, windows.run(), windows.stop)
    _run(ground.stack, steps.run(), lambda: steps.stop(_STEP_GRACE_SECONDS))
    if ground.tickets is not None:
        for consumer in ground.tickets.consumers(steps, query_steps, networks):
            _run(ground.stack, consumer.run(), partial(consumer.drain, _STEP_GRACE_SECONDS))
    _run_chores(ground, Sweeper(database, ground.blobs), Lateness(database, names, clock, ground.metrics))


def _start_services(ground: _Ground) -> Services:
    feed = FeedService(ground.database, ground.vault, ground.clock)
    ground.bells[Bell.EVENT] = feed.ring
    begun = None if ground.tickets is None else ground.tickets.hand_out
    return build_services(ground.settings, ground.database, ground.blobs, ground.vault, ground.clock, feed, begun)


def build_services(
    settings: Settings,
    database: Database,
    blobs: BlobStore,
    vault: Vault,
    clock: Clock,
    feed: FeedService,
    begun: Begun | None = None,
) -> Services:
    """What the API and the console may do."""
    registry = RegistryService(database, vault, clock)
    documents = DocumentService(database, blobs, vault, clock, settings, begun)
    sign_in = SignInService(database, vault, clock, settings)
    return Services(
        registry=registry,
        documents=documents,
        webhooks=WebhookService(database, vault, clock, settings),
        samples=SampleService(database, vault, clock, settings),
        history=HistoryService(database, vault, clock, settings),
        feed=feed,
        subscriptions=SubscriptionService(database, vault, clock, settings),
        access=AccessService(database, vault, clock, settings),
        console=ConsoleServices(
            sign_in=sign_in,
            sso=SingleSignOn(database, vault, clock, settings, sign_in),
            members=MemberService(database, vault, clock),
            keys=ApiKeyService(database, clock),
            lists=BrowseService(database, vault, clock),
            overview=OverviewService(database, clock, settings),
            inspection=InspectionService(database, vault, signature_headers),
            audit=AuditService(database, vault, clock),
            operations=OperationsService(database, vault, clock, settings),
            quarantine=QuarantineService(database, blobs, vault, clock, settings),
            trial=TrialService(registry, documents, settings),
        ),
    )


def _nobody() -> None:
    """Hears a bell that is rung before the loops run: they look at everything when they start."""


def _query_steps(ground: _Ground, announcer: Announcer, breaker: Breaker) -> DocumentQueryHandler:
    patience = timedelta if ground.tickets is None else ground.tickets.patience
    return DocumentQueryHandler(ground.database, announcer, breaker, ground.clock, patience)


def _build_steps(
    ground: _Ground,
    announcer: Announcer,
    breaker: Breaker,
    networks: Sequence[Network],
    query_steps: DocumentQueryHandler,
) -> StepRunner:
    settings, clock, database, metrics = ground.settings, ground.clock, ground.database, ground.metrics
    handlers: list[Handler[Any]] = [
        query_steps,
        DocumentIntakeHandler(
            database, ground.blobs, announcer, breaker, clock, settings.max_document_bytes, metrics, _trusted(settings)
        ),
    ]
    retry = Retry(settings.document_attempts, settings.document_retry_seconds)
    return StepRunner(database, clock, networks, handlers, retry, metrics)


def _trusted(settings: Settings) -> frozenset[str]:
    """Networks whose documents are taken for the patient's whatever they say."""
    return frozenset(
        network.name
        for network in settings.networks
        if isinstance(network, SandboxNetworkSettings) or not network.check_patient
    )


def _build_delivery(ground: _Ground) -> Dispatcher:
    settings, clock, vault = ground.settings, ground.clock, ground.vault
    directly = None if settings.webhook_workers_only else _open_egress(ground.stack, settings)
    egress = directly if ground.bus is None else _start_relay(ground, ground.bus, directly)
    assert egress is not None  # noqa: S101  what the settings have checked
    poster = Poster(egress, vault, clock, random.SystemRandom(), Policy.of(settings))
    return Dispatcher(ground.database, vault, poster, clock, settings, ground.metrics)


def _open_egress(stack: AsyncExitStack, settings: Settings) -> HttpEgress:
    egress = HttpEgress(
        settings.webhook_allowed_networks, settings.webhook_concurrency, proxy_url=settings.webhook_proxy_url
    )
    stack.push_async_callback(egress.close)
    return egress


def _start_relay(ground: _Ground, bus: Bus, directly: HttpEgress | None) -> RelayEgress:
    limit = ground.settings.webhook_concurrency
    relay = RelayEgress(bus, ground.transport, directly, ground.clock, limit, ground.metrics)
    _run(ground.stack, relay.run(), relay.drain)
    return relay


def _run(stack: AsyncExitStack, work: Coroutine[None, None, None], stop: Callable[[], Awaitable[None]]) -> None:
    """Start a loop that ends when `stop` is called."""
    task = asyncio.create_task(work)

    async def end() -> None:
        await stop()
        await task

    stack.push_async_callback(end)


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _run_chores(ground: _Ground, *chores: _Chore) -> None:
    for chore in chores:
        ground.stack.push_async_callback(_cancel, asyncio.create_task(chore.run()))


def only_server(settings: Settings) -> "_Lock":
    """Hold this to be alone on a data folder. Raises `ConfigurationError` if a server runs on it."""
    return _Lock(str(settings.data_dir / "serve.lock"))


class _Lock:
    """A lock on the data folder that the operating system releases when the process ends, however it ends."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise ConfigurationError(
                "data_dir: another chartwire serve runs on this folder; stop it or give --data-dir another"
            ) from None

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _readiness(ground: _Ground) -> Readiness:
    """Names each part that this process needs and that is not fit to serve, with what is wrong."""

    async def database_answers() -> None:
        await ground.database.read(ping)

    async def schema_is_current() -> None:
        if await ground.database.read(lacking):
            raise ConfigurationError("migrations are pending: run `chartwire migrate`")

    async def check() -> dict[str, str]:
        parts = {"database": database_answers, "migrations": schema_is_current}
        if ground.settings.role is not Role.DELIVER:  # what is posted is in the database
            parts["documents"] = ground.blobs.check
        states = {name: await _trouble(part) for name, part in parts.items()}
        return {name: trouble for name, trouble in states.items() if trouble}

    return check


def _lacking(ground: _Ground) -> Degradation:
    """Names each part that is away and that this process can do without."""

    def check() -> dict[str, str]:
        trouble = None if ground.bus is None else ground.bus.trouble()
        return {} if trouble is None else {"broker": trouble}

    return check


async def _trouble(check: Callable[[], Awaitable[None]]) -> str | None:
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            await check()
    except TimeoutError:
        return "it does not answer"
    except ChartwireError as error:
        return str(error)
    except Exception:
        log.exception("readiness check failed")
        return "unavailable"
    return None
