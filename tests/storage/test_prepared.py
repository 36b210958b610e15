"""Prepared statements answer what the library answers, on both kinds of database, and fail as it does."""

from __future__ import annotations

import pytest
from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import IntegrityError

from keyassay.storage import schema
from keyassay.storage.database import Actor, Database
from keyassay.storage.prepared import Prepared

A = "111111111111"
ACTOR = Actor(A, "AKIATEST")
KEYS = schema.access_keys
ENTER = Prepared(KEYS.insert(), KEYS.columns.keys())
ENTER_CHANGE = Prepared(schema.changes.insert(), schema.changes.columns.keys())
FIND = Prepared(select(KEYS).where(KEYS.c.id == bindparam("key"), KEYS.c.role == "gate"))
CHANGE = {
    "revision": 7, "account_id": A, "at": 2**40, "actor": "a", "source": "", "request_id": "", "operation": "X",
    "resource_type": "thing", "resource_id": "ü", "details": {"status": ["a", None]},
}  # fmt: skip


@pytest.fixture
def account(database: Database) -> Database:
    with database.write(ACTOR) as transaction:
        transaction.execute(schema.accounts.insert(), {"id": A, "name": "", "created_at": 0})
    return database


def key(name: str, **changed: object) -> dict[str, object]:
    row = {"id": name, "account_id": A, "role": "gate", "sealed_secret": b"\0\xff", "active": False, "created_at": 5}
    return {**row, **changed}


def test_rows_are_those_of_the_library(account: Database) -> None:
    with account.write(ACTOR) as transaction:
        ENTER.run(transaction.connection, key("one"))
        ENTER.run(transaction.connection, key("two", active=True, role="auditor"))
        ENTER_CHANGE.run(transaction.connection, CHANGE)
    with account.read() as connection:
        assert FIND.first(connection, {"key": "one"}) == key("one")
        assert FIND.first(connection, {"key": "two"}) is None  # of another role, which stands in the statement
        by_library = connection.execute(select(KEYS).order_by(KEYS.c.id)).mappings().all()
        assert [dict(row) for row in by_library] == [key("one"), key("two", active=True, role="auditor")]
        assert dict(connection.execute(select(schema.changes)).mappings().one()) == CHANGE
        wanted = Prepared(select(schema.changes).where(schema.changes.c.revision == bindparam("revision")))
        assert wanted.first(connection, {"revision": 7}) == CHANGE


def test_what_was_changed_comes_back(account: Database) -> None:
    rename = Prepared(
        update(schema.accounts)
        .where(schema.accounts.c.id == bindparam("account"))
        .values(name=schema.accounts.c.name + bindparam("more"))
        .returning(schema.accounts.c.name)
    )
    with account.write(ACTOR) as transaction:
        for more in ("x", "y"):
            found = rename.first(transaction.connection, {"account": A, "more": more})
        assert found == {"name": "xy"}
        assert rename.first(transaction.connection, {"account": "none", "more": ""}) is None


def test_errors_are_the_librarys_and_show_no_values(account: Database) -> None:
    def enter_twice() -> None:
        with account.write(ACTOR) as transaction:
            ENTER.run(transaction.connection, key("one", sealed_secret=b"a secret"))
            ENTER.run(transaction.connection, key("one", sealed_secret=b"a secret"))

    with pytest.raises(IntegrityError) as caught:
        enter_twice()
    assert "a secret" not in str(caught.value)
    with account.read() as connection:
        assert FIND.first(connection, {"key": "one"}) is None
    with account.write(ACTOR) as transaction:  # and the next writer finds everything in order
        ENTER.run(transaction.connection, key("one"))
