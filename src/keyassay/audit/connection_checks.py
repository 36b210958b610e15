"""Checks of who was connected when: certificates that several devices use, client ids that several connections use.

Two connections count as being there at the same time only if the earlier one sent something more than ``HANDOVER``
after the server knew of the later one: what a device that moved leaves behind stays in a gate's table for minutes, but
sends nothing. Of a gate that counts no bytes it is only known that what lasts for ``IDLE`` longer has sent something,
since HAProxy ends connections that send nothing (``timeout client``, half an hour as rendered).

Blind spots: devices with one certificate and one client id that drive each other out look like one that reconnects
(the alert ``key-in-two-places`` compares their addresses). Sessions whose client id no gate knew are left out.
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
#: milliseconds without a byte from a device after which its connection is gone; with a margin, since what a broker
#: sends to a device also holds its connection until TCP gives up
IDLE = 3_600_000
#: two certificates that took a client id from each other this often, in turn, within milliseconds, are two devices: one
#: that tries a new certificate may come back with the old one, but not again and again
TURNS, WITHIN = 3, 3_600_000
_TIMES = (_N.started_at, _N.seen_at, _N.ended_at, _N.recorded_at, _N.sent_at, _N.tls_version)
_FINDINGS = 250
_RELATED = 10


def _overlap(rows: Iterable[Row[Any]]) -> tuple[Row[Any], Row[Any]] | None:
    """Two connections that were there at the same time with different ``mark``, of rows by rising start."""
    latest: list[tuple[int, Row[Any]]] = []  # the two that lasted longest for certain, of different marks
    for row in rows:
        known = max(row.started_at, row.recorded_at or 0)
        # where nobody told of its beginning it may have been left behind long before
        is_new = row.tls_version != "" or (row.sent_at or 0) > known
        for end, other in latest if is_new else ():
            if other.mark != row.mark and min(end, row.ended_at or row.seen_at) - known > HANDOVER:
                return other, row
        mine = (_alive(row), row)
        rest = [one for one in latest if one[1].mark != row.mark]
        same = [one for one in latest if one[1].mark == row.mark]
        longest = max([mine, *same], key=lambda one: one[0])
        latest = sorted([*rest, longest], key=lambda one: -one[0])[:2]
    return None


def _alive(row: Row[Any]) -> int:
    """Until when a connection has certainly been alive: it sent something then, or after that."""
    lasted = (row.ended_at or row.seen_at) - IDLE
    return int(max(row.started_at, lasted, row.sent_at or 0))


class Shared(Certificates):
    """Device certificates with which several clients were connected at the same time."""

    def examine(self, connection: Connection, rows: Sequence[Row[Any]], after: str | None) -> Batch:
        found: list[Found] = []
        for chunk in rows_in_chunks([row.id for row in rows]):
            streamed = connection.execute(self._query(chunk), execution_options={"stream_results": True})
            for certificate_id, group in groupby(streamed, key=lambda row: row.certificate_id):
                pair = _overlap(group)
                if pair is not None:
                    found.append(self._found(certificate_id, [one.mark for one in pair]))
        return Batch(len(rows), found, after)

    def _query(self, ids: Sequence[str]) -> Select[Any]:
        audit = self.audit
        return (
            select(_N.certificate_id, _N.client_id.label("mark"), *_TIMES)
            .where(
                _N.account_id == audit.account_id,
                _N.certificate_id.in_(ids),
                _N.client_id != "",
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
        query = select(_N.id.label("mark"), _N.client_id, _N.certificate_id, *_TIMES)
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
        pair = _overlap(rows)
        if pair is not None or _returns(rows):
            return list(dict.fromkeys(row.certificate_id for row in pair or rows))
        return None


def _returns(rows: Iterable[Row[Any]]) -> bool:
    """Whether two certificates took the client id from each other in turn, ``TURNS`` times in a row."""
    turns: list[tuple[int, str, str]] = []
    for at, old, new in _takings(rows):
        if turns and (new, old) != turns[-1][1:]:
            turns = []
        turns.append((at, old, new))
        if len(turns) >= TURNS and at - turns[-TURNS][0] <= WITHIN:
            return True
    return False


def _takings(rows: Iterable[Row[Any]]) -> Iterator[tuple[int, str, str]]:
    """When, and certificates (before, after) where one connection ended as one of another certificate began."""
    before: Row[Any] | None = None
    for row in rows:
        if (
            before is not None
            and before.certificate_id != row.certificate_id
            and before.ended_at is not None
            and abs(before.ended_at - row.started_at) <= HANDOVER
        ):
            yield row.started_at, before.certificate_id, row.certificate_id
        before = row


def _conflicting(client_id: str, certificates: Sequence[str]) -> Found:
    related = [
        {"resourceType": "DEVICE_CERTIFICATE", "resourceIdentifier": {"deviceCertificateId": one}}
        for one in certificates[:_RELATED]
    ]
    return Found({"clientId": client_id}, "DUPLICATE_CLIENT_ID_ACROSS_CONNECTIONS", related=related)
