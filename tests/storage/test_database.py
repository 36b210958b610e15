"""Transactions: all or nothing, in commit order, no update lost; the laws hold on both kinds of database."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, text, update

from keyassay.errors import KeyassayError
from keyassay.storage import schema
from keyassay.storage.database import Actor, BusyError, Database

A, B = "111111111111", "222222222222"
ACTOR = Actor(A, "AKIATEST", "192.0.2.1", "request-1")


@pytest.fixture
def accounts(database: Database) -> Database:
    with database.engine.begin() as connection:
        connection.execute(schema.accounts.insert(), [{"id": name, "name": name, "created_at": 0} for name in (A, B)])
    return database


def revisions(database: Database, account: str = A) -> list[int]:
    with database.read() as connection:
        query = select(schema.changes.c.revision).where(schema.changes.c.account_id == account)
        return list(connection.execute(query.order_by(schema.changes.c.revision)).scalars())


def test_a_change_is_recorded_with_who_when_and_from_where(accounts: Database) -> None:
    before = time.time_ns() // 1_000_000
    with accounts.write(ACTOR) as transaction:
        transaction.record("UpdateCertificate", "certificate", "ab", {"status": ["ACTIVE", "REVOKED"]})
        transaction.record("UpdateCertificate", "certificate", "cd", account_id=B)
    with accounts.read() as connection:
        first, second = connection.execute(select(schema.changes).order_by(schema.changes.c.revision)).mappings()
    assert (first["actor"], first["source"], first["request_id"]) == ("AKIATEST", "192.0.2.1", "request-1")
    assert first["details"] == {"status": ["ACTIVE", "REVOKED"]}
    assert before <= first["at"] <= time.time_ns() // 1_000_000
    assert (first["revision"], second["revision"], second["account_id"]) == (1, 2, B)


def test_a_block_that_raises_leaves_nothing(accounts: Database) -> None:
    with pytest.raises(ZeroDivisionError), accounts.write(ACTOR) as transaction:
        transaction.execute(update(schema.accounts).values(name="changed"))
        transaction.record("X", "account", A)
        raise ZeroDivisionError
    assert revisions(accounts) == []
    with accounts.read() as connection:
        assert set(connection.execute(select(schema.accounts.c.name)).scalars()) == {A, B}
    with accounts.write(ACTOR) as transaction:  # and the next one begins where it should
        transaction.record("X", "account", A)
    assert revisions(accounts) == [1]


def test_no_update_is_lost(accounts: Database) -> None:
    """Reading before writing is safe within an account."""

    def add_one(_number: int) -> None:
        with accounts.write(ACTOR) as transaction:
            name = transaction.execute(select(schema.accounts.c.name).where(schema.accounts.c.id == A)).scalar_one()
            value = int(name) + 1
            transaction.execute(update(schema.accounts).where(schema.accounts.c.id == A).values(name=str(value)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add_one, range(80)))
    with accounts.read() as connection:
        assert connection.execute(select(schema.accounts.c.name).where(schema.accounts.c.id == A)).scalar_one() == str(
            int(A) + 80
        )


def test_a_reader_of_the_feed_skips_nothing(accounts: Database) -> None:
    """Eight writers in two accounts, one follower: what it has passed is complete, always."""
    seen: list[int] = []
    finished = threading.Event()

    def write(number: int) -> None:
        account = (A, B)[number % 2]
        for _ in range(10):
            with accounts.write(Actor(account, f"writer {number}")) as transaction:
                transaction.record("X", "thing", str(number))
                transaction.record("Y", "thing", str(number))

    def follow() -> None:
        while True:
            last_round = finished.is_set()
            with accounts.read() as connection:
                query = select(schema.changes.c.revision).where(schema.changes.c.revision > (seen[-1] if seen else 0))
                seen.extend(connection.execute(query.order_by(schema.changes.c.revision)).scalars())
            if last_round:
                return

    follower = threading.Thread(target=follow)
    follower.start()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    finished.set()
    follower.join()
    assert seen == list(range(1, 161))


def test_both_sides_of_a_transfer_never_wait_in_a_circle(accounts: Database) -> None:
    def cross(number: int) -> None:
        mine, other = (A, B) if number % 2 else (B, A)
        with accounts.write(Actor(mine, "x"), other) as transaction:
            transaction.record("TransferCertificate", "certificate", str(number))
            transaction.record("TransferCertificate", "certificate", str(number), account_id=other)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(cross, range(60)))
    assert len(revisions(accounts, A)) == len(revisions(accounts, B)) == 60


def test_a_writer_that_waits_too_long_is_told(accounts: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyassay.storage.database.PATIENCE", 0.3)
    impatient = Database(accounts.url)
    with accounts.write(ACTOR), pytest.raises(BusyError), impatient.write(ACTOR):
        pass
    impatient.close()


def test_sqlite_is_told_to_keep_what_was_answered(tmp_path) -> None:
    database = Database(f"sqlite:///{tmp_path}/x.db")
    with database.read() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
    database.close()


@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y", "sqlite://", "sqlite:////nowhere/at/all/x.db"])
def test_an_address_that_cannot_be_used(url: str) -> None:
    with pytest.raises(KeyassayError):
        Database(url)


def test_an_attempt_that_fails_leaves_nothing_and_the_transaction_goes_on(accounts: Database) -> None:
    def write(name: str) -> None:
        row = {"account_id": A, "name": name, "document": {}, "modified_at": transaction.now}
        transaction.execute(schema.account_documents.insert().values(row))
        transaction.record("Write", "document", name)

    with accounts.write(ACTOR) as transaction:
        write("before")
        with pytest.raises(ValueError), transaction.attempt():
            write("failed")
            with transaction.attempt():
                write("inner")
            raise ValueError
        with transaction.attempt():
            write("after")
    with accounts.read() as connection:
        written = connection.execute(select(schema.account_documents.c.name)).scalars()
        assert sorted(written) == ["after", "before"]
        recorded = connection.execute(
            select(schema.changes.c.resource_id).order_by(schema.changes.c.revision)
        ).scalars()
        assert list(recorded) == ["before", "after"]
    assert revisions(accounts) == [1, 2]
