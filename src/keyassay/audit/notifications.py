"""The message that an audit has ended, to the target that the account configured; its numbers are DescribeAuditTask's.

It goes into the outbox in the transaction that ends the task: no audit ends without it, none sends it twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import RowMapping

from keyassay.storage import outbox
from keyassay.storage.database import Transaction

if TYPE_CHECKING:
    from keyassay.audit.tasks import Task

#: DescribeAuditTask's name of a count -> the message's
_COUNTS = {
    "failedChecks": "failedChecksCount",
    "canceledChecks": "canceledChecksCount",
    "nonCompliantChecks": "nonCompliantChecksCount",
    "compliantChecks": "compliantChecksCount",
    "totalChecks": "totalChecksCount",
}


def notify_finished(transaction: Transaction, configuration: Mapping[str, Any], task: Task) -> str | None:
    """Put the message into the outbox.

    Args:
        transaction: that ends the task.
        configuration: of the account's audits.
        task: with its last status and those of its checks.

    Returns:
        The message's id; None if the account wants no messages.
    """
    target = (configuration.get("auditNotificationTargetConfigurations") or {}).get("SNS") or {}
    if not target.get("enabled") or not target.get("targetArn"):
        return None
    return outbox.put(transaction, target["targetArn"], outbox.FINISHED, message(task))


def message(task: Task) -> dict[str, Any]:
    """What AWS's message about a finished audit holds; times are whole milliseconds since 1970."""
    row = task.row
    counts = task.statistics
    scheduled = {"scheduledAuditName": row["scheduled_audit_name"]} if row["scheduled_audit_name"] else {}
    return {
        "accountId": row["account_id"],
        "taskId": row["id"],
        "taskStatus": row["status"],
        "taskType": row["type"],
        **scheduled,
        **{told: counts[name] for name, told in _COUNTS.items()},
        "taskStartTime": row["started_at"],
        "auditDetails": [_detail(name, one) for name, one in task.checks.items()],
    }


def _detail(name: str, row: RowMapping) -> dict[str, Any]:
    trouble = {"errorCode": row["error_code"], "message": row["message"]}
    return {
        "checkName": name,
        "checkRunStatus": row["status"],
        "nonCompliantResourcesCount": row["noncompliant"],
        "suppressedNonCompliantResourcesCount": row["suppressed"],
        "totalResourcesCount": row["total"],
        **{member: value for member, value in trouble.items() if value is not None},
    }
