"""Rules for what the Helm chart renders."""

from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from scripts.deployment.program import unknown_metrics, wrong_command

Manifest = Mapping[str, Any]
WORKERS_KINDS = frozenset(
    {"Deployment", "ServiceAccount", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"}
)
ALL_KINDS = WORKERS_KINDS | {"Job", "Service", "Ingress"}

_OF_A_WORKER = {"nats_url", "transport.key"}
"""The keys of a Secret that a worker has a use for."""

_NOT_OF_A_WORKER = ("DATABASE", "MASTER_KEY", "BLOB", "CONFIG", "AWS_")
"""Parts of the names of variables that would lead to the database or to documents."""

_NETWORK = {"nats": ("10.20.0.5", 4222), "database": ("10.20.0.6", 5432), "bucket": ("10.20.1.7", 443)}
METADATA = ("169.254.169.254", 80)
RECEIVER = ("93.184.215.14", 443)


def values_of_network() -> dict[str, Any]:
    """Values for `networkPolicy` with a place for each server, which `check_workers` looks for."""
    return {name: {"cidr": f"{address}/32", "port": port} for name, (address, port) in _NETWORK.items()}


def check_manifests(manifests: list[Manifest], kinds: frozenset[str]) -> Iterator[str]:
    """Pods are bounded, watched and without rights; whatever selects something selects what is there."""
    there = {manifest["kind"] for manifest in manifests}
    yield from (f"there is no {kind}" for kind in sorted(kinds - there))
    pods = [manifest["spec"]["template"] for manifest in manifests if manifest["kind"] in {"Deployment", "Job"}]
    for manifest in manifests:
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        yield from (f"{name}: {complaint}" for complaint in _check(manifest, manifests, pods))


def _check(manifest: Manifest, manifests: list[Manifest], pods: list[Manifest]) -> Iterator[str]:
    spec = manifest.get("spec", {})
    match manifest["kind"]:
        case "Deployment":
            yield from _check_pod(spec["template"]["spec"], serves=True)
            yield from _selects(spec["selector"]["matchLabels"], [spec["template"]])
        case "Job":
            yield from _check_pod(spec["template"]["spec"], serves=False)
        case "Service" if "selector" in spec:
            yield from _selects(spec["selector"], pods)
        case "PodDisruptionBudget":
            yield from _selects(spec["selector"]["matchLabels"], pods)
        case "NetworkPolicy":
            yield from _selects(spec["podSelector"]["matchLabels"], pods)
            if set(spec["policyTypes"]) != {"Ingress", "Egress"} or not spec["egress"]:
                yield "leaves a direction open"
        case "HorizontalPodAutoscaler":
            yield from _check_autoscaler(spec, manifests)


def _selects(labels: Mapping[str, str], pods: list[Manifest]) -> Iterator[str]:
    if not any(labels.items() <= pod["metadata"]["labels"].items() for pod in pods):
        yield "selects no pod"


def _check_pod(pod: Manifest, *, serves: bool) -> Iterator[str]:
    security = pod.get("securityContext", {})
    if not security.get("runAsNonRoot") or not security.get("runAsUser"):
        yield "may run as root"
    if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "has no seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield "is given a token that it does not need"
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        yield from _check_container(container, volumes)
    for container in pod["containers"]:
        yield from wrong_command(container["args"])
        if serves:
            probes = ("startupProbe", "livenessProbe", "readinessProbe")
            yield from (f"{container['name']} has no {probe}" for probe in probes if probe not in container)
            if container.get("livenessProbe", {}).get("httpGet", {}).get("path") == "/readyz":
                yield "is restarted when its database is away"
    if serves and pod.get("terminationGracePeriodSeconds", 30) < 45:
        yield "is given no time for what is in flight"


def _check_container(container: Manifest, volumes: set[str]) -> Iterator[str]:
    name, security = container["name"], container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False or security.get("capabilities") != {"drop": ["ALL"]}:
        yield f"{name} keeps rights that it does not need"
    if not security.get("readOnlyRootFilesystem"):
        yield f"{name} may write to its root file system"
    resources = container.get("resources", {})
    if not resources.get("requests", {}).get("cpu") or not resources.get("limits", {}).get("memory"):
        yield f"{name} says not what it needs"
    mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
    yield from (f"{name} mounts {missing}, which is no volume" for missing in sorted(mounted - volumes))
    names = [variable["name"] for variable in container.get("env", [])]
    yield from (f"{name} sets {each} twice" for each in sorted({each for each in names if names.count(each) > 1}))


def _check_autoscaler(spec: Manifest, manifests: list[Manifest]) -> Iterator[str]:
    target = spec["scaleTargetRef"]["name"]
    scaled = [each for each in manifests if each["kind"] == "Deployment" and each["metadata"]["name"] == target]
    if not scaled:
        yield f"scales {target}, which is not there"
    elif "replicas" in scaled[0]["spec"]:
        yield f"quarrels with {target} over replicas at each upgrade"
    if spec["minReplicas"] > spec["maxReplicas"]:
        yield "has a minimum above its maximum"
    for metric in spec["metrics"]:
        if metric["type"] == "External":
            yield from unknown_metrics(metric["external"]["metric"]["name"])


def check_workers(manifests: list[Manifest]) -> Iterator[str]:
    """Workers, and nothing else: they are given no way to the database, the master key and documents."""
    for manifest in manifests:
        match manifest["kind"]:
            case "Deployment":
                yield from _check_possessions(manifest["spec"]["template"]["spec"])
            case "NetworkPolicy":
                yield from _check_ways(manifest["spec"]["egress"])
            case kind if kind not in WORKERS_KINDS:
                yield f"there is a {kind} in the workers' zone"


def _check_possessions(pod: Manifest) -> Iterator[str]:
    given = set()
    for container in (*pod["initContainers"], *pod["containers"]):
        for variable in container.get("env", []):
            if any(part in variable["name"] for part in _NOT_OF_A_WORKER):
                yield f"a worker is told {variable['name']}"
            given.add(variable.get("valueFrom", {}).get("secretKeyRef", {}).get("key"))
    for volume in pod["volumes"]:
        if "secret" in volume:
            given |= {item["key"] for item in volume["secret"].get("items", [{"key": "all that is in the Secret"}])}
    yield from (f"a worker is given {key}" for key in sorted(given - _OF_A_WORKER - {None}))
    yield from (f"a worker is not given {key}" for key in sorted(_OF_A_WORKER - given))


def _check_ways(egress: list[Manifest]) -> Iterator[str]:
    for name, place in (("NATS", _NETWORK["nats"]), ("receivers", RECEIVER)):
        if not _reaches(egress, *place):
            yield f"a worker does not reach {name}"
    for name, place in (*_NETWORK.items(), ("metadata", METADATA)):
        ports = {22, 80, 443, 4222, 5432, place[1]} - ({place[1]} if name == "nats" else set())
        yield from (f"a worker reaches {name} on {port}" for port in sorted(ports) if _reaches(egress, place[0], port))


def _reaches(egress: list[Manifest], address: str, port: int) -> bool:
    """Whether a policy lets a TCP connection pass (networking.k8s.io/v1, NetworkPolicyEgressRule)."""
    return any(
        any(each.get("port", port) == port for each in rule.get("ports", [{}]) if each.get("protocol") != "UDP")
        and any(_holds(peer["ipBlock"], address) for peer in rule.get("to", [{"ipBlock": {"cidr": "0.0.0.0/0"}}]))
        for rule in egress
    )


def _holds(block: Manifest, address: str) -> bool:
    inside = [ip_address(address) in ip_network(cidr) for cidr in (block["cidr"], *block.get("except", []))]
    return inside[0] and not any(inside[1:])
