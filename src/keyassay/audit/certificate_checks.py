"""Checks of certificates by their dates: expiring soon or expired, in use for long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row

from keyassay.audit.examining import DAY, Batch, Certificates, Found

#: days before the end of an authority's certificate, which no account can set
_AUTHORITY_DAYS = 30


class Expiring(Certificates):
    """Certificates that end within the threshold, or have ended."""

    columns = ("not_after",)

    def examine(self, connection: Connection, rows: Sequence[Row[Any]], after: str | None) -> Batch:  # noqa: ARG002
        now = self.audit.now
        days = self.audit.days() if self.audit.check.thresholds else _AUTHORITY_DAYS
        found = [
            Found(
                self.identifier(row.id),
                "CERTIFICATE_PAST_EXPIRATION" if row.not_after < now else "CERTIFICATE_APPROACHING_EXPIRATION",
                additional={"EXPIRATION_TIME": str(row.not_after)},
            )
            for row in rows
            if row.not_after <= now + days * DAY
        ]
        return Batch(len(rows), found, after)


class Age(Certificates):
    """Certificates that were registered long ago."""

    columns = ("created_at",)

    def examine(self, connection: Connection, rows: Sequence[Row[Any]], after: str | None) -> Batch:  # noqa: ARG002
        oldest = self.audit.now - self.audit.days() * DAY
        found = [
            Found(self.identifier(row.id), "CERTIFICATE_PAST_AGE_THRESHOLD") for row in rows if row.created_at <= oldest
        ]
        return Batch(len(rows), found, after)
