"""``keyassay database``: bring a registry's database to this release, or see whether it is."""

from __future__ import annotations

from pathlib import Path

import click

from keyassay.cli.service import database_options, libraries


@click.group("database", short_help="Upgrade or check a registry's database.")
def command() -> None:
    """The tables of a database belong to a release; a server works only with those of its own.

    \b
    keyassay database check
    keyassay database upgrade --database postgresql://keyassay@db.example/keyassay
    """  # noqa: D301  \b is click's mark for lines to keep


@command.command("upgrade", short_help="Bring the tables to this release.")
@database_options
def upgrade(database: str, key_file: Path | None, key_command: str) -> None:
    """Make the tables, or change them to this release's. Make a backup before."""
    del key_file, key_command
    with libraries():
        from keyassay.server.opening import open_database  # noqa: PLC0415  only when called
        from keyassay.server.settings import Settings  # noqa: PLC0415
        from keyassay.storage import upgrading  # noqa: PLC0415

    settings = Settings(database=database)
    opened = open_database(settings, create=False, any_release=True)
    try:
        before = upgrading.current(opened)
        done = upgrading.upgrade(opened)
    finally:
        opened.close()
    if done:
        click.echo(f"upgraded from {before or 'nothing'} to {upgrading.newest()}")
    else:
        click.echo(f"nothing to do: the tables are at {upgrading.newest()}")


@command.command("check", short_help="See whether the tables are this release's.")
@database_options
def check(database: str, key_file: Path | None, key_command: str) -> None:
    """End with 0 if this release can work with the database, else say why not."""
    del key_file, key_command
    with libraries():
        from keyassay.server.opening import open_database  # noqa: PLC0415  only when called
        from keyassay.server.settings import Settings  # noqa: PLC0415
        from keyassay.storage import upgrading  # noqa: PLC0415

    open_database(Settings(database=database), create=False).close()
    click.echo(f"the tables are at {upgrading.newest()}, as they should be")
