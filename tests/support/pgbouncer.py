"""A real PgBouncer (Debian's `pgbouncer`) before the PostgreSQL of this test run."""

import asyncio
import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from tests.support.patience import PATIENCE_SECONDS
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")

_POLL_SECONDS = 0.02
_USER = "chartwire"


@dataclass(frozen=True, slots=True)
class Pooler:
    """Hands connections on after each transaction, to clients of any number."""

    port: int

    def url(self, database: str) -> str:
        """The URL of a database behind it."""
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}"


@asynccontextmanager
async def running_pooler(server: PostgresServer, size: int) -> AsyncIterator[Pooler]:
    """A pooler with `size` connections to each database of `server`."""
    assert PROGRAM is not None
    folder = Path(tempfile.mkdtemp(prefix="chartwire-pgbouncer-"))
    pooler = Pooler(free_port())
    (folder / "users.txt").write_text(f'"{_USER}" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {pooler.port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {folder}/users.txt\n"
        f"pool_mode = transaction\ndefault_pool_size = {size}\nmax_client_conn = 200\nadmin_users = {_USER}\n"
    )
    identity = _identity(folder)
    with (folder / "pgbouncer.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            PROGRAM, folder / "pgbouncer.ini", stdout=log, stderr=log, cwd="/", **identity
        )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await _answers(pooler):
                assert process.returncode is None, (folder / "pgbouncer.log").read_text()
                await asyncio.sleep(_POLL_SECONDS)
        yield pooler
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()
        shutil.rmtree(folder)


def _identity(folder: Path) -> dict[str, Any]:
    """PgBouncer refuses to run as root: whom to become."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    for path in (folder, *folder.iterdir()):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


async def _answers(pooler: Pooler) -> bool:
    try:
        connection = await asyncpg.connect(pooler.url("postgres"), statement_cache_size=0)
    except (OSError, asyncpg.PostgresError):
        return False
    await connection.close()
    return True
