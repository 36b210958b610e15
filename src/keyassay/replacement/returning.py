"""The way back: a unit is rolled back until its old certificate is revoked, and one that is aside is tried again.

First the old certificate can be used again, then the new one cannot. A device whose old certificate cannot be had back
(revoked, deleted, or deactivated by somebody else) keeps its new one.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from sqlalchemy import delete, select

from keyassay.registry import certificates
from keyassay.registry.errors import CertificateStateError, NotFoundError
from keyassay.registry.lifecycle import Status as CertificateStatus
from keyassay.replacement import retiring, units
from keyassay.replacement.states import BEYOND_RETURN, CLOSED, State, Status
from keyassay.replacement.units import Move, Unit
from keyassay.storage import schema
from keyassay.storage.database import Transaction

_N = schema.connections.c
_P = schema.thing_principals.c
_R = schema.replacements.c
_U = schema.replacement_units.c


def roll_back(transaction: Transaction, unit: Unit) -> Unit:
    """Undo what was done for a unit: -> ROLLED_BACK; unchanged if the old certificate is revoked or nothing is open.

    Args:
        transaction: of the account.
        unit: read in the transaction.
    """
    if unit.state in (*BEYOND_RETURN, *CLOSED):
        return unit
    evidence: dict[str, Any] = {"before": unit.state.value}
    if unit.new_certificate_id is not None:
        evidence |= _give_up(transaction, unit)
    return units.advance(transaction, [Move(unit, State.ROLLED_BACK, evidence)])[0]


def _give_up(transaction: Transaction, unit: Unit) -> dict[str, Any]:
    """Let the old certificate be used again and the new one no more; what was done."""
    new = unit.new_certificate_id
    assert new is not None
    old = _reactivate(transaction, unit)
    if old is not CertificateStatus.ACTIVE and _may_be_used(transaction, unit):
        return {"oldStatus": None if old is None else old.value, "newKept": True}
    done: dict[str, Any] = {"oldStatus": None if old is None else old.value, "newKept": False}
    try:
        if _status(transaction, new) is CertificateStatus.ACTIVE:
            certificates.change_status(transaction, "UpdateCertificate", new, CertificateStatus.INACTIVE)
    except CertificateStateError as error:  # it is leaving the account
        return done | {"newKept": True, "problem": error.message}
    its = (_P.account_id == unit.account_id) & (_P.certificate_id == new) & (_P.thing_name == unit.thing_name)
    if transaction.execute(delete(schema.thing_principals).where(its)).rowcount:
        transaction.record("DetachThingPrincipal", "certificate", new, {"thing": unit.thing_name})
    return done | {"policies": retiring.detach_policies(transaction, [new]).get(new, [])}


def _status(transaction: Transaction, certificate_id: str) -> CertificateStatus | None:
    try:
        return CertificateStatus(
            certificates.find(transaction.connection, transaction.account_id, certificate_id)["status"]
        )
    except NotFoundError:
        return None


def _reactivate(transaction: Transaction, unit: Unit) -> CertificateStatus | None:
    """Make the old certificate ACTIVE again if a replacement made it INACTIVE; the status that it has then."""
    present = _status(transaction, unit.old_certificate_id)
    ours = unit.evidence.get(State.OLD_INACTIVE.value, {}).get("deactivated")
    ours = ours or retiring.was_deactivated(transaction.connection, unit.account_id, unit.old_certificate_id)
    if present is not CertificateStatus.INACTIVE or not ours:
        return present
    certificates.change_status(transaction, "UpdateCertificate", unit.old_certificate_id, CertificateStatus.ACTIVE)
    # other units for which it is INACTIVE wait for it once more; those that are rolled back, too, follow by themselves
    query = units.query(unit.account_id).where(
        _U.old_certificate_id == unit.old_certificate_id,
        _U.open,
        _U.state == State.OLD_INACTIVE.value,
        (_U.replacement_id != unit.replacement_id) | (_U.thing_name != unit.thing_name),
        _R.status != Status.CANCELED.value,
    )
    others = [units.read(row) for row in transaction.execute(query).mappings()]
    evidence = {"because": "another unit of the old certificate was rolled back"}
    units.advance(transaction, [Move(one, State.CONNECTED, evidence, step="OLD_ACTIVE_AGAIN") for one in others])
    return CertificateStatus.ACTIVE


def _may_be_used(transaction: Transaction, unit: Unit) -> bool:
    """Whether the device may have the new certificate already."""
    if any(one.value in unit.evidence for one in (State.DELIVERED, State.CONNECTED)):
        return True
    seen = select(_N.id).where(_N.account_id == unit.account_id, _N.certificate_id == unit.new_certificate_id)
    return transaction.execute(seen.limit(1)).first() is not None


def retry(transaction: Transaction, unit: Unit, *, afresh: bool) -> Unit:
    """Let a unit that is aside go on in the state that it had; or begin it anew, with another new certificate.

    Args:
        transaction: of the account.
        unit: HALTED or FAILED, read in the transaction.
        afresh: give up the new certificate; so it is anyhow if there is none that could be used.
    """
    new = unit.new_certificate_id
    usable = new is not None and _status(transaction, new) is CertificateStatus.ACTIVE
    cleared = {name: value for name, value in unit.evidence.items() if name != "before"}
    if usable and not afresh and unit.evidence.get("before"):
        state = State(unit.evidence["before"])
        if state is State.OLD_INACTIVE and _status(transaction, unit.old_certificate_id) is CertificateStatus.ACTIVE:
            state = State.CONNECTED  # somebody activated the old one: its grace begins anew
        move = Move(replace(unit, evidence=cleared), state, {"at": transaction.now}, step=units.RETRIED)
        return units.advance(transaction, [move])[0]
    evidence: dict[str, Any] = _give_up(transaction, unit) if new is not None else {}
    # with another request id the thing is bound to no request any more, and every issuer makes another certificate
    values = {"batch": 0, "request_id": str(uuid.uuid4()), "csr_digest": None, "new_certificate_id": None}
    fresh = {name: value for name, value in cleared.items() if name in (State.PLANNED, State.UNREACHABLE)}
    evidence["at"] = transaction.now
    move = Move(replace(unit, evidence=fresh), State.PLANNED, evidence, values, step=units.BEGUN_ANEW)
    return units.advance(transaction, [move])[0]
