"""Two accounts for tests of the registry, and a look into its tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keyassay.storage import schema
from keyassay.storage.database import Actor, Database

A = Actor("111111111111", "AKIAAAAAAAAAAAAAAAAA", "192.0.2.1", "request-a")
B = Actor("222222222222", "AKIABBBBBBBBBBBBBBBB", "192.0.2.2", "request-b")
SECRET = "secret" * 7


@dataclass
class Rows:
    """Looks into tables, for tests."""

    database: Database

    def all(self, table: str, **conditions: Any) -> list[dict[str, Any]]:
        """The rows of a table whose columns have these values."""
        query = schema.METADATA.tables[table].select().filter_by(**conditions)
        with self.database.read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def everything(self) -> bytes:
        """All values of all tables."""
        found = []
        with self.database.read() as connection:
            for table in schema.METADATA.sorted_tables:
                for row in connection.execute(table.select()):
                    found += [
                        bytes(value) if isinstance(value, (bytes, memoryview)) else str(value).encode() for value in row
                    ]
        return b"\n".join(found)

    def operations(self, actor: Actor = A) -> list[str]:
        """What was recorded in an account, in commit order, after the account was made."""
        rows = sorted(self.all("changes", account_id=actor.account_id), key=lambda row: row["revision"])
        return [row["operation"] for row in rows if row["resource_type"] not in ("account", "access-key")]
