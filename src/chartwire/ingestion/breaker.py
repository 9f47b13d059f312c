"""Asking networks under their circuit breakers, which all processes of an installation share.

A network that is away is not asked by each of the thousand steps that wait for it: a step that comes while the circuit
is open is put off until the network may be asked again, and keeps its attempts. Once that has gone on for as long as
steps are ever put off, being refused counts as a failed attempt, so that queries come to an end.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from sqlalchemy import Connection

from chartwire.clock import Clock
from chartwire.errors import IssueCode, NetworkError, NotAskedError, StoreError, TemporaryNetworkError
from chartwire.ingestion.steps import within_deadline
from chartwire.model.circuit import Circuit, CircuitState
from chartwire.store import circuits
from chartwire.store.database import Database
from chartwire.store.queries import LONGEST_WAIT
from chartwire.telemetry import get_logger

AWAY = frozenset({IssueCode.TIMEOUT, IssueCode.UNREACHABLE, IssueCode.THROTTLED, IssueCode.SERVER_ERROR})
"""Why a network as a whole may not answer."""
AWAY_FOR_ONE = frozenset({IssueCode.UNREACHABLE, IssueCode.THROTTLED})
"""Of these, what one document cannot be the cause of: servers fail over a single broken or huge one."""

T = TypeVar("T")
log = get_logger()


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

        Raises what `question` raises, `TemporaryNetworkError` past the deadline, and while the circuit is open
        `NotAskedError`, or a plain `TemporaryNetworkError` if that has lasted.
        """
        circuit = await self._circuit(network)
        if circuit is not None:
            self._pass(circuit)
        asked_at = self._clock()
        try:
            answer = await within_deadline(question, seconds)
        except TemporaryNetworkError as error:
            if (code := error.code) in away:
                now, pause, retry_after = self._clock(), self._first_pause, error.retry_after
                await self._note(
                    lambda it: circuits.note_failure(it, network, code, asked_at, now, pause, retry_after), network
                )
            raise
        if circuit is not None:
            await self._note(lambda it: circuits.close(it, network), network)
        return answer

    async def _circuit(self, network: str) -> Circuit | None:
        found = await self._database.read(lambda connection: circuits.find(connection, [network]))
        return found.get(network)

    def _pass(self, circuit: Circuit) -> None:
        now = self._clock()
        if circuit.state(now) is not CircuitState.OPEN or circuit.tries_at is None or circuit.opened_at is None:
            return
        refusal: type[NetworkError] = NotAskedError
        if now >= circuit.opened_at + LONGEST_WAIT:
            refusal = TemporaryNetworkError
        raise refusal(circuit.code, retry_after=(circuit.tries_at - now).total_seconds())

    async def _note(self, unit: Callable[[Connection], None], network: str) -> None:
        """A note that is lost costs less than the answer, or the reason, that came."""
        try:
            await self._database.write(unit)
        except StoreError:
            log.exception("could not note how asking went", network=network)
