"""Tags of resources: names and values that belong to an ARN and die with what it names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, delete, func, select

from keyassay.registry.errors import InvalidError, LimitError, NotFoundError
from keyassay.registry.registry import Page, Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor, Transaction

_T = schema.tags.c

#: kind of resource part -> the table and column that say whether it exists; device certificates take no tags
_TAGGABLE: dict[str, tuple[Any, Any]] = {
    "cacert": (schema.authorities, schema.authorities.c.id),
    "policy": (schema.policies, schema.policies.c.name),
    "thinggroup": (schema.thing_groups, schema.thing_groups.c.name),
    "thingtype": (schema.thing_types, schema.thing_types.c.name),
    "scheduledaudit": (schema.scheduled_audits, schema.scheduled_audits.c.name),
    "mitigationaction": (schema.mitigation_actions, schema.mitigation_actions.c.name),
}


def as_mapping(tags: Iterable[Mapping[str, Any]] | None) -> dict[str, str]:
    """The API's list of {"Key", "Value"} as a mapping; a missing value is the empty one.

    Raises:
        InvalidError: a key comes twice.
    """
    found: dict[str, str] = {}
    for tag in tags or ():
        if tag["Key"] in found:
            raise InvalidError(f"the tag {tag['Key']!r} comes twice")
        found[tag["Key"]] = tag.get("Value", "")
    return found


def set_tags(registry: Registry, transaction: Transaction, resource: str, tags: Mapping[str, str]) -> None:
    """Set tags of a resource of the account inside a transaction; the same names are overwritten.

    Raises:
        InvalidError: a name that begins with ``aws:``.
        LimitError: more than fit.
    """
    if not tags:
        return
    if any(name.lower().startswith("aws:") for name in tags):
        raise InvalidError("names of tags that begin with aws: are reserved")
    here = (_T.account_id == transaction.account_id) & (_T.resource == resource)
    most = registry.limits.tags_of_a_resource
    held = 0
    if len(tags) <= most:
        transaction.execute(delete(schema.tags).where(here, _T.name.in_(list(tags))))
        held = transaction.execute(select(func.count()).where(here)).scalar_one()
    if held + len(tags) > most:
        raise LimitError(f"a resource has at most {most} tags")
    rows = [
        {"account_id": transaction.account_id, "resource": resource, "name": name, "value": value}
        for name, value in tags.items()
    ]
    transaction.execute(schema.tags.insert(), rows)


def remove_tags(transaction: Transaction, resource: str) -> None:
    """Remove all tags of a resource that is going."""
    transaction.execute(delete(schema.tags).where(_T.account_id == transaction.account_id, _T.resource == resource))


def _existing(registry: Registry, connection: Connection, actor: Actor, arn: str) -> str:
    """The resource part of an ARN that exists and takes tags."""
    resource = registry.resource(actor, arn)
    kind, _, name = resource.partition("/")
    if kind not in _TAGGABLE:
        raise InvalidError("this kind of resource takes no tags")
    table, column = _TAGGABLE[kind]
    if connection.execute(select(column).where(table.c.account_id == actor.account_id, column == name)).first() is None:
        raise NotFoundError("there is no such resource")
    return resource


def tag(registry: Registry, actor: Actor, arn: str, tags: Mapping[str, str]) -> None:
    """Set tags of a resource.

    Raises:
        InvalidError, NotFoundError, LimitError: no ARN of ours, nothing there, too many.
    """
    with registry.database.write(actor) as transaction:
        resource = _existing(registry, transaction.connection, actor, arn)
        set_tags(registry, transaction, resource, tags)
        transaction.record("TagResource", "tag", resource, {"names": sorted(tags)})


def untag(registry: Registry, actor: Actor, arn: str, names: Iterable[str]) -> None:
    """Remove tags by name; absent ones are no error.

    Raises:
        InvalidError, NotFoundError: as ``tag``.
    """
    unwanted = set(names)
    with registry.database.write(actor) as transaction:
        resource = _existing(registry, transaction.connection, actor, arn)
        here = (_T.account_id == actor.account_id) & (_T.resource == resource)
        gone = sorted(unwanted.intersection(transaction.execute(select(_T.name).where(here)).scalars()))
        if gone:
            transaction.execute(delete(schema.tags).where(here, _T.name.in_(gone)))
            transaction.record("UntagResource", "tag", resource, {"names": gone})


def tags_of(registry: Registry, actor: Actor, arn: str, *, token: str | None = None) -> Page[dict[str, Any]]:
    """A page of a resource's tags, by name.

    Raises:
        InvalidError, NotFoundError: as ``tag``; or a foreign token.
    """
    with registry.database.read() as connection:
        resource = _existing(registry, connection, actor, arn)
        query = select(_T.name, _T.value).where(_T.account_id == actor.account_id, _T.resource == resource)
        scope = (actor.account_id, "tags", resource)
        return registry.page(connection, query, (_T.name,), scope=scope, token=token, size=None)
