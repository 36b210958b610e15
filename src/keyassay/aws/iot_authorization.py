"""TestAuthorization in AWS IoT's words; how it is decided is in ``keyassay.registry.authorization``."""

from __future__ import annotations

from typing import Any

from keyassay.aws.operations import Access, Request, operation
from keyassay.aws.services import actor_of, registry_of
from keyassay.registry import permissions
from keyassay.registry.authorization import Outcome
from keyassay.registry.errors import InvalidError


@operation("TestAuthorization", access=Access.READ)
def check_authorization(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    if "cognitoIdentityPoolId" in params:
        raise InvalidError("there are no Cognito identity pools here")
    if "principal" not in params:
        raise InvalidError("principal has to name a certificate")
    found = permissions.judged(
        registry_of(request),
        actor_of(request),
        params["principal"],
        [(one.get("actionType", "CONNECT"), one["resources"]) for one in params["authInfos"]],
        client_id=params.get("clientId"),
        add=params.get("policyNamesToAdd", ()),
        skip=params.get("policyNamesToSkip", ()),
    )
    return {"authResults": [_shown(request, one) for one in found]}


def _shown(request: Request, one: permissions.Tested) -> dict[str, Any]:
    registry = registry_of(request)

    def policies(names: tuple[str, ...]) -> dict[str, Any]:
        return {
            "policies": [
                {"policyName": name, "policyArn": registry.arn(request.account_id, f"policy/{name}")} for name in names
            ]
        }

    explicit = one.outcome is Outcome.EXPLICIT_DENY
    implicit = one.outcome is Outcome.IMPLICIT_DENY
    return {
        "authInfo": {"actionType": one.action, "resources": list(one.resources)},
        "allowed": policies(one.allowing),
        "denied": {
            "implicitDeny": policies(one.considered if implicit else ()),
            "explicitDeny": policies(one.denying if explicit else ()),
        },
        "authDecision": one.outcome.value,
        "missingContextValues": list(one.missing),
    }
