"""Asking networks under their circuit breakers, which all processes of an installation share.

A network that is away is not asked by each of the thousand steps that wait for it: a step that comes while the circuit
is open fails at once, for the reason for which it opened, and is due again when the network may be asked again. So
every step is refused at most once for each time that the network failed, and queries still come to an end.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from chartwire.clock import Clock
from chartwire.errors import IssueCode, NetworkError, TemporaryNetworkError
from chartwire.ingestion.steps import within_deadline
from chartwire.model.circuit import Circuit, CircuitState
from chartwire.store import circuits
from chartwire.store.database import Database

AWAY = frozenset({IssueCode.TIMEOUT, IssueCode.UNREACHABLE, IssueCode.THROTTLED, IssueCode.SERVER_ERROR})
"""Why a network as a whole may not answer."""
AWAY_FOR_ONE = frozenset({IssueCode.UNREACHABLE, IssueCode.THROTTLED})
"""Of these, what one document cannot be the cause of: servers fail over a single broken or huge one."""

T = TypeVar("T")


class Breaker:
    """Asks, and remembers how it went. `first_pause` is how long a network is left in peace at first."""

    def __init__(self, database: Database, clock: Clock, first_pause: timedelta) -> None:
        self._database = database
        self._clock = clock
        self._first_pause = first_pause

    async def ask(
        self, network: str, question: Callable[[], Awaitable[T]], seconds: float, away: frozenset[IssueCode]
    ) -> T:
        """The answer of `network` to `question`; temporary failures with a code in `away` say that it is away.

        Raises what `question` raises, and `TemporaryNetworkError` past the deadline and while the circuit is open.
        """
        circuit = await self._circuit(network)
        if circuit is not None:
            self._pass(circuit)
        try:
            answer = await within_deadline(question, seconds)
        except NetworkError as error:
            await self._failed(network, circuit, error, away)
            raise
        await self._answered(network, circuit)
        return answer

    async def _circuit(self, network: str) -> Circuit | None:
        found = await self._database.read(lambda connection: circuits.find(connection, [network]))
        return found.get(network)

    def _pass(self, circuit: Circuit) -> None:
        now = self._clock()
        if circuit.state(now) is CircuitState.OPEN and circuit.tries_at is not None:
            raise TemporaryNetworkError(circuit.code, retry_after=(circuit.tries_at - now).total_seconds())

    async def _failed(
        self, network: str, circuit: Circuit | None, error: NetworkError, away: frozenset[IssueCode]
    ) -> None:
        if error.code in away and isinstance(error, TemporaryNetworkError):
            now = self._clock()
            await self._database.write(
                lambda connection: circuits.note_failure(connection, network, error.code, now, self._first_pause)
            )
        elif error.code not in AWAY | {IssueCode.INTERNAL}:  # a refusal is an answer, too
            await self._answered(network, circuit)

    async def _answered(self, network: str, circuit: Circuit | None) -> None:
        if circuit is not None:
            await self._database.write(lambda connection: circuits.close(connection, network))
