"""On PostgreSQL the history is in ranges of numbers, tables of their own that go as a whole (`store.ranges`).

The tables that there are become the first range, as they are. What is unique is so within a range, which the range
before it is the pattern of: an index of the whole would have to begin with what the tables are divided by.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

END = 2**40


def upgrade() -> None:
    """Nothing here may import the project: the step must do tomorrow what it does today."""
    if op.get_bind().dialect.name != "postgresql":
        return
    _divide("event", by="seq", counts="seq")
    _divide("event_subject", by="event_seq")
    _divide("delivery", by="seq", counts="seq")
    _divide("attempt", by="delivery_seq", counts="id")
    _complete_event()
    _complete_delivery()
    op.create_primary_key("pk_event_subject", "event_subject", ["event_seq", "patient_id"])
    op.create_index("ix_event_subject_patient_id", "event_subject", ["patient_id"])
    op.create_index("ix_attempt_delivery_seq", "attempt", ["delivery_seq"])
    for table in ("event", "event_subject", "delivery", "attempt"):
        # Indexes and keys of the first range are those of the whole: nothing is built, every row is looked at once.
        op.execute(f"ALTER TABLE {table} ATTACH PARTITION {table}_0 FOR VALUES FROM (0) TO ({END})")


def _divide(table: str, *, by: str, counts: str | None = None) -> None:
    """A table of the same columns takes the place of one, and its sequence; it has no range yet."""
    op.rename_table(table, f"{table}_0")
    indexes = sa.text("SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = CAST(:first AS regclass)")
    for name in op.get_bind().execute(indexes, {"first": f"{table}_0"}).scalars().all():
        op.execute(f"ALTER INDEX {name} RENAME TO {name}_0")
    op.execute(f"CREATE TABLE {table} (LIKE {table}_0 INCLUDING DEFAULTS) PARTITION BY RANGE ({by})")
    if counts is not None:
        op.execute(f"ALTER SEQUENCE {table}_{counts}_seq OWNED BY {table}.{counts}")


def _complete_event() -> None:
    op.create_primary_key("pk_event", "event", ["seq"])
    op.create_index("ix_event_account_id_seq", "event", ["account_id", "seq"])
    op.create_index("ix_event_expires", "event", ["expires_at"], postgresql_where=sa.text("body IS NOT NULL"))


def _complete_delivery() -> None:
    op.create_primary_key("pk_delivery", "delivery", ["seq"])
    waiting, leased = sa.text("state = 'waiting'"), sa.text("lease IS NOT NULL")
    op.create_index("ix_delivery_due", "delivery", ["endpoint_seq", "again", "due_at"], postgresql_where=waiting)
    op.create_index("ix_delivery_leased", "delivery", ["endpoint_seq", "lease_until"], postgresql_where=leased)
    op.create_index("ix_delivery_account_id_state", "delivery", ["account_id", "state"])
    op.create_index("ix_delivery_account_id_seq", "delivery", ["account_id", "seq"])
