"""The OpenAPI document of our own endpoints, made from the code; AWS's operations are described by AWS's model.

``python -m keyassay.aws.openapi docs/openapi.json`` writes it; a test fails when it is stale. Every server shows it at
``/keyassay/v1/openapi.json``.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from keyassay.aws.operations import ROLES, Access, Operations, Route, discover
from keyassay.aws.protocol import LABEL
from keyassay.aws.shapes import RANGES, Shape

_ABOUT = (
    "What a keyassay registry answers beside AWS IoT's API. Requests are signed like those of AWS IoT (Signature "
    "Version 4, service `iot`); errors have the same form, and lists are paged by the same kind of tokens. Timestamps "
    "in bodies are seconds since 1970, in queries ISO 8601."
)
_SIGNATURE = (
    "AWS Signature Version 4 over the whole request, service `iot`, region of the server. A GET may be signed in the "
    "query instead, for at most 300 seconds. What the access key's role has to permit is in `x-keyassay-access`."
)
#: JSON types of the scalar types of service models
_SCALARS: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer", "format": "int32"},
    "long": {"type": "integer", "format": "int64"},
    "float": {"type": "number"},
    "double": {"type": "number"},
    "timestamp": {"type": "number", "description": "Seconds since 1970."},
    "blob": {"type": "string", "contentEncoding": "base64"},
}


def document(operations: Operations) -> dict[str, Any]:
    """The document.

    Args:
        operations: whose endpoints are described.
    """
    schemas = _Schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for route in sorted(operations.endpoints, key=lambda one: (one.operation.uri, one.operation.method)):
        described = _described(route, schemas)
        paths.setdefault(LABEL.sub(r"{\1}", route.operation.uri), {})[route.operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": "keyassay", "version": "1", "description": _ABOUT, "license": {"name": "Apache-2.0"}},
        "servers": [{"url": "http://127.0.0.1:8443", "description": "Where `keyassay serve` listens by default."}],
        "security": [{"signature": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "signature": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": _SIGNATURE,
                    "x-amazon-apigateway-authtype": "awsSigv4",
                }
            },
            "responses": {"Error": _ERROR},
            "schemas": schemas.named,
        },
    }


_ERROR: dict[str, Any] = {
    "description": "What was wrong; the header has the error's name, such as `ResourceNotFoundException`.",
    "headers": {"x-amzn-errortype": {"schema": {"type": "string"}}},
    "content": {
        "application/json": {
            "schema": {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}
        }
    },
}


def _described(route: Route, schemas: _Schemas) -> dict[str, Any]:
    takes = route.operation.takes or {"members": {}}
    required = takes.get("required", ())
    parameters = []
    body: dict[str, Any] = {}
    for name, member in takes["members"].items():
        place = {"uri": "path", "querystring": "query"}.get(member.get("location", ""))
        if place is None:
            body[name] = schemas.reference(member)
            continue
        needed = place == "path" or name in required
        schema = schemas.reference(member)
        if schemas.kind(member) == "timestamp":
            schema = {"type": "string", "format": "date-time"}
        parameters.append({"name": name, "in": place, "required": needed, "schema": schema})
    text = inspect.getdoc(route.call) or ""
    summary, _, more = text.partition("\n\n")
    described: dict[str, Any] = {
        "operationId": route.operation.name,
        "summary": " ".join(summary.split()),
        "x-keyassay-access": route.access.value,
        "x-keyassay-roles": sorted(role for role, may in ROLES.items() if route.access in may),
    }
    if route.access is Access.OPEN:
        described["security"] = []  # no signature
    if more:
        described["description"] = more
    if parameters:
        described["parameters"] = parameters
    if body:
        needed_members = [name for name in body if name in required]
        schema = {"type": "object", "properties": body, **({"required": needed_members} if needed_members else {})}
        described["requestBody"] = {
            "required": bool(needed_members),
            "content": {"application/json": {"schema": schema}},
        }
    answer = {"description": "What was asked for.", "content": {"application/json": {"schema": {"type": "object"}}}}
    described["responses"] = {"200": answer, "default": {"$ref": "#/components/responses/Error"}}
    return described


class _Schemas:
    """JSON Schemas of shapes; those that have a name in the model stand once in ``named``."""

    def __init__(self, operations: Operations) -> None:
        self._shapes = operations.model.shapes
        self.named: dict[str, Any] = {}

    def kind(self, reference: Shape) -> str:
        """The type of a shape, in the words of service models."""
        return str(self._shapes.resolve(reference)["type"])

    def reference(self, reference: Shape) -> dict[str, Any]:
        """The schema of a member: a reference for named structures, lists and maps, else in place."""
        shape = self._shapes.resolve(reference)
        name = reference.get("shape")
        if name is None or shape["type"] in _SCALARS:
            return self._schema(shape)
        if name not in self.named:
            self.named[name] = {}  # a shape that contains itself finds this
            self.named[name] = self._schema(shape)
        return {"$ref": f"#/components/schemas/{name}"}

    def _schema(self, shape: Shape) -> dict[str, Any]:
        kind = shape["type"]
        if kind == "structure":
            members: Mapping[str, Shape] = shape["members"]
            properties = {one.get("locationName", name): self.reference(one) for name, one in members.items()}
            required = list(shape.get("required", ()))
            return {"type": "object", "properties": properties, **({"required": required} if required else {})}
        if kind == "list":
            return {"type": "array", "items": self.reference(shape["member"]), **_bounds(shape, "minItems", "maxItems")}
        if kind == "map":
            values = self.reference(shape["value"])
            sizes = _bounds(shape, "minProperties", "maxProperties")
            return {"type": "object", "additionalProperties": values, **sizes}
        schema = dict(_SCALARS[kind])
        if "enum" in shape:
            return {**schema, "enum": list(shape["enum"])}
        if "pattern" in shape:
            schema["pattern"] = f"^(?:{shape['pattern']})$"
        numeric = kind in RANGES or kind in ("float", "double")
        return schema | (_bounds(shape, "minimum", "maximum") if numeric else _bounds(shape, "minLength", "maxLength"))


def _bounds(shape: Shape, low: str, high: str) -> dict[str, Any]:
    return {word: shape[bound] for bound, word in (("min", low), ("max", high)) if bound in shape}


@cache
def text() -> str:
    """The document of this release as JSON text."""
    return json.dumps(document(Operations(discover())), indent=2) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text())
