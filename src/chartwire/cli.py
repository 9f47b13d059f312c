"""The command line: `serve`, `account`, `key`, `member`, `migrate`, `doctor`, `demo`, `listen`, `replay`, `trigger`.

Commands for the upkeep of an installation are in `upkeep`.
"""

import asyncio
import base64
import errno
import json
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from sqlalchemy import Connection

from chartwire import __version__, upkeep
from chartwire.clock import iso, system_clock
from chartwire.model.registry import ApiKey
from chartwire.settings import Role, Settings
from chartwire.terminal import (
    AsJson,
    Config,
    DataDir,
    clear_errors,
    fail,
    out,
    prepare_data_dir,
    print_rows,
    read_settings,
    say,
)

T = TypeVar("T")

app = typer.Typer(
    help="Ask once for a patient's documents, receive them by signed webhook as soon as each is available.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
accounts = typer.Typer(help="Accounts: the customers of this installation.", no_args_is_help=True)
keys = typer.Typer(help="API keys of an account.", no_args_is_help=True)
members = typer.Typer(help="Members of an account: who signs in to the console.", no_args_is_help=True)
app.add_typer(accounts, name="account")
app.add_typer(keys, name="key")
app.add_typer(members, name="member")
app.add_typer(upkeep.master_keys, name="master-key")
app.command("export")(upkeep.export_command)
app.command("import")(upkeep.import_command)

KeyOption = Annotated[str, typer.Option(help="The account's API key.", envvar="CHARTWIRE_API_KEY")]
Url = Annotated[str, typer.Option(help="Where the server is.", envvar="CHARTWIRE_URL")]
DEFAULT_URL = "http://127.0.0.1:8080"

_ACTOR = "operator"
"""Whoever types these commands, as the audit trail names them."""


@app.command()
def serve(
    config: Config = None,
    data_dir: DataDir = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 if not said.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one; 8080 if not said.")] = None,
    role: Annotated[
        Role | None, typer.Option(help="What this process does; all of it if not said. Several need PostgreSQL.")
    ] = None,
) -> None:
    """Run Chartwire until it is told to stop (SIGTERM, Ctrl-C)."""
    settings = read_settings(config, data_dir, host=host, port=port, role=role)
    if not settings.is_worker:
        prepare_data_dir(settings)
    listener = _listen(settings)
    settings = settings.model_copy(update={"port": listener.getsockname()[1]})
    with clear_errors():
        from chartwire.server import run_server

        run_server(settings, listener, lambda: _greet(settings) if settings.role.does(Role.API) else None)


@app.command()
def migrate(config: Config = None, data_dir: DataDir = None) -> None:
    """Bring the database to this version's schema. `serve` does so by itself."""
    settings = read_settings(config, data_dir)
    prepare_data_dir(settings)
    with clear_errors():
        from chartwire.store.migrate import upgrade

        applied = upgrade(settings.database)
        say(f"applied {', '.join(applied)}" if applied else "nothing to do: the schema is current")


@app.command("transport-key")
def transport_key(config: Config = None, data_dir: DataDir = None) -> None:
    """Print the key that workers in another zone of the network need: it opens what is handed to them, and no more."""
    settings = read_settings(config, data_dir)
    with clear_errors():
        from chartwire.store.opening import open_vault
        from chartwire.store.vault import Purpose

        print(base64.b64encode(open_vault(settings, system_clock).eldest_key(Purpose.TRANSPORT)).decode())


@app.command()
def doctor(config: Config = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Check configuration, database, disk, clock, master key and networks, and say how to mend what is found."""
    settings = read_settings(config, data_dir)
    from chartwire.doctor import examine

    findings = asyncio.run(examine(settings, system_clock))
    if as_json:
        print(json.dumps([finding.as_dict() for finding in findings], indent=2))
    else:
        for finding in findings:
            mark = "[red]fail[/]" if not finding.ok else "[yellow]note[/]" if finding.remedy else "[green]ok[/]  "
            say(f"{mark}  {finding.part:<20} {escape(finding.detail)}")
            if finding.remedy:
                say(f"      {'':<20} [yellow]{escape(finding.remedy)}[/]")
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Keep the data folder and say where it is.")] = False,
) -> None:
    """Show the main job on invented patients: ask for documents, receive them by signed webhook."""
    from chartwire.demo import run_demo

    raise typer.Exit(asyncio.run(run_demo(Console(), keep=keep)))


@app.command()
def listen(
    forward_to: Annotated[
        str, typer.Option(help="URL of the app on this machine, such as http://localhost:3000/hook.")
    ],
    api_key: KeyOption,
    types: Annotated[list[str] | None, typer.Option(help="Only this type; may be given several times.")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Post an account's events, from now on, to an app on this machine, signed, and show how it answers."""
    from chartwire import developer

    async def run() -> None:
        async with developer.open_api(url, api_key) as api:
            await developer.listen(api, forward_to, types or (), system_clock, _say_plain)

    _run_async(run())


@app.command()
def replay(
    api_key: KeyOption,
    types: Annotated[list[str] | None, typer.Option(help="Only this type; may be given several times.")] = None,
    states: Annotated[list[str] | None, typer.Option(help="delivered or failed; both if not said.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Only what went to this endpoint.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="Since then, such as 2025-01-02T03:00:00Z.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Before this moment.")] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Only count.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Send events again, and show how far it is."""
    from chartwire import developer

    given = {"types": types, "states": states, "endpointId": endpoint, "from": start, "to": end}
    chosen = {name: value for name, value in given.items() if value}

    async def run() -> None:
        async with developer.open_api(url, api_key) as api:
            if preview:
                _say_plain(str(await developer.count_replay(api, chosen)))
            else:
                await developer.replay(api, chosen, _say_plain)

    _run_async(run())


@app.command()
def trigger(
    event_type: Annotated[str, typer.Argument(metavar="TYPE", help="Such as medical.document-download.")],
    api_key: KeyOption,
    endpoint: Annotated[str | None, typer.Option(help="Its id; the endpoint of the settings if not said.")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Send a sample event, about nobody."""
    from chartwire import developer

    async def run() -> None:
        async with developer.open_api(url, api_key) as api:
            _say_plain(await developer.trigger(api, event_type, endpoint))

    _run_async(run())


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


@accounts.command("create")
def account_create(
    name: Annotated[str, typer.Option(help="What the account is called.")],
    email: Annotated[str | None, typer.Option(help="Make an owner too, who signs in to the console by it.")] = None,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make an account with its first API key, which is shown this once. Works beside a running server."""
    from chartwire.model.member import Role
    from chartwire.services.members import create_with_password
    from chartwire.store import registry

    if not name.strip():
        fail("--name: an account needs a name")

    def unit(connection: Connection) -> dict[str, str]:
        account = registry.create_account(connection, name.strip(), system_clock())
        _, secret = _create_key(connection, account.id, "first")
        made = {"accountId": account.id, "apiKey": secret}
        if email is not None:
            owner, password = create_with_password(connection, system_clock, account.id, email, Role.OWNER)
            made |= {"memberId": owner.id, "password": password}
        return made

    settings = read_settings(config, data_dir)
    made = _run_unit(settings, unit)
    if as_json:
        print(json.dumps(made))
        return
    say(f"account  {made['accountId']}\nAPI key  {made['apiKey']}")
    if email is not None:
        say(f"password {made['password']}  for {escape(email)} on {settings.public_base}/console")
    say(f"[yellow]{'They are' if email else 'The key is'} not shown again: keep {'them' if email else 'it'} now.[/]")


@accounts.command("list")
def account_list(config: Config = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the accounts."""
    from chartwire.store import registry

    found = _run_unit(read_settings(config, data_dir), registry.list_accounts)
    rows = [{"accountId": item.id, "name": item.name, "createdAt": iso(item.created_at)} for item in found]
    print_rows(rows, as_json, "No account yet: make one with `chartwire account create --name <name>`.")


@keys.command("create")
def key_create(
    account: Annotated[str, typer.Option(help="The account's id.")],
    label: Annotated[str, typer.Option(help="What the key is for.")] = "",
    config: Config = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make one more API key for an account, shown this once."""
    key, secret = _run_unit(read_settings(config, data_dir), lambda connection: _create_key(connection, account, label))
    if as_json:
        print(json.dumps({"keyId": key.id, "accountId": account, "apiKey": secret}))
        return
    say(f"key id   {key.id}\nAPI key  {secret}")
    say("[yellow]The key is not shown again: keep it now.[/]")


@keys.command("revoke")
def key_revoke(
    key: Annotated[str, typer.Argument(help="The key's id, from `chartwire key list`.")],
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Refuse a key from now on."""
    _run_unit(read_settings(config, data_dir), lambda connection: _revoke_key(connection, key))
    say(f"revoked {key}")


@keys.command("list")
def key_list(
    account: Annotated[str | None, typer.Option(help="Only this account's keys.")] = None,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List API keys by their ids and first characters."""
    from chartwire.store import registry

    found = _run_unit(read_settings(config, data_dir), lambda connection: registry.list_api_keys(connection, account))
    rows = [
        {
            "keyId": item.id,
            "accountId": item.account_id,
            "label": item.label,
            "begins": item.hint,
            "createdAt": iso(item.created_at),
            "revokedAt": _iso_or_none(item.revoked_at),
        }
        for item in found
    ]
    print_rows(rows, as_json, "No key yet: make one with `chartwire key create --account <id>`.")


@members.command("create")
def member_create(
    account: Annotated[str, typer.Option(help="The account's id.")],
    email: Annotated[str, typer.Option(help="By which the member signs in.")],
    role: Annotated[str, typer.Option(help="owner, developer, viewer or auditor.")] = "owner",
    config: Config = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Let somebody sign in to the console, with a password that is shown this once."""
    from chartwire.model.member import Role
    from chartwire.services.members import create_with_password

    if role not in {each.value for each in Role}:
        fail(f"role: {role} is none of {', '.join(Role)}")
    settings = read_settings(config, data_dir)
    member, password = _run_unit(
        settings, lambda connection: create_with_password(connection, system_clock, account, email, Role(role))
    )
    if as_json:
        print(json.dumps({"memberId": member.id, "accountId": account, "password": password}))
        return
    say(f"member   {member.id}\npassword {password}")
    say(f"[yellow]The password is not shown again: keep it now.[/] Sign in on {settings.public_base}/console")


@members.command("reset")
def member_reset(
    email: Annotated[str, typer.Argument(help="By which the member signs in.")],
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Give somebody a new password, shown this once; the second factor and open sessions end."""
    from chartwire.services.members import reset_by_email

    password = _run_unit(
        read_settings(config, data_dir), lambda connection: reset_by_email(connection, system_clock, email)
    )
    say(f"password {password}")


@members.command("list")
def member_list(
    account: Annotated[str, typer.Option(help="The account's id.")],
    config: Config = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List the members of an account."""
    from chartwire.store import members as store

    found = _run_unit(read_settings(config, data_dir), lambda connection: store.list_members(connection, account))
    rows = [
        {"memberId": item.id, "email": item.email, "role": item.role.value, "createdAt": iso(item.created_at)}
        for item in found
    ]
    print_rows(
        rows, as_json, "No member yet: let one in with `chartwire member create --account <id> --email <e-mail>`."
    )


def _create_key(connection: Connection, account_id: str, label: str) -> tuple[ApiKey, str]:
    from chartwire.store import audit, registry

    now = system_clock()
    key, secret = registry.create_api_key(connection, account_id, label, now)
    audit.record(connection, now, account_id, _ACTOR, "key.create", subject=key.id)
    return key, secret


def _revoke_key(connection: Connection, key_id: str) -> None:
    from chartwire.store import audit, registry

    now = system_clock()
    account_id = registry.revoke_api_key(connection, key_id, now)
    audit.record(connection, now, account_id, _ACTOR, "key.revoke", subject=key_id)


def _iso_or_none(moment: datetime | None) -> str | None:
    return None if moment is None else iso(moment)


def _say_plain(text: str) -> None:
    print(text, flush=True)


def _run_async(work: Coroutine[None, None, None]) -> None:
    with clear_errors(), suppress(KeyboardInterrupt):
        asyncio.run(work)


def _greet(settings: Settings) -> None:
    """Tell whoever started the server where it is, and how to go on if nobody has an account."""
    from chartwire.store import members as store
    from chartwire.store import registry
    from chartwire.store.profile import run_once
    from chartwire.telemetry import get_logger

    first_step = None if run_once(settings.database, registry.list_accounts) else _account_command(settings)
    if out.is_terminal:
        console = f"{settings.public_base}/console"
        say(f"\n[bold]Chartwire {__version__}[/] runs on {settings.public_base}  (Ctrl-C stops it)")
        if run_once(settings.database, store.is_any_member):
            say(f"Console   {console}")
        else:
            say(f"[bold]Set it up in your browser:[/]\n\n  [bold]{console}/setup?token={_setup_token(settings)}[/]\n")
        say(f"The API is described on {settings.public_base}/docs")
        if first_step:
            say(f"Without a browser, make an account in another terminal:\n\n  {escape(first_step)}\n")
    elif first_step:
        get_logger().warning("there is no account yet", hint=first_step)


def _setup_token(settings: Settings) -> str:
    from chartwire.services.members import setup_token
    from chartwire.store.opening import open_vault

    return setup_token(open_vault(settings, system_clock))


def _account_command(settings: Settings) -> str:
    """The command that makes an account of this installation, as it can be typed where the server was started."""
    script = Path(sys.executable).with_name("chartwire")
    if shutil.which("chartwire") == str(script):
        program = "chartwire"
    else:
        program = str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)
    config = os.environ.get("CHARTWIRE_CONFIG")
    options = ["--config", config] if config else []
    if settings.data_dir != Path("data"):
        options += ["--data-dir", str(settings.data_dir)]
    return shlex.join([program, "account", "create", "--name", "My clinic", *options])


def _run_unit(settings: Settings, unit: Callable[[Connection], T]) -> T:
    """Run a unit of work on the database, made first if this is the first command of an installation."""
    from chartwire.store.migrate import upgrade
    from chartwire.store.profile import run_once

    prepare_data_dir(settings)
    with clear_errors():
        upgrade(settings.database)
        return run_once(settings.database, unit)


def _listen(settings: Settings) -> socket.socket:
    """Bound before anything else starts, so that a taken port is told at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        is_of_the_port = error.errno in {errno.EADDRINUSE, errno.EACCES}
        remedy = "give --port another, or 0" if is_of_the_port else "give --host an address of this machine"
        fail(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; {remedy}")
    return listener


def main() -> None:
    """The entry point of the `chartwire` command."""
    app()
