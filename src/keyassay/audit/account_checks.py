"""Checks of an account's logging options and policies, and those of things that exist in AWS only."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from keyassay.audit import policy_checks
from keyassay.audit.examining import Batch, Examiner, Found
from keyassay.registry import documents
from keyassay.storage import schema

_P = schema.policies.c
_V = schema.policy_versions.c
_PERMISSIVE = "IOT_POLICY_OVERLY_PERMISSIVE_CHECK"


class Logging(Examiner):
    """The account's logging options."""

    def total(self, connection: Connection) -> int:  # noqa: ARG002
        return 1

    def batch(self, connection: Connection, after: str) -> Batch:  # noqa: ARG002
        account_id = self.audit.account_id
        options = documents.read_document(connection, account_id, documents.LOGGING)
        found = [] if documents.is_logging(options) else [Found({"account": account_id}, "LOGGING_DISABLED")]
        return Batch(1, found, None)


class Policies(Examiner):
    """The default version of each policy, for either of the two checks."""

    def total(self, connection: Connection) -> int:
        query = select(func.count()).where(_P.account_id == self.audit.account_id)
        return int(connection.execute(query).scalar_one())

    def batch(self, connection: Connection, after: str) -> Batch:
        size = 100
        query = (
            select(_P.name, _P.default_version, _V.document)
            .join_from(
                schema.policies,
                schema.policy_versions,
                (_V.account_id == _P.account_id) & (_V.policy_name == _P.name) & (_V.version == _P.default_version),
            )
            .where(_P.account_id == self.audit.account_id, _P.name > after)
            .order_by(_P.name)
            .limit(size)
        )
        rows = connection.execute(query).all()
        found = [
            Found({"policyVersionIdentifier": {"policyName": name, "policyVersionId": str(version)}}, code)
            for name, version, document in rows
            for code in self._codes(document)
        ]
        return Batch(len(rows), found, rows[-1].name if len(rows) == size else None)

    def _codes(self, document: str) -> list[str]:
        if self.audit.check.name != _PERMISSIVE:
            return policy_checks.misconfigured(document)
        code = policy_checks.overly_permissive(document)
        return [] if code is None else [code]


class Nothing(Examiner):
    """What there is none of outside AWS: identity pools, role aliases. Compliant, over no resources."""

    def total(self, connection: Connection) -> int:  # noqa: ARG002
        return 0

    def batch(self, connection: Connection, after: str) -> Batch:  # noqa: ARG002
        return Batch(0, (), None)
