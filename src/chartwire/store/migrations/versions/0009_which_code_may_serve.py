"""Which code may serve on these tables, for a release that meets the tables of the next one."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Nothing here may import the project: the step must do tomorrow what it does today."""
    floor = op.create_table(
        "schema_floor",
        sa.Column("step", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("step", name="pk_schema_floor"),
    )
    op.bulk_insert(floor, [{"step": revision}])
