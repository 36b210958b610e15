"""Audits in AWS IoT Device Defender's words; what they mean is in ``keyassay.audit``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from keyassay.audit import configuration, findings, schedules, suppressions, tasks
from keyassay.aws.operations import Request, operation
from keyassay.aws.services import actor_of, moment, paged, registry_of
from keyassay.registry import tags
from keyassay.registry.registry import milliseconds


def _milliseconds(time: datetime | None) -> int | None:
    return None if time is None else milliseconds(time.timestamp())


# Configuration


@operation("UpdateAccountAuditConfiguration")
def update_account_audit_configuration(request: Request, params: dict[str, Any]) -> None:
    configuration.change(
        registry_of(request),
        actor_of(request),
        role_arn=params.get("roleArn"),
        targets=params.get("auditNotificationTargetConfigurations"),
        checks=params.get("auditCheckConfigurations"),
    )


@operation("DescribeAccountAuditConfiguration")
def describe_account_audit_configuration(request: Request, _params: dict[str, Any]) -> dict[str, Any]:
    return configuration.describe(registry_of(request), actor_of(request))


@operation("DeleteAccountAuditConfiguration")
def delete_account_audit_configuration(request: Request, params: dict[str, Any]) -> None:
    wished = params.get("deleteScheduledAudits", False)
    configuration.remove(registry_of(request), actor_of(request), with_scheduled_audits=wished)


# Tasks


@operation("StartOnDemandAuditTask")
def start_on_demand_audit_task(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    return {"taskId": tasks.start(registry_of(request), actor_of(request), params["targetCheckNames"])}


@operation("DescribeAuditTask")
def describe_audit_task(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    task = tasks.describe(registry_of(request), actor_of(request), params["taskId"])
    return {
        "taskStatus": task.row["status"],
        "taskType": task.row["type"],
        "taskStartTime": moment(task.row["started_at"]),
        "taskStatistics": task.statistics,
        "scheduledAuditName": task.row["scheduled_audit_name"],
        "auditDetails": {name: _check_details(dict(row)) for name, row in task.checks.items()},
    }


def _check_details(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "checkRunStatus": row["status"],
        "checkCompliant": row["status"] == tasks.RunStatus.COMPLIANT.value,
        "totalResourcesCount": row["total"],
        "nonCompliantResourcesCount": row["noncompliant"],
        "suppressedNonCompliantResourcesCount": row["suppressed"],
        "errorCode": row["error_code"],
        "message": row["message"],
    }


@operation("ListAuditTasks")
def list_audit_tasks(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = tasks.listed(
        registry_of(request),
        actor_of(request),
        start_time=milliseconds(params["startTime"].timestamp()),
        end_time=milliseconds(params["endTime"].timestamp()),
        type=params.get("taskType"),
        status=params.get("taskStatus"),
        token=params.get("nextToken"),
        size=params.get("maxResults"),
    )
    rows = ({"taskId": row["id"], "taskStatus": row["status"], "taskType": row["type"]} for row in page.rows)
    return paged("tasks", rows, page, "nextToken")


@operation("CancelAuditTask")
def cancel_audit_task(request: Request, params: dict[str, Any]) -> None:
    tasks.cancel(registry_of(request), actor_of(request), params["taskId"])


# Findings


def _finding(found: findings.AuditFinding) -> dict[str, Any]:
    row = found.row
    return {
        "findingId": row["id"],
        "taskId": row["task_id"],
        "checkName": row["check_name"],
        "taskStartTime": moment(row["task_started_at"]),
        "findingTime": moment(row["found_at"]),
        "severity": row["severity"],
        "nonCompliantResource": row["resource"],
        "relatedResources": found.related or None,
        "reasonForNonCompliance": row["reason"],
        "reasonForNonComplianceCode": row["reason_code"],
        "isSuppressed": row["suppressed"],
    }


@operation("ListAuditFindings")
def list_audit_findings(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = findings.listed(
        registry_of(request),
        actor_of(request),
        task_id=params.get("taskId"),
        start_time=_milliseconds(params.get("startTime")),
        end_time=_milliseconds(params.get("endTime")),
        check_name=params.get("checkName"),
        identifier=params.get("resourceIdentifier"),
        suppressed=params.get("listSuppressedFindings"),
        token=params.get("nextToken"),
        size=params.get("maxResults"),
    )
    return paged("findings", (_finding(one) for one in page.rows), page, "nextToken")


@operation("DescribeAuditFinding")
def describe_audit_finding(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    return {"finding": _finding(findings.describe(registry_of(request), actor_of(request), params["findingId"]))}


@operation("ListRelatedResourcesForAuditFinding")
def list_related_resources_for_audit_finding(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = findings.related(
        registry_of(request),
        actor_of(request),
        params["findingId"],
        token=params.get("nextToken"),
        size=params.get("maxResults"),
    )
    return paged("relatedResources", (row["resource"] for row in page.rows), page, "nextToken")


# Suppressions


def _suppression(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "checkName": row["check_name"],
        "resourceIdentifier": row["resource"],
        "expirationDate": moment(row["expires_at"]),
        "suppressIndefinitely": row["expires_at"] is None,
        "description": row["description"],
    }


@operation("CreateAuditSuppression")
def create_audit_suppression(request: Request, params: dict[str, Any]) -> None:
    suppressions.create(
        registry_of(request),
        actor_of(request),
        params["checkName"],
        params["resourceIdentifier"],
        params["clientRequestToken"],
        expires_at=_milliseconds(params.get("expirationDate")),
        indefinitely=params.get("suppressIndefinitely", False),
        description=params.get("description"),
    )


@operation("DescribeAuditSuppression")
def describe_audit_suppression(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    row = suppressions.describe(
        registry_of(request), actor_of(request), params["checkName"], params["resourceIdentifier"]
    )
    return _suppression(dict(row))


@operation("UpdateAuditSuppression")
def update_audit_suppression(request: Request, params: dict[str, Any]) -> None:
    suppressions.change(
        registry_of(request),
        actor_of(request),
        params["checkName"],
        params["resourceIdentifier"],
        expires_at=_milliseconds(params.get("expirationDate")),
        indefinitely=params.get("suppressIndefinitely"),
        description=params.get("description"),
    )


@operation("DeleteAuditSuppression")
def delete_audit_suppression(request: Request, params: dict[str, Any]) -> None:
    suppressions.remove(registry_of(request), actor_of(request), params["checkName"], params["resourceIdentifier"])


@operation("ListAuditSuppressions")
def list_audit_suppressions(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = suppressions.listed(
        registry_of(request),
        actor_of(request),
        check_name=params.get("checkName"),
        identifier=params.get("resourceIdentifier"),
        token=params.get("nextToken"),
        size=params.get("maxResults"),
        ascending=params.get("ascendingOrder", True),
    )
    return paged("suppressions", (_suppression(row) for row in page.rows), page, "nextToken")


# Schedules


def _schedule(request: Request, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "scheduledAuditName": row["name"],
        "scheduledAuditArn": schedules.arn_of(registry_of(request), actor_of(request), row["name"]),
        "frequency": row["frequency"],
        "dayOfMonth": row["day_of_month"],
        "dayOfWeek": row["day_of_week"],
    }


@operation("CreateScheduledAudit")
def create_scheduled_audit(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    arn = schedules.create(
        registry_of(request),
        actor_of(request),
        params["scheduledAuditName"],
        params["targetCheckNames"],
        params["frequency"],
        day_of_month=params.get("dayOfMonth"),
        day_of_week=params.get("dayOfWeek"),
        tags=tags.as_mapping(params.get("tags")),
    )
    return {"scheduledAuditArn": arn}


@operation("DescribeScheduledAudit")
def describe_scheduled_audit(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    row = schedules.describe(registry_of(request), actor_of(request), params["scheduledAuditName"])
    return {**_schedule(request, dict(row)), "targetCheckNames": row["checks"]}


@operation("UpdateScheduledAudit")
def update_scheduled_audit(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    arn = schedules.change(
        registry_of(request),
        actor_of(request),
        params["scheduledAuditName"],
        check_names=params.get("targetCheckNames"),
        frequency=params.get("frequency"),
        day_of_month=params.get("dayOfMonth"),
        day_of_week=params.get("dayOfWeek"),
    )
    return {"scheduledAuditArn": arn}


@operation("DeleteScheduledAudit")
def delete_scheduled_audit(request: Request, params: dict[str, Any]) -> None:
    schedules.remove(registry_of(request), actor_of(request), params["scheduledAuditName"])


@operation("ListScheduledAudits")
def list_scheduled_audits(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = schedules.listed(
        registry_of(request), actor_of(request), token=params.get("nextToken"), size=params.get("maxResults")
    )
    return paged("scheduledAudits", (_schedule(request, row) for row in page.rows), page, "nextToken")
