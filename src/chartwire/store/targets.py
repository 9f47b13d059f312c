"""Where the messages of endpoints go and what proves them, kept opened between claims.

An endpoint's `version` grows with whatever changes it or its keys, in the same transaction. A claim reads the versions
of what it serves: a target that is kept under another version is read anew, so that a change acts on the very next
claim. What a claim read is kept only once it has been committed: a version that was rolled back is given out again,
to something else. Expired keys are passed over when a message is signed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, select

from chartwire.errors import SealBrokenError
from chartwire.model.signing_key import SigningKey
from chartwire.model.webhook import Endpoint
from chartwire.store import schema
from chartwire.store.endpoints import keys_by_endpoint, open_headers, open_tls, to_endpoint
from chartwire.store.vault import Vault
from chartwire.telemetry import get_logger
from chartwire.tls import TlsProfile

_MANY = 10_000

log = get_logger()


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """Where an endpoint's messages go now, and what signs them; the current key is first.

    It equals nothing but itself, so that what is prepared for it is found again.
    """

    endpoint: Endpoint
    keys: tuple[SigningKey, ...]
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: TlsProfile | None = None

    def keys_at(self, now: datetime) -> Sequence[SigningKey]:
        """The keys that sign now: mostly the only one."""
        if len(self.keys) == 1:
            return self.keys
        return [key for key in self.keys if key.expires_at is None or key.expires_at > now]


class Targets:
    """The targets of endpoints that had something to send lately. Used by one claim at a time."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._kept: dict[int, Target] = {}

    def load(self, connection: Connection, versions: Mapping[int, int], now: datetime) -> Mapping[int, Target]:
        """The targets of endpoints, given the version of each; without those whose secrets cannot be opened."""
        changed = [seq for seq, version in versions.items() if self.find(seq, version) is None]
        kept = {seq: self._kept[seq] for seq in versions.keys() - set(changed)}
        return {**kept, **self._read(connection, changed, now)} if changed else kept

    def find(self, seq: int, version: int) -> Target | None:
        """The target of an endpoint, if it is kept under this version."""
        kept = self._kept.get(seq)
        return kept if kept is not None and kept.endpoint.version == version else None

    def keep(self, targets: Iterable[Target]) -> None:
        """Remember what a claim that was committed has read."""
        if len(self._kept) > _MANY:
            self._kept.clear()
        self._kept.update((target.endpoint.seq, target) for target in targets)

    def _read(self, connection: Connection, seqs: Sequence[int], now: datetime) -> dict[int, Target]:
        try:
            return self._open(connection, seqs, now)
        except SealBrokenError:  # one endpoint must not stop the others
            if len(seqs) > 1:
                return {seq: target for each in seqs for seq, target in self._read(connection, [each], now).items()}
            endpoint_id = connection.execute(
                select(schema.endpoint.c.id).where(schema.endpoint.c.seq.in_(seqs))
            ).scalar()
            log.exception("the secrets of an endpoint cannot be opened", endpoint_id=endpoint_id)
            return {}

    def _open(self, connection: Connection, seqs: Sequence[int], now: datetime) -> dict[int, Target]:
        keys = keys_by_endpoint(connection, self._vault, seqs, now)
        targets = {}
        for row in connection.execute(select(schema.endpoint).where(schema.endpoint.c.seq.in_(seqs))).all():
            headers, tls = open_headers(self._vault, row.headers), open_tls(self._vault, row.tls)
            targets[row.seq] = Target(to_endpoint(row), keys.get(row.seq, ()), headers, tls)
        return targets
