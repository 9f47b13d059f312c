"""Workers as `deploy/` installs them: given what they are given there and nothing else, they start and post."""

import asyncio
import base64
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nats
import pytest
import yaml
from tests.support.nats import running_nats
from tests.support.process import ChartwireProcess
from tests.support.receiver import Receiver
from tests.support.workers import a_relay, post, until_heard

from chartwire.delivery.egress import PostRequest, Recipient
from chartwire.delivery.transport import WORKERS, Transport
from chartwire.store.master_key import read_key

pytestmark = [pytest.mark.embedded, pytest.mark.asyncio]  # a worker has no database

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.0/8"


async def post_by(worker: Mapping[str, str], inside: str, key: bytes, folder: Path) -> None:
    """Start a worker in an environment, and have it post what a process with the database hands it."""
    async with Receiver() as receiver, ChartwireProcess(folder / "data", worker) as process:
        async with a_relay(inside, key, None) as relay:
            await until_heard(relay)
            answer = await post(relay, PostRequest(Recipient(receiver.url), b"\r\nwebhook-id: m1", b"{}", 5))
        await until_acknowledged(inside, key)
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


async def until_acknowledged(inside: str, key: bytes) -> None:
    """Until the broker knows that a ticket is done with: the right to say so is one that a worker may lack."""
    client = await nats.connect(inside)
    try:
        async with asyncio.timeout(30):
            while True:
                lane = await client.jetstream().consumer_info(f"chartwire-{Transport(key).tag}-postings", WORKERS)
                if lane.ack_floor is not None and lane.ack_floor.consumer_seq == 1:
                    return
                await asyncio.sleep(0.02)
    finally:
        await client.close()


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


def made_secrets(folder: Path) -> Path:
    """Those of compose.yaml."""
    subprocess.run([ROOT / "deploy/make-secrets", folder / "secrets"], check=True, capture_output=True)
    return folder / "secrets"


async def test_what_compose_gives_a_worker_is_all_that_it_needs(tmp_path: Path) -> None:
    made = made_secrets(tmp_path)
    key = read_key(made / "transport.key", "transport_key_file")
    password = (made / "nats-password").read_text().strip()
    options = {"http": "127.0.0.1:-1"}  # on a free port
    async with running_nats(tmp_path / "nats", options, (made / "nats.conf").read_text()) as broker:
        text = (made / "worker.toml").read_text()
        text = text.replace("@nats:4222", f"@127.0.0.1:{broker.port}").replace(
            "/run/secrets/transport_key", f"{made}/transport.key"
        )
        (made / "worker.toml").write_text(text)
        worker = {"CHARTWIRE_CONFIG": str(made / "worker.toml"), "CHARTWIRE_WEBHOOK_ALLOWED_NETWORKS": LOOPBACK}
        await post_by(worker, broker.url.replace("//", f"//chartwire:{password}@"), key, tmp_path)
