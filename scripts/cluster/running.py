"""`python -m scripts.cluster run`: the same cluster, to try things on."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from scripts.cluster.story import SETTINGS, end_gently
from scripts.cluster.topology import running_cluster, running_servers


async def run_until_stopped(console: Console) -> None:
    """Start a cluster with an account, print how to reach its parts, and wait to be told to end."""
    end_gently()

    def say(name: str, what: str) -> None:
        console.print(f"{name:<10} {what}", markup=False, highlight=False, soft_wrap=True)

    with TemporaryDirectory(prefix="chartwire-cluster-") as folder:
        async with (
            running_servers(Path(folder)) as servers,
            running_cluster(Path(folder), servers, SETTINGS, say) as cluster,
        ):
            _, api_key = await cluster.processes["api-1"].create_account("Demo Clinic")
            for name, process in cluster.processes.items():
                say(name, f"{process.base_url}  pid {process.pid:<8} log {process.log_file}")
            say("database", servers.database_url)
            say("nats", servers.broker.url)
            say("API key", api_key)
            say("Ctrl-C", "stops it all")
            await asyncio.Event().wait()
