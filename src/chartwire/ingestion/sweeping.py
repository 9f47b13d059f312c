"""Removes bytes that no document refers to any more: of deleted patients, and of intakes that never came to an end."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from chartwire.store import documents
from chartwire.store.blobs import BlobStore
from chartwire.store.database import Database
from chartwire.telemetry import get_logger

_EVERY_SECONDS = 3600.0
_UNTOUCHED_FOR = timedelta(hours=24)
"""Longer than any intake takes: bytes whose reference is about to be written are never swept."""

log = get_logger()


class Sweeper:
    """Sweeps once an hour."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                removed = await self._blobs.sweep(self._referenced, _UNTOUCHED_FOR)
            except Exception:  # the disk or the database may be away for a while: the loop must outlive it
                log.exception("could not sweep stored bytes")
            else:
                log.debug("swept stored bytes", count=removed)
            await asyncio.sleep(_EVERY_SECONDS)

    async def _referenced(self, digests: Sequence[str]) -> set[str]:
        return await self._database.read(lambda connection: documents.referenced_digests(connection, digests))
