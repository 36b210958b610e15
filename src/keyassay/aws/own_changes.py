"""What changed, for people who ask "who did that" and for programs that follow: an endpoint of our own."""

from __future__ import annotations

from typing import Any

from keyassay.aws.operations import Access, Request, endpoint
from keyassay.aws.services import actor_of, moment, registry_of
from keyassay.registry import accounts


@endpoint(
    "GET",
    "/keyassay/v1/changes",
    access=Access.READ,
    takes={
        "after": {"type": "long", "min": 0},
        "maxResults": {"type": "integer", "min": 1, "max": 1000},
        "resourceType": {"type": "string", "max": 32},
        "resourceId": {"type": "string", "max": 256},
    },
)
def list_changes(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    """Changes of the account after a revision, in commit order, with who, when, from where and by which request.

    ``revision`` of the last one is the next ``after``; ``feedEpoch`` changes when the database was restored, and a
    follower then begins anew. ``resourceType`` ("certificate", "thing", ...) and ``resourceId`` (certificate id, name)
    leave others out.
    """
    registry = registry_of(request)
    rows = accounts.changes(
        registry,
        actor_of(request),
        after=params.get("after", 0),
        limit=params.get("maxResults", 100),
        resource_type=params.get("resourceType", ""),
        resource_id=params.get("resourceId", ""),
    )
    changes = [
        {
            "revision": row["revision"],
            "at": moment(row["at"]),
            "actor": row["actor"],
            "sourceAddress": row["source"],
            "requestId": row["request_id"],
            "operation": row["operation"],
            "resourceType": row["resource_type"],
            "resourceId": row["resource_id"],
            "details": row["details"],
        }
        for row in rows
    ]
    return {"changes": changes, "feedEpoch": accounts.feed_epoch(registry)}
