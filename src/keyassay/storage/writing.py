"""Writers of a SQLite file take turns, first come, first served; a thread's writers may share a turn and its commit.

A commit waits for the disk, which takes longer than most of what is committed. So who has many short things to write
does it inside ``Turns.shared``: all of it is committed at once, at its end. A block that raises is undone by itself, to
the savepoint before it.

What was committed is in the write-ahead log. To bring it into the file itself takes longer than the commit, and keeps
nobody out: a thread does it in nobody's turn.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

#: rows changed after which the log is brought into the file: some ten pages each, many of them the same
CHECKPOINT = 400
#: pages of the log after which SQLite does so by itself, in the writer's turn: where other processes write much, or a
#: transaction is large. Most of them are in the file by then
PAGES = 4_000
#: seconds that ``close`` waits for who is writing
_CLOSING = 1.0


class BusyError(Exception):
    """Other writers held the database for too long; trying again is right."""


@dataclass(slots=True, eq=False)
class _Shared:
    """A thread's turn that several blocks share.

    Attributes:
        connection: of its transaction, once a block has begun it.
        failure: why nothing of it will be in the database.
    """

    connection: Connection | None = None
    failure: BaseException | None = None

    def check(self) -> None:
        if self.failure is not None:
            raise BusyError("the transaction failed that was shared") from self.failure


class Turns:
    """The turns of one process's threads; other processes are kept out by SQLite's lock.

    Args:
        engine: of the file; the writers use one connection, one after the other.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._busy = False
        self._queue: deque[threading.Lock] = deque()  # each held until it is that writer's turn
        self._mine = threading.local()
        self._connection: Connection | None = None
        self._changed = 0
        self._checkpoint: threading.Thread | None = None

    @contextmanager
    def turn(self, patience: float) -> Iterator[Connection]:
        """The connection, inside a transaction that is committed once the block has ended well.

        Args:
            patience: seconds to wait for the turn.

        Raises:
            BusyError: it was not its turn in time, or what others wrote in a shared turn is lost, and this with it.
            sqlalchemy.exc.DBAPIError: beginning or committing failed.
        """
        shared: _Shared | None = getattr(self._mine, "shared", None)
        if shared is not None:
            with self._block(shared, patience) as connection:
                yield connection
            return
        connection = self._open(patience)
        try:
            yield connection
            self._commit(connection)
        except BaseException:
            self._undo(connection)
            raise
        finally:
            self._leave()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Let the turns that this thread takes meanwhile be one, committed at the end of the block.

        Others wait from the first of them on. Until the end nothing of what they wrote is durable or seen by others,
        this thread's readers included.

        Raises:
            BusyError: nothing is in the database: it was not this thread's turn in time, or a part of what was
                written could not be undone.
            sqlalchemy.exc.DBAPIError: nothing is, since beginning or committing failed.
        """
        shared = self._mine.shared = _Shared()
        try:
            yield
            shared.check()
            if shared.connection is not None:
                self._commit(shared.connection)
        except BaseException:
            if shared.connection is not None:
                self._undo(shared.connection)
            raise
        finally:
            self._mine.shared = None
            if shared.connection is not None:
                self._leave()

    @contextmanager
    def _block(self, shared: _Shared, patience: float) -> Iterator[Connection]:
        """A part of a shared turn."""
        shared.check()
        if shared.connection is None:
            try:
                shared.connection = self._open(patience)
            except BaseException as error:  # who comes later in this turn does not wait once more
                shared.failure = error
                raise
        connection = shared.connection
        _run(connection, "SAVEPOINT block")
        try:
            yield connection
            _run(connection, "RELEASE block")
        except BaseException:
            try:
                _run(connection, "ROLLBACK TO block")
                _run(connection, "RELEASE block")
            except DBAPIError as error:  # the disk is full, ...: SQLite has undone what the others wrote, too
                shared.failure = error
            raise

    def _open(self, patience: float) -> Connection:
        """Take the turn and begin a transaction; the turn is left if that fails."""
        self._take(patience)
        try:
            return self._begin()
        except BaseException:
            self._leave()
            raise

    def _take(self, patience: float) -> None:
        """Wait for the turn."""
        with self._lock:
            if not self._busy:
                self._busy = True
                return
            signal = threading.Lock()
            signal.acquire()
            self._queue.append(signal)
        if not signal.acquire(timeout=patience):
            with self._lock:
                if signal in self._queue:  # else it has become this one's turn just now
                    self._queue.remove(signal)
                    raise BusyError("the database is busy")

    def _leave(self) -> None:
        """It is the next one's turn."""
        with self._lock:
            if self._queue:
                self._queue.popleft().release()
            else:
                self._busy = False

    def _begin(self) -> Connection:
        """Begin a transaction, in this one's turn."""
        if self._connection is None:
            self._connection = self._engine.connect()
        connection = self._connection
        try:
            connection.begin()
            _run(connection, "BEGIN IMMEDIATE")
        except BaseException:
            self._undo(connection)
            raise
        return connection

    def _commit(self, connection: Connection) -> None:
        connection.commit()
        self._begin_checkpoint(connection)

    def _undo(self, connection: Connection) -> None:
        """Leave nothing of a transaction."""
        try:
            connection.rollback()
            connection.connection.rollback()  # the library thinks of a commit that failed as an end
        except Exception:  # noqa: BLE001  it is of no use any more; the next writer gets another
            connection.invalidate()
            self._connection = None

    def _begin_checkpoint(self, connection: Connection) -> None:
        """After a commit, still in its turn: have the log brought into the file once many rows have changed."""
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        if abs(driver.total_changes - self._changed) < CHECKPOINT:  # a new connection counts from 0
            return
        if self._checkpoint is not None and self._checkpoint.is_alive():
            return
        self._changed = driver.total_changes
        thread = threading.Thread(target=self._run_checkpoint, name="checkpoint")
        with contextlib.suppress(RuntimeError):  # no more threads: what was committed is safe all the same
            thread.start()
            self._checkpoint = thread

    def _run_checkpoint(self) -> None:
        # whatever comes between is no loss: the log holds it all, and the next one goes on
        with contextlib.suppress(SQLAlchemyError), self._engine.connect() as connection:
            _run(connection, "PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Give the connection back, unless somebody goes on writing; the next writer gets another."""
        try:
            self._take(_CLOSING)
        except BusyError:
            return
        try:
            if self._checkpoint is not None:
                self._checkpoint.join()
                self._checkpoint = None
            if self._connection is not None:
                self._connection.close()
                self._connection = None
        finally:
            self._leave()


def _run(connection: Connection, command: str) -> None:
    """Run a command by the driver itself: a tenth of what it takes by the library."""
    known = connection.dialect.loaded_dbapi.Error
    try:
        connection.connection.cursor().execute(command).close()
    except known as error:
        raise DBAPIError.instance(command, None, error, known, dialect=connection.dialect) from error
