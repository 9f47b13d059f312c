"""Our own rules: of files, the Dockerfile, compose.yaml, systemd's units and what monitors them."""

import configparser
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from scripts.deployment.program import unknown_metrics, unknown_variables, wrong_command

_NUMERIC_USER = re.compile(r"^[1-9][0-9]*(:[1-9][0-9]*)?$")
_TAGGED = re.compile(r"(:(?!latest$)[^:/]+|@sha256:[0-9a-f]{64})$")
_SECRET_WORDS = ("PASSWORD", "SECRET", "TOKEN", "DATABASE_URL", "NATS_URL", "ACCESS_KEY", "MASTER_KEY")
_FOLDER_KEEPERS = frozenset({"objects-folder"})
"""Services that run as root, once, for nothing but to hand over a new volume."""

_OF_A_WORKER = frozenset({"worker_toml", "transport_key"})
"""The secrets of a worker, which is to have no way to the database and to documents."""

_HARDENED = ("NoNewPrivileges", "PrivateDevices", "PrivateTmp", "ProtectHome")
_ROLES = ("api", "ingest", "deliver", "all")


def check_names(root: Path) -> Iterator[str]:
    """Every setting and metric that is named in `deploy/` and in the guide is one that the program has."""
    files = [path for path in (root / "deploy").rglob("*") if path.is_file() and "secrets" not in path.parts]
    for path in sorted([*files, root / "docs" / "how-to" / "operate.md"]):
        text = path.read_text()
        for complaint in (*unknown_variables(text), *unknown_metrics(text)):
            yield f"{path.relative_to(root)}: {complaint}"


def check_guide(root: Path) -> Iterator[str]:
    """Each command that the guide has typed is one that the program takes."""
    text = (root / "docs" / "how-to" / "operate.md").read_text()
    text = re.sub(r"<[a-z ]+>", "x", text).replace("…", "")  # what the reader fills in
    for line in re.findall(r"^\$ chartwire ([^>|&#\n]*)", text, re.MULTILINE):
        yield from (f"operate.md: {complaint}" for complaint in wrong_command(line))


def check_dockerfile(root: Path) -> Iterator[str]:
    """The image is pinned, installs what the lock says, and runs as a numeric user."""
    steps = _steps((root / "deploy" / "Dockerfile").read_text())
    final = steps[max(number for number, (word, _) in enumerate(steps) if word == "FROM") :]
    words = dict(final)
    if not _NUMERIC_USER.match(words.get("USER", "")):
        yield "Dockerfile: the last stage does not run as a numeric user without rights"
    if "HEALTHCHECK" not in words:
        yield "Dockerfile: there is no HEALTHCHECK"
    for _, image in (step for step in steps if step[0] == "ARG" and "IMAGE" in step[1]):
        if not _TAGGED.search(image):
            yield f"Dockerfile: {image} is no fixed version"
    for word, rest in steps:
        yield from _check_step(root, word, rest)
    yield from (f"Dockerfile: {complaint}" for complaint in wrong_command(json.loads(words.get("CMD", "[]"))))


