"""Invented documents, for tests of the documents slice."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection
from tests.support.people import a_facility, a_patient
from tests.support.server import Installation

from chartwire.ids import new_id
from chartwire.model.document import CodeableConcept, Coding, Document, DocumentStatus, RemoteDocument
from chartwire.model.matching import Disagreement, Stated
from chartwire.model.quarantine import HeldDocument
from chartwire.model.registry import Gender
from chartwire.store import documents, registry
from chartwire.store.blobs import BlobStore, open_blob_store
from chartwire.store.vault import Vault

NOW = datetime(2025, 1, 2, 3, 4, 5, 678000, UTC)
CCD = CodeableConcept((Coding("http://loinc.org", "34133-9", "Summarization of episode note"),), "Summary")
LIMIT = 1 << 40


def a_document(account_id: str, patient_id: str = "p1", content: bytes = b"hello", **changes: Any) -> Document:
    """A document of a patient; what its bytes decide is derived from `content`."""
    identifier = changes.get("id") or new_id()
    values: dict[str, Any] = {
        "id": identifier,
        "account_id": account_id,
        "patient_id": patient_id,
        "query_id": "q1",
        "network": "mercy",
        "file_name": f"Visit_{identifier}.pdf",
        "status": DocumentStatus.CURRENT,
        "mime_type": "application/pdf",
        "size": len(content),
        "sha1": hashlib.sha1(content, usedforsecurity=False).hexdigest(),
        "sha256": hashlib.sha256(content).hexdigest(),
        "created_at": NOW,
        "title": "Visit",
        "description": "Visit note",
        "indexed": NOW,
        "type": CCD,
    }
    return Document(**{**values, **changes})


def a_held_document(account_id: str, patient_id: str = "p1", content: bytes = b"hello", **changes: Any) -> HeldDocument:
    """A document of a patient that says that it is about somebody else."""
    document = a_document(account_id, patient_id, content)
    values: dict[str, Any] = {
        name: getattr(document, name)
        for name in ("id", "account_id", "patient_id", "query_id", "network", "mime_type", "size", "sha1", "sha256")
    }
    values |= {
        "remote": RemoteDocument(key="k1", title="Visit"),
        "reasons": (Disagreement.BIRTH_DATE,),
        "stated": Stated("Zeller", "Uwe", NOW.date(), Gender.M),
        "declared_type": None,
        "held_at": NOW,
    }
    return HeldDocument(**{**values, **changes})


def add_patient(connection: Connection, account_id: str, patient_id: str = "p1", **changes: Any) -> None:
    """A patient with the facility that it needs."""
    facility_id = f"facility-of-{account_id}"
    if registry.get_facility(connection, account_id, facility_id) is None:
        registry.insert_facility(connection, a_facility(account_id, facility_id))
    registry.insert_patient(connection, a_patient(account_id, patient_id, facility_ids=(facility_id,), **changes))


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    """Bytes as networks hand them over."""
    for part in parts:
        yield part


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where tests of an installation put patients and documents, past the networks."""

    installation: Installation

    @property
    def blobs(self) -> BlobStore:
        """The bytes of the installation."""
        return open_blob_store((self.installation.settings.data_dir / "blobs").as_uri(), Vault(bytes(32)))

    async def account_of(self, key: str) -> tuple[str, str]:
        """Account and id of an API key."""
        known = await self.installation.database.read(lambda connection: registry.authenticate(connection, key))
        assert known is not None
        return known

    async def add_patient(self, key: str, patient_id: str, **changes: Any) -> None:
        """Add a patient to the account of a key."""
        account_id, _ = await self.account_of(key)
        await self.installation.database.write(
            lambda connection: add_patient(connection, account_id, patient_id, **changes)
        )

    async def add(self, key: str, patient_id: str, content: bytes = b"hello", **changes: Any) -> Document:
        """Put a document with its bytes into the account of a key."""
        account_id, _ = await self.account_of(key)
        document = a_document(account_id, patient_id, content, **changes)
        await self.blobs.put(chunks(content), LIMIT)
        await self.installation.database.write(lambda connection: documents.insert_document(connection, document))
        return document


def days(count: float) -> timedelta:
    """A span."""
    return timedelta(days=count)
