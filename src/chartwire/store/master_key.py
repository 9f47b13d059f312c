"""The master key: what the data keys are sealed under, and where it comes from.

From a file, the environment, or a command that asks a key store. Each gives one key in Base64, or several, separated by
spaces, commas or lines: the first is the one to seal under, the others still open. Nothing that is given is ever shown.
"""

import base64
import hashlib
import os
import re
import secrets
import shlex
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chartwire.errors import ConfigurationError
from chartwire.settings import Settings
from chartwire.store.vault import KEY_BYTES, NONCE_BYTES, sync_folder

_LARGEST_ANSWER = 64 * 1024


@dataclass(frozen=True, slots=True)
class MasterKey:
    """32 random bytes. `id` names them without telling them."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Raises `ConfigurationError` for any other size."""
        if len(self.secret) != KEY_BYTES:
            raise ConfigurationError("the master key must have 32 bytes in Base64")

    @property
    def id(self) -> str:
        """16 hex digits."""
        return hashlib.sha256(b"chartwire/master-key-id\x00" + self.secret).hexdigest()[:16]

    def seal(self, name: str, plain: bytes) -> bytes:
        """Nonce, ciphertext, tag; opens under the same name alone."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher().encrypt(nonce, plain, name.encode())

    def open(self, name: str, sealed: bytes) -> bytes | None:
        """The inverse of `seal`; None if that was altered."""
        try:
            return self._cipher().decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError):
            return None

    def _cipher(self) -> AESGCM:
        return AESGCM(HKDF(SHA256(), KEY_BYTES, salt=None, info=b"chartwire/1/data-key").derive(self.secret))


def source_of(settings: Settings) -> str:
    """The name of the setting that gives the master key. Raises `ConfigurationError` if several do."""
    given = [name for name in ("master_key_file", "master_key", "master_key_command") if getattr(settings, name)]
    if len(given) > 1:
        raise ConfigurationError(f"{' and '.join(given)}: the master key comes from one of them")
    return given[0] if given else "master_key_file"


def load_master_keys(settings: Settings) -> list[MasterKey]:
    """The keys that are given, the one to seal under first. Raises `ConfigurationError` that tells nothing of them."""
    match source_of(settings):
        case "master_key":
            return _parse("master_key", settings.master_key.get_secret_value().encode())
        case "master_key_command":
            return _parse("master_key_command", _answer(settings))
        case _:
            return read_key_file(settings.master_key_path)


def read_key_file(path: Path) -> list[MasterKey]:
    """The keys in a file; raises `ConfigurationError` if it is absent, unreadable, exposed or malformed."""
    return _read(path, "master_key_file")


def read_key(path: Path, setting: str) -> bytes:
    """The one key in the file that a setting names; raises as `read_key_file`."""
    keys = _read(path, setting)
    if len(keys) > 1:
        raise ConfigurationError(f"{setting}: {path} holds more than one key")
    return keys[0].secret


def ensure_key_file(path: Path) -> list[MasterKey]:
    """The keys in a file, one made there (mode 0600, synced to disk) if the file does not exist."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _create(path, [new_master_key()])
    except OSError as error:
        raise ConfigurationError(f"master_key_file: {path}: {error.strerror}") from None
    return read_key_file(path)


def write_key_file(path: Path, keys: list[MasterKey]) -> None:
    """Replace what a file of keys holds: at no moment is it anything but the old keys or these."""
    owner = path.stat()
    draft = _draft(path, keys)
    os.chown(draft, owner.st_uid, owner.st_gid)  # whoever types the command, the server must be able to read it
    draft.replace(path)
    sync_folder(path.parent)


def new_master_key() -> MasterKey:
    """A fresh one."""
    return MasterKey(secrets.token_bytes(KEY_BYTES))


def as_text(key: MasterKey) -> str:
    """As a source of keys gives it."""
    return base64.b64encode(key.secret).decode()


def _read(path: Path, setting: str) -> list[MasterKey]:
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigurationError(f"{setting}: {path} can be read by others; run `chmod 600 {path}`")
        return _parse(f"{setting}: {path}", path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{setting}: {path}: {error.strerror}") from None


def _parse(source: str, text: bytes) -> list[MasterKey]:
    try:
        keys = [MasterKey(base64.b64decode(word, validate=True)) for word in re.split(rb"[\s,]+", text) if word]
    except ValueError:
        raise ConfigurationError(f"{source} does not hold Base64") from None
    except ConfigurationError:
        raise ConfigurationError(f"{source}: it must hold 32 bytes in Base64") from None
    if not keys:
        raise ConfigurationError(f"{source} holds no key")
    return keys


def _answer(settings: Settings) -> bytes:
    """What the command prints. It runs without a shell; what it says on standard error may hold secrets."""
    try:
        words = shlex.split(settings.master_key_command)
        environment = {name: value for name, value in os.environ.items() if name != "CHARTWIRE_MASTER_KEY"}
        with subprocess.Popen(  # noqa: S603  the operator's own
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            return _wait_for(process, settings.master_key_command_seconds)
    except ValueError:
        raise ConfigurationError("master_key_command: a quotation mark is not closed") from None
    except OSError as error:
        raise ConfigurationError(f"master_key_command: it cannot be run: {error.strerror}") from None


def _wait_for(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    try:
        answer, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # what it started, too: nobody else would end that
        raise ConfigurationError(f"master_key_command: no answer within {seconds:g} seconds") from None
    if process.returncode != 0:
        raise ConfigurationError(
            f"master_key_command: it ended with status {process.returncode}; run it by hand to see why"
        )
    if len(answer) > _LARGEST_ANSWER:
        raise ConfigurationError("master_key_command: it prints more than a key")
    return answer


def _create(path: Path, keys: list[MasterKey]) -> None:
    """Write, sync, then link into place: of two processes that start together one wins and both read its key."""
    draft = _draft(path, keys)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    sync_folder(path.parent)


def _draft(path: Path, keys: list[MasterKey]) -> Path:
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, "".join(f"{as_text(key)}\n" for key in keys).encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return draft
