"""Opens the vault of an installation: master key, then data keys."""

from datetime import datetime

from chartwire.clock import Clock
from chartwire.errors import ConfigurationError, StoreError
from chartwire.settings import Settings
from chartwire.store import data_keys
from chartwire.store.data_keys import Keyring, UnknownMasterKeyError
from chartwire.store.inspection import inspect
from chartwire.store.master_key import MasterKey, ensure_key_file, load_master_keys, source_of
from chartwire.store.profile import is_shared, run_once
from chartwire.store.vault import Vault


def make_keys(settings: Settings, now: datetime) -> tuple[Keyring, Vault]:
    """The keys of a server that starts, made if nothing was ever sealed. Raises `ConfigurationError`."""
    keyring = Keyring(_ensure_master_keys(settings))
    try:
        rows = run_once(settings.database, lambda connection: data_keys.ensure_keys(connection, keyring.masters, now))
        return keyring, Vault.of(keyring.keys(rows, now))
    except UnknownMasterKeyError as error:
        raise ConfigurationError(f"{_place(settings)}: {error}") from None


def open_vault(settings: Settings, clock: Clock) -> Vault:
    """The vault of an installation that has run, for commands beside it; makes and changes nothing.

    Raises `ConfigurationError` for a wrong master key, `StoreError` if nothing was sealed yet.
    """
    keyring = Keyring(load_master_keys(settings))
    rows = inspect(settings.database, data_keys.list_keys)
    if not rows:
        raise StoreError("there are no data keys yet: the first start makes them")
    try:
        return Vault.of(keyring.keys(rows, clock()))
    except UnknownMasterKeyError as error:
        raise ConfigurationError(f"{_place(settings)}: {error}") from None


def is_anything_sealed(settings: Settings) -> bool:
    """Whether a master key is needed to open what is there."""
    return inspect(settings.database, lambda it: bool(data_keys.list_keys(it)) or data_keys.is_sealed_without_keys(it))


def _ensure_master_keys(settings: Settings) -> list[MasterKey]:
    path = settings.master_key_path
    if source_of(settings) != "master_key_file" or path.exists():
        return load_master_keys(settings)
    if is_anything_sealed(settings):
        # A new key would open nothing of what is here, and would hide that the old one is lost.
        raise ConfigurationError(f"master_key_file: {path} is gone, but data is sealed under it; put its backup there")
    if is_shared(settings.database):
        # Each process would make a key of its own, and none could open what another sealed.
        raise ConfigurationError(f"master_key_file: {path} is not there; make one key for all: openssl rand -base64 32")
    return ensure_key_file(path)


def _place(settings: Settings) -> str:
    source = source_of(settings)
    return f"master_key_file: {settings.master_key_path}" if source == "master_key_file" else source
