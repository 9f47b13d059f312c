"""What is in `deploy/` fits the program, and whoever breaks it is told."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scripts.deployment.rules import (
    CHECKS,
    check_compose,
    check_dockerfile,
    check_guide,
    check_monitoring,
    check_names,
    check_units,
)
from scripts.deployment.tools import TOOLS, Tool

from chartwire.settings import load_settings
from chartwire.store.master_key import read_key, read_key_file

ROOT = Path(__file__).parents[2]
Check = Callable[[Path], Iterator[str]]

GUIDE = "docs/how-to/operate.md"
DOCKERFILE = "deploy/Dockerfile"
COMPOSE = "deploy/compose.yaml"
UNIT = "deploy/systemd/chartwire@.service"
DROP_IN = "deploy/systemd/chartwire@deliver.service.d/worker.conf"
ALERTS = "deploy/monitoring/alerts.yaml"
DASHBOARD = "deploy/monitoring/grafana-dashboard.json"
CHART = "deploy/helm/chartwire"
VALUES = f"{CHART}/values.yaml"
SCHEMA = f"{CHART}/values.schema.json"
ROLES = f"{CHART}/templates/roles.yaml"
POLICY = f"{CHART}/templates/networkpolicy.yaml"
HELPERS = f"{CHART}/templates/_helpers.tpl"
LIVE = "livenessProbe:\n            httpGet: {path: "


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project as far as the checks look at it, to be broken."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy", ignore=shutil.ignore_patterns("secrets"))
    (tmp_path / "src").mkdir()
    for name in (GUIDE, ".dockerignore", "pyproject.toml", "README.md", "LICENSE", "requirements.lock"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def replace(root: Path, name: str, old: str, new: str) -> None:
    text = (root / name).read_text()
    assert old in text, f"{name} has no {old!r} to break"
    (root / name).write_text(text.replace(old, new))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_our_rules_find_nothing(check: Check) -> None:
    assert list(check(ROOT)) == []


@pytest.mark.parametrize(
    ("check", "name", "old", "new", "said"),
    [
        (check_names, UNIT, "CHARTWIRE_DATA_DIR", "CHARTWIRE_DATA_FOLDER", "no setting CHARTWIRE_DATA_FOLDER"),
        (check_names, GUIDE, "CHARTWIRE_PUBLIC_URL", "CHARTWIRE_BASE_URL", "no setting CHARTWIRE_BASE_URL"),
        (check_names, ALERTS, "chartwire_webhook_late_seconds", "chartwire_late", "no metric chartwire_late"),
        (check_names, f"{CHART}/templates/autoscaling.yaml", "chartwire_network_late", "chartwire_late", "no metric"),
        (check_guide, GUIDE, "$ chartwire key create --account", "$ chartwire key make --account", "no such command"),
        (check_dockerfile, DOCKERFILE, "USER 10001:10001\n", "", "does not run as a numeric user"),
        (check_dockerfile, DOCKERFILE, "USER 10001:10001", "USER chartwire", "does not run as a numeric user"),
        (check_dockerfile, DOCKERFILE, "python:3.13-slim-bookworm\n", "python:latest\n", "no fixed version"),
        (check_dockerfile, DOCKERFILE, "--require-hashes --only-binary :all: -r build.lock", "hatchling", "whose hash"),
        (check_dockerfile, DOCKERFILE, "COPY src src", "COPY sources src", "sources is not in the build context"),
        (check_dockerfile, ".dockerignore", "!requirements.lock\n", "", "requirements.lock is not in the build"),
        (check_dockerfile, DOCKERFILE, "HEALTHCHECK", "# HEALTHCHECK", "no HEALTHCHECK"),
        (check_dockerfile, DOCKERFILE, 'CMD ["serve"]', 'CMD ["run"]', "`chartwire run`: there is no such command"),
        (check_compose, COMPOSE, "--role, deliver", "--role, delivery", "'delivery' is not one of"),
        (check_compose, COMPOSE, "command: [migrate]", "command: [migrate, --all]", "No such option: --all"),
        (check_compose, COMPOSE, 'user: "10001:10001"', "user: chartwire", "api: does not run as a numeric user"),
        (check_compose, COMPOSE, 'user: "10002:10002"', 'user: "0:0"', "nats: does not run as a numeric user"),
        (check_compose, COMPOSE, "  read_only: true\n  tmpfs: [", "  tmpfs: [", "may write to its root file system"),
        (check_compose, COMPOSE, "cap_drop: [ALL]", "cap_drop: []", "keeps rights"),
        (check_compose, COMPOSE, "127.0.0.1:${PUBLISHED_PORT:-8080}:8080", "0.0.0.0:443:8080", "the port 0.0.0.0"),
        (check_compose, COMPOSE, "postgres:18-bookworm", "postgres", "postgres is no fixed version"),
        (check_compose, COMPOSE, "POSTGRES_PASSWORD_FILE: /run/secrets/", "POSTGRES_PASSWORD: ", "is a secret in the"),
        (check_compose, COMPOSE, "secrets: [nats_conf]", "secrets: []", "reads the secret nats_conf"),
        (check_compose, COMPOSE, "nats: {condition", "natz: {condition", "depends on natz"),
        (check_compose, COMPOSE, "limits: {cpus: \"1\", memory: 512M, pids: 128}", "limits: {}", "nats: has no limit"),
        (check_compose, COMPOSE, "file: ./secrets/master.key", "file: ./master.key", "master_key is not a file in"),
        (check_compose, COMPOSE, "networks: [zone, beyond]", "networks: [inside, beyond]", "worker: reaches postgres"),
        (check_compose, COMPOSE, "networks: [zone, beyond]", "networks: [zone, outside]", "worker: reaches api"),
        (check_compose, COMPOSE, "[worker_toml, transport_key]", "[chartwire_toml]", "worker: is given chartwire_toml"),
        (check_compose, COMPOSE, "profiles: [worker]", 'volumes: ["api:/var/lib/x"]', "worker: keeps something"),
        (check_units, UNIT, "serve --role %i", "serve --as %i", "No such option: --as"),
        (check_units, UNIT, "User=chartwire", "User=root", "runs as root"),
        (check_units, UNIT, "ProtectSystem=strict", "ProtectSystem=no", "may write to the system"),
        (check_units, UNIT, "NoNewPrivileges=yes\n", "", "NoNewPrivileges is not set"),
        (check_units, DROP_IN, " 169.254.0.0/16", "", "worker.conf: a worker is let into 169.254.0.0/16"),
        (check_monitoring, ALERTS, "ChartwireReceiverDown", "ChartwireReceiverGone", "ReceiverGone is not explained"),
        (check_monitoring, GUIDE, "| `ChartwireReceiverDown` |", "| `ChartwireGone` |", "there is no alarm"),
        (check_monitoring, ALERTS, "severity: critical", "severity: bad", "does not say how bad"),
        (check_monitoring, "deploy/monitoring/alerts_test.yaml", "ChartwireTicketsLate", "Other", "never seen to ring"),
        (check_monitoring, DASHBOARD, '"expr": "sum(up', '"expr": "", "was": "sum(up', "Processes asks nothing"),
    ],
)  # fmt: skip
def test_our_rules_find_what_is_broken(copy: Path, check: Check, name: str, old: str, new: str, said: str) -> None:
    replace(copy, name, old, new)
    assert [complaint for complaint in check(copy) if said in complaint], list(check(copy))


def is_there(tool: Tool) -> Tool:
    if not tool.is_there:
        pytest.skip(f"no {tool.name}: {tool.remedy}")
    return tool


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_the_tools_of_others_find_nothing(tool: Tool) -> None:
    assert list(is_there(tool).check(ROOT)) == []


@pytest.mark.parametrize(
    ("tool", "name", "old", "new", "said"),
    [
        ("hadolint", DOCKERFILE, "WORKDIR /build", "WORKDIR build", "DL3000"),
        ("shellcheck", "deploy/entrypoint.sh", 'exec chartwire "$@"', "exec chartwire $@", "SC2068"),
        ("compose_spec", COMPOSE, "cap_drop:", "cap_drp:", "cap_drp"),
        ("compose_spec", COMPOSE, "service_healthy", "service_happy", "service_happy"),
        ("helm_python", ROLES, "{{- end }}\n{{- end }}\n", "{{- end }}\n", "cannot be rendered"),
        ("helm_python", ROLES, "maxUnavailable: 0", "maxUnavailble: 0", "maxUnavailble"),
        ("helm_python", ROLES, "args: [serve,", "args: [server,", "there is no such command"),
        ("helm_python", ROLES, "readinessProbe:", "lifecycle:", "has no readinessProbe"),
        ("helm_python", ROLES, f"{LIVE}/healthz", f"{LIVE}/readyz", "is restarted when its database is away"),
        ("helm_python", HELPERS, "runAsNonRoot: true", "runAsNonRoot: false", "may run as root"),
        ("helm_python", HELPERS, "readOnlyRootFilesystem: true", "privileged: true", "may write to"),
        ("helm_python", f"{CHART}/templates/access.yaml", "component: api", "component: web", "selects no pod"),
        ("helm_python", SCHEMA, '"minimum": 45', '"minimum": 1', "too little time to stop"),
        ("helm_python", GUIDE, "tlsSecret: chartwire-tls", "secret: chartwire-tls", "cannot be rendered"),
        ("helm_python", GUIDE, "existingSecret: chartwire-workers", "secret: chartwire-workers", "cannot be rendered"),
        ("helm_python", HELPERS, "CHARTWIRE_TRANSPORT_KEY_FILE,", "CHARTWIRE_MASTER_KEY_FILE,", "worker is told"),
        ("helm_python", HELPERS, "key: nats_url}", "key: database_url}", "a worker is given database_url"),
        ("helm_python", HELPERS, "{key: transport.key", "{key: master.key", "is not given transport.key"),
        ("helm_python", HELPERS, "items: [", "optional: false #", "a worker is given all that is in the Secret"),
        ("helm_python", f"{CHART}/templates/migrate.yaml", 'ne .Values.mode "workers"', "true", "cannot be rendered"),
        ("helm_python", f"{CHART}/templates/access.yaml", 'ne .Values.mode "workers"', "true", "cannot be rendered"),
        ("helm_python", POLICY, '"worker" $policy.receivers', '"worker" $policy.healthNetworks', "reaches database"),
        ("helm_python", POLICY, "port: {{ $policy.nats.port }}", "port: 5432", "a worker does not reach NATS"),
        ("helm_python", POLICY, "{{- if $isInside }}", "{{- if true }}", "a worker reaches database on 5432"),
        ("helm_python", VALUES, ", 169.254.0.0/16, 172", ", 172", "a worker reaches metadata on 443"),
        ("helm_python", SCHEMA, '"const": "workers"', '"const": "zone"', "lets pass workers with a database"),
        ("promql_parser", DASHBOARD, "by (outcome)", "by (result)", "nothing has the label result"),
        ("promql_parser", ALERTS, "sum(rate(", "sum(rte(", "rte"),
        ("promql_parser", ALERTS, 'age="over_1d"', 'old="over_1d"', "has no label old"),
        ("promtool", ALERTS, "> 60", "> 6000", "ChartwireDeliveriesLate"),
        ("systemd-analyze", UNIT, "Type=exec", "Type=exce", "exce"),
        ("systemd-analyze", DROP_IN, "IPAddressDeny", "IPAddresDeny", "IPAddresDeny"),
    ],
)  # fmt: skip
def test_the_tools_of_others_find_what_is_broken(
    copy: Path, tool: str, name: str, old: str, new: str, said: str
) -> None:
    replace(copy, name, old, new)
    found = list(is_there(next(each for each in TOOLS if each.name == tool)).check(copy))
    assert [complaint for complaint in found if said in complaint], found


def test_the_secrets_of_compose_are_settings_and_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "secrets"
    subprocess.run([ROOT / "deploy" / "make-secrets", folder], check=True, capture_output=True)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert len(read_key_file(folder / "master.key")) == 1
    assert read_key(folder / "transport.key", "transport_key_file")
    monkeypatch.setenv("CHARTWIRE_CONFIG", str(folder / "worker.toml"))
    worker = load_settings()
    assert worker.is_worker
    assert made["nats-password-of-worker"].strip() in worker.nats_url
    monkeypatch.setenv("CHARTWIRE_CONFIG", str(folder / "chartwire.toml"))
    settings = load_settings()
    assert settings.transport_key_file == worker.transport_key_file
    assert f":{made['postgres-password'].strip()}@postgres/" in settings.database_url
    assert made["nats-password"].strip() in settings.nats_url
    assert made["nats-password"].strip() in made["nats.conf"]
    assert made["objects-secret-key"].strip() in made["objects-s3.json"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
    subprocess.run([ROOT / "deploy" / "make-secrets", folder], check=True, capture_output=True)  # what is there stays
    assert {path.name: path.read_text() for path in folder.iterdir()} == made


def test_the_broker_takes_the_configuration_of_compose(tmp_path: Path) -> None:
    subprocess.run([ROOT / "deploy" / "make-secrets", tmp_path], check=True, capture_output=True)
    program = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or "nats-server"
    done = subprocess.run([program, "-t", "-c", tmp_path / "nats.conf"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
