"""Thing groups in AWS IoT's words; what they mean is in ``keyassay.registry``: ``thing_groups``, ``memberships``."""

from __future__ import annotations

from typing import Any

from keyassay.aws.operations import Request, operation
from keyassay.aws.services import actor_of, moment, paged, registry_of
from keyassay.registry import memberships, tags, thing_groups
from keyassay.registry.errors import InvalidError


def _arn(request: Request, name: str) -> str:
    return registry_of(request).arn(request.account_id, f"thinggroup/{name}")


def _named(request: Request, name: str) -> dict[str, Any]:
    return {"groupName": name, "groupArn": _arn(request, name)}


@operation("CreateThingGroup")
def create_thing_group(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    name = params["thingGroupName"]
    properties = params.get("thingGroupProperties", {})
    group_id = thing_groups.create(
        registry_of(request),
        actor_of(request),
        name,
        parent=params.get("parentGroupName"),
        description=properties.get("thingGroupDescription"),
        attributes=properties.get("attributePayload", {}).get("attributes"),
        tags=tags.as_mapping(params.get("tags")),
    )
    return {"thingGroupName": name, "thingGroupArn": _arn(request, name), "thingGroupId": group_id}


@operation("DescribeThingGroup")
def describe_thing_group(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    row, above = thing_groups.describe(registry_of(request), actor_of(request), params["thingGroupName"])
    properties = {
        "thingGroupDescription": row["properties"].get("description"),
        "attributePayload": {"attributes": row["properties"]["attributes"]},
    }
    metadata = {
        "parentGroupName": row["parent_name"],
        "rootToParentThingGroups": [_named(request, name) for name in above] or None,
        "creationDate": moment(row["created_at"]),
    }
    return {
        "thingGroupName": row["name"],
        "thingGroupId": row["id"],
        "thingGroupArn": _arn(request, row["name"]),
        "version": row["version"],
        "thingGroupProperties": properties,
        "thingGroupMetadata": metadata,
    }


@operation("UpdateThingGroup")
def update_thing_group(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    properties = params["thingGroupProperties"]
    payload = properties.get("attributePayload", {})
    version = thing_groups.change(
        registry_of(request),
        actor_of(request),
        params["thingGroupName"],
        description=properties.get("thingGroupDescription"),
        attributes=payload.get("attributes"),
        merge=payload.get("merge", False),
        expected_version=params.get("expectedVersion"),
    )
    return {"version": version}


@operation("DeleteThingGroup")
def delete_thing_group(request: Request, params: dict[str, Any]) -> None:
    expected = params.get("expectedVersion")
    thing_groups.remove(registry_of(request), actor_of(request), params["thingGroupName"], expected_version=expected)


@operation("ListThingGroups")
def list_thing_groups(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = thing_groups.listed(
        registry_of(request),
        actor_of(request),
        parent=params.get("parentGroup"),
        prefix=params.get("namePrefixFilter"),
        recursive=params.get("recursive"),
        token=params.get("nextToken"),
        size=params.get("maxResults"),
    )
    return paged("thingGroups", (_named(request, row["name"]) for row in page.rows), page, "nextToken")


# Who is in them


def _name(request: Request, params: dict[str, Any], member: str, kind: str) -> str:
    """The name of a thing or a group that is told by name, by ARN, or both.

    Raises:
        InvalidError: neither, or they differ.
    """
    name, arn = params.get(f"{member}Name"), params.get(f"{member}Arn")
    if arn is not None:
        named = registry_of(request).resource(actor_of(request), arn, kind)
        if name not in (None, named):
            raise InvalidError(f"{member}Name and {member}Arn name different things")
        return named
    if name is None:
        raise InvalidError(f"one of {member}Name and {member}Arn has to be given")
    return str(name)


@operation("AddThingToThingGroup")
def add_thing_to_thing_group(request: Request, params: dict[str, Any]) -> None:
    memberships.add(
        registry_of(request),
        actor_of(request),
        _name(request, params, "thing", "thing"),
        _name(request, params, "thingGroup", "thinggroup"),
        override_dynamic_groups=params.get("overrideDynamicGroups", False),
    )


@operation("RemoveThingFromThingGroup")
def remove_thing_from_thing_group(request: Request, params: dict[str, Any]) -> None:
    memberships.remove(
        registry_of(request),
        actor_of(request),
        _name(request, params, "thing", "thing"),
        _name(request, params, "thingGroup", "thinggroup"),
    )


@operation("UpdateThingGroupsForThing")
def update_thing_groups_for_thing(request: Request, params: dict[str, Any]) -> None:
    memberships.update(
        registry_of(request),
        actor_of(request),
        _name(request, params, "thing", "thing"),
        to_add=params.get("thingGroupsToAdd", ()),
        to_remove=params.get("thingGroupsToRemove", ()),
        override_dynamic_groups=params.get("overrideDynamicGroups", False),
    )


@operation("ListThingsInThingGroup")
def list_things_in_thing_group(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = memberships.things_in(
        registry_of(request),
        actor_of(request),
        params["thingGroupName"],
        recursive=params.get("recursive", False),
        token=params.get("nextToken"),
        size=params.get("maxResults"),
    )
    return {"things": [row["thing_name"] for row in page.rows], "nextToken": page.next_token}


@operation("ListThingGroupsForThing")
def list_thing_groups_for_thing(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = memberships.groups_of(
        registry_of(request),
        actor_of(request),
        params["thingName"],
        token=params.get("nextToken"),
        size=params.get("maxResults"),
    )
    return paged("thingGroups", (_named(request, row["group_name"]) for row in page.rows), page, "nextToken")
