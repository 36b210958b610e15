"""Units of replacements: found by their things, and moved from state to state, each step with its evidence.

A step is one transaction: the unit's state, a row of ``replacement_steps`` with the evidence, and a record of the audit
trail. ``delivery`` calls ``issued``, ``attach`` and ``delivered`` for what a device asks; ``retiring`` and ``worker``
do what follows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, case, select, update

from keyassay.registry import alerts, certificates
from keyassay.registry.errors import CertificateStateError, InvalidError, NotFoundError
from keyassay.registry.lifecycle import Status as CertificateStatus
from keyassay.replacement.states import BEYOND_RETURN, CLOSED, WAY, WITH_DEVICE, State, Status
from keyassay.storage import schema
from keyassay.storage.database import Transaction

_U = schema.replacement_units.c
_R = schema.replacements.c
_A = schema.policy_attachments.c
_P = schema.thing_principals.c

#: the operation under which steps are recorded
OPERATION = "ReplacementStep"
#: steps by which an operator lets a unit go on that was aside
RETRIED, BEGUN_ANEW = "RETRIED", "BEGUN_ANEW"
#: policies that a certificate may have (AWS's quota)
_MOST_POLICIES = 10


class UnitStateError(InvalidError):
    """The unit is not in a state in which this can be done."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One old certificate at one thing.

    Attributes:
        account_id: whose.
        replacement_id: of which replacement.
        old_certificate_id: what is being replaced.
        thing_name: where; "" if the certificate has no thing.
        state: see ``states``.
        batch: in which batch it was begun; 0 if it was not yet.
        request_id: names the request for a new certificate at every issuer; another one after a new beginning.
        csr_digest: hexadecimal SHA-256 of the DER of the request that was taken.
        new_certificate_id: what was issued.
        problem: what hinders it.
        state_at: since when it has the state, milliseconds since 1970.
        evidence: of each step by the state that it led to; "before" is the state before HALTED or FAILED.
        status: of its replacement.
        settings: of its replacement.
    """

    account_id: str
    replacement_id: str
    old_certificate_id: str
    thing_name: str
    state: State
    batch: int
    request_id: str
    csr_digest: str | None
    new_certificate_id: str | None
    problem: str | None
    state_at: int
    evidence: Mapping[str, Any]
    status: Status
    settings: Mapping[str, Any]

    @property
    def is_served(self) -> bool:
        """Whether the device may have a new certificate now: the replacement runs, and the unit was begun."""
        if self.status is not Status.RUNNING:
            return False
        return self.state is State.UNREACHABLE or (self.state in WITH_DEVICE and self.batch > 0)

    @property
    def tried_again_at(self) -> int:
        """When an operator let it go on or begin anew, milliseconds since 1970; 0 if nobody did."""
        return max(int(self.evidence.get(step, {}).get("at", 0)) for step in (RETRIED, BEGUN_ANEW))

    @property
    def key(self) -> tuple[str, str, str]:
        """What names it in its account."""
        return self.replacement_id, self.old_certificate_id, self.thing_name

    def occasion(self, what: str) -> str:
        """Names something that happens to it, for ``alerts``."""
        named = "\0".join((what, *self.key, self.request_id))
        return f"{what}:{hashlib.sha256(named.encode()).hexdigest()[:40]}"


@dataclass(frozen=True, slots=True)
class Move:
    """A step that is to be done.

    Attributes:
        unit: as it is now.
        state: that it gets.
        evidence: why, JSON.
        values: further columns of the unit.
        step: what the step is called, if not as the state.
    """

    unit: Unit
    state: State
    evidence: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    step: str = ""


def query(account_id: str) -> Select[Any]:
    """All units of an account, for ``read``."""
    its = and_(_R.account_id == _U.account_id, _R.id == _U.replacement_id)
    return (
        select(schema.replacement_units, _R.status, _R.settings)
        .join(schema.replacements, its)
        .where(_U.account_id == account_id)
    )


def read(row: Mapping[Any, Any]) -> Unit:
    """A unit of a row of ``query``."""
    return Unit(
        account_id=row["account_id"],
        replacement_id=row["replacement_id"],
        old_certificate_id=row["old_certificate_id"],
        thing_name=row["thing_name"],
        state=State(row["state"]),
        batch=row["batch"],
        request_id=row["request_id"],
        csr_digest=row["csr_digest"],
        new_certificate_id=row["new_certificate_id"],
        problem=row["problem"],
        state_at=row["state_at"],
        evidence=row["evidence"],
        status=Status(row["status"]),
        settings=row["settings"],
    )


def find(
    connection: Connection, account_id: str, replacement_id: str, old_certificate_id: str, thing_name: str
) -> Unit:
    """One unit.

    Raises:
        NotFoundError: there is none.
    """
    one = query(account_id).where(
        _U.replacement_id == replacement_id,
        _U.old_certificate_id == old_certificate_id,
        _U.thing_name == thing_name,
    )
    row = connection.execute(one).mappings().first()
    if row is None:
        raise NotFoundError("there is no such unit of a replacement")
    return read(row)


def again(connection: Connection, account_id: str, known: Iterable[Unit]) -> list[Unit]:
    """Units of one replacement as they are now, in the same order."""
    wanted = [one.key for one in known]
    old = sorted({one[1] for one in wanted})
    if not old:
        return []
    things = sorted({one[2] for one in wanted})
    its = query(account_id).where(_U.replacement_id == wanted[0][0], _U.old_certificate_id.in_(old))
    its = its.where(_U.thing_name.in_(things))
    found = {one.key: one for one in map(read, connection.execute(its).mappings())}
    return [found[key] for key in wanted if key in found]


def open_unit_of(connection: Connection, account_id: str, thing_name: str) -> Unit | None:
    """The unit of a thing that a request of its device is about; None if nothing of it is being replaced.

    Of several (a thing may have several old certificates) it is one that is served and waits for the device, else one
    that is served, else any that is open; the oldest replacement first. Ask ``is_served`` before anything is issued.

    Args:
        connection: of a read, or the transaction's that goes on with it.
        account_id: whose.
        thing_name: of the thing, not empty.
    """
    waiting = case((_U.state.in_([one.value for one in (*WITH_DEVICE, State.UNREACHABLE)]), 0), else_=1)
    running = case((_R.status == Status.RUNNING.value, 0), else_=1)
    begun = case((_U.batch > 0, 0), else_=1)
    its = query(account_id).where(_U.thing_name == thing_name, _U.open)
    its = its.order_by(running, waiting, begun, _R.started_at, _R.id, _U.old_certificate_id).limit(1)
    row = connection.execute(its).mappings().first()
    return None if row is None else read(row)


def offer(unit: Unit) -> dict[str, Any]:
    """What a device is told of its unit: the payload of ``notify`` and of ``get/accepted``."""
    return {
        "accountId": unit.account_id,
        "replacementId": unit.replacement_id,
        "oldCertificateId": unit.old_certificate_id,
        "state": unit.state.value,
        "proof": unit.settings["proof"],
    }


# Steps


def issued(
    transaction: Transaction, unit: Unit, csr_digest: str, new_certificate_id: str, evidence: Mapping[str, Any]
) -> Unit:
    """PLANNED (or UNREACHABLE) -> ISSUED; ``attach`` has to follow, in this or the next transaction.

    Args:
        transaction: in which the certificate was registered.
        unit: it may be a little old, the present one is looked up.
        csr_digest: hexadecimal SHA-256 of the DER of the device's request.
        new_certificate_id: registered in the account.
        evidence: JSON: which proof was accepted and how the request came; never a secret.

    Returns:
        The unit as it is now; the same call again changes nothing.

    Raises:
        UnitStateError: it has another certificate, is not served, or is in another state.
        NotFoundError: there is no such certificate or unit.
    """
    unit = find(transaction.connection, transaction.account_id, *unit.key)
    if unit.new_certificate_id == new_certificate_id and unit.csr_digest == csr_digest and unit.state in WAY:
        return unit
    if unit.state not in (State.PLANNED, State.UNREACHABLE) or not unit.is_served:
        raise UnitStateError(f"the unit is {unit.state} in a replacement that is {unit.status}: nothing is issued")
    certificates.find(transaction.connection, transaction.account_id, new_certificate_id)
    if new_certificate_id == unit.old_certificate_id:
        raise UnitStateError("the new certificate is the old one")
    taken = select(_U.thing_name).where(
        _U.account_id == transaction.account_id, _U.new_certificate_id == new_certificate_id
    )
    if transaction.execute(taken.limit(1)).first() is not None:
        raise UnitStateError("the certificate was issued for another unit")
    # what came as a claim was never begun, and may be asked for again all the same
    values = {"csr_digest": csr_digest, "new_certificate_id": new_certificate_id, "batch": max(unit.batch, 1)}
    return advance(transaction, [Move(unit, State.ISSUED, {**evidence, "csrSha256": csr_digest}, values)])[0]


def attach(transaction: Transaction, unit: Unit) -> Unit:
    """ISSUED -> ATTACHED: the new certificate is ACTIVE and gets the policies of the old one, and the thing.

    The attachment is exclusive if that of the old one is. What holds by groups holds by the thing.

    Returns:
        The unit as it is now: FAILED if there is nothing to attach to; unchanged if it is in another state.
    """
    unit = find(transaction.connection, transaction.account_id, *unit.key)
    if unit.state is not State.ISSUED or unit.new_certificate_id is None:
        return unit
    account_id, old, new = unit.account_id, unit.old_certificate_id, unit.new_certificate_id
    held = {
        row.certificate_id: row
        for row in transaction.execute(
            select(_P.certificate_id, _P.thing_name, _P.exclusive).where(
                _P.account_id == account_id,
                _P.certificate_id.in_((old, new)),
                (_P.certificate_id == new) | (_P.thing_name == unit.thing_name),
            )
        )
    }
    if old not in held:
        return fail(transaction, unit, "the old certificate is not attached to the thing any more")
    if new in held and held[new].thing_name != unit.thing_name:
        return fail(transaction, unit, "the new certificate is attached to another thing")
    try:
        certificates.change_status(transaction, "UpdateCertificate", new, CertificateStatus.ACTIVE)
    except (CertificateStateError, NotFoundError) as error:
        return fail(transaction, unit, f"the new certificate cannot be used: {error.message}")
    policies: dict[str, set[str]] = {}
    targets = (f"cert/{old}", f"cert/{new}")
    attached = select(_A.target, _A.policy_name).where(_A.account_id == account_id, _A.target.in_(targets))
    for row in transaction.execute(attached):
        policies.setdefault(row.target, set()).add(row.policy_name)
    wanted, present = (policies.get(one, set()) for one in targets)
    if len(wanted | present) > _MOST_POLICIES:
        return fail(transaction, unit, f"the new certificate would have more than {_MOST_POLICIES} policies")
    missing = sorted(wanted - present)
    if missing:
        rows = [
            {"account_id": account_id, "target": targets[1], "policy_name": name, "attached_at": transaction.now}
            for name in missing
        ]
        transaction.execute(schema.policy_attachments.insert(), rows)
    for name in missing:
        transaction.record("AttachPolicy", "policy", name, {"target": targets[1]})
    exclusive = bool(held[old].exclusive)
    if new not in held:
        transaction.execute(
            schema.thing_principals.insert().values(
                account_id=account_id,
                thing_name=unit.thing_name,
                certificate_id=new,
                exclusive=exclusive,
                attached_at=transaction.now,
            )
        )
        details = {"thing": unit.thing_name, "exclusive": exclusive}
        transaction.record("AttachThingPrincipal", "certificate", new, details)
    evidence = {"policies": sorted(wanted | present), "exclusive": exclusive}
    return advance(transaction, [Move(unit, State.ATTACHED, evidence)])[0]


def delivered(transaction: Transaction, unit: Unit, evidence: Mapping[str, Any]) -> Unit:
    """ATTACHED -> DELIVERED: the new certificate was handed out (to the gate for the device, or over HTTPS).

    Args:
        transaction: of the account.
        unit: as in ``issued``.
        evidence: JSON: by which way, through which gate, to which address.

    Returns:
        The unit as it is now; unchanged if it is further already.

    Raises:
        UnitStateError: nothing is attached yet, or the unit is aside.
    """
    unit = find(transaction.connection, transaction.account_id, *unit.key)
    if unit.state in WAY and WAY.index(unit.state) >= WAY.index(State.DELIVERED):
        return unit
    if unit.state is not State.ATTACHED:
        raise UnitStateError(f"the unit is {unit.state}: nothing can be delivered")
    return advance(transaction, [Move(unit, State.DELIVERED, evidence)])[0]


def halt(transaction: Transaction, unit: Unit, problem: str, details: Mapping[str, Any]) -> Unit:
    """Put a unit aside as HALTED, with an alert: something is suspicious, and an operator has to look.

    A unit whose old certificate is revoked already keeps its state: only the alert is raised.

    Args:
        transaction: of the account.
        unit: as in ``issued``.
        problem: a sentence for people.
        details: of the alert, JSON (addresses, digests of requests); never a secret.
    """
    unit = find(transaction.connection, transaction.account_id, *unit.key)
    if unit.state is State.HALTED:
        return unit
    alerts.raise_alert(
        transaction,
        "replacement-halted",
        unit.occasion(f"replacement-halted:{unit.state_at}"),
        certificate_id=unit.old_certificate_id,
        thing_name=unit.thing_name or None,
        details={
            "replacementId": unit.replacement_id,
            "state": unit.state.value,
            "newCertificateId": unit.new_certificate_id,
            "problem": problem,
            **details,
        },
    )
    if unit.state in (*BEYOND_RETURN, *CLOSED):
        return unit
    return _aside(transaction, unit, State.HALTED, problem, details)


def fail(transaction: Transaction, unit: Unit, problem: str, details: Mapping[str, Any] | None = None) -> Unit:
    """Put a unit aside as FAILED: a step cannot be done. Failures count for ``haltOnFailures``."""
    if unit.state in (State.FAILED, *BEYOND_RETURN, *CLOSED):
        return unit
    return _aside(transaction, unit, State.FAILED, problem, details or {})


def _aside(transaction: Transaction, unit: Unit, state: State, problem: str, details: Mapping[str, Any]) -> Unit:
    before = unit.evidence.get("before", unit.state.value) if unit.state is State.FAILED else unit.state.value
    evidence = {**details, "problem": problem, "before": before}
    kept = replace(unit, evidence={**unit.evidence, "before": before})
    return advance(transaction, [Move(kept, state, evidence, {"problem": problem})])[0]


_CHANGE = update(schema.replacement_units).where(
    _U.account_id == bindparam("b_account"),
    _U.replacement_id == bindparam("b_replacement"),
    _U.old_certificate_id == bindparam("b_old"),
    _U.thing_name == bindparam("b_thing"),
)


def advance(transaction: Transaction, moves: Sequence[Move]) -> list[Unit]:
    """Do steps: states, rows of steps, records. The units were read in the same transaction.

    Returns:
        The units as they are now, in the same order.
    """
    if not moves:
        return []
    found = []
    changes: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for move in moves:
        values = {"problem": None, **move.values}
        unit = replace(
            move.unit,
            state=move.state,
            state_at=transaction.now,
            evidence={**move.unit.evidence, move.step or move.state.value: dict(move.evidence)},
            **values,
        )
        found.append(unit)
        row = {
            "state": unit.state.value,
            "state_at": unit.state_at,
            "open": unit.state not in CLOSED,
            "evidence": dict(unit.evidence),
            **values,
        }
        changes.setdefault(tuple(sorted(row)), []).append(row | _named(unit))
    for columns, rows in changes.items():
        transaction.execute(_CHANGE.values({name: bindparam(name) for name in columns}), rows)
    note(
        transaction,
        [(unit, move.step or move.state.value, move.evidence) for unit, move in zip(found, moves, strict=True)],
    )
    return found


def _named(unit: Unit) -> dict[str, Any]:
    return {
        "b_account": unit.account_id,
        "b_replacement": unit.replacement_id,
        "b_old": unit.old_certificate_id,
        "b_thing": unit.thing_name,
    }


def note(transaction: Transaction, steps: Iterable[tuple[Unit, str, Mapping[str, Any]]]) -> None:
    """Write what happened to units: rows of steps, and the audit trail.

    Args:
        transaction: that does it.
        steps: unit, what happened, evidence.
    """
    rows = []
    for unit, step, evidence in steps:
        rows.append({
            "account_id": unit.account_id,
            "replacement_id": unit.replacement_id,
            "old_certificate_id": unit.old_certificate_id,
            "thing_name": unit.thing_name,
            "at": transaction.now,
            "step": step,
            "evidence": dict(evidence),
        })  # fmt: skip
        details = {"step": step, "thing": unit.thing_name, "oldCertificateId": unit.old_certificate_id}
        if unit.new_certificate_id:
            details["newCertificateId"] = unit.new_certificate_id
        transaction.record(OPERATION, "replacement", unit.replacement_id, details)
    if rows:
        transaction.execute(schema.replacement_steps.insert(), rows)
