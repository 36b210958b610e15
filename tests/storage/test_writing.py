"""Writers of a SQLite file that share a commit: each is told only what is durable, and fails alone."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import event, func, select
from sqlalchemy.exc import IntegrityError

from keyassay.storage import schema
from keyassay.storage.database import Actor, BusyError, Database
from keyassay.storage.upgrading import upgrade
from keyassay.storage.writing import CHECKPOINT

ACTOR = Actor("111111111111", "AKIATEST")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path}/registry.db")
    upgrade(opened)
    yield opened
    opened.close()


class Commits:
    """Counts commits of a database, and lets them fail."""

    def __init__(self, database: Database) -> None:
        self.count = 0
        self.failure: Exception | None = None
        event.listen(database.engine, "commit", self.seen)

    def seen(self, _connection: object) -> None:
        self.count += 1
        if self.failure:
            raise self.failure


def names(database: Database) -> list[str]:
    with database.read() as connection:
        return sorted(connection.execute(select(schema.accounts.c.name)).scalars())


def enter(database: Database, number: int, *, together: bool = True, name: str = "") -> None:
    with database.write(ACTOR, together=together) as transaction:
        row = {"id": f"{number:012}", "name": name or f"{number}", "created_at": 0}
        transaction.execute(schema.accounts.insert(), row)
        transaction.record("CreateAccount", "account", row["id"])


def queued(database: Database, count: int) -> None:
    """Wait until so many writers wait for their turn."""
    for _ in range(2_000):
        if len(database._turns._queue) == count:
            return
        threading.Event().wait(0.005)
    raise AssertionError("they do not queue")


def behind(database: Database, pool: ThreadPoolExecutor, numbers: list[int], **how: bool) -> list[Future[None]]:
    """Have writers queue in this order behind the one that is writing."""
    futures = []
    for position, number in enumerate(numbers):
        futures.append(pool.submit(enter, database, number, **how))
        queued(database, position + 1)
    return futures


def test_those_that_wait_share_one_commit(file: Database) -> None:
    commits = Commits(file)
    with ThreadPoolExecutor(8) as pool:
        with file.write(ACTOR, together=True) as transaction:
            transaction.record("X", "account", "first")
            futures = behind(file, pool, [1, 2, 3, 4])
        for one in futures:
            one.result(10)
    assert commits.count == 1
    assert names(file) == ["1", "2", "3", "4"]
    with file.read() as connection:
        recorded = connection.execute(select(schema.changes.c.revision, schema.changes.c.resource_id))
        assert sorted(tuple(row) for row in recorded) == [(1, "first"), *((n + 1, f"{n:012}") for n in (1, 2, 3, 4))]


def test_nobody_is_answered_before_the_commit(file: Database) -> None:
    with ThreadPoolExecutor(8) as pool, sqlite3.connect(file.url.removeprefix("sqlite:///")) as other:
        with file.write(ACTOR, together=True):
            [first] = behind(file, pool, [1])
            second = pool.submit(enter, file, 2)
            queued(file, 2)
        for number, one in ((1, first), (2, second)):
            one.result(10)
            assert other.execute("SELECT count(*) FROM accounts WHERE name = ?", (str(number),)).fetchone() == (1,)


def test_one_that_fails_fails_alone(file: Database) -> None:
    commits = Commits(file)
    with ThreadPoolExecutor(8) as pool:
        with file.write(ACTOR, together=True):
            futures = behind(file, pool, [1, 1, 2, 2, 3])
        outcomes = [type(one.exception(10)) for one in futures]
    assert outcomes == [type(None), IntegrityError, type(None), IntegrityError, type(None)]
    assert commits.count == 1
    assert names(file) == ["1", "2", "3"]
    with file.read() as connection:
        assert connection.execute(select(func.max(schema.changes.c.revision))).scalar_one() == 3


def test_the_first_and_the_last_may_fail(file: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        with pytest.raises(ZeroDivisionError), file.write(ACTOR, together=True) as transaction:
            transaction.execute(schema.accounts.insert(), {"id": "x", "name": "x", "created_at": 0})
            futures = behind(file, pool, [1, 2, 2])
            raise ZeroDivisionError
        assert [type(one.exception(10)) for one in futures] == [type(None), type(None), IntegrityError]
    assert names(file) == ["1", "2"]


def test_who_does_not_share_has_a_commit_of_its_own(file: Database) -> None:
    commits = Commits(file)
    with ThreadPoolExecutor(8) as pool:
        with file.write(ACTOR, together=True):
            futures = behind(file, pool, [1, 2], together=False)
        for one in futures:
            one.result(10)
    assert commits.count == 3
    assert names(file) == ["1", "2"]


def test_a_commit_that_fails_fails_for_all_who_share_it(file: Database) -> None:
    commits = Commits(file)

    def first() -> None:
        with file.write(ACTOR, together=True):
            begun.set()
            goes_on.wait(10)

    begun, goes_on = threading.Event(), threading.Event()
    with ThreadPoolExecutor(8) as pool:
        leading = pool.submit(first)
        begun.wait(10)
        futures = behind(file, pool, [1, 2])
        commits.failure = sqlite3.OperationalError("disk I/O error")
        goes_on.set()
        errors = [one.exception(10) for one in (leading, *futures)]
    assert [type(one) for one in errors] == [BusyError, BusyError, sqlite3.OperationalError]
    assert names(file) == []
    commits.failure = None
    enter(file, 3)
    assert names(file) == ["3"]


def test_many_at_once_lose_nothing(file: Database) -> None:
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(lambda number: _outcome(file, number % 150, together=bool(number % 7)), range(300)))
    assert outcomes.count("entered") == 150
    assert outcomes.count("twice") == 150
    with file.read() as connection:
        revisions = list(connection.execute(select(schema.changes.c.revision)).scalars())
    assert sorted(revisions) == list(range(1, 151))


def _outcome(database: Database, number: int, *, together: bool) -> str:
    try:
        enter(database, number, together=together)
    except IntegrityError:
        return "twice"
    return "entered"


def test_a_turn_that_does_not_come_is_given_up(file: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyassay.storage.database.PATIENCE", 0.05)
    with ThreadPoolExecutor(1) as pool, file.write(ACTOR, together=True):
        assert type(pool.submit(enter, file, 1).exception(10)) is BusyError
    monkeypatch.undo()
    enter(file, 2)
    assert names(file) == ["2"]


def test_a_database_that_was_closed_opens_again(file: Database) -> None:
    enter(file, 1)
    assert names(file) == ["1"]
    file.close()
    enter(file, 2)
    assert names(file) == ["1", "2"]


def test_what_was_written_gets_into_the_file_though_the_log_is_short(file: Database) -> None:
    path = file.url.removeprefix("sqlite:///")

    def in_the_file() -> int:
        with contextlib.closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as alone:  # sees no log
            return int(alone.execute("SELECT count(*) FROM accounts").fetchone()[0])

    for number in range(CHECKPOINT // 2):  # an account, its change and the counter
        enter(file, number)
    checkpoint = file._turns._checkpoint
    assert checkpoint is not None
    checkpoint.join(10)
    assert in_the_file() > CHECKPOINT // 10
    assert names(file) == sorted(map(str, range(CHECKPOINT // 2)))


def test_writers_go_on_while_the_log_gets_into_the_file(file: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: enter(file, number, together=bool(number % 3)), range(CHECKPOINT)))
    file.close()
    assert file._turns._checkpoint is None
    enter(file, CHECKPOINT)
    assert len(names(file)) == CHECKPOINT + 1


def test_a_connection_goes_with_its_thread(file: Database) -> None:
    names(file)
    before = len(file._readers)
    for _ in range(3):
        thread = threading.Thread(target=names, args=(file,))
        thread.start()
        thread.join()
    assert len(file._readers) == before == 1


def test_a_commit_stands_where_no_thread_can_be_had(file: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for number in range(CHECKPOINT // 2):
        enter(file, number)
    assert len(names(file)) == CHECKPOINT // 2
    file.close()
    assert len(names(file)) == CHECKPOINT // 2
