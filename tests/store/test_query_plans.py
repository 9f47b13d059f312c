"""The hot queries of ingestion, on a hundred thousand rows: each is a seek in the index that was made for it. On
PostgreSQL those of delivery too, which `test_ring.py` looks at on SQLite."""

import itertools
import re
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, cast

import pytest
from sqlalchemy import Connection, SelectBase, func, select
from sqlalchemy.dialects import sqlite
from tests.support.documents import NOW, a_document
from tests.support.profile import open_connection

from chartwire.clock import to_milliseconds
from chartwire.model.document import QueryStatus, RemoteDocument
from chartwire.store import (
    audit,
    claims,
    deliveries,
    documents,
    forgetting,
    outbox,
    queries,
    ranges,
    ring,
    schema,
    sources,
)
from chartwire.store.bulk import Statement

ROWS = 100_000
PATIENTS = 1_000
WINDOW = timedelta(milliseconds=250)
LISTED = tuple(RemoteDocument(key=f"k{number}", master_identifier=f"m{number}") for number in range(500))
RECORD = a_document("a0", "p0", master_identifier="m1", replaces=("m2", "m3"))
FAILED = select(func.count()).select_from(schema.delivery).where(outbox.failed_of("a1"))
LATER_VERSIONS = documents.LATER_VERSIONS.params(patient="p0", identifier="m1", document=RECORD.id)

_DONE = "CASE WHEN i % 3 > 0 THEN 'waiting' ELSE 'done' END"
_TABLES = {
    "account": ("(id, name, created_at)", "'a' || i, 'Clinic', 0", 100),
    "patient": (
        "(id, account_id, dob, gender, demographics, search_text, additional_ids, opted_out, created_at, version)",
        "'p' || i, 'a' || (i % 100), '1980-01-01', 'F', '{}', '', '{}', false, 0, 0",
        PATIENTS,
    ),
    "document_query": (
        "(id, account_id, patient_id, status, override, started_at)",
        f"'q' || i, 'a' || (i % 100), 'p' || (i % {PATIENTS}), '{QueryStatus.PROCESSING}', false, 0",
        PATIENTS,
    ),
    "network_step": (
        "(query_id, account_id, patient_id, network, state, due_at)",
        f"'q' || (i % {PATIENTS}), 'a' || (i % 100), 'p' || (i % {PATIENTS}), 'n' || (i / {PATIENTS}), {_DONE}, i",
        ROWS,
    ),
    "intake_step": (
        "(query_id, account_id, patient_id, network, remote_key, remote, turn, document_id, state, due_at)",
        f"'q' || (i % {PATIENTS}), 'a' || (i % 100), 'p' || (i % {PATIENTS}), 'n' || (i % 3), 'k' || i, '{{}}', i,"
        f" 'd' || i, {_DONE}, i",
        ROWS,
    ),
    "document": (
        "(id, account_id, patient_id, query_id, network, file_name, title, status, mime_type, size, sha1, sha256,"
        " master_identifier, replaces, created_at)",
        f"'d' || i, 'a' || (i % 100), 'p' || (i % {PATIENTS}), 'q' || (i % {PATIENTS}), 'n0', 'f' || i, 't', 'current',"
        " 'text/plain', 1, '', 'h' || i, 'm' || i, '[]', 0",
        ROWS,
    ),
    "document_source": (
        "(patient_id, network, remote_key, document_id)",
        f"'p' || (i % {PATIENTS}), 'n0', 'k' || i, 'd' || i",
        ROWS,
    ),
    "document_replacement": (
        "(patient_id, master_identifier, document_id)",
        f"'p' || (i % {PATIENTS}), 'm' || (i / 2), 'd' || i",
        ROWS,
    ),
    "announcement": (
        "(account_id, document_id, query_id, size, due_at)",
        f"'a' || (i % 100), 'd' || i, 'q0', 100, {to_milliseconds(NOW)} + i % 250",
        10_000,
    ),
    "endpoint": (
        "(id, account_id, is_settings, state, url, verified, payload_version, delivery, send_webhook_key,"
        " signature_scheme, created_at, version, ready_at)",
        "'e' || i, 'a' || (i % 100), false, 'enabled', 'https://e', true, '2023-04', 'as-available', true, 'v1', 0, 0,"
        " i",
        PATIENTS,
    ),
    "event": (
        "(id, account_id, type, payload_version, size, created_at, expires_at)",
        "'e' || i, 'a' || (i % 100), 'medical.document-download', '2023-04', 1, i, i",
        ROWS,
    ),
    "delivery": (
        "(event_seq, endpoint_seq, account_id, state, due_at, created_at, lease, lease_until)",
        f"i + 1, 1 + i % {PATIENTS}, 'a' || (i % 100), {_DONE}, i, 0, CASE WHEN i % 50 = 0 THEN 'l' END, i",
        ROWS,
    ),
}


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """A database as it is after a busy year; SQLite's without statistics, as no installation gathers any."""
    with open_connection(tmp_path_factory.mktemp("plans")) as filled:
        filled.exec_driver_sql("CREATE TEMP TABLE n (i INTEGER PRIMARY KEY)")
        filled.exec_driver_sql(
            f"INSERT INTO n WITH RECURSIVE m(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM m WHERE i < {ROWS - 1})"  # noqa: S608
            " SELECT i FROM m"
        )
        for table, (columns, values, rows) in _TABLES.items():
            # every part of the text is written above
            filled.exec_driver_sql(f"INSERT INTO {table} {columns} SELECT {values} FROM n WHERE i < {rows}")  # noqa: S608
        yield filled


