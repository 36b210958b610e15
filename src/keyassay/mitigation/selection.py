"""Which findings a task is about: those of an audit, those of it with some reason codes, or up to 25 that are named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Select, exists, func, select

from keyassay.audit import tasks as audit_tasks
from keyassay.audit.checks import AUDIT_CHECKS
from keyassay.mitigation.plan import Finding
from keyassay.registry.errors import InvalidError, NotFoundError
from keyassay.storage import schema
from keyassay.storage.database import rows_in_chunks
from keyassay.storage.paging import Position, page

_F = schema.audit_findings.c
_R = schema.audit_related.c
_P = schema.thing_principals.c

#: the order in which a task goes through findings; an index answers it
ORDER = (_F.check_name, _F.resource_key, _F.reason_code)


@dataclass(frozen=True, slots=True)
class Target:
    """What a task is about.

    Attributes:
        audit_task_id: all findings of that audit, unless reason codes are given.
        finding_ids: these findings.
        reason_codes: check -> reason codes that are asked for.
    """

    audit_task_id: str | None = None
    finding_ids: tuple[str, ...] = ()
    reason_codes: Mapping[str, Sequence[str]] | None = None

    @classmethod
    def read(cls, target: Mapping[str, Any]) -> Target:
        """The API's target.

        Raises:
            InvalidError: it names nothing, or too much.
        """
        audit = target.get("auditTaskId")
        findings = tuple(dict.fromkeys(target.get("findingIds") or ()))
        codes = target.get("auditCheckToReasonCodeFilter")
        if bool(audit) == bool(findings):
            raise InvalidError("a target has either auditTaskId or findingIds")
        if codes is not None and not audit:
            raise InvalidError("auditCheckToReasonCodeFilter needs auditTaskId")
        if codes is not None and not codes:
            raise InvalidError("auditCheckToReasonCodeFilter names no check")
        for check in codes or ():
            if check not in AUDIT_CHECKS:
                raise InvalidError(f"there is no audit check {check[:200]!r}")
        return cls(audit, findings, codes)

    def check_exists(self, connection: Connection, account_id: str) -> None:
        """Make sure that the audit or all of the findings are there.

        Raises:
            InvalidError: they are not.
        """
        if self.audit_task_id:
            try:
                audit_tasks.find(connection, account_id, self.audit_task_id)
            except NotFoundError as error:
                raise InvalidError(error.message) from None
            return
        query = select(_F.id).where(_F.account_id == account_id, _F.id.in_(self.finding_ids))
        unknown = set(self.finding_ids) - set(connection.execute(query).scalars())
        if unknown:
            raise InvalidError(f"there is no audit finding {min(unknown)}")

    def _query(self, query: Select[Any], account_id: str, checks: Iterable[str]) -> Select[Any]:
        query = query.where(_F.account_id == account_id, _F.check_name.in_(sorted(checks)))
        if self.audit_task_id:
            return query.where(_F.task_id == self.audit_task_id)
        return query.where(_F.id.in_(self.finding_ids))

    def findings(
        self, connection: Connection, account_id: str, checks: Iterable[str], after: Position | None, size: int
    ) -> list[Finding]:
        """The next findings of some checks.

        Args:
            connection: of a read or a transaction.
            account_id: whose.
            checks: names.
            after: ``Finding.place`` of the last one before, or None.
            size: at most so many, and one that tells whether more follow.
        """
        query = self._query(select(schema.audit_findings), account_id, checks)
        # named findings may come from several audits, where the same place comes more than once
        order = ORDER if self.audit_task_id else (*ORDER, _F.id)
        found = [_finding(row) for row in connection.execute(page(query, order, after, size)).mappings()]
        return _completed(connection, account_id, found)

    def position(self, finding: Finding) -> Position:
        """What ``findings`` takes as ``after``."""
        return finding.place if self.audit_task_id else (*finding.place, finding.id)

    def counts(self, connection: Connection, account_id: str, checks: Iterable[str]) -> dict[str, int]:
        """How many findings there are, by check; without those that have none."""
        query = self._query(select(_F.check_name, func.count()), account_id, checks).group_by(_F.check_name)
        return {row[0]: row[1] for row in connection.execute(query)}


def finding(connection: Connection, account_id: str, finding_id: str) -> Finding:
    """One finding.

    Raises:
        NotFoundError: there is none of that id.
    """
    query = select(schema.audit_findings).where(_F.account_id == account_id, _F.id == finding_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError("there is no such audit finding")
    return _completed(connection, account_id, [_finding(row)])[0]


def _finding(row: Mapping[Any, Any]) -> Finding:
    resource = dict(row["resource"]["resourceIdentifier"])
    own = resource.get("deviceCertificateId")
    return Finding(
        id=row["id"],
        task_id=row["task_id"],
        check_name=row["check_name"],
        reason_code=row["reason_code"],
        resource=resource,
        suppressed=row["suppressed"],
        certificates=(own,) if own else (),
        place=(row["check_name"], row["resource_key"], row["reason_code"]),
    )


def _completed(connection: Connection, account_id: str, found: list[Finding]) -> list[Finding]:
    """Findings with what other tables say of them."""
    certificates = _certificates_below(connection, account_id, found)
    issuing = _issuing(connection, account_id, found)
    if not certificates and not issuing:
        return found
    return [
        replace(
            one,
            certificates=certificates.get(one.id, one.certificates),
            of_issuer=one.resource.get("caCertificateId") in issuing,
        )
        for one in found
    ]


def _certificates_below(connection: Connection, account_id: str, found: list[Finding]) -> dict[str, tuple[str, ...]]:
    """Of findings about an authority above device certificates: the ids of these, from their related resources."""
    above = [one.id for one in found if "issuerCertificateIdentifier" in one.resource]
    if not above:
        return {}
    query = select(_R.finding_id, _R.resource).where(_R.account_id == account_id, _R.finding_id.in_(above))
    related: dict[str, list[str]] = {}
    for row in connection.execute(query.order_by(_R.finding_id, _R.number)):
        identifier = row.resource.get("resourceIdentifier", {})
        if "deviceCertificateId" in identifier:
            related.setdefault(row.finding_id, []).append(identifier["deviceCertificateId"])
    return {name: tuple(names) for name, names in related.items()}


def _issuing(connection: Connection, account_id: str, found: list[Finding]) -> frozenset[str]:
    """Ids of the authorities that findings are about by which the account issues, and which are not registered."""
    named = {one.resource["caCertificateId"] for one in found if "caCertificateId" in one.resource}
    if not named:
        return frozenset()
    registered, own = schema.authorities.c, schema.issuers.c
    is_registered = exists().where(registered.account_id == account_id, registered.id == own.id)
    query = select(own.id).where(own.account_id == account_id, own.id.in_(named), ~is_registered)
    return frozenset(connection.execute(query).scalars())


def things_of_certificates(
    connection: Connection, account_id: str, certificates: Iterable[str]
) -> dict[str, tuple[str, ...]]:
    """Names of the things of each certificate that has any."""
    found: dict[str, list[str]] = {}
    for chunk in rows_in_chunks(sorted(set(certificates))):
        query = select(_P.certificate_id, _P.thing_name).where(
            _P.account_id == account_id, _P.certificate_id.in_(chunk)
        )
        for row in connection.execute(query.order_by(_P.certificate_id, _P.thing_name)):
            found.setdefault(row.certificate_id, []).append(row.thing_name)
    return {name: tuple(names) for name, names in found.items()}
