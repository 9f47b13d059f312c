"""The outbox: what must be told, written in the transaction that makes it true.

    event      a message, rendered and sealed; one row whatever the number of endpoints
    delivery   one event for one endpoint: waiting until `due_at`, then delivered, failed or dropped

Here is what services and ingestion do; what the delivery engine does is in `store.claims` and `store.deliveries`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, func, literal_column, select, update

from chartwire.clock import to_milliseconds
from chartwire.formats import fhir_notifications
from chartwire.model import message
from chartwire.model.webhook import PROBES, DeliveryState, Endpoint, EventDraft, EventType, Outcome, PayloadVersion
from chartwire.store import schema
from chartwire.store.bulk import Bulk, Insert, Row, Statement
from chartwire.store.claims import ClaimedDelivery
from chartwire.store.database import Bell, lock_account, ring
from chartwire.store.endpoints import endpoints_of, wants
from chartwire.store.handover import NOTHING_OFFERED, Offer, handover_of
from chartwire.store.ring import IS_FAILED, IS_WAITING, WAKING, is_shared, wake
from chartwire.store.vault import Purpose, Vault

INSERT_EVENT = Insert(schema.event, "id account_id type payload_version query_id trace body size created_at expires_at")

INSERT_SUBJECTS = Bulk("INSERT INTO event_subject (event_seq, patient_id) {rows}", "bigint text")

INSERT_DELIVERIES = Insert(
    schema.delivery,
    "event_seq endpoint_seq account_id state due_at outcome created_at settled_at lease lease_until",
)

APPEND = Statement(
    f"""WITH written AS (
        INSERT INTO event (id, account_id, type, payload_version, query_id, trace, body, size, created_at, expires_at)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING seq),
    subjects AS (
        INSERT INTO event_subject (event_seq, patient_id)
        SELECT written.seq, about.patient_id FROM written, unnest(?::text[]) AS about (patient_id)),
    deliveries AS (
        INSERT INTO delivery (event_seq, endpoint_seq, account_id, state, due_at, outcome, created_at, settled_at)
        SELECT written.seq, told.* FROM written,
            unnest(?::bigint[], ?::text[], ?::text[], ?::bigint[], ?::text[], ?::bigint[], ?::bigint[]) AS told),
    {WAKING.replace("IN {rows}", "= ANY (?::bigint[])")}
    SELECT seq FROM written"""  # noqa: S608  all of it written here
)
"""All of a message in one round trip, for PostgreSQL, where nothing is handed over and so no delivery's number matters.

