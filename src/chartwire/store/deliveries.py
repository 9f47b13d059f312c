"""Deliveries that were attempted: settled by whoever still holds their lease, many in one transaction.

What happens to each is three statements for all: its row, its attempt, its audit entries. What the answers say of their
endpoints is a fourth while all is well, and two more for all endpoints that have, or had, failures.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import NamedTuple

from sqlalchemy import Connection, func, select, update

from chartwire import ids
from chartwire.clock import from_milliseconds, to_milliseconds
from chartwire.model.health import Health
from chartwire.model.message import endpoint_disabled
from chartwire.model.webhook import UNTIMED, DeliveryState, DisabledReason, Endpoint, EndpointState, Outcome, Timing
from chartwire.store import audit, outbox, ring, schema, subscriptions
from chartwire.store.bulk import Bulk, Change, Row
from chartwire.store.claims import ClaimedDelivery
from chartwire.store.endpoints import endpoints_of
from chartwire.store.ring import IS_WAITING
from chartwire.store.vault import Purpose, Vault

_ENDPOINT = schema.endpoint.c
_DELIVERY = schema.delivery.c

SETTLE = Change(
    """UPDATE delivery
    SET state = {2}, attempts = {3}, again = true, due_at = {4}, lease = NULL, lease_until = NULL, outcome = {5},
        http_status = {6}, settled_at = {7}
    {rows}
    WHERE delivery.seq = {0} AND delivery.lease = {1} AND delivery.state || '' = 'waiting'
        AND delivery.lease_until > {8}""",
    "bigint text text integer bigint text integer bigint bigint",
)

RECORD_ATTEMPTS = Bulk(
    """WITH made (delivery_seq, started_at, duration_ms, outcome, http_status, url, answer, is_reused, dns_us,
        connect_us, tls_us, first_byte_us) AS ({rows})
    INSERT INTO attempt (number, delivery_seq, started_at, duration_ms, outcome, http_status, url, answer, is_reused,
        dns_us, connect_us, tls_us, first_byte_us)
    SELECT (SELECT count(*) FROM attempt WHERE attempt.delivery_seq = made.delivery_seq) + 1, made.* FROM made""",
    "bigint bigint integer text integer text bytea boolean integer integer integer integer",
)

IN_DOUBT = Bulk(
    "SELECT seq FROM endpoint WHERE seq IN {rows}"
    " AND (verified = false OR failures_in_row > 0 OR paused_until IS NOT NULL)",
    "bigint",
)

HEALTH = Bulk(
    "SELECT seq, url, deleted_at IS NULL, failures_in_row, failing_since, strains_in_row, breaker_waits, paused_until"
    " FROM endpoint WHERE seq IN {rows} ORDER BY seq /*pg FOR NO KEY UPDATE*/",
    "bigint",
)
"""Locked: what follows from two answers that come at the same time follows from one after the other."""

WRITE_HEALTH = Bulk(
    """WITH news (seq, verified, detail, failures, failing_since, strains, waits, paused_until) AS ({rows})
    UPDATE endpoint
    SET verified = news.verified, status_detail = news.detail, failures_in_row = news.failures,
        failing_since = news.failing_since, strains_in_row = news.strains, breaker_waits = news.waits,
        paused_until = news.paused_until
    FROM news WHERE endpoint.seq = news.seq""",
    "bigint boolean text integer bigint integer integer bigint",
)


class AttemptResult(NamedTuple):
    """How an attempt ended, and what follows.

    `retry_at` None ends the delivery; `pause_until` is what the receiver asked for, and holds the whole endpoint.
    `answer` is at most 16 KiB; `detail` is shown to the customer. `spread`, about 1, is chance for the breaker.
    """

    url: str
    started_at: datetime
    duration_ms: int
    outcome: Outcome
    detail: str
    http_status: int | None = None
    answer: bytes = b""
    retry_at: datetime | None = None
    pause_until: datetime | None = None
    timing: Timing = UNTIMED
    spread: float = 1.0


Ended = tuple[ClaimedDelivery, AttemptResult]


class _Verdict(NamedTuple):
    """What its answers say of an endpoint: how it is now, and why it is to be disabled, if it is."""

    health: Health
    last: AttemptResult
    was_well: bool
    reason: DisabledReason | None


def release_leases(connection: Connection, now: datetime) -> int:
    """Make everything that is leased due now: only for a process that knows that no other holds a lease."""
    released = connection.execute(
        update(schema.delivery)
        .where(IS_WAITING, _DELIVERY.lease.is_not(None))
        .values(lease=None, lease_until=None, due_at=now)
    ).rowcount
    ring.release_all(connection, now)
    return released


def settle(
    connection: Connection, vault: Vault, ended: Sequence[Ended], now: datetime, retention: timedelta
) -> list[bool]:
    """Write down how attempts ended. False, and nothing written, for those whose lease has run out.

    `ended` is in the order in which they ended; `retention` is how long a message that this gives rise to is kept.
    """
    held = _settle_deliveries(connection, ended, to_milliseconds(now))
    settled = [each for each, is_held in zip(ended, held, strict=True) if is_held]
    _record_attempts(connection, vault, settled)
    _record_audit(connection, settled)
    by_endpoint = _by_endpoint(settled)
    for claimed, result in chain.from_iterable(by_endpoint.values()):
        subscriptions.note_attempt(connection, claimed, result.outcome, result.detail, now)
    _judge(connection, vault, _doubtful(connection, by_endpoint), now, retention)
    return held


def waiting_by_age(connection: Connection, now: datetime, bounds: Sequence[timedelta]) -> list[int]:
    """How many deliveries have waited less than each of the rising `bounds`, and, last, how many longer than all."""
    older = [_waiting_since(connection, None), *(_waiting_since(connection, now - bound) for bound in bounds)]
    return [more - less for more, less in zip(older, [*older[1:], 0], strict=True)]


def _waiting_since(connection: Connection, moment: datetime | None) -> int:
    query = select(func.count()).select_from(schema.delivery).where(IS_WAITING)
    older = query if moment is None else query.where(_DELIVERY.created_at <= moment)
    return connection.execute(older).scalar_one()


def _settle_deliveries(connection: Connection, ended: Sequence[Ended], now: int) -> list[bool]:
    newest = _newest(ended)
    rows = [
        (
            claimed.seq,
            claimed.lease,
            _next_state(result).value,
            claimed.attempt,
            now if result.retry_at is None else to_milliseconds(result.retry_at),
            result.outcome.value,
            result.http_status,
            now if result.retry_at is None else None,
            now,
        )
        for claimed, result in ended
        if newest[claimed.seq] is claimed
    ]
    settled = SETTLE.changed(connection, rows)
    return [claimed.seq in settled and newest[claimed.seq] is claimed for claimed, _ in ended]


def _newest(ended: Sequence[Ended]) -> dict[int, ClaimedDelivery]:
    """Of leases of the same delivery the last: if any is still held, it is that one."""
    newest: dict[int, ClaimedDelivery] = {}
    for claimed, _ in ended:
        known = newest.setdefault(claimed.seq, claimed)
        if known.lease_until < claimed.lease_until:
            newest[claimed.seq] = claimed
    return newest


def _next_state(result: AttemptResult) -> DeliveryState:
    if result.outcome is Outcome.DELIVERED:
        return DeliveryState.DELIVERED
    return DeliveryState.FAILED if result.retry_at is None else DeliveryState.WAITING


def _record_attempts(connection: Connection, vault: Vault, settled: Sequence[Ended]) -> None:
    rows = [
        (
            claimed.seq,
            to_milliseconds(result.started_at),
            result.duration_ms,
            result.outcome.value,
            result.http_status,
            result.url,
            vault.seal(Purpose.ANSWER, result.answer) if result.answer else None,
            *result.timing,
        )
        for claimed, result in settled
    ]
    RECORD_ATTEMPTS.run_for(connection, rows)


def _record_audit(connection: Connection, settled: Sequence[Ended]) -> None:
    """One entry for each patient whose data went out; a message about nobody leaves one too."""
    rows = [
        (
            to_milliseconds(result.started_at),
            claimed.target.endpoint.account_id,
            claimed.event_seq,
            f"event/{claimed.event_id}/endpoint/{claimed.target.endpoint.id}",
            result.outcome.value,
        )
        for claimed, result in settled
    ]
    audit.RECORD_ATTEMPTS.run_for(connection, rows)


def _by_endpoint(settled: Sequence[Ended]) -> dict[int, list[Ended]]:
    """In the order of their numbers, which is the order in which all who settle lock them."""
    by_endpoint: dict[int, list[Ended]] = defaultdict(list)
    for claimed, result in settled:
        by_endpoint[claimed.target.endpoint.seq].append((claimed, result))
    return dict(sorted(by_endpoint.items()))


def _doubtful(connection: Connection, by_endpoint: Mapping[int, Sequence[Ended]]) -> list[Sequence[Ended]]:
    """Of the endpoints to which something new was learned; of most it is known that they are well."""
    well = [seq for seq, ended in by_endpoint.items() if _is_well(ended)]
    in_doubt = {seq for (seq,) in IN_DOUBT.run_for(connection, [(seq,) for seq in well])}
    return [ended for seq, ended in by_endpoint.items() if seq in in_doubt or not _is_well(ended)]


def _is_well(of_one: Sequence[Ended]) -> bool:
    return all(result.outcome is Outcome.DELIVERED for _, result in of_one)


def _judge(
    connection: Connection, vault: Vault, doubtful: Sequence[Sequence[Ended]], now: datetime, retention: timedelta
) -> None:
    """What answers say of endpoints: their health, their end, and when they are looked at again.

    First all that locks endpoints, then all that locks accounts, each in order: two that settle do not deadlock.
    """
    rows = HEALTH.run_for(connection, [(_endpoint(ended).seq,) for ended in doubtful])
    judged = [
        (ended, is_there, _verdict(ended, url, _health(*kept), now))
        for ended, (_, url, is_there, *kept) in zip(doubtful, rows, strict=True)
    ]
    news = [_news(_endpoint(ended), verdict) for ended, _, verdict in judged if verdict is not None]
    WRITE_HEALTH.run_for(connection, news)
    for ended, is_there, verdict in sorted(judged, key=lambda each: _endpoint(each[0]).account_id):
        if verdict is not None:
            _follow(connection, vault, _endpoint(ended), verdict, now, retention)
        _wait(connection, ended, now, is_there=bool(is_there))


def _endpoint(ended: Sequence[Ended]) -> Endpoint:
    return ended[0][0].target.endpoint


def _verdict(ended: Sequence[Ended], url: str | None, health: Health, now: datetime) -> _Verdict | None:
    """Answer by answer; those from a URL that the endpoint has no more say nothing of it."""
    here = [result for _, result in ended if result.url == url]
    reason, was_well = None, False
    for result in here:
        if result.outcome is Outcome.DELIVERED:
            health, was_well = Health(), True
            continue
        health = health.after_failure(result.outcome, result.started_at, now, result.pause_until, result.spread)
        if result.outcome is Outcome.GONE:
            reason = DisabledReason.GONE
        elif health.is_hopeless(now):
            reason = reason or DisabledReason.FAILING
    return _Verdict(health, here[-1], was_well, reason) if here else None


def _health(failures: int, failing_since: int | None, strains: int, waits: int, paused_until: int | None) -> Health:
    return Health(failures, _moment(failing_since), strains, waits, _moment(paused_until))


def _moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else from_milliseconds(milliseconds)


def _news(endpoint: Endpoint, verdict: _Verdict) -> Row:
    """A row of `WRITE_HEALTH`."""
    health, last = verdict.health, verdict.last
    return (
        endpoint.seq,
        last.outcome is Outcome.DELIVERED,
        last.detail,
        health.failures,
        None if health.failing_since is None else to_milliseconds(health.failing_since),
        health.strains,
        health.waits,
        None if health.paused_until is None else to_milliseconds(health.paused_until),
    )


def _follow(
    connection: Connection, vault: Vault, endpoint: Endpoint, verdict: _Verdict, now: datetime, retention: timedelta
) -> None:
    if verdict.was_well:
        ring.release(connection, [endpoint.seq], now)
    if verdict.reason is not None and _disable(connection, endpoint):
        notice = endpoint_disabled(ids.new_message_id(), now, endpoint, verdict.reason)
        outbox.append(connection, vault, notice, endpoints_of(connection, endpoint.account_id), now, retention)


def _wait(connection: Connection, ended: Sequence[Ended], now: datetime, *, is_there: bool) -> None:
    """Let deliveries have their next attempt, unless their endpoint was deleted during this one."""
    retries = [result.retry_at for _, result in ended if result.retry_at is not None]
    if retries and is_there:
        ring.wake(connection, [_endpoint(ended).seq], min(retries))
    elif retries:
        outbox.drop_waiting(connection, _endpoint(ended), now)


def _disable(connection: Connection, endpoint: Endpoint) -> bool:
    """True once: the owner is told one time."""
    statement = (
        update(schema.endpoint)
        .where(_ENDPOINT.seq == endpoint.seq, _ENDPOINT.state == EndpointState.ENABLED)
        .values(state=EndpointState.DISABLED, ready_at=None)
    )
    return connection.execute(statement).rowcount == 1
