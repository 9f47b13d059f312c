"""API keys of an account, for its members; the command line has its own way."""

from sqlalchemy import Connection

from chartwire.clock import Clock
from chartwire.errors import BadRequestError, NotFoundError
from chartwire.model.registry import ApiKey
from chartwire.store import audit, registry
from chartwire.store.database import Database

_LONGEST_LABEL = 200


class ApiKeyService:
    """Lists, makes and revokes keys."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def list(self, account_id: str) -> list[ApiKey]:
        """The keys of an account, revoked ones too, the oldest first."""
        return await self._database.read(lambda connection: registry.list_api_keys(connection, account_id))

    async def create(self, account_id: str, actor: str, label: str) -> str:
        """A new key, which is nowhere to be had again. Raises `BadRequestError` for a label that is too long."""
        if len(label) > _LONGEST_LABEL:
            raise BadRequestError(f"The label may have at most {_LONGEST_LABEL} characters")
        now = self._clock()

        def unit(connection: Connection) -> str:
            key, secret = registry.create_api_key(connection, account_id, label, now)
            audit.record(connection, now, account_id, actor, "key.create", subject=key.id)
            return secret

        return await self._database.write(unit)

    async def revoke(self, account_id: str, actor: str, key_id: str) -> None:
        """Refuse a key from now on. Raises `NotFoundError`."""
        now = self._clock()

        def unit(connection: Connection) -> None:
            if key_id not in {key.id for key in registry.list_api_keys(connection, account_id)}:
                raise NotFoundError("Could not find API key")
            registry.revoke_api_key(connection, key_id, now)
            audit.record(connection, now, account_id, actor, "key.revoke", subject=key_id)

        await self._database.write(unit)