def plan(connection: Connection, query: SelectBase) -> list[str]:
    """The steps of SQLite's plan, with values bound as the engine binds them."""
    text, values = _compiled(query)
    return [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)]


def _effort(connection: Connection, query: SelectBase) -> int:
    """How many hundreds of steps SQLite's virtual machine takes for the answer."""
    text, values = _compiled(query)
    driver = cast(sqlite3.Connection, connection.connection.dbapi_connection)
    hundreds = itertools.count()
    driver.set_progress_handler(lambda: next(hundreds) and None, 100)
    try:
        driver.execute(text, values).fetchall()
    finally:
        driver.set_progress_handler(None, 0)
    return next(hundreds)


def _compiled(query: SelectBase) -> tuple[str, tuple[Any, ...]]:
    compiled = query.compile(dialect=sqlite.dialect(), compile_kwargs={"render_postcompile": True})
    values = (compiled.construct_params()[name] for name in compiled.positiontup or ())
    return str(compiled), tuple(to_milliseconds(each) if isinstance(each, datetime) else each for each in values)


HOT: dict[str, tuple[SelectBase, str]] = {
    "claim network steps": (
        queries.DUE_NETWORK_STEPS.params(network="n1", limit=8, now=NOW),
        "SEARCH network_step USING INDEX ix_network_step_due (network=? AND due_at<?)",
    ),
    "claim documents in turn": (
        queries.DUE_INTAKE_STEPS.params(network="n1", limit=8, now=NOW),
        "SEARCH intake_step USING INDEX ix_intake_step_turn (network=?)",
    ),
    "the next network step": (
        queries.FIRST_DUE_NETWORK_STEP.params(network="n1"),
        "SEARCH network_step USING INDEX ix_network_step_due (network=?)",
    ),
    "the next document": (
        queries.FIRST_DUE_INTAKE_STEP.params(network="n1"),
        "SEARCH intake_step USING INDEX ix_intake_step_due (network=?)",
    ),
    "the front of the line": (
        queries.front_query("n1"),
        "SEARCH intake_step USING INDEX ix_intake_step_turn (network=?)",
    ),
    "whether a query waits for a document": (
        queries.WAITING_DOCUMENT.params(query="q1"),
        "SEARCH intake_step USING COVERING INDEX ix_intake_step_query (query_id=? AND state=?)",
    ),
    "whether a query already brought a document": (
        queries.done_query("q1", "d1"),
        "SEARCH intake_step USING COVERING INDEX ix_intake_step_query (query_id=? AND state=? AND document_id=?)",
    ),
    "progress": (
        queries.progress_query("q1"),
        "SEARCH intake_step USING COVERING INDEX ix_intake_step_query (query_id=?)",
    ),
    "deliveries that failed": (
        FAILED,
        "SEARCH delivery USING INDEX ix_delivery_failed (account_id=?)",
    ),
    "earlier versions": (
        documents.earlier_versions(RECORD),
        "SEARCH document USING INDEX ix_document_patient_id_master_identifier (patient_id=? AND master_identifier=?)",
    ),
    "later versions": (
        LATER_VERSIONS,
        "SEARCH document_replacement USING COVERING INDEX sqlite_autoindex_document_replacement_1"
        " (patient_id=? AND master_identifier=?)",
    ),
    "listed documents by identifier": (
        sources.with_identifiers("p1", LISTED),
        "SEARCH document USING INDEX ix_document_patient_id_master_identifier (patient_id=? AND master_identifier=?)",
    ),
}


