"""Where settings come from, and what a wrong one says."""

import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from chartwire.errors import ConfigurationError
from chartwire.settings import FhirNetworkSettings, FolderNetworkSettings, SandboxNetworkSettings, load_settings


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's own environment."""
    for name in [name for name in os.environ if name.startswith("CHARTWIRE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def use_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    path = tmp_path / "chartwire.toml"
    path.write_text(text)
    monkeypatch.setenv("CHARTWIRE_CONFIG", str(path))


def complaint(**overrides: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(**overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_everything_has_a_default(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.database == f"sqlite:///{tmp_path}/data/chartwire.db"
    assert settings.blobs == f"file://{tmp_path}/data/blobs"
    assert settings.master_key_path == Path("data/master.key")
    assert settings.public_base == "http://127.0.0.1:8080"
    assert settings.networks == [SandboxNetworkSettings(kind="sandbox")]


def test_arguments_beat_the_environment_which_beats_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_config(monkeypatch, tmp_path, 'host = "file"\nport = 1\nlog_level = "error"\n')
    monkeypatch.setenv("CHARTWIRE_HOST", "environment")
    monkeypatch.setenv("CHARTWIRE_PORT", "2")
    settings = load_settings(host="argument", port=None)  # None: not given on the command line
    assert (settings.host, settings.port, settings.log_level) == ("argument", 2, "error")


def test_the_file_names_the_networks_and_they_replace_the_sandbox(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_config(
        monkeypatch,
        tmp_path,
        """
        [[networks]]
        name = "mercy"
        kind = "fhir"
        base_url = "https://fhir.mercy.example/r4"
        auth = "smart"
        client_id = "chartwire"
        private_key_file = "mercy.pem"

        [[networks]]
        name = "archive"
        kind = "folder"
        path = "/srv/archive"
        """,
    )
    mercy, archive = load_settings().networks
    assert isinstance(mercy, FhirNetworkSettings)
    assert (mercy.name, mercy.auth, mercy.private_key_file) == ("mercy", "smart", Path("mercy.pem"))
    assert archive == FolderNetworkSettings(kind="folder", name="archive", path=Path("/srv/archive"))


def test_allowed_networks_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHARTWIRE_WEBHOOK_ALLOWED_NETWORKS", "10.0.0.0/8, fd00::/8,")
    assert load_settings().webhook_allowed_networks == [IPv4Network("10.0.0.0/8"), IPv6Network("fd00::/8")]


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "MASTER_KEY_FILE", "NETWORKS", "DATABASE_URL"):
        monkeypatch.setenv(f"CHARTWIRE_{name}", "")
    settings = load_settings()
    assert (settings.port, settings.master_key_file, len(settings.networks)) == (8080, None, 1)


def test_the_public_url_has_no_slash_at_its_end() -> None:
    assert load_settings(public_url="https://records.example/api/").public_base == "https://records.example/api"


def test_the_blob_url_takes_any_folder_name(tmp_path: Path) -> None:
    folder = tmp_path / "100% mine?"
    assert unquote(urlsplit(load_settings(data_dir=folder).blobs).path) == str(folder / "blobs")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"port": 70_000}, "wrong setting: port: Input should be less than or equal to 65535"),
        ({"log_level": "loud"}, "log_level: Input should be 'debug', 'info', 'warning' or 'error'"),
        ({"public_url": "records.example"}, "public_url: must begin with http:// or https://"),
        ({"webhook_retry_seconds": []}, "webhook_retry_seconds: List should have at least 1 item"),
        ({"webhook_retry_seconds": [0, -1]}, "webhook_retry_seconds.1: Input should be greater than or equal to 0"),
        ({"document_retry_seconds": float("inf")}, "document_retry_seconds: Input should be a finite number"),
        ({"nats_url": "http://broker"}, "nats_url: must be nats://<host>:<port> or tls://<host>:<port>"),
        ({"nats_url": "nats://one, nats://two"}, "nats_url: must be nats://<host>:<port>"),
        ({"webhook_workers_only": True}, "webhook_workers_only: needs nats_url"),
        ({"role": "deliver", "nats_url": "nats://broker"}, "transport_key_file: is needed by a worker"),
        (
            {"history_retention_days": 29},
            "history_retention_days: must not be less than payload_retention_days, which is 30",
        ),
        (
            {"history_retention_days": 3, "payload_retention_days": 1},
            "history_retention_days: must not be less than the days of webhook_retry_seconds, which is 3.78",
        ),
        ({"history_retention_days": 0}, "history_retention_days: Input should be greater than 0"),
        (
            {"history_retention_days": 1_000_000},
            "history_retention_days: Input should be less than or equal to 36500",
        ),
        (
            {"payload_retention_days": 1_000_000},
            "payload_retention_days: Input should be less than or equal to 36500",
        ),
        ({"unheard_of": 1}, "wrong setting: unheard_of: there is no such setting"),
        ({"port": -1, "log_level": "loud"}, "port: Input should be greater than or equal to 0; log_level:"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(overrides: dict[str, object], expected: str) -> None:
    assert expected in complaint(**overrides)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("port = ", "chartwire.toml: Invalid value"),
        ("unheard_of = 1", "wrong setting: unheard_of: there is no such setting"),
        ('[[networks]]\nname = "x"\nkind = "fax"', "networks.0: Input tag 'fax' found using 'kind'"),
        ('[[networks]]\nname = "Mercy!"\nkind = "sandbox"', "networks.0.name: must be of lower-case letters"),
        ('[[networks]]\nname = "x"\nkind = "fhir"', "networks.0.base_url: is needed"),
        (
            '[[networks]]\nname = "x"\nkind = "fhir"\nbase_url = "https://x.example"\nauth = "bearer"',
            'networks.0: auth = "bearer" needs bearer_token_file',
        ),
        (
            '[[networks]]\nname = "x"\nkind = "fhir"\nbase_url = "https://x.example"\nauth = "smart"',
            'networks.0: auth = "smart" needs client_id and private_key_file',
        ),
        ('[[networks]]\nkind = "sandbox"\n[[networks]]\nkind = "sandbox"', "two networks have the same name"),
    ],
)
def test_a_wrong_file_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, expected: str
) -> None:
    use_config(monkeypatch, tmp_path, text)
    assert expected in complaint()


def test_an_absent_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CHARTWIRE_CONFIG", str(tmp_path / "absent.toml"))
    assert complaint() == f"CHARTWIRE_CONFIG: there is no file {tmp_path}/absent.toml"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("NETWORKS", "[{", "wrong setting: CHARTWIRE_NETWORKS is not JSON"),
        ("PORT", "tcp://10.0.0.1:8080", "port: Input should be a valid integer"),
        (
            "WEBHOOK_ALLOWED_NETWORKS",
            "10.0.0.0/8,here",
            "wrong setting: webhook_allowed_networks.1: must be a range of addresses such as 10.20.0.0/16",
        ),
        ("NETWORK_ALLOWED_NETWORKS", "10.0.0.1/8", "network_allowed_networks.0: must be a range"),
        (
            "WEBHOOK_PROXY_URL",
            "proxy:3128",
            "webhook_proxy_url: must be http://<host>:<port> or socks5://<host>:<port>",
        ),
    ],
)
def test_a_wrong_variable_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(f"CHARTWIRE_{name}", value)
    message = complaint()
    assert message.endswith(expected) if expected.startswith("wrong setting") else expected in message


def test_a_wrong_value_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a secret that was put in the wrong place."""
    monkeypatch.setenv("CHARTWIRE_PORT", "hunter2")
    monkeypatch.setenv("CHARTWIRE_PUBLIC_URL", "hunter2")
    monkeypatch.setenv("CHARTWIRE_NATS_URL", "http://clinic:hunter2@broker")
    monkeypatch.setenv("CHARTWIRE_WEBHOOK_ALLOWED_NETWORKS", "hunter2")
    assert "hunter2" not in complaint()