Of what it writes nothing depends on its snapshot, which may have been taken before others had ended.
"""

_EVENT = schema.event.c
_SUBJECT = schema.event_subject.c
_DELIVERY = schema.delivery.c


@dataclass(frozen=True, slots=True)
class DeliveryCounts:
    """How many deliveries of an account wait and how many have failed; probes do not count."""

    waiting: int
    failed: int


def append(
    connection: Connection,
    vault: Vault,
    draft: EventDraft,
    endpoints: Sequence[Endpoint],
    now: datetime,
    retention: timedelta,
) -> None:
    """Write a message for those of `endpoints` that take its type; its bytes are kept for `retention`.

    An endpoint without a URL gets a delivery that has already failed: setting a URL later and asking for a retry
    delivers it.
    """
    takers = [endpoint for endpoint in endpoints if wants(endpoint, draft.type)]
    append_for(connection, vault, draft, takers, now, retention)


def append_for(
    connection: Connection,
    vault: Vault,
    draft: EventDraft,
    takers: Sequence[Endpoint],
    now: datetime,
    retention: timedelta,
) -> int:
    """As `append`, for endpoints that take this message whatever its type is; returns the event's number.

    The account's lock makes the numbers of its events and deliveries rise in the order of their commits.
    """
    lock_account(connection, draft.account_id)
    sealed = vault.seal(Purpose.PAYLOAD, draft.body)
    ring(connection, Bell.EVENT)
    if is_shared(connection):
        return _append_at_once(connection, _event_row(draft, sealed, now, retention), draft.patient_ids, takers, now)
    event_seq = _insert_event(connection, draft, sealed, now, retention)
    handover = handover_of(connection)
    offer = NOTHING_OFFERED if handover is None else handover.offer(connection, takers, now)
    rows = [_delivery_row(event_seq, endpoint, now, offer) for endpoint in takers]
    seqs = _deliver(connection, rows, [each for each in takers if each.seq not in offer.targets], now)
    if handover is not None and offer.targets:
        for seq, endpoint in zip(seqs, takers, strict=True):
            if endpoint.seq in offer.targets:
                handover.hand(connection, _handed(draft, sealed, seq, event_seq, endpoint.seq, now, offer))
    return event_seq


def deliver(connection: Connection, event_seqs: Sequence[int], endpoint: Endpoint, now: datetime) -> None:
    """Let events that were written before be sent to one more endpoint."""
    lock_account(connection, endpoint.account_id)
    rows = [_delivery_row(event_seq, endpoint, now, NOTHING_OFFERED) for event_seq in event_seqs]
    _deliver(connection, rows, [endpoint], now)


def is_waiting(connection: Connection, endpoint: Endpoint) -> bool:
    """Whether anything waits to be sent to an endpoint, or is being sent."""
    waiting = select(_DELIVERY.seq).where(_DELIVERY.endpoint_seq == endpoint.seq, IS_WAITING).limit(1)
    return connection.execute(waiting).first() is not None


def _deliver(connection: Connection, rows: Sequence[Row], waiting: Sequence[Endpoint], now: datetime) -> Sequence[int]:
    """Write deliveries and wake those endpoints of them that have to be looked at; returns their numbers."""
    seqs = INSERT_DELIVERIES.number(connection, rows)
    _wake(connection, waiting if rows else (), now)
    return seqs


def _append_at_once(
    connection: Connection, event: Row, patient_ids: Sequence[str], takers: Sequence[Endpoint], now: datetime
) -> int:
    # The event's number is the statement's to give, and no lease is: the first column and the last two.
    rows = [_delivery_row(0, endpoint, now, NOTHING_OFFERED)[1:-2] for endpoint in takers]
    columns = zip(*rows, strict=True) if rows else [()] * 7
    event_seq: int
    reachable, at = _reachable(takers), to_milliseconds(now)
    values = (*event, tuple(dict.fromkeys(patient_ids)), *columns, at, at, at, reachable)
    ((event_seq,),) = APPEND.run(connection, values)
    if reachable:
        ring(connection, Bell.DELIVERY)
    return event_seq


def _wake(connection: Connection, waiting: Sequence[Endpoint], now: datetime) -> None:
    reachable = _reachable(waiting)
    if reachable:
        wake(connection, reachable, now)
        ring(connection, Bell.DELIVERY)


def _reachable(endpoints: Sequence[Endpoint]) -> list[int]:
    return [endpoint.seq for endpoint in endpoints if endpoint.url is not None]


_LAST_CREATED = (
    select(_EVENT.created_at)
    .where(_EVENT.account_id == bindparam("account"), _EVENT.type == bindparam("type"))
    .order_by(_EVENT.seq.desc())
    .limit(1)
)


def last_created(connection: Connection, account_id: str, event_type: EventType) -> datetime | None:
    """When the newest event of a type was written."""
    return connection.execute(_LAST_CREATED, {"account": account_id, "type": event_type}).scalar_one_or_none()


def retry_failed(connection: Connection, account_id: str, now: datetime) -> int:
    """Everything of an account that failed waits again, with the whole schedule before it; returns how much that is.

    What has no bytes any more, and what has still nowhere to go, stays failed. Probes are not repeated.
    """
    lock_account(connection, account_id)
    revivable = (
        select(_DELIVERY.seq)
        .join(schema.event, _EVENT.seq == _DELIVERY.event_seq)
        .join(schema.endpoint, schema.endpoint.c.seq == _DELIVERY.endpoint_seq)
        .where(
            failed_of(account_id),
            _EVENT.type.not_in(PROBES),
            _EVENT.body.is_not(None),
            schema.endpoint.c.url.is_not(None),
        )
    )
    revived = connection.execute(
        update(schema.delivery)
        .where(_DELIVERY.seq.in_(revivable), IS_FAILED)  # still, on PostgreSQL
        .values(state=DeliveryState.WAITING, attempts=0, again=True, due_at=now, settled_at=None)
    ).rowcount
    if revived:
        wake(connection, [endpoint.seq for endpoint in endpoints_of(connection, account_id)], now)
        ring(connection, Bell.DELIVERY)
    return revived


def hasten(connection: Connection, endpoint: Endpoint, now: datetime) -> int:
    """What waits for an endpoint, however long it was to wait, is due now; returns how much that is."""
    hastened = connection.execute(
        update(schema.delivery)
        .where(_DELIVERY.endpoint_seq == endpoint.seq, IS_WAITING, _DELIVERY.lease.is_(None), _DELIVERY.due_at > now)
        .values(due_at=now)
    ).rowcount
    wake(connection, [endpoint.seq], now)
    ring(connection, Bell.DELIVERY)
    return hastened


def fail_waiting(connection: Connection, endpoint: Endpoint, outcome: Outcome, now: datetime) -> None:
    """Give up what waits for an endpoint and is not being posted right now."""
    _fail(connection, _DELIVERY.endpoint_seq == endpoint.seq, outcome, now)


def drop_waiting(connection: Connection, endpoint: Endpoint, now: datetime) -> None:
    """What waits for an endpoint that was deleted is not sent any more; what is being posted right now ends first."""
    connection.execute(
        update(schema.delivery)
        .where(_DELIVERY.endpoint_seq == endpoint.seq, IS_WAITING, _DELIVERY.lease.is_(None))
        .values(state=DeliveryState.DROPPED, settled_at=now)
    )


def withdraw(connection: Connection, delivery_seq: int, now: datetime) -> bool:
    """Take back a delivery that nobody has begun to post; False if it is not to be had."""
    statement = (
        update(schema.delivery)
        .where(_DELIVERY.seq == delivery_seq, IS_WAITING, _DELIVERY.lease.is_(None))
        .values(state=DeliveryState.DROPPED, settled_at=now)
    )
    return connection.execute(statement).rowcount == 1


def take_up_dropped(connection: Connection, endpoint: Endpoint, event_seqs: Select[int], now: datetime) -> None:
    """Let those of some events that were dropped wait again, for an endpoint that came back."""
    connection.execute(
        update(schema.delivery)
        .where(_DELIVERY.event_seq.in_(event_seqs), _DELIVERY.endpoint_seq == endpoint.seq)
        .where(_DELIVERY.state == DeliveryState.DROPPED)
        .values(state=DeliveryState.WAITING, attempts=0, again=True, due_at=now, settled_at=None)
    )
    wake(connection, [endpoint.seq], now)
    ring(connection, Bell.DELIVERY)


def count_deliveries(connection: Connection, account_id: str) -> DeliveryCounts:
    """What waits and what failed."""
    query = (
        select(func.count())
        .select_from(schema.delivery)
        .join(schema.event, _EVENT.seq == _DELIVERY.event_seq)
        .where(_EVENT.type.not_in(PROBES))
    )
    waiting, failed = (query.where(of(account_id)) for of in (waiting_of, failed_of))
    return DeliveryCounts(connection.execute(waiting).scalar_one(), connection.execute(failed).scalar_one())


def waiting_of(account_id: str) -> ColumnElement[bool]:
    """What waits for an account's endpoints: a range of `ix_delivery_due` for each."""
    endpoint = schema.endpoint.c
    mine = select(endpoint.seq).where(endpoint.account_id == account_id)
    return and_(_DELIVERY.endpoint_seq.in_(mine), IS_WAITING)


