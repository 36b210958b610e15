"""Things and their types in AWS IoT's words; ``keyassay.registry`` says what they mean (things, thing_types)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import RowMapping

from keyassay.aws.operations import Request, operation
from keyassay.aws.services import actor_of, moment, paged, registry_of
from keyassay.registry import tags, thing_types, things

_Row = Mapping[str, Any] | RowMapping


def _thing_arn(request: Request, name: str) -> str:
    return registry_of(request).arn(request.account_id, f"thing/{name}")


def _type_arn(request: Request, name: str) -> str:
    return registry_of(request).arn(request.account_id, f"thingtype/{name}")


@operation("CreateThing")
def create_thing(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    name = params["thingName"]
    thing_id = things.create(
        registry_of(request),
        actor_of(request),
        name,
        type_name=params.get("thingTypeName"),
        attributes=params.get("attributePayload", {}).get("attributes"),
        billing_group=params.get("billingGroupName"),
    )
    return {"thingName": name, "thingArn": _thing_arn(request, name), "thingId": thing_id}


@operation("DescribeThing", quick=True)
def describe_thing(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    row = things.describe(registry_of(request), actor_of(request), params["thingName"])
    return {
        "defaultClientId": row["name"],
        "thingId": row["id"],
        "billingGroupName": row["billing_group"],
        **_thing(request, row),
    }


def _thing(request: Request, row: _Row) -> dict[str, Any]:
    return {
        "thingName": row["name"],
        "thingArn": _thing_arn(request, row["name"]),
        "thingTypeName": row["type_name"],
        "attributes": row["attributes"],
        "version": row["version"],
    }


@operation("UpdateThing")
def update_thing(request: Request, params: dict[str, Any]) -> None:
    payload = params.get("attributePayload", {})
    things.change(
        registry_of(request),
        actor_of(request),
        params["thingName"],
        type_name=params.get("thingTypeName"),
        remove_type=params.get("removeThingType", False),
        attributes=payload.get("attributes"),
        merge=payload.get("merge", False),
        expected_version=params.get("expectedVersion"),
    )


@operation("DeleteThing")
def delete_thing(request: Request, params: dict[str, Any]) -> None:
    expected = params.get("expectedVersion")
    things.remove(registry_of(request), actor_of(request), params["thingName"], expected_version=expected)


@operation("ListThings")
def list_things(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = things.listed(
        registry_of(request),
        actor_of(request),
        type_name=params.get("thingTypeName"),
        attribute=params.get("attributeName"),
        value=params.get("attributeValue"),
        prefix=params.get("usePrefixAttributeValue", False),
        token=params.get("nextToken"),
        size=params.get("maxResults"),
    )
    return paged("things", (_thing(request, row) for row in page.rows), page, "nextToken")


# Thing types


@operation("CreateThingType")
def create_thing_type(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    name = params["thingTypeName"]
    type_id = thing_types.create(
        registry_of(request),
        actor_of(request),
        name,
        params.get("thingTypeProperties"),
        tags.as_mapping(params.get("tags")),
    )
    return {"thingTypeName": name, "thingTypeArn": _type_arn(request, name), "thingTypeId": type_id}


def _type(request: Request, row: _Row) -> dict[str, Any]:
    metadata = {
        "deprecated": row["deprecated_at"] is not None,
        "deprecationDate": moment(row["deprecated_at"]),
        "creationDate": moment(row["created_at"]),
    }
    return {
        "thingTypeName": row["name"],
        "thingTypeArn": _type_arn(request, row["name"]),
        "thingTypeProperties": row["properties"],
        "thingTypeMetadata": metadata,
    }


@operation("DescribeThingType")
def describe_thing_type(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    row = thing_types.describe(registry_of(request), actor_of(request), params["thingTypeName"])
    return {"thingTypeId": row["id"], **_type(request, row)}


@operation("UpdateThingType")
def update_thing_type(request: Request, params: dict[str, Any]) -> None:
    properties = params.get("thingTypeProperties")
    thing_types.change(registry_of(request), actor_of(request), params["thingTypeName"], properties)


@operation("DeprecateThingType")
def deprecate_thing_type(request: Request, params: dict[str, Any]) -> None:
    undo = params.get("undoDeprecate", False)
    thing_types.deprecate(registry_of(request), actor_of(request), params["thingTypeName"], undo=undo)


@operation("DeleteThingType")
def delete_thing_type(request: Request, params: dict[str, Any]) -> None:
    thing_types.remove(registry_of(request), actor_of(request), params["thingTypeName"])


@operation("ListThingTypes")
def list_thing_types(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = thing_types.listed(
        registry_of(request),
        actor_of(request),
        prefix=params.get("thingTypeName"),
        token=params.get("nextToken"),
        size=params.get("maxResults"),
    )
    return paged("thingTypes", (_type(request, row) for row in page.rows), page, "nextToken")
