"""How an installation runs: its processes, what waits, what is kept; and to whom a patient's data went."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Worker:
    """A process of the installation that was heard of lately. `role` is what it does, as the settings say."""

    id: str
    role: str
    host: str
    pid: int
    version: str
    started_at: datetime
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class Queue:
    """What of one kind waits, by age: `counts[i]` for less than the i-th bound, the last for longer than all."""

    kind: str
    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        """How much waits."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Storage:
    """What is kept, in bytes. `documents` and `document_bytes` are the account's, the rest the installation's.

    `disk_free` and `disk_total` are None where documents are not on a disk of this machine.
    """

    documents: int
    document_bytes: int
    held: int
    database_bytes: int
    disk_free: int | None
    disk_total: int | None


@dataclass(frozen=True, slots=True)
class Disclosure:
    """That data of a patient went to somebody (45 CFR 164.528(b)(2)): when, to whom, what, and why."""

    seq: int
    at: datetime
    recipient: str
    what: str
    purpose: str
    outcome: str