def failed_of(account_id: str) -> ColumnElement[bool]:
    """What has failed of an account's: a range of `ix_delivery_failed`."""
    return and_(_DELIVERY.account_id == account_id, IS_FAILED)


def expire_payloads(connection: Connection, now: datetime, limit: int = 500) -> int:
    """Forget the bytes of at most `limit` events whose time is over; returns how many. Their history stays."""
    expired = (
        select(_EVENT.seq)
        .where(literal_column("event.body IS NOT NULL"), _EVENT.expires_at <= now)
        .order_by(_EVENT.expires_at)
        .limit(limit)
    )
    return _forget(connection, list(connection.execute(expired).scalars()), now)


def expunge_event(connection: Connection, account_id: str, event_id: str, now: datetime) -> bool:
    """Forget the bytes of one event at once; False if the account has no such event."""
    query = select(_EVENT.seq).where(_EVENT.account_id == account_id, _EVENT.id == event_id)
    seqs = list(connection.execute(query).scalars())
    _forget(connection, seqs, now)
    return bool(seqs)


def expunge_patient(connection: Connection, vault: Vault, account_id: str, patient_id: str, now: datetime) -> None:
    """Take a patient out of every message that is kept; a message that told of nobody else loses its bytes."""
    empty: list[int] = []
    for seq, body, version in connection.execute(_bodies_about(account_id, patient_id)).all():
        without_patient = (fhir_notifications if version == PayloadVersion.FHIR_R4 else message).without_patient
        rest = without_patient(vault.open(Purpose.PAYLOAD, body), patient_id)
        if rest is None:
            empty.append(seq)
        else:
            sealed = vault.seal(Purpose.PAYLOAD, rest)
            connection.execute(update(schema.event).where(_EVENT.seq == seq).values(body=sealed, size=len(rest)))
    _forget(connection, empty, now)


