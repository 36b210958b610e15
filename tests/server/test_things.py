"""Things, their types, groups and certificates as boto3 meets them: each operation at least once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

import fleet_keys
from live_server import client, running
from two_accounts import A

pytestmark = pytest.mark.slow

ARN = f"arn:aws:iot:us-east-1:{A.account_id}:"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with running(tmp_path_factory.mktemp("server")) as server:
        yield client(server)


def refused(call: Any, **parameters: Any) -> tuple[str, int]:
    """The error and the HTTP status that a call ends with."""
    with pytest.raises(ClientError) as raised:
        call(**parameters)
    response = raised.value.response
    assert response["Error"]["Message"]
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def pages(call: Any, member: str, size: int, **parameters: Any) -> list[Any]:
    """All elements of a list, by its tokens."""
    found: list[Any] = []
    token: dict[str, str] = {}
    while True:
        answer = call(maxResults=size, **parameters, **token)
        found += answer[member]
        if "nextToken" not in answer:
            return found
        assert len(answer[member]) == size
        token = {"nextToken": answer["nextToken"]}


def test_types(api: Any) -> None:
    properties = {"thingTypeDescription": "of doors", "searchableAttributes": ["site"]}
    made = api.create_thing_type(
        thingTypeName="lock", thingTypeProperties=properties, tags=[{"Key": "k", "Value": "v"}]
    )
    assert made["thingTypeArn"] == f"{ARN}thingtype/lock"
    assert api.list_tags_for_resource(resourceArn=made["thingTypeArn"])["tags"] == [{"Key": "k", "Value": "v"}]
    assert refused(api.create_thing_type, thingTypeName="lock") == ("ResourceAlreadyExistsException", 409)
    api.update_thing_type(thingTypeName="lock", thingTypeProperties={"thingTypeDescription": "of gates"})
    api.deprecate_thing_type(thingTypeName="lock")
    found = api.describe_thing_type(thingTypeName="lock")
    assert found["thingTypeId"] == made["thingTypeId"]
    assert found["thingTypeProperties"] == {**properties, "thingTypeDescription": "of gates"}
    metadata = found["thingTypeMetadata"]
    assert metadata["deprecated"] is True
    assert metadata["creationDate"] <= metadata["deprecationDate"] <= datetime.now(UTC)
    assert refused(api.create_thing, thingName="x", thingTypeName="lock") == ("InvalidRequestException", 400)
    api.deprecate_thing_type(thingTypeName="lock", undoDeprecate=True)
    assert "deprecationDate" not in api.describe_thing_type(thingTypeName="lock")["thingTypeMetadata"]
    for number in range(3):
        api.create_thing_type(thingTypeName=f"kind{number}")
    listed = pages(api.list_thing_types, "thingTypes", 2, thingTypeName="kind")
    assert [one["thingTypeName"] for one in listed] == ["kind0", "kind1", "kind2"]
    assert listed[0]["thingTypeMetadata"]["deprecated"] is False
    api.deprecate_thing_type(thingTypeName="kind0")
    api.delete_thing_type(thingTypeName="kind0")
    assert refused(api.describe_thing_type, thingTypeName="kind0") == ("ResourceNotFoundException", 404)


def test_things(api: Any) -> None:
    api.create_thing_type(thingTypeName="valve")
    payload = {"attributes": {"site": "north/1", "serial": "0001"}}
    made = api.create_thing(thingName="v:1", thingTypeName="valve", attributePayload=payload, billingGroupName="b")
    assert made["thingArn"] == f"{ARN}thing/v:1"
    found = api.describe_thing(thingName="v:1")
    found.pop("ResponseMetadata")
    assert found == {
        "defaultClientId": "v:1",
        "thingName": "v:1",
        "thingId": made["thingId"],
        "thingArn": made["thingArn"],
        "thingTypeName": "valve",
        "attributes": payload["attributes"],
        "version": 1,
        "billingGroupName": "b",
    }
    api.update_thing(
        thingName="v:1",
        removeThingType=True,
        expectedVersion=1,
        attributePayload={"attributes": {"serial": "", "floor": "2"}, "merge": True},
    )
    found = api.describe_thing(thingName="v:1")
    assert (found["version"], found["attributes"]) == (2, {"site": "north/1", "floor": "2"})
    assert "thingTypeName" not in found
    assert refused(api.update_thing, thingName="v:1", expectedVersion=1) == ("VersionConflictException", 409)
    for number in range(2, 5):
        attributes = {"attributes": {"site": f"north/{number}", "empty": ""}}
        api.create_thing(thingName=f"v:{number}", thingTypeName="valve", attributePayload=attributes)
    north: dict[str, Any] = {"attributeName": "site", "attributeValue": "north/", "usePrefixAttributeValue": True}
    assert [one["thingName"] for one in pages(api.list_things, "things", 3, **north)] == ["v:1", "v:2", "v:3", "v:4"]
    typed = pages(api.list_things, "things", 2, thingTypeName="valve")
    assert typed[0] == {
        "thingName": "v:2",
        "thingArn": f"{ARN}thing/v:2",
        "thingTypeName": "valve",
        "attributes": {"site": "north/2"},
        "version": 1,
    }
    assert len(typed) == 3
    assert refused(api.list_things, attributeValue="north/1") == ("InvalidRequestException", 400)
    assert refused(api.list_things, maxResults=251) == ("InvalidRequestException", 400)
    assert refused(api.list_things, nextToken="AAAA") == ("InvalidRequestException", 400)
    assert refused(api.delete_thing, thingName="v:2", expectedVersion=9) == ("VersionConflictException", 409)
    api.delete_thing(thingName="v:2")
    api.delete_thing(thingName="v:2")
    assert refused(api.describe_thing, thingName="v:2") == ("ResourceNotFoundException", 404)


def test_certificates_of_things(api: Any) -> None:
    for name in ("p1", "p2", "p3"):
        api.create_thing(thingName=name)
    shared, own = (
        api.register_certificate_without_ca(certificatePem=fleet_keys.device().pem)["certificateArn"] for _ in range(2)
    )
    api.attach_thing_principal(thingName="p1", principal=own, thingPrincipalType="EXCLUSIVE_THING")
    for name in ("p1", "p2", "p3"):
        api.attach_thing_principal(thingName=name, principal=shared)
    assert refused(api.attach_thing_principal, thingName="p2", principal=own) == ("InvalidRequestException", 400)
    assert sorted(pages(api.list_thing_principals, "principals", 1, thingName="p1")) == sorted([shared, own])
    kinds = {
        one["principal"]: one["thingPrincipalType"]
        for one in pages(api.list_thing_principals_v2, "thingPrincipalObjects", 1, thingName="p1")
    }
    assert kinds == {own: "EXCLUSIVE_THING", shared: "NON_EXCLUSIVE_THING"}
    assert pages(api.list_principal_things, "things", 2, principal=shared) == ["p1", "p2", "p3"]
    exclusive = api.list_principal_things_v2(principal=own, thingPrincipalType="EXCLUSIVE_THING")
    assert exclusive["principalThingObjects"] == [{"thingName": "p1", "thingPrincipalType": "EXCLUSIVE_THING"}]
    shared_only = api.list_thing_principals_v2(thingName="p1", thingPrincipalType="NON_EXCLUSIVE_THING")
    assert [one["principal"] for one in shared_only["thingPrincipalObjects"]] == [shared]
    assert refused(api.delete_thing, thingName="p3") == ("InvalidRequestException", 400)
    api.detach_thing_principal(thingName="p3", principal=shared)
    api.delete_thing(thingName="p3")
    assert api.list_principal_things(principal=shared)["things"] == ["p1", "p2"]
    nobody = f"{ARN}cert/{'0' * 64}"
    assert refused(api.attach_thing_principal, thingName="p1", principal=nobody) == ("ResourceNotFoundException", 404)
    assert refused(api.list_thing_principals, thingName="p3") == ("ResourceNotFoundException", 404)


def test_groups(api: Any) -> None:
    properties = {"thingGroupDescription": "all", "attributePayload": {"attributes": {"a": "1"}}}
    made = api.create_thing_group(thingGroupName="root", thingGroupProperties=properties, tags=[{"Key": "k"}])
    assert made["thingGroupArn"] == f"{ARN}thinggroup/root"
    api.create_thing_group(thingGroupName="mid", parentGroupName="root")
    api.create_thing_group(thingGroupName="leaf", parentGroupName="mid")
    found = api.describe_thing_group(thingGroupName="root")
    assert (found["thingGroupId"], found["version"], found["thingGroupProperties"]) == (
        made["thingGroupId"],
        1,
        properties,
    )
    assert set(found["thingGroupMetadata"]) == {"creationDate"}
    assert time.time() - found["thingGroupMetadata"]["creationDate"].timestamp() < 60
    metadata = api.describe_thing_group(thingGroupName="leaf")["thingGroupMetadata"]
    assert metadata["parentGroupName"] == "mid"
    assert metadata["rootToParentThingGroups"] == [
        {"groupName": name, "groupArn": f"{ARN}thinggroup/{name}"} for name in ("root", "mid")
    ]
    merged = {"attributePayload": {"attributes": {"b": "2"}, "merge": True}}
    changed = api.update_thing_group(thingGroupName="root", thingGroupProperties=merged, expectedVersion=1)
    assert changed["version"] == 2
    kept = api.describe_thing_group(thingGroupName="root")["thingGroupProperties"]
    assert kept == {"thingGroupDescription": "all", "attributePayload": {"attributes": {"a": "1", "b": "2"}}}
    stale: dict[str, Any] = {"thingGroupName": "root", "thingGroupProperties": {}, "expectedVersion": 1}
    assert refused(api.update_thing_group, **stale) == ("VersionConflictException", 409)
    below = pages(api.list_thing_groups, "thingGroups", 1, parentGroup="root", recursive=True)
    assert [one["groupName"] for one in below] == ["leaf", "mid"]
    assert [one["groupName"] for one in api.list_thing_groups(parentGroup="root")["thingGroups"]] == ["mid"]
    assert refused(api.delete_thing_group, thingGroupName="mid") == ("InvalidRequestException", 400)


def test_members(api: Any) -> None:
    api.create_thing_group(thingGroupName="house")
    api.create_thing_group(thingGroupName="room", parentGroupName="house")
    api.create_thing_group(thingGroupName="fleet")
    for name in ("m1", "m2"):
        api.create_thing(thingName=name)
    api.add_thing_to_thing_group(thingGroupName="room", thingName="m1", overrideDynamicGroups=True)
    api.add_thing_to_thing_group(thingGroupArn=f"{ARN}thinggroup/house", thingArn=f"{ARN}thing/m2")
    for wrong in (
        {"thingName": "m1"},
        {"thingGroupName": "room"},
        {"thingGroupName": "house", "thingName": "m1"},
        {"thingGroupName": "fleet", "thingArn": f"{ARN}thinggroup/fleet"},
        {"thingGroupName": "fleet", "thingName": "m1", "thingArn": f"{ARN}thing/m2"},
    ):
        assert refused(api.add_thing_to_thing_group, **wrong) == ("InvalidRequestException", 400)
    inside: dict[str, Any] = {"thingGroupName": "house", "recursive": True}
    assert sorted(pages(api.list_things_in_thing_group, "things", 1, **inside)) == ["m1", "m2"]
    assert api.list_things_in_thing_group(thingGroupName="house")["things"] == ["m2"]
    api.update_thing_groups_for_thing(thingName="m1", thingGroupsToAdd=["house", "fleet"], thingGroupsToRemove=["room"])
    its = pages(api.list_thing_groups_for_thing, "thingGroups", 1, thingName="m1")
    assert sorted(its, key=lambda one: one["groupName"]) == [
        {"groupName": name, "groupArn": f"{ARN}thinggroup/{name}"} for name in ("fleet", "house")
    ]
    api.remove_thing_from_thing_group(thingGroupName="fleet", thingName="m1")
    assert [one["groupName"] for one in api.list_thing_groups_for_thing(thingName="m1")["thingGroups"]] == ["house"]
    api.delete_thing_group(thingGroupName="room")
    api.delete_thing_group(thingGroupName="house", expectedVersion=1)
    api.delete_thing_group(thingGroupName="house")
    assert api.list_thing_groups_for_thing(thingName="m1")["thingGroups"] == []
