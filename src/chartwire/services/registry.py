"""Who is known: keys, the organization, facilities; patients are in `chartwire.services.patients`."""

from dataclasses import dataclass, replace

from sqlalchemy import Connection

from chartwire.clock import Clock
from chartwire.errors import BadRequestError, NotFoundError
from chartwire.ids import new_id, new_oid
from chartwire.model.registry import Address, Facility, Organization, OrganizationType
from chartwire.services.patients import PatientService
from chartwire.services.registry_rules import check_version, find_facility
from chartwire.store import registry
from chartwire.store.database import Database, lock_account
from chartwire.store.vault import Vault


@dataclass(frozen=True, slots=True)
class OrganizationDraft:
    """What a customer says of the organization."""

    name: str
    type: OrganizationType
    location: Address


@dataclass(frozen=True, slots=True)
class FacilityDraft:
    """What a customer says of a facility."""

    name: str
    npi: str
    address: Address
    tin: str | None = None
    active: bool | None = None


class RegistryService:
    """What a customer may do with the organization and its facilities.

    Everything takes the account's id and knows nothing of other accounts. `version` is the eTag that a change is meant
    for; None changes whatever is there. Raises `NotFoundError`, `BadRequestError`, `VersionMismatchError`.
    """

    def __init__(self, database: Database, vault: Vault, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self.patients = PatientService(database, vault, clock)

    async def authenticate(self, key: str) -> tuple[str, str] | None:
        """Account and id of an API key that works."""
        return await self._database.read(lambda connection: registry.authenticate(connection, key))

    # --- organization ---

    async def get_organization(self, account_id: str) -> Organization | None:
        """The account's organization, if it has one."""
        return await self._database.read(lambda connection: registry.get_organization(connection, account_id))

    async def create_organization(self, account_id: str, draft: OrganizationDraft) -> Organization:
        """The account's one organization."""
        identifier = new_id()
        record = Organization(identifier, account_id, new_oid(identifier), draft.name, draft.type, draft.location)

        def unit(connection: Connection) -> None:
            lock_account(connection, account_id)
            if registry.get_organization(connection, account_id) is not None:
                raise BadRequestError("Organization already exists for this customer")
            registry.insert_organization(connection, record)

        await self._database.write(unit)
        return record

    async def update_organization(
        self, account_id: str, organization_id: str, draft: OrganizationDraft, version: str | None
    ) -> Organization:
        """Replace what is known of the organization."""

        def unit(connection: Connection) -> Organization:
            lock_account(connection, account_id)
            known = registry.get_organization(connection, account_id)
            if known is None or known.id != organization_id:
                raise NotFoundError("Could not find organization")
            check_version(known.id, known.version, version)
            changed = replace(
                known, name=draft.name, type=draft.type, location=draft.location, version=known.version + 1
            )
            registry.update_organization(connection, changed)
            return changed

        return await self._database.write(unit)

    # --- facility ---

    async def list_facilities(self, account_id: str) -> list[Facility]:
        """The account's facilities by ascending id."""
        return await self._database.read(lambda connection: registry.list_facilities(connection, account_id))

    async def get_facility(self, account_id: str, facility_id: str) -> Facility:
        """A facility."""
        return await self._database.read(lambda connection: find_facility(connection, account_id, facility_id))

    async def create_facility(self, account_id: str, draft: FacilityDraft) -> Facility:
        """A new facility; its NPI is new to the account."""
        identifier = new_id()
        record = Facility(
            id=identifier,
            account_id=account_id,
            oid=new_oid(identifier),
            name=draft.name,
            npi=draft.npi,
            address=draft.address,
            created_at=self._clock(),
            tin=draft.tin,
            active=draft.active,
        )

        def unit(connection: Connection) -> None:
            lock_account(connection, account_id)
            if registry.find_facility_by_npi(connection, account_id, draft.npi) is not None:
                raise BadRequestError("A facility with this NPI already exists")
            registry.insert_facility(connection, record)

        await self._database.write(unit)
        return record

    async def update_facility(
        self, account_id: str, facility_id: str, draft: FacilityDraft, version: str | None
    ) -> Facility:
        """Replace what is known of a facility; its NPI stays."""

        def unit(connection: Connection) -> Facility:
            lock_account(connection, account_id)
            known = find_facility(connection, account_id, facility_id)
            check_version(known.id, known.version, version)
            if draft.npi != known.npi:
                raise BadRequestError("The NPI of a facility cannot be changed")
            changed = replace(
                known,
                name=draft.name,
                address=draft.address,
                tin=draft.tin,
                active=draft.active,
                version=known.version + 1,
            )
            registry.update_facility(connection, changed)
            return changed

        return await self._database.write(unit)

    async def delete_facility(self, account_id: str, facility_id: str, version: str | None) -> None:
        """Remove a facility that no patient belongs to."""

        def unit(connection: Connection) -> None:
            lock_account(connection, account_id)
            known = find_facility(connection, account_id, facility_id)
            check_version(known.id, known.version, version)
            if registry.has_patients(connection, facility_id):
                raise BadRequestError("The facility has patients: move or delete them first")
            registry.delete_facility(connection, facility_id)

        await self._database.write(unit)
