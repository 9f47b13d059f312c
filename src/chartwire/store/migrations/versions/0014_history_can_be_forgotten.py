"""Rows of the history can go: nothing that stays refers to them any more."""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Nothing here may import the project: the step must do tomorrow what it does today."""
    with op.batch_alter_table("subscription_event") as batch:
        batch.drop_constraint("fk_subscription_event_event_seq_event", type_="foreignkey")
    if op.get_bind().dialect.name == "postgresql":
        op.drop_constraint("fk_event_subject_event_seq_event", "event_subject", type_="foreignkey")
        op.drop_constraint("fk_delivery_event_seq_event", "delivery", type_="foreignkey")
        op.drop_constraint("fk_attempt_delivery_seq_delivery", "attempt", type_="foreignkey")
