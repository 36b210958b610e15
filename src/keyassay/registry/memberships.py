"""Which things are in which groups: at most ten groups for a thing, at most one of a hierarchy.

There are no dynamic groups (those that a query fills), so that an addition never displaces one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import delete, select

from keyassay.registry import thing_groups, things
from keyassay.registry.errors import InvalidError, NotFoundError
from keyassay.registry.registry import Page, Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor, Transaction, rows_in_chunks

_M = schema.thing_group_members.c
_G = schema.thing_groups.c
_T = schema.things.c


def add(
    registry: Registry, actor: Actor, thing_name: str, group_name: str, *, override_dynamic_groups: bool = False
) -> None:
    """Put a thing into a group; again is no error.

    Raises:
        NotFoundError, InvalidError: as ``add_to_groups``.
    """
    with registry.database.write(actor) as transaction:
        add_to_groups(
            registry, transaction, [thing_name], [group_name], override_dynamic_groups=override_dynamic_groups
        )


def add_to_groups(
    registry: Registry,
    transaction: Transaction,
    thing_names: Iterable[str],
    group_names: Iterable[str],
    *,
    override_dynamic_groups: bool = False,  # noqa: ARG001  there are none to displace
    operation: str = "AddThingToThingGroup",
) -> list[tuple[str, str]]:
    """Put all of some things into all of some groups, inside a transaction; who is in stays in.

    Args:
        registry: where.
        transaction: of the account.
        thing_names: the things.
        group_names: the groups.
        override_dynamic_groups: accepted for AWS's sake.
        operation: for the record of changes.

    Returns:
        (thing, group) for each membership that is new.

    Raises:
        NotFoundError: no such thing or group.
        InvalidError: a thing would be in two groups of a hierarchy, or in more groups than it may.
    """
    roots = _roots(transaction, group_names)
    most = registry.limits.groups_of_a_thing
    added: list[tuple[str, str]] = []
    for names in rows_in_chunks(sorted(set(thing_names))):
        held = _memberships(transaction, names)
        new: list[tuple[str, str]] = []
        for thing in names:
            for group, root in roots.items():
                mine = held[thing]
                if group in mine:
                    continue
                if root in mine.values():
                    raise InvalidError(f"the thing {thing} is in another group of the hierarchy of {group}")
                if len(mine) >= most:
                    raise InvalidError(f"the thing {thing} is in {most} groups, and may be in no more")
                mine[group] = root
                new.append((thing, group))
        if new:
            account = {"account_id": transaction.account_id, "added_at": transaction.now}
            rows = [{**account, "thing_name": thing, "group_name": group} for thing, group in new]
            transaction.execute(schema.thing_group_members.insert(), rows)
        for thing, group in new:
            transaction.record(operation, "thing", thing, {"group": group})
        added += new
    return added


def _roots(transaction: Transaction, group_names: Iterable[str]) -> dict[str, str]:
    """Name of each group -> name of its root, in the order given."""
    wanted = list(dict.fromkeys(group_names))
    found: dict[str, str] = {}
    for names in rows_in_chunks(wanted):
        query = select(_G.name, _G.root_name).where(_G.account_id == transaction.account_id, _G.name.in_(names))
        found |= {row.name: row.root_name for row in transaction.execute(query)}
        for name in names:
            if name not in found:
                raise NotFoundError(f"there is no thing group {name}")
    return {name: found[name] for name in wanted}


def _memberships(transaction: Transaction, thing_names: Sequence[str]) -> dict[str, dict[str, str]]:
    """For each thing: name of each of its groups -> name of that group's root."""
    account_id = transaction.account_id
    query = select(_T.name).where(_T.account_id == account_id, _T.name.in_(thing_names))
    found: dict[str, dict[str, str]] = {name: {} for name in transaction.execute(query).scalars()}
    for name in thing_names:
        if name not in found:
            raise NotFoundError(f"there is no thing {name}")
    joined = (_G.account_id == _M.account_id) & (_G.name == _M.group_name)
    held = select(_M.thing_name, _G.name, _G.root_name).join(schema.thing_groups, joined)
    for row in transaction.execute(held.where(_M.account_id == account_id, _M.thing_name.in_(thing_names))):
        found[row.thing_name][row.name] = row.root_name
    return found


def remove(registry: Registry, actor: Actor, thing_name: str, group_name: str) -> None:
    """Take a thing out of a group; if it is not in it nothing happens.

    Raises:
        NotFoundError: no such thing or group.
    """
    with registry.database.write(actor) as transaction:
        things.find(transaction.connection, actor.account_id, thing_name)
        thing_groups.find(transaction.connection, actor.account_id, group_name)
        _remove(transaction, "RemoveThingFromThingGroup", thing_name, group_name)


def _remove(transaction: Transaction, operation: str, thing_name: str, group_name: str) -> None:
    here = (_M.account_id == transaction.account_id) & (_M.group_name == group_name) & (_M.thing_name == thing_name)
    if transaction.execute(delete(schema.thing_group_members).where(here)).rowcount:
        transaction.record(operation, "thing", thing_name, {"group": group_name, "removed": True})


def update(
    registry: Registry,
    actor: Actor,
    thing_name: str,
    *,
    to_add: Sequence[str] = (),
    to_remove: Sequence[str] = (),
    override_dynamic_groups: bool = False,
) -> None:
    """Take a thing out of some groups, then put it into others: all of it, or nothing.

    Raises:
        NotFoundError, InvalidError: as ``add_to_groups``.
    """
    operation = "UpdateThingGroupsForThing"
    with registry.database.write(actor) as transaction:
        things.find(transaction.connection, actor.account_id, thing_name)
        for name in _roots(transaction, to_remove):
            _remove(transaction, operation, thing_name, name)
        add_to_groups(
            registry,
            transaction,
            [thing_name],
            to_add,
            override_dynamic_groups=override_dynamic_groups,
            operation=operation,
        )


def things_in(
    registry: Registry,
    actor: Actor,
    group_name: str,
    *,
    recursive: bool = False,
    token: str | None = None,
    size: int | None = None,
) -> Page[dict[str, Any]]:
    """A page of the things in a group by name; ``recursive`` adds those in the groups below it, group by group.

    Since a thing is in at most one group of a hierarchy, none comes twice.

    Raises:
        NotFoundError: no such group.
        InvalidError: a foreign token.
    """
    account_id = actor.account_id
    query = select(_M.group_name, _M.thing_name).where(_M.account_id == account_id)
    scope = (account_id, "things in", group_name, recursive)
    with registry.database.read() as connection:
        thing_groups.find(connection, account_id, group_name)
        if recursive:
            query = query.where(_M.group_name.in_(thing_groups.subtree(account_id, group_name)))
        else:
            query = query.where(_M.group_name == group_name)
        return registry.page(connection, query, (_M.group_name, _M.thing_name), scope=scope, token=token, size=size)


def groups_of(
    registry: Registry, actor: Actor, thing_name: str, *, token: str | None = None, size: int | None = None
) -> Page[dict[str, Any]]:
    """A page of the groups in which a thing is itself, in the order of its coming.

    Raises:
        NotFoundError: no such thing.
        InvalidError: a foreign token.
    """
    query = select(_M.added_at, _M.group_name)
    query = query.where(_M.account_id == actor.account_id, _M.thing_name == thing_name)
    scope = (actor.account_id, "groups of", thing_name)
    with registry.database.read() as connection:
        things.find(connection, actor.account_id, thing_name)
        return registry.page(connection, query, (_M.added_at, _M.group_name), scope=scope, token=token, size=size)
