"""Deliveries in flight, counted in the whole cluster: an index that only PostgreSQL needs."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Nothing here may import the project: the step must do tomorrow what it does today."""
    if op.get_bind().dialect.name == "postgresql":
        leased = sa.text("lease IS NOT NULL")
        op.create_index("ix_delivery_leased", "delivery", ["endpoint_seq", "lease_until"], postgresql_where=leased)
