"""DELIVERED -> CONNECTED: the device was seen to connect with its new certificate, whose key is sound and its own.

A gate saw the session (CONNACK 0); no clock is compared, since nobody could connect with the certificate before it was
issued. The key has been assessed, nothing is wrong with it, and no other certificate of the account has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, exists, select

from keyassay.audit import deep_search, verdicts
from keyassay.audit.verdicts import PublicFinding
from keyassay.registry.admission import read_der
from keyassay.registry.lifecycle import Status as CertificateStatus
from keyassay.replacement import units
from keyassay.replacement.states import State
from keyassay.replacement.units import Move, Unit
from keyassay.storage import schema
from keyassay.storage.database import Transaction, rows_in_chunks

_C = schema.certificates.c
_N = schema.connections.c
_U = schema.replacement_units.c

#: the verdict of a gate that let a session in
ACCEPTED = "ok"


@dataclass(frozen=True, slots=True)
class Session:
    """The first connection interval of a new certificate."""

    id: str
    gate: str
    client_id: str
    source: str
    tls_version: str
    started_at: int

    def as_json(self) -> dict[str, Any]:
        """Evidence."""
        return {
            "connectionId": self.id,
            "gate": self.gate,
            "clientId": self.client_id,
            "source": self.source,
            "tlsVersion": self.tls_version,
            "startedAt": self.started_at,
        }


def seen(connection: Connection, account_id: str, replacement_id: str, size: int) -> list[Unit]:
    """Units whose new certificate was seen, and which are not CONNECTED yet."""
    session = exists().where(
        _N.account_id == _U.account_id, _N.certificate_id == _U.new_certificate_id, _N.verdict == ACCEPTED
    )
    waiting = (State.ATTACHED.value, State.DELIVERED.value)
    query = units.query(account_id).where(
        _U.replacement_id == replacement_id, _U.state.in_(waiting), _U.new_certificate_id.is_not(None), session
    )
    return [units.read(row) for row in connection.execute(query.order_by(_U.state_at).limit(size)).mappings()]


def unassessed(connection: Connection, account_id: str, certificates: Iterable[str]) -> dict[bytes, bytes]:
    """Keys of certificates on which there is no verdict yet: subject public key infos by their digests."""
    columns = schema.key_verdicts.c
    known = exists().where(columns.spki_digest == _C.spki_digest)
    found: dict[bytes, bytes] = {}
    for ids in rows_in_chunks(list(certificates)):
        query = select(_C.spki_digest, _C.der).where(_C.account_id == account_id, _C.id.in_(ids), ~known)
        for row in connection.execute(query):
            found[bytes(row.spki_digest)] = read_der(bytes(row.der)).spki
    return found


def record(transaction: Transaction, waiting: Sequence[Unit]) -> int:
    """Move units that were seen on to CONNECTED; aside, with an alert, those whose new key is not sound or not theirs.

    Args:
        transaction: of the account.
        waiting: units from ``seen``; their keys have verdicts, else they stay.

    Returns:
        How many units changed their state.
    """
    connection, account_id = transaction.connection, transaction.account_id
    present = _again(connection, account_id, waiting)
    ids = [one.new_certificate_id for one in present if one.new_certificate_id]
    sessions = _sessions(connection, account_id, ids)
    query = select(_C.id, _C.status, _C.spki_digest).where(_C.account_id == account_id, _C.id.in_(ids))
    rows = {row.id: row for row in connection.execute(query)}
    digests = {bytes(row.spki_digest) for row in rows.values()}
    known = _verdicts(connection, account_id, digests)
    holders = _holders(connection, account_id, digests)
    arrived, moves, changed = [], [], 0
    for unit in present:
        new = unit.new_certificate_id or ""
        if new not in sessions:
            continue
        if new not in rows or rows[new].status != CertificateStatus.ACTIVE:
            units.fail(transaction, unit, "the new certificate is not ACTIVE any more")
            changed += 1
            continue
        digest = bytes(rows[new].spki_digest)
        others = sorted(holders.get(digest, set()) - {new})
        if others:
            problem = f"the new certificate's key is also in {len(others)} other certificates of the account"
            units.halt(transaction, unit, problem, {"others": others[:5], "session": sessions[new].as_json()})
            changed += 1
            continue
        if digest not in known:
            continue
        broken = [one for one in known[digest].findings if one.is_proven_broken]
        if broken:
            details = {"reasonCode": broken[0].reason_code, "session": sessions[new].as_json()}
            units.halt(transaction, unit, f"the new certificate's key is broken: {broken[0].message}", details)
            changed += 1
            continue
        if unit.state is State.ATTACHED:  # the answer went out, and whoever sent it could not say so
            arrived.append(Move(unit, State.DELIVERED, {"by": "seen", "connectionId": sessions[new].id}))
        evidence = {
            **sessions[new].as_json(),
            "keySha256": digest.hex(),
            "catalogue": known[digest].catalogue,
            "unique": True,
        }
        moves.append(Move(unit, State.CONNECTED, evidence))
    delivered = {one.key: one for one in units.advance(transaction, arrived)}
    moves = [Move(delivered.get(one.unit.key, one.unit), one.state, one.evidence) for one in moves]
    units.advance(transaction, moves)
    return changed + len(moves)


def _again(connection: Connection, account_id: str, waiting: Sequence[Unit]) -> list[Unit]:
    """The units as they are now, those that still wait."""
    new = {one.key: one.new_certificate_id for one in waiting}
    return [
        one
        for one in units.again(connection, account_id, waiting)
        if one.state in (State.ATTACHED, State.DELIVERED) and one.new_certificate_id == new[one.key]
    ]


def _sessions(connection: Connection, account_id: str, certificates: Sequence[str]) -> dict[str, Session]:
    query = select(_N.certificate_id, _N.id, _N.gate, _N.client_id, _N.source, _N.tls_version, _N.started_at).where(
        _N.account_id == account_id, _N.certificate_id.in_(certificates), _N.verdict == ACCEPTED
    )
    found: dict[str, Session] = {}
    for row in connection.execute(query.order_by(_N.certificate_id, _N.started_at.desc(), _N.id)):
        found[row.certificate_id] = Session(*row[1:])  # the first one is left
    return found


@dataclass(frozen=True, slots=True)
class _Known:
    catalogue: str
    findings: tuple[PublicFinding, ...]


def _verdicts(connection: Connection, account_id: str, digests: Iterable[bytes]) -> Mapping[bytes, _Known]:
    """What is known of keys by themselves, from deep audits too, and beside the other keys of the account or all."""
    columns = schema.key_verdicts.c
    wanted = list(digests)
    found: dict[bytes, _Known] = {}
    beside: dict[bytes, list[PublicFinding]] = {}
    for table in (schema.fleet_verdicts, schema.server_verdicts):
        query = select(table.c.spki_digest, table.c.finding).where(
            table.c.account_id == account_id, table.c.spki_digest.in_(wanted)
        )
        for row in connection.execute(query):
            beside.setdefault(bytes(row.spki_digest), []).append(PublicFinding.from_json(row.finding))
    for digest, (deeper, _) in deep_search.read(connection, wanted).items():
        beside.setdefault(digest, []).extend(deeper)
    alone = select(columns.spki_digest, columns.catalogue, columns.findings).where(columns.spki_digest.in_(wanted))
    for one in connection.execute(alone):
        digest = bytes(one.spki_digest)
        findings = [PublicFinding.from_json(each) for each in one.findings or ()]
        found[digest] = _Known(one.catalogue, verdicts.settle([*findings, *beside.get(digest, ())]))
    return found


def _holders(connection: Connection, account_id: str, digests: Iterable[bytes]) -> dict[bytes, set[str]]:
    """Certificates of the account that have or had each key: devices', authorities', and such as have left."""
    wanted = list(digests)
    found: dict[bytes, set[str]] = {}
    for table in (schema.certificates, schema.authorities, schema.former_certificates):
        columns = table.c
        query = select(columns.spki_digest, columns.id).where(
            columns.account_id == account_id, columns.spki_digest.in_(wanted)
        )
        for row in connection.execute(query.limit(10_000)):
            found.setdefault(bytes(row.spki_digest), set()).add(row.id)
    return found
