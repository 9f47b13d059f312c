"""Workers as `deploy/` installs them: given what they are given there and nothing else, they start and post."""

import base64
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.nats import running_nats
from tests.support.process import ChartwireProcess
from tests.support.receiver import Receiver
from tests.support.workers import a_relay, post, until_heard

from chartwire.delivery.egress import PostRequest

pytestmark = [pytest.mark.embedded, pytest.mark.asyncio]  # a worker has no database

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.0/8"


async def post_by(worker: Mapping[str, str], inside: str, key: bytes, folder: Path) -> None:
    """Start a worker in an environment, and have it post what a process with the database hands it."""
    async with Receiver() as receiver, ChartwireProcess(folder / "data", worker) as process:
        async with a_relay(inside, key, None) as relay:
            await until_heard(relay)
            answer = await post(relay, PostRequest(receiver.url, {"webhook-id": "m1"}, b"{}", 5))
        assert answer is not None
        assert answer.status == 200
        assert await process.stop() == 0
        assert "error" not in process.log()
        assert not process.data_dir.exists()


async def test_what_the_chart_gives_a_worker_is_all_that_it_needs(tmp_path: Path) -> None:
    key = secrets.token_bytes(32)
    pod = a_pod_of_the_chart({"CHARTWIRE_WEBHOOK_ALLOWED_NETWORKS": LOOPBACK, "CHARTWIRE_LOG_FORMAT": "json"})
    async with running_nats(tmp_path / "nats") as broker:
        secret = {"nats_url": broker.url, "transport.key": base64.b64encode(key).decode()}
        await post_by(started(pod, secret, tmp_path), broker.url, key, tmp_path)


def a_pod_of_the_chart(settings: Mapping[str, str]) -> Mapping[str, Any]:
    """The one that the chart makes where workers alone are installed."""
    helm = pytest.importorskip("helm_python", reason="pip install --require-hashes -r requirements-deploy.lock")
    with helm.Chart.load(str(ROOT / "deploy/helm/chartwire")) as chart:
        rendered = chart.render({"mode": "workers", "settings": settings}, name="workers", namespace="dmz")
    manifests = [each for name, text in rendered.items() if name.endswith(".yaml") for each in yaml.safe_load_all(text)]
    (deployment,) = (each for each in manifests if each and each["kind"] == "Deployment")
    pod: Mapping[str, Any] = deployment["spec"]["template"]["spec"]
    return pod


def started(pod: Mapping[str, Any], secret: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Do as the kubelet does, below a folder in place of the root: lay out volumes, run the init containers; gives
    the environment of the container then."""
    (container,) = pod["containers"]
    mounts = [mount for each in (*pod["initContainers"], container) for mount in each["volumeMounts"]]
    paths = {mount["name"]: folder / mount["mountPath"].lstrip("/") for mount in mounts}
    for path in paths.values():
        path.mkdir(parents=True, exist_ok=True)
    for volume in pod["volumes"]:
        for item in volume.get("secret", {}).get("items", []):
            (paths[volume["name"]] / item["path"]).write_text(secret[item["key"]])

    def moved(text: str) -> str:
        return f"{folder}{text}" if text.startswith(("/etc/", "/run/")) else text

    for each in pod["initContainers"]:
        subprocess.run([moved(word) for word in each["command"]], check=True)
    return {
        variable["name"]: moved(variable["value"])
        if "value" in variable
        else secret[variable["valueFrom"]["secretKeyRef"]["key"]]
        for variable in container["env"]
    }
