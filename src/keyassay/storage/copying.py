"""Copy a whole database into another, of either kind: backup, restore and moving are the same thing.

The source is read in one state while servers go on writing; the target has to be new. A copy that is to be served from
gets another feed epoch, since revisions after the copied state may have been handed out already.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from sqlalchemy import Connection, func, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from keyassay.errors import KeyassayError
from keyassay.storage import schema, upgrading
from keyassay.storage.database import Database, explain

#: rows that are in memory at once
_ROWS = 1_000


def copy(
    source: Database,
    target: Database,
    *,
    new_epoch: bool,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Copy all tables.

    Args:
        source: of this release's tables.
        target: an empty database; it gets the tables.
        new_epoch: tell followers of the feed to begin anew (for a copy that will be served from).
        progress: called with (rows done, rows in all).

    Returns:
        Rows copied.

    Raises:
        KeyassayError: the source is of another release, the target is not empty, or a database failed; the target
            is then as empty as before, but for its tables.
    """
    upgrading.check(source)
    if upgrading.current(target) is not None:
        raise KeyassayError("the target is not empty", "name a new database")
    upgrading.upgrade(target)
    report = progress or (lambda _done, _total: None)
    try:
        with source.engine.connect() as reading, target.engine.connect() as writing:
            _freeze(reading, sqlite=source.is_sqlite)
            if target.is_sqlite:
                writing.exec_driver_sql("BEGIN IMMEDIATE")
            done = _all_tables(reading, writing, report)
            if new_epoch:
                writing.execute(update(schema.server).values(epoch=secrets.token_hex(16)))
            writing.commit()
    except SQLAlchemyError as error:
        raise KeyassayError(f"the database cannot be copied: {explain(error)}") from None
    return done


def _freeze(connection: Connection, *, sqlite: bool) -> None:
    """All that is read from now on is of one moment."""
    if sqlite:
        connection.exec_driver_sql("BEGIN")
    else:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


def _all_tables(reading: Connection, writing: Connection, report: Callable[[int, int], None]) -> int:
    tables = schema.METADATA.sorted_tables  # referred ones first
    total = sum(reading.execute(select(func.count()).select_from(table)).scalar_one() for table in tables)
    done = 0
    report(done, total)
    writing.execute(schema.server.delete())  # the row that the new tables began with
    for table in tables:
        rows = reading.execution_options(stream_results=True).execute(select(table)).mappings()
        for piece in rows.partitions(_ROWS):
            writing.execute(table.insert(), [dict(row) for row in piece])
            done += len(piece)
            report(done, total)
    return done
