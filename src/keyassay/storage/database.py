"""Open a database, read from it, change it: every change is a transaction of one actor with a revision.

``Database.read`` gives a connection; ``Database.write`` a ``Transaction``, which serialises the writers of an account
(all writers on SQLite), so that reading before writing needs no further locks. What a transaction records as changes
gets revisions in commit order, since the row of the counter is locked last and until the end.

On SQLite a thread keeps its connection for reading, and writers take turns (``writing.py``).
"""

from __future__ import annotations

import secrets
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, bindparam, event, select, update
from sqlalchemy.engine import CursorResult, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError

from keyassay.errors import KeyassayError
from keyassay.storage import schema
from keyassay.storage.prepared import Prepared
from keyassay.storage.writing import PAGES, BusyError, Turns

__all__ = ["Actor", "BusyError", "Database", "Transaction", "explain", "initialise", "rows_in_chunks"]

#: seconds that a writer waits for others before it gives up (``BusyError``)
PATIENCE = 15.0

BACKENDS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}

_STEP = Prepared(
    update(schema.server)
    .values(revision=schema.server.c.revision + bindparam("count"))
    .returning(schema.server.c.revision)
)
_CHANGE = Prepared(schema.changes.insert(), schema.changes.columns.keys())
_CHANGES = schema.changes.insert()
_LOCK_ACCOUNT = Prepared(
    select(schema.accounts.c.id).where(schema.accounts.c.id == bindparam("id")).with_for_update(key_share=True)
)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, for the record of changes.

    Attributes:
        account_id: the account in which it is done.
        name: access key id, or "command:keys create", "worker:audit".
        source: network address, or the name of the machine.
        request_id: of the API's request, or "".
    """

    account_id: str
    name: str
    source: str = ""
    request_id: str = ""


@dataclass(slots=True)
class Transaction:
    """One change of the database; ends with the ``with`` block of ``Database.write``.

    Attributes:
        connection: for queries.
        actor: who does it.
        now: its time, milliseconds since 1970: one value for all rows of the transaction.
    """

    connection: Connection
    actor: Actor
    now: int
    _recorded: list[dict[str, Any]] = field(default_factory=list)

    @property
    def account_id(self) -> str:
        """The account in which this is done."""
        return self.actor.account_id

    def execute(self, statement: sqlalchemy.Executable, rows: Any = None) -> CursorResult[Any]:
        """Run a statement."""
        return self.connection.execute(statement, rows)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """A part that leaves nothing behind if its block raises, while the transaction goes on."""
        recorded = len(self._recorded)
        try:
            with self.connection.begin_nested():
                yield
        except BaseException:
            del self._recorded[recorded:]
            raise

    def record(
        self,
        operation: str,
        resource_type: str,
        resource_id: str,
        details: Mapping[str, Any] | None = None,
        *,
        account_id: str = "",
    ) -> None:
        """Note a change: part of the audit trail and of the feed that gates follow.

        Args:
            operation: what was done, in the API's words ("UpdateCertificate").
            resource_type: "certificate", "ca", "thing", "thing-group", "policy", ...
            resource_id: id or name.
            details: public facts (old and new status); never a secret, a key or a body.
            account_id: whose feed it belongs to, if not the actor's own.
        """
        self._recorded.append(
            {
                "account_id": account_id or self.actor.account_id,
                "at": self.now,
                "actor": self.actor.name,
                "source": self.actor.source,
                "request_id": self.actor.request_id,
                "operation": operation,
                "resource_type": resource_type,
                "resource_id": resource_id,
                "details": dict(details or {}),
            }
        )

    def write_changes(self) -> None:
        """Give the recorded changes their revisions: the last thing before the commit."""
        if not self._recorded:
            return
        count = len(self._recorded)
        counter = _STEP.first(self.connection, {"count": count})
        assert counter is not None
        for offset, row in enumerate(self._recorded):
            row["revision"] = counter["revision"] - count + 1 + offset
        if count == 1:
            _CHANGE.run(self.connection, self._recorded[0])
        else:
            self.connection.execute(_CHANGES, self._recorded)
        self._recorded = []


class _Reader:
    """A thread's connection; goes back to the pool with the thread."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.close()


