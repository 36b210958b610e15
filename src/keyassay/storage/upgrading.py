"""Bring a database to this release's tables, by numbered migrations; refuse one that is newer.

The migrations are alembic's, in ``migrations/versions``; each runs in a transaction where the database allows it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect
from sqlalchemy.exc import SQLAlchemyError

from keyassay.errors import KeyassayError
from keyassay.storage.database import Database, explain, initialise

MIGRATIONS = Path(__file__).parent / "migrations"


@cache
def scripts() -> ScriptDirectory:
    """The migrations of this release."""
    return ScriptDirectory(str(MIGRATIONS))


def newest() -> str:
    """The revision of the tables that this release works with ("0001")."""
    head = scripts().get_current_head()
    assert head is not None
    return head


def current(database: Database) -> str | None:
    """The revision of a database, None if it is empty.

    Raises:
        KeyassayError: it cannot be reached, or holds something else.
    """
    try:
        with database.read() as connection:
            revision = MigrationContext.configure(connection).get_current_revision()
            if revision is None and inspect(connection).get_table_names():
                raise KeyassayError("the database holds tables that are not keyassay's", "name an empty database")
            return revision
    except SQLAlchemyError as error:
        raise KeyassayError(f"the database cannot be used: {explain(error)}") from None


def check(database: Database) -> None:
    """Refuse a database that this release cannot work with.

    Raises:
        KeyassayError: it is empty, older or newer.
    """
    revision = current(database)
    if revision == newest():
        return
    if revision is None:
        raise KeyassayError("the database is empty", "`keyassay database upgrade` makes the tables")
    if revision not in {script.revision for script in scripts().walk_revisions()}:
        raise KeyassayError(
            f"the database is of a newer release (tables {revision}, this release knows {newest()})",
            "install that release of keyassay",
        )
    raise KeyassayError(
        f"the database is of an older release (tables {revision}, now {newest()})",
        "make a backup, then `keyassay database upgrade`",
    )


def upgrade(database: Database) -> bool:
    """Bring a database to ``newest``; true if it was not there yet. Two at once do it one after the other.

    Raises:
        KeyassayError: it is newer than this release, or a migration failed (the database is as before).
    """
    revision = current(database)
    if revision == newest():
        return False
    if revision is not None and revision not in {script.revision for script in scripts().walk_revisions()}:
        check(database)
    try:
        with database.engine.connect() as connection:
            _exclusively(connection, sqlite=database.is_sqlite)
            if MigrationContext.configure(connection).get_current_revision() != newest():
                config = Config()
                config.set_main_option("script_location", str(MIGRATIONS))
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
                initialise(connection)
            connection.commit()
    except SQLAlchemyError as error:
        raise KeyassayError(f"the database cannot be upgraded: {explain(error)}") from None
    return True


def _exclusively(connection: Connection, *, sqlite: bool) -> None:
    """Let upgrades wait for each other."""
    connection.exec_driver_sql("BEGIN EXCLUSIVE" if sqlite else "SELECT pg_advisory_xact_lock(7235419021)")
