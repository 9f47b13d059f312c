"""Others' programs: each looks at what it knows best. One that is not installed is left out, and says how to get it."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scripts.deployment.manifests import (
    ALL_KINDS,
    WORKERS_KINDS,
    Manifest,
    check_manifests,
    check_workers,
    values_of_network,
)
from scripts.deployment.program import metrics

_LOCK = "pip install --require-hashes -r requirements-deploy.lock"
_SECONDS = 60
_NAMESPACE = "clinic"
_KUBERNETES = "1.31.0"

EVERYTHING: Mapping[str, Any] = {
    "ingest": {"autoscaling": {"enabled": True}},
    "deliver": {"autoscaling": {"enabled": True}},
    "settings": {"CHARTWIRE_PUBLIC_URL": "https://chartwire.clinic.example"},
    "extraEnv": [{"name": "AWS_REGION", "value": "eu-1"}],
    "extraSecrets": ["mercy"],
    "imagePullSecrets": [{"name": "registry"}],
    "ingress": {"enabled": True, "className": "nginx", "tlsSecret": "certificate"},
    "networkPolicy": {"apiClients": [{"podSelector": {}}]},
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
}
"""Values that switch everything on."""

WORKERS: Mapping[str, Any] = {
    "mode": "workers",
    "settings": {"CHARTWIRE_WEBHOOK_CONCURRENCY": 512},
    "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/etc/chartwire/broker/ca.pem"}],
    "networkPolicy": values_of_network(),
    **dict.fromkeys(("api", "ingest", "deliver", "migration", "service", "ingress", "spoolSize")),
}
"""Values of workers alone, without those of the rest."""

WRONG_VALUES: Mapping[str, Mapping[str, Any]] = {
    "a misspelt value": {"apii": {}},
    "a setting that is none of ours": {"settings": {"PUBLIC_URL": "x"}},
    "a digest that is none": {"image": {"digest": "latest"}},
    "too little time to stop": {"terminationGracePeriodSeconds": 5},
    "a number of replicas in words": {"api": {"replicas": "two"}},
    "another mode": {"mode": "zone"},
    "an installation without its roles": {"api": None},
    "workers without any": {"mode": "workers", "worker": None},
    "workers without a Secret": {"mode": "workers", "existingSecret": None},
    "workers with a database": {"mode": "workers", "settings": {"CHARTWIRE_DATABASE_URL": "postgresql://db/chartwire"}},
    "workers with a bucket's credentials": {"mode": "workers", "extraEnv": [{"name": "AWS_ACCESS_KEY_ID"}]},
    "workers with a role of the cloud's": {"mode": "workers", "serviceAccount": {"annotations": {"role": "documents"}}},
    "workers with an API": {"mode": "workers", "ingress": {"enabled": True}},
}
"""Values that the chart's schema must refuse."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A program, or a library, with how to get it and what it complains of."""

    name: str
    remedy: str
    check: Callable[[Path], Iterator[str]]

    @property
    def is_there(self) -> bool:
        """Whether it is installed."""
        return importlib.util.find_spec(self.name) is not None if "_" in self.name else bool(_find(self.name))


def _find(program: str) -> str | None:
    beside = shutil.which(program, path=str(Path(sys.executable).parent))
    return beside or shutil.which(program)


