"""Copies hold every row of every table, from either kind of database into either kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from keyassay.errors import KeyassayError
from keyassay.storage import schema, upgrading
from keyassay.storage.copying import copy
from keyassay.storage.database import Actor, Database

A = "111111111111"


def fill(database: Database) -> None:
    """A row in every table: whatever a column may hold."""
    values = {"String": "x", "Text": "é\u2028", "BigInteger": 2**40, "Integer": 7, "Boolean": True,
              "LargeBinary": bytes(range(256)), "JSON": {"a": [1, None, "é"]}, "Float": 0.1}  # fmt: skip
    with database.engine.begin() as connection:
        for table in schema.METADATA.sorted_tables:
            if table is schema.server:
                continue
            row = {column.name: values[type(column.type).__name__] for column in table.columns}
            if "account_id" in row:
                row["account_id"] = A
            if table is schema.accounts:
                row["id"] = A
            connection.execute(table.insert().values(row))


def contents(database: Database) -> dict[str, list[tuple[object, ...]]]:
    with database.read() as connection:
        return {
            table.name: [
                tuple(bytes(value) if isinstance(value, memoryview) else value for value in row)
                for row in connection.execute(select(table))
            ]
            for table in schema.METADATA.sorted_tables
        }


@pytest.mark.parametrize("new_epoch", [True, False])
def test_everything_arrives(database: Database, empty_database_url: str, new_epoch: bool) -> None:
    fill(database)
    told: list[tuple[int, int]] = []
    target = Database(empty_database_url)
    copied = copy(database, target, new_epoch=new_epoch, progress=lambda done, total: told.append((done, total)))
    before, after = contents(database), contents(target)
    assert copied == sum(len(rows) for rows in before.values()) == len(schema.METADATA.sorted_tables)
    assert told[0] == (0, copied)
    assert told[-1] == (copied, copied)
    assert (before.pop("server") == after.pop("server")) is not new_epoch
    assert before == after
    with target.write(Actor(A, "x")) as transaction:  # and it works
        transaction.record("X", "thing", "x")
    target.close()


def test_a_target_that_holds_something_is_left_alone(database: Database, tmp_path: Path) -> None:
    other = Database(f"sqlite:///{tmp_path}/other.db")
    upgrading.upgrade(other)
    before = contents(other)
    with pytest.raises(KeyassayError, match="not empty"):
        copy(database, other, new_epoch=True)
    assert contents(other) == before
    other.close()


def test_more_rows_than_fit_a_statement(tmp_path: Path) -> None:
    source, target = (Database(f"sqlite:///{tmp_path}/{name}.db") for name in ("source", "target"))
    upgrading.upgrade(source)
    with source.engine.begin() as connection:
        connection.execute(schema.leases.insert(), [
            {"name": str(number), "holder": "", "fence": number, "expires_at": 0} for number in range(2_500)
        ])  # fmt: skip
    copy(source, target, new_epoch=False)
    assert len(contents(target)["leases"]) == 2_500
    source.close()
    target.close()
