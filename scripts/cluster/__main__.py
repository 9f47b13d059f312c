"""`python -m scripts.cluster demo` shows a cluster that is killed under load; `run` starts one to try things on."""

import asyncio
from contextlib import suppress
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def demo(
    patients: Annotated[int, typer.Option(min=1, max=5, help="How many are asked for.")] = 5,
    seconds: Annotated[float, typer.Option(min=1, help="How long the load lasts.")] = 25,
) -> None:
    """Put a load on a cluster, kill some of its processes, and show that everything arrived."""
    from scripts.cluster.story import run_demo

    with suppress(KeyboardInterrupt):
        raise typer.Exit(asyncio.run(run_demo(Console(), patients, seconds)))
    raise typer.Exit(130)


@app.command()
def run() -> None:
    """Start a cluster, say where it is, and stop it upon Ctrl-C; its data is thrown away."""
    from scripts.cluster.running import run_until_stopped

    with suppress(KeyboardInterrupt):
        asyncio.run(run_until_stopped(Console()))


app()
