"""Things: devices as the registry knows them, by name, with a type and attributes.

Their certificates are in ``principals.py``, their groups in ``memberships.py``. The attributes stand in the thing's
row, and once more one a row for lists by attribute.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, delete, func, select, update

from keyassay.registry import thing_types
from keyassay.registry.attributes import TYPED, UNTYPED, combined
from keyassay.registry.errors import (
    AlreadyExistsError,
    InvalidError,
    LimitError,
    NotFoundError,
    VersionConflictError,
)
from keyassay.registry.registry import Page, Registry, starting_with
from keyassay.storage import schema
from keyassay.storage.database import Actor, Transaction

_T = schema.things.c
_A = schema.thing_attributes.c
_M = schema.thing_group_members.c
_LISTED = (_T.name, _T.type_name, _T.attributes, _T.version)


def find(connection: Connection, account_id: str, name: str) -> RowMapping:
    """The row of a thing.

    Raises:
        NotFoundError: there is none.
    """
    row = connection.execute(select(schema.things).where(_T.account_id == account_id, _T.name == name)).mappings()
    found = row.first()
    if found is None:
        raise NotFoundError("there is no such thing")
    return found


def check_version(row: RowMapping, expected: int | None) -> None:
    """Refuse a change of something that has changed since the caller looked.

    Raises:
        VersionConflictError: the row has another version than expected; None expects nothing.
    """
    if expected is not None and row["version"] != expected:
        raise VersionConflictError(f"the version is {row['version']}, not {expected}")


def _combined(
    type_name: str | None, present: Mapping[str, str], given: Mapping[str, str] | None, *, merge: bool = False
) -> dict[str, str]:
    """Attributes after an update, as many as a thing with or without a type may have."""
    if type_name is None:
        return combined(present, given, merge=merge, most=UNTYPED, whose="a thing without a type")
    return combined(present, given, merge=merge, most=TYPED, whose="a thing")


def create(
    registry: Registry,
    actor: Actor,
    name: str,
    *,
    type_name: str | None = None,
    attributes: Mapping[str, str] | None = None,
    billing_group: str | None = None,
) -> str:
    """Make a thing; again with the same configuration changes nothing.

    Args:
        registry: where.
        actor: who.
        name: of the thing.
        type_name: its type.
        attributes: three at most without a type; those with an empty value are left out.
        billing_group: kept and told, nothing else.

    Returns:
        The thing's id.

    Raises:
        AlreadyExistsError: there is one that is configured otherwise.
        NotFoundError: no such type.
        InvalidError: the type is deprecated, or too many attributes.
        LimitError: the account may hold no more things.
    """
    chosen = _combined(type_name, {}, attributes)
    with registry.database.write(actor) as transaction:
        query = select(schema.things).where(_T.account_id == actor.account_id, _T.name == name)
        row = transaction.execute(query).mappings().first()
        if row is not None:
            if (row["type_name"], row["attributes"], row["billing_group"]) != (type_name, chosen, billing_group):
                arn = registry.arn(actor.account_id, f"thing/{name}")
                raise AlreadyExistsError("there is a thing of that name, configured otherwise", name, arn)
            return str(row["id"])
        if type_name is not None:
            thing_types.check_usable(transaction, type_name)
        _check_room(registry, transaction)
        made = {
            "account_id": actor.account_id,
            "name": name,
            "id": str(uuid.uuid4()),
            "type_name": type_name,
            "attributes": chosen,
            "billing_group": billing_group,
            "version": 1,
            "created_at": transaction.now,
        }
        transaction.execute(schema.things.insert().values(made))
        _write_attributes(transaction, name, {}, chosen)
        transaction.record("CreateThing", "thing", name, {"type": type_name})
        return str(made["id"])


def _check_room(registry: Registry, transaction: Transaction) -> None:
    most = registry.limits.things
    if most < 10_000_000:  # counting millions would cost more than it protects
        mine = _T.account_id == transaction.account_id
        if transaction.execute(select(func.count()).select_from(schema.things).where(mine)).scalar_one() >= most:
            raise LimitError(f"an account holds at most {most} things")


def _write_attributes(transaction: Transaction, name: str, before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Bring the rows for lists by attribute up to date."""
    gone = [one for one in before if after.get(one) != before[one]]
    if gone:
        mine = (_A.account_id == transaction.account_id) & (_A.thing_name == name)
        transaction.execute(delete(schema.thing_attributes).where(mine, _A.name.in_(gone)))
    rows = [
        {"account_id": transaction.account_id, "thing_name": name, "name": one, "value": value}
        for one, value in after.items()
        if before.get(one) != value
    ]
    if rows:
        transaction.execute(schema.thing_attributes.insert(), rows)


