"""Mitigation actions of each kind, and tasks that run to their end, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

import fleet_keys
from audit_findings import DEVICE_KEYS
from keyassay.mitigation import tasks
from keyassay.mitigation.tasks import Progress
from keyassay.mitigation.worker import MitigationWorker
from keyassay.registry import certificates
from keyassay.registry.registry import Registry
from two_accounts import A

ROLE = "arn:aws:iam::111111111111:role/mitigation"
TOPIC = "arn:aws:sns:us-east-1:111111111111:findings"
PARAMS: dict[str, dict[str, Any]] = {
    "deactivate": {"updateDeviceCertificateParams": {"action": "DEACTIVATE"}},
    "deactivate-ca": {"updateCACertificateParams": {"action": "DEACTIVATE"}},
    "quarantine": {"addThingsToThingGroupParams": {"thingGroupNames": ["quarantine"], "overrideDynamicGroups": True}},
    "blank": {"replaceDefaultPolicyVersionParams": {"templateName": "BLANK_POLICY"}},
    "log": {"enableIoTLoggingParams": {"roleArnForLogging": ROLE, "logLevel": "INFO"}},
    "publish": {"publishFindingToSnsParams": {"topicArn": TOPIC}},
}


def register(registry: Registry, count: int = 1) -> list[str]:
    pems = [fleet_keys.device().pem for _ in range(count)]
    return [certificates.register_without_authority(registry, A, pem, status="ACTIVE").id for pem in pems]


def run(registry: Registry, target: dict[str, Any], mapping: dict[str, Sequence[str]], task_id: str = "task") -> Any:
    """Start a task, let a worker do all that can be done, describe it."""
    tasks.start(registry, A, task_id, target, mapping, f"token-{task_id}")
    work(registry)
    return tasks.describe(registry, A, task_id)


def work(registry: Registry) -> None:
    worker = MitigationWorker(registry, structlog.testing.CapturingLogger())
    while worker.turn():
        pass


def counts(row: Any, check: str = DEVICE_KEYS) -> dict[str, int]:
    """The counts of a check that are not 0, without their long names."""
    its = Progress.of(row).statistics()[check]
    assert its["totalFindingsCount"] == sum(its.values()) - its["totalFindingsCount"] or row["status"] == "IN_PROGRESS"
    return {name.removesuffix("FindingsCount"): value for name, value in its.items() if value}


def statuses(registry: Registry, finding_id: str, task_id: str = "task") -> list[str]:
    return [row["status"] for row in tasks.executions(registry, A, task_id, finding_id).rows]


def status_of(registry: Registry, certificate_id: str) -> str:
    return str(certificates.describe(registry, A, certificate_id)["status"])
