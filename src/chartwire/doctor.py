"""What `chartwire doctor` finds: each part of an installation, whether it is sound, and how to mend it.

It changes nothing but short-lived files that prove that a folder can be written to, and works beside a running server.
"""

import asyncio
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp
from sqlalchemy.exc import SQLAlchemyError
from yarl import URL

from chartwire import __version__
from chartwire.clock import Clock
from chartwire.errors import BusError, ChartwireError, ConfigurationError, IssueCode, NetworkError
from chartwire.open_files import most_open_files, needed_open_files
from chartwire.outbound import authority, vetted_session
from chartwire.settings import FhirNetworkSettings, NetworkSettings, Settings
from chartwire.store import data_keys
from chartwire.store.blobs import open_blob_store
from chartwire.store.inspection import (
    OLDEST_POSTGRESQL,
    damage,
    inspect,
    newest_digest,
    server_version,
)
from chartwire.store.master_key import load_master_keys, read_key, source_of
from chartwire.store.migrate import current, newest, pending
from chartwire.store.opening import is_anything_sealed, open_vault
from chartwire.store.profile import is_made, is_shared
from chartwire.store.sqlite import sqlite_path
from chartwire.wiring import build_network, describe_broker

_LARGE_TICKET_BYTES = 8 * 1024 * 1024
_LOW_SPACE_BYTES = 1024**3
_NETWORK_SECONDS = 15
_CLOCK_TOLERANCE = timedelta(seconds=60)  # receivers and token endpoints allow for five minutes
_LOST_KEY = "put the file back from its backup: nobody can open sealed data without it"
_WRONG_KEY = f"make it 32 bytes in Base64 that only this user can read (chmod 600), or {_LOST_KEY}"
_RESTORE = "stop the server and restore the data folder from its last backup (docs/how-to/operate.md)"
_REACH = "is blob_url right, and may these credentials read, write, list and delete below it?"

