"""The description of our own endpoints, as every server shows it."""

from __future__ import annotations

from typing import Any

from keyassay.aws.openapi import text
from keyassay.aws.operations import Access, Request, endpoint
from keyassay.aws.protocol import Response


@endpoint("GET", "/keyassay/v1/openapi.json", access=Access.READ)
def describe_own_endpoints(_request: Request, _params: dict[str, Any]) -> Response:
    """This document: the endpoints beside AWS IoT's API, as OpenAPI."""
    return Response(200, [(b"content-type", b"application/json")], text().encode())