class Database:
    """A database of the registry, safe to use from many threads.

    Args:
        url: ``sqlite:///PATH`` or ``postgresql://USER@HOST/NAME``.

    Raises:
        KeyassayError: no such kind of database, or it cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _engine(url)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self._turns = Turns(self.engine) if self.is_sqlite else None
        self._mine = threading.local()
        self._readers: weakref.WeakSet[_Reader] = weakref.WeakSet()  # one of each thread that lives
        self._lock = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for queries, each of which sees what was committed before it."""
        if self.is_sqlite:
            yield self._reader()
        else:
            with self.engine.connect() as connection:
                yield connection

    def _reader(self) -> Connection:
        """This thread's connection to a SQLite file: taking one from the pool costs more than most queries."""
        mine: _Reader | None = getattr(self._mine, "reader", None)
        if mine is None or mine.connection.closed:
            mine = self._mine.reader = _Reader(self.engine.connect())
            with self._lock:
                self._readers.add(mine)
        return mine.connection

    @contextmanager
    def write(self, actor: Actor, *also: str) -> Iterator[Transaction]:
        """A transaction that commits at the end of the block, or leaves nothing behind if the block raises.

        Args:
            actor: who does it; the writers of its account wait for each other.
            also: further accounts that are changed (both sides of a transfer).

        Raises:
            BusyError: others held the database for longer than ``PATIENCE``, or a shared transaction failed.
        """
        try:
            if self._turns is not None:
                with self._turns.turn(PATIENCE) as connection:
                    transaction = Transaction(connection, actor, time.time_ns() // 1_000_000)
                    yield transaction
                    transaction.write_changes()
            else:
                with self.engine.connect() as connection, connection.begin():
                    self._lock_accounts(connection, {actor.account_id, *also})
                    transaction = Transaction(connection, actor, time.time_ns() // 1_000_000)
                    yield transaction
                    transaction.write_changes()
        except OperationalError as error:
            if _is_busy(error):
                raise BusyError("the database is busy") from error
            raise

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Let the transactions of this thread share one commit, and the wait for the disk, on SQLite.

        Nothing that they wrote is durable, or seen by ``read``, before the block has ended, and others wait from the
        first of them on: for short work. Each still fails alone. On PostgreSQL each commits by itself.

        Raises:
            BusyError, sqlalchemy.exc.DBAPIError: nothing is in the database of what was written in the block.
        """
        with self._turns.shared() if self._turns is not None else nullcontext():
            yield

    @staticmethod
    def _lock_accounts(connection: Connection, names: set[str]) -> None:
        """Let the writers of these accounts wait for each other; in one order, so that nobody waits in a circle."""
        for name in sorted(names):
            _LOCK_ACCOUNT.first(connection, {"id": name})

    def close(self) -> None:
        """Give all connections back; whoever asks later gets new ones."""
        if self._turns is not None:
            self._turns.close()
        with self._lock:
            readers = list(self._readers)
        for one in readers:
            one.connection.close()
        self.engine.dispose()


def _is_busy(error: DBAPIError) -> bool:
    text = str(error.orig).lower()
    return "locked" in text or "busy" in text or "lock timeout" in text or "deadlock" in text


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise KeyassayError(
            "the database has to be named by an address",
            "sqlite:////var/lib/keyassay/registry.db and postgresql://keyassay@db.example/keyassay are addresses",
        ) from None
    backend = BACKENDS.get(parsed.drivername)
    if backend is None:
        raise KeyassayError(f"there is no kind of database {parsed.drivername!r}", "there are sqlite and postgresql")
    if backend == "sqlite":
        return _sqlite(parsed.database or "")
    options = {"connect_timeout": 10, "options": f"-c lock_timeout={int(PATIENCE * 1000)} -c timezone=UTC"}
    return sqlalchemy.create_engine(
        parsed.set(drivername=backend), connect_args=options, pool_size=16, max_overflow=16, pool_pre_ping=True
    )


def _sqlite(path: str) -> Engine:
    if not path or path == ":memory:":
        raise KeyassayError("SQLite needs a file", "sqlite:///registry.db is one in the current folder")
    if not Path(path).parent.is_dir():
        raise KeyassayError(f"there is no folder {str(Path(path).parent)!r} for the database")
    # threads keep their connections: there are as many as there are threads
    engine = sqlalchemy.create_engine(f"sqlite:///{path}", pool_size=16, max_overflow=-1)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        cursor = connection.cursor()
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",  # a revocation that was answered survives a power cut
            "foreign_keys = ON",
            f"busy_timeout = {int(PATIENCE * 1000)}",
            f"wal_autocheckpoint = {PAGES}",
            "cache_size = -65536",
            "temp_store = MEMORY",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


def initialise(connection: Connection) -> None:
    """Fill the one row of ``server`` in a database that has just got its tables; nothing if it is there."""
    if connection.execute(select(schema.server.c.id)).first() is None:
        row = {
            "id": 1,
            "epoch": secrets.token_hex(16),
            "revision": 0,
            "token_secret": secrets.token_bytes(32),
            "created_at": time.time_ns() // 1_000_000,
        }
        connection.execute(schema.server.insert(), row)


def rows_in_chunks(rows: Sequence[Any], size: int = 500) -> Iterator[Sequence[Any]]:
    """Pieces of a long list, for statements that bind a limited number of values."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def explain(error: SQLAlchemyError) -> str:
    """One line of what a database said, without the statement and its values."""
    original = getattr(error, "orig", None)
    return " ".join(str(original or error).split())[:300]
