"""What a delivery is made of, with nothing around it: R's client, and the statements that it takes.

drain   claim what waits, open the payload, sign and post it, and write down its outcome, its attempt and audit entry
full    seal a message and write its rows, hundreds in one commit; then the same, but for the claim and the opening

By the shortest statements, in the event loop's own thread, without turns, limits, deadlines, retries or answers that
are kept. An engine in Python that keeps these rows in SQLite can hardly do more per second than this.
"""

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from bench.bare import Post, bare, post_some, signed
from bench.engine import Engine, Ground, open_engine
from bench.turns import Turn, keep_busy, peak_memory, spending
from chartwire import ids
from chartwire.store.vault import Purpose

_IN_FLIGHT = 512
_ROWS = 64  # of one statement
_LEASE_MILLISECONDS = 120_000
_KEPT_MILLISECONDS = 30 * 24 * 3600 * 1000

_EVENT = """INSERT INTO event (id, account_id, type, payload_version, body, size, created_at, expires_at)
    VALUES (?, ?, 'medical.document-download', '2023-04', ?, ?, ?, ?)"""
_SUBJECT = "INSERT INTO event_subject (event_seq, patient_id) VALUES (?, '0192f0c1-2345-7000-8000-0123456789ab')"
_HANDED = """INSERT INTO delivery (event_seq, endpoint_seq, account_id, state, due_at, created_at, lease, lease_until)
    VALUES (?, ?, ?, 'waiting', ?, ?, 'bench', ?)"""
_DUE = """SELECT seq, event_seq FROM delivery
    WHERE endpoint_seq = ? AND again = false AND state = 'waiting' AND due_at <= ? ORDER BY due_at LIMIT ?"""
_LEASE = "UPDATE delivery SET lease = 'bench', lease_until = ?, due_at = ? WHERE seq = ?"
_LOAD = "SELECT id, body FROM event WHERE seq IN ({}) ORDER BY seq"
_SETTLE = """UPDATE delivery SET state = 'delivered', attempts = 1, again = true, lease = NULL, lease_until = NULL,
    outcome = 'delivered', http_status = ?, settled_at = ? WHERE seq = ? AND lease = 'bench'"""
_ATTEMPT = """INSERT INTO attempt (delivery_seq, number, started_at, duration_ms, outcome, http_status, url)
    VALUES {}"""
_AUDIT = """WITH made (at, account_id, event_seq, subject) AS (VALUES {})
    INSERT INTO audit (at, account_id, actor, action, patient_id, subject, outcome)
    SELECT at, account_id, 'engine', 'webhook.attempt', patient_id, subject, 'delivered'
    FROM made JOIN event_subject USING (event_seq)"""

_T = TypeVar("_T")
_Row = tuple[Any, ...]


class _Ended(NamedTuple):
    seq: int
    event_seq: int
    event_id: str
    account_id: str
    url: str
    status: int
    began: int
    ended: int


