"""Steps of the migration are made while the release before serves: they only add, and take away a release later."""

import pytest
from tests.support.steps import FOLDER, LAST_RELEASED, find_fault, steps_since

pytestmark = pytest.mark.embedded


def test_steps_of_this_release_only_add() -> None:
    faults = {path.name: find_fault(path.read_text(), LAST_RELEASED or "") for path in steps_since(LAST_RELEASED)}
    assert {name: found for name, found in faults.items() if found} == {}


def test_every_step_is_read_once_there_is_a_release() -> None:
    assert {path.name[:4] for path in set(steps_since("0000")) - set(steps_since("0002"))} == {"0001", "0002"}
    assert len(steps_since("0000")) == len(list(FOLDER.glob("0*.py")))


@pytest.mark.parametrize(
    "statement",
    [
        'op.add_column("delivery", sa.Column("colour", sa.Text()))',
        'op.add_column("delivery", sa.Column("size", sa.Integer(), nullable=False, server_default=sa.text("0")))',
        'op.create_table("shelf", sa.Column("id", sa.Text(), nullable=False))',
        'op.create_table("shelf", sa.Column("id", sa.Text())); op.create_index("ix", "shelf", ["id"], unique=True)',
        'op.create_index("ix_delivery_colour", "delivery", ["colour"])',
        'op.drop_index("ix_delivery_colour")',
        'op.alter_column("delivery", "http_status", nullable=True)',
        'op.execute("UPDATE delivery SET attempts = 0")',
    ],
)
def test_what_adds_is_taken(statement: str) -> None:
    assert find_fault(step(statement), "0010") == []


@pytest.mark.parametrize(
    "statement",
    [
        'op.drop_table("delivery")',
        'op.drop_column("delivery", "again")',
        'op.rename_table("delivery", "sending")',
        'op.alter_column("delivery", "outcome", nullable=False)',
        'op.alter_column("delivery", "outcome", new_column_name="result")',
        'op.alter_column("delivery", "outcome", type_=sa.Integer())',
        'op.add_column("delivery", sa.Column("colour", sa.Text(), nullable=False))',
        'op.create_unique_constraint("uq", "delivery", ["event_seq"])',
        'op.create_index("ix", "delivery", ["event_seq"], unique=True)',
        'op.execute("ALTER TABLE delivery DROP COLUMN again")',
        'op.execute("alter table delivery alter column outcome set not null")',
        'with op.batch_alter_table("delivery") as batch:\n        batch.drop_column("again")',
    ],
)
def test_what_takes_away_waits_until_no_release_before_needs_it(statement: str) -> None:
    assert len(find_fault(step(statement), "0010")) == 1
    assert find_fault(f'FLOOR = "0010"\n{step(statement)}', "0010") == []
    assert find_fault(f'FLOOR = "0011"\n{step(statement)}', "0010") == [
        "FLOOR is 0011, and the release before ends with 0010"
    ]


def step(statement: str) -> str:
    """A step that does this."""
    return f"import sqlalchemy as sa\nfrom alembic import op\n\ndef upgrade():\n    {statement}\n"
