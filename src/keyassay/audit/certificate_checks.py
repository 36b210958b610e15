"""Checks of certificates by their dates: expiring soon or expired, in use for long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, FromClause, Row

from keyassay.audit.examining import DAY, Audit, Batch, Certificates, Found
from keyassay.registry.admission import read_der
from keyassay.storage import schema

#: days before the end of an authority's certificate, which no account can set
_AUTHORITY_DAYS = 30


class Expiring(Certificates):
    """Device certificates, or authorities, that end within the threshold, or have ended."""

    def __init__(self, audit: Audit, table: FromClause = schema.certificates) -> None:
        super().__init__(audit, table)
        self.columns = ("not_after",) if table is schema.certificates else ("der",)

    def examine(self, connection: Connection, rows: Sequence[Row[Any]], after: str | None) -> Batch:
        now = self.audit.now
        days = self.audit.days() if self.audit.check.thresholds else _AUTHORITY_DAYS
        found = [
            self.found(
                connection,
                name,
                "CERTIFICATE_PAST_EXPIRATION" if end < now else "CERTIFICATE_APPROACHING_EXPIRATION",
                additional={"EXPIRATION_TIME": str(end)},
            )
            for name, end in self._ends(rows)
            if end <= now + days * DAY
        ]
        return Batch(len(rows), found, after)

    def _ends(self, rows: Sequence[Row[Any]]) -> list[tuple[str, int]]:
        """Ids, and the ends of their validity."""
        if self.table is schema.certificates:
            return [(row.id, row.not_after) for row in rows]
        return [(row.id, read_der(bytes(row.der)).not_after) for row in rows]


class Age(Certificates):
    """Certificates that were registered long ago."""

    columns = ("created_at",)

    def examine(self, connection: Connection, rows: Sequence[Row[Any]], after: str | None) -> Batch:  # noqa: ARG002
        oldest = self.audit.now - self.audit.days() * DAY
        found = [
            Found(self.identifier(row.id), "CERTIFICATE_PAST_AGE_THRESHOLD") for row in rows if row.created_at <= oldest
        ]
        return Batch(len(rows), found, after)