async def drain(ground: Ground, count: int) -> Turn:
    """Deliver and settle `count` messages that wait."""
    async with open_engine(ground) as engine, bare(ground.receivers) as post:
        await post_some(post, ground.receivers, count // 5, engine.body, _IN_FLIGHT, [])
        await engine.fill(count)
        with _cursor(engine) as cursor, spending() as spent:
            await _drain(engine, post, cursor)
        await engine.expect_settled(count)
    return Turn(count / spent.seconds, spent.cpu / count * 1e6, memory_mebibytes=peak_memory())


async def full(ground: Ground, count: int) -> Turn:
    """Commit, deliver and settle `count` messages, as many in each commit as are posted at one time."""
    async with open_engine(ground) as engine, bare(ground.receivers) as post:
        await post_some(post, ground.receivers, count // 5, engine.body, _IN_FLIGHT, [])
        with _cursor(engine) as cursor, spending() as spent:
            await _full(engine, post, cursor, count)
        await engine.expect_settled(count)
    return Turn(count / spent.seconds, spent.cpu / count * 1e6, memory_mebibytes=peak_memory())


@contextmanager
def _cursor(engine: Engine) -> Iterator[sqlite3.Cursor]:
    with closing(sqlite3.connect(engine.path, isolation_level=None)) as connection:
        for pragma in ("synchronous=FULL", "foreign_keys=ON", "cache_size=-16384"):
            connection.execute(f"PRAGMA {pragma}")
        yield connection.cursor()


async def _drain(engine: Engine, post: Post, cursor: sqlite3.Cursor) -> None:
    urls = _urls(engine)
    ended: Sequence[_Ended] = ()
    while True:
        cursor.execute("BEGIN IMMEDIATE")
        _settle(cursor, ended)
        claimed = _claim(cursor, list(urls))
        cursor.execute("COMMIT")
        if not claimed:
            return
        ended = await _post(
            post, urls, ((*row, engine.vault.open(Purpose.PAYLOAD, sealed)) for *row, sealed in claimed)
        )


async def _full(engine: Engine, post: Post, cursor: sqlite3.Cursor, count: int) -> None:
    urls = _urls(engine)
    ended: Sequence[_Ended] = ()
    for start in range(0, count + _IN_FLIGHT, _IN_FLIGHT):
        cursor.execute("BEGIN IMMEDIATE")
        _settle(cursor, ended)
        handed = [_append(cursor, engine, number) for number in range(start, min(count, start + _IN_FLIGHT))]
        cursor.execute("COMMIT")
        ended = await _post(post, urls, handed)


def _urls(engine: Engine) -> dict[int, tuple[str, str]]:
    return {endpoint.seq: (endpoint.url or "", endpoint.account_id) for endpoint in engine.endpoints}


def _append(cursor: sqlite3.Cursor, engine: Engine, number: int) -> _Row:
    endpoint, event_id, now = engine.endpoints[number % len(engine.endpoints)], ids.new_message_id(), _now()
    sealed = engine.vault.seal(Purpose.PAYLOAD, engine.body)
    cursor.execute(_EVENT, (event_id, endpoint.account_id, sealed, len(engine.body), now, now + _KEPT_MILLISECONDS))
    event_seq = cursor.lastrowid
    cursor.execute(_SUBJECT, (event_seq,))
    cursor.execute(_HANDED, (event_seq, endpoint.seq, endpoint.account_id, now, now, now + _LEASE_MILLISECONDS))
    return cursor.lastrowid, event_seq, endpoint.seq, event_id, engine.body


async def _post(post: Post, urls: Mapping[int, tuple[str, str]], claimed: Iterable[_Row]) -> Sequence[_Ended]:
    waiting, ended = iter(claimed), list[_Ended]()

    async def work(_: int) -> None:
        for seq, event_seq, endpoint_seq, event_id, body in waiting:
            url, account_id = urls[endpoint_seq]
            began = _now()
            status = await post(url, signed(event_id, body), body)
            ended.append(_Ended(seq, event_seq, event_id, account_id, url, status, began, _now()))

    await keep_busy(_IN_FLIGHT, work)
    return ended


def _claim(cursor: sqlite3.Cursor, endpoint_seqs: Sequence[int]) -> list[_Row]:
    now, share = _now(), -(-_IN_FLIGHT // len(endpoint_seqs))
    taken: list[_Row] = []
    for endpoint_seq in endpoint_seqs:
        taken += [(*row, endpoint_seq) for row in cursor.execute(_DUE, (endpoint_seq, now, share))]
    until = now + _LEASE_MILLISECONDS
    for seq, *_ in taken:
        cursor.execute(_LEASE, (until, until, seq))
    taken.sort(key=lambda row: row[1])
    events: list[_Row] = []
    for rows in _chunks(taken):
        events += cursor.execute(_LOAD.format(",".join("?" * len(rows))), [row[1] for row in rows]).fetchall()
    return [(*row, *event) for row, event in zip(taken, events, strict=True)]


def _settle(cursor: sqlite3.Cursor, ended: Sequence[_Ended]) -> None:
    for each in ended:
        cursor.execute(_SETTLE, (each.status, each.ended, each.seq))
    for rows in _chunks(ended):
        attempts = [
            (each.seq, 1, each.began, each.ended - each.began, "delivered", each.status, each.url) for each in rows
        ]
        cursor.execute(_ATTEMPT.format(",".join(["(?,?,?,?,?,?,?)"] * len(rows))), [*chain.from_iterable(attempts)])
        entries = [(each.began, each.account_id, each.event_seq, f"event/{each.event_id}") for each in rows]
        cursor.execute(_AUDIT.format(",".join(["(?,?,?,?)"] * len(rows))), [*chain.from_iterable(entries)])


def _chunks(rows: Sequence[_T]) -> list[Sequence[_T]]:
    return [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]


def _now() -> int:
    return time.time_ns() // 1_000_000
