"""What a replacement is about: the certificates that were selected, their units, and what starting it would touch.

A selection names findings, certificates or an audit, and perhaps a group of things. Its certificates are gone through
in the order of their ids, a chunk at a time, so that a fleet of any size is planned in short transactions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Select, and_, func, select, tuple_

from keyassay.audit import tasks as audit_tasks
from keyassay.audit.checks import AUDIT_CHECKS
from keyassay.registry.certificates import check_id
from keyassay.registry.errors import InvalidError, NotFoundError
from keyassay.registry.lifecycle import Status as CertificateStatus
from keyassay.replacement.states import State
from keyassay.storage import schema
from keyassay.storage.database import rows_in_chunks

_C = schema.certificates.c
_F = schema.audit_findings.c
_G = schema.thing_groups.c
_M = schema.thing_group_members.c
_P = schema.thing_principals.c
_R = schema.audit_related.c
_U = schema.replacement_units.c

#: what one selection may name
MOST_FINDINGS, MOST_CERTIFICATES = 100, 1_000
#: names of each kind that a blast radius shows
SHOWN = 100
#: certificates and units that are planned at once
CHUNK = 200
#: where a finding's resource key has the id of a device certificate
_DEVICE = "deviceCertificateId="
_LAST = "~"  # after every thing's name and every id


class Skip(StrEnum):
    """Why something that was selected gets no unit."""

    IN_OPEN_UNIT = "IN_OPEN_UNIT"  # another replacement has it, or this one
    NOT_REGISTERED = "NOT_REGISTERED"
    BEING_TRANSFERRED = "BEING_TRANSFERRED"


@dataclass(frozen=True, slots=True)
class Selection:
    """What was asked for: exactly one of the first three.

    Attributes:
        finding_ids: audit findings about device certificates (or about authorities above them).
        certificate_ids: device certificates.
        audit_task_id: all certificates that the audit found noncompliant, without suppressed findings.
        checks: only findings of these checks, with an audit.
        broken_only: only findings whose key is proven broken, with an audit.
        group: only things that are in this group or in one below it.
    """

    finding_ids: tuple[str, ...] = ()
    certificate_ids: tuple[str, ...] = ()
    audit_task_id: str = ""
    checks: tuple[str, ...] = ()
    broken_only: bool = False
    group: str = ""

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Selection:
        """The API's form: findingIds, certificateIds, auditTaskId, checkNames, brokenOnly, thingGroupName.

        Raises:
            InvalidError: not exactly one of the three, too many, no ids.
        """
        findings = tuple(sorted(set(document.get("findingIds") or ())))
        certificates = tuple(sorted({check_id(one) for one in document.get("certificateIds") or ()}))
        audit = document.get("auditTaskId") or ""
        checks = tuple(sorted(set(document.get("checkNames") or ())))
        broken_only = bool(document.get("brokenOnly"))
        if sum(map(bool, (findings, certificates, audit))) != 1:
            raise InvalidError("a replacement is about either findingIds, certificateIds or auditTaskId")
        if len(findings) > MOST_FINDINGS or len(certificates) > MOST_CERTIFICATES:
            raise InvalidError(f"at most {MOST_FINDINGS} findings or {MOST_CERTIFICATES} certificates can be named")
        if (checks or broken_only) and not audit:
            raise InvalidError("checkNames and brokenOnly choose among an audit's findings")
        for name in checks:
            if name not in AUDIT_CHECKS:
                raise InvalidError(f"there is no audit check {name[:200]!r}")
        return cls(findings, certificates, audit, checks, broken_only, document.get("thingGroupName") or "")

    def as_json(self) -> dict[str, Any]:
        """The API's form, without what is empty."""
        document: dict[str, Any] = {
            "findingIds": list(self.finding_ids),
            "certificateIds": list(self.certificate_ids),
            "auditTaskId": self.audit_task_id,
            "checkNames": list(self.checks),
            "brokenOnly": self.broken_only,
            "thingGroupName": self.group,
        }
        return {name: value for name, value in document.items() if value}

    def check_exists(self, connection: Connection, account_id: str) -> None:
        """Make sure that what is named is there; single certificates may be gone.

        Raises:
            InvalidError: it is not, or a finding is about no device certificate.
        """
        if self.audit_task_id:
            try:
                audit_tasks.find(connection, account_id, self.audit_task_id)
            except NotFoundError as error:
                raise InvalidError(error.message) from None
        if self.finding_ids:
            query = select(_F.id, _F.resource_type).where(_F.account_id == account_id, _F.id.in_(self.finding_ids))
            kinds = {row.id: row.resource_type for row in connection.execute(query)}
            for one in self.finding_ids:
                if one not in kinds:
                    raise InvalidError(f"there is no audit finding {one}")
                if kinds[one] not in ("DEVICE_CERTIFICATE", "ISSUER_CERTIFICATE"):
                    raise InvalidError(f"the audit finding {one} is not about device certificates")
        if self.group:
            query = select(_G.name).where(_G.account_id == account_id, _G.name == self.group)
            if connection.execute(query).first() is None:
                raise InvalidError("there is no such thing group")

    def certificates(self, connection: Connection, account_id: str, start: str, size: int) -> list[str]:
        """The next ids from ``start`` on (inclusive), in their order, ``size`` at most."""
        if self.audit_task_id:
            query = (
                select(_F.resource_key)
                .distinct()
                .where(
                    _F.account_id == account_id,
                    _F.task_id == self.audit_task_id,
                    _F.resource_type == "DEVICE_CERTIFICATE",
                    _F.resource_key >= _DEVICE + start,
                    _F.suppressed.is_(False),
                )
            )
            if self.checks:
                query = query.where(_F.check_name.in_(self.checks))
            if self.broken_only:
                query = query.where(_F.evidence["class"].as_string() == "broken")
                query = query.where(_F.evidence["confidence"].as_string() != "likely")
            keys = connection.execute(query.order_by(_F.resource_key).limit(size)).scalars()
            return [key.removeprefix(_DEVICE) for key in keys]
        named = self.certificate_ids or tuple(sorted(self._of_findings(connection, account_id)))
        return [one for one in named if one >= start][:size]

    def _of_findings(self, connection: Connection, account_id: str) -> set[str]:
        resources = select(_F.resource).where(_F.account_id == account_id, _F.id.in_(self.finding_ids))
        above = select(_R.resource).where(
            _R.account_id == account_id,
            _R.finding_id.in_(
                select(_F.id).where(
                    _F.account_id == account_id,
                    _F.id.in_(self.finding_ids),
                    _F.resource_type == "ISSUER_CERTIFICATE",
                )
            ),
        )
        found = [*connection.execute(resources).scalars(), *connection.execute(above).scalars()]
        ids = {one.get("resourceIdentifier", {}).get("deviceCertificateId") for one in found}
        return {one for one in ids if one}


