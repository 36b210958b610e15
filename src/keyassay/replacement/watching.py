"""What happens with old certificates meanwhile: devices that go back to them, and keys that are used at two places.

Looked at every few seconds, and before anything is revoked. A device that has fallen back keeps its old certificate
from being revoked, until it is seen with the new one. A key that is used at two places halts its thing: whoever asked
for the new certificate may not have been the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, and_, exists, select, update

from keyassay.registry import alerts, connections
from keyassay.registry.places import TwoPlaces
from keyassay.replacement import units
from keyassay.replacement.retiring import AT_ONCE
from keyassay.replacement.states import WITH_DEVICE, State
from keyassay.replacement.units import Unit
from keyassay.storage import schema
from keyassay.storage.database import Transaction

_A = schema.alerts.c
_F = schema.refusals.c
_N = schema.connections.c
_R = schema.replacements.c
_U = schema.replacement_units.c

_HOUR, _DAY = 3_600_000, 86_400_000
#: what a gate says of an attempt with a certificate that is not ACTIVE
_REFUSED = "inactive"
#: states in which it matters who has the old key: who asks for the new certificate, or has just got it
_AT_STAKE = (*WITH_DEVICE, State.CONNECTED)


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


# Keys at two places


def at_two_places(
    connection: Connection, account_id: str, replacement_id: str, now: int
) -> list[tuple[Unit, TwoPlaces]]:
    """Units whose old key is used at two places, with the evidence; what was complete before their beginning is none.

    Gates' alerts of the last day say which keys are worth a look.
    """
    query = (
        units.query(account_id)
        .add_columns(_R.started_at.label("replacement_started_at"))
        .join(schema.alerts, and_(_A.account_id == _U.account_id, _A.certificate_id == _U.old_certificate_id))
        .where(
            _U.replacement_id == replacement_id,
            _U.state.in_([one.value for one in _AT_STAKE]),
            _A.at >= now - _DAY,
            _A.kind == connections.TWO_PLACES,
        )
    )
    found = []
    looked: dict[tuple[str, int], TwoPlaces | None] = {}
    for row in connection.execute(query.limit(1_000)).mappings():
        unit = units.read(row)
        since = max(row["replacement_started_at"], unit.tried_again_at)
        key = (unit.old_certificate_id, since)
        if key not in looked:
            looked[key] = connections.two_places(connection, account_id, *key)
        evidence = looked[key]
        if evidence is not None and _concerns(connection, unit, evidence):
            found.append((unit, evidence))
    return list({unit.key: (unit, evidence) for unit, evidence in found}.values())


def _concerns(connection: Connection, unit: Unit, evidence: TwoPlaces) -> bool:
    return any(one.client_id == unit.thing_name for one in evidence.sessions) or _is_alone(connection, unit)


def halt_at_two_places(transaction: Transaction, found: Sequence[tuple[Unit, TwoPlaces]]) -> int:
    """Halt units whose old key is used at two places, with an alert that names both addresses.

    Returns:
        How many were halted.
    """
    halted = 0
    for unit, evidence in found:
        now = units.find(transaction.connection, transaction.account_id, *unit.key)
        if now.state in _AT_STAKE:
            units.halt(transaction, now, "the old key is used at two places", evidence.as_json())
            halted += 1
    return halted
