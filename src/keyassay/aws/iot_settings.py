"""Logging options and the endpoint in AWS IoT's words."""

from __future__ import annotations

from typing import Any

from keyassay.aws.operations import Request, operation
from keyassay.aws.services import actor_of, registry_of
from keyassay.registry import documents
from keyassay.registry.errors import InvalidError

ENDPOINTS = ("iot:Data", "iot:Data-ATS", "iot:CredentialProvider", "iot:Jobs")


@operation("DescribeEndpoint", quick=True)
def describe_endpoint(request: Request, params: dict[str, Any]) -> dict[str, Any]:
    if params.get("endpointType", ENDPOINTS[0]) not in ENDPOINTS:
        raise InvalidError(f"endpointType is one of {', '.join(ENDPOINTS)}")
    return {"endpointAddress": registry_of(request).endpoint}


@operation("GetV2LoggingOptions")
def get_v2_logging_options(request: Request, _params: dict[str, Any]) -> dict[str, Any]:
    return documents.logging_options(registry_of(request), actor_of(request))


@operation("SetV2LoggingOptions")
def set_v2_logging_options(request: Request, params: dict[str, Any]) -> None:
    documents.set_logging_options(
        registry_of(request),
        actor_of(request),
        role_arn=params.get("roleArn"),
        default_level=params.get("defaultLogLevel"),
        disable_all=params.get("disableAllLogs"),
    )
