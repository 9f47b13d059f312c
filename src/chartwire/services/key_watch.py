"""Keeps the vault of a running process in step with the data keys in the database."""

import asyncio
import math

from chartwire.clock import Clock
from chartwire.errors import ConfigurationError
from chartwire.settings import Settings
from chartwire.store import data_keys
from chartwire.store.data_keys import Keyring, UnknownMasterKeyError
from chartwire.store.database import Database
from chartwire.store.master_key import load_master_keys
from chartwire.store.vault import Vault
from chartwire.telemetry import get_logger

_LOOK_EVERY_SECONDS = 5.0
_TROUBLED_SECONDS = 60.0

log = get_logger()


class KeyWatch:
    """Looks every few seconds: well within the notice that is given of a new key (`store.data_keys.NOTICE`)."""

    def __init__(self, database: Database, keyring: Keyring, vault: Vault, clock: Clock, settings: Settings) -> None:
        self._database = database
        self._keyring = keyring
        self._vault = vault
        self._clock = clock
        self._settings = settings

    async def run(self) -> None:
        """Work until cancelled. What fails is tried again."""
        while True:
            wait = _LOOK_EVERY_SECONDS
            try:
                wait = min(wait, await self.look())
            except ConfigurationError as error:
                log.warning("a data key cannot be opened by this process", hint=str(error))
                wait = _TROUBLED_SECONDS  # each look asks the key store
            except Exception:  # whatever the database raises, the watch goes on after it
                log.exception("looking for data keys failed")
            await asyncio.sleep(wait)

    async def look(self) -> float:
        """Take up the keys that there are now; returns the seconds until the next of them seals.

        Raises `ConfigurationError` if a master key is missing.
        """
        rows = await self._database.read(data_keys.list_keys)
        try:
            keys = self._keyring.keys(rows, self._clock())
        except UnknownMasterKeyError:
            self._keyring.masters = await asyncio.to_thread(load_master_keys, self._settings)
            keys = self._keyring.keys(rows, self._clock())
        if [key.name for key in keys] != self._vault.names:
            self._vault.hold(keys)
        now = self._clock()
        return min(((row.active_at - now).total_seconds() for row in rows if row.active_at > now), default=math.inf)
