"""${message}."""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Nothing here may import the project: the step must do tomorrow what it does today."""
    ${upgrades if upgrades else "pass"}
