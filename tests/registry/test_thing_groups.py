"""Thing groups: a forest with bounds, what goes with a group, and who is in it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from keyassay.registry import memberships, policies, tags, thing_groups, things
from keyassay.registry.errors import (
    AlreadyExistsError,
    InvalidError,
    NotFoundError,
    RegistryError,
    VersionConflictError,
)
from keyassay.registry.registry import Limits, Registry
from keyassay.storage import schema
from keyassay.storage.sealing import Seal
from two_accounts import A, B, Rows

POLICY = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}]}'


def every(ask: Callable[..., Any], column: str, size: int = 2) -> list[Any]:
    """A column of all rows of a list, page by page."""
    found, token = [], None
    while True:
        page = ask(token=token, size=size)
        found += [row[column] for row in page.rows]
        token = page.next_token
        if token is None:
            return found


@pytest.fixture
def tree(registry: Registry) -> Registry:
    """plant > (hall > (line, Line), yard), and plant2."""
    for name, parent in (
        ("plant", None),
        ("hall", "plant"),
        ("line", "hall"),
        ("Line", "hall"),
        ("yard", "plant"),
        ("plant2", None),
    ):
        thing_groups.create(registry, A, name, parent=parent)
    return registry


def members(registry: Registry, group: str, *, recursive: bool = False) -> list[str]:
    ask = lambda **page: memberships.things_in(registry, A, group, recursive=recursive, **page)  # noqa: E731
    return every(ask, "thing_name")


def groups(registry: Registry, thing: str) -> list[str]:
    return every(lambda **page: memberships.groups_of(registry, A, thing, **page), "group_name")


def test_made_described_and_made_again(registry: Registry, rows: Rows) -> None:
    root = thing_groups.create(registry, A, "g", description="all", attributes={"a": "1", "b": ""}, tags={"k": "v"})
    assert thing_groups.create(registry, A, "g", description="all", attributes={"a": "1"}) == root
    child = thing_groups.create(registry, A, "h", parent="g")
    assert thing_groups.create(registry, A, "h", parent="g") == child
    for name, wrong in (("g", {}), ("g", {"parent": "h", "description": "all"}), ("h", {}), ("h", {"parent": "h"})):
        with pytest.raises(AlreadyExistsError) as raised:
            thing_groups.create(registry, A, name, **wrong)
        assert raised.value.resource_arn == registry.arn(A.account_id, f"thinggroup/{name}")
    with pytest.raises(NotFoundError):
        thing_groups.create(registry, B, "h", parent="g")
    row, above = thing_groups.describe(registry, A, "g")
    assert (row["version"], row["properties"], above) == (1, {"description": "all", "attributes": {"a": "1"}}, [])
    assert thing_groups.describe(registry, A, "h")[1] == ["g"]
    with pytest.raises(NotFoundError):
        thing_groups.describe(registry, B, "g")
    assert rows.operations() == ["CreateThingGroup", "CreateThingGroup"]


def test_depth_children_and_attributes_have_bounds(database: Any, registry: Registry) -> None:
    parent = None
    for level in range(1, 8):
        thing_groups.create(registry, A, f"level{level}", parent=parent)
        parent = f"level{level}"
    assert thing_groups.describe(registry, A, "level7")[1] == [f"level{level}" for level in range(1, 7)]
    with pytest.raises(InvalidError, match="7 levels"):
        thing_groups.create(registry, A, "level8", parent="level7")
    few = Registry(database, Seal(b"k" * 32), limits=Limits(children_of_a_group=2))
    thing_groups.create(few, A, "second", parent="level1")
    with pytest.raises(InvalidError, match="2 groups"):
        thing_groups.create(few, A, "third", parent="level1")
    many = {f"a{number}": "x" for number in range(51)}
    with pytest.raises(InvalidError):
        thing_groups.create(registry, A, "other", attributes=many)
    with pytest.raises(InvalidError):
        thing_groups.change(registry, A, "level1", attributes=many)


def test_updates(registry: Registry) -> None:
    thing_groups.create(registry, A, "g", description="old", attributes={"a": "1"})
    assert thing_groups.change(registry, A, "g", attributes={"b": "2"}, merge=True) == 2
    assert thing_groups.change(registry, A, "g", description="new", expected_version=2) == 3
    properties = thing_groups.describe(registry, A, "g")[0]["properties"]
    assert properties == {"description": "new", "attributes": {"a": "1", "b": "2"}}
    assert thing_groups.change(registry, A, "g", attributes={"a": "", "c": "3"}) == 4
    assert thing_groups.describe(registry, A, "g")[0]["properties"]["attributes"] == {"c": "3"}
    with pytest.raises(VersionConflictError):
        thing_groups.change(registry, A, "g", expected_version=3)
    with pytest.raises(NotFoundError):
        thing_groups.change(registry, B, "g")


def test_what_goes_with_a_group(tree: Registry, rows: Rows) -> None:
    things.create(tree, A, "t")
    policies.create(tree, A, "p", POLICY)
    arn = tree.arn(A.account_id, "thinggroup/line")
    policies.attach(tree, A, "p", arn)
    tags.tag(tree, A, arn, {"k": "v"})
    memberships.add(tree, A, "t", "line")
    with pytest.raises(InvalidError, match="below"):
        thing_groups.remove(tree, A, "hall")
    with pytest.raises(VersionConflictError):
        thing_groups.remove(tree, A, "line", expected_version=2)
    thing_groups.remove(tree, B, "line")
    thing_groups.remove(tree, A, "line", expected_version=1)
    thing_groups.remove(tree, A, "line")
    assert rows.all("policy_attachments") == rows.all("tags") == rows.all("thing_group_members") == []
    policies.remove(tree, A, "p")
    assert groups(tree, "t") == []
    told = rows.all("changes", operation="DeleteThingGroup")
    assert [(row["resource_type"], row["resource_id"], row["details"]) for row in told] == [
        ("thing", "t", {"group": "line", "removed": True}),
        ("thing-group", "line", {"policies": ["p"]}),
    ]


def test_lists(tree: Registry) -> None:
    thing_groups.create(tree, B, "theirs")

    def found(**more: Any) -> list[str]:
        return sorted(every(lambda **page: thing_groups.listed(tree, A, **page, **more), "name"))

    assert found() == found(recursive=True) == ["Line", "hall", "line", "plant", "plant2", "yard"]
    assert found(recursive=False) == ["plant", "plant2"]
    assert found(parent="plant") == found(parent="plant", recursive=False) == ["hall", "yard"]
    assert found(parent="plant", recursive=True) == ["Line", "hall", "line", "yard"]
    assert found(parent="line", recursive=True) == []
    assert found(prefix="l") == found(prefix="l", recursive=True) == ["line"]
    assert found(prefix="l", recursive=False) == []
    assert found(prefix="plant") == ["plant", "plant2"]
    assert found(parent="plant", prefix="L", recursive=True) == ["Line"]
    for who, parent in ((A, "none"), (B, "plant")):
        with pytest.raises(NotFoundError):
            thing_groups.listed(tree, who, parent=parent)
    token = thing_groups.listed(tree, A, size=1).next_token
    with pytest.raises(InvalidError):
        thing_groups.listed(tree, A, recursive=True, token=token)


def test_things_come_and_go(tree: Registry, rows: Rows) -> None:
    for name in ("t1", "t2", "t3", "t4", "t5"):
        things.create(tree, A, name)
    for thing, group in (("t1", "plant"), ("t2", "hall"), ("t3", "line"), ("t4", "line"), ("t5", "yard")):
        memberships.add(tree, A, thing, group)
        memberships.add(tree, A, thing, group)
    memberships.add(tree, A, "t3", "plant2")
    assert members(tree, "line") == ["t3", "t4"]
    assert members(tree, "plant") == ["t1"]
    assert sorted(members(tree, "hall", recursive=True)) == ["t2", "t3", "t4"]
    assert sorted(members(tree, "plant", recursive=True)) == ["t1", "t2", "t3", "t4", "t5"]
    assert members(tree, "Line", recursive=True) == []
    assert sorted(groups(tree, "t3")) == ["line", "plant2"]
    for other in ("plant", "hall", "yard", "Line"):
        with pytest.raises(InvalidError, match="hierarchy"):
            memberships.add(tree, A, "t3", other)
    memberships.remove(tree, A, "t3", "line")
    memberships.remove(tree, A, "t3", "line")
    assert groups(tree, "t3") == ["plant2"]
    for call in (memberships.add, memberships.remove):
        for who, thing, group in ((A, "none", "line"), (A, "t1", "none"), (B, "t1", "line")):
            with pytest.raises(NotFoundError):
                call(tree, who, thing, group)
    with pytest.raises(NotFoundError):
        memberships.things_in(tree, B, "line")
    with pytest.raises(NotFoundError):
        memberships.groups_of(tree, B, "t1")
    things.remove(tree, A, "t4")
    assert members(tree, "line") == []
    assert rows.operations().count("AddThingToThingGroup") == 6
    told = rows.all("changes", operation="RemoveThingFromThingGroup")
    assert [(row["resource_type"], row["resource_id"], row["details"]) for row in told] == [
        ("thing", "t3", {"group": "line", "removed": True})
    ]
    deleted = rows.all("changes", operation="DeleteThing")
    assert [row["details"] for row in deleted] == [{"groups": ["line"]}]


def test_groups_of_a_thing_change_as_one(tree: Registry) -> None:
    things.create(tree, A, "t")
    memberships.update(tree, A, "t", to_add=["line", "plant2"])
    memberships.update(tree, A, "t", to_add=["yard", "plant2"], to_remove=["line", "hall"])
    assert sorted(groups(tree, "t")) == ["plant2", "yard"]
    with pytest.raises(InvalidError):
        memberships.update(tree, A, "t", to_add=["hall"], to_remove=["plant2"])
    with pytest.raises(NotFoundError):
        memberships.update(tree, A, "t", to_add=["none"], to_remove=["plant2"])
    with pytest.raises(NotFoundError):
        memberships.update(tree, A, "t", to_remove=["plant2", "none"])
    assert sorted(groups(tree, "t")) == ["plant2", "yard"]
    with pytest.raises(NotFoundError):  # more names than a statement binds
        memberships.update(tree, A, "t", to_remove=["plant2", *map(str, range(70_000))])
    memberships.update(tree, A, "t", to_add=["yard"], to_remove=["yard"])
    assert sorted(groups(tree, "t")) == ["plant2", "yard"]
    with pytest.raises(NotFoundError):
        memberships.update(tree, A, "none")


def test_a_thing_is_in_ten_groups_at_most(registry: Registry) -> None:
    things.create(registry, A, "t")
    for number in range(11):
        thing_groups.create(registry, A, f"g{number}")
    memberships.update(registry, A, "t", to_add=[f"g{number}" for number in range(10)])
    for override in (False, True):
        with pytest.raises(InvalidError, match="10 groups"):
            memberships.add(registry, A, "t", "g10", override_dynamic_groups=override)
    memberships.update(registry, A, "t", to_add=["g10"], to_remove=["g0"])
    assert len(groups(registry, "t")) == 10


def test_many_things_into_groups_inside_a_transaction(tree: Registry, rows: Rows) -> None:
    many = [f"t{number:04}" for number in range(1_100)]
    for name in ("t0007", "t1099", "t0500"):
        things.create(tree, A, name)
    memberships.add(tree, A, "t0500", "line")
    row = rows.all("things", name="t0007")[0]
    more = [{**row, "name": name, "id": name} for name in many if name not in ("t0007", "t1099", "t0500")]
    with tree.database.write(A) as transaction:
        transaction.execute(schema.things.insert(), more)
        added = memberships.add_to_groups(tree, transaction, many, ["line", "plant2"], operation="Mitigate")
    assert len(added) == 2 * 1_100 - 1
    assert rows.operations().count("Mitigate") == len(added)
    assert len(rows.all("thing_group_members", group_name="line")) == 1_100
    thing_groups.remove(tree, A, "plant2")  # in several transactions
    assert rows.all("thing_group_members", group_name="plant2") == rows.all("thing_groups", name="plant2") == []
    assert rows.operations().count("DeleteThingGroup") == 1_101
    thing_groups.create(tree, A, "plant2")
    with pytest.raises(NotFoundError, match="none"), tree.database.write(A) as transaction:
        memberships.add_to_groups(tree, transaction, many[:2], ["plant2", "none"])
    with pytest.raises(NotFoundError, match="t9"), tree.database.write(A) as transaction:
        memberships.add_to_groups(tree, transaction, ["t9", *many], ["plant2"])


def test_eight_at_once_lose_nothing_and_pass_no_limit(registry: Registry, rows: Rows) -> None:
    for number in range(14):
        thing_groups.create(registry, A, f"g{number}")
    thing_groups.create(registry, A, "below", parent="g0")
    for thing in ("t", "u"):
        things.create(registry, A, thing)

    def attempt(pair: tuple[str, str]) -> bool:
        try:
            memberships.add(registry, A, *pair)
        except RegistryError:
            return False
        return True

    wishes = [(thing, group) for group in ("below", *(f"g{number}" for number in range(14))) for thing in ("t", "u")]
    with ThreadPoolExecutor(8) as pool:
        done = dict(zip(wishes, pool.map(attempt, wishes), strict=True))
    held = {(row["thing_name"], row["group_name"]) for row in rows.all("thing_group_members")}
    assert held == {pair for pair, came in done.items() if came}
    for thing in ("t", "u"):
        mine = {group for name, group in held if name == thing}
        assert len(mine) == 10
        assert len(mine & {"g0", "below"}) < 2
    assert rows.operations().count("AddThingToThingGroup") == 20