@pytest.mark.embedded
@pytest.mark.parametrize("name", HOT)
def test_a_hot_query_is_one_seek_in_its_index(connection: Connection, name: str) -> None:
    query, expected = HOT[name]
    assert plan(connection, query) == [expected]


@pytest.mark.embedded
def test_listed_documents_are_sought_by_their_keys(connection: Connection) -> None:
    by_source, by_id = plan(connection, sources.with_keys("p1", "n0", LISTED))
    assert by_source.endswith("(patient_id=? AND network=? AND remote_key=?)")
    assert by_id == "SEARCH document USING INDEX sqlite_autoindex_document_1 (id=?)"


@pytest.mark.embedded
def test_what_waits_for_an_account_is_a_range_for_each_of_its_endpoints(connection: Connection) -> None:
    steps = plan(connection, select(func.count()).select_from(schema.delivery).where(outbox.waiting_of("a1")))
    assert "SEARCH delivery USING INDEX ix_delivery_due (endpoint_seq=?)" in steps


@pytest.mark.embedded
def test_due_accounts_are_two_ranges(connection: Connection) -> None:
    steps = plan(connection, documents.DUE_ACCOUNTS.params(now=NOW, too_late=NOW + WINDOW))
    assert [step for step in steps if "announcement" in step] == [
        "SEARCH announcement USING INDEX ix_announcement_due_at (due_at<?)",
        "SEARCH announcement USING INDEX ix_announcement_due_at (due_at>?)",
    ]


@pytest.mark.embedded
@pytest.mark.parametrize("name", HOT)
def test_a_hot_query_looks_at_few_rows_of_a_hundred_thousand(connection: Connection, name: str) -> None:
    query, _ = HOT[name]
    assert _effort(connection, query) < 100  # a scan would take some ten thousand


ON_POSTGRESQL: dict[str, tuple[SelectBase, str]] = {
    **{name: (query, re.sub(r".* INDEX (\S+) .*", r"\1", steps)) for name, (query, steps) in HOT.items()},
    "listed documents by identifier": (sources.with_identifiers("p1", LISTED[:3]), "ix_document_patient_id_master"),
    "later versions": (LATER_VERSIONS, "pk_document_replacement"),
    "deliveries that failed": (FAILED, "delivery_0_account_id_seq_idx"),  # as PostgreSQL itself calls a range's part
    "deliveries in flight": (ring.in_flight_query([1, 2], NOW), "ix_delivery_leased"),
}


