"""Changing the master key of an installation, and the data key that it seals under, while it runs."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from chartwire.clock import Clock
from chartwire.errors import ConfigurationError, StoreError
from chartwire.settings import Settings
from chartwire.store import data_keys, resealing
from chartwire.store.data_keys import SealedKey
from chartwire.store.inspection import inspect
from chartwire.store.master_key import MasterKey, load_master_keys, new_master_key, source_of, write_key_file
from chartwire.store.opening import open_vault
from chartwire.store.profile import is_shared, run_once
from chartwire.store.vault import Vault

_BATCH = 200


@dataclass(frozen=True, slots=True)
class KeyState:
    """Which keys there are, and what hangs on each."""

    source: str
    masters: tuple[str, ...]
    """Ids of the master keys that are given, the one to seal under first."""
    data_keys: tuple[SealedKey, ...]
    """In the order in which they begin to seal."""
    things: dict[str, int]
    """How many things in the database each data key, by its id, has sealed; documents are not counted."""


def look(settings: Settings) -> KeyState:
    """The keys of an installation; changes nothing."""
    masters = load_master_keys(settings)
    rows = _rows(settings)
    counts = inspect(settings.database, resealing.count_by_key)
    things = {row.id: counts.pop(row.name, 0) for row in rows}
    for row in rows:
        if not row.name:
            things[row.id] = sum(counts.values())
    return KeyState(source_of(settings), tuple(master.id for master in masters), tuple(rows), things)


def rotate(settings: Settings) -> tuple[MasterKey, int]:
    """Seal the data keys under the first master key that is given; returns it, and how many were under another.

    If all are under it already, a file of one machine's own gets a new one before the old one; other sources are their
    operators'. Whatever happens in between, the file opens what is there, and the next call goes on.
    """
    with _alone(settings):
        masters = load_master_keys(settings)
        if all(row.master_key_id == masters[0].id for row in _rows(settings)) and len(masters) == 1:
            masters = [_add_to_file(settings, masters), *masters]
        try:
            return masters[0], run_once(settings.database, lambda it: data_keys.seal_anew(it, masters))
        except data_keys.UnknownMasterKeyError as error:
            raise ConfigurationError(f"{source_of(settings)}: {error}") from None


def forget(settings: Settings) -> list[MasterKey]:
    """Take those out of the file that no data key is sealed under; returns them."""
    if source_of(settings) != "master_key_file":
        raise ConfigurationError(f"{source_of(settings)}: take the old key out where it is kept")
    with _alone(settings):
        masters = load_master_keys(settings)
        used = {row.master_key_id for row in _rows(settings)}
        if kept := [master for master in masters if master.id in used]:
            write_key_file(settings.master_key_path, kept)
    return [master for master in masters if master.id not in used]


def add_data_key(settings: Settings, now: datetime, notice: timedelta) -> str:
    """Make a data key that seals when `notice` is over; returns its id."""
    masters = load_master_keys(settings)
    return run_once(settings.database, lambda it: data_keys.add_key(it, masters, now, notice))


def when_settled(settings: Settings, now: datetime) -> datetime:
    """When the newest data key seals, if that is still to come."""
    return max(now, _rows(settings)[-1].active_at)


def reseal(settings: Settings, clock: Clock, show: Callable[[int, int], None]) -> int:
    """Move what is sealed in the database to the current data key; returns how much did not open, and is left.

    `show` is told how many are done, of how many. May be stopped at any moment and begun again.
    """
    vault = open_vault(settings, clock)
    if not vault.name:
        raise StoreError("there is no newer data key to seal under: make one with --new-key")
    counts = inspect(settings.database, resealing.count_by_key)
    total = sum(count for name, count in counts.items() if name != vault.name)
    done = 0
    show(done, total)
    while True:  # rounds: what another transaction held in this one is there in the next
        in_round, broken = 0, 0
        for batch in _round(settings.database, vault):
            in_round += batch.resealed
            broken += batch.broken
            show(done + in_round, total)
        done += in_round
        if in_round == 0:
            return broken


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """One at a time: of two that change the file, the later would write it without the key that the other sealed under.

    The lock is on the folder, for the file is replaced.
    """
    if source_of(settings) != "master_key_file":
        yield
        return
    folder = settings.master_key_path.parent
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(f"master_key_file: {folder}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _round(url: str, vault: Vault) -> Iterator[resealing.Batch]:
    for place in resealing.PLACES:
        after: Any = None
        while (batch := run_once(url, lambda it: resealing.reseal(it, vault, place, after, _BATCH))).last is not None:  # noqa: B023
            after = batch.last
            yield batch


def _add_to_file(settings: Settings, masters: list[MasterKey]) -> MasterKey:
    if source_of(settings) != "master_key_file" or is_shared(settings.database):
        raise ConfigurationError(
            f"{source_of(settings)}: put a new key before the old one, for every process, then run this again;"
            " `chartwire master-key new` prints one"
        )
    fresh = new_master_key()
    write_key_file(settings.master_key_path, [fresh, *masters])
    return fresh


def _rows(settings: Settings) -> list[SealedKey]:
    if not (rows := inspect(settings.database, data_keys.list_keys)):
        raise StoreError("there are no data keys yet: the first start makes them")
    return rows
