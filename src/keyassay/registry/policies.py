"""Policies: documents in up to five versions, attached to certificates and thing groups.

A document has to be JSON of a policy's form and no longer than AWS permits; what it permits is evaluated elsewhere.
Attachments stand under the resource part of the target's ARN ("cert/ID", "thinggroup/NAME").
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, select, update

from keyassay.registry.certificates import check_id
from keyassay.registry.errors import (
    AlreadyExistsError,
    DeleteConflictError,
    InvalidError,
    LimitError,
    MalformedPolicyError,
    NotFoundError,
    VersionsLimitError,
)
from keyassay.registry.lifecycle import Status
from keyassay.registry.registry import Page, Registry
from keyassay.registry.tags import remove_tags, set_tags
from keyassay.storage import schema
from keyassay.storage.database import Actor, Transaction

_P = schema.policies.c
_V = schema.policy_versions.c
_A = schema.policy_attachments.c

#: characters of a document, white space not counted
LARGEST_DOCUMENT = 2_048
_VERSION = re.compile(r"[0-9]{1,9}")
_STATEMENT_MEMBERS = frozenset(
    {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition", "Principal"}
)


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """A version of a policy.

    Attributes:
        name: of the policy.
        version: its number.
        document: as it was given.
        is_default: whether it is the one in force.
        created_at, policy_created_at, policy_modified_at: milliseconds since 1970.
        generation_id: of the policy.
    """

    name: str
    version: int
    document: str
    is_default: bool
    created_at: int
    policy_created_at: int
    policy_modified_at: int
    generation_id: str


def check_document(document: str) -> None:
    """Refuse what is no policy.

    Raises:
        MalformedPolicyError: no JSON object, no statements, an effect that is neither Allow nor Deny, no action or
            resource, or too long.
    """
    if len(re.sub(r"\s", "", document)) > LARGEST_DOCUMENT:
        raise MalformedPolicyError(f"a policy has at most {LARGEST_DOCUMENT} characters, white space not counted")
    try:
        parsed = json.loads(document)
    except (ValueError, RecursionError):
        raise MalformedPolicyError("the policy document is no JSON") from None
    if not isinstance(parsed, dict) or "Statement" not in parsed:
        raise MalformedPolicyError("a policy document is an object with Version and Statement")
    if parsed.get("Version", "2012-10-17") not in ("2012-10-17", "2008-10-17"):
        raise MalformedPolicyError("the Version of a policy document is 2012-10-17")
    statements = parsed["Statement"]
    for statement in statements if isinstance(statements, list) else [statements]:
        _check_statement(statement)


def _check_statement(statement: Any) -> None:
    if not isinstance(statement, dict):
        raise MalformedPolicyError("a statement of a policy is an object")
    unknown = set(statement) - _STATEMENT_MEMBERS
    if unknown:
        raise MalformedPolicyError(f"a statement of a policy has no member {min(unknown)[:40]!r}")
    if statement.get("Effect") not in ("Allow", "Deny"):
        raise MalformedPolicyError("the Effect of a statement is Allow or Deny")
    for names in (("Action", "NotAction"), ("Resource", "NotResource")):
        given = [name for name in names if name in statement]
        if len(given) != 1:
            raise MalformedPolicyError(f"a statement has one of {names[0]} and {names[1]}")
        values = statement[given[0]]
        if not (isinstance(values, str) or (isinstance(values, list) and all(isinstance(one, str) for one in values))):
            raise MalformedPolicyError(f"{given[0]} of a statement is a text or a list of texts")
    if not isinstance(statement.get("Condition", {}), dict):
        raise MalformedPolicyError("the Condition of a statement is an object")


def _number(version_id: str) -> int:
    if not _VERSION.fullmatch(version_id):
        raise InvalidError("a policy version id is a number")
    return int(version_id)


def create(
    registry: Registry, actor: Actor, name: str, document: str, tags: Mapping[str, str] | None = None
) -> PolicyVersion:
    """Make a policy; the document becomes version 1, the default.

    Raises:
        MalformedPolicyError: see ``check_document``.
        AlreadyExistsError: the name is taken.
    """
    check_document(document)
    with registry.database.write(actor) as transaction:
        here = (_P.account_id == actor.account_id) & (_P.name == name)
        if transaction.execute(select(_P.name).where(here)).first() is not None:
            arn = registry.arn(actor.account_id, f"policy/{name}")
            raise AlreadyExistsError("there is a policy of that name", name, arn)
        now, generation = transaction.now, str(uuid.uuid4())
        row = {
            "account_id": actor.account_id,
            "name": name,
            "default_version": 1,
            "last_version": 1,
            "generation_id": generation,
            "created_at": now,
            "modified_at": now,
        }
        transaction.execute(schema.policies.insert().values(row))
        _add_version(transaction, name, 1, document)
        set_tags(registry, transaction, f"policy/{name}", tags or {})
        transaction.record("CreatePolicy", "policy", name)
    return PolicyVersion(name, 1, document, True, now, now, now, generation)


def _add_version(transaction: Transaction, name: str, version: int, document: str) -> None:
    row = {
        "account_id": transaction.account_id,
        "policy_name": name,
        "version": version,
        "document": document,
        "created_at": transaction.now,
    }
    transaction.execute(schema.policy_versions.insert().values(row))


def find(connection: Connection, account_id: str, name: str) -> RowMapping:
    """The row of a policy.

    Raises:
        NotFoundError: there is none.
    """
    query = select(schema.policies).where(_P.account_id == account_id, _P.name == name)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError("there is no such policy")
    return row


def version(registry: Registry, actor: Actor, name: str, version_id: str | None = None) -> PolicyVersion:
    """A version of a policy, the default one if none is named.

    Raises:
        NotFoundError, InvalidError: no such policy or version; no number.
    """
    with registry.database.read() as connection:
        return _version(connection, find(connection, actor.account_id, name), version_id)


def _version(connection: Connection, policy: RowMapping, version_id: str | None) -> PolicyVersion:
    number = policy["default_version"] if version_id is None else _number(version_id)
    query = select(schema.policy_versions).where(
        _V.account_id == policy["account_id"], _V.policy_name == policy["name"], _V.version == number
    )
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError("there is no such version of the policy")
    return PolicyVersion(
        policy["name"],
        number,
        row["document"],
        number == policy["default_version"],
        row["created_at"],
        policy["created_at"],
        policy["modified_at"],
        policy["generation_id"],
    )


def versions(registry: Registry, actor: Actor, name: str) -> list[PolicyVersion]:
    """All versions of a policy (five at most), newest first.

    Raises:
        NotFoundError: no such policy.
    """
    with registry.database.read() as connection:
        policy = find(connection, actor.account_id, name)
        query = select(_V.version).where(_V.account_id == actor.account_id, _V.policy_name == name)
        numbers = connection.execute(query.order_by(_V.version.desc())).scalars().all()
        return [_version(connection, policy, str(number)) for number in numbers]


def create_version(
    registry: Registry, actor: Actor, name: str, document: str, *, set_as_default: bool = False
) -> PolicyVersion:
    """Add a version to a policy; numbers are never given again.

    Raises:
        MalformedPolicyError, NotFoundError: see ``create``.
        VersionsLimitError: there are five already.
    """
    check_document(document)
    with registry.database.write(actor) as transaction:
        return add_version(registry, transaction, "CreatePolicyVersion", name, document, set_as_default=set_as_default)


def add_version(
    registry: Registry,
    transaction: Transaction,
    operation: str,
    name: str,
    document: str,
    *,
    set_as_default: bool,
) -> PolicyVersion:
    """The same inside a transaction.

    Raises:
        NotFoundError, VersionsLimitError: as above.
    """
    policy = find(transaction.connection, transaction.account_id, name)
    mine = (_V.account_id == transaction.account_id) & (_V.policy_name == name)
    held = transaction.execute(select(func.count()).where(mine)).scalar_one()
    if held >= registry.limits.policy_versions:
        raise VersionsLimitError(f"a policy has at most {registry.limits.policy_versions} versions: delete one first")
    number = policy["last_version"] + 1
    _add_version(transaction, name, number, document)
    changes = {"last_version": number, "modified_at": transaction.now}
    if set_as_default:
        changes["default_version"] = number
    _change(transaction, name, changes)
    transaction.record(operation, "policy", name, {"version": number, "default": set_as_default})
    return _version(transaction.connection, find(transaction.connection, transaction.account_id, name), str(number))


def _change(transaction: Transaction, name: str, changes: Mapping[str, Any]) -> None:
    here = (_P.account_id == transaction.account_id) & (_P.name == name)
    transaction.execute(update(schema.policies).where(here).values(changes))


def set_default_version(registry: Registry, actor: Actor, name: str, version_id: str) -> None:
    """Put a version in force.

    Raises:
        NotFoundError, InvalidError: no such policy or version; no number.
    """
    with registry.database.write(actor) as transaction:
        policy = find(transaction.connection, actor.account_id, name)
        wanted = _version(transaction.connection, policy, version_id)
        if not wanted.is_default:
            _change(transaction, name, {"default_version": wanted.version, "modified_at": transaction.now})
            details = {"version": [policy["default_version"], wanted.version]}
            transaction.record("SetDefaultPolicyVersion", "policy", name, details)


def remove_version(registry: Registry, actor: Actor, name: str, version_id: str) -> None:
    """Delete a version that is not in force.

    Raises:
        InvalidError: it is the default version; or no number.
        NotFoundError: no such policy or version.
    """
    with registry.database.write(actor) as transaction:
        policy = find(transaction.connection, actor.account_id, name)
        unwanted = _version(transaction.connection, policy, version_id)
        if unwanted.is_default:
            raise InvalidError("the default version of a policy cannot be deleted: set another one first")
        here = (_V.account_id == actor.account_id) & (_V.policy_name == name) & (_V.version == unwanted.version)
        transaction.execute(delete(schema.policy_versions).where(here))
        transaction.record("DeletePolicyVersion", "policy", name, {"version": unwanted.version})


def remove(registry: Registry, actor: Actor, name: str) -> None:
    """Delete a policy that has one version and is attached to nothing.

    Raises:
        DeleteConflictError: it has further versions, or is attached.
        NotFoundError: no such policy.
    """
    with registry.database.write(actor) as transaction:
        find(transaction.connection, actor.account_id, name)
        mine = (_V.account_id == actor.account_id) & (_V.policy_name == name)
        if transaction.execute(select(func.count()).where(mine)).scalar_one() > 1:
            raise DeleteConflictError("the policy has further versions: delete them first")
        attached = (_A.account_id == actor.account_id) & (_A.policy_name == name)
        if transaction.execute(select(_A.target).where(attached).limit(1)).first() is not None:
            raise DeleteConflictError("the policy is attached: detach it first")
        transaction.execute(delete(schema.policy_versions).where(mine))
        transaction.execute(delete(schema.policies).where(_P.account_id == actor.account_id, _P.name == name))
        remove_tags(transaction, f"policy/{name}")
        transaction.record("DeletePolicy", "policy", name)


def listed(
    registry: Registry, actor: Actor, *, token: str | None = None, size: int | None = None, ascending: bool = False
) -> Page[dict[str, Any]]:
    """A page of policies by creation date."""
    query = select(_P.name, _P.created_at).where(_P.account_id == actor.account_id)
    with registry.database.read() as connection:
        return registry.page(
            connection,
            query,
            (_P.created_at, _P.name),
            scope=(actor.account_id, "policies"),
            token=token,
            size=size,
            ascending=ascending,
        )


# Attachments


def target_of(registry: Registry, connection: Connection, actor: Actor, arn: str) -> str:
    """The resource part of a target's ARN: a certificate or a thing group of the account that exists.

    Raises:
        InvalidError: it is the ARN of something else.
        NotFoundError: there is no such target.
    """
    resource = registry.resource(actor, arn)
    kind, _, name = resource.partition("/")
    if kind == "cert":
        columns = schema.certificates.c
        query = select(columns.id).where(columns.account_id == actor.account_id, columns.id == check_id(name))
    elif kind == "thinggroup":
        groups = schema.thing_groups.c
        query = select(groups.name).where(groups.account_id == actor.account_id, groups.name == name)
    else:
        raise InvalidError("policies are attached to certificates and thing groups")
    if connection.execute(query).first() is None:
        raise NotFoundError("there is no such target")
    return resource


def attach(registry: Registry, actor: Actor, name: str, arn: str) -> None:
    """Attach a policy to a certificate or a thing group; again is no error.

    Raises:
        NotFoundError, InvalidError: no such policy or target, or a certificate that is being transferred.
        LimitError: the target has as many as it may.
    """
    with registry.database.write(actor) as transaction:
        find(transaction.connection, actor.account_id, name)
        target = target_of(registry, transaction.connection, actor, arn)
        _check_stays(transaction, target)
        mine = (_A.account_id == actor.account_id) & (_A.target == target)
        present = set(transaction.execute(select(_A.policy_name).where(mine)).scalars())
        if name in present:
            return
        limits = registry.limits
        most = limits.policies_of_a_certificate if target.startswith("cert/") else limits.policies_of_a_group
        if len(present) >= most:
            raise LimitError(f"the target has at most {most} policies")
        row = {"account_id": actor.account_id, "target": target, "policy_name": name, "attached_at": transaction.now}
        transaction.execute(schema.policy_attachments.insert().values(row))
        transaction.record("AttachPolicy", "policy", name, {"target": target})


def _check_stays(transaction: Transaction, target: str) -> None:
    """Refuse to attach to a certificate that is leaving: what is attached would stay behind."""
    columns = schema.certificates.c
    here = (columns.account_id == transaction.account_id) & (columns.id == target.removeprefix("cert/"))
    leaving = select(columns.id).where(here, columns.status == Status.PENDING_TRANSFER.value)
    if transaction.execute(leaving).first() is not None:
        raise InvalidError("the certificate is being transferred to another account")


def detach(registry: Registry, actor: Actor, name: str, arn: str) -> None:
    """Detach a policy; if it is not attached nothing happens.

    Raises:
        NotFoundError, InvalidError: no such policy; no ARN of a target.
    """
    with registry.database.write(actor) as transaction:
        find(transaction.connection, actor.account_id, name)
        target = registry.resource(actor, arn)
        here = (_A.account_id == actor.account_id) & (_A.target == target) & (_A.policy_name == name)
        if transaction.execute(delete(schema.policy_attachments).where(here)).rowcount:
            transaction.record("DetachPolicy", "policy", name, {"target": target})


def group_and_ancestors(connection: Connection, account_id: str, groups: Iterable[str]) -> list[str]:
    """Names of groups with all groups above them (seven levels at most)."""
    columns = schema.thing_groups.c
    found: dict[str, None] = {}
    level = sorted(set(groups))
    while level:
        found.update(dict.fromkeys(level))
        query = select(columns.parent_name).where(columns.account_id == account_id, columns.name.in_(level))
        above = {name for name in connection.execute(query).scalars() if name is not None}
        level = sorted(above - set(found))
    return list(found)


def attached(
    registry: Registry,
    actor: Actor,
    arn: str,
    *,
    recursive: bool = False,
    token: str | None = None,
    size: int | None = None,
    ascending: bool = True,
) -> Page[dict[str, Any]]:
    """A page of the policies of a target, by name; ``recursive`` adds those of the groups above a group.

    Raises:
        NotFoundError, InvalidError: no such target.
    """
    with registry.database.read() as connection:
        target = target_of(registry, connection, actor, arn)
        targets = [target]
        if recursive and target.startswith("thinggroup/"):
            names = group_and_ancestors(connection, actor.account_id, [target.removeprefix("thinggroup/")])
            targets = [f"thinggroup/{name}" for name in names]
        mine = (_A.account_id == actor.account_id) & _A.target.in_(targets)
        query = select(_A.policy_name).where(mine).distinct()
        scope = (actor.account_id, "attached", target, recursive)
        return registry.page(
            connection, query, (_A.policy_name,), scope=scope, token=token, size=size, ascending=ascending
        )


def targets(
    registry: Registry,
    actor: Actor,
    name: str,
    *,
    certificates_only: bool = False,
    token: str | None = None,
    size: int | None = None,
    ascending: bool = True,
) -> Page[dict[str, Any]]:
    """A page of what a policy is attached to, as resource parts.

    Raises:
        NotFoundError: no such policy.
    """
    with registry.database.read() as connection:
        find(connection, actor.account_id, name)
        mine = (_A.account_id == actor.account_id) & (_A.policy_name == name)
        if certificates_only:
            mine &= _A.target.like("cert/%")
        scope = (actor.account_id, "targets", name, certificates_only)
        return registry.page(
            connection,
            select(_A.target).where(mine),
            (_A.target,),
            scope=scope,
            token=token,
            size=size,
            ascending=ascending,
        )


def effective(
    registry: Registry, actor: Actor, *, principal_arn: str | None = None, thing_name: str | None = None
) -> list[PolicyVersion]:
    """The default versions of all policies that hold for a certificate and a thing, by name.

    They are the certificate's own, and those of the thing's groups and the groups above them, each once.

    Raises:
        InvalidError: neither is named, or no ARN of a certificate.
        NotFoundError: there is no such certificate or thing.
    """
    if principal_arn is None and thing_name is None:
        raise InvalidError("a principal or a thing has to be named")
    account_id = actor.account_id
    with registry.database.read() as connection:
        found = []
        if principal_arn is not None:
            registry.resource(actor, principal_arn, "cert")
            found.append(target_of(registry, connection, actor, principal_arn))
        if thing_name is not None:
            things, members = schema.things.c, schema.thing_group_members.c
            here = (things.account_id == account_id) & (things.name == thing_name)
            if connection.execute(select(things.name).where(here)).first() is None:
                raise NotFoundError("there is no such thing")
            its = (members.account_id == account_id) & (members.thing_name == thing_name)
            groups = connection.execute(select(members.group_name).where(its)).scalars().all()
            found += [f"thinggroup/{name}" for name in group_and_ancestors(connection, account_id, groups)]
        mine = (_A.account_id == account_id) & _A.target.in_(found)
        names = connection.execute(select(_A.policy_name).where(mine).distinct().order_by(_A.policy_name)).scalars()
        return [_version(connection, find(connection, account_id, name), None) for name in names.all()]
