"""What gates report, and what follows from it: which gates there are, and where a revocation has arrived."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select, update

from keyassay.registry import certificates
from keyassay.registry.connect_entries import Entry, compiled
from keyassay.registry.connect_holders import holders
from keyassay.registry.errors import InvalidError, NotFoundError
from keyassay.registry.gate_feed import server_state
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor

_CH = schema.changes.c
_C = schema.certificates.c
_GA = schema.gates.c
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


@dataclass(frozen=True, slots=True)
class Report:
    """What a gate says of itself every few seconds.

    Attributes:
        gate: its name.
        epoch, revision: what it has applied.
        started_at: milliseconds since 1970.
        details: "version", "sessions", "refusals" (verdict -> number), "lagSeconds".
    """

    gate: str
    epoch: str
    revision: int
    started_at: int
    details: Mapping[str, Any]


def read_report(body: Mapping[str, Any]) -> Report:
    """A report from the dict that sources hand on: "gate", "epoch", "revision", "startedAt" (ms) and details.

    Raises:
        InvalidError: something is missing or of another kind.
    """
    try:
        refusals = {str(one)[:32]: int(count) for one, count in sorted(body.get("refusals", {}).items())[:64]}
        lag = round(float(body.get("lagSeconds", 0.0)), 3)
        numbers = [int(body["revision"]), int(body["startedAt"]), int(body.get("sessions", 0)), *refusals.values()]
        if not math.isfinite(lag) or not all(0 <= one < 1 << 63 for one in numbers):
            raise ValueError  # noqa: TRY301  told like the others
        version = str(body.get("version", ""))[:64]
        details = {"version": version, "sessions": numbers[2], "refusals": refusals, "lagSeconds": lag}
        return Report(str(body["gate"]), str(body["epoch"])[:32], numbers[0], numbers[1], details)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        raise InvalidError("the report of a gate has gate, epoch, revision and startedAt, and numbers in it") from None


def report(registry: Registry, actor: Actor, told: Report) -> None:
    """Note what a gate says; the first report makes the gate known, and one that was retired is back.

    Raises:
        InvalidError: no name of a gate.
    """
    if not _NAME.fullmatch(told.gate):
        raise InvalidError("the name of a gate has 1 to 64 of the characters A-Z a-z 0-9 _ . : -")
    here = (_GA.account_id == actor.account_id) & (_GA.name == told.gate)
    with registry.database.write(actor) as transaction:
        row = transaction.execute(select(_GA.retired_at).where(here)).first()
        values = {
            "epoch": told.epoch,
            "revision": told.revision,
            "details": dict(told.details),
            "started_at": told.started_at,
            "reported_at": transaction.now,
            "retired_at": None,
        }
        if row is None:
            key = {"account_id": actor.account_id, "name": told.gate}
            transaction.execute(schema.gates.insert().values(**key, **values))
        else:
            transaction.execute(update(schema.gates).where(here).values(values))
        if row is None or row.retired_at is not None:
            # not every report: each change would wake all gates
            transaction.record("ReportGate", "gate", told.gate, {"returned": row is not None})


def retire(registry: Registry, actor: Actor, name: str) -> None:
    """Note that a gate is gone for good: proofs of revocation do not wait for it any longer.

    Raises:
        NotFoundError: no such gate.
    """
    here = (_GA.account_id == actor.account_id) & (_GA.name == name)
    with registry.database.write(actor) as transaction:
        row = transaction.execute(select(_GA.retired_at).where(here)).first()
        if row is None:
            raise NotFoundError("there is no such gate")
        if row.retired_at is None:
            transaction.execute(update(schema.gates).where(here).values(retired_at=transaction.now))
            transaction.record("RetireGate", "gate", name)


def listed(registry: Registry, actor: Actor) -> dict[str, Any]:
    """All gates of the account by name, with the feed's epoch and last revision."""
    with registry.database.read() as connection:
        epoch, revision = server_state(connection)
        rows = _gates(connection, actor.account_id)
    return {"epoch": epoch, "revision": revision, "gates": [dict(row._mapping) for row in rows]}  # noqa: SLF001  a name of SQLAlchemy's API