def _run(*command: str | Path, cwd: Path) -> Iterator[str]:
    """What a program prints, if it ends badly."""
    program, *arguments = map(str, command)
    done = subprocess.run(  # noqa: S603  the programs are those of this file
        [_find(program) or program, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        yield from (line for line in (done.stdout + done.stderr).splitlines() if line.strip())


def _hadolint(root: Path) -> Iterator[str]:
    yield from _run("hadolint", "--failure-threshold", "info", "deploy/Dockerfile", cwd=root)


def _shellcheck(root: Path) -> Iterator[str]:
    yield from _run("shellcheck", "deploy/entrypoint.sh", "deploy/make-secrets", cwd=root)


def _promtool(root: Path) -> Iterator[str]:
    folder = root / "deploy" / "monitoring"
    yield from _run("promtool", "check", "rules", "alerts.yaml", cwd=folder)
    yield from _run("promtool", "test", "rules", "alerts_test.yaml", cwd=folder)


def _systemd(root: Path) -> Iterator[str]:
    """Verified as if the program were installed: where it is to be, nothing is here."""
    with tempfile.TemporaryDirectory() as folder:
        units = []
        for source in sorted((root / "deploy" / "systemd").iterdir()):
            written = source
            if source.is_dir():  # what is added to one unit of a template
                shutil.copytree(source, Path(folder) / source.name)
                written = source.with_name(re.sub("@[^.]*", "@", source.stem))
            units.append(Path(folder) / source.name.removesuffix(".d"))
            units[-1].write_text(
                re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", written.read_text(), flags=re.MULTILINE)
            )
        yield from _run("systemd-analyze", "verify", "--recursive-errors=no", "--man=no", *units, cwd=root)


def _compose_spec(root: Path) -> Iterator[str]:
    from compose_spec import PyOptions

    text = re.sub(r"\$\{[A-Z_]+:-([^}]+)\}", r"\1", (root / "deploy" / "compose.yaml").read_text())
    try:
        compose = PyOptions(apply_merge=True).from_yaml(text)
        compose.validate()
        compose.to_spec()
    except ValueError as error:
        yield f"compose.yaml: {error}"


def _helm(root: Path) -> Iterator[str]:
    """Rendered by Helm itself, with as little and as much as can be switched on; then wrong values are tried."""
    import helm_python as helm

    chart = root / "deploy" / "helm" / "chartwire"
    with helm.Chart.load(str(chart)) as loaded:
        for values in ({}, *_values_of_the_guide(root), EVERYTHING, WORKERS):
            try:
                manifests = _parsed(loaded.render(values, name="demo", namespace=_NAMESPACE))
            except helm.HelmError as error:
                yield f"the chart cannot be rendered: {error}"
                continue
            yield from _check_schemas(manifests)
            if values is EVERYTHING:
                yield from check_manifests(manifests, ALL_KINDS)
            if values is WORKERS:
                yield from check_manifests(manifests, WORKERS_KINDS)
                yield from check_workers(manifests)
        for name, values in WRONG_VALUES.items():
            try:
                loaded.render(values, name="demo", namespace=_NAMESPACE)
            except helm.HelmError as error:
                if "specifications of the schema" in str(error):
                    continue
            yield f"values.schema.json lets pass {name}"


def _values_of_the_guide(root: Path) -> list[Mapping[str, Any]]:
    guide = (root / "docs" / "how-to" / "operate.md").read_text()
    blocks = re.findall(r"```yaml\n(# values\S*\.yaml[;:].*?)```", guide, re.DOTALL)
    return [yaml.safe_load(block) for block in blocks]


def _parsed(rendered: Mapping[str, str]) -> list[Manifest]:
    texts = [text for name, text in rendered.items() if name.endswith(".yaml")]
    return [manifest for text in texts for manifest in yaml.load_all(text, yaml.CSafeLoader) if manifest]


def _check_schemas(manifests: list[Manifest]) -> Iterator[str]:
    import kubernetes_validate

    for manifest in manifests:
        if manifest["apiVersion"].startswith("monitoring.coreos.com/"):
            continue
        try:
            kubernetes_validate.validate(manifest, _KUBERNETES, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            yield f"{manifest['kind']} {manifest['metadata']['name']}: {error.message}"


def _promql(root: Path) -> Iterator[str]:
    """Each query of the dashboard and of the alarms asks for labels that its metric has."""
    import promql_parser

    folder = root / "deploy" / "monitoring"
    dashboard = json.loads((folder / "grafana-dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    groups = yaml.safe_load((folder / "alerts.yaml").read_text())["groups"]
    queries += [rule["expr"] for group in groups for rule in group["rules"]]
    for query in queries:
        try:
            promql_parser.parse(query.replace("$__rate_interval", "5m"))
        except ValueError as error:
            yield f"{query}: {error}"
        else:
            yield from (f"{query}: {complaint}" for complaint in _wrong_labels(query))


def _wrong_labels(query: str) -> Iterator[str]:
    known = dict(metrics())
    for name, matchers in re.findall(r"(chartwire_\w+)\{([^}]*)\}", query):
        asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) - {"job", "instance"}
        yield from (f"{name} has no label {label}" for label in sorted(asked - known.get(name, asked)))
    names = re.findall(r"\bchartwire_\w+", query)
    yield from (f"there is no metric {name}" for name in names if name not in known)
    for grouped in re.findall(r"\bby \(([^)]*)\)", query):
        for label in (part.strip() for part in grouped.split(",")):
            if not any(label in known.get(name, ()) for name in names):
                yield f"nothing has the label {label}"


TOOLS = (
    Tool("hadolint", _LOCK, _hadolint),
    Tool("shellcheck", _LOCK, _shellcheck),
    Tool("compose_spec", _LOCK, _compose_spec),
    Tool("helm_python", _LOCK, _helm),
    Tool("promql_parser", _LOCK, _promql),
    Tool("promtool", "apt install prometheus", _promtool),
    Tool("systemd-analyze", "apt install systemd", _systemd),
)
