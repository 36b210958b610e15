"""Certificates of things in AWS IoT's words; what they mean is in ``keyassay.registry.principals``."""

from __future__ import annotations

from typing import Any

from keyassay.aws.operations import Request, operation
from keyassay.aws.services import actor_of, paged, registry_of
from keyassay.registry import principals
from keyassay.registry.registry import Page

_EXCLUSIVE = {"EXCLUSIVE_THING": True, "NON_EXCLUSIVE_THING": False}
_NAMES = {exclusive: name for name, exclusive in _EXCLUSIVE.items()}


def _exclusive(params: dict[str, Any]) -> bool | None:
    return _EXCLUSIVE.get(params.get("thingPrincipalType", ""))


@operation("AttachThingPrincipal")
def attach_thing_principal(request: Request, params: dict[str, Any]) -> None:
    principals.attach(
        registry_of(request),
        actor_of(request),
        params["thingName"],
        params["principal"],
        exclusive=_exclusive(params),
    )


@operation("DetachThingPrincipal")
def detach_thing_principal(request: Request, params: dict[str, Any]) -> None:
    principals.detach(registry_of(request), actor_of(request), params["thingName"], params["principal"])


def _of_thing(request: Request, params: dict[str, Any]) -> Page[dict[str, Any]]:
    return principals.of_thing(
        registry_of(request),
        actor_of(request),
        params["thingName"],
        exclusive=_exclusive(params),
        token=params.get("nextToken"),
        size=params.get("maxResults"),
    )


def _arn(request: Request, certificate_id: str) -> str:
    return registry_of(request).arn(request.account_id, f"cert/{certificate_id}")


@operation("ListThingPrincipals")
def list_thing_principals(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = _of_thing(request, params)
    return {
        "principals": [_arn(request, row["certificate_id"]) for row in page.rows],
        "nextToken": page.next_token,
    }


@operation("ListThingPrincipalsV2")
def list_thing_principals_v2(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = _of_thing(request, params)
    rows = (
        {"principal": _arn(request, row["certificate_id"]), "thingPrincipalType": _NAMES[row["exclusive"]]}
        for row in page.rows
    )
    return paged("thingPrincipalObjects", rows, page, "nextToken")


def _of_certificate(request: Request, params: dict[str, Any]) -> Page[dict[str, Any]]:
    return principals.of_certificate(
        registry_of(request),
        actor_of(request),
        params["principal"],
        exclusive=_exclusive(params),
        token=params.get("nextToken"),
        size=params.get("maxResults"),
    )


@operation("ListPrincipalThings")
def list_principal_things(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = _of_certificate(request, params)
    return {"things": [row["thing_name"] for row in page.rows], "nextToken": page.next_token}


@operation("ListPrincipalThingsV2")
def list_principal_things_v2(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    page = _of_certificate(request, params)
    rows = ({"thingName": row["thing_name"], "thingPrincipalType": _NAMES[row["exclusive"]]} for row in page.rows)
    return paged("principalThingObjects", rows, page, "nextToken")
