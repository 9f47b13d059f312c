"""What is to be done when the machine's clock was set: moments were written by a time that does not hold any more.

Retries are left as they are: by a clock that was set back they come later by as much, by one set forward sooner.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, update

from chartwire.store import ring, schema
from chartwire.store.claims import ClaimedDelivery
from chartwire.store.ring import IS_WAITING

_ENDPOINT = schema.endpoint.c
_DELIVERY = schema.delivery.c


def clock_went_back(connection: Connection, now: datetime) -> None:
    """What would wait until the old time comes again goes on now: news, endpoints that had their turn, and pauses."""
    news = (IS_WAITING, _DELIVERY.again.is_(False), _DELIVERY.lease.is_(None), _DELIVERY.due_at > now)
    connection.execute(update(schema.delivery).where(*news).values(due_at=now))
    connection.execute(update(schema.endpoint).where(_ENDPOINT.paused_until > now).values(paused_until=now))
    ring.release_all(connection, now)


def clock_went_forward(connection: Connection, held: Sequence[ClaimedDelivery], lease_until: datetime) -> None:
    """Leases would be over although their holder is there: what is in flight would be posted a second time."""
    for lease in {claimed.lease for claimed in held}:
        seqs = [claimed.seq for claimed in held if claimed.lease == lease]
        connection.execute(
            update(schema.delivery)
            .where(_DELIVERY.seq.in_(seqs), IS_WAITING, _DELIVERY.lease == lease)
            .values(lease_until=lease_until, due_at=lease_until)
        )
