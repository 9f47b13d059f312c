"""Which entries of the audit trail tell that data of a patient left the account's own walls, and to whom."""

from sqlalchemy import Connection, or_, select

from chartwire.model.listing import Part, Window
from chartwire.model.webhook import Outcome
from chartwire.store import schema
from chartwire.store.audit import AuditEntry, AuditFilter, select_entries, to_entry
from chartwire.store.listing import read_part

_AUDIT = schema.audit.c
ORDERS = {"when": _AUDIT.seq, "what": _AUDIT.action, "to": _AUDIT.actor}
_BY_APPS = (
    "document.read",
    "document.download",
    "document.list",
    "document.search",
    "event.read",
    "event.pull",
    "patient.read",
    "patient.match",
)
_NOTHING_SENT = (Outcome.DNS, Outcome.REFUSED, Outcome.TLS, Outcome.FORBIDDEN_ADDRESS, Outcome.NO_URL, Outcome.EXPIRED)


def page(connection: Connection, account_id: str, chosen: AuditFilter, window: Window) -> Part[AuditEntry]:
    """A part of the entries, ordered by one of `ORDERS`. What members see is use, not disclosure."""
    sent = (_AUDIT.action == "webhook.attempt") & _AUDIT.outcome.not_in(_NOTHING_SENT)
    taken = _AUDIT.action.in_(_BY_APPS) & _AUDIT.actor.not_like("member:%")
    asked = _AUDIT.action == "document.query"
    query = select_entries(account_id, chosen).where(or_(sent, taken, asked))
    return read_part(connection, query, ORDERS, _AUDIT.seq, window, to_entry)


def endpoint_names(connection: Connection, account_id: str) -> dict[str, str]:
    """How the endpoints of an account are called, deleted ones too."""
    endpoint = schema.endpoint.c
    query = select(endpoint.id, endpoint.description, endpoint.url).where(endpoint.account_id == account_id)
    return {row.id: _name(row.description, row.url) for row in connection.execute(query)}


def networks_of(connection: Connection, query_ids: list[str]) -> dict[str, list[str]]:
    """The networks that were asked in each of some queries."""
    step = schema.network_step.c
    query = select(step.query_id, step.network).where(step.query_id.in_(query_ids)).order_by(step.network)
    found: dict[str, list[str]] = {}
    for query_id, network in connection.execute(query):
        found.setdefault(query_id, []).append(network)
    return found


def _name(*parts: str | None) -> str:
    return " ".join(part for part in parts if part) or "an endpoint without a URL"
