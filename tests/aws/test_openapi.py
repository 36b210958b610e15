"""The OpenAPI document is the code's, well-formed, complete, and its schemas take what the server takes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from keyassay.aws.openapi import document, text
from keyassay.aws.operations import OPEN_PATHS, Access, Operations, discover, endpoint
from keyassay.aws.own_openapi import describe_own_endpoints
from keyassay.aws.protocol import Response

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text())
    return found


def each(described: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(method, path, operation)."""
    return [(method, path, one) for path, item in described["paths"].items() for method, one in item.items()]


def test_the_file_is_what_the_code_says() -> None:
    """If not: `.venv/bin/python -m keyassay.aws.openapi docs/openapi.json`."""
    assert (ROOT / "docs" / "openapi.json").read_text() == text()


def test_every_endpoint_is_there_once_with_its_words(described: dict[str, Any]) -> None:
    routes = {
        (one.operation.method.lower(), one.operation.uri, one.operation.name)
        for one in Operations(discover()).endpoints
    }
    assert {(method, path, one["operationId"]) for method, path, one in each(described)} == routes
    for _, path, one in each(described):
        assert one["summary"]
        if path in OPEN_PATHS:
            assert (one["x-keyassay-roles"], one["security"]) == ([], [])
        else:
            assert one["x-keyassay-roles"][0] == "administrator"
            assert "security" not in one
        assert set(one["responses"]) == {"200", "default"}


def test_labels_are_parameters_and_references_lead_somewhere(described: dict[str, Any]) -> None:
    for method, path, one in each(described):
        parameters = {(each_one["in"], each_one["name"]) for each_one in one.get("parameters", ())}
        assert {name for place, name in parameters if place == "path"} == set(re.findall(r"\{(\w+)\}", path))
        assert method in ("post", "put", "patch") or "requestBody" not in one
    for target in set(re.findall(r'"\$ref": "#/([^"]+)"', text())):
        found: Any = described
        for step in target.split("/"):
            found = found[step]
        assert found


def test_the_schemas_are_schemas(described: dict[str, Any]) -> None:
    for one in described["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(one)
    for _, _, one in each(described):
        for parameter in one.get("parameters", ()):
            jsonschema.Draft202012Validator.check_schema(parameter["schema"])


def test_the_schema_of_a_body_refuses_what_the_server_refuses(described: dict[str, Any]) -> None:
    body = described["paths"]["/keyassay/v1/mitigation/plan"]["post"]["requestBody"]
    schema = {**body["content"]["application/json"]["schema"], "components": described["components"]}
    validator = jsonschema.Draft202012Validator(schema)
    good = {"target": {"auditTaskId": "a-1"}, "auditCheckToActionsMapping": {"SOME_CHECK": ["deactivate"]}}
    assert validator.is_valid(good)
    assert not validator.is_valid({"target": good["target"]})
    assert not validator.is_valid({**good, "auditCheckToActionsMapping": {"SOME_CHECK": []}})
    assert not validator.is_valid({**good, "target": {"auditTaskId": "with spaces"}})
    assert not validator.is_valid({**good, "maxResults": 0})


def test_all_kinds_of_shapes() -> None:
    @endpoint(
        "PUT",
        "/keyassay/v1/example/{one}",
        access=Access.GATE,
        takes={
            "one": {"type": "string", "min": 1, "max": 9, "pattern": "[a-z]+"},
            "when": {"type": "timestamp"},
            "many": {"type": "list", "member": {"type": "long", "min": 3}, "max": 4},
            "named": {"type": "map", "key": {"type": "string"}, "value": {"type": "boolean"}},
            "kind": {"type": "string", "enum": ["A", "B"]},
        },
        required=("one", "many"),
    )
    def put_example(_request: Any, _params: Any) -> dict[str, Any]:
        """Puts it.

        And more.
        """
        return {}

    @endpoint("GET", "/keyassay/v1/example", access=Access.READ, takes={"since": {"type": "timestamp"}})
    def get_example(_request: Any, _params: Any) -> dict[str, Any]:
        """Gets it."""
        return {}

    paths = document(Operations([put_example, get_example]))["paths"]
    put = paths["/keyassay/v1/example/{one}"]["put"]
    assert (put["summary"], put["description"]) == ("Puts it.", "And more.")
    assert put["x-keyassay-roles"] == ["administrator", "gate"]
    (parameter,) = put["parameters"]
    pattern = {"type": "string", "pattern": "^(?:[a-z]+)$", "minLength": 1, "maxLength": 9}
    assert parameter == {"name": "one", "in": "path", "required": True, "schema": pattern}
    schema = put["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["many"]
    assert schema["properties"]["many"] == {
        "type": "array",
        "items": {"type": "integer", "format": "int64", "minimum": 3},
        "maxItems": 4,
    }
    assert schema["properties"]["named"] == {"type": "object", "additionalProperties": {"type": "boolean"}}
    assert schema["properties"]["kind"] == {"type": "string", "enum": ["A", "B"]}
    (since,) = paths["/keyassay/v1/example"]["get"]["parameters"]
    assert since["schema"] == {"type": "string", "format": "date-time"}


def test_servers_show_it() -> None:
    answer = describe_own_endpoints(None, {})  # type: ignore[arg-type]  it asks for nothing
    assert isinstance(answer, Response)
    assert json.loads(answer.body)["openapi"] == "3.1.0"