def _steps(text: str) -> list[tuple[str, str]]:
    """Instructions, each with its arguments, without comments; a continued line is one."""
    lines = (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def _check_step(root: Path, word: str, rest: str) -> Iterator[str]:
    if word == "ADD":
        yield "Dockerfile: ADD fetches and unpacks: COPY does neither"
    if word == "COPY" and "--from=" not in rest:
        sources = [part for part in rest.split()[:-1] if not part.startswith("--")]
        yield from (f"Dockerfile: {each} is not in the build context" for each in sources if not _sent(root, each))
    if word == "RUN":
        for command in re.split(r"&&|;", rest):
            if " install " in command and "pip" in command and not re.search("--require-hashes|--no-index", command):
                yield "Dockerfile: pip installs something whose hash nobody wrote down"


def _sent(root: Path, source: str) -> bool:
    """Whether a file is there, and .dockerignore, which leaves out all else, lets it pass."""
    kept = [line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    return (root / source).exists() and source in kept


def check_compose(root: Path) -> Iterator[str]:
    """Each service is bounded, watched and without rights; what it names is there."""
    file = yaml.safe_load((root / "deploy" / "compose.yaml").read_text())
    for name, service in file["services"].items():
        for complaint in (*_check_rights(name, service), *_check_service(service), *_check_references(file, service)):
            yield f"compose.yaml: {name}: {complaint}"
        if "chartwire" in service["image"] and "entrypoint" not in service:
            yield from (f"compose.yaml: {name}: {complaint}" for complaint in wrong_command(service["command"]))
    yield from (f"compose.yaml: worker: {complaint}" for complaint in _check_worker(file["services"]))
    for name, secret in file["secrets"].items():
        if not secret.get("file", "").startswith("./secrets/"):
            yield f"compose.yaml: the secret {name} is not a file in ./secrets"


def _check_rights(name: str, service: Mapping[str, Any]) -> Iterator[str]:
    if not _NUMERIC_USER.match(str(service.get("user", ""))) and name not in _FOLDER_KEEPERS:
        yield "does not run as a numeric user without rights"
    if service.get("cap_drop") != ["ALL"] or "no-new-privileges:true" not in service.get("security_opt", []):
        yield "keeps rights that it does not need"
    if service.get("privileged") or service.get("network_mode") == "host" or service.get("pid") == "host":
        yield "is let out of its container"
    if not service.get("read_only"):
        yield "may write to its root file system"


def _check_service(service: Mapping[str, Any]) -> Iterator[str]:
    if not service.get("restart"):
        yield "has no restart policy"
    if not service.get("deploy", {}).get("resources", {}).get("limits", {}).get("memory"):
        yield "has no limit of memory"
    if "build" not in service and "healthcheck" not in service:
        yield "has no health check"
    if not _TAGGED.search(re.sub(r"\$\{[A-Z_]+:-([^}]+)\}", r"\1", service["image"])):
        yield f"{service['image']} is no fixed version"
    for port in service.get("ports", []):
        address, outside, inside = re.sub(r"\$\{[A-Z_]+:-([^}]+)\}", r"\1", port).split(":")
        if address != "127.0.0.1" or min(int(outside), int(inside)) < 1024:
            yield f"the port {port} is privileged, or open to others than this machine"
    for variable, value in service.get("environment", {}).items():
        if any(word in variable for word in _SECRET_WORDS) and not str(value).startswith("/run/secrets/"):
            yield f"{variable} is a secret in the environment"


def _check_worker(services: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    worker = services["worker"]
    for name, service in services.items():
        if service is not worker and name != "nats" and set(service["networks"]) & set(worker["networks"]):
            yield f"reaches {name}"
    yield from (f"is given {name}" for name in worker["secrets"] if name not in _OF_A_WORKER)
    if "volumes" in worker:
        yield "keeps something"


def _check_references(file: Mapping[str, Any], service: Mapping[str, Any]) -> Iterator[str]:
    needed = service.get("depends_on", {})
    yield from (f"depends on {name}, which is not there" for name in needed if name not in file["services"])
    for kind in ("secrets", "networks"):
        yield from (f"{name} is none of {kind}" for name in service.get(kind, []) if name not in file[kind])
    for volume in service.get("volumes", []):
        if volume.partition(":")[0] not in file["volumes"]:
            yield f"{volume} is no volume"
    for name in re.findall(r"/run/secrets/([a-z0-9_]+)", json.dumps(service)):
        if name not in service.get("secrets", []):
            yield f"reads the secret {name}, which it is not given"


def check_units(root: Path) -> Iterator[str]:
    """Each service of systemd runs a command that there is, as a user without rights."""
    for path in sorted((root / "deploy" / "systemd").glob("*.service")):
        unit = configparser.ConfigParser(strict=False, interpolation=None)
        unit.optionxform = str  # type: ignore[assignment,method-assign]  # as configparser's documentation does it
        unit.read_string(path.read_text())
        service = unit["Service"]
        for complaint in _check_unit(service):
            yield f"{path.name}: {complaint}"
    yield from (f"worker.conf: {complaint}" for complaint in _check_worker_unit(root / "deploy"))


def _check_worker_unit(folder: Path) -> Iterator[str]:
    """On a machine a worker is kept from the ranges that it is kept from on Kubernetes."""
    drop_in = (folder / "systemd" / "chartwire@deliver.service.d" / "worker.conf").read_text()
    denied = {word for line in re.findall(r"^IPAddressDeny=(.*)", drop_in, re.MULTILINE) for word in line.split()}
    values = yaml.safe_load((folder / "helm" / "chartwire" / "values.yaml").read_text())
    kept_from = values["networkPolicy"]["receivers"]["except"]
    yield from (f"a worker is let into {each}" for each in kept_from if each not in denied)


def _check_unit(service: configparser.SectionProxy) -> Iterator[str]:
    if service.get("User", "root") == "root":
        yield "runs as root"
    yield from (f"{name} is not set" for name in _HARDENED if service.get(name) != "yes")
    if service.get("ProtectSystem") != "strict":
        yield "may write to the system"
    program, _, arguments = service.get("ExecStart", "").partition(" ")
    if Path(program).name != "chartwire":
        yield f"starts {program}"
    for role in _ROLES if "%i" in arguments else ("",):
        yield from wrong_command(arguments.replace("%i", role))


def check_monitoring(root: Path) -> Iterator[str]:
    """Each alarm is explained in the guide, and each explanation is of an alarm."""
    groups = yaml.safe_load((root / "deploy" / "monitoring" / "alerts.yaml").read_text())["groups"]
    rules = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    explained = set(re.findall(r"\| `(Chartwire[A-Za-z]+)` \|", (root / "docs/how-to/operate.md").read_text()))
    yield from (f"alerts.yaml: {name} is not explained in operate.md" for name in sorted(set(rules) - explained))
    yield from (f"operate.md: there is no alarm {name}" for name in sorted(explained - set(rules)))
    for name, rule in rules.items():
        if rule.get("labels", {}).get("severity") not in {"critical", "warning"}:
            yield f"alerts.yaml: {name} does not say how bad it is"
    tested = (root / "deploy" / "monitoring" / "alerts_test.yaml").read_text()
    yield from (f"alerts_test.yaml: {name} is never seen to ring" for name in rules if tested.count(f" {name}\n") < 1)
    dashboard = json.loads((root / "deploy" / "monitoring" / "grafana-dashboard.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    if len(ids) != len(set(ids)):
        yield "grafana-dashboard.json: two panels have the same id"
    for panel in dashboard["panels"]:
        if panel["type"] != "row" and not all(target.get("expr") for target in panel["targets"]):
            yield f"grafana-dashboard.json: {panel['title']} asks nothing"


CHECKS = (check_names, check_guide, check_dockerfile, check_compose, check_units, check_monitoring)
