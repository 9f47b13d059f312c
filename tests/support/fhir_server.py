"""An independent FHIR R4 server (PyPI `sekmet-fhir`) in a process of its own, and real documents to put into it."""

import asyncio
import hashlib
import io
import os
import sys
import uuid
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from tests.support.ports import free_port

from chartwire.model.registry import Demographics, Gender

_START_SECONDS = 120
_POLL_SECONDS = 0.05
_GENDERS = {Gender.F: "female", Gender.M: "male", Gender.O: "other", Gender.U: "unknown"}


@dataclass(frozen=True, slots=True)
class SekmetServer:
    """A running server; `base_url` is its FHIR base, without a trailing slash."""

    base_url: str
    log_file: Path


@asynccontextmanager
async def start_sekmet(folder: Path, server_auth: Mapping[str, Any] | None = None) -> AsyncIterator[SekmetServer]:
    """Run a server whose data is in `folder`; it is ready within the context.

    `server_auth` is sekmet's own setting: `{"types": ["bearer"], "tokens": ["…"]}`, say. None asks for no credentials.
    """
    port = free_port()
    server = SekmetServer(f"http://127.0.0.1:{port}/fhir", folder / "sekmet.log")
    config = _write_settings(server.base_url, port, folder, server_auth or {"types": ["none"]})
    with server.log_file.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "sekmet.main:app_factory", "--factory", "--log-level", "warning"),
            *("--host", "127.0.0.1", "--port", str(port)),
            env=os.environ | {"SEKMET_CONFIG": str(config)},
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        async with asyncio.timeout(_START_SECONDS):
            await _wait_until_ready(server, process)
        yield server
    finally:
        if process.returncode is None:
            process.kill()  # its data is thrown away: nothing needs a clean end
        await process.wait()


async def load_documents(
    base_url: str, patient: Demographics, files: Sequence[Path], headers: Mapping[str, str] | None = None
) -> str:
    """Put a patient and files into a server, each file as Binary and DocumentReference, in one transaction.

    Returns the server's id of the patient.
    """
    patient_id = str(uuid.uuid4())
    entries = [_put(as_resource(patient, patient_id))]
    for file in files:
        entries += [_put(each) for each in document_resources(patient_id, await asyncio.to_thread(file.read_bytes))]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            base_url,
            data=io.BytesIO(orjson.dumps(bundle)),
            headers={"Content-Type": "application/fhir+json", "Prefer": "return=minimal", **(headers or {})},
        ) as answer,
    ):
        assert answer.status == 200, await answer.text()
    return patient_id


def as_resource(patient: Demographics, patient_id: str) -> dict[str, Any]:
    """A patient as a FHIR Patient."""
    return {
        "resourceType": "Patient",
        "id": patient_id,
        "name": [{"family": patient.last_name, "given": [patient.first_name]}],
        "birthDate": patient.dob.isoformat(),
        "gender": _GENDERS[patient.gender_at_birth],
        "address": [{"city": each.city, "state": each.state, "postalCode": each.zip} for each in patient.address],
    }


def document_resources(patient_id: str, content: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """A Binary with `content`, and the DocumentReference that points to it."""
    identifier = str(uuid.uuid4())
    binary = {
        "resourceType": "Binary",
        "id": identifier,
        "contentType": "application/xml",
        "data": b64encode(content).decode(),
    }
    sha1 = hashlib.sha1(content, usedforsecurity=False).digest()
    reference = {
        "resourceType": "DocumentReference",
        "id": str(uuid.uuid4()),
        "masterIdentifier": {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{identifier}"},
        "status": "current",
        "type": {"coding": [{"system": "http://loinc.org", "code": "34133-9"}], "text": "Summary of episode note"},
        "subject": {"reference": f"Patient/{patient_id}"},
        "date": "2024-05-06T07:08:09Z",
        "content": [
            {
                "attachment": {
                    "contentType": "application/xml",
                    "url": f"Binary/{identifier}",
                    "size": len(content),
                    "hash": b64encode(sha1).decode(),
                }
            }
        ],
    }
    return binary, reference


def _put(resource: dict[str, Any]) -> dict[str, Any]:
    return {"resource": resource, "request": {"method": "PUT", "url": f"{resource['resourceType']}/{resource['id']}"}}


def _write_settings(base_url: str, port: int, folder: Path, server_auth: Mapping[str, Any]) -> Path:
    settings = {
        "base_url": base_url,
        "host": "127.0.0.1",
        "port": port,
        "data_dir": str(folder),
        "own_private_key_path": str(folder / "unused.pem"),
        "server_auth": server_auth,
        "validation": {"inbound": "off"},  # the loaded resources are our own; validating them takes most of the time
        "simulator": {"enabled": False},
        "log_inbound": False,
    }
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "settings.yaml"
    config.write_bytes(orjson.dumps(settings))  # JSON is YAML
    return config


async def _wait_until_ready(server: SekmetServer, process: asyncio.subprocess.Process) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"{server.base_url}/metadata") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            assert process.returncode is None, f"sekmet ended at its start:\n{server.log_file.read_text()}"
            await asyncio.sleep(_POLL_SECONDS)
