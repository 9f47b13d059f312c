"""What an open page asks for again and again while it is looked at: one look, and one entry in the audit trail."""

from datetime import datetime, timedelta

from sqlalchemy import Connection

from chartwire.store import audit

ONE_LOOK = timedelta(minutes=15)
"""For so long a page that refreshes itself is the look that was written down. The browser says that it is one: whoever
lies about that is in the trail every quarter of an hour nevertheless."""


def record_look(
    connection: Connection, now: datetime, account_id: str, actor: str, action: str, patient_id: str, *, again: bool
) -> None:
    """Write down that somebody looks at a patient, unless this is the same look `again`."""
    if not again or not audit.is_recorded(connection, account_id, actor, action, patient_id, now - ONE_LOOK):
        audit.record(connection, now, account_id, actor, action, patient_id)
