"""Writers of a SQLite file, alone and in a shared turn: what is said at its end is durable, and each fails alone."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import event, select
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


def enter(database: Database, number: int, *, name: str = "") -> None:
    with database.write(ACTOR) as transaction:
        row = {"id": f"{number:012}", "name": name or f"{number}", "created_at": 0}
        transaction.execute(schema.accounts.insert(), row)
        transaction.record("CreateAccount", "account", row["id"])


def enter_together(database: Database, numbers: list[int]) -> list[str]:
    """Enter accounts in a shared turn; what became of each."""
    with database.shared():
        return outcomes_of(database, numbers)


def outcomes_of(database: Database, numbers: list[int]) -> list[str]:
    return [_outcome(database, number) for number in numbers]


def _outcome(database: Database, number: int) -> str:
    try:
        enter(database, number)
    except IntegrityError:
        return "twice"
    except BusyError:
        return "busy"
    return "entered"


def changes(database: Database) -> list[tuple[int, str]]:
    columns = schema.changes.c
    with database.read() as connection:
        rows = connection.execute(select(columns.revision, columns.resource_id).order_by(columns.revision))
        return [(row.revision, row.resource_id) for row in rows]


def test_those_that_share_a_turn_have_one_commit(file: Database) -> None:
    commits = Commits(file)
    assert enter_together(file, [1, 2, 3, 4]) == ["entered"] * 4
    assert commits.count == 1
    assert names(file) == ["1", "2", "3", "4"]
    assert changes(file) == [(number, f"{number:012}") for number in (1, 2, 3, 4)]


def test_nothing_is_seen_before_the_end_and_all_of_it_after(file: Database) -> None:
    with sqlite3.connect(file.url.removeprefix("sqlite:///")) as other:

        def seen() -> int:
            return int(other.execute("SELECT count(*) FROM accounts").fetchone()[0])

        with file.shared():
            enter(file, 1)
            enter(file, 2)
            assert names(file) == []
            assert seen() == 0
        assert seen() == 2
    assert names(file) == ["1", "2"]


def test_others_wait_from_the_first_that_is_written_on(file: Database) -> None:
    with ThreadPoolExecutor(1) as pool:
        with file.shared():
            pool.submit(enter, file, 1).result(10)  # nothing was written here
            enter(file, 2)
            waits = pool.submit(enter, file, 3)
            for _ in range(2_000):
                if file._turns._queue:
                    break
                threading.Event().wait(0.005)
            enter(file, 4)
            assert not waits.done()
        waits.result(10)
    assert [resource for _, resource in changes(file)] == [f"{number:012}" for number in (1, 2, 4, 3)]


@pytest.mark.parametrize(
    ("numbers", "outcomes"),
    [
        ([1, 1, 2, 2, 3], ["entered", "twice", "entered", "twice", "entered"]),
        ([0, 1, 2], ["twice", "entered", "entered"]),
        ([0, 0], ["twice", "twice"]),
    ],
)
def test_one_that_fails_fails_alone(file: Database, numbers: list[int], outcomes: list[str]) -> None:
    enter(file, 0)
    commits = Commits(file)
    assert enter_together(file, numbers) == outcomes
    assert commits.count == 1
    assert names(file) == sorted({"0", *map(str, numbers)})
    assert [revision for revision, _ in changes(file)] == list(range(1, len(names(file)) + 1))


def test_what_is_shared_is_lost_with_the_block_around_it(file: Database) -> None:
    with pytest.raises(ZeroDivisionError), file.shared():
        enter(file, 1)
        raise ZeroDivisionError
    assert names(file) == []
    enter(file, 2)
    assert names(file) == ["2"]


def test_nobody_commits_for_nothing(file: Database) -> None:
    commits = Commits(file)
    with file.shared():
        assert names(file) == []
    assert commits.count == 0


def test_a_commit_that_fails_says_so_at_the_end_and_leaves_nothing(file: Database) -> None:
    commits = Commits(file)
    commits.failure = sqlite3.OperationalError("disk I/O error")
    with pytest.raises(sqlite3.OperationalError), file.shared():
        enter(file, 1)
        enter(file, 2)
    assert names(file) == []
    commits.failure = None
    enter(file, 3)
    assert names(file) == ["3"]


def test_a_part_that_cannot_be_undone_takes_the_others_with_it(file: Database) -> None:
    """As where the disk is full: SQLite undoes the whole transaction by itself."""
    with pytest.raises(BusyError), file.shared():
        enter(file, 1)
        with pytest.raises(ZeroDivisionError), file.write(ACTOR) as transaction:
            transaction.connection.connection.cursor().execute("ROLLBACK")
            raise ZeroDivisionError
        assert outcomes_of(file, [2, 3]) == ["busy", "busy"]
    assert names(file) == []
    enter(file, 4)
    assert names(file) == ["4"]


def test_who_cannot_have_the_shared_turn_waits_for_it_once(file: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyassay.storage.database.PATIENCE", 0.2)

    def several() -> list[str]:
        with file.shared():
            began = time.monotonic()
            found = outcomes_of(file, list(range(10)))
            assert time.monotonic() - began < 1.5
            said.extend(found)
        return found

    said: list[str] = []
    with ThreadPoolExecutor(1) as pool, file.write(ACTOR):
        assert type(pool.submit(several).exception(10)) is BusyError
    assert said == ["busy"] * 10
    monkeypatch.undo()
    enter(file, 11)
    assert names(file) == ["11"]


def test_all_is_there_at_the_end_on_every_database(database: Database) -> None:
    before = names(database)
    with database.shared():
        enter(database, 1)
        enter(database, 2)
    assert names(database) == sorted([*before, "1", "2"])


def test_many_at_once_lose_nothing(file: Database) -> None:
    with ThreadPoolExecutor(16) as pool:
        alone = pool.map(lambda number: [_outcome(file, number % 150)], range(100))
        shared = pool.map(
            lambda first: enter_together(file, [one % 150 for one in range(first, 300, 16)]), range(100, 116)
        )
        outcomes = [one for some in (*alone, *shared) for one in some]
    assert len(outcomes) == 300
    assert outcomes.count("entered") == 150
    assert outcomes.count("twice") == 150
    with file.read() as connection:
        revisions = list(connection.execute(select(schema.changes.c.revision)).scalars())
    assert sorted(revisions) == list(range(1, 151))


def test_a_turn_that_does_not_come_is_given_up(file: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyassay.storage.database.PATIENCE", 0.05)
    with ThreadPoolExecutor(1) as pool, file.write(ACTOR):
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
        list(pool.map(lambda number: enter(file, number), range(CHECKPOINT)))
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
