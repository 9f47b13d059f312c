"""What a drain is made of, with nothing around it: R's client, and the statements that a delivery takes.

It claims what waits, opens the payload, signs and posts it, and writes down its outcome, its attempt and its audit
entry: by the shortest statements, in the event loop's own thread, without turns, limits, deadlines, retries or
answers that are kept. An engine in Python that keeps these rows in SQLite can hardly do more per second than this.
"""

import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from bench.bare import Post, bare, post_some, signed
from bench.engine import Engine, Ground, open_engine
from bench.turns import Turn, keep_busy, peak_memory, spending
from chartwire.store.vault import Purpose

_IN_FLIGHT = 512
_ROWS = 64  # of one statement
_LEASE_MILLISECONDS = 120_000

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
        with closing(sqlite3.connect(engine.path, isolation_level=None)) as connection:
            for pragma in ("synchronous=FULL", "foreign_keys=ON", "cache_size=-16384"):
                connection.execute(f"PRAGMA {pragma}")
            with spending() as spent:
                await _drain(engine, post, connection.cursor())
        await engine.expect_settled(count)
    return Turn(count / spent.seconds, spent.cpu / count * 1e6, memory_mebibytes=peak_memory())


async def _drain(engine: Engine, post: Post, cursor: sqlite3.Cursor) -> None:
    urls = {endpoint.seq: (endpoint.url or "", endpoint.account_id) for endpoint in engine.endpoints}
    ended: Sequence[_Ended] = ()
    while True:
        cursor.execute("BEGIN IMMEDIATE")
        _settle(cursor, ended)
        claimed = _claim(cursor, list(urls))
        cursor.execute("COMMIT")
        if not claimed:
            return
        ended = await _post(engine, post, urls, claimed)


async def _post(
    engine: Engine, post: Post, urls: Mapping[int, tuple[str, str]], claimed: Sequence[_Row]
) -> Sequence[_Ended]:
    waiting, ended = iter(claimed), list[_Ended]()

    async def work(_: int) -> None:
        for seq, event_seq, endpoint_seq, event_id, sealed in waiting:
            url, account_id = urls[endpoint_seq]
            body = engine.vault.open(Purpose.PAYLOAD, sealed)
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