def describe(registry: Registry, actor: Actor, name: str) -> RowMapping:
    """All columns of a thing.

    Raises:
        NotFoundError: there is none.
    """
    with registry.database.read() as connection:
        return find(connection, actor.account_id, name)


def change(
    registry: Registry,
    actor: Actor,
    name: str,
    *,
    type_name: str | None = None,
    remove_type: bool = False,
    attributes: Mapping[str, str] | None = None,
    merge: bool = False,
    expected_version: int | None = None,
) -> None:
    """Change what is given; the version rises by one.

    Args:
        registry: where.
        actor: who.
        name: of the thing.
        type_name: its new type.
        remove_type: leave it without a type.
        attributes: instead of all that it has, or merged with them; an empty value removes an attribute.
        merge: keep attributes that are not given.
        expected_version: refuse if the thing has another.

    Raises:
        NotFoundError: no such thing or type.
        VersionConflictError: another version than expected.
        InvalidError: a new type that is deprecated, a type given and removed, too many attributes.
    """
    if remove_type and type_name is not None:
        raise InvalidError("removeThingType contradicts thingTypeName")
    with registry.database.write(actor) as transaction:
        row = find(transaction.connection, actor.account_id, name)
        check_version(row, expected_version)
        if type_name is not None and type_name != row["type_name"]:
            thing_types.check_usable(transaction, type_name)
        its_type = None if remove_type else type_name or row["type_name"]
        chosen = _combined(its_type, row["attributes"], attributes, merge=merge)
        values = {"type_name": its_type, "attributes": chosen, "version": row["version"] + 1}
        here = (_T.account_id == actor.account_id) & (_T.name == name)
        transaction.execute(update(schema.things).where(here).values(values))
        _write_attributes(transaction, name, row["attributes"], chosen)
        transaction.record("UpdateThing", "thing", name, {"version": values["version"]})


def remove(registry: Registry, actor: Actor, name: str, *, expected_version: int | None = None) -> None:
    """Delete a thing to which no certificate is attached; it leaves its groups. If there is none nothing happens.

    Raises:
        VersionConflictError: another version than expected.
        InvalidError: certificates are attached.
    """
    account_id = actor.account_id
    principals = schema.thing_principals.c
    with registry.database.write(actor) as transaction:
        query = select(schema.things).where(_T.account_id == account_id, _T.name == name)
        row = transaction.execute(query).mappings().first()
        if row is None:
            return
        check_version(row, expected_version)
        attached = (principals.account_id == account_id) & (principals.thing_name == name)
        if transaction.execute(select(principals.certificate_id).where(attached).limit(1)).first() is not None:
            raise InvalidError("certificates are attached to the thing: detach them first")
        mine = (_M.account_id == account_id) & (_M.thing_name == name)
        left = sorted(transaction.execute(select(_M.group_name).where(mine)).scalars())
        transaction.execute(delete(schema.thing_group_members).where(mine))
        _write_attributes(transaction, name, row["attributes"], {})
        transaction.execute(delete(schema.things).where(_T.account_id == account_id, _T.name == name))
        transaction.record("DeleteThing", "thing", name, {"groups": left})


def listed(
    registry: Registry,
    actor: Actor,
    *,
    type_name: str | None = None,
    attribute: str | None = None,
    value: str | None = None,
    prefix: bool = False,
    token: str | None = None,
    size: int | None = None,
) -> Page[dict[str, Any]]:
    """A page of things by name; those with an attribute by its value and name.

    Args:
        registry: where.
        actor: who.
        type_name: only things of this type.
        attribute: only things that have this attribute,
        value: with this value,
        prefix: or with one that begins so.
        token: of the page before.
        size: rows.

    Raises:
        InvalidError: a value without an attribute, a foreign token.
    """
    if attribute is None and value is not None:
        raise InvalidError("attributeValue needs attributeName")
    exact = value is not None and not prefix
    scope = (actor.account_id, "things", type_name or "", attribute or "", value is not None, value or "", prefix)
    with registry.database.read() as connection:
        order: tuple[Any, ...] = (_T.name,)
        query: Select[Any] = select(*_LISTED).where(_T.account_id == actor.account_id)
        if type_name is not None:
            query = query.where(_T.type_name == type_name)
        if attribute is not None:
            its = (_A.account_id == _T.account_id) & (_A.thing_name == _T.name)
            query = query.add_columns(_A.value, _A.thing_name).join(schema.thing_attributes, its)
            query = query.where(_A.account_id == actor.account_id, _A.name == attribute)
            order = (_A.thing_name,) if exact else (_A.value, _A.thing_name)
            if exact:
                query = query.where(_A.value == value)
            elif value:
                query = query.where(starting_with(connection, _A.value, value))
        return registry.page(connection, query, order, scope=scope, token=token, size=size)
