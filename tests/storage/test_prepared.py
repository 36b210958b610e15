"""Prepared statements answer what the library answers, on both kinds of database, and fail as it does."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.exc import IntegrityError

from keyassay.storage import schema
from keyassay.storage.database import Actor, Database
from keyassay.storage.prepared import Prepared, PreparedRows, among

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


SAID = PreparedRows(schema.alerts)
SAY_AGAIN = PreparedRows(schema.alerts, keys=("account_id", "id"), values=("certificate_id", "at"))
OF_KINDS = Prepared(
    select(schema.alerts).where(
        schema.alerts.c.account_id == bindparam("account"), among(schema.alerts.c.kind, "kinds")
    )
)
ODD = ["", "ü'\"\\", "{a,b}", "[1]", "\U0001f600", "null", "x" * 60]


def alert(number: int, **changed: object) -> dict[str, object]:
    row = {
        "account_id": A, "id": f"{number}", "at": 2**40 + number, "kind": "kind", "occasion": f"{number}",
        "certificate_id": None, "thing_name": "ü", "details": {"a": [None, 1.5, "ü"]},
    }  # fmt: skip
    return {**row, **changed}


def said(connection: Connection) -> list[dict[str, object]]:
    rows = connection.execute(select(schema.alerts)).mappings()
    return sorted(map(dict, rows), key=lambda row: int(str(row["id"])))


def test_many_rows_are_made_and_changed_as_by_the_library(account: Database) -> None:
    many = [alert(number, kind=kind) for number, kind in enumerate(ODD * 40)]
    with account.write(ACTOR) as transaction:
        SAID.run(transaction.connection, [])
        SAID.run(transaction.connection, [{**row, "further": object()} for row in many])
        assert said(transaction.connection) == many
        changes = [{**row, "certificate_id": f"{row['kind']}!"[:64], "at": 7, "kind": "-"} for row in many[3:200]]
        SAY_AGAIN.run(transaction.connection, [*changes, alert(999)])  # the last one is not there
    by_hand = [
        {**row, "certificate_id": f"{row['kind']}!"[:64], "at": 7} if 3 <= number < 200 else row
        for number, row in enumerate(many)
    ]
    with account.read() as connection:
        assert said(connection) == by_hand


def test_any_number_of_values_can_be_asked_for(account: Database) -> None:
    with account.write(ACTOR) as transaction:
        SAID.run(transaction.connection, [alert(number, kind=kind) for number, kind in enumerate(ODD)])
    with account.read() as connection:
        for kinds in ([], ODD[:1], ODD[1:4], ODD, [*ODD, *map(str, range(40_000))], ["nothing"], ["%", "_"]):
            found = OF_KINDS.all(connection, {"account": A, "kinds": kinds})
            assert sorted(str(row["kind"]) for row in found) == sorted(set(kinds) & set(ODD))
            assert all(row == alert(int(row["id"]), kind=row["kind"]) for row in found)
        assert OF_KINDS.all(connection, {"account": "other", "kinds": ODD}) == []


def test_one_row_that_fails_fails_all_and_shows_no_values(account: Database) -> None:
    def say_twice() -> None:
        with account.write(ACTOR) as transaction:
            SAID.run(transaction.connection, [alert(1), alert(2), alert(2, thing_name="a secret")])

    with pytest.raises(IntegrityError) as caught:
        say_twice()
    assert "a secret" not in str(caught.value)
    with account.read() as connection:
        assert said(connection) == []
