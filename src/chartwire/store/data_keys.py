"""Data keys: rows that the master key seals, and that seal everything else.

To change the master key is to seal these few rows anew: nothing else is touched, and processes that run do not notice,
for they have opened the rows already. A new data key seals from a moment on that is some time away, so that every
process knows it before anything is sealed under it.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta

from sqlalchemy import Connection, insert, select, update

from chartwire.clock import to_milliseconds
from chartwire.errors import ConfigurationError, SealBrokenError, StoreError
from chartwire.store.database import lock
from chartwire.store.master_key import MasterKey
from chartwire.store.schema import data_key, document, event, member, signing_key
from chartwire.store.vault import KEY_BYTES, NAME_BYTES, DataKey, Purpose, Vault

NOTICE = timedelta(seconds=30)
"""How long before it seals a new key is written down; processes look every few seconds."""

_UNNAMED = "unnamed"


@dataclass(frozen=True, slots=True)
class SealedKey:
    """A data key as it is kept."""

    id: str
    master_key_id: str
    secret: bytes = field(repr=False)
    created_at: datetime
    active_at: datetime

    @property
    def name(self) -> bytes:
        """What things that it seals begin with."""
        return b"" if self.id == _UNNAMED else bytes.fromhex(self.id)


class UnknownMasterKeyError(ConfigurationError):
    """A data key is sealed under a master key that was not given."""


class Keyring:
    """Opens data keys, each once: what was opened stays open whatever becomes of its master key."""

    def __init__(self, masters: Sequence[MasterKey]) -> None:
        self.masters = masters
        self._open: dict[str, DataKey] = {}

    def keys(self, rows: Sequence[SealedKey], now: datetime) -> list[DataKey]:
        """All of them, the one that seals first. Raises `UnknownMasterKeyError`."""
        active = [row for row in rows if row.active_at <= now] or rows[:1]
        first = active[-1]
        return [self._key(row) for row in (first, *(row for row in rows if row is not first))]

    def _key(self, row: SealedKey) -> DataKey:
        if row.id not in self._open:
            self._open[row.id] = DataKey(_unseal(row, self.masters), row.name, to_milliseconds(row.active_at))
        return self._open[row.id]


def list_keys(connection: Connection) -> list[SealedKey]:
    """All of them, in the order in which they begin to seal."""
    return in_order(SealedKey(**row._mapping) for row in connection.execute(select(data_key)))


def in_order(keys: Iterable[SealedKey]) -> list[SealedKey]:
    """In the order in which they begin to seal."""
    return sorted(keys, key=lambda key: (key.active_at, key.created_at, key.id))


def ensure_keys(connection: Connection, masters: Sequence[MasterKey], now: datetime) -> list[SealedKey]:
    """All of them, the first one made if there is none. Raises `ConfigurationError` if data is sealed already, and not
    under one of these."""
    lock(connection, "data keys")
    if not (found := list_keys(connection)):
        _insert(connection, masters[0], _key_of_old(connection, masters) or _new_key(), now, now)
        found = list_keys(connection)
    return found


def check_keys(connection: Connection, masters: Sequence[MasterKey], now: datetime) -> None:
    """Raises `ConfigurationError` if these master keys do not open what is here."""
    if rows := list_keys(connection):
        Keyring(masters).keys(rows, now)
    else:
        _key_of_old(connection, masters)


def add_key(connection: Connection, masters: Sequence[MasterKey], now: datetime, notice: timedelta = NOTICE) -> str:
    """Make a data key that seals when `notice` is over; returns its id."""
    lock(connection, "data keys")
    return _insert(connection, masters[0], _new_key(), now, now + notice)


def seal_anew(connection: Connection, masters: Sequence[MasterKey]) -> int:
    """Seal all under the first master key; returns how many were not. Raises `UnknownMasterKeyError`."""
    lock(connection, "data keys")
    others = [row for row in list_keys(connection) if row.master_key_id != masters[0].id]
    for row in others:
        secret = masters[0].seal(row.id, _unseal(row, masters))
        changed = {"master_key_id": masters[0].id, "secret": secret}
        connection.execute(update(data_key).where(data_key.c.id == row.id).values(**changed))
    return len(others)


def is_sealed_without_keys(connection: Connection) -> bool:
    """Whether there is data that was sealed before there were data keys, under the master key itself."""
    return connection.execute(select(data_key.c.id).limit(1)).first() is None and _is_anything_sealed(connection)


def _is_anything_sealed(connection: Connection) -> bool:
    some = (
        select(signing_key.c.id),
        select(document.c.id),
        select(event.c.seq),  # without a URL there is no signing key, and without documents there may be news
        select(member.c.id).where(member.c.totp_secret.is_not(None)),
    )
    return any(connection.execute(query.limit(1)).first() is not None for query in some)


def _key_of_old(connection: Connection, masters: Sequence[MasterKey]) -> DataKey | None:
    """What data is sealed under that is older than data keys: the master key. It goes on as the key without a name."""
    if not _is_anything_sealed(connection):
        return None
    sample = connection.execute(select(signing_key.c.secret).limit(1)).scalar_one_or_none()
    for master in masters:
        if sample is None or _opens(Vault(master.secret), sample):
            return DataKey(master.secret)
    raise UnknownMasterKeyError("this is not the key that data is sealed under")


def _opens(vault: Vault, sample: bytes) -> bool:
    try:
        vault.open(Purpose.SIGNING_KEY, sample)
    except SealBrokenError:
        return False
    return True


def _new_key() -> DataKey:
    return DataKey(secrets.token_bytes(KEY_BYTES), secrets.token_bytes(NAME_BYTES))


def _insert(connection: Connection, master: MasterKey, key: DataKey, now: datetime, active_at: datetime) -> str:
    key_id = key.name.hex() or _UNNAMED
    secret = master.seal(key_id, key.secret)
    row = SealedKey(key_id, master.id, secret, now, active_at)
    connection.execute(insert(data_key).values(**{each.name: getattr(row, each.name) for each in fields(row)}))
    return key_id


def _unseal(row: SealedKey, masters: Sequence[MasterKey]) -> bytes:
    master = next((each for each in masters if each.id == row.master_key_id), None)
    if master is None:
        raise UnknownMasterKeyError(f"this is not the key that data is sealed under, which is {row.master_key_id}")
    if (secret := master.open(row.id, row.secret)) is None:
        raise StoreError("a data key was altered: restore the database from its last backup")
    return secret
