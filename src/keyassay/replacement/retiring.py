"""What happens to an old certificate: INACTIVE when all its things are proven, REVOKED after the grace, detached, done.

All units of the old certificate count, whatever replacement they are of: one that is not proven keeps it ACTIVE, and so
does a thing that is no unit at all. Its status changes once; its units follow in bounded transactions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, and_, delete, exists, select, update
from sqlalchemy.sql.elements import ColumnElement

from keyassay.registry import alerts, certificates
from keyassay.registry.errors import NotFoundError
from keyassay.registry.lifecycle import Status as CertificateStatus
from keyassay.replacement import units
from keyassay.replacement.states import State, Status
from keyassay.replacement.units import Move, Unit
from keyassay.storage import schema
from keyassay.storage.database import Transaction

_C = schema.certificates.c
_N = schema.connections.c
_P = schema.thing_principals.c
_F = schema.refusals.c
_R = schema.replacements.c
_U = schema.replacement_units.c
_OTHER = schema.replacement_units.alias("other")
_ITS = schema.replacements.alias("its")

#: states of units whose device was proven
PROVEN = (State.CONNECTED, State.OLD_INACTIVE, State.OLD_REVOKED, State.DETACHED)
#: units that one transaction moves
AT_ONCE = 50
_HOUR = 3_600_000
#: what a gate says of an attempt with a certificate that is not ACTIVE
_REFUSED = "inactive"


def _among(states: Iterable[State]) -> ColumnElement[bool]:
    return _OTHER.c.state.in_([one.value for one in states])


def _others() -> ColumnElement[bool]:
    """Other open units of the same old certificate."""
    return and_(
        _OTHER.c.account_id == _U.account_id, _OTHER.c.old_certificate_id == _U.old_certificate_id, _OTHER.c.open
    )


def _held_up(allowed: Sequence[State]) -> ColumnElement[bool]:
    """An open unit of the old certificate is not in these states, or its replacement does not run."""
    runs = exists().where(
        _ITS.c.account_id == _OTHER.c.account_id,
        _ITS.c.id == _OTHER.c.replacement_id,
        _ITS.c.status == Status.RUNNING.value,
    )
    return exists().where(_others(), ~_among(allowed) | ~runs)


def _thing_outside() -> ColumnElement[bool]:
    """A thing of the old certificate is in no open unit that is proven."""
    covered = exists().where(_others(), _OTHER.c.thing_name == _P.thing_name, _among(PROVEN))
    return exists().where(_P.account_id == _U.account_id, _P.certificate_id == _U.old_certificate_id, ~covered)


def ready_to_deactivate(connection: Connection, account_id: str, replacement_id: str, size: int) -> list[str]:
    """Old certificates of a replacement all of whose things were seen with new certificates."""
    query = (
        select(_U.old_certificate_id)
        .distinct()
        .where(
            _U.account_id == account_id,
            _U.replacement_id == replacement_id,
            _U.state == State.CONNECTED.value,
            ~_held_up(PROVEN),
            ~_thing_outside(),
        )
    )
    return list(connection.execute(query.limit(size)).scalars())


def ready_to_revoke(connection: Connection, account_id: str, replacement_id: str, before: int, size: int) -> list[str]:
    """Old certificates all of whose units have been OLD_INACTIVE since before a time, without a problem."""
    fresh = exists().where(
        _others(),
        _OTHER.c.state == State.OLD_INACTIVE.value,
        (_OTHER.c.state_at > before) | _OTHER.c.problem.is_not(None),
    )
    query = (
        select(_U.old_certificate_id)
        .distinct()
        .where(
            _U.account_id == account_id,
            _U.replacement_id == replacement_id,
            _U.state == State.OLD_INACTIVE.value,
            _U.state_at <= before,
            ~_held_up((State.OLD_INACTIVE, State.OLD_REVOKED, State.DETACHED)),
            ~fresh,
        )
    )
    return list(connection.execute(query.limit(size)).scalars())


def ready_to_detach(connection: Connection, account_id: str, replacement_id: str, size: int) -> list[str]:
    """Old certificates of a replacement that are revoked and have things or policies of units left."""
    query = (
        select(_U.old_certificate_id)
        .distinct()
        .where(
            _U.account_id == account_id,
            _U.replacement_id == replacement_id,
            _U.state.in_((State.OLD_REVOKED.value, State.DETACHED.value)),
        )
    )
    return list(connection.execute(query.limit(size)).scalars())


def open_units(connection: Connection, account_id: str, old_certificate_id: str, state: State) -> list[Unit]:
    """Open units of an old certificate in a state, of all replacements, at most ``AT_ONCE``."""
    query = units.query(account_id).where(_U.old_certificate_id == old_certificate_id, _U.open, _U.state == state.value)
    query = query.order_by(_U.thing_name, _U.replacement_id).limit(AT_ONCE)
    return [units.read(row) for row in connection.execute(query).mappings()]


def _status(connection: Connection, account_id: str, certificate_id: str) -> CertificateStatus | None:
    try:
        return CertificateStatus(certificates.find(connection, account_id, certificate_id)["status"])
    except NotFoundError:
        return None


def _usable(transaction: Transaction, found: Sequence[Unit]) -> bool:
    """Whether all new certificates can still be used; units whose cannot are put aside."""
    account_id = transaction.account_id
    ids = [one.new_certificate_id for one in found]
    query = select(_C.id, _C.not_after).where(
        _C.account_id == account_id, _C.id.in_(ids), _C.status == CertificateStatus.ACTIVE.value
    )
    active = {row.id: row.not_after for row in transaction.execute(query)}
    query = select(_P.certificate_id, _P.thing_name).where(_P.account_id == account_id, _P.certificate_id.in_(ids))
    attached = {(row.certificate_id, row.thing_name) for row in transaction.execute(query)}
    good = True
    for unit in found:
        new = unit.new_certificate_id or ""
        if active.get(new, 0) <= transaction.now:
            units.fail(transaction, unit, "the new certificate is not ACTIVE any more, or has expired")
        elif (new, unit.thing_name) not in attached:
            units.fail(transaction, unit, "the new certificate is not attached to the thing any more")
        else:
            continue
        good = False
    return good


def deactivate(transaction: Transaction, replacement_id: str, old_certificate_id: str) -> int:
    """CONNECTED -> OLD_INACTIVE, for some units of an old certificate; its status with the first of them.

    Returns:
        How many units changed their state.
    """
    connection, account_id = transaction.connection, transaction.account_id
    here = select(_U.old_certificate_id).where(
        _U.account_id == account_id,
        _U.replacement_id == replacement_id,
        _U.old_certificate_id == old_certificate_id,
        _U.state == State.CONNECTED.value,
        ~_held_up(PROVEN),
        ~_thing_outside(),
    )
    if connection.execute(here.limit(1)).first() is None:
        return 0
    found = open_units(connection, account_id, old_certificate_id, State.CONNECTED)
    present = _status(connection, account_id, old_certificate_id)
    if not _usable(transaction, found):
        return len(found)
    if present is CertificateStatus.PENDING_TRANSFER:
        for unit in found:
            units.fail(transaction, unit, "the old certificate is being transferred to another account")
        return len(found)
    ours = present is CertificateStatus.ACTIVE
    if ours:
        # with more units than one transaction moves, the first of them may be all that were looked at: look at all
        rest = _others_usable(transaction, old_certificate_id)
        if not rest:
            return 0
        certificates.change_status(transaction, "UpdateCertificate", old_certificate_id, CertificateStatus.INACTIVE)
    evidence = {
        "oldStatus": None if present is None else present.value,
        "deactivated": ours or was_deactivated(connection, account_id, old_certificate_id),
    }
    return len(units.advance(transaction, [Move(one, State.OLD_INACTIVE, evidence) for one in found]))


def _others_usable(transaction: Transaction, old_certificate_id: str) -> bool:
    """Whether the new certificates of all open units of an old one are ACTIVE; those that are not are put aside."""
    account_id = transaction.account_id
    good = exists().where(
        _C.account_id == _U.account_id,
        _C.id == _U.new_certificate_id,
        _C.status == CertificateStatus.ACTIVE.value,
        _C.not_after > transaction.now,
    )
    query = units.query(account_id).where(
        _U.old_certificate_id == old_certificate_id, _U.open, _U.state == State.CONNECTED.value, ~good
    )
    bad = [units.read(row) for row in transaction.execute(query.limit(AT_ONCE)).mappings()]
    for unit in bad:
        units.fail(transaction, unit, "the new certificate is not ACTIVE any more, or has expired")
    return not bad


def was_deactivated(connection: Connection, account_id: str, old_certificate_id: str) -> bool:
    """Whether a replacement made the old certificate INACTIVE, as some of its units say."""
    query = select(_U.evidence).where(
        _U.account_id == account_id, _U.old_certificate_id == old_certificate_id, _U.open,
        _U.state == State.OLD_INACTIVE.value,
    )  # fmt: skip
    first = connection.execute(query.limit(1)).scalar()
    return bool(first and first.get(State.OLD_INACTIVE.value, {}).get("deactivated"))


def revoke(transaction: Transaction, old_certificate_id: str, grace_of: Callable[[Unit], int]) -> int:
    """OLD_INACTIVE -> OLD_REVOKED, for some units of an old certificate; its status with the first of them.

    Args:
        transaction: of the account.
        old_certificate_id: which.
        grace_of: seconds of grace of a unit's replacement.

    Returns:
        How many units changed their state.
    """
    connection, account_id = transaction.connection, transaction.account_id
    query = units.query(account_id).where(_U.old_certificate_id == old_certificate_id, _U.open)
    unready = query.where(
        ~_U.state.in_([State.OLD_INACTIVE.value, State.OLD_REVOKED.value, State.DETACHED.value])
        | (_R.status != Status.RUNNING.value)
        | ((_U.state == State.OLD_INACTIVE.value) & _U.problem.is_not(None))
    )
    if connection.execute(unready.limit(1)).first() is not None:
        return 0
    found = open_units(connection, account_id, old_certificate_id, State.OLD_INACTIVE)
    if any(one.state_at + 1_000 * grace_of(one) > transaction.now for one in found):
        return 0
    present = _status(connection, account_id, old_certificate_id)
    if not _usable(transaction, found):
        return len(found)
    if present is CertificateStatus.ACTIVE:
        for unit in found:
            units.halt(transaction, unit, "the old certificate was made ACTIVE again by somebody", {})
        return len(found)
    if present is CertificateStatus.PENDING_TRANSFER:
        for unit in found:
            units.fail(transaction, unit, "the old certificate is being transferred to another account")
        return len(found)
    if present is not None:
        certificates.change_status(transaction, "UpdateCertificate", old_certificate_id, CertificateStatus.REVOKED)
    evidence = {"oldStatus": None if present is None else present.value, "status": CertificateStatus.REVOKED.value}
    return len(units.advance(transaction, [Move(one, State.OLD_REVOKED, evidence) for one in found]))


def detach(transaction: Transaction, old_certificate_id: str) -> int:
    """OLD_REVOKED -> DETACHED: the old certificate leaves the things of some units, and its policies leave it.

    Returns:
        How many units changed their state.
    """
    account_id = transaction.account_id
    found = open_units(transaction.connection, account_id, old_certificate_id, State.OLD_REVOKED)
    if not found:
        return 0
    names = [one.thing_name for one in found]
    gone = delete(schema.thing_principals).where(
        _P.account_id == account_id, _P.certificate_id == old_certificate_id, _P.thing_name.in_(names)
    )
    detached = set(transaction.execute(gone.returning(_P.thing_name)).scalars())
    for name in sorted(detached):
        transaction.record("DetachThingPrincipal", "certificate", old_certificate_id, {"thing": name})
    policies = detach_policies(transaction, old_certificate_id)
    moves = [
        Move(one, State.DETACHED, {"wasAttached": one.thing_name in detached, "policies": policies}) for one in found
    ]
    return len(units.advance(transaction, moves))


def detach_policies(transaction: Transaction, certificate_id: str) -> list[str]:
    """Take all policies from a certificate; their names."""
    columns = schema.policy_attachments.c
    target = f"cert/{certificate_id}"
    gone = delete(schema.policy_attachments).where(
        columns.account_id == transaction.account_id, columns.target == target
    )
    names = sorted(transaction.execute(gone.returning(columns.policy_name)).scalars())
    for name in names:
        transaction.record("DetachPolicy", "policy", name, {"target": target})
    return names


def finish(transaction: Transaction, old_certificate_id: str) -> int:
    """DETACHED -> DONE, with a last look at what is there now.

    Returns:
        How many units changed their state.
    """
    connection, account_id = transaction.connection, transaction.account_id
    found = open_units(connection, account_id, old_certificate_id, State.DETACHED)
    old = _status(connection, account_id, old_certificate_id)
    moves = []
    for unit in found:
        new = _status(connection, account_id, unit.new_certificate_id or "")
        evidence = {
            "oldStatus": None if old is None else old.value,
            "newStatus": None if new is None else new.value,
        }
        moves.append(Move(unit, State.DONE, evidence))
    return len(units.advance(transaction, moves))


# Devices that go back to the old certificate


def fallen_back(connection: Connection, account_id: str, replacement_id: str, now: int) -> list[tuple[Unit, Any]]:
    """Units in their grace whose device tried the old certificate after the new one was last seen.

    Returns:
        Units without a problem, each with the row of ``refusals``: source, client_id, last_at, gate, count.
    """
    since = exists().where(
        _N.account_id == _U.account_id,
        _N.certificate_id == _U.new_certificate_id,
        _N.ended_at.is_(None) | (_N.seen_at >= _F.last_at),
    )
    query = (
        units.query(account_id)
        .add_columns(
            _F.gate.label("refusal_gate"),
            _F.source.label("refusal_source"),
            _F.client_id.label("refusal_client"),
            _F.last_at.label("refusal_at"),
            _F.count.label("refusal_count"),
        )
        .join(
            schema.refusals,
            and_(_F.account_id == _U.account_id, _F.certificate_id == _U.old_certificate_id),
        )
        .where(
            _U.replacement_id == replacement_id,
            _U.state == State.OLD_INACTIVE.value,
            _U.problem.is_(None),
            _F.verdict == _REFUSED,
            _F.hour >= (now // _HOUR - 2) * _HOUR,
            _F.last_at >= _U.state_at,
            ~since,
        )
    )
    found = []
    for row in connection.execute(query.limit(1_000)).mappings():
        unit = units.read(row)
        if row["refusal_client"] == unit.thing_name or _is_alone(connection, unit):
            found.append((unit, row))
    return found


def _is_alone(connection: Connection, unit: Unit) -> bool:
    """Whether the old certificate was only this thing's."""
    query = select(_U.thing_name).where(
        _U.account_id == unit.account_id,
        _U.old_certificate_id == unit.old_certificate_id,
        _U.thing_name != unit.thing_name,
    )
    return connection.execute(query.limit(1)).first() is None


