"""``keyassay keys``: access keys of a registry's accounts, beside a running server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from keyassay.cli.accounts import moment
from keyassay.cli.service import account_option, database_options, json_option, opened, table

ROLES = ("administrator", "operator", "registrar", "auditor", "gate")


@click.group("keys", short_help="Who may sign requests to a registry.")
def command() -> None:
    """Access keys sign requests; each has a role.

    administrator: everything. operator: everything but accounts, keys and the issuing authority. registrar: register
    and read. auditor: read. gate: what a broker's gate needs.

    \b
    keyassay keys create --role auditor
    keyassay keys deactivate AKIA...
    """  # noqa: D301  \b is click's mark for lines to keep


def _actor(registry: Any, account: str, words: str) -> Any:
    from keyassay.registry.accounts import the_account  # noqa: PLC0415  only when called
    from keyassay.server.opening import machine_name  # noqa: PLC0415
    from keyassay.storage.database import Actor  # noqa: PLC0415

    return Actor(the_account(registry, account), f"command:keys {words}", machine_name())


@command.command("create", short_help="Make an access key.")
@database_options
@account_option
@click.option("--role", type=click.Choice(ROLES), default="operator", show_default=True, help="What it may do.")
@json_option
def create(database: str, key_file: Path | None, key_command: str, account: str, role: str, as_json: bool) -> None:
    """Make an access key, whose secret is shown this once."""
    with opened(database, key_file, key_command) as registry:
        from keyassay.registry import accounts  # noqa: PLC0415  only when called
        from keyassay.server.opening import as_json as shown  # noqa: PLC0415

        made = accounts.create_key(registry, _actor(registry, account, "create"), accounts.Role(role))
    if as_json:
        click.echo(json.dumps(shown(made)))
        return
    click.echo(f"account            {made.account_id}")
    click.echo(f"role               {made.role}")
    click.echo(f"access key id      {made.access_key_id}")
    click.echo(f"secret access key  {made.secret_access_key}")


@command.command("list", short_help="List the access keys of an account.")
@database_options
@account_option
@json_option
def list_(database: str, key_file: Path | None, key_command: str, account: str, as_json: bool) -> None:
    """List access keys; secrets are never shown again."""
    with opened(database, key_file, key_command) as registry:
        from keyassay.registry import accounts  # noqa: PLC0415  only when called

        found = accounts.keys(registry, accounts.the_account(registry, account))
    if as_json:
        rows = [
            {
                "access_key_id": one.id,
                "account_id": one.account_id,
                "role": one.role.value,
                "active": one.active,
                "created_at": moment(one.created_at),
            }
            for one in found
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    lines = [(one.id, one.role.value, "yes" if one.active else "no", moment(one.created_at)) for one in found]
    click.echo(table(("access key id", "role", "active", "created"), lines))


@command.command("deactivate", short_help="Let an access key sign nothing any more.")
@database_options
@account_option
@click.argument("access_key_id", metavar="ID")
def deactivate(database: str, key_file: Path | None, key_command: str, account: str, access_key_id: str) -> None:
    """Let the access key ID sign nothing any more; every server of the database knows within a second."""
    with opened(database, key_file, key_command) as registry:
        from keyassay.registry import accounts  # noqa: PLC0415  only when called

        accounts.deactivate_key(registry, _actor(registry, account, "deactivate"), access_key_id)
    click.echo(f"{access_key_id} is no longer active")


@command.command("delete", short_help="Remove an access key.")
@database_options
@account_option
@click.argument("access_key_id", metavar="ID")
def delete(database: str, key_file: Path | None, key_command: str, account: str, access_key_id: str) -> None:
    """Remove the access key ID and its secret for good."""
    with opened(database, key_file, key_command) as registry:
        from keyassay.registry import accounts  # noqa: PLC0415  only when called

        accounts.delete_key(registry, _actor(registry, account, "delete"), access_key_id)
    click.echo(f"{access_key_id} was deleted")
