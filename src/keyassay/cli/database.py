"""``keyassay database``: bring a registry's database to this release, back it up, restore it, move it."""

from __future__ import annotations

from pathlib import Path

import click

from keyassay.cli.progress import ProgressBar
from keyassay.cli.service import database_options, libraries
from keyassay.errors import KeyassayError


@click.group("database", short_help="Upgrade, check, back up, restore or move a registry's database.")
def command() -> None:
    """The tables of a database belong to a release; a server works only with those of its own.

    \b
    keyassay database check
    keyassay database upgrade --database postgresql://keyassay@db.example/keyassay
    keyassay database backup registry-2026-12-01.db
    keyassay database copy sqlite:///registry.db postgresql://keyassay@db.example/keyassay
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


@command.command("backup", short_help="Write the whole database into a file.")
@database_options
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
def backup(database: str, key_file: Path | None, key_command: str, file: Path) -> None:
    """Write the database, of either kind and as it is at this moment, into FILE, a new SQLite file; servers go on.

    The key that seals secrets is not in it: keep the key file as well, elsewhere.
    """
    del key_file, key_command
    _copy(database, _file_url(file, new=True), new_epoch=False, private=file)
    click.echo(f"written to {file}; keep the key file as well, in another place")


@command.command("restore", short_help="Fill a new database from a backup.")
@database_options
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE")
def restore(database: str, key_file: Path | None, key_command: str, file: Path) -> None:
    """Fill the database, which has to be empty, from the backup FILE. Followers of changes begin anew."""
    del key_file, key_command
    with libraries():
        from keyassay.server.settings import Settings  # noqa: PLC0415  only when called

    target = Settings(database=database).database_url
    _copy(_file_url(file, new=False), target, new_epoch=True, private=_file_of(target))
    click.echo("restored; it needs the key file that it was used with")


@command.command("copy", short_help="Move to another kind of database or another server.")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
def copy(source: str, target: str) -> None:
    """Copy the database FROM into TO, an empty one; each is named by its address, as for --database.

    Stop the servers before, and start them on the new one afterwards.
    """
    _copy(source, target, new_epoch=True, private=_file_of(target))
    click.echo("copied; the same key file belongs to it")


def _file_url(file: Path, *, new: bool) -> str:
    if new and file.exists():
        raise KeyassayError(f"{str(file)!r} exists already", "name a new file")
    return f"sqlite:///{file.resolve()}"


def _file_of(url: str) -> Path | None:
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None


def _copy(source: str, target: str, *, new_epoch: bool, private: Path | None) -> None:
    with libraries():
        from keyassay.server.opening import make_private, open_database  # noqa: PLC0415  only when called
        from keyassay.server.settings import Settings  # noqa: PLC0415
        from keyassay.storage.copying import copy as copy_all  # noqa: PLC0415

    opened = open_database(Settings(database=source), create=False)
    if private is not None:
        make_private(private)
    other = open_database(Settings(database=target), create=False, any_release=True)
    try:
        with ProgressBar(unit="rows") as bar:
            copy_all(
                opened,
                other,
                new_epoch=new_epoch,
                progress=lambda done, total: bar("copying", done / total if total else None, done),
            )
    finally:
        opened.close()
        other.close()