def report_fallen_back(transaction: Transaction, found: Sequence[tuple[Unit, Any]]) -> int:
    """Note units whose device went back to the old certificate, with an alert; their revocation waits.

    Returns:
        How many were noted.
    """
    noted = 0
    for unit, refusal in found:
        now = units.find(transaction.connection, transaction.account_id, *unit.key)
        if now.state is not State.OLD_INACTIVE or now.problem is not None:
            continue
        problem = "the device tried the old certificate again and has not been seen with the new one since"
        set_problem(transaction, now, problem)
        evidence = {
            "gate": refusal["refusal_gate"],
            "source": refusal["refusal_source"],
            "clientId": refusal["refusal_client"],
            "at": refusal["refusal_at"],
        }
        units.note(transaction, [(now, "FELL_BACK", evidence)])
        alerts.raise_alert(
            transaction,
            "replacement-fell-back",
            now.occasion(f"replacement-fell-back:{refusal['refusal_at'] // _HOUR}"),
            certificate_id=now.old_certificate_id,
            thing_name=now.thing_name,
            details={"replacementId": now.replacement_id, "newCertificateId": now.new_certificate_id, **evidence},
        )
        noted += 1
    return noted


def come_back(connection: Connection, account_id: str, replacement_id: str) -> list[Unit]:
    """Units in their grace with a problem whose device is connected with the new certificate now."""
    connected = exists().where(
        _N.account_id == _U.account_id, _N.certificate_id == _U.new_certificate_id, _N.ended_at.is_(None)
    )
    query = units.query(account_id).where(
        _U.replacement_id == replacement_id,
        _U.state == State.OLD_INACTIVE.value,
        _U.problem.is_not(None),
        connected,
    )
    return [units.read(row) for row in connection.execute(query.limit(AT_ONCE)).mappings()]


def report_come_back(transaction: Transaction, found: Sequence[Unit]) -> int:
    """Note that devices are back at their new certificates: the revocation waits no longer."""
    noted = 0
    for unit in found:
        now = units.find(transaction.connection, transaction.account_id, *unit.key)
        if now.state is State.OLD_INACTIVE and now.problem is not None:
            set_problem(transaction, now, None)
            units.note(transaction, [(now, "CAME_BACK", {})])
            noted += 1
    return noted


def set_problem(transaction: Transaction, unit: Unit, problem: str | None) -> None:
    """Say what hinders a unit, while its state stays."""
    here = (_U.account_id == unit.account_id) & (_U.replacement_id == unit.replacement_id)
    here &= (_U.old_certificate_id == unit.old_certificate_id) & (_U.thing_name == unit.thing_name)
    transaction.execute(update(schema.replacement_units).where(here).values(problem=problem))
