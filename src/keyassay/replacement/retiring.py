"""What happens to an old certificate: INACTIVE when all its things are proven, REVOKED after the grace, detached, done.

All units of the old certificate count, whatever replacement they are of: one that is not proven keeps it ACTIVE, and so
does a thing that is no unit at all. Its status changes once; its units follow in bounded transactions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, delete, exists, select, tuple_
from sqlalchemy.sql.elements import ColumnElement

from keyassay.registry import certificates
from keyassay.registry.lifecycle import Status as CertificateStatus
from keyassay.replacement import units
from keyassay.replacement.states import State, Status
from keyassay.replacement.units import Move, Unit
from keyassay.storage import schema
from keyassay.storage.database import Transaction

_C = schema.certificates.c
_P = schema.thing_principals.c
_U = schema.replacement_units.c
_OTHER = schema.replacement_units.alias("other")
_ITS = schema.replacements.alias("its")

#: states of units whose device was proven
PROVEN = (State.CONNECTED, State.OLD_INACTIVE, State.OLD_REVOKED, State.DETACHED)
#: units, and old certificates, that one transaction moves
AT_ONCE = 25


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
    covered = covered.correlate(schema.replacement_units, schema.thing_principals)  # of the outermost query, too
    return exists().where(_P.account_id == _U.account_id, _P.certificate_id == _U.old_certificate_id, ~covered)


def _old_of(account_id: str, replacement_id: str, *conditions: ColumnElement[bool]) -> Select[Any]:
    """Old certificates of units of a replacement."""
    its = (_U.account_id == account_id) & (_U.replacement_id == replacement_id)
    return select(_U.old_certificate_id).distinct().where(its, *conditions)


def ready_to_deactivate(account_id: str, replacement_id: str) -> Select[Any]:
    """Old certificates of a replacement all of whose things were seen with new certificates."""
    return _old_of(account_id, replacement_id, _U.state == State.CONNECTED.value, ~_held_up(PROVEN), ~_thing_outside())


def ready_to_revoke(account_id: str, replacement_id: str, before: int) -> Select[Any]:
    """Old certificates all of whose units have been OLD_INACTIVE since before a time, without a problem."""
    fresh = exists().where(
        _others(),
        _OTHER.c.state == State.OLD_INACTIVE.value,
        (_OTHER.c.state_at > before) | _OTHER.c.problem.is_not(None),
    )
    inactive = (_U.state == State.OLD_INACTIVE.value) & (_U.state_at <= before)
    held_up = _held_up((State.OLD_INACTIVE, State.OLD_REVOKED, State.DETACHED))
    return _old_of(account_id, replacement_id, inactive, ~held_up, ~fresh)


def in_state(account_id: str, replacement_id: str, state: State) -> Select[Any]:
    """Old certificates of units in a state."""
    return _old_of(account_id, replacement_id, _U.state == state.value)


def chosen(connection: Connection, query: Select[Any], among: Sequence[str] | None = None) -> list[str]:
    """At most ``AT_ONCE`` of the old certificates of one of the queries above; those of ``among`` if it is given."""
    if among is not None:
        query = query.where(_U.old_certificate_id.in_(among))
    return list(connection.execute(query.limit(AT_ONCE)).scalars())


def _open_units(connection: Connection, account_id: str, old: Iterable[str], state: State) -> list[Unit]:
    """Open units of old certificates in a state, of all replacements, at most ``AT_ONCE``."""
    query = units.query(account_id).where(_U.old_certificate_id.in_(list(old)), _U.open, _U.state == state.value)
    query = query.order_by(_U.old_certificate_id, _U.thing_name, _U.replacement_id).limit(AT_ONCE)
    return [units.read(row) for row in connection.execute(query).mappings()]


def _statuses(connection: Connection, account_id: str, ids: Iterable[str]) -> dict[str, CertificateStatus]:
    query = select(_C.id, _C.status).where(_C.account_id == account_id, _C.id.in_(list(ids)))
    return {row.id: CertificateStatus(row.status) for row in connection.execute(query)}


def _put_unusable_aside(transaction: Transaction, old: Sequence[str], state: State) -> tuple[set[str], int]:
    """Find new certificates that cannot be used any more: a device must not lose the old one for them.

    Returns:
        The old certificates that they stand for, and how many units were put aside.
    """
    account_id = transaction.account_id
    good = exists().where(
        _C.account_id == _U.account_id,
        _C.id == _U.new_certificate_id,
        _C.status == CertificateStatus.ACTIVE.value,
        _C.not_after > transaction.now,
    )
    attached = exists().where(
        _P.account_id == _U.account_id, _P.certificate_id == _U.new_certificate_id, _P.thing_name == _U.thing_name
    )
    bad = units.query(account_id).where(
        _U.old_certificate_id.in_(old), _U.open, _U.state == state.value, ~good | ~attached
    )
    named = transaction.execute(bad.with_only_columns(_U.old_certificate_id).distinct()).scalars().all()
    if not named:
        return set(), 0
    found = [units.read(row) for row in transaction.execute(bad.limit(AT_ONCE)).mappings()]
    for unit in found:
        units.fail(transaction, unit, "the new certificate is not ACTIVE or not attached any more, or has expired")
    return set(named), len(found)


def _set_status(transaction: Transaction, old: str, present: CertificateStatus | None, new: CertificateStatus) -> None:
    """Change the status of an old certificate; of one that has left the account nothing is left to change."""
    if present is not None:
        certificates.change_status(transaction, "UpdateCertificate", old, new)


def _put_aside(transaction: Transaction, found: Sequence[Unit], statuses: Mapping[str, CertificateStatus]) -> set[str]:
    """Put aside units whose old certificate is leaving the account; the certificates."""
    leaving = {one for one, status in statuses.items() if status is CertificateStatus.PENDING_TRANSFER}
    for unit in found:
        if unit.old_certificate_id in leaving:
            units.fail(transaction, unit, "the old certificate is being transferred to another account")
    return leaving


def deactivate(transaction: Transaction, replacement_id: str, old: Sequence[str]) -> int:
    """CONNECTED -> OLD_INACTIVE, for some units of old certificates; their status with the first of them.

    Args:
        transaction: of the account.
        replacement_id: whose worker does it.
        old: certificates that were ready a moment ago; those that are not any more are left alone.

    Returns:
        How many units changed their state.
    """
    connection, account_id = transaction.connection, transaction.account_id
    ready = chosen(connection, ready_to_deactivate(account_id, replacement_id), old)
    unusable, aside = _put_unusable_aside(transaction, ready, State.CONNECTED)
    ready = [one for one in ready if one not in unusable]
    found = _open_units(connection, account_id, ready, State.CONNECTED)
    statuses = _statuses(connection, account_id, ready)
    leaving = _put_aside(transaction, found, statuses)
    moves = []
    ours: dict[str, bool] = {}
    for unit in found:
        one = unit.old_certificate_id
        if one in leaving:
            aside += 1
            continue
        present = statuses.get(one)
        if one not in ours:
            ours[one] = present is CertificateStatus.ACTIVE or was_deactivated(connection, account_id, one)
            if present is CertificateStatus.ACTIVE:
                _set_status(transaction, one, present, CertificateStatus.INACTIVE)
        evidence = {"oldStatus": None if present is None else present.value, "deactivated": ours[one]}
        moves.append(Move(unit, State.OLD_INACTIVE, evidence))
    return len(units.advance(transaction, moves)) + aside


def was_deactivated(connection: Connection, account_id: str, old_certificate_id: str) -> bool:
    """Whether a replacement made the old certificate INACTIVE, as some of its units say."""
    query = select(_U.evidence).where(
        _U.account_id == account_id, _U.old_certificate_id == old_certificate_id, _U.open,
        _U.state == State.OLD_INACTIVE.value,
    )  # fmt: skip
    first = connection.execute(query.limit(1)).scalar()
    return bool(first and first.get(State.OLD_INACTIVE.value, {}).get("deactivated"))


def revoke(
    transaction: Transaction, replacement_id: str, old: Sequence[str], before: int, grace_of: Callable[[Unit], int]
) -> int:
    """OLD_INACTIVE -> OLD_REVOKED, for some units of old certificates; their status with the first of them.

    Args:
        transaction: of the account.
        replacement_id: whose worker does it.
        old: as in ``deactivate``.
        before: units that are OLD_INACTIVE since then have had the grace of this replacement.
        grace_of: seconds of grace of a unit's replacement, which may be another one.

    Returns:
        How many units changed their state.
    """
    connection, account_id = transaction.connection, transaction.account_id
    ready = chosen(connection, ready_to_revoke(account_id, replacement_id, before), old)
    unusable, aside = _put_unusable_aside(transaction, ready, State.OLD_INACTIVE)
    ready = [one for one in ready if one not in unusable]
    found = _open_units(connection, account_id, ready, State.OLD_INACTIVE)
    early = {one.old_certificate_id for one in found if one.state_at + 1_000 * grace_of(one) > transaction.now}
    found = [one for one in found if one.old_certificate_id not in early]
    statuses = _statuses(connection, account_id, ready)
    leaving = _put_aside(transaction, found, statuses)
    moves = []
    changed: set[str] = set()
    for unit in found:
        one = unit.old_certificate_id
        present = statuses.get(one)
        if one in leaving:
            aside += 1
        elif present is CertificateStatus.ACTIVE:
            units.halt(transaction, unit, "the old certificate was made ACTIVE again by somebody", {})
            aside += 1
        else:
            if one not in changed:
                changed.add(one)
                _set_status(transaction, one, present, CertificateStatus.REVOKED)
            evidence = {"oldStatus": None if present is None else present.value}
            moves.append(Move(unit, State.OLD_REVOKED, evidence))
    return len(units.advance(transaction, moves)) + aside


def detach(transaction: Transaction, old: Sequence[str]) -> int:
    """OLD_REVOKED -> DETACHED: old certificates leave the things of some units, and their policies leave them.

    Returns:
        How many units changed their state.
    """
    account_id = transaction.account_id
    found = _open_units(transaction.connection, account_id, old, State.OLD_REVOKED)
    if not found:
        return 0
    pairs = [(one.old_certificate_id, one.thing_name) for one in found]
    gone = delete(schema.thing_principals).where(
        _P.account_id == account_id, tuple_(_P.certificate_id, _P.thing_name).in_(pairs)
    )
    rows = transaction.execute(gone.returning(_P.certificate_id, _P.thing_name)).all()
    detached = {(row.certificate_id, row.thing_name) for row in rows}
    for certificate_id, name in sorted(detached):
        transaction.record("DetachThingPrincipal", "certificate", certificate_id, {"thing": name})
    policies = detach_policies(transaction, {one.old_certificate_id for one in found})
    moves = []
    for unit, pair in zip(found, pairs, strict=True):
        evidence = {"wasAttached": pair in detached, "policies": policies.get(unit.old_certificate_id, [])}
        moves.append(Move(unit, State.DETACHED, evidence))
    return len(units.advance(transaction, moves))


def detach_policies(transaction: Transaction, ids: Iterable[str]) -> dict[str, list[str]]:
    """Take all policies from certificates; their names, of those that had any."""
    columns = schema.policy_attachments.c
    gone = delete(schema.policy_attachments).where(
        columns.account_id == transaction.account_id, columns.target.in_([f"cert/{one}" for one in ids])
    )
    rows = transaction.execute(gone.returning(columns.target, columns.policy_name)).all()
    found: dict[str, list[str]] = {}
    for target, name in sorted((row.target, row.policy_name) for row in rows):
        transaction.record("DetachPolicy", "policy", name, {"target": target})
        found.setdefault(target.removeprefix("cert/"), []).append(name)
    return found


def finish(transaction: Transaction, old: Sequence[str]) -> int:
    """DETACHED -> DONE, with a last look at what is there now.

    Returns:
        How many units changed their state.
    """
    connection, account_id = transaction.connection, transaction.account_id
    found = _open_units(connection, account_id, old, State.DETACHED)
    ids = {one.old_certificate_id for one in found} | {one.new_certificate_id or "" for one in found}
    statuses = {one: status.value for one, status in _statuses(connection, account_id, ids).items()}
    moves = []
    for unit in found:
        old_status = statuses.get(unit.old_certificate_id)
        evidence = {"oldStatus": old_status, "newStatus": statuses.get(unit.new_certificate_id or "")}
        moves.append(Move(unit, State.DONE, evidence))
    return len(units.advance(transaction, moves))