def _gates(connection: Connection, account_id: str) -> Sequence[Any]:
    return connection.execute(select(schema.gates).where(_GA.account_id == account_id).order_by(_GA.name)).all()


# What people ask


def connect_entry(registry: Registry, actor: Actor, certificate_id: str) -> Entry:
    """What gates are told of a certificate, with the problems.

    Raises:
        NotFoundError, InvalidError: no such certificate; no id.
    """
    certificates.check_id(certificate_id)
    with registry.database.read() as connection:
        row = certificates.find(connection, actor.account_id, certificate_id)
        (holder,) = holders(registry, connection, actor.account_id, [certificate_id])
    return compiled(holder, row["status"])


@dataclass(frozen=True, slots=True)
class GateProof:
    """Whether a gate has carried out what took a certificate's permission.

    Attributes:
        name: of the gate.
        applied: whether it reported the revision, of the present epoch, or a later one.
        revision: that it reported last.
        reported_at: when that was, milliseconds since 1970.
        sessions: connections of the certificate that it has not reported as ended.
    """

    name: str
    applied: bool
    revision: int
    reported_at: int
    sessions: int


@dataclass(frozen=True, slots=True)
class RevocationProof:
    """Where a certificate that may not connect any longer is refused already.

    Attributes:
        certificate_id: which.
        status: its status, or "DELETED".
        revision: of the change that gave it that status; None if it is ACTIVE, or the change is not kept.
        at: when that was, milliseconds since 1970.
        gates: those that are not retired.
    """

    certificate_id: str
    status: str
    revision: int | None
    at: int | None
    gates: tuple[GateProof, ...]

    @property
    def everywhere(self) -> bool:
        """Whether every gate has applied it and no session is left; false without gates."""
        done = all(one.applied and not one.sessions for one in self.gates)
        return self.revision is not None and bool(self.gates) and done


def revocation(registry: Registry, actor: Actor, certificate_id: str) -> RevocationProof:
    """Where the revocation (deactivation, deletion, ...) of a certificate has arrived.

    Raises:
        InvalidError: no id.
        NotFoundError: the account never had that certificate.
    """
    certificates.check_id(certificate_id)
    account_id = actor.account_id
    open_ = schema.connections.c
    with registry.database.read() as connection:
        epoch, _ = server_state(connection)
        here = (_C.account_id == account_id) & (_C.id == certificate_id)
        status = connection.execute(select(_C.status).where(here)).scalar()
        rows = _gates(connection, account_id)
        change = None if status == "ACTIVE" else _last_status_change(connection, account_id, certificate_id)
        if status is None and change is None:
            raise NotFoundError("there is no such certificate")
        live = (open_.account_id == account_id) & (open_.certificate_id == certificate_id) & open_.ended_at.is_(None)
        query = select(open_.gate, func.count()).where(live).group_by(open_.gate)
        sessions = {row[0]: row[1] for row in connection.execute(query)}
    revision = None if change is None else change.revision
    proofs = tuple(
        GateProof(
            row.name,
            revision is not None and row.epoch == epoch and row.revision >= revision,
            row.revision,
            row.reported_at,
            sessions.get(row.name, 0),
        )
        for row in rows
        if row.retired_at is None
    )
    return RevocationProof(certificate_id, status or "DELETED", revision, None if change is None else change.at, proofs)


#: what is recorded of a certificate and gives it no other status
_NO_STATUS = ("AttachThingPrincipal", "DetachThingPrincipal", "ScreenCertificate")


def _last_status_change(connection: Connection, account_id: str, certificate_id: str) -> Any:
    query = select(_CH.revision, _CH.at).where(
        _CH.account_id == account_id,
        _CH.resource_type == "certificate",
        _CH.resource_id == certificate_id,
        _CH.operation.not_in(_NO_STATUS),
    )
    return connection.execute(query.order_by(_CH.revision.desc()).limit(1)).first()
