"""A whole installation in the test's own event loop, asking networks under test control, telling a real receiver."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from tests.support.patience import PATIENCE_SECONDS
from tests.support.profile import make_tables, settings_of
from tests.support.receiver import Received, Receiver

from chartwire.api.dependencies import Services
from chartwire.clock import Clock, system_clock
from chartwire.model.document import JsonObject, QueryStatus
from chartwire.model.registry import Address, Demographics, Gender
from chartwire.networks.network import Network
from chartwire.services.documents import QueryProgress
from chartwire.services.patients import PatientDraft
from chartwire.services.registry import FacilityDraft
from chartwire.settings import FolderNetworkSettings, Settings
from chartwire.store import registry
from chartwire.store.profile import run_once
from chartwire.wiring import start_installation

ACTOR = "key:test"
_ADDRESS = Address("1 Elm St", "Ukiah", "CA", "95482")
_FAMILY_NAMES = ("Abbot", "Birch", "Cowell", "Dunmore", "Eastwick", "Fairfax", "Gorman", "Huxley", "Ibsen", "Jarvis")


@dataclass
class Engine:
    """A running installation with one account, one facility, and a receiver that was saved as its webhook."""

    services: Services
    receiver: Receiver
    account_id: str
    facility_id: str
    webhook_key: str
    patients: list[str] = field(default_factory=list)

    async def add_patient(self) -> str:
        """A new patient, unlike any other; returns its id."""
        number = len(self.patients)
        who = Demographics("Ana", _FAMILY_NAMES[number], date(1950 + 3 * number, 2, 3), Gender.F, (_ADDRESS,))
        patient = await self.services.registry.patients.create(
            self.account_id, ACTOR, self.facility_id, PatientDraft(who)
        )
        self.patients.append(patient.id)
        return patient.id

    async def start_query(
        self,
        patient_id: str,
        metadata: dict[str, str] | None = None,
        *,
        override: bool = False,
        trace: str | None = None,
    ) -> str:
        """Start a document query; returns its request id."""
        progress = await self.services.documents.start_query(
            self.account_id, ACTOR, patient_id, None, metadata, override, trace
        )
        assert progress.query is not None
        return progress.query.id

    async def wait_for_end(self, *request_ids: str, within: float = PATIENCE_SECONDS) -> None:
        """Return once the closing message of each query has been received, and every message before it, which may
        come in later."""
        await self.receiver.wait_for(lambda receiver: set(request_ids) <= closed(receiver.messages), within)
        async with asyncio.timeout(within):
            while (await self.services.webhooks.webhook_status(self.account_id)).waiting:
                pass

    async def wait_for_status(self, patient_id: str, status: QueryStatus, within: float = PATIENCE_SECONDS) -> None:
        """Return once the patient's last query has this status."""
        async with asyncio.timeout(within):
            while (await self.progress(patient_id)).download.status is not status:
                pass

    async def progress(self, patient_id: str) -> QueryProgress:
        """How far the patient's last query is."""
        progress = await self.services.documents.query_progress(self.account_id, patient_id)
        assert progress is not None
        return progress


def patients_in(message: Received) -> list[JsonObject]:
    """The patients of a message, each with the request id that stands for it."""
    everyone: list[JsonObject] = message.json["patients"]
    shared = message.json["meta"].get("requestId")
    return [{"requestId": shared, **patient} for patient in everyone]


def closed(messages: Sequence[Received]) -> set[str]:
    """Request ids of the queries that a closing message told of."""
    return {
        patient["requestId"] for message in messages for patient in patients_in(message) if not patient["documents"]
    }


def announced(messages: Sequence[Received]) -> list[str]:
    """Ids of the documents in all messages, in order; a message received twice counts once."""
    once = {message.message_id: message for message in messages}
    return [document["id"] for message in once.values() for document in message.documents]


@asynccontextmanager
async def running_engine(
    folder: Path, networks: Sequence[Network], receiver: Receiver, *, clock: Clock = system_clock, **overrides: Any
) -> AsyncIterator[Engine]:
    """An installation that asks `networks`; on a folder that was used before it goes on with what is there.

    The ping of a new one has been answered, and that has been written down: nothing is under way.
    """
    settings = make_settings(folder, networks, **overrides)
    make_tables(settings.data_dir)
    account_id = run_once(settings.database, _account)
    async with start_installation(settings, clock, networks) as app:
        services: Services = app.state.services
        facilities = await services.registry.list_facilities(account_id)
        facility = (
            facilities[0]
            if facilities
            else await services.registry.create_facility(account_id, FacilityDraft("Clinic", "1234567893", _ADDRESS))
        )
        webhook = await services.webhooks.get_settings(account_id)
        if webhook.url is None:
            webhook = await services.webhooks.save_url(account_id, receiver.url)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not (await services.webhooks.webhook_status(account_id)).enabled:
                    pass
        yield Engine(services, receiver, account_id, facility.id, str(webhook.key))


def make_settings(folder: Path, networks: Sequence[Network], **overrides: Any) -> Settings:
    """Settings for a test: receivers on loopback allowed, no limits, quick retries, long deadlines."""
    return Settings(
        **{
            "data_dir": folder,
            **settings_of(folder),
            "public_url": "http://chartwire.test",
            "networks": [
                FolderNetworkSettings(
                    kind="folder",
                    name=network.name,
                    path=folder,
                    check_patient=not getattr(network, "is_trusted", False),
                )
                for network in networks
            ],
            "webhook_allowed_networks": "127.0.0.0/8,::1/128",
            "webhook_timeout_seconds": 30,
            "webhook_ping_timeout_seconds": 30,
            "document_retry_seconds": 0.01,
            "patient_writes_per_minute": 0,
            "document_queries_per_minute": 0,
            "requests_per_second": 0,
            **overrides,
        }
    )


def _account(connection: Any) -> str:
    known = registry.list_accounts(connection)
    return known[0].id if known else registry.create_account(connection, "Clinic", system_clock()).id
