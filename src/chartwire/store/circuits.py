"""The circuit breakers of networks: one row each, shared by all who ask it; a network without a row is well."""

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, bindparam, delete, select

from chartwire.errors import IssueCode
from chartwire.model.circuit import Circuit
from chartwire.store.database import lock
from chartwire.store.schema import network_circuit

_OF_NETWORKS = select(network_circuit).where(network_circuit.c.network.in_(bindparam("networks", expanding=True)))


def find(connection: Connection, networks: Collection[str]) -> dict[str, Circuit]:
    """The circuits of those of `networks` that are not known to be well."""
    rows = connection.execute(_OF_NETWORKS, {"networks": list(networks)})
    return {
        row.network: Circuit(row.failures, row.pauses, IssueCode(row.code), row.opened_at, row.tries_at) for row in rows
    }


def note_failure(
    connection: Connection,
    network: str,
    code: IssueCode,
    asked_at: datetime,
    now: datetime,
    first_pause: timedelta,
    retry_after: float | None = None,
) -> None:
    """Somebody was not answered, for a reason that says that the network is away (`Circuit.after_failure`)."""
    lock(connection, f"circuit/{network}")
    known = find(connection, [network]).get(network, Circuit())
    circuit = known.after_failure(code, asked_at, now, first_pause, retry_after)
    connection.execute(delete(network_circuit).where(_is(network)))
    connection.execute(network_circuit.insert().values(network=network, **asdict(circuit)))


def close(connection: Connection, network: str) -> None:
    """The network has answered."""
    lock(connection, f"circuit/{network}")
    connection.execute(delete(network_circuit).where(_is(network)))


def _is(network: str) -> ColumnElement[bool]:
    return network_circuit.c.network == network
