"""The tables, all in one place. `migrations/` brings a database to exactly this; a test compares the two.

Times are milliseconds since 1970 in UTC (`clock.to_milliseconds`), read and written as aware datetimes. Ids that
customers see are text; rows that only the engine sees have integers. Every row that belongs to a customer carries
`account_id`, and every query of a customer's names it.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Constraint,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeDecorator

from chartwire.clock import from_milliseconds, to_milliseconds

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Moment(TypeDecorator[datetime]):
    """An aware datetime in UTC, kept as milliseconds since 1970: the same number in every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """To milliseconds."""
        del dialect
        return None if value is None else to_milliseconds(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """From milliseconds."""
        del dialect
        return None if value is None else from_milliseconds(value)


Json = JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
Serial = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only for INTEGER keys


def _id(name: str = "id") -> Column[str]:
    return Column(name, String(64), primary_key=True)


def _serial(name: str) -> Column[int]:
    return Column(name, Serial, primary_key=True, autoincrement=True)


def _account() -> Column[str]:
    return Column("account_id", ForeignKey("account.id"), nullable=False)


def _partial(name: str, where: str, *columns: str) -> Index:
    """An index of those rows alone that fulfil a condition; a query has to repeat it as a literal."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


def _for_sqlite(constraint: Constraint) -> Constraint:
    """A constraint that PostgreSQL does without, or has for each range of a table alone (`store.ranges`)."""
    constraint.info["dialect"] = "sqlite"
    return constraint.ddl_if(dialect="sqlite")


def _refers(column: str, target: str, *, ondelete: str | None = None) -> Constraint:
    """What a row of the history refers to. On PostgreSQL rows go by whole tables, which nothing may refer to, and which
    could not be made beside work if they referred to what that work locks."""
    return _for_sqlite(ForeignKeyConstraint([column], [target], ondelete=ondelete))


def _for_postgres(index: Index) -> Index:
    """An index that SQLite does without."""
    index.info["dialect"] = "postgresql"
    return index.ddl_if(dialect="postgresql")


# --- the installation ------------------------------------------------------------------------------------------------

data_key = Table(
    # What everything that is sealed is sealed under (`store.data_keys`).
    "data_key",
    metadata,
    Column("id", String(16), primary_key=True),  # the hex of its name; `unnamed`: the one without
    Column("master_key_id", String(16), nullable=False),
    Column("secret", LargeBinary, nullable=False),  # sealed under that master key
    Column("created_at", Moment, nullable=False),
    Column("active_at", Moment, nullable=False),  # from then on it seals, until another does
)

schema_floor = Table(
    # The oldest step that code may end with and still serve on these tables. Steps that take something away raise it.
    "schema_floor",
    metadata,
    Column("step", String(32), primary_key=True),
)

# --- registry ---------------------------------------------------------------------------------------------------------

account = Table(
    "account",
    metadata,
    _id(),
    Column("name", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("ready_at", Moment),  # the earliest `ready_at` of its endpoints, or earlier (`store.ring`)
    Index(None, "ready_at"),
)

api_key = Table(
    "api_key",
    metadata,
    _id(),
    _account(),
    Column("secret_hash", String(64), nullable=False, unique=True),
    Column("hint", String(16), nullable=False),
    Column("label", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("revoked_at", Moment),
    Index(None, "account_id"),
)

member = Table(
    # A person who signs in to the console.
    "member",
    metadata,
    _id(),
    _account(),
    Column("email", Text, nullable=False, unique=True),  # in lower case
    Column("role", String(16), nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("totp_secret", LargeBinary),  # sealed; None: no second factor
    Column("totp_step", BigInteger),  # the time step that the last code was of: each is taken once
    Column("sso_subject", Text),  # issuer and `sub` of whom an OpenID provider knows; None: nobody yet
    Column("created_at", Moment, nullable=False),
    Index(None, "account_id", "id"),
    Index(None, "sso_subject", unique=True),
)

member_session = Table(
    "member_session",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("member_id", ForeignKey("member.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("seen_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Index(None, "member_id"),
    Index(None, "expires_at"),
)

sign_in_failure = Table(
    # By a hash of the address that was typed, a member's or nobody's: which of the two must not be found out.
    "sign_in_failure",
    metadata,
    Column("email_hash", String(64), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_at", Moment, nullable=False),
    Column("blocked_until", Moment),
    Index(None, "last_at"),
)

organization = Table(
    "organization",
    metadata,
    _id(),
    Column("account_id", ForeignKey("account.id"), nullable=False, unique=True),
    Column("oid", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("type", String(32), nullable=False),
    Column("location", Json, nullable=False),
    Column("version", Integer, nullable=False),
)

facility = Table(
    "facility",
    metadata,
    _id(),
    _account(),
    Column("oid", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("npi", String(10), nullable=False),
    Column("tin", Text),
    Column("active", Boolean),
    Column("address", Json, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("version", Integer, nullable=False),
    UniqueConstraint("account_id", "npi"),
)

patient = Table(
    "patient",
    metadata,
    _id(),
    _account(),
    Column("dob", String(10), nullable=False),
    Column("gender", String(1), nullable=False),
    Column("demographics", Json, nullable=False),
    Column("search_text", Text, nullable=False),  # lower-case words of the demographics, for free-text filters
    Column("external_id", Text),
    Column("additional_ids", Json, nullable=False),
    Column("opted_out", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("version", Integer, nullable=False),
    Index(None, "account_id", "dob", "gender"),  # candidates for a match share both
    Index(None, "account_id", "external_id"),
    Index(None, "account_id", "id"),
)

patient_facility = Table(
    "patient_facility",
    metadata,
    Column("patient_id", ForeignKey("patient.id", ondelete="CASCADE"), primary_key=True),
    Column("facility_id", ForeignKey("facility.id"), primary_key=True),
    Index(None, "facility_id"),
)

patient_link = Table(
    "patient_link",
    metadata,
    Column("patient_id", ForeignKey("patient.id", ondelete="CASCADE"), primary_key=True),
    Column("network", String(40), primary_key=True),
    Column("remote_id", Text, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("score", Integer),  # thousandths
    Column("first_seen_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
)

# --- documents --------------------------------------------------------------------------------------------------------

document_query = Table(
    "document_query",
    metadata,
    _id(),
    _account(),
    Column("patient_id", ForeignKey("patient.id", ondelete="CASCADE"), nullable=False),
    Column("facility_id", String(64)),
    Column("status", String(16), nullable=False),
    Column("metadata", Json),
    Column("trace", String(64)),  # W3C traceparent of the request that started it
    Column("override", Boolean, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Index(None, "patient_id", "id"),
    Index(None, "account_id", "id"),
)


def _step_columns() -> list[Column[Any]]:
    """What a durable step carries: when it is due, and who holds it until when."""
    return [
        Column("state", String(16), nullable=False),
        Column("attempts", Integer, nullable=False, server_default=text("0")),  # claims, whatever became of them
        Column("failures", Integer, nullable=False, server_default=text("0")),  # attempts that ended in failure
        Column("due_at", Moment, nullable=False),
        Column("lease", String(40)),
        Column("lease_until", Moment),
        Column("issue", String(40)),
    ]


network_step = Table(
    "network_step",
    metadata,
    _serial("id"),
    Column("query_id", ForeignKey("document_query.id", ondelete="CASCADE"), nullable=False),
    _account(),
    Column("patient_id", String(64), nullable=False),
    Column("network", String(40), nullable=False),
    *_step_columns(),
    UniqueConstraint("query_id", "network"),
    _partial("ix_network_step_due", "state = 'waiting'", "network", "due_at"),
)

intake_step = Table(
    "intake_step",
    metadata,
    _serial("id"),
    Column("query_id", ForeignKey("document_query.id", ondelete="CASCADE"), nullable=False),
    _account(),
    Column("patient_id", String(64), nullable=False),
    Column("network", String(40), nullable=False),
    Column("remote_key", Text, nullable=False),
    Column("remote", Json, nullable=False),  # the listed RemoteDocument
    Column("turn", Integer, nullable=False),  # its place in the network's line: the lowest is fetched first
    *_step_columns(),
    Column("document_id", String(64)),
    UniqueConstraint("query_id", "network", "remote_key"),
    Index("ix_intake_step_query", "query_id", "state", "document_id"),  # counts; does any wait; is it here already
    _partial("ix_intake_step_turn", "state = 'waiting'", "network", "turn", "due_at"),
    _partial("ix_intake_step_due", "state = 'waiting'", "network", "due_at"),
)

document = Table(
    "document",
    metadata,
    _id(),
    _account(),
    Column("patient_id", ForeignKey("patient.id", ondelete="CASCADE"), nullable=False),
    Column("query_id", String(64), nullable=False),
    Column("network", String(40), nullable=False),
    Column("file_name", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("status", String(20), nullable=False),
    Column("mime_type", Text, nullable=False),
    Column("declared_type", Text),
    Column("size", BigInteger, nullable=False),
    Column("sha1", String(40), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("master_identifier", Text),
    Column("description", Text),
    Column("indexed", Moment),
    Column("type", Json),
    Column("category", Json),
    Column("format", Json),
    Column("period_start", Moment),
    Column("period_end", Moment),
    Column("author", Text),
    Column("replaces", Json, nullable=False),  # master identifiers of earlier versions
    Column("replaced_by", String(64)),
    Column("created_at", Moment, nullable=False),
    UniqueConstraint("account_id", "file_name"),
    UniqueConstraint("patient_id", "sha256"),  # the same bytes are one document
    Index(None, "patient_id", "id"),
    Index(None, "account_id", "id"),
    Index(None, "patient_id", "master_identifier"),
    Index(None, "query_id"),
    Index(None, "sha256"),
)

document_source = Table(
    "document_source",
    metadata,
    Column("patient_id", ForeignKey("patient.id", ondelete="CASCADE"), primary_key=True),
    Column("network", String(40), primary_key=True),
    Column("remote_key", Text, primary_key=True),
    Column("document_id", ForeignKey("document.id", ondelete="CASCADE"), nullable=False),
    Index(None, "document_id"),
)

document_replacement = Table(
    # The earlier versions that a document replaces, by their master identifiers; they may arrive after it, or never.
    "document_replacement",
    metadata,
    Column("patient_id", ForeignKey("patient.id", ondelete="CASCADE"), primary_key=True),
    Column("master_identifier", Text, primary_key=True),
    Column("document_id", ForeignKey("document.id", ondelete="CASCADE"), primary_key=True),
    Index(None, "document_id"),
)

quarantined_document = Table(
    # A document that came and was not taken in: nobody but a reviewer is told of it.
    "quarantined_document",
    metadata,
    _id(),
    _account(),
    Column("patient_id", ForeignKey("patient.id", ondelete="CASCADE"), nullable=False),
    Column("query_id", String(64), nullable=False),
    Column("network", String(40), nullable=False),
    Column("remote", Json, nullable=False),  # the listed RemoteDocument
    Column("reasons", Json, nullable=False),  # model.matching.Disagreement
    Column("stated", Json, nullable=False),  # model.matching.Stated: of whom it says that it is
    Column("declared_type", Text),
    Column("mime_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha1", String(40), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("held_at", Moment, nullable=False),
    Column("state", String(16), nullable=False),  # held, released, discarded
    Column("decided_at", Moment),
    Column("decided_by", String(80)),
    Column("note", Text),
    Column("release_query_id", String(64)),
    UniqueConstraint("patient_id", "sha256"),  # what was decided of some bytes holds when they come again
    Index(None, "account_id", "id"),
    Index(None, "sha256"),
    Index(None, "release_query_id"),
)

announcement = Table(
    # A stored document whose message is not yet composed; the row is written with the document and lives for at most
    # the coalescing window.
    "announcement",
    metadata,
    _serial("id"),
    _account(),
    Column("document_id", ForeignKey("document.id", ondelete="CASCADE"), nullable=False),
    Column("query_id", String(64), nullable=False),
    Column("size", Integer, nullable=False),  # estimated bytes of its part of the message
    Column("due_at", Moment, nullable=False),
    Index(None, "account_id", "id"),
    Index(None, "due_at"),
)

# --- webhooks ---------------------------------------------------------------------------------------------------------

endpoint = Table(
    "endpoint",
    metadata,
    _serial("seq"),
    Column("id", String(64), nullable=False, unique=True),
    _account(),
    Column("is_settings", Boolean, nullable=False),  # the one endpoint that /settings shows and sets
    Column("url", Text),
    Column("state", String(16), nullable=False),  # enabled, disabled: only enabled ones are posted to
    Column("verified", Boolean, nullable=False),  # the contract's webhookEnabled: the last answer was good
    Column("status_detail", Text),
    Column("payload_version", String(16), nullable=False),
    Column("delivery", String(16), nullable=False),
    Column("send_webhook_key", Boolean, nullable=False),
    Column("timeout_seconds", Integer),
    Column("signature_scheme", String(4), nullable=False),  # v1 or v1a
    Column("description", Text),
    Column("event_types", Json),  # None: every type
    Column("mr_filters", Json),  # of /settings: kept for the customer, given back as it came
    Column("headers", Json),  # by name, each value sealed and in Base64
    Column("tls", Json),  # `sealed`: the profile in Base64; `shown`: what may be told of its certificates
    Column("retry_seconds", Json),  # waits after a failed attempt
    Column("max_in_flight", Integer),
    Column("rate_per_second", Integer),
    Column("failures_in_row", Integer, nullable=False, server_default=text("0")),  # this and what follows: model.health
    Column("failing_since", Moment),
    Column("strains_in_row", Integer, nullable=False, server_default=text("0")),
    Column("breaker_waits", Integer, nullable=False, server_default=text("0")),  # 0: the breaker is closed
    Column("paused_until", Moment),  # Retry-After and the open breaker: nothing is sent before
    Column("ready_at", Moment),  # when the dispatcher looks here next; None: nothing waits (`store.ring`)
    Column("held_until", Moment),  # nothing is claimed before: the endpoint is full, or its rate is used up
    Column("spent_until", Moment),  # how far the rate limit is used up (`model.rate`)
    Column("created_at", Moment, nullable=False),
    Column("deleted_at", Moment),  # kept for the history of its deliveries, shown to nobody
    Column("version", Integer, nullable=False),
    Index(None, "account_id", "ready_at"),
)

signing_key = Table(
    "signing_key",
    metadata,
    _serial("id"),
    Column("endpoint_seq", ForeignKey("endpoint.seq", ondelete="CASCADE"), nullable=False),
    Column("secret", LargeBinary, nullable=False),  # sealed
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment),  # None: the current key
    Index(None, "endpoint_seq"),
)

subscription = Table(
    # A FHIR Subscription; its `channel` is an endpoint, of the same id, that takes nothing else.
    "subscription",
    metadata,
    Column("endpoint_seq", ForeignKey("endpoint.seq", ondelete="CASCADE"), primary_key=True),
    _account(),
    Column("status", String(16), nullable=False),  # what was asked for, and how the handshake went
    Column("error", Text),
    Column("handshake_id", String(64)),  # event.id: the handshake whose outcome counts
    Column("reason", Text, nullable=False),
    Column("contact", Json),
    Column("criteria", Json, nullable=False),  # the filters, as they were written
    Column("chosen", Json, nullable=False),  # the same as a store.documents.DocumentFilter
    Column("content", String(16), nullable=False),  # empty, id-only, full-resource
    Column("heartbeat_seconds", Integer),
    Column("max_count", Integer),
    Column("ends_at", Moment),
    Column("event_count", Integer, nullable=False, server_default=text("0")),  # the number of its last event
    Column("due_at", Moment),  # when a heartbeat is to be sent, or the subscription ends
    Column("updated_at", Moment, nullable=False),
    Column("version", Integer, nullable=False),
    Index(None, "account_id"),
    Index(None, "due_at"),
)

event = Table(
    "event",
    metadata,
    _serial("seq"),
    Column("id", String(64), nullable=False),  # webhook-id and meta.messageId
    Column("account_id", String(64), nullable=False),
    Column("type", String(64), nullable=False),
    Column("payload_version", String(16), nullable=False),
    Column("query_id", String(64)),
    Column("trace", String(64)),  # W3C traceparent of what gave rise to it
    Column("body", LargeBinary),  # sealed; None once expired or expunged
    Column("size", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    _refers("account_id", "account.id"),
    _for_sqlite(UniqueConstraint("id")),
    Index(None, "account_id", "seq"),
    _partial("ix_event_expires", "body IS NOT NULL", "expires_at"),
    postgresql_partition_by="RANGE (seq)",
)

event_subject = Table(
    # Whose data an event carries: for the audit trail and for expunging.
    "event_subject",
    metadata,
    Column("event_seq", Serial, primary_key=True, autoincrement=False),
    Column("patient_id", String(64), primary_key=True),
    _refers("event_seq", "event.seq", ondelete="CASCADE"),
    Index(None, "patient_id"),
    postgresql_partition_by="RANGE (event_seq)",
)

subscription_event = Table(
    # The events of a subscription, numbered 1, 2, … without gaps in the order of commit.
    "subscription_event",
    metadata,
    Column("endpoint_seq", ForeignKey("subscription.endpoint_seq", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", Moment, nullable=False),
    Column("document_id", ForeignKey("document.id", ondelete="SET NULL")),  # None once its patient was deleted
    Column("event_seq", Serial, nullable=False),  # the notification that tells of it; it may be forgotten by now
    Index(None, "document_id"),
)

delivery = Table(
    "delivery",
    metadata,
    _serial("seq"),
    Column("event_seq", Serial, nullable=False),
    Column("endpoint_seq", Serial, nullable=False),
    Column("account_id", String(64), nullable=False),
    Column("state", String(16), nullable=False),  # waiting, delivered, failed, dropped
    Column("attempts", Integer, nullable=False, server_default=text("0")),  # since the schedule last began
    Column("again", Boolean, nullable=False, server_default=text("false")),  # attempted before: does not hold up news
    Column("due_at", Moment, nullable=False),
    Column("lease", String(40)),
    Column("lease_until", Moment),
    Column("outcome", String(32)),  # reason code of the last attempt
    Column("http_status", Integer),
    Column("created_at", Moment, nullable=False),
    Column("settled_at", Moment),
    _for_sqlite(UniqueConstraint("event_seq", "endpoint_seq")),
    _refers("endpoint_seq", "endpoint.seq", ondelete="CASCADE"),
    _refers("account_id", "account.id"),
    _refers("event_seq", "event.seq", ondelete="CASCADE"),
    _partial("ix_delivery_due", "state = 'waiting'", "endpoint_seq", "again", "due_at"),
    # What is in flight, where several processes serve; one that is alone knows.
    _for_postgres(_partial("ix_delivery_leased", "lease IS NOT NULL", "endpoint_seq", "lease_until")),
    # Not of all by their state: what is delivered at once, as most is, would be put into such an index twice.
    _partial("ix_delivery_failed", "state = 'failed'", "account_id", "seq"),
    Index(None, "account_id", "seq"),
    postgresql_partition_by="RANGE (seq)",
)

replay = Table(
    # Settled deliveries being sent again, a batch at a time in their order: all of the account that are chosen and were
    # there when it began.
    "replay",
    metadata,
    _id(),
    _account(),
    Column("state", String(16), nullable=False),  # running, completed, cancelled
    Column("chosen", Json, nullable=False),  # a model.webhook.DeliveryFilter
    Column("total", Integer, nullable=False),
    Column("replayed", Integer, nullable=False),
    Column("after_seq", BigInteger, nullable=False),  # delivery.seq: done up to here
    Column("until_seq", BigInteger, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Index(None, "account_id", "id"),
    _partial("ix_replay_running", "state = 'running'", "id"),
)

event_cursor = Table(
    # How far an app that pulls has acknowledged, under a name of its choice.
    "event_cursor",
    metadata,
    Column("account_id", ForeignKey("account.id"), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("after_seq", BigInteger, nullable=False),  # delivery.seq
    Column("updated_at", Moment, nullable=False),
)

attempt = Table(
    "attempt",
    metadata,
    _serial("id"),  # of each range of its own on PostgreSQL
    Column("delivery_seq", Serial, nullable=False),
    Column("number", Integer, nullable=False),  # 1, 2, … over the whole life of the delivery
    Column("started_at", Moment, nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("http_status", Integer),
    Column("url", Text, nullable=False),  # to whom, as it was then
    Column("answer", LargeBinary),  # at most 16 KiB of the answer's body, sealed
    Column("is_reused", Boolean),  # this and what follows: model.webhook.Timing
    Column("dns_us", Integer),
    Column("connect_us", Integer),
    Column("tls_us", Integer),
    Column("first_byte_us", Integer),
    _refers("delivery_seq", "delivery.seq", ondelete="CASCADE"),
    Index(None, "delivery_seq"),
    postgresql_partition_by="RANGE (delivery_seq)",
)

network_circuit = Table(
    # Networks that did not answer lately (`model.circuit`); all others are well.
    "network_circuit",
    metadata,
    Column("network", String(64), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("pauses", Integer, nullable=False),
    Column("code", String(32), nullable=False),
    Column("opened_at", Moment),
    Column("tries_at", Moment),
)

process = Table(
    # The processes of the installation; one that says nothing any more is gone at `expires_at`.
    "process",
    metadata,
    _id(),
    Column("role", String(16), nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", String(32), nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("seen_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
)

audit = Table(
    # Who saw or changed whose data, when, with what outcome. Append-only; survives the deletion of what it speaks of.
    "audit",
    metadata,
    _serial("seq"),
    Column("at", Moment, nullable=False),
    Column("account_id", String(64), nullable=False),
    Column("actor", String(80), nullable=False),  # key:<id>, member:<id>, link, engine, operator
    Column("action", String(40), nullable=False),  # document.read, webhook.attempt, patient.delete, …
    Column("patient_id", String(64)),
    Column("subject", Text),  # id of the document, event, endpoint …
    Column("outcome", String(40), nullable=False),
    Index(None, "account_id", "seq"),
    Index(None, "patient_id", "seq"),
)
