"""How an account is doing: what the console's first page shows."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from chartwire.model.circuit import Circuit, CircuitState
from chartwire.model.health import Health
from chartwire.model.webhook import Endpoint, EndpointState, Outcome


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """An endpoint, what its answers add up to, and how many of its deliveries wait and have failed."""

    endpoint: Endpoint
    health: Health
    waiting: int
    failed: int

    @property
    def condition(self) -> "Condition":
        """How it is, in a word."""
        if self.endpoint.url is None:
            return Condition.UNSET
        if self.endpoint.state is EndpointState.DISABLED:
            return Condition.DISABLED
        if self.health.is_open:
            return Condition.PAUSED
        if self.health.failures:
            return Condition.FAILING
        return Condition.WELL if self.endpoint.verified else Condition.UNPROVEN


class Condition(StrEnum):
    """How an endpoint is. `PAUSED`: the breaker is open; `UNPROVEN`: nothing has been answered well yet."""

    WELL = "well"
    UNPROVEN = "unproven"
    FAILING = "failing"
    PAUSED = "paused"
    DISABLED = "disabled"
    UNSET = "unset"


@dataclass(frozen=True, slots=True)
class NetworkReport:
    """How asking one network went since some time: queries answered, failed, and still being asked.

    `issues` counts why asking failed, or is tried again. `documents` and `bytes` are all that it ever brought.
    `last_answered` and `last_failed` are when the last query began that ended so. `circuit` is that of all accounts,
    None while the network is well, and now in the state `circuit_state`.
    """

    name: str
    answered: int = 0
    failed: int = 0
    waiting: int = 0
    issues: tuple[tuple[str, int], ...] = ()
    documents: int = 0
    bytes: int = 0
    last_answered: datetime | None = None
    last_failed: datetime | None = None
    circuit: Circuit | None = None
    circuit_state: CircuitState = CircuitState.CLOSED


@dataclass(frozen=True, slots=True)
class HourOfAttempts:
    """The attempts that began in one hour, by outcome."""

    start: datetime
    counts: dict[Outcome, int]


@dataclass(frozen=True, slots=True)
class Backlog:
    """Deliveries that wait, by age: `counts[i]` of them for less than the i-th bound, the last for longer than all."""

    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        """How many wait."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Lag:
    """Milliseconds from an event's commit to its delivery, over the last `count` deliveries."""

    count: int
    median: int
    slow: int
    """95 of 100 were faster."""


class ConcernKind(StrEnum):
    """What may need somebody's attention, the most pressing first."""

    ENDPOINT_DISABLED = "endpoint-disabled"
    ENDPOINT_PAUSED = "endpoint-paused"
    ENDPOINT_FAILING = "endpoint-failing"
    DOCUMENTS_HELD = "documents-held"
    NETWORK_AWAY = "network-away"
    NETWORK_FAILING = "network-failing"
    DELIVERIES_FAILED = "deliveries-failed"
    BACKLOG_OLD = "backlog-old"


@dataclass(frozen=True, slots=True)
class Concern:
    """Something that may need attention: of an endpoint (its id) or a network (its name), and how much of it."""

    kind: ConcernKind
    subject: str = ""
    label: str = ""
    count: int = 0
    detail: str = ""
