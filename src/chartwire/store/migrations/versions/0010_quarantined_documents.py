"""Documents that came and were not taken in."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"

moment = sa.BigInteger()


def upgrade() -> None:
    """Nothing here may import the project: the step must do tomorrow what it does today."""
    json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
    table = "quarantined_document"
    op.create_table(
        table,
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("account_id", sa.String(64), nullable=False),
        sa.Column("patient_id", sa.String(64), nullable=False),
        sa.Column("query_id", sa.String(64), nullable=False),
        sa.Column("network", sa.String(40), nullable=False),
        sa.Column("remote", json, nullable=False),
        sa.Column("reasons", json, nullable=False),
        sa.Column("stated", json, nullable=False),
        sa.Column("declared_type", sa.Text()),
        sa.Column("mime_type", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha1", sa.String(40), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("held_at", moment, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("decided_at", moment),
        sa.Column("decided_by", sa.String(80)),
        sa.Column("note", sa.Text()),
        sa.Column("release_query_id", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=f"fk_{table}_account_id_account"),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patient.id"], name=f"fk_{table}_patient_id_patient", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("patient_id", "sha256", name=f"uq_{table}_patient_id_sha256"),
    )
    op.create_index(f"ix_{table}_account_id_id", table, ["account_id", "id"])
    op.create_index(f"ix_{table}_sha256", table, ["sha256"])
    op.create_index(f"ix_{table}_release_query_id", table, ["release_query_id"])
