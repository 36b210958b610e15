"""Things and thing types: what is configured, versions, lists by name, type and attribute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from keyassay.registry import tags, thing_types, things
from keyassay.registry.errors import (
    AlreadyExistsError,
    InvalidError,
    LimitError,
    NotFoundError,
    VersionConflictError,
)
from keyassay.registry.registry import Limits, Registry
from keyassay.storage.sealing import Seal
from two_accounts import A, B, Rows


def every(ask: Callable[..., Any], column: str = "name", size: int = 2, **more: Any) -> list[Any]:
    """A column of all rows of a list, page by page."""
    found, token = [], None
    while True:
        page = ask(token=token, size=size, **more)
        found += [row[column] for row in page.rows]
        token = page.next_token
        if token is None:
            return found
        assert len(page.rows) == size


def names(registry: Registry, **more: Any) -> list[str]:
    return every(lambda **page: things.listed(registry, A, **page), **more)


def test_made_described_and_made_again(registry: Registry, rows: Rows) -> None:
    thing_types.create(registry, A, "lamp")
    made = things.create(registry, A, "t", type_name="lamp", attributes={"site": "1", "none": ""}, billing_group="b")
    row = things.describe(registry, A, "t")
    assert (row["id"], row["version"], row["attributes"]) == (made, 1, {"site": "1"})
    assert (row["type_name"], row["billing_group"]) == ("lamp", "b")
    same: dict[str, Any] = {"type_name": "lamp", "attributes": {"site": "1"}, "billing_group": "b"}
    assert things.create(registry, A, "t", **same) == made
    for other in ({"type_name": None}, {"attributes": {"site": "2"}}, {"attributes": None}, {"billing_group": None}):
        with pytest.raises(AlreadyExistsError) as raised:
            things.create(registry, A, "t", **{**same, **other})
        assert raised.value.resource_id == "t"
        assert raised.value.resource_arn == registry.arn(A.account_id, "thing/t")
    assert things.create(registry, B, "t") != made
    assert things.describe(registry, B, "t")["type_name"] is None
    things.create(registry, A, "T")  # names know upper and lower case
    assert rows.operations() == ["CreateThingType", "CreateThing", "CreateThing"]


def test_attributes_are_few_without_a_type(registry: Registry) -> None:
    thing_types.create(registry, A, "lamp")
    four = {f"a{number}": "x" for number in range(4)}
    fifty = {f"a{number}": "x" for number in range(50)}
    with pytest.raises(InvalidError):
        things.create(registry, A, "t", attributes=four)
    things.create(registry, A, "t", type_name="lamp", attributes=fifty)
    with pytest.raises(InvalidError):
        things.change(registry, A, "t", attributes={"more": "x"}, merge=True)
    with pytest.raises(InvalidError):
        things.change(registry, A, "t", remove_type=True)
    things.change(registry, A, "t", remove_type=True, attributes={"a": "b"})
    assert things.describe(registry, A, "t")["type_name"] is None
    with pytest.raises(InvalidError):
        things.change(registry, A, "t", attributes=four)
    things.change(registry, A, "t", type_name="lamp", attributes=four)


def test_updates(registry: Registry, rows: Rows) -> None:
    things.create(registry, A, "t", attributes={"a": "1", "b": "2"})

    def attributes() -> dict[str, str]:
        kept = dict(things.describe(registry, A, "t")["attributes"])
        assert {row["name"]: row["value"] for row in rows.all("thing_attributes", thing_name="t")} == kept
        return kept

    things.change(registry, A, "t", attributes={"a": "", "c": "3"}, merge=True)
    assert attributes() == {"b": "2", "c": "3"}
    things.change(registry, A, "t", attributes={"b": "9", "d": ""})
    assert attributes() == {"b": "9"}
    things.change(registry, A, "t")
    assert attributes() == {"b": "9"}
    things.change(registry, A, "t", attributes={}, expected_version=4)
    assert attributes() == {}
    assert things.describe(registry, A, "t")["version"] == 5
    with pytest.raises(VersionConflictError):
        things.change(registry, A, "t", expected_version=4)
    with pytest.raises(InvalidError):
        things.change(registry, A, "t", type_name="lamp", remove_type=True)
    with pytest.raises(NotFoundError):
        things.change(registry, A, "t", type_name="lamp")
    for who, name in ((A, "other"), (B, "t")):
        with pytest.raises(NotFoundError):
            things.change(registry, who, name)
        with pytest.raises(NotFoundError):
            things.describe(registry, who, name)
    assert things.describe(registry, A, "t")["version"] == 5


def test_deleted(registry: Registry, rows: Rows) -> None:
    things.create(registry, A, "t", attributes={"a": "1"})
    with pytest.raises(VersionConflictError):
        things.remove(registry, A, "t", expected_version=2)
    things.remove(registry, B, "t")  # another account's is unknown, which is no error
    things.remove(registry, A, "t", expected_version=1)
    things.remove(registry, A, "t", expected_version=1)
    assert rows.all("things") == rows.all("thing_attributes") == []
    assert rows.operations() == ["CreateThing", "DeleteThing"]
    assert rows.operations(B) == []


def test_no_more_things_than_permitted(database: Any, registry: Registry) -> None:
    small = Registry(database, Seal(b"k" * 32), limits=Limits(things=1))
    things.create(small, A, "t")
    things.create(small, A, "t")
    things.create(small, B, "t")
    with pytest.raises(LimitError):
        things.create(small, A, "u")


def test_lists(registry: Registry) -> None:
    for kind in ("lamp", "Lamp"):
        thing_types.create(registry, A, kind)
    for number in range(6):
        kind = ("lamp", "Lamp", None)[number % 3]
        attributes = {"site": ("north_1", "North_1", "northx1")[number // 2], "n": str(number)}
        things.create(registry, A, f"t{number}", type_name=kind, attributes=attributes)
    things.create(registry, A, "bare")
    things.create(registry, B, "theirs", attributes={"site": "north_1"})
    assert names(registry) == ["bare", "t0", "t1", "t2", "t3", "t4", "t5"]
    assert names(registry, type_name="lamp") == ["t0", "t3"]
    assert names(registry, type_name="none") == []
    assert sorted(names(registry, attribute="site")) == ["t0", "t1", "t2", "t3", "t4", "t5"]
    assert names(registry, attribute="Site") == []
    assert names(registry, attribute="site", value="north_1") == ["t0", "t1"]
    assert names(registry, attribute="site", value="north", prefix=False) == []
    assert sorted(names(registry, attribute="site", value="north_", prefix=True)) == ["t0", "t1"]
    assert sorted(names(registry, attribute="site", value="north", prefix=True, size=3)) == ["t0", "t1", "t4", "t5"]
    assert len(names(registry, attribute="site", value="", prefix=True)) == 6
    assert names(registry, attribute="site", value="north", prefix=True, type_name="Lamp") == ["t1", "t4"]
    row = things.listed(registry, A, attribute="n", value="5").rows[0]
    assert (row["name"], row["type_name"], row["version"]) == ("t5", None, 1)
    assert row["attributes"] == {"site": "northx1", "n": "5"}
    with pytest.raises(InvalidError):
        things.listed(registry, A, value="north")


def test_tokens_belong_to_their_filter_and_account(registry: Registry) -> None:
    for number in range(3):
        for side in (A, B):
            things.create(registry, side, f"t{number}", attributes={"a": "v" * 800})
    token = things.listed(registry, A, attribute="a", size=1).next_token
    assert token is not None
    assert [row["name"] for row in things.listed(registry, A, attribute="a", token=token).rows] == ["t1", "t2"]
    for side, more in ((B, {"attribute": "a"}), (A, {}), (A, {"attribute": "b"}), (A, {"attribute": "a", "value": ""})):
        with pytest.raises(InvalidError):
            things.listed(registry, side, token=token, **more)


def test_a_type_is_made_deprecated_and_deleted(registry: Registry, rows: Rows) -> None:
    properties = {"thingTypeDescription": "lamps", "searchableAttributes": ["site"]}
    made = thing_types.create(registry, A, "lamp", properties, {"team": "x"})
    assert thing_types.create(registry, A, "lamp", properties) == made
    with pytest.raises(AlreadyExistsError) as raised:
        thing_types.create(registry, A, "lamp")
    assert raised.value.resource_arn == registry.arn(A.account_id, "thingtype/lamp")
    things.create(registry, A, "t", type_name="lamp")
    with pytest.raises(InvalidError, match="deprecate"):
        thing_types.remove(registry, A, "lamp")
    thing_types.deprecate(registry, A, "lamp")
    at = thing_types.describe(registry, A, "lamp")["deprecated_at"]
    thing_types.deprecate(registry, A, "lamp")
    assert thing_types.describe(registry, A, "lamp")["deprecated_at"] == at
    with pytest.raises(InvalidError, match="have the thing type"):
        thing_types.remove(registry, A, "lamp")
    with pytest.raises(InvalidError, match="deprecated"):
        things.create(registry, A, "u", type_name="lamp")
    assert things.create(registry, A, "t", type_name="lamp")  # it has the type already
    things.change(registry, A, "t", type_name="lamp")
    things.change(registry, A, "t", remove_type=True)
    with pytest.raises(InvalidError, match="deprecated"):
        things.change(registry, A, "t", type_name="lamp")
    thing_types.deprecate(registry, A, "lamp", undo=True)
    assert thing_types.describe(registry, A, "lamp")["deprecated_at"] is None
    things.change(registry, A, "t", type_name="lamp")
    things.remove(registry, A, "t")
    thing_types.deprecate(registry, A, "lamp")
    arn = registry.arn(A.account_id, "thingtype/lamp")
    assert [row["name"] for row in tags.tags_of(registry, A, arn).rows] == ["team"]
    thing_types.remove(registry, A, "lamp")
    assert rows.all("tags") == rows.all("thing_types") == []
    for call in (thing_types.describe, thing_types.remove, thing_types.deprecate):
        with pytest.raises(NotFoundError):
            call(registry, A, "lamp")
    with pytest.raises(NotFoundError):
        things.create(registry, A, "t", type_name="lamp")
    assert rows.operations().count("DeprecateThingType") == 3


def test_a_type_changes_where_something_is_given(registry: Registry, rows: Rows) -> None:
    thing_types.create(registry, A, "lamp", {"thingTypeDescription": "lamps", "searchableAttributes": ["site"]})
    propagating = [{"userPropertyKey": "k", "thingAttribute": "site"}]
    thing_types.change(registry, A, "lamp", {"mqtt5Configuration": {"propagatingAttributes": propagating}})
    thing_types.change(registry, A, "lamp", {"thingTypeDescription": "more lamps"})
    thing_types.change(registry, A, "lamp", None)
    assert thing_types.describe(registry, A, "lamp")["properties"] == {
        "thingTypeDescription": "more lamps",
        "searchableAttributes": ["site"],
        "mqtt5Configuration": {"propagatingAttributes": propagating},
    }
    assert rows.operations() == ["CreateThingType", "UpdateThingType", "UpdateThingType"]
    for wrong in (["a", "b", "c", "d"], ["a", "a"]):
        with pytest.raises(InvalidError):
            thing_types.change(registry, A, "lamp", {"searchableAttributes": wrong})
        with pytest.raises(InvalidError):
            thing_types.create(registry, A, "other", {"searchableAttributes": wrong})
    with pytest.raises(NotFoundError):
        thing_types.change(registry, B, "lamp", {})


def test_more_tags_than_a_statement_binds(registry: Registry, rows: Rows) -> None:
    many = {str(number): "" for number in range(70_000)}
    with pytest.raises(LimitError):
        thing_types.create(registry, A, "lamp", None, many)
    thing_types.create(registry, A, "lamp", None, {"1": "", "kept": ""})
    arn = registry.arn(A.account_id, "thingtype/lamp")
    tags.untag(registry, A, arn, many)
    tags.untag(registry, A, arn, ["1"])
    assert [row["name"] for row in rows.all("tags")] == ["kept"]
    told = rows.all("changes", operation="UntagResource")
    assert [row["details"] for row in told] == [{"names": ["1"]}]


def test_types_are_listed(registry: Registry) -> None:
    for name in ("lamp", "Lamp", "lamp2", "valve"):
        thing_types.create(registry, A, name)
    thing_types.create(registry, B, "lamp3")

    def found(**more: Any) -> list[str]:
        return every(lambda **page: thing_types.listed(registry, A, **page, **more))

    assert sorted(found()) == ["Lamp", "lamp", "lamp2", "valve"]
    assert found(prefix="lamp") == ["lamp", "lamp2"]
