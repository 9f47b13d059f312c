"""Isolation and a ring of ready endpoints.

`ready_at` stays empty here: at its start a server looks at every endpoint once.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"

moment = sa.BigInteger()


def upgrade() -> None:
    """Nothing here may import the project: the step must do tomorrow what it does today."""
    _let_accounts_and_endpoints_be_ready()
    _remember_the_health_of_endpoints()
    _keep_news_and_repeats_apart()
    _create_replay()
    _create_event_cursor()


def _let_accounts_and_endpoints_be_ready() -> None:
    op.add_column("account", sa.Column("ready_at", moment))
    op.create_index("ix_account_ready_at", "account", ["ready_at"])
    for name in ("ready_at", "held_until", "spent_until", "deleted_at"):
        op.add_column("endpoint", sa.Column(name, moment))
    op.drop_index("ix_endpoint_account_id", table_name="endpoint")
    op.create_index("ix_endpoint_account_id_ready_at", "endpoint", ["account_id", "ready_at"])


def _remember_the_health_of_endpoints() -> None:
    for name in ("strains_in_row", "breaker_waits"):
        op.add_column("endpoint", sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False))


def _keep_news_and_repeats_apart() -> None:
    op.add_column("delivery", sa.Column("again", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.drop_index("ix_delivery_due", table_name="delivery")
    waiting = sa.text("state = 'waiting'")
    op.create_index(
        "ix_delivery_due",
        "delivery",
        ["endpoint_seq", "again", "due_at"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )


def _create_replay() -> None:
    op.create_index("ix_delivery_account_id_seq", "delivery", ["account_id", "seq"])
    op.create_table(
        "replay",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("account_id", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("chosen", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("replayed", sa.Integer(), nullable=False),
        sa.Column("after_seq", sa.BigInteger(), nullable=False),
        sa.Column("until_seq", sa.BigInteger(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("ended_at", moment),
        sa.PrimaryKeyConstraint("id", name="pk_replay"),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_replay_account_id_account"),
    )
    op.create_index("ix_replay_account_id_id", "replay", ["account_id", "id"])
    running = sa.text("state = 'running'")
    op.create_index("ix_replay_running", "replay", ["id"], sqlite_where=running, postgresql_where=running)


def _create_event_cursor() -> None:
    op.create_table(
        "event_cursor",
        sa.Column("account_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("after_seq", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "name", name="pk_event_cursor"),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_event_cursor_account_id_account"),
    )
