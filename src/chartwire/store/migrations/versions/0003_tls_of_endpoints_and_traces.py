"""TLS of endpoints, and traces that are passed on."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Nothing here may import the project: the step must do tomorrow what it does today."""
    op.add_column("endpoint", sa.Column("tls", sa.JSON().with_variant(JSONB(), "postgresql")))
    op.add_column("document_query", sa.Column("trace", sa.String(64)))
    op.add_column("event", sa.Column("trace", sa.String(64)))
