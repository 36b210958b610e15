"""The table of operations, made from the code: for ``keyassay operations`` and for docs/operations.md.

``python -m keyassay.aws.reference docs/operations.md`` writes the page; a test fails when it is stale.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyassay.aws.operations import ROLES, Access, Operations, discover

_HEAD = """# Operations

What `keyassay serve` answers, made from the code (`keyassay operations` prints the same). Requests and responses are
those of AWS IoT; any other operation of its model answers 501 `NotImplementedException` at once. The column *access*
says what the access key's role must permit:

{roles}

## Of AWS IoT's API

| operation | request | access |
| --- | --- | --- |
{operations}

## Of our own

Signed like the others (service `iot`), JSON in and out, with the same form of errors. [openapi.json](openapi.json)
describes them; every server shows it at `/keyassay/v1/openapi.json`.

| operation | request | access |
| --- | --- | --- |
{endpoints}
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One operation."""

    name: str
    method: str
    path: str
    access: str
    supported: bool
    own: bool

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "name": self.name,
            "method": self.method,
            "path": self.path,
            "access": self.access,
            "supported": self.supported,
        }


def rows() -> list[Row]:
    """All operations of the service model and our own endpoints, by name."""
    operations = Operations(discover())
    supported = set(operations.supported)
    found = [
        Row(name, one.method, one.uri, operations.access_of(name).value, name in supported, own=False)
        for name, one in operations.model.operations.items()
    ]
    found += [
        Row(one.operation.name, one.operation.method, one.operation.uri, one.access.value, supported=True, own=True)
        for one in operations.endpoints
    ]
    return sorted(found, key=lambda row: row.name)


def page() -> str:
    """The page of the documentation."""
    roles = "\n".join(
        f"- {role}: {', '.join(access.value for access in Access if access in permitted)}"
        for role, permitted in ROLES.items()
    )

    def lines(chosen: list[Row]) -> str:
        return "\n".join(f"| {row.name} | `{row.method} {row.path}` | {row.access} |" for row in chosen)

    supported = [row for row in rows() if row.supported]
    return _HEAD.format(
        roles=roles,
        operations=lines([row for row in supported if not row.own]),
        endpoints=lines([row for row in supported if row.own]),
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
