"""Sending again what was settled: one delivery, or all that a filter chooses, a batch at a time.

What is sent again keeps its id, has the whole schedule before it, and waits beside what has not been attempted yet.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, literal_column, select, update

from chartwire import ids
from chartwire.model.listing import Part, Window
from chartwire.model.webhook import (
    PROBES,
    DeliveryFilter,
    DeliveryState,
    DeliverySummary,
    EventType,
    Replay,
    ReplayState,
)
from chartwire.store import history, ring, schema
from chartwire.store.database import Bell
from chartwire.store.database import ring as ring_bell
from chartwire.store.listing import read_part
from chartwire.store.records import from_json, to_json
from chartwire.store.vault import Purpose, Vault

_EVENT = schema.event.c
_ENDPOINT = schema.endpoint.c
_DELIVERY = schema.delivery.c
_REPLAY = schema.replay.c
_IS_RUNNING = _REPLAY.state == literal_column("'running'")
ORDERS = {"begun": _REPLAY.id, "state": _REPLAY.state, "sent": _REPLAY.replayed, "total": _REPLAY.total}
SETTLED = (DeliveryState.DELIVERED, DeliveryState.FAILED)

Renew = Callable[[bytes], bytes]
"""A payload with fresh links; the same payload when it has none."""


def count(connection: Connection, account_id: str, chosen: DeliveryFilter) -> int:
    """How many deliveries a replay would send again now."""
    return connection.execute(_replayable(account_id, chosen).with_only_columns(func.count())).scalar_one()


def start(connection: Connection, account_id: str, chosen: DeliveryFilter, now: datetime) -> Replay:
    """Begin a replay of what is chosen and there now."""
    until = connection.execute(select(func.max(_DELIVERY.seq)).where(_DELIVERY.account_id == account_id)).scalar_one()
    row = connection.execute(
        insert(schema.replay)
        .values(
            id=ids.new_id(),
            account_id=account_id,
            state=ReplayState.RUNNING,
            chosen=to_json(chosen),
            total=count(connection, account_id, chosen),
            replayed=0,
            after_seq=0,
            until_seq=until or 0,
            created_at=now,
        )
        .returning(schema.replay)
    ).one()
    ring_bell(connection, Bell.REPLAY)
    return _to_replay(row)


def list_replays(connection: Connection, account_id: str, limit: int) -> list[Replay]:
    """The last replays, the newest first."""
    query = select(schema.replay).where(_REPLAY.account_id == account_id).order_by(_REPLAY.id.desc()).limit(limit)
    return [_to_replay(row) for row in connection.execute(query)]


def page_replays(connection: Connection, account_id: str, state: ReplayState | None, window: Window) -> Part[Replay]:
    """A part of the replays of an account, ordered by one of `ORDERS`."""
    query = select(schema.replay).where(_REPLAY.account_id == account_id)
    if state is not None:
        query = query.where(_REPLAY.state == state)
    return read_part(connection, query, ORDERS, _REPLAY.id, window, _to_replay)


def find(connection: Connection, account_id: str, replay_id: str) -> Replay | None:
    """One replay."""
    query = select(schema.replay).where(_REPLAY.account_id == account_id, _REPLAY.id == replay_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else _to_replay(row)


def cancel(connection: Connection, replay: Replay, now: datetime) -> None:
    """Send nothing more of it again; what waits already goes out."""
    connection.execute(
        update(schema.replay)
        .where(_REPLAY.id == replay.id, _IS_RUNNING)
        .values(state=ReplayState.CANCELLED, ended_at=now)
    )


def running(connection: Connection) -> list[Replay]:
    """Replays that are not at their end."""
    return [_to_replay(row) for row in connection.execute(select(schema.replay).where(_IS_RUNNING))]


def count_running(connection: Connection, account_id: str) -> int:
    """How many replays of an account are not at their end."""
    query = select(func.count()).select_from(schema.replay).where(_REPLAY.account_id == account_id, _IS_RUNNING)
    return connection.execute(query).scalar_one()


def advance(
    connection: Connection, vault: Vault, replay_id: str, renew: Renew, now: datetime, limit: int
) -> Replay | None:
    """Send the next `limit` deliveries again; returns how far the replay is, None if it is at its end."""
    running = select(schema.replay).where(_REPLAY.id == replay_id, _IS_RUNNING).with_for_update()
    row = connection.execute(running).one_or_none()
    if row is None:
        return None
    replay = _to_replay(row)
    span = (_DELIVERY.seq > replay.after_seq) & (_DELIVERY.seq <= replay.until_seq)
    query = _replayable(replay.account_id, replay.chosen).where(span).order_by(_DELIVERY.seq).limit(limit)
    found = [history.to_delivery(row) for row in connection.execute(query)]
    send_again(connection, vault, found, renew, now)
    ended = len(found) < limit
    changed = connection.execute(
        update(schema.replay)
        .where(_REPLAY.id == replay_id)
        .values(
            replayed=_REPLAY.replayed + len(found),
            after_seq=found[-1].seq if found else replay.after_seq,
            state=ReplayState.COMPLETED if ended else ReplayState.RUNNING,
            ended_at=now if ended else None,
        )
        .returning(schema.replay)
    ).one()
    return None if ended else _to_replay(changed)


def send_again(
    connection: Connection, vault: Vault, deliveries: Sequence[DeliverySummary], renew: Renew, now: datetime
) -> None:
    """Let settled deliveries wait again, with fresh links."""
    seqs = [delivery.seq for delivery in deliveries]
    if not seqs:
        return
    linked = {each.event_id for each in deliveries if each.event_type is EventType.DOCUMENT_BULK_DOWNLOAD_URLS}
    for event_id in sorted(linked):
        _renew(connection, vault, event_id, renew)
    connection.execute(
        update(schema.delivery)
        .where(_DELIVERY.seq.in_(seqs), _DELIVERY.state.in_(SETTLED))  # one may be on its way again by another's wish
        .values(state=DeliveryState.WAITING, attempts=0, again=True, due_at=now, settled_at=None)
    )
    endpoints = select(_DELIVERY.endpoint_seq).where(_DELIVERY.seq.in_(seqs)).distinct()
    ring.wake(connection, connection.execute(endpoints).scalars().all(), now)
    ring_bell(connection, Bell.DELIVERY)


def _renew(connection: Connection, vault: Vault, event_id: str, renew: Renew) -> None:
    sealed = connection.execute(select(_EVENT.body).where(_EVENT.id == event_id)).scalar_one()
    fresh = renew(vault.open(Purpose.PAYLOAD, sealed))
    connection.execute(
        update(schema.event)
        .where(_EVENT.id == event_id)
        .values(body=vault.seal(Purpose.PAYLOAD, fresh), size=len(fresh))
    )


def _replayable(account_id: str, chosen: DeliveryFilter) -> Select[Any]:
    """What has bytes and somewhere to go; probes are not repeated."""
    return history.select_deliveries(account_id, chosen).where(
        _DELIVERY.state.in_(SETTLED),
        _EVENT.type.not_in(PROBES),
        _EVENT.body.is_not(None),
        _ENDPOINT.url.is_not(None),
    )


def _to_replay(row: Row[Any]) -> Replay:
    return Replay(
        id=row.id,
        account_id=row.account_id,
        state=ReplayState(row.state),
        chosen=from_json(DeliveryFilter, row.chosen),
        total=row.total,
        replayed=row.replayed,
        after_seq=row.after_seq,
        until_seq=row.until_seq,
        created_at=row.created_at,
        ended_at=row.ended_at,
    )
