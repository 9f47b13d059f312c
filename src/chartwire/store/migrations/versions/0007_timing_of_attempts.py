"""Where the time of an attempt went."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Nothing here may import the project: the step must do tomorrow what it does today."""
    op.add_column("attempt", sa.Column("is_reused", sa.Boolean()))
    for step in ("dns_us", "connect_us", "tls_us", "first_byte_us"):
        op.add_column("attempt", sa.Column(step, sa.Integer()))
