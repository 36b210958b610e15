"""The message that an audit has ended: once, with the numbers of the task, and only to who wants it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import update

from keyassay.audit import tasks
from keyassay.registry.documents import write_document
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from two_accounts import A, Rows

TOPIC = "arn:aws:sns:us-east-1:111111111111:audits"
CHECKS = ("LOGGING_DISABLED_CHECK", "DEVICE_CERTIFICATE_EXPIRING_CHECK", "CA_CERTIFICATE_EXPIRING_CHECK")


def configure(registry: Registry, sns: dict[str, Any] | None) -> None:
    document = {
        "roleArn": "arn:aws:iam::111111111111:role/audit",
        "auditCheckConfigurations": {name: {"enabled": True} for name in CHECKS},
        "auditNotificationTargetConfigurations": {} if sns is None else {"SNS": sns},
    }
    with registry.database.write(A) as transaction:
        write_document(transaction, tasks.AUDIT, document)


def test_the_numbers_are_those_of_the_task(registry: Registry, rows: Rows) -> None:
    configure(registry, {"targetArn": TOPIC, "roleArn": "r", "enabled": True})
    task_id = tasks.start(registry, A, CHECKS)
    columns = schema.audit_task_checks.c
    results: list[dict[str, Any]] = [
        {"status": "COMPLETED_NON_COMPLIANT", "total": 1, "noncompliant": 1},
        {"status": "COMPLETED_COMPLIANT", "total": 7, "suppressed": 2},
        {"status": "FAILED", "error_code": "AUDIT_CHECK_DISABLED", "message": "off"},
    ]
    with registry.database.write(A) as transaction:
        for name, result in zip(CHECKS, results, strict=True):
            transaction.execute(update(schema.audit_task_checks).where(columns.check_name == name).values(result))
        tasks.end(transaction, task_id, tasks.TaskStatus.COMPLETED)
    (sent,) = rows.all("outbox")
    assert (sent["target"], sent["status"], sent["account_id"]) == (TOPIC, "PENDING", A.account_id)
    body = json.loads(sent["body"])
    described = tasks.describe(registry, A, task_id)
    assert body["taskStartTime"] == described.row["started_at"]
    assert isinstance(body["taskStartTime"], int)
    assert {name: body[f"{name}Count"] for name in described.statistics if f"{name}Count" in body} == {
        "totalChecks": 3,
        "compliantChecks": 1,
        "nonCompliantChecks": 1,
        "failedChecks": 1,
        "canceledChecks": 0,
    }
    assert (body["accountId"], body["taskId"], body["taskStatus"]) == (A.account_id, task_id, "COMPLETED")
    assert body["taskType"] == "ON_DEMAND_AUDIT_TASK"
    assert "scheduledAuditName" not in body
    details = {one["checkName"]: one for one in body["auditDetails"]}
    assert details[CHECKS[1]] == {
        "checkName": CHECKS[1],
        "checkRunStatus": "COMPLETED_COMPLIANT",
        "nonCompliantResourcesCount": 0,
        "suppressedNonCompliantResourcesCount": 2,
        "totalResourcesCount": 7,
    }
    assert details[CHECKS[2]]["errorCode"] == "AUDIT_CHECK_DISABLED"
    assert details[CHECKS[2]]["message"] == "off"


def test_a_canceled_audit_is_told_too(registry: Registry, rows: Rows) -> None:
    configure(registry, {"targetArn": TOPIC, "roleArn": "r", "enabled": True})
    task_id = tasks.start(registry, A, CHECKS[:1])
    tasks.cancel(registry, A, task_id)
    (sent,) = rows.all("outbox")
    body = json.loads(sent["body"])
    assert (body["taskStatus"], body["canceledChecksCount"], body["totalChecksCount"]) == ("CANCELED", 1, 1)


@pytest.mark.parametrize("sns", [None, {"targetArn": TOPIC, "enabled": False}, {"enabled": True}, {"targetArn": TOPIC}])
def test_nobody_is_told_unwanted(registry: Registry, rows: Rows, sns: dict[str, Any] | None) -> None:
    configure(registry, sns)
    tasks.cancel(registry, A, tasks.start(registry, A, CHECKS[:1]))
    assert rows.all("outbox") == []
