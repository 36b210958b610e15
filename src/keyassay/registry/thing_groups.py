"""Thing groups: a forest; each has one parent or none, for ever. Who is in them stands in ``memberships.py``."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, delete, func, select, update

from keyassay.registry.attributes import OF_A_GROUP, combined
from keyassay.registry.errors import AlreadyExistsError, InvalidError, NotFoundError
from keyassay.registry.registry import Page, Registry, starting_with
from keyassay.registry.tags import remove_tags, set_tags
from keyassay.registry.things import check_version
from keyassay.storage import schema
from keyassay.storage.database import Actor, Transaction

_G = schema.thing_groups.c
_M = schema.thing_group_members.c
_A = schema.policy_attachments.c

#: things that leave a group in one transaction when it is deleted
_AT_ONCE = 100


def find(connection: Connection, account_id: str, name: str) -> RowMapping:
    """The row of a group.

    Raises:
        NotFoundError: there is none.
    """
    query = select(schema.thing_groups).where(_G.account_id == account_id, _G.name == name)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError("there is no such thing group")
    return row


def ancestors(connection: Connection, group: RowMapping) -> list[str]:
    """Names of the groups above a group, from the root to the parent."""
    found: list[str] = []
    above = group["parent_name"]
    while above is not None:
        found.append(above)
        above = find(connection, group["account_id"], above)["parent_name"]
    return found[::-1]


def subtree(account_id: str, name: str) -> Select[tuple[str]]:
    """The names of a group and of all groups below it, as a query."""
    tree = select(_G.name).where(_G.account_id == account_id, _G.name == name).cte("tree", recursive=True)
    below = select(_G.name).where(_G.account_id == account_id, _G.parent_name == tree.c.name)
    return select(tree.union_all(below).c.name)


def _properties(
    present: Mapping[str, Any],
    description: str | None,
    attributes: Mapping[str, str] | None,
    *,
    merge: bool = False,
) -> dict[str, Any]:
    """What a group's row keeps: {"description"?, "attributes"}."""
    before = present.get("attributes", {})
    found: dict[str, Any] = {
        "attributes": combined(before, attributes, merge=merge, most=OF_A_GROUP, whose="a thing group")
    }
    description = present.get("description") if description is None else description
    if description is not None:
        found["description"] = description
    return found


