"""A FHIR server as a health network."""

import ssl
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from chartwire import __version__
from chartwire.clock import Clock
from chartwire.errors import ConfigurationError, IssueCode, PermanentNetworkError
from chartwire.model.document import RemoteDocument
from chartwire.model.registry import Demographics
from chartwire.networks.fhir.auth import BearerFile, Credentials, NoCredentials
from chartwire.networks.fhir.client import FhirClient
from chartwire.networks.fhir.failures import RefusedError
from chartwire.networks.fhir.listing import list_documents
from chartwire.networks.fhir.patients import find
from chartwire.networks.fhir.retrieval import open_document
from chartwire.networks.fhir.smart import SmartCredentials, load_signing_key
from chartwire.networks.network import Discovery, Limits, Listing, PatientLink, Retrieval
from chartwire.outbound import authority, vetted_session
from chartwire.settings import FhirNetworkSettings, IPNetwork

_CHECK_SECONDS = 15.0
_NOBODY = "urn:ietf:rfc:3986|urn:uuid:00000000-0000-0000-0000-000000000000"


class FhirNetwork:
    """Finds patients, lists and fetches their documents on one FHIR server.

    Raises `ConfigurationError` when it is built from settings that cannot work.
    """

    def __init__(
        self,
        settings: FhirNetworkSettings,
        allowed_networks: Sequence[IPNetwork],
        clock: Clock,
        *,
        ssl_context: ssl.SSLContext | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """`ssl_context` and `resolver` take the place of the system's, as for `vetted_session`."""
        self._settings = settings
        self._allowed_networks = tuple(allowed_networks)
        self._clock = clock
        self._ssl_context = ssl_context
        self._resolver = resolver
        self._opened: aiohttp.ClientSession | None = None
        self._base = _url(settings.base_url.rstrip("/"), "base_url")
        self._trusted = frozenset(_url(each, "allowed_origins").origin() for each in settings.allowed_origins)
        self._token_url = _url(settings.token_url, "token_url") if settings.token_url else None
        self._client = FhirClient(self._base, self._trusted, self._credentials(), self._session, clock)

    @property
    def name(self) -> str:
        """The name that the operator gave it."""
        return self._settings.name

    @property
    def limits(self) -> Limits:
        """Deadlines and concurrency, as set."""
        settings = self._settings
        return Limits(settings.list_deadline_seconds, settings.retrieve_deadline_seconds, settings.concurrency)

    async def discover(self, demographics: Demographics) -> Discovery:
        """Find the patient by `$match` or a demographics search."""
        settings = self._settings
        return await find(
            self._client, demographics, settings.match, settings.match_minimum_score, settings.list_deadline_seconds
        )

    async def query(self, link: PatientLink) -> Listing:
        """List the documents of a confirmed link."""
        settings = self._settings
        return await list_documents(
            self._client,
            link.remote_id,
            page_size=settings.page_size,
            max_pages=settings.max_pages,
            seconds=settings.list_deadline_seconds,
        )

    def retrieve(self, document: RemoteDocument) -> AbstractAsyncContextManager[Retrieval]:
        """Open the bytes of one listed document."""
        return open_document(self._client, document, self._settings.retrieve_deadline_seconds)

    async def check(self) -> None:
        """Read the CapabilityStatement, then search for a patient that nobody is, which needs our credentials."""
        statement = await self._client.get_json("metadata", _CHECK_SECONDS)
        if statement.get("resourceType") != "CapabilityStatement":
            raise PermanentNetworkError(IssueCode.INVALID_ANSWER, "base_url is not the base of a FHIR server")
        if not str(statement.get("fhirVersion")).startswith("4.0"):
            raise PermanentNetworkError(IssueCode.INVALID_ANSWER, "the server does not speak FHIR R4 (4.0)")
        try:
            await self._client.post_form("Patient/_search", {"identifier": _NOBODY}, _CHECK_SECONDS)
        except RefusedError as refused:
            if refused.code in {IssueCode.UNAUTHORIZED, IssueCode.FORBIDDEN}:
                raise
            # Any other refusal is of the search, not of us.

    async def close(self) -> None:
        """Give back connections."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            named = {self._base, self._token_url or self._base, *self._trusted}
            self._opened = vetted_session(
                self._allowed_networks,
                always_allowed_hosts=frozenset(map(authority, named)),
                limit=self._settings.concurrency,
                limit_per_host=self._settings.concurrency,
                user_agent=f"Chartwire/{__version__}",
                ssl_context=self._ssl_context,
                resolver=self._resolver,
            )
        return self._opened

    def _credentials(self) -> Credentials:
        settings = self._settings
        if settings.auth == "bearer" and settings.bearer_token_file is not None:
            return BearerFile(settings.bearer_token_file)
        if settings.auth == "smart" and settings.client_id is not None and settings.private_key_file is not None:
            return SmartCredentials(
                FhirClient(self._base, self._trusted, NoCredentials(), self._session, self._clock),
                self._session,
                settings.client_id,
                load_signing_key(settings.private_key_file, settings.key_id),
                settings.scope,
                self._token_url,
                self._clock,
            )
        return NoCredentials()


def _url(text: str, setting: str) -> URL:
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or url.host is None or url.user is not None:
        raise ConfigurationError(f"{setting}: not a URL that can be used")
    return url
