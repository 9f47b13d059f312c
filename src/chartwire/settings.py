"""Every setting, typed, with its default and unit.

Sources, strongest first: arguments of the command line, environment variables `CHARTWIRE_<NAME>`, the TOML file
that `CHARTWIRE_CONFIG` names, the defaults below. A wrong setting stops the start with one line.
"""

import os
import re
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError
from pydantic_settings.sources import TomlConfigSettingsSource

from chartwire.errors import ConfigurationError

IPNetwork = IPv4Network | IPv6Network


def _network(value: object) -> object:
    try:
        return ip_network(value) if isinstance(value, str) else value
    except ValueError:
        # Python's own message repeats the value, which may be a secret in the wrong place.
        raise ValueError("must be a range of addresses such as 10.20.0.0/16") from None


Networks = Annotated[list[Annotated[IPNetwork, BeforeValidator(_network)]], NoDecode]
NAME = r"^[a-z0-9][a-z0-9-]{0,39}$"
URL = r"^https?://[^\s?#]+$"
URL_OR_NOTHING = r"^(https?://[^\s?#]+)?$"
PROXY_OR_NOTHING = r"^((http|socks5)://[^\s?#/]+)?$"
BROKER_OR_NOTHING = r"^((nats|tls)://[^\s?#/,]+(,(nats|tls)://[^\s?#/,]+)*)?$"
RetrySeconds = Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SandboxNetworkSettings(_Strict):
    """Five invented patients with seven documents each, made by Chartwire itself."""

    kind: Literal["sandbox"]
    name: str = Field(default="sandbox", pattern=NAME)
    """Its name in logs and metrics: lower-case letters, digits and dashes."""
    spread_seconds: float = Field(default=3.0, ge=0, le=600)
    """Documents of one patient arrive spread over this many seconds; 0 gives all at once."""


class FolderNetworkSettings(_Strict):
    """A directory tree of files, one folder per patient."""

    kind: Literal["folder"]
    name: str = Field(pattern=NAME)
    """Its name in logs and metrics: lower-case letters, digits and dashes."""
    check_patient: bool = False
    """Whether a C-CDA that says that it is about somebody else is held for review (quarantine) instead of delivered.
    Without it, what the network says of whom its documents are about is enough."""
    path: Path
    """The directory that holds the patients' folders."""


class FhirNetworkSettings(_Strict):
    """A FHIR R4 server that serves documents (MHD ITI-67/68, US Core)."""

    kind: Literal["fhir"]
    name: str = Field(pattern=NAME)
    """Its name in logs and metrics: lower-case letters, digits and dashes."""
    check_patient: bool = False
    """Whether a C-CDA that says that it is about somebody else is held for review (quarantine) instead of delivered.
    Without it, what the network says of whom its documents are about is enough."""
    base_url: str = Field(pattern=URL)
    """The address under which `<base_url>/metadata` answers."""
    auth: Literal["none", "bearer", "smart"] = "none"
    """How Chartwire shows who it is: not at all, by a fixed token, or by SMART Backend Services."""
    bearer_token_file: Path | None = None
    """With `auth = "bearer"`: a file that holds the token."""
    client_id: str | None = None
    """With `auth = "smart"`: the client id that the server's operator gave (SMART Backend Services)."""
    private_key_file: Path | None = None
    """With `auth = "smart"`: a PEM file with the RSA (RS384) or P-384 EC (ES384) private key."""
    key_id: str | None = None
    """With `auth = "smart"`: the `kid` under which the server knows the key."""
    scope: str = "system/Patient.rs system/DocumentReference.rs system/Binary.rs"
    """With `auth = "smart"`: what is asked for."""
    token_url: str | None = None
    """With `auth = "smart"`: the token endpoint, when the server has no `.well-known/smart-configuration` or
    names one on another origin there."""
    match: Literal["auto", "operation", "search"] = "auto"
    """How the patient is found: `$match`, demographics search, or the first with the second as fallback."""
    match_minimum_score: float = Field(default=0.95, ge=0, le=1)
    """A `$match` candidate without a grade is certain from this score on."""
    allowed_origins: list[str] = []
    """Other origins (`https://files.example.org`) that are handed the same credentials."""
    list_deadline_seconds: float = Field(default=60, gt=0, le=600)
    """The deadline of finding the patient, and of listing the documents."""
    retrieve_deadline_seconds: float = Field(default=120, gt=0, le=3600)
    """The deadline of fetching one document."""
    concurrency: int = Field(default=8, ge=1, le=64)
    """Requests in flight at one time."""
    page_size: int = Field(default=100, ge=1, le=1000)
    """Entries that are asked for per page of a search."""
    max_pages: int = Field(default=200, ge=1, le=10_000)
    """Pages of one search that are read at most."""

    @model_validator(mode="after")
    def _credentials_belong_to_auth(self) -> "FhirNetworkSettings":
        if self.auth == "bearer" and self.bearer_token_file is None:
            raise ValueError('auth = "bearer" needs bearer_token_file')
        if self.auth == "smart" and (self.client_id is None or self.private_key_file is None):
            raise ValueError('auth = "smart" needs client_id and private_key_file')
        return self