BULK_ON_POSTGRESQL: dict[str, tuple[Statement, str]] = {
    "accounts that have work": (ring.READY_ACCOUNTS, "ix_account_ready_at"),
    "endpoints that have work": (ring.READY_ENDPOINTS, "ix_endpoint_account_id_ready_at"),
    "the first that wait": (ring.FIRST_WAITING, "ix_delivery_due"),
    "wake": (ring.WAKE_AT_ONCE, "pk_endpoint"),
    "put endpoints back": (ring.TURN_ENDPOINTS, "pk_endpoint"),
    "put accounts back": (ring.TURN_ACCOUNTS, "ix_endpoint_account_id_ready_at"),
    "lease": (claims.LEASE, "pk_delivery"),
    "load": (claims.LOAD_EVENTS, "pk_event"),
    "settle": (deliveries.SETTLE, "pk_delivery"),
    "in doubt": (deliveries.IN_DOUBT, "pk_endpoint"),
    "health": (deliveries.HEALTH, "pk_endpoint"),
    "write health": (deliveries.WRITE_HEALTH, "pk_endpoint"),
    "audit attempts": (audit.RECORD_ATTEMPTS, "pk_event_subject"),
}


@pytest.mark.cluster
@pytest.mark.parametrize("rows", [1, 64])
@pytest.mark.parametrize("name", BULK_ON_POSTGRESQL)
def test_a_statement_about_many_needs_no_scan_and_no_sort(connection: Connection, name: str, rows: int) -> None:
    statement, index = BULK_ON_POSTGRESQL[name]
    expect_plan(connection, _filled(statement, rows), index)


@pytest.mark.cluster
@pytest.mark.parametrize("statement", [claims.LEASE, deliveries.SETTLE])
def test_what_is_known_by_number_is_not_sought_in_all_that_waits(connection: Connection, statement: Statement) -> None:
    """As it would be while PostgreSQL believes that few rows wait: no statistics were gathered here."""
    for way in ("seqscan", "bitmapscan", "sort"):
        connection.exec_driver_sql(f"SET LOCAL enable_{way} = {'on' if way == 'bitmapscan' else 'off'}")
    steps = "\n".join(connection.exec_driver_sql(f"EXPLAIN {_filled(statement, 64)}").scalars())
    assert "pk_delivery" in steps
    assert "ix_delivery_due" not in steps


def _filled(statement: Statement, rows: int) -> str:
    """As PostgreSQL reads it, with some value for each parameter."""
    with_arrays = re.sub(r"\$\d+(::\w+\[\])", r"'{1,1}'\1", statement.text("postgresql", rows))
    return re.sub(r"\$\d+", "'1'", with_arrays)


@pytest.mark.cluster
@pytest.mark.parametrize("name", ON_POSTGRESQL)
def test_a_hot_query_needs_no_scan_and_no_sort(connection: Connection, name: str) -> None:
    query, index = ON_POSTGRESQL[name]
    written = query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    expect_plan(connection, str(written), index)


@pytest.mark.cluster
@pytest.mark.parametrize("name", BULK_ON_POSTGRESQL)
def test_a_statement_about_many_needs_no_scan_of_any_range_of_the_history(connection: Connection, name: str) -> None:
    """As many ranges as there ever are; statements that tell numbers look into those that have them alone."""
    statement, index = BULK_ON_POSTGRESQL[name]
    with connection.begin_nested() as savepoint:
        ranges.make_room(connection, [number * ranges.WIDTH for number in range(8)])
        expect_plan(connection, _filled(statement, 1), index)
        savepoint.rollback()


@pytest.mark.embedded
def test_history_is_forgotten_from_a_place_on(connection: Connection) -> None:
    query = forgetting.forgettable_events(0, 50, NOW, NOW)
    assert not [step for step in plan(connection, query) if "SCAN" in step]
    assert _effort(connection, query) < 100


def expect_plan(connection: Connection, written: str, index: str) -> None:
    for way in ("seqscan", "sort", "bitmapscan"):  # taken only where nothing else leads there
        connection.exec_driver_sql(f"SET LOCAL enable_{way} = off")
    steps = "\n".join(connection.exec_driver_sql(f"EXPLAIN {written}").scalars())
    assert index in steps
    assert "Seq Scan" not in steps
    assert (
        re.search(r"(?<!Incremental )Sort +\(", steps) is None
    )  # incremental: of rows that are due at the same moment
