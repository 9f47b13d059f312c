"""What Alembic runs; `chartwire.store.migrate` hands it a connection whose transaction is open, and commits it."""

from typing import Literal

import sqlalchemy as sa
from alembic import context
from alembic.autogenerate.api import AutogenContext

from chartwire.store import schema


def _render(kind: str, item: object, drafting: AutogenContext) -> str | Literal[False]:
    """How a drafted step writes the types of `schema.py`; False leaves the rest to Alembic."""
    if kind == "type" and isinstance(item, schema.Moment):
        return "sa.BigInteger()"
    if kind == "type" and isinstance(item, sa.JSON):
        drafting.imports.add("from sqlalchemy.dialects.postgresql import JSONB")
        return 'sa.JSON().with_variant(JSONB(), "postgresql")'
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    render_item=_render,
    include_object=context.config.attributes["include_object"],
)
context.run_migrations()
