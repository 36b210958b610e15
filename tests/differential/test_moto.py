"""moto's AWS IoT as a peer: the same calls by boto3 to it, in this process, and to our server, answer by answer.

moto is a mock that knows fewer rules than AWS. ``DIFFERENCES`` names every call that the two answer differently, how,
and why we keep to ours; the test fails when one comes or goes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import moto
import pytest
from botocore.exceptions import ClientError

import fleet_keys
from live_server import ENVIRONMENT, client, running

pytestmark = pytest.mark.slow

ACCOUNT = "123456789012"  # moto's
POLICY = json.dumps({
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}],
})  # fmt: skip

#: why ours is what it is -> label of a call -> how the answers differ
DIFFERENCES: dict[str, dict[str, str]] = {
    "both are random": {
        "code": "other registrationCode",
    },
    "moto lacks it": {
        "CAs": "success; moto not implemented",
        "no certificate": "InvalidRequestException; moto crash",
        "group below nothing": "ResourceNotFoundException; moto crash",
    },
    "moto leaves out members that the service model has": {
        "CA described": "more certificateDescription.autoRegistrationStatus, certificateDescription.certificateMode, "
        "certificateDescription.customerVersion, certificateDescription.generationId; "
        "other certificateDescription.certificateArn",
        "described": "more certificateDescription.certificateMode, certificateDescription.customerVersion, "
        "certificateDescription.generationId",
        "by CA": "more certificates[].certificateMode, certificates[].status",
        "policy read": "more creationDate, generationId, lastModifiedDate",
        "type": "more thingTypeId",
        "second type": "more thingTypeId",
        "deprecated type described": "more thingTypeMetadata.deprecationDate",
        "principals, second form": "more thingPrincipalObjects[].thingPrincipalType",
        "things of principal, second form": "more principalThingObjects[].thingPrincipalType",
    },
    "the ARN of an authority says cacert, not cert; moto asks for no proof that one has its key": {
        "CA": "other certificateArn",
        "CA without proof": "InvalidRequestException; moto success",
    },
    "moto takes a certificate that no registered authority signed, and lists it": {
        "signed by nobody known": "CertificateValidationException; moto success",
        "listed": "more certificates[].certificateMode; other certificates[].certificateArn, "
        "certificates[].certificateId, certificates[].creationDate, certificates[].status",
    },
    "the form of an id is checked before it is looked up": {
        "malformed id": "InvalidRequestException; moto ResourceNotFoundException",
    },
    "moto lets every status follow every other": {
        "to PENDING_TRANSFER": "InvalidRequestException; moto success",
        "back from REVOKED": "CertificateStateException; moto success",
    },
    "moto takes any text for a policy, and lists it": {
        "no policy": "MalformedPolicyException; moto success",
        "policies": "other policies[].policyArn, policies[].policyName",
    },
    "moto's generation id of a policy is its version's number": {
        "version read": "other generationId",
    },
    "detaching what is not attached changes nothing, and a repeated request is no error": {
        "detached again": "success; moto ResourceNotFoundException",
        "principal detached again": "success; moto ResourceNotFoundException",
    },
    "the service model says that deleting an unknown thing succeeds": {
        "thing deleted again": "success; moto ResourceNotFoundException",
    },
    "the service model lets only the same configuration be made again; moto overwrites, and so answers otherwise later": {
        "type again, otherwise": "ResourceAlreadyExistsException; moto success",
        "type described": "more thingTypeProperties.searchableAttributes[]",
        "types": "more thingTypes[].thingTypeProperties.searchableAttributes[]",
        "thing again, otherwise": "ResourceAlreadyExistsException; moto success",
        "thing described": "more attributes.floor, attributes.site, thingTypeName",
        "things of type": "more things[].attributes.door, things[].attributes.floor, things[].thingArn, "
        "things[].thingName, things[].thingTypeName, things[].version",
    },
    "a thing's version rises with each update, and expectedVersion is looked at": {
        "merged thing described": "more attributes.floor, thingTypeName; other version",
        "thing of another version": "VersionConflictException; moto success",
        "things by attribute": "more things[].attributes.floor, things[].thingTypeName; other things[].version",
    },
    "a thing without a type has at most three attributes": {
        "thing with four attributes and no type": "InvalidRequestException; moto success",
        "things": "more things[].attributes.floor, things[].thingTypeName; moto has "
        "things[].attributes.a, things[].attributes.b, things[].attributes.c, "
        "things[].attributes.d; other things[].thingArn, things[].thingName, things[].version",
    },
    "moto does not know usePrefixAttributeValue": {
        "things by prefix": "more things[].attributes.door, things[].attributes.floor, things[].thingArn, "
        "things[].thingName, things[].thingTypeName, things[].version",
    },
    "a thing type is deleted when it is deprecated and unused": {
        "type in use deleted": "InvalidRequestException; moto success",
        "second type deleted": "InvalidRequestException; moto success",
    },
    "AWS's guide lists direct children unless recursive is true": {
        "groups below": "other thingGroups[].groupArn, thingGroups[].groupName",
    },
    "a thing is in one group of a hierarchy at most; moto puts it into two": {
        "added to a second of the hierarchy": "InvalidRequestException; moto success",
        "groups of thing": "other thingGroups[].groupArn, thingGroups[].groupName",
    },
    "moto does not look into the groups below": {
        "things in group and below": "more things[]",
    },
}

Call = Callable[..., dict[str, Any]]


def certificates(call: Call) -> None:
    """Certificates with and without an authority."""
    authority, other = fleet_keys.authority("Peer CA"), fleet_keys.authority("Stranger CA", 101)
    loose, signed, foreign = DEVICES[:3]
    code = call("code", "get_registration_code")["registrationCode"]
    proof = fleet_keys.certificate(code, fleet_keys.ec_key(7), authority).pem
    call("CA without proof", "register_ca_certificate", caCertificate=other.pem)
    call("CA", "register_ca_certificate", caCertificate=authority.pem, verificationCertificate=proof, setAsActive=True)
    call("CA described", "describe_ca_certificate", certificateId=authority.id)
    call("CAs", "list_ca_certificates")
    call("signed", "register_certificate", certificatePem=signed.pem, caCertificatePem=authority.pem)
    call("signed again", "register_certificate", certificatePem=signed.pem, caCertificatePem=authority.pem)
    call("signed by nobody known", "register_certificate", certificatePem=foreign.pem)
    call("by CA", "list_certificates_by_ca", caCertificateId=authority.id)
    call("loose", "register_certificate_without_ca", certificatePem=loose.pem, status="ACTIVE")
    call("loose again", "register_certificate_without_ca", certificatePem=loose.pem)
    call("no certificate", "register_certificate_without_ca", certificatePem="nonsense")
    call("described", "describe_certificate", certificateId=loose.id)
    call("unknown described", "describe_certificate", certificateId="0" * 64)
    call("malformed id", "describe_certificate", certificateId="Z" * 64)
    call("listed", "list_certificates")
    call("active deleted", "delete_certificate", certificateId=loose.id)
    call("active deleted by force", "delete_certificate", certificateId=loose.id, forceDelete=True)
    call("to PENDING_TRANSFER", "update_certificate", certificateId=loose.id, newStatus="PENDING_TRANSFER")
    call("revoked", "update_certificate", certificateId=loose.id, newStatus="REVOKED")
    call("back from REVOKED", "update_certificate", certificateId=loose.id, newStatus="ACTIVE")
    call("unknown updated", "update_certificate", certificateId="0" * 64, newStatus="ACTIVE")
    call("CA updated", "update_ca_certificate", certificateId=authority.id, newStatus="INACTIVE")
    call("CA deleted", "delete_ca_certificate", certificateId=authority.id)
    call("CA deleted again", "delete_ca_certificate", certificateId=authority.id)
    call("deleted", "delete_certificate", certificateId=signed.id)
    call("deleted again", "delete_certificate", certificateId=signed.id)


def policies(call: Call) -> None:
    """Policies, versions and attachments to one certificate."""
    one = DEVICES[3]
    arn = call("its certificate", "register_certificate_without_ca", certificatePem=one.pem)["certificateArn"]
    call("policy", "create_policy", policyName="p", policyDocument=POLICY)
    call("policy again", "create_policy", policyName="p", policyDocument=POLICY)
    call("no policy", "create_policy", policyName="bad", policyDocument="nonsense")
    call("policy read", "get_policy", policyName="p")
    call("unknown policy read", "get_policy", policyName="none")
    for number in range(2, 7):
        call(f"version {number}", "create_policy_version", policyName="p", policyDocument=POLICY, setAsDefault=False)
    call("versions", "list_policy_versions", policyName="p")
    call("version read", "get_policy_version", policyName="p", policyVersionId="3")
    call("unknown version read", "get_policy_version", policyName="p", policyVersionId="9")
    call("default set", "set_default_policy_version", policyName="p", policyVersionId="3")
    call("default deleted", "delete_policy_version", policyName="p", policyVersionId="3")
    call("policy with versions deleted", "delete_policy", policyName="p")
    for number in (1, 2, 4, 5):
        call(f"version {number} deleted", "delete_policy_version", policyName="p", policyVersionId=str(number))
    call("attached", "attach_policy", policyName="p", target=arn)
    call("attached again", "attach_policy", policyName="p", target=arn)
    call("unknown policy attached", "attach_policy", policyName="none", target=arn)
    call("unknown target", "attach_policy", policyName="p", target=f"{arn[:-64]}{'0' * 64}")
    call("policies of it", "list_attached_policies", target=arn)
    call("targets", "list_targets_for_policy", policyName="p")
    call("principals of policy", "list_policy_principals", policyName="p")
    call("policies of principal", "list_principal_policies", principal=arn)
    call("attached policy deleted", "delete_policy", policyName="p")
    call("certificate with policy deleted", "delete_certificate", certificateId=one.id)
    call("detached", "detach_policy", policyName="p", target=arn)
    call("detached again", "detach_policy", policyName="p", target=arn)
    call("old form", "attach_principal_policy", policyName="p", principal=arn)
    call("old form back", "detach_principal_policy", policyName="p", principal=arn)
    call("policies", "list_policies")
    call("policy deleted", "delete_policy", policyName="p")
    call("policy deleted again", "delete_policy", policyName="p")


def things(call: Call) -> None:
    """Things, their types and their certificates."""
    one = DEVICES[4]
    arn = call("thing's certificate", "register_certificate_without_ca", certificatePem=one.pem)["certificateArn"]
    call("type", "create_thing_type", thingTypeName="lamp", thingTypeProperties={"searchableAttributes": ["site"]})
    call("type again, otherwise", "create_thing_type", thingTypeName="lamp")
    call("type described", "describe_thing_type", thingTypeName="lamp")
    call("second type", "create_thing_type", thingTypeName="lamp2")
    call("types", "list_thing_types", thingTypeName="lamp")
    attributes = {"attributes": {"site": "1", "floor": "2"}}
    call("thing", "create_thing", thingName="t", thingTypeName="lamp", attributePayload=attributes)
    call("thing again", "create_thing", thingName="t", thingTypeName="lamp", attributePayload=attributes)
    call("thing again, otherwise", "create_thing", thingName="t")
    call("thing of unknown type", "create_thing", thingName="u", thingTypeName="none")
    four = {"attributes": dict.fromkeys("abcd", "x")}
    call("thing with four attributes and no type", "create_thing", thingName="u", attributePayload=four)
    call("bare thing", "create_thing", thingName="bare")
    call("thing described", "describe_thing", thingName="t")
    merged = {"attributes": {"site": "", "door": "3"}, "merge": True}
    call("thing merged", "update_thing", thingName="t", attributePayload=merged)
    call("merged thing described", "describe_thing", thingName="t")
    call("thing of another version", "update_thing", thingName="t", expectedVersion=77)
    call("type given and removed", "update_thing", thingName="t", thingTypeName="lamp", removeThingType=True)
    call("things", "list_things")
    call("things of type", "list_things", thingTypeName="lamp")
    call("things by attribute", "list_things", attributeName="door", attributeValue="3")
    prefix = {"attributeName": "floor", "attributeValue": "", "usePrefixAttributeValue": True}
    call("things by prefix", "list_things", **prefix)
    call("principal", "attach_thing_principal", thingName="t", principal=arn)
    call("principal again", "attach_thing_principal", thingName="t", principal=arn)
    call("principal of no thing", "attach_thing_principal", thingName="none", principal=arn)
    call("principals", "list_thing_principals", thingName="t")
    call("principals, second form", "list_thing_principals_v2", thingName="t")
    call("principals of no thing", "list_thing_principals", thingName="none")
    call("things of principal", "list_principal_things", principal=arn)
    call("things of principal, second form", "list_principal_things_v2", principal=arn)
    call("thing with principal deleted", "delete_thing", thingName="t")
    call("certificate with thing deleted", "delete_certificate", certificateId=one.id, forceDelete=True)
    call("principal detached", "detach_thing_principal", thingName="t", principal=arn)
    call("principal detached again", "detach_thing_principal", thingName="t", principal=arn)
    call("type in use deleted", "delete_thing_type", thingTypeName="lamp")
    call("second type deprecated", "deprecate_thing_type", thingTypeName="lamp2")
    call("deprecated type described", "describe_thing_type", thingTypeName="lamp2")
    call("thing of deprecated type", "create_thing", thingName="u", thingTypeName="lamp2")
    call("deprecation undone", "deprecate_thing_type", thingTypeName="lamp2", undoDeprecate=True)
    call("second type deleted", "delete_thing_type", thingTypeName="lamp2")
    call("thing deleted", "delete_thing", thingName="t")
    call("thing deleted again", "delete_thing", thingName="t")


def groups(call: Call) -> None:
    """Thing groups and who is in them."""
    properties = {"thingGroupDescription": "all", "attributePayload": {"attributes": {"a": "1"}}}
    call("group", "create_thing_group", thingGroupName="g", thingGroupProperties=properties)
    call("group again", "create_thing_group", thingGroupName="g", thingGroupProperties=properties)
    call("group again, otherwise", "create_thing_group", thingGroupName="g")
    call("group below", "create_thing_group", thingGroupName="h", parentGroupName="g")
    call("group below that", "create_thing_group", thingGroupName="i", parentGroupName="h")
    call("group below nothing", "create_thing_group", thingGroupName="j", parentGroupName="none")
    call("group described", "describe_thing_group", thingGroupName="g")
    call("lowest group described", "describe_thing_group", thingGroupName="i")
    call("unknown group described", "describe_thing_group", thingGroupName="none")
    merged = {"attributePayload": {"attributes": {"b": "2"}, "merge": True}}
    call("group updated", "update_thing_group", thingGroupName="g", thingGroupProperties=merged)
    call("updated group described", "describe_thing_group", thingGroupName="g")
    call(
        "group of another version", "update_thing_group", thingGroupName="g", thingGroupProperties={}, expectedVersion=9
    )
    call("groups", "list_thing_groups")
    call("roots", "list_thing_groups", recursive=False)
    call("groups below", "list_thing_groups", parentGroup="g")
    call("groups directly below", "list_thing_groups", parentGroup="g", recursive=False)
    call("all groups below", "list_thing_groups", parentGroup="g", recursive=True)
    call("groups by prefix", "list_thing_groups", namePrefixFilter="h")
    call("groups below nothing", "list_thing_groups", parentGroup="none")
    call("member", "create_thing", thingName="m")
    call("added", "add_thing_to_thing_group", thingName="m", thingGroupName="h")
    call("added again", "add_thing_to_thing_group", thingName="m", thingGroupName="h")
    call("added to a second of the hierarchy", "add_thing_to_thing_group", thingName="m", thingGroupName="i")
    call("only one side", "add_thing_to_thing_group", thingName="m")
    call("unknown thing added", "add_thing_to_thing_group", thingName="none", thingGroupName="h")
    call("things in group", "list_things_in_thing_group", thingGroupName="h")
    call("things in group and below", "list_things_in_thing_group", thingGroupName="g", recursive=True)
    call("groups of thing", "list_thing_groups_for_thing", thingName="m")
    call("moved", "update_thing_groups_for_thing", thingName="m", thingGroupsToAdd=["i"], thingGroupsToRemove=["h"])
    call("groups of moved thing", "list_thing_groups_for_thing", thingName="m")
    call("removed", "remove_thing_from_thing_group", thingName="m", thingGroupName="i")
    call("removed again", "remove_thing_from_thing_group", thingName="m", thingGroupName="i")
    call("group with groups deleted", "delete_thing_group", thingGroupName="g")
    call("group deleted", "delete_thing_group", thingGroupName="i")
    call("group deleted again", "delete_thing_group", thingGroupName="i")


DEVICES = [
    fleet_keys.device("loose"),
    fleet_keys.device("signed", fleet_keys.authority("Peer CA")),
    fleet_keys.device("foreign", fleet_keys.authority("Stranger CA", 101)),
    fleet_keys.device("policies"),
    fleet_keys.device("things"),
]


@dataclass(frozen=True)
class Answer:
    """What came back: the name of an error, or members by path."""

    error: str
    members: dict[str, list[str]]


def flat(value: Any, path: str = "") -> dict[str, list[str]]:
    """Path of each member -> its values in all elements of lists, in one order; nothing empty."""
    if isinstance(value, dict):
        pairs = [(f"{path}.{name}" if path else name, one) for name, one in value.items()]
    elif isinstance(value, list):
        pairs = [(f"{path}[]", one) for one in value]
    else:
        return {path: [shown(value)]}
    found: dict[str, list[str]] = {}
    for inner, one in pairs:
        for name, texts in flat(one, inner).items():
            found[name] = sorted(found.get(name, []) + texts)
    return found


def shown(value: Any) -> str:
    """A value as text; times and random ids only by kind."""
    if hasattr(value, "isoformat"):
        return "a time"
    text = str(value)
    return "random" if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text) else text


def answers(api: Any, *crashes: type[Exception]) -> dict[str, Answer]:
    """What the API answers to every call of the scripts; ``crashes`` are answers, too."""
    found: dict[str, Answer] = {}

    def call(label: str, method: str, **parameters: Any) -> dict[str, Any]:
        assert label not in found
        try:
            result: dict[str, Any] = getattr(api, method)(**parameters)
        except ClientError as error:
            found[label] = Answer(error.response["Error"]["Code"], {})
            return {}
        except crashes as error:
            found[label] = Answer("not implemented" if isinstance(error, NotImplementedError) else "crash", {})
            return {}
        result.pop("ResponseMetadata")
        found[label] = Answer("", flat(result))
        return result

    for script in (certificates, policies, things, groups):
        script(call)
    return found


def difference(ours: Answer, theirs: Answer) -> str:
    """How two answers differ, in words; empty if they don't."""
    if ours.error or theirs.error:
        if ours.error == theirs.error:
            return ""
        return f"{ours.error or 'success'}; moto {theirs.error or 'success'}"
    parts = []
    for word, names in (
        ("more", set(ours.members) - set(theirs.members)),
        ("moto has", set(theirs.members) - set(ours.members)),
        ("other", {name for name, one in ours.members.items() if theirs.members.get(name, one) != one}),
    ):
        if names:
            parts.append(f"{word} {', '.join(sorted(names))}")
    return "; ".join(parts)


def test_the_same_calls_differ_only_where_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "moto")
    with moto.mock_aws(config={"iot": {"use_valid_cert": True}}):
        theirs = answers(boto3.client("iot", region_name="us-east-1"), Exception)
    with running(tmp_path, environment={**ENVIRONMENT, "KEYASSAY_ACCOUNT_ID": ACCOUNT}) as server:
        ours = answers(client(server))
    assert len(ours) > 100
    found = {label: difference(ours[label], theirs[label]) for label in ours}
    told = {label: text for one in DIFFERENCES.values() for label, text in one.items()}
    assert {label: text for label, text in found.items() if text} == told
