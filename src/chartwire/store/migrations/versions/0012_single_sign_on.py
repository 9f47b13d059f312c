"""Members whom an OpenID provider knows."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Nothing here may import the project: the step must do tomorrow what it does today."""
    op.add_column("member", sa.Column("sso_subject", sa.Text()))
    op.create_index("ix_member_sso_subject", "member", ["sso_subject"], unique=True)
