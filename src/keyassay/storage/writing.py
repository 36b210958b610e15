"""Writers of a SQLite file take turns, first come, first served; those that agree share a commit.

A commit waits for the disk, which takes longer than most of what is committed. So a writer whose block has ended passes
its open transaction on to the next in the queue, if that one shares, too, and waits until the last of them has
committed: all of them at once. A block that raises is undone by itself, to the savepoint before it.

What was committed is in the write-ahead log. To bring it into the file itself takes longer than the commit, and keeps
nobody out: a thread does it in nobody's turn.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

#: blocks that share a commit at most, and seconds after which no other joins: the first one waits for the last
_MOST, _LONGEST = 50, 0.05
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
class _Open:
    """A transaction that has begun.

    Attributes:
        blocks: how many have written in it.
        since: when it began, ``time.monotonic``.
        over: set when it has ended, well or not.
        failure: why nothing of it is in the database.
    """

    blocks: int = 0
    since: float = field(default_factory=time.monotonic)
    over: threading.Event = field(default_factory=threading.Event)
    failure: BaseException | None = None


@dataclass(slots=True, eq=False)
class _Waiting:
    """A writer in the queue; ``signal`` is held until it is its turn."""

    shares: bool
    signal: threading.Lock
    handed: _Open | None = None


class Turns:
    """The turns of one process's threads; other processes are kept out by SQLite's lock.

    Args:
        engine: of the file; the writers use one connection, one after the other.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._busy = False
        self._queue: deque[_Waiting] = deque()
        self._connection: Connection | None = None
        self._changed = 0
        self._checkpoint: threading.Thread | None = None

    @contextmanager
    def turn(self, patience: float, *, shares: bool) -> Iterator[Connection]:
        """The connection, inside a transaction that is committed once the block has ended well.

        Args:
            patience: seconds to wait for the turn.
            shares: the block is short, and may share its commit with others of this kind.

        Raises:
            BusyError: it was not its turn in time, or the commit failed in another's turn.
            sqlalchemy.exc.DBAPIError: beginning or committing failed.
        """
        opened = self._take(patience, shares)
        joined = opened is not None
        try:
            connection, opened = self._enter(opened)
        except BaseException:
            self._leave()
            raise
        try:
            yield connection
            if joined:
                _run(connection, "RELEASE block")
        except BaseException as error:
            self._undo(connection, opened, error, joined=joined)
            self._finish(connection, opened, shares, ended_well=False)
            raise
        self._finish(connection, opened, shares, ended_well=True)

    def _take(self, patience: float, shares: bool) -> _Open | None:
        """Wait for the turn; the transaction to go on with, or None."""
        with self._lock:
            if not self._busy:
                self._busy = True
                return None
            me = _Waiting(shares, threading.Lock())
            me.signal.acquire()
            self._queue.append(me)
        if not me.signal.acquire(timeout=patience):
            with self._lock:
                if me in self._queue:
                    self._queue.remove(me)
                    raise BusyError("the database is busy")
        return me.handed  # it may have been handed over just now

    def _leave(self) -> None:
        """It is the next one's turn, with a transaction of its own."""
        with self._lock:
            if self._queue:
                self._queue.popleft().signal.release()
            else:
                self._busy = False

    def _pass_on(self, opened: _Open) -> bool:
        """Let the next one go on with the transaction, if it shares."""
        if opened.failure is not None or opened.blocks >= _MOST or time.monotonic() - opened.since > _LONGEST:
            return False
        with self._lock:
            if not self._queue or not self._queue[0].shares:
                return False
            following = self._queue.popleft()
            following.handed = opened
            following.signal.release()
        return True

    def _enter(self, opened: _Open | None) -> tuple[Connection, _Open]:
        """Begin a transaction, or a block in one that is open."""
        if self._connection is None:
            self._connection = self._engine.connect()
        connection = self._connection
        joined, opened = opened is not None, opened or _Open()
        try:
            if joined:
                _run(connection, "SAVEPOINT block")
            else:
                connection.begin()
                _run(connection, "BEGIN IMMEDIATE")
        except BaseException as error:
            self._end(connection, opened, error)
            raise
        opened.blocks += 1
        return connection, opened

    def _undo(self, connection: Connection, opened: _Open, cause: BaseException, *, joined: bool) -> None:
        """Leave nothing of a block that raised; of the whole transaction if nobody else wrote in it."""
        if not joined:
            self._end(connection, opened, cause)
            return
        try:
            _run(connection, "ROLLBACK TO block")
            _run(connection, "RELEASE block")
        except DBAPIError as error:  # the disk is full, ...: SQLite has undone what the others wrote, too
            self._end(connection, opened, error)

    def _finish(self, connection: Connection, opened: _Open, shares: bool, *, ended_well: bool) -> None:
        """Pass the transaction on and wait for its end, or end it."""
        if shares and self._pass_on(opened):
            if ended_well:
                opened.over.wait()
                if opened.failure is not None:
                    raise BusyError("the commit failed that was shared") from opened.failure
            return
        try:
            if not opened.over.is_set():
                connection.commit()
                opened.over.set()
                self._begin_checkpoint(connection)
        except BaseException as error:
            self._end(connection, opened, error)
            if ended_well:
                raise
        finally:
            self._leave()

    def _end(self, connection: Connection, opened: _Open, failure: BaseException) -> None:
        """Undo all of a transaction, and tell those who wrote in it."""
        opened.failure = failure
        try:
            connection.rollback()
            connection.connection.rollback()  # the library thinks of a commit that failed as an end
        except Exception:  # noqa: BLE001  it is of no use any more; the next writer gets another
            connection.invalidate()
            self._connection = None
        opened.over.set()

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
            self._take(_CLOSING, shares=False)
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
