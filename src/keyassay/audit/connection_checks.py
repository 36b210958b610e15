"""Checks of who was connected when: certificates that several devices use, client ids that several connections use.

Two connections count as being there at the same time only if that lasted for more than ``HANDOVER``: a broker closes
the old connection of a device that comes back, and notices of both may cross.

Blind spots: devices with one certificate and one client id that drive each other out look like one that reconnects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Row, Select, func, or_, select

from keyassay.audit.examining import Batch, Certificates, Examiner, Found
from keyassay.storage import schema
from keyassay.storage.database import rows_in_chunks

_N = schema.connections.c

#: milliseconds that the old connection of a device may outlive the start of its new one
HANDOVER = 5_000
_FINDINGS = 250
_RELATED = 10


def _overlap(rows: Iterable[Row[Any]], now: int) -> tuple[Row[Any], Row[Any]] | None:
    """Two connections that were there at the same time with different ``mark``, of rows by rising start."""
    latest: list[tuple[int, Row[Any]]] = []  # the two that last longest, of different marks
    for row in rows:
        for end, other in latest:
            if other.mark != row.mark and min(end, row.ended_at or now) - row.started_at > HANDOVER:
                return other, row
        mine = (row.ended_at or now, row)
        rest = [one for one in latest if one[1].mark != row.mark]
        same = [one for one in latest if one[1].mark == row.mark]
        longest = max([mine, *same], key=lambda one: one[0])
        latest = sorted([*rest, longest], key=lambda one: -one[0])[:2]
    return None


class Shared(Certificates):
    """Device certificates with which several clients were connected at the same time."""

    def examine(self, connection: Connection, rows: Sequence[Row[Any]], after: str | None) -> Batch:
        found: list[Found] = []
        for chunk in rows_in_chunks([row.id for row in rows]):
            streamed = connection.execute(self._query(chunk), execution_options={"stream_results": True})
            for certificate_id, group in groupby(streamed, key=lambda row: row.certificate_id):
                pair = _overlap(group, self.audit.now)
                if pair is not None:
                    found.append(self._found(certificate_id, [one.mark for one in pair]))
        return Batch(len(rows), found, after)

    def _query(self, ids: Sequence[str]) -> Select[Any]:
        audit = self.audit
        return (
            select(_N.certificate_id, _N.client_id.label("mark"), _N.started_at, _N.ended_at)
            .where(
                _N.account_id == audit.account_id,
                _N.certificate_id.in_(ids),
                _N.started_at <= audit.now,
                or_(_N.ended_at.is_(None), _N.ended_at >= audit.since),
            )
            .order_by(_N.certificate_id, _N.started_at)
        )

    def _found(self, certificate_id: str, client_ids: Sequence[str]) -> Found:
        related = [{"resourceType": "CLIENT_ID", "resourceIdentifier": {"clientId": one}} for one in client_ids]
        return Found(self.identifier(certificate_id), "CERTIFICATE_SHARED_BY_MULTIPLE_DEVICES", related=related)


class Conflicting(Examiner):
    """Client ids that several connections used at the same time, or that two certificates took from each other."""

    def total(self, connection: Connection) -> int:
        query = select(func.count(func.distinct(_N.client_id))).where(*self._conditions(""))
        return int(connection.execute(query).scalar_one())

    def _conditions(self, after: str) -> list[Any]:
        audit = self.audit
        return [
            _N.account_id == audit.account_id,
            _N.client_id > after,
            _N.started_at <= audit.now,
            or_(_N.ended_at.is_(None), _N.ended_at >= audit.since),
        ]

    def batch(self, connection: Connection, after: str) -> Batch:
        query = select(_N.id.label("mark"), _N.client_id, _N.certificate_id, _N.started_at, _N.ended_at)
        query = query.where(*self._conditions(after)).order_by(_N.client_id, _N.started_at)
        found: list[Found] = []
        examined = 0
        with connection.execute(query, execution_options={"stream_results": True}) as streamed:
            for client_id, group in groupby(streamed, key=lambda row: row.client_id):
                examined += 1
                certificates = self._conflict(list(group))
                if certificates is not None:
                    found.append(_conflicting(client_id, certificates))
                    if len(found) >= _FINDINGS:
                        return Batch(examined, found, client_id)
        return Batch(examined, found, None)

    def _conflict(self, rows: Sequence[Any]) -> list[str] | None:
        """Certificates that used a client id in conflict; None if they did not."""
        pair = _overlap(rows, self.audit.now)
        if pair is not None or _returns(rows):
            return list(dict.fromkeys(row.certificate_id for row in pair or rows))
        return None


def _returns(rows: Iterable[Row[Any]]) -> bool:
    """Whether a certificate came back after another one had taken its place, both by driving the other out."""
    taken: Iterator[tuple[str, str]] = _takings(rows)
    seen: set[tuple[str, str]] = set()
    for old, new in taken:
        if (new, old) in seen:
            return True
        seen.add((old, new))
    return False


def _takings(rows: Iterable[Row[Any]]) -> Iterator[tuple[str, str]]:
    """Certificates (before, after) where one connection ended as one of another certificate began."""
    before: Row[Any] | None = None
    for row in rows:
        if (
            before is not None
            and before.certificate_id != row.certificate_id
            and before.ended_at is not None
            and abs(before.ended_at - row.started_at) <= HANDOVER
        ):
            yield before.certificate_id, row.certificate_id
        before = row


def _conflicting(client_id: str, certificates: Sequence[str]) -> Found:
    related = [
        {"resourceType": "DEVICE_CERTIFICATE", "resourceIdentifier": {"deviceCertificateId": one}}
        for one in certificates[:_RELATED]
    ]
    return Found({"clientId": client_id}, "DUPLICATE_CLIENT_ID_ACROSS_CONNECTIONS", related=related)
