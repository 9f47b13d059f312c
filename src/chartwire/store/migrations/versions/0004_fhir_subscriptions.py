"""FHIR subscriptions and their numbered events."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"

moment = sa.BigInteger()
serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
json = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """Nothing here may import the project: the step must do tomorrow what it does today."""
    _create_subscription()
    _create_subscription_event()


def _create_subscription() -> None:
    op.create_table(
        "subscription",
        sa.Column("endpoint_seq", serial, nullable=False),
        sa.Column("account_id", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("handshake_id", sa.String(64)),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("contact", json),
        sa.Column("criteria", json, nullable=False),
        sa.Column("chosen", json, nullable=False),
        sa.Column("content", sa.String(16), nullable=False),
        sa.Column("heartbeat_seconds", sa.Integer()),
        sa.Column("max_count", sa.Integer()),
        sa.Column("ends_at", moment),
        sa.Column("event_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", moment),
        sa.Column("updated_at", moment, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint_seq", name="pk_subscription"),
        sa.ForeignKeyConstraint(
            ["endpoint_seq"], ["endpoint.seq"], name="fk_subscription_endpoint_seq_endpoint", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_subscription_account_id_account"),
    )
    op.create_index("ix_subscription_account_id", "subscription", ["account_id"])
    op.create_index("ix_subscription_due_at", "subscription", ["due_at"])


def _create_subscription_event() -> None:
    op.create_table(
        "subscription_event",
        sa.Column("endpoint_seq", serial, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("document_id", sa.String(64)),
        sa.Column("event_seq", serial, nullable=False),
        sa.PrimaryKeyConstraint("endpoint_seq", "number", name="pk_subscription_event"),
        sa.ForeignKeyConstraint(
            ["endpoint_seq"],
            ["subscription.endpoint_seq"],
            name="fk_subscription_event_endpoint_seq_subscription",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["document_id"], ["document.id"], name="fk_subscription_event_document_id_document", ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["event_seq"], ["event.seq"], name="fk_subscription_event_event_seq_event"),
    )
    op.create_index("ix_subscription_event_document_id", "subscription_event", ["document_id"])
