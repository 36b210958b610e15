"""Policies and their attachments in AWS IoT's words; what they mean is in ``keyassay.registry.policies``."""

from __future__ import annotations

from typing import Any

from keyassay.aws.operations import Access, Request, operation
from keyassay.aws.services import actor_of, moment, paged, registry_of
from keyassay.registry import policies, tags
from keyassay.registry.errors import InvalidError
from keyassay.registry.registry import Page


def _arn(request: Request, name: str) -> str:
    return registry_of(request).arn(request.account_id, f"policy/{name}")


def _policy(request: Request, name: str) -> dict[str, Any]:
    return {"policyName": name, "policyArn": _arn(request, name)}


@operation("CreatePolicy")
def create_policy(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    made = policies.create(
        registry_of(request),
        actor_of(request),
        params["policyName"],
        params["policyDocument"],
        tags.as_mapping(params.get("tags")),
    )
    return {**_policy(request, made.name), "policyDocument": made.document, "policyVersionId": str(made.version)}


@operation("GetPolicy")
def get_policy(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    found = policies.version(registry_of(request), actor_of(request), params["policyName"])
    return {
        **_policy(request, found.name),
        "policyDocument": found.document,
        "defaultVersionId": str(found.version),
        "creationDate": moment(found.policy_created_at),
        "lastModifiedDate": moment(found.policy_modified_at),
        "generationId": found.generation_id,
    }


@operation("ListPolicies")
def list_policies(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = policies.listed(
        registry_of(request),
        actor_of(request),
        token=params.get("marker"),
        size=params.get("pageSize"),
        ascending=params.get("ascendingOrder", False),
    )
    return paged("policies", (_policy(request, row["name"]) for row in page.rows), page)


@operation("DeletePolicy")
def delete_policy(request: Request, params: dict[str, Any]) -> None:
    policies.remove(registry_of(request), actor_of(request), params["policyName"])


@operation("CreatePolicyVersion")
def create_policy_version(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    made = policies.create_version(
        registry_of(request),
        actor_of(request),
        params["policyName"],
        params["policyDocument"],
        set_as_default=params.get("setAsDefault", False),
    )
    return {
        "policyArn": _arn(request, made.name),
        "policyDocument": made.document,
        "policyVersionId": str(made.version),
        "isDefaultVersion": made.is_default,
    }


@operation("GetPolicyVersion")
def get_policy_version(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    found = policies.version(registry_of(request), actor_of(request), params["policyName"], params["policyVersionId"])
    return {
        **_policy(request, found.name),
        "policyDocument": found.document,
        "policyVersionId": str(found.version),
        "isDefaultVersion": found.is_default,
        "creationDate": moment(found.policy_created_at),
        "lastModifiedDate": moment(found.policy_modified_at),
        "generationId": found.generation_id,
    }


@operation("ListPolicyVersions")
def list_policy_versions(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    found = policies.versions(registry_of(request), actor_of(request), params["policyName"])
    rows = [
        {
            "versionId": str(one.version),
            "isDefaultVersion": one.is_default,
            "createDate": moment(one.created_at),
        }
        for one in found
    ]
    return {"policyVersions": rows}


@operation("SetDefaultPolicyVersion")
def set_default_policy_version(request: Request, params: dict[str, Any]) -> None:
    policies.set_default_version(
        registry_of(request), actor_of(request), params["policyName"], params["policyVersionId"]
    )


@operation("DeletePolicyVersion")
def delete_policy_version(request: Request, params: dict[str, Any]) -> None:
    policies.remove_version(registry_of(request), actor_of(request), params["policyName"], params["policyVersionId"])


@operation("AttachPolicy")
def attach_policy(request: Request, params: dict[str, Any]) -> None:
    policies.attach(registry_of(request), actor_of(request), params["policyName"], params["target"])


@operation("DetachPolicy")
def detach_policy(request: Request, params: dict[str, Any]) -> None:
    policies.detach(registry_of(request), actor_of(request), params["policyName"], params["target"])


@operation("ListAttachedPolicies", access=Access.READ)
def list_attached_policies(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = policies.attached(
        registry_of(request),
        actor_of(request),
        params["target"],
        recursive=params.get("recursive", False),
        token=params.get("marker"),
        size=params.get("pageSize"),
    )
    return paged("policies", (_policy(request, row["policy_name"]) for row in page.rows), page)


def _target_arns(request: Request, page: Page[dict[str, Any]]) -> list[str]:
    return [registry_of(request).arn(request.account_id, row["target"]) for row in page.rows]


@operation("ListTargetsForPolicy", access=Access.READ)
def list_targets_for_policy(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = policies.targets(
        registry_of(request),
        actor_of(request),
        params["policyName"],
        token=params.get("marker"),
        size=params.get("pageSize"),
    )
    return {"targets": _target_arns(request, page), "nextMarker": page.next_token}


@operation("GetEffectivePolicies", access=Access.READ)
def get_effective_policies(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    if "cognitoIdentityPoolId" in params:
        raise InvalidError("there are no Cognito identity pools here")
    found = policies.effective(
        registry_of(request),
        actor_of(request),
        principal_arn=params.get("principal"),
        thing_name=params.get("thingName"),
    )
    rows = [{**_policy(request, one.name), "policyDocument": one.document} for one in found]
    return {"effectivePolicies": rows}


# The deprecated forms: the same data, with certificates as principals


@operation("AttachPrincipalPolicy")
def attach_principal_policy(request: Request, params: dict[str, Any]) -> None:
    registry_of(request).resource(actor_of(request), params["principal"], "cert")
    policies.attach(registry_of(request), actor_of(request), params["policyName"], params["principal"])


@operation("DetachPrincipalPolicy")
def detach_principal_policy(request: Request, params: dict[str, Any]) -> None:
    registry_of(request).resource(actor_of(request), params["principal"], "cert")
    policies.detach(registry_of(request), actor_of(request), params["policyName"], params["principal"])


@operation("ListPrincipalPolicies")
def list_principal_policies(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    registry_of(request).resource(actor_of(request), params["principal"], "cert")
    page = policies.attached(
        registry_of(request),
        actor_of(request),
        params["principal"],
        token=params.get("marker"),
        size=params.get("pageSize"),
        ascending=params.get("ascendingOrder", True),
    )
    return paged("policies", (_policy(request, row["policy_name"]) for row in page.rows), page)


@operation("ListPolicyPrincipals")
def list_policy_principals(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = policies.targets(
        registry_of(request),
        actor_of(request),
        params["policyName"],
        certificates_only=True,
        token=params.get("marker"),
        size=params.get("pageSize"),
        ascending=params.get("ascendingOrder", True),
    )
    return {"principals": _target_arns(request, page), "nextMarker": page.next_token}