_NETWORK_REMEDIES = {
    IssueCode.UNREACHABLE: "is base_url right, does the server run, and does a firewall let this machine through?",
    IssueCode.TIMEOUT: "is the server overloaded, or does a firewall swallow the connection?",
    IssueCode.UNAUTHORIZED: "check bearer_token_file, or client_id, key_id and private_key_file, with its operator",
    IssueCode.FORBIDDEN: "ask its operator to let this client read Patient, DocumentReference and Binary",
    IssueCode.FORBIDDEN_ADDRESS: "name its range in CHARTWIRE_NETWORK_ALLOWED_NETWORKS if it may be asked there",
    IssueCode.NOT_FOUND: "base_url must be the address under which <base_url>/metadata answers",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One part that was looked at. A `remedy` of a part that is `ok` is advice; one that is not always has one."""

    part: str
    ok: bool
    detail: str
    remedy: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


async def examine(settings: Settings, clock: Clock) -> list[Finding]:
    """Look at every part of an installation; never raises for what is wrong with one."""
    if settings.is_worker:
        return [_egress(settings), _open_files(settings), _transport_key(settings), *await _broker(settings)]
    findings = [_public_url(settings), _egress(settings), _open_files(settings), _data_folder(settings)]
    findings += await _broker(settings)
    if settings.data_dir.is_dir():
        findings += [await asyncio.to_thread(check, settings) for check in (_database, _schema)]
        findings += [await asyncio.to_thread(_master_key, settings, clock)]
        findings += [await _documents(settings, clock), _disk_clock(settings, clock)]
    findings += await asyncio.gather(*(_network(network, settings, clock) for network in settings.networks))
    return [*findings, *await _network_clocks(settings, clock)]


def _public_url(settings: Settings) -> Finding:
    url = settings.public_base
    host = urlsplit(url).hostname or ""
    part = "public URL"
    if host in {"0.0.0.0", "::"}:  # noqa: S104  looked for, not bound to
        return Finding(part, False, f"links in messages begin with {url}", "set CHARTWIRE_PUBLIC_URL to its address")
    if _is_loopback(host):
        return Finding(part, True, f"{url}: links in messages work on this machine alone")
    if url.startswith("http://"):
        advice = "put a proxy with a certificate before it and set CHARTWIRE_PUBLIC_URL to its https address"
        return Finding(part, True, f"{url}: health data and keys travel in plain text", advice)
    return Finding(part, True, url)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _egress(settings: Settings) -> Finding:
    part = "webhook egress"
    opened = settings.webhook_allowed_networks
    if not opened:
        return Finding(part, True, "receivers at public addresses alone, over https")
    detail = f"open besides public addresses: {', '.join(map(str, opened))}"
    if any(network.prefixlen == 0 for network in opened):
        return Finding(
            part, False, detail, "name the ranges in which receivers are; this lets customers probe them all"
        )
    return Finding(part, True, detail)


def _open_files(settings: Settings) -> Finding:
    """Its remedies are those of the user's own limit, as a server started from here would have."""
    part, most = "open files", most_open_files()
    attempts = settings.webhook_concurrency
    detail = f"{most:,} at one time; {attempts:,} attempts in flight need {needed_open_files(attempts):,}"
    if most >= needed_open_files(attempts):
        return Finding(part, True, detail)
    mend = "raise the hard limit (`ulimit -Hn`, LimitNOFILE= in a unit), or lower CHARTWIRE_WEBHOOK_CONCURRENCY"
    return Finding(part, False, detail, mend)


def _data_folder(settings: Settings) -> Finding:
    part, folder = "data folder", settings.data_dir.absolute()
    if not folder.exists():
        return Finding(part, True, f"{folder} is not there yet", "`chartwire serve` makes it; or give --data-dir")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        mend = f"let the user that runs Chartwire write there: chown -R {os.geteuid()} {folder}"
        return Finding(part, False, f"{folder} cannot be written to: {error.strerror}", mend)
    free = shutil.disk_usage(folder).free
    detail = f"{folder}, {free / 1024**3:.1f} GiB free"
    if free < _LOW_SPACE_BYTES:
        return Finding(part, False, detail, "make room on the disk, or move the folder to a larger one")
    return Finding(part, True, detail)


def _database(settings: Settings) -> Finding:
    part = "database"
    if is_shared(settings.database):
        return _server(settings)
    try:
        path = sqlite_path(settings.database)
        if not path.exists():
            return Finding(part, True, f"{path} is not there yet", "the first start makes it")
        found = inspect(settings.database, damage)
    except ChartwireError as error:
        return Finding(part, False, str(error), f"mend the data folder, if that fails too; else {_RESTORE}")
    if found is not None:
        return Finding(part, False, f"{path} is damaged: {found}", _RESTORE)
    return Finding(part, True, f"{path} is sound")


def _server(settings: Settings) -> Finding:
    part = "database"
    try:
        version = inspect(settings.database, server_version)
    except ChartwireError as error:
        mend = "is CHARTWIRE_DATABASE_URL right, does PostgreSQL run, and may this user use the database?"
        return Finding(part, False, str(error), mend)
    if version < OLDEST_POSTGRESQL:
        return Finding(part, False, f"PostgreSQL {version}", f"move to PostgreSQL {OLDEST_POSTGRESQL} or newer")
    return Finding(part, True, f"PostgreSQL {version} answers")


def _schema(settings: Settings) -> Finding:
    part = "migrations"
    try:
        lacking = pending(settings.database)
    except ChartwireError as error:
        return Finding(part, False, str(error), "run the release that made this database, or restore a backup")
    except SQLAlchemyError:
        return Finding(part, True, "not looked at: this needs the database")  # which has a finding of its own
    if lacking and is_made(settings.database):
        return Finding(part, False, f"pending: {', '.join(lacking)}", "make a backup, then run `chartwire migrate`")
    if not lacking and current(settings.database) != newest():
        return Finding(part, True, "the tables are of a newer release, beside which this one serves")
    return Finding(part, True, "the schema is current" if not lacking else "the first start makes the tables")


def _master_key(settings: Settings, clock: Clock) -> Finding:
    part = "master key"
    try:
        source, path = source_of(settings), settings.master_key_path
        is_needed = _is_anything_sealed(settings)
        if source == "master_key_file" and not path.exists():
            return _no_master_key(path, is_needed)
        masters = load_master_keys(settings)
        if is_needed:
            inspect(settings.database, lambda connection: data_keys.check_keys(connection, masters, clock()))
    except ConfigurationError as error:
        return Finding(part, False, str(error).removeprefix("master_key_file: "), _WRONG_KEY)
    except ChartwireError as error:
        return Finding(part, False, str(error), _RESTORE)
    shown = str(path) if source == "master_key_file" else source
    return Finding(part, True, f"{shown} {'opens what was sealed' if is_needed else 'is well formed'}")


def _no_master_key(path: Path, is_needed: bool) -> Finding:
    if is_needed:
        return Finding("master key", False, f"{path} is gone, and with it all that is sealed", _LOST_KEY)
    advice = "the first start makes it; keep a copy in a safe place"
    return Finding("master key", True, f"{path} is not there yet", advice)


def _is_anything_sealed(settings: Settings) -> bool:
    try:
        return is_anything_sealed(settings)
    except ChartwireError:  # what is wrong with the database has a finding of its own
        return False


async def _documents(settings: Settings, clock: Clock) -> Finding:
    part = "documents"
    try:
        vault = await asyncio.to_thread(open_vault, settings, clock)
        digest = await asyncio.to_thread(inspect, settings.database, newest_digest)
    except ChartwireError:
        return Finding(part, True, "not looked at: this needs the master key and the database")
    is_bucket = settings.blobs.startswith("s3://")
    place = urlsplit(settings.blobs)
    where = f"s3://{place.netloc}{place.path}" if is_bucket else unquote(place.path)
    if not is_bucket and not await asyncio.to_thread(Path(where).exists):
        return Finding(part, True, f"{where} is not there yet", "the first start makes it")
    try:
        blobs = open_blob_store(settings.blobs, vault, settings.spool)
        await blobs.check()
        if digest is not None:
            async for _ in blobs.read(digest, 0, 1):
                pass  # that it opens is what matters
        await blobs.close()
    except ChartwireError as error:
        return Finding(part, False, str(error), _REACH if is_bucket else _RESTORE)
    kept = "the newest document opens" if digest else "no document yet"
    return Finding(part, True, f"{where} takes bytes; {kept}")


def _disk_clock(settings: Settings, clock: Clock) -> Finding:
    """A network file system sets times by its own clock."""
    part = "clock and disk"
    try:
        with tempfile.TemporaryFile(dir=settings.data_dir) as file:
            written = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
    except OSError:
        return Finding(part, True, "not compared: the data folder cannot be written to", "mend the data folder first")
    return _compared(part, "the data folder's disk", clock() - written)


def _transport_key(settings: Settings) -> Finding:
    part, path = "transport key", settings.transport_key_file or Path()
    try:
        read_key(path, "transport_key_file")
    except ConfigurationError as error:
        mend = "write there what `chartwire transport-key` prints where the database is, with mode 0600"
        return Finding(part, False, str(error).removeprefix("transport_key_file: "), mend)
    return Finding(part, True, f"{path} is well formed")


async def _broker(settings: Settings) -> list[Finding]:
    """None for an installation that has none."""
    part = "broker"
    if not settings.nats_url:
        return []
    from chartwire.delivery.nats.connecting import ask_broker  # its client is loaded where there is a broker

    try:
        facts = await ask_broker(describe_broker(settings), makes_streams=not settings.is_worker)
    except (BusError, ConfigurationError) as error:
        mend = "is CHARTWIRE_NATS_URL right, does nats-server run with JetStream, and may this user use it?"
        return [Finding(part, False, str(error), mend)]
    detail = f"NATS {facts.version} answers"
    if facts.largest >= _LARGE_TICKET_BYTES:
        return [Finding(part, True, detail)]
    advice = "set max_payload to 8MB there: a larger message can be handed to no worker"
    return [Finding(part, True, f"{detail}; it takes {facts.largest} bytes a message", advice)]


async def _network(network: NetworkSettings, installation: Settings, clock: Clock) -> Finding:
    part = f"network {network.name}"
    try:
        built = build_network(network, installation, clock)
    except ChartwireError as error:
        return Finding(part, False, str(error), f"correct the [[networks]] entry {network.name} in {_config_file()}")
    try:
        async with asyncio.timeout(_NETWORK_SECONDS):
            await built.check()
    except NetworkError as error:
        return Finding(part, False, f"it does not answer as it should: {error}", _network_remedy(error.code))
    except TimeoutError:
        return Finding(part, False, f"no answer within {_NETWORK_SECONDS} s", _network_remedy(IssueCode.TIMEOUT))
    finally:
        await built.close()
    return Finding(part, True, f"kind {network.kind}, answers")


def _network_remedy(code: IssueCode) -> str:
    return _NETWORK_REMEDIES.get(
        code, f"look at the [[networks]] entry in {_config_file()} and at the server's own log"
    )


def _config_file() -> str:
    return os.environ.get("CHARTWIRE_CONFIG") or "CHARTWIRE_NETWORKS"


async def _network_clocks(settings: Settings, clock: Clock) -> list[Finding]:
    """HTTP answers tell the time (RFC 9110 §6.6.1)."""
    servers = [network for network in settings.networks if isinstance(network, FhirNetworkSettings)]
    if not servers:
        return [Finding("clock", True, "not compared with another machine's: no network that tells the time")]
    return await asyncio.gather(*(_network_clock(server, settings, clock) for server in servers))


async def _network_clock(server: FhirNetworkSettings, settings: Settings, clock: Clock) -> Finding:
    part = "clock"
    try:
        told = parsedate_to_datetime(await _date_header(server, settings))
    except (aiohttp.ClientError, OSError, TimeoutError, KeyError, ValueError):
        return Finding(part, True, f"not compared with {server.name}'s: it did not tell the time")
    return _compared(part, server.name, clock() - told)


async def _date_header(server: FhirNetworkSettings, settings: Settings) -> str:
    url = URL(f"{server.base_url.rstrip('/')}/metadata")
    session = vetted_session(
        settings.network_allowed_networks,
        always_allowed_hosts=frozenset({authority(url)}),
        limit=1,
        limit_per_host=1,
        user_agent=f"Chartwire/{__version__}",
    )
    async with asyncio.timeout(_NETWORK_SECONDS), session, session.get(url, allow_redirects=False) as answer:
        return answer.headers["Date"]


def _compared(part: str, other: str, difference: timedelta) -> Finding:
    seconds = difference.total_seconds()
    if abs(difference) <= _CLOCK_TOLERANCE:
        return Finding(part, True, f"agrees with {other}")
    direction = "ahead of" if seconds > 0 else "behind"
    detail = f"{abs(seconds):.0f} s {direction} {other}: receivers refuse signatures that are five minutes off"
    return Finding(part, False, detail, "let both machines follow a time server (systemd-timesyncd, chrony)")
