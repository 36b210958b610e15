"""``keyassay accounts``: the accounts of a registry, beside a running server."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from keyassay.cli.service import database_options, json_option, opened, table


@click.group("accounts", short_help="The accounts of a registry.")
def command() -> None:
    """Accounts are fully separate; each has its certificates, things, policies, audits and access keys.

    \b
    keyassay accounts create --name "plant 3"
    keyassay accounts list --json
    """  # noqa: D301  \b is click's mark for lines to keep


@command.command("create", short_help="Make an account and its first access key.")
@database_options
@click.option("--name", default="", metavar="TEXT", help="For people.")
@click.option("--id", "account_id", default="", metavar="ID", help="12 digits.  [default: chosen at random]")
@json_option
def create(database: str, key_file: Path | None, key_command: str, name: str, account_id: str, as_json: bool) -> None:
    """Make an account and an administrator's access key, whose secret is shown this once."""
    with opened(database, key_file, key_command) as registry:
        from keyassay.registry import accounts  # noqa: PLC0415  only when called
        from keyassay.server.opening import as_json as shown  # noqa: PLC0415
        from keyassay.server.opening import machine_name  # noqa: PLC0415
        from keyassay.storage.database import Actor  # noqa: PLC0415

        actor = Actor("", "command:accounts create", machine_name())
        made = accounts.create_account(registry, actor, name=name, account_id=account_id)
    if as_json:
        click.echo(json.dumps(shown(made)))
        return
    click.echo(f"account            {made.account_id}")
    click.echo(f"access key id      {made.access_key_id}")
    click.echo(f"secret access key  {made.secret_access_key}")


@command.command("list", short_help="List the accounts.")
@database_options
@json_option
def list_(database: str, key_file: Path | None, key_command: str, as_json: bool) -> None:
    """List the accounts with their numbers of active access keys."""
    with opened(database, key_file, key_command) as registry:
        from keyassay.registry import accounts  # noqa: PLC0415  only when called

        found = accounts.accounts(registry)
    if as_json:
        rows = [
            {
                "account_id": one.id,
                "name": one.name,
                "created_at": moment(one.created_at),
                "active_keys": one.active_keys,
            }
            for one in found
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    lines = [(one.id, moment(one.created_at), str(one.active_keys), one.name) for one in found]
    click.echo(table(("account", "created", "active keys", "name"), lines))


def moment(milliseconds: int) -> str:
    """A time of the database, ISO 8601."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
