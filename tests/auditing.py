"""Audits for tests: enable checks, run a worker, look at what came out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import fleet_keys
from keyassay.audit import configuration, tasks
from keyassay.audit.checks import AUDIT_CHECKS
from keyassay.audit.examining import AuditSettings
from keyassay.audit.worker import AuditWorker
from keyassay.registry import issuing
from keyassay.registry.registry import Registry
from keyassay.storage.database import Actor
from two_accounts import A

DEVICE_KEYS = "DEVICE_CERTIFICATE_KEY_QUALITY_CHECK"
CA_KEYS = "CA_CERTIFICATE_KEY_QUALITY_CHECK"
ROCA = "CERTIFICATE_KEY_VULNERABILITY_CVE-2017-15361"


def enable(registry: Registry, actor: Actor = A, names: Sequence[str] = (), **configured: dict[str, str]) -> None:
    """Enable checks, all of them if none is named; keywords give the configuration of some."""
    wishes: dict[str, Any] = {name: {"enabled": True} for name in names or AUDIT_CHECKS}
    for name, values in configured.items():
        wishes[name]["configuration"] = values
    configuration.change(registry, actor, role_arn="arn:aws:iam::111111111111:role/audit", checks=wishes)


def worker(registry: Registry, **settings: Any) -> AuditWorker:
    """A worker that looks at two certificates at a time."""
    return AuditWorker(
        registry, AuditSettings(**{"batch": 2, "lease": 2.0, "poll": 0.05, **settings}), structlog.get_logger()
    )


def audit(
    registry: Registry, *names: str, actor: Actor = A, by: AuditWorker | None = None, **settings: Any
) -> tasks.Task:
    """An audit from its start to its end."""
    task_id = tasks.start(registry, actor, names)
    doing = by or worker(registry, **settings)
    while doing.turn():
        pass
    return tasks.describe(registry, actor, task_id)


def summary(task: tasks.Task, name: str) -> tuple[str, int, int, int]:
    """Status, resources, noncompliant ones, suppressed ones of a check."""
    row = task.checks[name]
    return row["status"], row["total"], row["noncompliant"], row["suppressed"]


def findings(rows: Any, task: tasks.Task, name: str) -> set[tuple[str, str]]:
    """(resource key, reason code) of a check's findings."""
    found = rows.all("audit_findings", task_id=task.row["id"], check_name=name)
    assert len(found) == len({(row["resource_key"], row["reason_code"]) for row in found})
    return {(row["resource_key"].partition("=")[2], row["reason_code"]) for row in found}


def issues_with(registry: Registry, authority: fleet_keys.Signed) -> str:
    """Have the account issue by an authority; its id."""
    key = authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return issuing.import_issuer(registry, A, authority.pem, key).id