NetworkSettings = Annotated[
    SandboxNetworkSettings | FolderNetworkSettings | FhirNetworkSettings, Field(discriminator="kind")
]


class Role(StrEnum):
    """What a process does of what an installation does."""

    ALL = "all"
    API = "api"
    INGEST = "ingest"
    DELIVER = "deliver"

    def does(self, other: "Role") -> bool:
        """Whether a process of this role does what one of `other` does."""
        return self in {Role.ALL, other}


class Settings(BaseSettings):
    """The settings of one installation."""

    model_config = SettingsConfigDict(
        env_prefix="CHARTWIRE_", env_ignore_empty=True, extra="forbid", frozen=True, allow_inf_nan=False
    )

    host: str = "127.0.0.1"
    """The address to listen on; `0.0.0.0` is every IPv4 address of the machine."""
    port: int = Field(default=8080, ge=0, le=65535)
    """The port to listen on; 0 takes a free one."""
    role: Role = Role.ALL
    """What this process does: answer the API, ask networks and keep documents (`ingest`), post webhooks (`deliver`), or
    all of it. On SQLite one process does it all."""
    public_url: str = Field(default="", pattern=URL_OR_NOTHING)
    """The address that customers use; links in messages and lists begin with it. Empty: `http://<host>:<port>`."""
    data_dir: Path = Path("data")
    """The folder of everything that is kept, unless the next three say otherwise."""
    database_url: str = ""
    """`postgresql://<user>:<password>@<host>/<database>` for more than one process; empty:
    `sqlite:///<data_dir>/chartwire.db`."""
    database_connections: int = Field(default=10, ge=2, le=200)
    """PostgreSQL: connections that each process opens at most, and one more to hear of the others' work."""
    database_pooler: bool = False
    """PostgreSQL: the URL is that of a pooler that hands connections on after each transaction (PgBouncer)."""
    blob_url: str = ""
    """`file:///<folder>`, or `s3://<bucket>/<prefix>?endpoint=<url>&region=<name>` for a bucket of any S3-compatible
    store, with credentials as AWS's own tools find them; empty: `file://<data_dir>/blobs`."""
    master_key_file: Path | None = None
    """32 random bytes in Base64, mode 0600. Empty: `<data_dir>/master.key`, made at the first start. While the key is
    being changed it holds two, on a line each: the new one, then the old one. So do the next two settings."""
    master_key: SecretStr = SecretStr("")
    """The same, in place of a file: for platforms that hand out secrets in the environment."""
    master_key_command: str = ""
    """The same, in place of a file: a command that prints it, such as one that asks a key store. It runs without a
    shell, at the start of a process and when a key turns up that the process does not have."""
    master_key_command_seconds: float = Field(default=30, gt=0, le=600)
    """How long that command may take."""
    nats_url: str = Field(default="", pattern=BROKER_OR_NOTHING)
    """NATS with JetStream, `nats://` or `tls://`, with `user:password@` or `token@` if it asks for one; several servers
    of one cluster with commas between. Empty: processes find each other's work in the database alone."""
    nats_credentials_file: Path | None = None
    """A `.creds` file with the JWT and the seed that the broker's operator gave."""
    transport_key_file: Path | None = None
    """For a worker, which has a broker and no database: what `chartwire transport-key` printed, mode 0600. Set for the
    other processes too, it takes the place of the key that they derive."""
    nats_replicas: int = Field(default=1, ge=1, le=5)
    """How many servers of the broker keep each ticket: 1, or 3 or 5 of a cluster."""
    log_format: Literal["auto", "console", "json"] = "auto"
    """`auto`: console on a terminal, JSON lines otherwise."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important records that are logged."""

    networks: list[NetworkSettings] = [SandboxNetworkSettings(kind="sandbox")]
    """The health networks that are asked; in TOML one `[[networks]]` table each, in the environment a JSON list."""
    network_allowed_networks: Networks = []
    """CIDRs of non-public addresses where health networks' servers may be; cloud metadata stays refused.
    The hosts of configured `base_url`s are always allowed: the operator named them."""
    max_document_bytes: int = Field(default=250 * 1024 * 1024, ge=1)
    """A larger document counts as an error of its query."""
    document_attempts: int = Field(default=5, ge=1, le=20)
    """How often one document, or one network's list, is asked for before it counts as an error."""
    document_retry_seconds: float = Field(default=3.0, ge=0)
    """Wait after the first temporary failure; doubles with each further one, up to five minutes."""

    webhook_allowed_networks: Networks = []
    """CIDRs of non-public addresses where receivers may be, http allowed there; cloud metadata stays refused."""
    webhook_proxy_url: str = Field(default="", pattern=PROXY_OR_NOTHING)
    """The proxy that receivers are reached through, `http://` (CONNECT) or `socks5://`, with `user:password@` if it
    asks for one. Names are resolved and addresses vetted before: the proxy is handed addresses alone."""
    webhook_workers_only: bool = False
    """Post through workers that reach the broker alone, and nothing from here: while none listens, deliveries wait."""
    webhook_timeout_seconds: float = Field(default=15, ge=1, le=30)
    """The deadline of an attempt: DNS, connect, TLS, sending and the whole answer. An endpoint may have its own."""
    webhook_ping_timeout_seconds: float = Field(default=2, gt=0, le=30)
    """The deadline of a ping."""
    webhook_concurrency: int = Field(default=512, ge=1)
    """Attempts in flight at one time in this process. Each holds its message twice, and up to three open files."""
    webhook_endpoint_concurrency: int = Field(default=16, ge=1)
    """Attempts in flight at one time per endpoint."""
    webhook_retry_seconds: RetrySeconds = [0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]
    """Wait before each attempt, counted from the one before: 10 attempts over 75 hours."""
    webhook_retry_jitter: float = Field(default=0.2, ge=0, le=0.5)
    """Each wait is longer or shorter by up to this part of it, so that receivers are not hit by waves."""
    webhook_key_overlap_hours: float = Field(default=24, ge=0)
    """After a rotation the old key signs too, for this long."""
    coalesce_milliseconds: int = Field(default=250, ge=0, le=250)
    """How long a stored document may wait for others to share its message."""
    coalesce_documents: int = Field(default=100, ge=1, le=100)
    """So many waiting documents go out at once."""
    coalesce_bytes: int = Field(default=512 * 1024, ge=1024)
    """So many bytes of waiting message go out at once."""
    payload_retention_days: float = Field(default=30, gt=0, le=36_500)
    """How long the bytes of a message are kept; the history of its attempts stays."""
    history_retention_days: float | None = Field(default=None, gt=0, le=36_500)
    """How long messages, deliveries and attempts are listed, at least as long as payloads are kept and retries go on;
    the audit trail stays. Empty: for ever."""

    download_url_seconds: int = Field(default=180, ge=1)
    """How long a signed link of one document works."""
    bulk_download_url_seconds: int = Field(default=600, ge=1)
    """How long the signed links of a bulk download work."""
    access_token_seconds: int = Field(default=3600, ge=60, le=86_400)
    """How long a token of `/oauth/token` works."""
    max_request_bytes: int = Field(default=20_000_000, ge=1024)
    """The largest request body that is taken."""
    patient_writes_per_minute: int = Field(default=15, ge=0)
    """Creates and updates of patients per account; 0 sets no limit."""
    document_queries_per_minute: int = Field(default=20, ge=0)
    """Starts of document queries per account; 0 sets no limit."""
    requests_per_second: int = Field(default=50, ge=0)
    """Requests of any kind per account; 0 sets no limit."""

    console_idle_minutes: float = Field(default=30, gt=0, le=1440)
    """A session of the console ends after so long without a request."""
    console_session_hours: float = Field(default=12, gt=0, le=720)
    """A session of the console ends after so long, however much it is used."""

    oidc_issuer: str = Field(default="", pattern=URL_OR_NOTHING)
    """The OpenID provider by which members may sign in: `<oidc_issuer>/.well-known/openid-configuration` must answer.
    The redirect URI to register there is `<public_url>/console/sso/callback`."""
    oidc_client_id: str = ""
    """The client id under which the provider knows this installation."""
    oidc_client_secret_file: Path | None = None
    """A file with the client's secret; none for a public client (PKCE is always used)."""
    oidc_scopes: str = "openid email"
    """What is asked for; must hold `openid`."""
    oidc_label: str = "Single sign-on"
    """What the button on the sign-in page says."""
    oidc_trust_emails: bool = False
    """Whether an address counts that the provider does not call verified (`email_verified`)."""
    oidc_role_claim: str = "groups"
    """The claim that tells a person's roles or groups."""
    oidc_roles: dict[str, Literal["owner", "developer", "viewer", "auditor"]] = {}
    """Which value of that claim makes which role. Empty: only whom an owner has let in by e-mail address may sign in.
    Else the provider decides: it lets people in, the strongest role holds, and it is taken over at each sign-in."""
    oidc_account: str = ""
    """With `oidc_roles`: the id of the account that people are let in to."""

    @field_validator("network_allowed_networks", "webhook_allowed_networks", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("public_url")
    @classmethod
    def _no_trailing_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @model_validator(mode="after")
    def _network_names_differ(self) -> "Settings":
        names = [network.name for network in self.networks]
        if len(set(names)) < len(names):
            raise ValueError("networks: two networks have the same name")
        return self

    @model_validator(mode="after")
    def _history_outlasts_what_is_sent(self) -> "Settings":
        if self.history_retention_days is None:
            return self
        retries = sum(self.webhook_retry_seconds) * (1 + self.webhook_retry_jitter) / 86_400
        least = {"payload_retention_days": self.payload_retention_days, "the days of webhook_retry_seconds": retries}
        for name, days in least.items():
            if self.history_retention_days < days:
                raise ValueError(
                    f"history_retention_days: must not be less than {name}, which is {ceil(100 * days) / 100:g}"
                )
        return self

    @model_validator(mode="after")
    def _single_sign_on_is_whole(self) -> "Settings":
        if self.oidc_issuer and not self.oidc_client_id:
            raise ValueError("oidc_client_id: the provider must know us by one")
        if self.oidc_roles and not self.oidc_account:
            raise ValueError("oidc_account: with oidc_roles, an account to let people in to")
        if "openid" not in self.oidc_scopes.split():
            raise ValueError("oidc_scopes: must hold openid")
        return self

    @model_validator(mode="after")
    def _workers_are_reached_by_a_broker(self) -> "Settings":
        if self.webhook_workers_only and not self.nats_url:
            raise ValueError("webhook_workers_only: needs nats_url")
        if self.is_worker and self.transport_key_file is None:
            raise ValueError("transport_key_file: is needed by a worker, which has nats_url but no database_url")
        return self

    @property
    def is_worker(self) -> bool:
        """Whether this process posts what others hand it, and reaches neither database nor documents."""
        return self.role is Role.DELIVER and bool(self.nats_url) and not self.database_url

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'chartwire.db').absolute()}"

    @property
    def blobs(self) -> str:
        """The URL of the place where document bytes are kept."""
        return self.blob_url or (self.data_dir / "blobs").absolute().as_uri()

    @property
    def spool(self) -> Path:
        """Where documents wait, sealed, until they are in a bucket."""
        return self.data_dir / "incoming"

    @property
    def master_key_path(self) -> Path:
        """The file of the master key."""
        return self.master_key_file or self.data_dir / "master.key"

    @property
    def public_base(self) -> str:
        """`public_url`, or the address that is listened on; no trailing slash."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.public_url or f"http://{host}:{self.port}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the TOML file."""
        del dotenv_settings, file_secret_settings
        config = os.environ.get("CHARTWIRE_CONFIG")
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        return (*sources, TomlConfigSettingsSource(settings_cls, config)) if config else sources


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process; `overrides` come from the command line, None meaning "not given".

    Raises `ConfigurationError` with one line that names each wrong setting.
    """
    config = os.environ.get("CHARTWIRE_CONFIG")
    if config and not Path(config).is_file():
        raise ConfigurationError(f"CHARTWIRE_CONFIG: there is no file {config}")
    _refuse_unknown_variables()
    try:
        return Settings(**{key: value for key, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise ConfigurationError(_one_line(error)) from None
    except OSError as error:
        raise ConfigurationError(f"CHARTWIRE_CONFIG: {config}: {error.strerror}") from None
    except SettingsError as error:
        name = re.search(r'field "(\w+)"', str(error))
        raise ConfigurationError(f"wrong setting: CHARTWIRE_{name[1].upper() if name else ''} is not JSON") from None
    except ValueError as error:  # a TOML file that does not parse
        raise ConfigurationError(f"{config or 'environment'}: {error}") from None


_OF_COMMANDS = ("config", "url", "api_key")
"""Variables that commands read themselves."""


def _refuse_unknown_variables() -> None:
    """A misspelt variable would otherwise be a setting that silently has its default."""
    known = {f"CHARTWIRE_{name.upper()}" for name in (*Settings.model_fields, *_OF_COMMANDS)}
    unknown = sorted(name for name in os.environ if name.startswith("CHARTWIRE_") and name not in known)
    if unknown:
        raise ConfigurationError(f"wrong setting: there is no {', '.join(unknown)}")


_IN_WORDS = {
    NAME: "must be of lower-case letters, digits and dashes, 40 at most",
    URL: "must begin with http:// or https:// and have no ? or #",
    URL_OR_NOTHING: "must begin with http:// or https:// and have no ? or #",
    BROKER_OR_NOTHING: "must be nats://<host>:<port> or tls://<host>:<port>, several with commas between",
    PROXY_OR_NOTHING: "must be http://<host>:<port> or socks5://<host>:<port>",
}


def _one_line(error: ValidationError) -> str:
    parts = [f"{_place(issue['loc'])}: {_in_words(issue)}" for issue in error.errors(include_url=False)]
    return "wrong setting: " + "; ".join(parts)


def _place(steps: tuple[int | str, ...]) -> str:
    """Where the mistake is, as an operator wrote it: the kind of a network is not a step on the way there."""
    if steps[:1] == ("networks",) and len(steps) > 2:
        steps = (*steps[:2], *steps[3:])
    return ".".join(map(str, steps)) or "settings"


def _in_words(issue: ErrorDetails) -> str:
    """What is wrong, never with the value."""
    match issue["type"]:
        case "extra_forbidden":
            return "there is no such setting"
        case "missing":
            return "is needed"
        case "string_pattern_mismatch":
            return _IN_WORDS[issue["ctx"]["pattern"]]
        case _:
            return issue["msg"].removeprefix("Value error, ")