def _event_row(draft: EventDraft, sealed: bytes, now: datetime, retention: timedelta) -> Row:
    return (
        draft.id,
        draft.account_id,
        draft.type.value,
        draft.payload_version.value,
        draft.query_id,
        draft.trace,
        sealed,
        len(draft.body),
        to_milliseconds(now),
        to_milliseconds(now + retention),
    )


def _insert_event(connection: Connection, draft: EventDraft, sealed: bytes, now: datetime, retention: timedelta) -> int:
    row = _event_row(draft, sealed, now, retention)
    (event_seq,) = INSERT_EVENT.number(connection, [row])
    INSERT_SUBJECTS.run_for(connection, [(event_seq, patient_id) for patient_id in dict.fromkeys(draft.patient_ids)])
    return event_seq


def _delivery_row(event_seq: int, endpoint: Endpoint, now: datetime, offer: Offer) -> Row:
    at, until, lease = to_milliseconds(now), None, None
    state, due_at, outcome, settled_at = DeliveryState.WAITING.value, at, None, None
    if endpoint.url is None:
        state, outcome, settled_at = DeliveryState.FAILED.value, Outcome.NO_URL.value, at
    elif endpoint.seq in offer.targets:
        due_at = until = to_milliseconds(offer.lease_until)
        lease = offer.lease
    return event_seq, endpoint.seq, endpoint.account_id, state, due_at, outcome, at, settled_at, lease, until


def _handed(
    draft: EventDraft, sealed: bytes, seq: int, event_seq: int, endpoint_seq: int, now: datetime, offer: Offer
) -> ClaimedDelivery:
    """As a claim would have read it."""
    target = offer.targets[endpoint_seq]
    leased, until = offer.lease, offer.lease_until
    return ClaimedDelivery(
        seq, event_seq, draft.id, draft.type, sealed, now, 1, leased, until, target, draft.trace, draft.body
    )


def _bodies_about(account_id: str, patient_id: str) -> Select[int, bytes, str]:
    return (
        select(_EVENT.seq, _EVENT.body, _EVENT.payload_version)
        .join(schema.event_subject, _SUBJECT.event_seq == _EVENT.seq)
        .where(_SUBJECT.patient_id == patient_id, _EVENT.account_id == account_id, _EVENT.body.is_not(None))
    )


def _forget(connection: Connection, event_seqs: Sequence[int], now: datetime) -> int:
    if not event_seqs:
        return 0
    connection.execute(update(schema.event).where(_EVENT.seq.in_(event_seqs)).values(body=None))
    _fail(connection, _DELIVERY.event_seq.in_(event_seqs), Outcome.EXPIRED, now)
    return len(event_seqs)


def _fail(connection: Connection, which: ColumnElement[bool], outcome: Outcome, now: datetime) -> None:
    """What is leased is left alone: its holder is posting, and tells how that ended."""
    connection.execute(
        update(schema.delivery)
        .where(and_(which, IS_WAITING, _DELIVERY.lease.is_(None)))
        .values(state=DeliveryState.FAILED, outcome=outcome, settled_at=now)
    )