#: how far planning has come: the last certificate and thing that were planned
Position = tuple[str, str]
START: Position = ("", "")


@dataclass(frozen=True, slots=True)
class Planned:
    """A unit that a replacement would have; ``thing_name`` is "" for a certificate without things."""

    old_certificate_id: str
    thing_name: str
    status: CertificateStatus

    @property
    def state(self) -> State:
        """Its first one."""
        if not self.thing_name:
            return State.NO_THING
        return State.PLANNED if self.status is CertificateStatus.ACTIVE else State.UNREACHABLE


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some units of a selection.

    Attributes:
        units: in their order.
        skipped: (certificate, thing or "", reason).
        position: where the next chunk begins; None after the last one.
    """

    units: Sequence[Planned]
    skipped: Sequence[tuple[str, str, Skip]]
    position: Position | None


def chunk(
    connection: Connection, account_id: str, selection: Selection, position: Position, size: int = CHUNK
) -> Chunk:
    """The next units of a selection.

    Args:
        connection: of a read or a transaction.
        account_id: whose.
        selection: what was asked for.
        position: of the chunk before; ``START``.
        size: certificates and units at most.
    """
    ids = selection.certificates(connection, account_id, position[0], size)
    if position[1] == _LAST and ids and ids[0] == position[0]:
        ids = ids[1:]
    if not ids:
        return Chunk((), (), None)
    more = len(ids) >= size - 1
    statuses = _statuses(connection, account_id, ids)
    attached = select(_P.certificate_id, _P.thing_name).where(
        _P.account_id == account_id,
        _P.certificate_id.in_(ids),
        tuple_(_P.certificate_id, _P.thing_name) > tuple_(*position),
    )
    if selection.group:
        attached = attached.where(_P.thing_name.in_(_members(connection, account_id, selection.group)))
    rows = connection.execute(attached.order_by(_P.certificate_id, _P.thing_name).limit(size)).all()
    pairs = {(row.certificate_id, row.thing_name) for row in rows}
    last: Position = (ids[-1], _LAST)
    if len(rows) == size:  # a certificate has many things: what comes after them is for the next chunk
        last, more = (rows[-1].certificate_id, rows[-1].thing_name), True
        ids = [one for one in ids if one <= last[0]]
    if not selection.group:
        having = select(_P.certificate_id).distinct()
        having = having.where(_P.account_id == account_id, _P.certificate_id.in_(ids))
        with_things = set(connection.execute(having).scalars())
        pairs |= {(one, "") for one in ids if one not in with_things}
    taken = _open(connection, account_id, ids)
    units: list[Planned] = []
    skipped: list[tuple[str, str, Skip]] = []
    for certificate_id, thing in sorted(pairs | {(one, "") for one in ids if one not in statuses}):
        status = statuses.get(certificate_id)
        if status is None:
            skipped.append((certificate_id, thing, Skip.NOT_REGISTERED))
        elif status is CertificateStatus.PENDING_TRANSFER:
            skipped.append((certificate_id, thing, Skip.BEING_TRANSFERRED))
        elif (certificate_id, thing) in taken:
            skipped.append((certificate_id, thing, Skip.IN_OPEN_UNIT))
        else:
            units.append(Planned(certificate_id, thing, status))
    return Chunk(units, skipped, last if more else None)


def _statuses(connection: Connection, account_id: str, ids: Sequence[str]) -> dict[str, CertificateStatus]:
    query = select(_C.id, _C.status).where(_C.account_id == account_id, _C.id.in_(ids))
    return {row.id: CertificateStatus(row.status) for row in connection.execute(query)}


def _open(connection: Connection, account_id: str, ids: Sequence[str]) -> set[Position]:
    query = select(_U.old_certificate_id, _U.thing_name)
    query = query.where(_U.account_id == account_id, _U.old_certificate_id.in_(ids), _U.open)
    return {(row.old_certificate_id, row.thing_name) for row in connection.execute(query)}


def _members(connection: Connection, account_id: str, group: str) -> Select[Any]:
    """Names of the things of a group and of all groups below it (seven levels at most)."""
    found = {group}
    level = [group]
    while level:
        query = select(_G.name).where(_G.account_id == account_id, _G.parent_name.in_(level))
        level = [name for name in connection.execute(query).scalars() if name not in found]
        found.update(level)
    return select(_M.thing_name).where(_M.account_id == account_id, _M.group_name.in_(sorted(found)))


# What starting it would touch


@dataclass
class Radius:
    """What a replacement would touch, counted.

    Attributes:
        certificates: with units.
        shared: of these, with more than one thing.
        units: with a thing.
        things: different ones.
        without_thing: certificates that would only be reported.
        unreachable: units whose old certificate is not ACTIVE.
        connected: units whose old certificate is connected at this moment under the thing's name or any other.
        skipped: by reason.
        policies, groups: by name, how many certificates have it and how many things are in it.
        examples: the first units.
        skipped_examples: the first of what is skipped.
    """

    certificates: int = 0
    shared: int = 0
    units: int = 0
    things: int = 0
    without_thing: int = 0
    unreachable: int = 0
    connected: int = 0
    skipped: Counter[Skip] = field(default_factory=Counter)
    policies: Counter[str] = field(default_factory=Counter)
    groups: Counter[str] = field(default_factory=Counter)
    examples: list[Planned] = field(default_factory=list)
    skipped_examples: list[tuple[str, str, Skip]] = field(default_factory=list)


def radius(connection: Connection, account_id: str, selection: Selection) -> Radius:
    """What a replacement of a selection would touch now; nothing changes.

    Raises:
        InvalidError: what is named is not there.
    """
    selection.check_exists(connection, account_id)
    found = Radius()
    things: set[str] = set()
    of_certificate: Counter[str] = Counter()
    position: Position | None = START
    while position is not None:
        piece = chunk(connection, account_id, selection, position, 500)
        _count(connection, account_id, found, piece, things, of_certificate)
        position = piece.position
    found.certificates = len(of_certificate) + found.without_thing
    found.shared = sum(count > 1 for count in of_certificate.values())
    found.things = len(things)
    _add_policies(connection, account_id, found, sorted(of_certificate))
    for names in rows_in_chunks(sorted(things)):
        query = select(_M.group_name, func.count()).where(_M.account_id == account_id, _M.thing_name.in_(names))
        for name, count in connection.execute(query.group_by(_M.group_name)):
            found.groups[name] += count
    return found


def _count(
    connection: Connection,
    account_id: str,
    found: Radius,
    piece: Chunk,
    things: set[str],
    of_certificate: Counter[str],
) -> None:
    found.skipped.update(reason for _, _, reason in piece.skipped)
    found.skipped_examples += piece.skipped[: SHOWN - len(found.skipped_examples)]
    found.examples += piece.units[: SHOWN - len(found.examples)]
    sessions = _sessions(connection, account_id, sorted({one.old_certificate_id for one in piece.units}))
    alone = Counter(one.old_certificate_id for one in piece.units)
    for one in piece.units:
        if not one.thing_name:
            found.without_thing += 1
            continue
        found.units += 1
        found.unreachable += one.state is State.UNREACHABLE
        things.add(one.thing_name)
        of_certificate[one.old_certificate_id] += 1
        clients = sessions.get(one.old_certificate_id, set())
        # under another client id it can only be told whose session it is where the certificate has one thing
        found.connected += one.thing_name in clients or (bool(clients) and alone[one.old_certificate_id] == 1)


def _sessions(connection: Connection, account_id: str, certificates: Sequence[str]) -> dict[str, set[str]]:
    """Client ids that are connected now, by certificate."""
    columns = schema.connections.c
    found: dict[str, set[str]] = {}
    for ids in rows_in_chunks(certificates):
        query = select(columns.certificate_id, columns.client_id).where(
            and_(columns.account_id == account_id, columns.certificate_id.in_(ids), columns.ended_at.is_(None))
        )
        for row in connection.execute(query):
            found.setdefault(row.certificate_id, set()).add(row.client_id)
    return found


def _add_policies(connection: Connection, account_id: str, found: Radius, certificates: Sequence[str]) -> None:
    columns = schema.policy_attachments.c
    for ids in rows_in_chunks(certificates):
        query = select(columns.policy_name, func.count()).where(
            columns.account_id == account_id, columns.target.in_([f"cert/{one}" for one in ids])
        )
        for name, count in connection.execute(query.group_by(columns.policy_name)):
            found.policies[name] += count
