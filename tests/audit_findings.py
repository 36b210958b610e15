"""Audits with findings for tests of what comes after them, written straight into the tables."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from keyassay.audit.checks import AUDIT_CHECKS, resource_key
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor
from two_accounts import A

DEVICE_KEYS = "DEVICE_CERTIFICATE_KEY_QUALITY_CHECK"
CA_KEYS = "CA_CERTIFICATE_KEY_QUALITY_CHECK"
POLICIES = "IOT_POLICY_OVERLY_PERMISSIVE_CHECK"
LOGGING = "LOGGING_DISABLED_CHECK"
INTERMEDIATES = "INTERMEDIATE_CA_REVOKED_FOR_ACTIVE_DEVICE_CERTIFICATES_CHECK"


@dataclass
class Found:
    """One finding to write."""

    check: str
    resource: Mapping[str, Any]
    code: str = ""
    suppressed: bool = False
    related: Iterable[Mapping[str, Any]] = ()
    id: str = ""


def audit(registry: Registry, found: Iterable[Found], actor: Actor = A, status: str = "COMPLETED") -> str:
    """Write an audit with these findings; its id. Findings without an id get one."""
    task_id = str(uuid.uuid4())
    with registry.database.write(actor) as transaction:
        now = transaction.now
        account = {"account_id": actor.account_id}
        transaction.execute(
            schema.audit_tasks.insert().values(
                **account, id=task_id, type="ON_DEMAND_AUDIT_TASK", status=status, cancel=False, started_at=now - 1_000
            )
        )
        rows, related = [], []
        for one in found:
            check = AUDIT_CHECKS[one.check]
            one.id = one.id or str(uuid.uuid4())
            rows.append(
                account
                | {
                    "id": one.id,
                    "task_id": task_id,
                    "check_name": one.check,
                    "task_started_at": now - 1_000,
                    "found_at": now,
                    "severity": check.severity.value,
                    "resource_type": check.resource_type,
                    "resource_key": resource_key(one.resource),
                    "resource": {"resourceType": check.resource_type, "resourceIdentifier": dict(one.resource)},
                    "reason_code": one.code or check.reason_codes[0],
                    "reason": "a reason",
                    "suppressed": one.suppressed,
                }
            )
            related += [
                account | {"finding_id": one.id, "number": number, "resource": dict(resource)}
                for number, resource in enumerate(one.related)
            ]
        if rows:
            transaction.execute(schema.audit_findings.insert(), rows)
        if related:
            transaction.execute(schema.audit_related.insert(), related)
    return task_id


def device(certificate_id: str, **more: Any) -> Found:
    """A device certificate with a weak key."""
    return Found(DEVICE_KEYS, {"deviceCertificateId": certificate_id}, **more)
