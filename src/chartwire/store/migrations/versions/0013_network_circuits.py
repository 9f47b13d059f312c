"""The circuit breakers of networks."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

moment = sa.BigInteger()


def upgrade() -> None:
    """Nothing here may import the project: the step must do tomorrow what it does today."""
    op.create_table(
        "network_circuit",
        sa.Column("network", sa.String(64), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("pauses", sa.Integer(), nullable=False),
        sa.Column("code", sa.String(32), nullable=False),
        sa.Column("opened_at", moment),
        sa.Column("tries_at", moment),
        sa.PrimaryKeyConstraint("network", name="pk_network_circuit"),
    )
