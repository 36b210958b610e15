"""Policies as boto3 meets them, the deprecated forms, too; what they mean is tested in tests/registry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fleet_keys
from live_server import client, running

STATEMENT = {"Effect": "Allow", "Action": "iot:Connect", "Resource": "arn:aws:iot:us-east-1:111111111111:client/a b/+é"}
DOCUMENT = json.dumps({"Version": "2012-10-17", "Statement": [STATEMENT]}, ensure_ascii=False, indent=1)


def test_policies_by_boto3(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        api = client(server)
        name = "a=b,c.d@e-f+g"
        arn = f"arn:aws:iot:us-east-1:111111111111:policy/{name}"
        made = api.create_policy(policyName=name, policyDocument=DOCUMENT, tags=[{"Key": "k", "Value": "v"}])
        assert (made["policyArn"], made["policyDocument"], made["policyVersionId"]) == (arn, DOCUMENT, "1")
        assert api.list_tags_for_resource(resourceArn=arn)["tags"] == [{"Key": "k", "Value": "v"}]
        with pytest.raises(api.exceptions.ResourceAlreadyExistsException) as raised:
            api.create_policy(policyName=name, policyDocument=DOCUMENT)
        assert (raised.value.response["resourceId"], raised.value.response["resourceArn"]) == (name, arn)
        with pytest.raises(api.exceptions.MalformedPolicyException):
            api.create_policy(policyName="q", policyDocument="{")
        for _ in range(4):
            second = api.create_policy_version(policyName=name, policyDocument=DOCUMENT, setAsDefault=True)
        assert (second["policyVersionId"], second["isDefaultVersion"]) == ("5", True)
        with pytest.raises(api.exceptions.VersionsLimitExceededException):
            api.create_policy_version(policyName=name, policyDocument=DOCUMENT)
        api.set_default_policy_version(policyName=name, policyVersionId="2")
        found = api.get_policy(policyName=name)
        assert (found["defaultVersionId"], found["policyDocument"]) == ("2", DOCUMENT)
        assert found["lastModifiedDate"] >= found["creationDate"]
        one = api.get_policy_version(policyName=name, policyVersionId="5")
        assert (one["isDefaultVersion"], one["generationId"]) == (False, found["generationId"])
        for number in ("5", "4", "3"):
            api.delete_policy_version(policyName=name, policyVersionId=number)
        versions = api.list_policy_versions(policyName=name)["policyVersions"]
        assert [(row["versionId"], row["isDefaultVersion"]) for row in versions] == [("2", True), ("1", False)]
        with pytest.raises((api.exceptions.InvalidRequestException, api.exceptions.DeleteConflictException)):
            api.delete_policy_version(policyName=name, policyVersionId="2")
        with pytest.raises(api.exceptions.ResourceNotFoundException):
            api.get_policy_version(policyName=name, policyVersionId="5")

        certificate = api.register_certificate_without_ca(certificatePem=fleet_keys.device().pem)["certificateArn"]
        group = api.create_thing_group(thingGroupName="g")["thingGroupArn"]
        api.create_thing_group(thingGroupName="h", parentGroupName="g")
        api.create_thing(thingName="t")
        api.add_thing_to_thing_group(thingName="t", thingGroupName="h")
        api.create_policy(policyName="q", policyDocument=DOCUMENT)
        api.attach_policy(policyName=name, target=group)
        api.attach_principal_policy(policyName="q", principal=certificate)
        listed = {"policyName": name, "policyArn": arn}
        assert api.list_attached_policies(target=group)["policies"] == [listed]
        below = f"{group[:-1]}h"
        assert api.list_attached_policies(target=below)["policies"] == []
        assert api.list_attached_policies(target=below, recursive=True)["policies"] == [listed]
        assert api.list_targets_for_policy(policyName=name)["targets"] == [group]
        assert api.list_targets_for_policy(policyName="q")["targets"] == [certificate]
        assert api.list_policy_principals(policyName="q")["principals"] == [certificate]
        assert [row["policyName"] for row in api.list_principal_policies(principal=certificate)["policies"]] == ["q"]
        found = api.get_effective_policies(principal=certificate, thingName="t")["effectivePolicies"]
        assert [(row["policyName"], row["policyDocument"]) for row in found] == [(name, DOCUMENT), ("q", DOCUMENT)]
        pages = api.get_paginator("list_policies").paginate(PaginationConfig={"PageSize": 1})
        assert {row["policyName"] for page in pages for row in page["policies"]} == {name, "q"}
        with pytest.raises(api.exceptions.DeleteConflictException):
            api.delete_policy(policyName="q")
        api.detach_principal_policy(policyName="q", principal=certificate)
        api.delete_policy(policyName="q")
        with pytest.raises(api.exceptions.ResourceNotFoundException):
            api.attach_policy(policyName="q", target=certificate)
