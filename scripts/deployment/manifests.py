"""Rules for what the Helm chart renders."""

from collections.abc import Iterator, Mapping
from typing import Any

from scripts.deployment.program import unknown_metrics, wrong_command

Manifest = Mapping[str, Any]
_ALL_KINDS = {
    *("Deployment", "Job", "Service", "ServiceAccount", "PodDisruptionBudget", "HorizontalPodAutoscaler"),
    *("NetworkPolicy", "Ingress"),
}


def check_manifests(manifests: list[Manifest]) -> Iterator[str]:
    """Pods are bounded, watched and without rights; whatever selects something selects what is there."""
    kinds = {manifest["kind"] for manifest in manifests}
    yield from (f"there is no {kind}" for kind in sorted(_ALL_KINDS - kinds))
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
