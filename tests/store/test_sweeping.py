"""Bytes that nothing refers to are removed, however often the disk or the database fails meanwhile."""

import asyncio
import os
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError
from tests.support.documents import LIMIT, chunks

from chartwire.ingestion.sweeping import Sweeper
from chartwire.store.blobs import open_blob_store
from chartwire.store.database import T, Unit
from chartwire.store.sqlite import SqliteDatabase
from chartwire.store.vault import Vault

pytestmark = pytest.mark.embedded


class _Database(SqliteDatabase):
    """Tells when a read has failed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, lambda _: None)
        self.failed = asyncio.Event()

    async def read(self, unit: Unit[T]) -> T:
        """See `Database.read`."""
        try:
            return await super().read(unit)
        except OperationalError:
            self.failed.set()
            raise


async def test_the_sweeper_outlives_a_database_that_fails(tmp_path: Path) -> None:
    blobs = open_blob_store((tmp_path / "blobs").as_uri(), Vault(bytes(32)))
    kept = await blobs.put(chunks(b"hello"), LIMIT)
    (file,) = (tmp_path / "blobs").rglob(kept.sha256)
    os.utime(file, (0, 0))
    database = _Database(tmp_path / "no-tables.db")
    sweeping = asyncio.create_task(Sweeper(database, blobs).run())
    await database.failed.wait()
    done, _ = await asyncio.wait({sweeping}, timeout=0.1)
    assert not done
    assert file.exists()
    sweeping.cancel()
    await asyncio.wait({sweeping})
    await database.close()
