"""First light: accounts, the registry, documents, webhooks, the audit trail.

Nothing here imports the project: the step must do tomorrow what it does today.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

moment = sa.BigInteger()
json = sa.JSON().with_variant(JSONB(), "postgresql")
serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make every table."""
    _create_account()
    _create_api_key()
    _create_organization()
    _create_facility()
    _create_patient()
    _create_patient_facility()
    _create_patient_link()
    _create_document_query()
    _create_network_step()
    _create_intake_step()
    _create_document()
    _create_document_source()
    _create_document_replacement()
    _create_announcement()
    _create_endpoint()
    _create_signing_key()
    _create_event()
    _create_event_subject()
    _create_delivery()
    _create_attempt()
    _create_audit()


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def _create_account() -> None:
    op.create_table(
        "account",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
    )


def _create_api_key() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("account_id", sa.String(64), sa.ForeignKey("account.id"), nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False, unique=True),
        sa.Column("hint", sa.String(16), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("revoked_at", moment),
    )
    op.create_index("ix_api_key_account_id", "api_key", ["account_id"])


def _create_organization() -> None:
    op.create_table(
        "organization",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("account_id", sa.String(64), sa.ForeignKey("account.id"), nullable=False, unique=True),
        sa.Column("oid", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("location", json, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
    )


def _create_facility() -> None:
    op.create_table(
        "facility",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("account_id", sa.String(64), sa.ForeignKey("account.id"), nullable=False),
        sa.Column("oid", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("npi", sa.String(10), nullable=False),
        sa.Column("tin", sa.Text()),
        sa.Column("active", sa.Boolean()),
        sa.Column("address", json, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.UniqueConstraint("account_id", "npi"),
    )


def _create_patient() -> None:
    op.create_table(
        "patient",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("account_id", sa.String(64), sa.ForeignKey("account.id"), nullable=False),
        sa.Column("dob", sa.String(10), nullable=False),
        sa.Column("gender", sa.String(1), nullable=False),
        sa.Column("demographics", json, nullable=False),
        sa.Column("search_text", sa.Text(), nullable=False),
        sa.Column("external_id", sa.Text()),
        sa.Column("additional_ids", json, nullable=False),
        sa.Column("opted_out", sa.Boolean(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
    )
    op.create_index("ix_patient_account_id_dob_gender", "patient", ["account_id", "dob", "gender"])
    op.create_index("ix_patient_account_id_external_id", "patient", ["account_id", "external_id"])
    op.create_index("ix_patient_account_id_id", "patient", ["account_id", "id"])


def _create_patient_facility() -> None:
    op.create_table(
        "patient_facility",
        sa.Column("patient_id", sa.String(64), sa.ForeignKey("patient.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("facility_id", sa.String(64), sa.ForeignKey("facility.id"), primary_key=True),
    )
    op.create_index("ix_patient_facility_facility_id", "patient_facility", ["facility_id"])


def _create_patient_link() -> None:
    op.create_table(
        "patient_link",
        sa.Column("patient_id", sa.String(64), sa.ForeignKey("patient.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("network", sa.String(40), primary_key=True),
        sa.Column("remote_id", sa.Text(), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("score", sa.Integer()),
        sa.Column("first_seen_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
    )


def _create_document_query() -> None:
    op.create_table(
        "document_query",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("account_id", sa.String(64), sa.ForeignKey("account.id"), nullable=False),
        sa.Column("patient_id", sa.String(64), sa.ForeignKey("patient.id", ondelete="CASCADE"), nullable=False),
        sa.Column("facility_id", sa.String(64)),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("metadata", json),
        sa.Column("override", sa.Boolean(), nullable=False),
        sa.Column("started_at", moment, nullable=False),
        sa.Column("ended_at", moment),
    )
    op.create_index("ix_document_query_patient_id_id", "document_query", ["patient_id", "id"])


def _create_network_step() -> None:
    op.create_table(
        "network_step",
        sa.Column("id", serial, primary_key=True),
        sa.Column("query_id", sa.String(64), sa.ForeignKey("document_query.id", ondelete="CASCADE"), nullable=False),
        sa.Column("account_id", sa.String(64), sa.ForeignKey("account.id"), nullable=False),
        sa.Column("patient_id", sa.String(64), nullable=False),
        sa.Column("network", sa.String(40), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("failures", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("due_at", moment, nullable=False),
        sa.Column("lease", sa.String(40)),
        sa.Column("lease_until", moment),
        sa.Column("issue", sa.String(40)),
        sa.UniqueConstraint("query_id", "network"),
    )
    op.create_index("ix_network_step_due", "network_step", ["network", "due_at"], **_where("state = 'waiting'"))


def _create_intake_step() -> None:
    op.create_table(
        "intake_step",
        sa.Column("id", serial, primary_key=True),
        sa.Column("query_id", sa.String(64), sa.ForeignKey("document_query.id", ondelete="CASCADE"), nullable=False),
        sa.Column("account_id", sa.String(64), sa.ForeignKey("account.id"), nullable=False),
        sa.Column("patient_id", sa.String(64), nullable=False),
        sa.Column("network", sa.String(40), nullable=False),
        sa.Column("remote_key", sa.Text(), nullable=False),
        sa.Column("remote", json, nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("failures", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("due_at", moment, nullable=False),
        sa.Column("lease", sa.String(40)),
        sa.Column("lease_until", moment),
        sa.Column("issue", sa.String(40)),
        sa.Column("document_id", sa.String(64)),
        sa.UniqueConstraint("query_id", "network", "remote_key"),
    )
    op.create_index("ix_intake_step_due", "intake_step", ["network", "due_at"], **_where("state = 'waiting'"))
    op.create_index("ix_intake_step_query", "intake_step", ["query_id", "state", "document_id"])
    op.create_index("ix_intake_step_turn", "intake_step", ["network", "turn", "due_at"], **_where("state = 'waiting'"))


def _create_document() -> None:
    op.create_table(
        "document",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("account_id", sa.String(64), sa.ForeignKey("account.id"), nullable=False),
        sa.Column("patient_id", sa.String(64), sa.ForeignKey("patient.id", ondelete="CASCADE"), nullable=False),
        sa.Column("query_id", sa.String(64), nullable=False),
        sa.Column("network", sa.String(40), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("mime_type", sa.Text(), nullable=False),
        sa.Column("declared_type", sa.Text()),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha1", sa.String(40), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("master_identifier", sa.Text()),
        sa.Column("description", sa.Text()),
        sa.Column("indexed", moment),
        sa.Column("type", json),
        sa.Column("category", json),
        sa.Column("format", json),
        sa.Column("period_start", moment),
        sa.Column("period_end", moment),
        sa.Column("author", sa.Text()),
        sa.Column("replaces", json, nullable=False),
        sa.Column("replaced_by", sa.String(64)),
        sa.Column("created_at", moment, nullable=False),
        sa.UniqueConstraint("account_id", "file_name"),
        sa.UniqueConstraint("patient_id", "sha256"),
    )
    op.create_index("ix_document_patient_id_id", "document", ["patient_id", "id"])
    op.create_index("ix_document_patient_id_master_identifier", "document", ["patient_id", "master_identifier"])
    op.create_index("ix_document_query_id", "document", ["query_id"])
    op.create_index("ix_document_sha256", "document", ["sha256"])


def _create_document_source() -> None:
    op.create_table(
        "document_source",
        sa.Column("patient_id", sa.String(64), sa.ForeignKey("patient.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("network", sa.String(40), primary_key=True),
        sa.Column("remote_key", sa.Text(), primary_key=True),
        sa.Column("document_id", sa.String(64), sa.ForeignKey("document.id", ondelete="CASCADE"), nullable=False),
    )
    op.create_index("ix_document_source_document_id", "document_source", ["document_id"])


def _create_document_replacement() -> None:
    op.create_table(
        "document_replacement",
        sa.Column("patient_id", sa.String(64), sa.ForeignKey("patient.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("master_identifier", sa.Text(), primary_key=True),
        sa.Column("document_id", sa.String(64), sa.ForeignKey("document.id", ondelete="CASCADE"), primary_key=True),
    )
    op.create_index("ix_document_replacement_document_id", "document_replacement", ["document_id"])


def _create_announcement() -> None:
    op.create_table(
        "announcement",
        sa.Column("id", serial, primary_key=True),
        sa.Column("account_id", sa.String(64), sa.ForeignKey("account.id"), nullable=False),
        sa.Column("document_id", sa.String(64), sa.ForeignKey("document.id", ondelete="CASCADE"), nullable=False),
        sa.Column("query_id", sa.String(64), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("due_at", moment, nullable=False),
    )
    op.create_index("ix_announcement_account_id_id", "announcement", ["account_id", "id"])
    op.create_index("ix_announcement_due_at", "announcement", ["due_at"])


def _create_endpoint() -> None:
    op.create_table(
        "endpoint",
        sa.Column("seq", serial, primary_key=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("account_id", sa.String(64), sa.ForeignKey("account.id"), nullable=False),
        sa.Column("is_settings", sa.Boolean(), nullable=False),
        sa.Column("url", sa.Text()),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("verified", sa.Boolean(), nullable=False),
        sa.Column("status_detail", sa.Text()),
        sa.Column("payload_version", sa.String(16), nullable=False),
        sa.Column("delivery", sa.String(16), nullable=False),
        sa.Column("send_webhook_key", sa.Boolean(), nullable=False),
        sa.Column("timeout_seconds", sa.Integer()),
        sa.Column("signature_scheme", sa.String(4), nullable=False),
        sa.Column("description", sa.Text()),
        sa.Column("event_types", json),
        sa.Column("mr_filters", json),
        sa.Column("headers", json),
        sa.Column("retry_seconds", json),
        sa.Column("max_in_flight", sa.Integer()),
        sa.Column("rate_per_second", sa.Integer()),
        sa.Column("failures_in_row", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("failing_since", moment),
        sa.Column("paused_until", moment),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
    )
    op.create_index("ix_endpoint_account_id", "endpoint", ["account_id"])


def _create_signing_key() -> None:
    op.create_table(
        "signing_key",
        sa.Column("id", serial, primary_key=True),
        sa.Column("endpoint_seq", serial, sa.ForeignKey("endpoint.seq", ondelete="CASCADE"), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("expires_at", moment),
    )
    op.create_index("ix_signing_key_endpoint_seq", "signing_key", ["endpoint_seq"])


def _create_event() -> None:
    op.create_table(
        "event",
        sa.Column("seq", serial, primary_key=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("account_id", sa.String(64), sa.ForeignKey("account.id"), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("payload_version", sa.String(16), nullable=False),
        sa.Column("query_id", sa.String(64)),
        sa.Column("body", sa.LargeBinary()),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("expires_at", moment, nullable=False),
    )
    op.create_index("ix_event_account_id_seq", "event", ["account_id", "seq"])
    op.create_index("ix_event_expires", "event", ["expires_at"], **_where("body IS NOT NULL"))


def _create_event_subject() -> None:
    op.create_table(
        "event_subject",
        sa.Column("event_seq", serial, sa.ForeignKey("event.seq", ondelete="CASCADE"), primary_key=True),
        sa.Column("patient_id", sa.String(64), primary_key=True),
    )
    op.create_index("ix_event_subject_patient_id", "event_subject", ["patient_id"])


def _create_delivery() -> None:
    op.create_table(
        "delivery",
        sa.Column("seq", serial, primary_key=True),
        sa.Column("event_seq", serial, sa.ForeignKey("event.seq", ondelete="CASCADE"), nullable=False),
        sa.Column("endpoint_seq", serial, sa.ForeignKey("endpoint.seq", ondelete="CASCADE"), nullable=False),
        sa.Column("account_id", sa.String(64), sa.ForeignKey("account.id"), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("due_at", moment, nullable=False),
        sa.Column("lease", sa.String(40)),
        sa.Column("lease_until", moment),
        sa.Column("outcome", sa.String(32)),
        sa.Column("http_status", sa.Integer()),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("settled_at", moment),
        sa.UniqueConstraint("event_seq", "endpoint_seq"),
    )
    op.create_index("ix_delivery_account_id_state", "delivery", ["account_id", "state"])
    op.create_index("ix_delivery_due", "delivery", ["endpoint_seq", "due_at"], **_where("state = 'waiting'"))


def _create_attempt() -> None:
    op.create_table(
        "attempt",
        sa.Column("id", serial, primary_key=True),
        sa.Column("delivery_seq", serial, sa.ForeignKey("delivery.seq", ondelete="CASCADE"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("started_at", moment, nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.Column("http_status", sa.Integer()),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("answer", sa.LargeBinary()),
    )
    op.create_index("ix_attempt_delivery_seq", "attempt", ["delivery_seq"])


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("seq", serial, primary_key=True),
        sa.Column("at", moment, nullable=False),
        sa.Column("account_id", sa.String(64), nullable=False),
        sa.Column("actor", sa.String(80), nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("patient_id", sa.String(64)),
        sa.Column("subject", sa.Text()),
        sa.Column("outcome", sa.String(40), nullable=False),
    )
    op.create_index("ix_audit_account_id_seq", "audit", ["account_id", "seq"])
    op.create_index("ix_audit_patient_id_seq", "audit", ["patient_id", "seq"])
