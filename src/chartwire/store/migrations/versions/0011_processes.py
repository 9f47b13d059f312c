"""The processes of the installation."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

moment = sa.BigInteger()


def upgrade() -> None:
    """Nothing here may import the project: the step must do tomorrow what it does today."""
    op.create_table(
        "process",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("started_at", moment, nullable=False),
        sa.Column("seen_at", moment, nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_process"),
    )
