"""Mitigation actions and tasks in AWS IoT's words; what they mean is in ``keyassay.mitigation``."""

from __future__ import annotations

from typing import Any

from keyassay.aws.operations import Request, operation
from keyassay.aws.services import actor_of, moment, paged, registry_of
from keyassay.mitigation import actions, tasks
from keyassay.registry.registry import milliseconds
from keyassay.registry.tags import as_mapping


def _named(request: Request, action: actions.Action) -> dict[str, Any]:
    return {"actionArn": _arn(request, action.name), "actionId": action.id}


def _arn(request: Request, name: str) -> str:
    return registry_of(request).arn(request.account_id, f"mitigationaction/{name}")


@operation("CreateMitigationAction")
def create_mitigation_action(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    made = actions.create(
        registry_of(request),
        actor_of(request),
        params["actionName"],
        params["roleArn"],
        params["actionParams"],
        as_mapping(params.get("tags")),
    )
    return _named(request, made)


@operation("DescribeMitigationAction")
def describe_mitigation_action(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    row = actions.describe(registry_of(request), actor_of(request), params["actionName"])
    return {
        "actionName": row["name"],
        "actionType": row["type"],
        "actionArn": _arn(request, row["name"]),
        "actionId": row["id"],
        "roleArn": row["role_arn"],
        "actionParams": row["params"],
        "creationDate": moment(row["created_at"]),
        "lastModifiedDate": moment(row["modified_at"]),
    }


@operation("UpdateMitigationAction")
def update_mitigation_action(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    changed = actions.change(
        registry_of(request),
        actor_of(request),
        params["actionName"],
        role_arn=params.get("roleArn"),
        params=params.get("actionParams"),
    )
    return _named(request, changed)


@operation("DeleteMitigationAction")
def delete_mitigation_action(request: Request, params: dict[str, Any]) -> None:
    actions.remove(registry_of(request), actor_of(request), params["actionName"])


@operation("ListMitigationActions")
def list_mitigation_actions(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = actions.listed(
        registry_of(request),
        actor_of(request),
        type=params.get("actionType"),
        token=params.get("nextToken"),
        size=params.get("maxResults"),
    )
    rows = (
        {
            "actionName": row["name"],
            "actionArn": _arn(request, row["name"]),
            "creationDate": moment(row["created_at"]),
        }
        for row in page.rows
    )
    return paged("actionIdentifiers", rows, page, "nextToken")


@operation("StartAuditMitigationActionsTask")
def start_audit_mitigation_actions_task(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    task_id = tasks.start(
        registry_of(request),
        actor_of(request),
        params["taskId"],
        params["target"],
        params["auditCheckToActionsMapping"],
        params["clientRequestToken"],
    )
    return {"taskId": task_id}


@operation("DescribeAuditMitigationActionsTask")
def describe_audit_mitigation_actions_task(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    row = tasks.describe(registry_of(request), actor_of(request), params["taskId"])
    return {
        "taskStatus": row["status"],
        "startTime": moment(row["started_at"]),
        "endTime": moment(row["ended_at"]),
        "taskStatistics": tasks.Progress.of(row).statistics(),
        "target": row["target"],
        "auditCheckToActionsMapping": row["mapping"],
        "actionsDefinition": row["definitions"],
    }


@operation("ListAuditMitigationActionsTasks")
def list_audit_mitigation_actions_tasks(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = tasks.listed(
        registry_of(request),
        actor_of(request),
        start_time=milliseconds(params["startTime"].timestamp()),
        end_time=milliseconds(params["endTime"].timestamp()),
        audit_task_id=params.get("auditTaskId"),
        finding_id=params.get("findingId"),
        status=params.get("taskStatus"),
        token=params.get("nextToken"),
        size=params.get("maxResults"),
    )
    rows = (
        {"taskId": row["id"], "startTime": moment(row["started_at"]), "taskStatus": row["status"]} for row in page.rows
    )
    return paged("tasks", rows, page, "nextToken")


@operation("ListAuditMitigationActionsExecutions")
def list_audit_mitigation_actions_executions(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = tasks.executions(
        registry_of(request),
        actor_of(request),
        params["taskId"],
        params["findingId"],
        status=params.get("actionStatus"),
        token=params.get("nextToken"),
        size=params.get("maxResults"),
    )
    rows = (
        {
            "taskId": row["task_id"],
            "findingId": row["finding_id"],
            "actionName": row["action_name"],
            "actionId": row["action_id"],
            "status": row["status"],
            "startTime": moment(row["started_at"]),
            "endTime": moment(row["ended_at"]),
            "errorCode": row["error_code"],
            "message": row["message"],
        }
        for row in page.rows
    )
    return paged("actionsExecutions", rows, page, "nextToken")


@operation("CancelAuditMitigationActionsTask")
def cancel_audit_mitigation_actions_task(request: Request, params: dict[str, Any]) -> None:
    tasks.cancel(registry_of(request), actor_of(request), params["taskId"])
