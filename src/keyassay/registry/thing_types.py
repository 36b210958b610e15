"""Thing types: a description and attributes that things of a kind share; deprecated first, deleted when unused."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, select, update

from keyassay.registry.errors import AlreadyExistsError, InvalidError, NotFoundError
from keyassay.registry.registry import Page, Registry, starting_with
from keyassay.registry.tags import remove_tags, set_tags
from keyassay.storage import schema
from keyassay.storage.database import Actor, Transaction

_T = schema.thing_types.c

#: attributes of a type that may be declared searchable
MOST_SEARCHABLE = 3


def find(connection: Connection, account_id: str, name: str) -> RowMapping:
    """The row of a thing type.

    Raises:
        NotFoundError: there is none.
    """
    query = select(schema.thing_types).where(_T.account_id == account_id, _T.name == name)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError("there is no such thing type")
    return row


def check_usable(transaction: Transaction, name: str) -> None:
    """Refuse a type that things cannot get.

    Raises:
        NotFoundError: there is no such type.
        InvalidError: it is deprecated.
    """
    if find(transaction.connection, transaction.account_id, name)["deprecated_at"] is not None:
        raise InvalidError("the thing type is deprecated: no thing can get it")


def _checked(properties: Mapping[str, Any] | None) -> dict[str, Any]:
    found = dict(properties or {})
    searchable = found.get("searchableAttributes", ())
    if len(searchable) > MOST_SEARCHABLE:
        raise InvalidError(f"a thing type has at most {MOST_SEARCHABLE} searchable attributes")
    if len(set(searchable)) < len(searchable):
        raise InvalidError("a searchable attribute comes twice")
    return found


def create(
    registry: Registry,
    actor: Actor,
    name: str,
    properties: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Make a thing type; again with the same properties changes nothing.

    Args:
        registry: where.
        actor: who.
        name: of the type.
        properties: description, searchable attributes and MQTT 5 configuration, as the API has them.
        tags: of a new type.

    Returns:
        The type's id.

    Raises:
        AlreadyExistsError: there is one with other properties.
        InvalidError: too many searchable attributes.
    """
    chosen = _checked(properties)
    with registry.database.write(actor) as transaction:
        here = (_T.account_id == actor.account_id) & (_T.name == name)
        row = transaction.execute(select(schema.thing_types).where(here)).mappings().first()
        if row is not None:
            if row["properties"] != chosen:
                arn = registry.arn(actor.account_id, f"thingtype/{name}")
                raise AlreadyExistsError("there is a thing type of that name with other properties", name, arn)
            return str(row["id"])
        made = {
            "account_id": actor.account_id,
            "name": name,
            "id": str(uuid.uuid4()),
            "properties": chosen,
            "created_at": transaction.now,
        }
        transaction.execute(schema.thing_types.insert().values(made))
        set_tags(registry, transaction, f"thingtype/{name}", tags or {})
        transaction.record("CreateThingType", "thing-type", name)
        return str(made["id"])


def describe(registry: Registry, actor: Actor, name: str) -> RowMapping:
    """All columns of a thing type.

    Raises:
        NotFoundError: there is none.
    """
    with registry.database.read() as connection:
        return find(connection, actor.account_id, name)


def change(registry: Registry, actor: Actor, name: str, properties: Mapping[str, Any] | None) -> None:
    """Replace the properties that are given, and keep the others.

    Raises:
        NotFoundError, InvalidError: no such type; too many searchable attributes.
    """
    with registry.database.write(actor) as transaction:
        row = find(transaction.connection, actor.account_id, name)
        wanted = _checked({**row["properties"], **(properties or {})})
        if wanted != row["properties"]:
            _write(transaction, name, {"properties": wanted})
            transaction.record("UpdateThingType", "thing-type", name, {"properties": sorted(properties or ())})


def _write(transaction: Transaction, name: str, values: Mapping[str, Any]) -> None:
    here = (_T.account_id == transaction.account_id) & (_T.name == name)
    transaction.execute(update(schema.thing_types).where(here).values(dict(values)))


def deprecate(registry: Registry, actor: Actor, name: str, *, undo: bool = False) -> None:
    """Let no further thing get the type, or let them again; nothing happens if that is so already.

    Raises:
        NotFoundError: there is no such type.
    """
    with registry.database.write(actor) as transaction:
        row = find(transaction.connection, actor.account_id, name)
        if (row["deprecated_at"] is None) != undo:
            _write(transaction, name, {"deprecated_at": None if undo else transaction.now})
            transaction.record("DeprecateThingType", "thing-type", name, {"undo": undo})


def remove(registry: Registry, actor: Actor, name: str) -> None:
    """Delete a type that is deprecated and that no thing has.

    Raises:
        InvalidError: it is not deprecated, or in use.
        NotFoundError: there is no such type.
    """
    things = schema.things.c
    with registry.database.write(actor) as transaction:
        row = find(transaction.connection, actor.account_id, name)
        if row["deprecated_at"] is None:
            raise InvalidError("only a deprecated thing type can be deleted: deprecate it first")
        using = select(things.name).where(things.account_id == actor.account_id, things.type_name == name).limit(1)
        if transaction.execute(using).first() is not None:
            raise InvalidError("things have the thing type: change them first")
        transaction.execute(delete(schema.thing_types).where(_T.account_id == actor.account_id, _T.name == name))
        remove_tags(transaction, f"thingtype/{name}")
        transaction.record("DeleteThingType", "thing-type", name)


def listed(
    registry: Registry, actor: Actor, *, prefix: str | None = None, token: str | None = None, size: int | None = None
) -> Page[dict[str, Any]]:
    """A page of thing types by name, or of those whose names begin with ``prefix``."""
    query = select(schema.thing_types).where(_T.account_id == actor.account_id)
    with registry.database.read() as connection:
        if prefix is not None:
            query = query.where(starting_with(connection, _T.name, prefix))
        scope = (actor.account_id, "thing types", prefix or "")
        return registry.page(connection, query, (_T.name,), scope=scope, token=token, size=size)
