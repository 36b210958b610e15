"""Dry runs of mitigation tasks, and messages that could not be delivered: endpoints of our own."""

from __future__ import annotations

from typing import Any

from keyassay.aws.operations import Access, Request, endpoint
from keyassay.aws.services import actor_of, moment, paged, registry_of
from keyassay.mitigation import actions, publishing, tasks
from keyassay.mitigation.plan import Planned

_PAGE: dict[str, dict[str, Any]] = {
    "nextToken": {"type": "string"},
    "maxResults": {"type": "integer", "min": 1, "max": 250},
}


@endpoint(
    "POST",
    "/keyassay/v1/mitigation/plan",
    access=Access.READ,
    takes={
        "target": {"shape": "AuditMitigationActionsTaskTarget"},
        "auditCheckToActionsMapping": {"shape": "AuditCheckToActionsMapping"},
        "actionsDefinition": {
            "type": "list",
            "max": 25,
            "member": {
                "type": "structure",
                "members": {
                    "name": {"shape": "MitigationActionName"},
                    "actionParams": {"shape": "MitigationActionParams"},
                },
                "required": ("name", "actionParams"),
            },
        },
        **_PAGE,
    },
    required=("target", "auditCheckToActionsMapping"),
)
def plan_mitigation(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """What StartAuditMitigationActionsTask would do with the same target and mapping; nothing changes.

    Findings come in the order in which a task takes them up, each with its steps, or with the reason why it is skipped.
    The mapping may name actions that do not exist yet: ``actionsDefinition`` says what they would be.
    """
    proposed = [actions.Action(one["name"], "", "", one["actionParams"]) for one in params.get("actionsDefinition", ())]
    for one in proposed:
        actions.type_of(one.params)
    page = tasks.dry_run(
        registry_of(request),
        actor_of(request),
        params["target"],
        params["auditCheckToActionsMapping"],
        proposed=proposed,
        token=params.get("nextToken"),
        size=params.get("maxResults"),
    )
    return paged("findings", (_planned(one) for one in page.rows), page, "nextToken")


def _planned(one: Planned) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "findingId": one.finding.id,
        "auditTaskId": one.finding.task_id,
        "checkName": one.finding.check_name,
        "reasonForNonComplianceCode": one.finding.reason_code,
        "resourceIdentifier": one.finding.resource,
        "certificates": list(one.finding.certificates),
    }
    if one.skipped:
        return {**shown, "skipped": one.skipped, "steps": []}
    steps = [
        {
            "actionName": step.action.name,
            "actionType": step.action.type.value,
            "things": list(step.things),
            "effect": step.effect,
        }
        for step in one.steps
    ]
    return {**shown, "steps": steps}


@endpoint("GET", "/keyassay/v1/dead-letters", access=Access.READ, takes=_PAGE)
def list_dead_letters(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Messages of the account that were given up, oldest first."""
    page = publishing.dead_letters(
        registry_of(request), actor_of(request), token=params.get("nextToken"), size=params.get("maxResults")
    )
    rows = (
        {
            "id": row["id"],
            "target": row["target"],
            "type": row["subject"],
            "createdAt": moment(row["created_at"]),
            "attempts": row["attempts"],
            "error": row["error"],
            "message": row["body"],
        }
        for row in page.rows
    )
    return paged("deadLetters", rows, page, "nextToken")


@endpoint(
    "POST",
    "/keyassay/v1/dead-letters/{id}/replay",
    access=Access.CHANGE,
    takes={"id": {"type": "string", "min": 1, "max": 64}},
    required=("id",),
)
def replay_dead_letter(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Send a dead letter again, under its old id; a mitigation task that waited for it stays FAILED."""
    publishing.replay(registry_of(request), actor_of(request), params["id"])
    return {"id": params["id"]}
