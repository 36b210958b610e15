"""Suppressions: resources whose findings of a check are known and accepted, for a time or for good.

A suppressed finding is still made, marked and counted apart, and does not make its check noncompliant. What holds is
decided when an audit finds something: a later suppression, or the end of one, changes later audits only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from keyassay.audit.checks import audit_check, resource_key
from keyassay.registry.errors import AlreadyExistsError, InvalidError, NotFoundError
from keyassay.registry.registry import Page, Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor

_S = schema.audit_suppressions.c

#: stands for "never expires" where suppressions are put in order
_NEVER = 1 << 62


def _key(check_name: str, identifier: Mapping[str, Any]) -> str:
    """The key of a resource that findings of the check are about.

    Raises:
        InvalidError: no such check, or its findings are about another kind of resource.
    """
    check = audit_check(check_name)
    key = resource_key(identifier)
    if not key.startswith(f"{check.identifier}="):
        raise InvalidError(f"findings of {check_name} are about a resource named by {check.identifier}")
    return key


def _here(account_id: str, check_name: str, key: str) -> ColumnElement[bool]:
    return (_S.account_id == account_id) & (_S.check_name == check_name) & (_S.resource_key == key)


def _find(connection: Connection, account_id: str, check_name: str, key: str) -> RowMapping | None:
    query = select(schema.audit_suppressions).where(_here(account_id, check_name, key))
    return connection.execute(query).mappings().first()


def _check_end(expires_at: int | None, now: int, *, indefinitely: bool) -> None:
    if indefinitely == (expires_at is not None):
        raise InvalidError("a suppression has either an expirationDate or suppressIndefinitely")
    if expires_at is not None and expires_at <= now:
        raise InvalidError("the expirationDate of a suppression lies in the future")


def create(
    registry: Registry,
    actor: Actor,
    check_name: str,
    identifier: Mapping[str, Any],
    token: str,
    *,
    expires_at: int | None = None,
    indefinitely: bool = False,
    description: str | None = None,
) -> None:
    """Suppress findings of a check about a resource, which need not exist.

    Args:
        registry: where.
        actor: who, and in which account.
        check_name: of the check.
        identifier: AWS's ResourceIdentifier.
        token: of the request; one that was used does not make another suppression.
        expires_at: the end, milliseconds since 1970.
        indefinitely: there is none.
        description: for people.

    Raises:
        InvalidError: no such check, an identifier of another kind of resource, not exactly one of a future end and
            ``indefinitely``, or a used token.
        AlreadyExistsError: there is one for that check and resource.
    """
    key = _key(check_name, identifier)
    with registry.database.write(actor) as transaction:
        _check_end(expires_at, transaction.now, indefinitely=indefinitely)
        if _find(transaction.connection, actor.account_id, check_name, key) is not None:
            raise AlreadyExistsError("there is a suppression for this check and resource")
        used = select(_S.token).where(_S.account_id == actor.account_id, _S.token == token)
        if transaction.execute(used.limit(1)).first() is not None:
            raise InvalidError("the clientRequestToken was used for another suppression")
        row = {
            "account_id": actor.account_id,
            "check_name": check_name,
            "resource_key": key,
            "resource": dict(identifier),
            "expires_at": expires_at,
            "description": description,
            "token": token,
            "created_at": transaction.now,
        }
        transaction.execute(schema.audit_suppressions.insert().values(row))
        details = {"check": check_name, "expires": expires_at}
        transaction.record("CreateAuditSuppression", "audit-suppression", key, details)


def describe(registry: Registry, actor: Actor, check_name: str, identifier: Mapping[str, Any]) -> RowMapping:
    """A suppression, expired ones too.

    Raises:
        InvalidError, NotFoundError: as ``create``; there is none.
    """
    key = _key(check_name, identifier)
    with registry.database.read() as connection:
        return _existing(connection, actor.account_id, check_name, key)


def _existing(connection: Connection, account_id: str, check_name: str, key: str) -> RowMapping:
    row = _find(connection, account_id, check_name, key)
    if row is None:
        raise NotFoundError("there is no suppression for this check and resource")
    return row


def change(
    registry: Registry,
    actor: Actor,
    check_name: str,
    identifier: Mapping[str, Any],
    *,
    expires_at: int | None = None,
    indefinitely: bool | None = None,
    description: str | None = None,
) -> None:
    """Change a suppression; what is not given stays.

    An end that is given replaces ``indefinitely``, and the other way round.

    Raises:
        InvalidError: as ``create``.
        NotFoundError: there is none.
    """
    key = _key(check_name, identifier)
    with registry.database.write(actor) as transaction:
        row = _existing(transaction.connection, actor.account_id, check_name, key)
        changes: dict[str, Any] = {}
        if expires_at is not None or indefinitely:
            _check_end(expires_at, transaction.now, indefinitely=bool(indefinitely))
            changes["expires_at"] = expires_at
        elif indefinitely is False and row["expires_at"] is None:
            raise InvalidError("a suppression has either an expirationDate or suppressIndefinitely")
        if description is not None:
            changes["description"] = description
        changes = {name: value for name, value in changes.items() if value != row[name]}
        if not changes:
            return
        here = _here(actor.account_id, check_name, key)
        transaction.execute(update(schema.audit_suppressions).where(here).values(changes))
        details = {"check": check_name}
        if "expires_at" in changes:
            details["expires"] = changes["expires_at"]
        transaction.record("UpdateAuditSuppression", "audit-suppression", key, details)


def remove(registry: Registry, actor: Actor, check_name: str, identifier: Mapping[str, Any]) -> None:
    """Delete a suppression; if there is none nothing happens.

    Raises:
        InvalidError: as ``create``.
    """
    key = _key(check_name, identifier)
    with registry.database.write(actor) as transaction:
        here = _here(actor.account_id, check_name, key)
        if transaction.execute(delete(schema.audit_suppressions).where(here)).rowcount:
            details = {"check": check_name}
            transaction.record("DeleteAuditSuppression", "audit-suppression", key, details)


def listed(
    registry: Registry,
    actor: Actor,
    *,
    check_name: str | None = None,
    identifier: Mapping[str, Any] | None = None,
    token: str | None = None,
    size: int | None = None,
    ascending: bool = True,
) -> Page[dict[str, Any]]:
    """A page of suppressions by their end, those without one last (first if not ``ascending``).

    Raises:
        InvalidError: no such check, no identifier, or a foreign token.
    """
    ends_at = func.coalesce(_S.expires_at, _NEVER).label("ends_at")
    query = select(schema.audit_suppressions, ends_at).where(_S.account_id == actor.account_id)
    key = ""
    if check_name is not None:
        query = query.where(_S.check_name == audit_check(check_name).name)
    if identifier is not None:
        key = resource_key(identifier)
        query = query.where(_S.resource_key == key)
    with registry.database.read() as connection:
        return registry.page(
            connection,
            query,
            (ends_at, _S.check_name, _S.resource_key),
            scope=(actor.account_id, "audit-suppressions", check_name or "", key),
            token=token,
            size=size,
            ascending=ascending,
        )


def suppressed_keys(connection: Connection, account_id: str, check_name: str, now: int) -> set[str]:
    """Keys (``checks.resource_key``) of the resources whose findings of a check are suppressed at a time.

    Args:
        connection: of a read or a transaction.
        account_id: whose.
        check_name: of the check.
        now: milliseconds since 1970.
    """
    in_force = or_(_S.expires_at.is_(None), _S.expires_at > now)
    query = select(_S.resource_key).where(_S.account_id == account_id, _S.check_name == check_name, in_force)
    return set(connection.execute(query).scalars())
