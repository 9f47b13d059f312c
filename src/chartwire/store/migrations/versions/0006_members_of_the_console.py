"""Members of the console, their sessions; what is newest of an account's documents and queries."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

moment = sa.BigInteger()


def upgrade() -> None:
    """Nothing here may import the project: the step must do tomorrow what it does today."""
    _create_member()
    _create_member_session()
    _create_sign_in_failure()
    op.create_index("ix_document_account_id_id", "document", ["account_id", "id"])
    op.create_index("ix_document_query_account_id_id", "document_query", ["account_id", "id"])


def _create_member() -> None:
    op.create_table(
        "member",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("account_id", sa.String(64), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("totp_secret", sa.LargeBinary()),
        sa.Column("totp_step", sa.BigInteger()),
        sa.Column("created_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_member"),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_member_account_id_account"),
        sa.UniqueConstraint("email", name="uq_member_email"),
    )
    op.create_index("ix_member_account_id_id", "member", ["account_id", "id"])


def _create_member_session() -> None:
    op.create_table(
        "member_session",
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("member_id", sa.String(64), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("seen_at", moment, nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name="pk_member_session"),
        sa.ForeignKeyConstraint(
            ["member_id"], ["member.id"], name="fk_member_session_member_id_member", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_member_session_member_id", "member_session", ["member_id"])
    op.create_index("ix_member_session_expires_at", "member_session", ["expires_at"])


def _create_sign_in_failure() -> None:
    op.create_table(
        "sign_in_failure",
        sa.Column("email_hash", sa.String(64), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_at", moment, nullable=False),
        sa.Column("blocked_until", moment),
        sa.PrimaryKeyConstraint("email_hash", name="pk_sign_in_failure"),
    )
    op.create_index("ix_sign_in_failure_last_at", "sign_in_failure", ["last_at"])
