"""The schemas of the JSON contract as validators: open as shipped, and closed, so that no field goes undocumented."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource


def schema(name: str) -> dict[str, Any]:
    """A shipped schema, "item" or "document"."""
    return json.loads(files("keyassay.output").joinpath("schema", f"{name}.schema.json").read_text())


def _closed(part: Any) -> Any:
    if isinstance(part, list):
        return [_closed(one) for one in part]
    if not isinstance(part, dict):
        return part
    found = {name: _closed(one) for name, one in part.items()}
    if part.get("type") == "object" and "properties" in part:
        found.setdefault("additionalProperties", False)
    return found


@cache
def validator(name: str, *, closed: bool = True) -> Draft202012Validator:
    """A validator of a whole schema."""
    change = _closed if closed else (lambda part: part)
    both = {one: change(schema(one)) for one in ("item", "document")}
    registry = Registry().with_resources((one["$id"], Resource.from_contents(one)) for one in both.values())
    return Draft202012Validator(both[name], registry=registry)


def definition(name: str) -> Draft202012Validator:
    """A validator of one of the item's definitions: "key", "value", ..."""
    whole = validator("item")
    return whole.evolve(schema={"$defs": whole.schema["$defs"], "$ref": f"#/$defs/{name}"})


def problems(name: str, value: Any) -> list[str]:
    """What a value violates, empty if it keeps the contract."""
    return [f"{error.json_path}: {error.message}" for error in validator(name).iter_errors(value)]


def property_names(part: Any) -> set[str]:
    """The names of all properties that a schema speaks of."""
    if isinstance(part, list):
        return set().union(*(property_names(one) for one in part), set())
    if not isinstance(part, dict):
        return set()
    own = set(part["properties"]) if isinstance(part.get("properties"), dict) else set()
    return own.union(*(property_names(one) for one in part.values()))