def create(
    registry: Registry,
    actor: Actor,
    name: str,
    *,
    parent: str | None = None,
    description: str | None = None,
    attributes: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Make a group; again with the same parent and properties changes nothing.

    Args:
        registry: where.
        actor: who.
        name: of the group.
        parent: the group in which it is, for ever.
        description: for people.
        attributes: 50 at most; those with an empty value are left out.
        tags: of a new group.

    Returns:
        The group's id.

    Raises:
        AlreadyExistsError: there is one with another parent or other properties.
        NotFoundError: no such parent.
        InvalidError: too deep, too many children, too many attributes.
    """
    chosen = _properties({}, description, attributes)
    account_id = actor.account_id
    with registry.database.write(actor) as transaction:
        query = select(schema.thing_groups).where(_G.account_id == account_id, _G.name == name)
        row = transaction.execute(query).mappings().first()
        if row is not None:
            if (row["parent_name"], row["properties"]) != (parent, chosen):
                arn = registry.arn(account_id, f"thinggroup/{name}")
                message = "there is a thing group of that name with another parent or other properties"
                raise AlreadyExistsError(message, name, arn)
            return str(row["id"])
        made = {
            "account_id": account_id,
            "name": name,
            "id": str(uuid.uuid4()),
            "parent_name": parent,
            "root_name": name if parent is None else _root_with_room(registry, transaction, parent),
            "properties": chosen,
            "version": 1,
            "created_at": transaction.now,
        }
        transaction.execute(schema.thing_groups.insert().values(made))
        set_tags(registry, transaction, f"thinggroup/{name}", tags or {})
        transaction.record("CreateThingGroup", "thing-group", name, {"parent": parent})
        return str(made["id"])


def _root_with_room(registry: Registry, transaction: Transaction, parent: str) -> str:
    """The root above a new child of ``parent``, if it may have one."""
    row = find(transaction.connection, transaction.account_id, parent)
    limits = registry.limits
    if len(ancestors(transaction.connection, row)) + 2 > limits.group_depth:
        raise InvalidError(f"thing groups are at most {limits.group_depth} levels deep")
    siblings = (_G.account_id == transaction.account_id) & (_G.parent_name == parent)
    if transaction.execute(select(func.count()).where(siblings)).scalar_one() >= limits.children_of_a_group:
        raise InvalidError(f"a thing group has at most {limits.children_of_a_group} groups directly below it")
    return str(row["root_name"])


def describe(registry: Registry, actor: Actor, name: str) -> tuple[RowMapping, list[str]]:
    """All columns of a group, and the names of the groups above it, from the root.

    Raises:
        NotFoundError: there is none.
    """
    with registry.database.read() as connection:
        row = find(connection, actor.account_id, name)
        return row, ancestors(connection, row)


def change(
    registry: Registry,
    actor: Actor,
    name: str,
    *,
    description: str | None = None,
    attributes: Mapping[str, str] | None = None,
    merge: bool = False,
    expected_version: int | None = None,
) -> int:
    """Change what is given.

    Args:
        registry: where.
        actor: who.
        name: of the group.
        description: the new one.
        attributes: instead of all that it has, or merged with them; an empty value removes an attribute.
        merge: keep attributes that are not given.
        expected_version: refuse if the group has another.

    Returns:
        The new version.

    Raises:
        NotFoundError: no such group.
        VersionConflictError: another version than expected.
        InvalidError: too many attributes.
    """
    with registry.database.write(actor) as transaction:
        row = find(transaction.connection, actor.account_id, name)
        check_version(row, expected_version)
        chosen = _properties(row["properties"], description, attributes, merge=merge)
        version = int(row["version"]) + 1
        here = (_G.account_id == actor.account_id) & (_G.name == name)
        transaction.execute(update(schema.thing_groups).where(here).values(properties=chosen, version=version))
        transaction.record("UpdateThingGroup", "thing-group", name, {"version": version})
        return version


def remove(registry: Registry, actor: Actor, name: str, *, expected_version: int | None = None) -> None:
    """Delete a group without groups below it; things leave it, policies are detached. If there is none nothing happens.

    A large group is emptied in several transactions, so that other writers come between; it goes with the last.

    Raises:
        VersionConflictError: another version than expected.
        InvalidError: there are groups below it.
    """
    while True:
        with registry.database.write(actor) as transaction:
            if _remove_some(transaction, name, expected_version):
                return


def _remove_some(transaction: Transaction, name: str, expected_version: int | None) -> bool:
    """Take some things out of a group, and remove it if no more are left; true if it is gone."""
    account_id = transaction.account_id
    here = (_G.account_id == account_id) & (_G.name == name)
    row = transaction.execute(select(schema.thing_groups).where(here)).mappings().first()
    if row is None:
        return True
    check_version(row, expected_version)
    children = select(_G.name).where(_G.account_id == account_id, _G.parent_name == name).limit(1)
    if transaction.execute(children).first() is not None:
        raise InvalidError("the thing group has groups below it: delete them first")
    its = (_M.account_id == account_id) & (_M.group_name == name)
    members = select(_M.thing_name).where(its).order_by(_M.thing_name).limit(_AT_ONCE + 1)
    things = transaction.execute(members).scalars().all()
    leaving = things[:_AT_ONCE]
    transaction.execute(delete(schema.thing_group_members).where(its, _M.thing_name.in_(leaving)))
    for thing in leaving:
        transaction.record("DeleteThingGroup", "thing", thing, {"group": name, "removed": True})
    if len(things) > _AT_ONCE:
        return False
    target = f"thinggroup/{name}"
    attached = (_A.account_id == account_id) & (_A.target == target)
    policies = sorted(transaction.execute(select(_A.policy_name).where(attached)).scalars())
    transaction.execute(delete(schema.policy_attachments).where(attached))
    transaction.execute(delete(schema.thing_groups).where(here))
    remove_tags(transaction, target)
    transaction.record("DeleteThingGroup", "thing-group", name, {"policies": policies})
    return True


def listed(
    registry: Registry,
    actor: Actor,
    *,
    parent: str | None = None,
    prefix: str | None = None,
    recursive: bool | None = None,
    token: str | None = None,
    size: int | None = None,
) -> Page[dict[str, Any]]:
    """A page of groups by name.

    Args:
        registry: where.
        actor: who.
        parent: only groups directly below this one; with ``recursive`` all below it.
        prefix: only groups whose names begin so.
        recursive: without ``parent``, False leaves the roots alone; None means all.
        token: of the page before.
        size: rows.

    Raises:
        NotFoundError: no such parent.
        InvalidError: a foreign token.
    """
    query = select(_G.name).where(_G.account_id == actor.account_id)
    scope = (actor.account_id, "thing groups", parent, prefix, recursive)
    with registry.database.read() as connection:
        if parent is not None:
            find(connection, actor.account_id, parent)
            if recursive:
                query = query.where(_G.name.in_(subtree(actor.account_id, parent)), _G.name != parent)
            else:
                query = query.where(_G.parent_name == parent)
        elif recursive is False:
            query = query.where(_G.parent_name.is_(None))
        if prefix is not None:
            query = query.where(starting_with(connection, _G.name, prefix))
        return registry.page(connection, query, (_G.name,), scope=scope, token=token, size=size)
