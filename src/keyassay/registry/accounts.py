"""Accounts and their access keys: who may sign requests, in which role.

A secret is shown once, when it is made; the database holds it sealed (a signature can only be checked with the secret
itself). An access key that is deactivated stops working at once on every server of the database.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, bindparam, delete, func, select, update

from keyassay.registry.errors import AlreadyExistsError, InvalidError, NotFoundError
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor, Database, Transaction
from keyassay.storage.prepared import Prepared

_KEYS = schema.access_keys.c
_ACTIVE_KEY = Prepared(select(schema.access_keys).where(_KEYS.id == bindparam("key"), _KEYS.active))


class Role(StrEnum):
    """What the holder of an access key may do.

    ADMINISTRATOR: everything. OPERATOR: everything but accounts, keys and the issuing authority. REGISTRAR: register,
    and read. AUDITOR: read. GATE: the feed, connection events and just-in-time registration of its own account.
    """

    ADMINISTRATOR = "administrator"
    OPERATOR = "operator"
    REGISTRAR = "registrar"
    AUDITOR = "auditor"
    GATE = "gate"


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An access key as lists show it: without its secret."""

    id: str
    account_id: str
    role: Role
    active: bool
    created_at: int


@dataclass(frozen=True, slots=True)
class NewAccessKey:
    """An access key just made, the only place where its secret is seen."""

    account_id: str
    access_key_id: str
    role: Role
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the check of a signature needs."""

    account_id: str
    access_key_id: str
    role: Role
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """An account with the number of its active access keys."""

    id: str
    name: str
    created_at: int
    active_keys: int


def _place(access_key_id: str) -> str:
    return f"access-key/{access_key_id}"


def create_account(registry: Registry, actor: Actor, *, name: str = "", account_id: str = "") -> NewAccessKey:
    """Make an account and its first access key, an administrator's.

    Args:
        registry: where.
        actor: who; its account id is replaced by the new one.
        name: for people.
        account_id: 12 digits; chosen at random if empty.

    Raises:
        AlreadyExistsError: the account is there.
        InvalidError: not 12 digits.
    """
    chosen = account_id or "".join(str(secrets.randbelow(10)) for _ in range(12))
    if not re.fullmatch(r"[0-9]{12}", chosen):
        raise InvalidError("an account id is 12 digits")
    return add_account(registry, actor, chosen, name, new_key_id(), new_secret())


def add_account(
    registry: Registry, actor: Actor, account_id: str, name: str, access_key_id: str, secret: str
) -> NewAccessKey:
    """Make an account with a given first access key (containers and tests bring theirs)."""
    if not re.fullmatch(r"[0-9]{12}", account_id):
        raise InvalidError("an account id is 12 digits")
    mine = Actor(account_id, actor.name, actor.source, actor.request_id)
    with registry.database.write(mine) as transaction:
        known = transaction.execute(select(schema.accounts.c.id).where(schema.accounts.c.id == account_id)).first()
        if known is not None:
            raise AlreadyExistsError(f"account {account_id} exists", account_id)
        row = {"id": account_id, "name": name, "created_at": transaction.now}
        transaction.execute(schema.accounts.insert().values(row))
        transaction.record("CreateAccount", "account", account_id)
        return _add_key(registry, transaction, Role.ADMINISTRATOR, access_key_id, secret)


def accounts(registry: Registry) -> list[Account]:
    """All accounts, by id."""
    active = (
        select(_KEYS.account_id, func.count().label("held")).where(_KEYS.active).group_by(_KEYS.account_id).subquery()
    )
    query = select(schema.accounts, func.coalesce(active.c.held, 0).label("active_keys")).outerjoin(
        active, active.c.account_id == schema.accounts.c.id
    )
    with registry.database.read() as connection:
        rows = connection.execute(query.order_by(schema.accounts.c.id))
        return [Account(row.id, row.name, row.created_at, row.active_keys) for row in rows]


def any_account(database: Database) -> bool:
    """Whether there is any account."""
    with database.read() as connection:
        return connection.execute(select(schema.accounts.c.id).limit(1)).first() is not None


def the_account(registry: Registry, account_id: str = "") -> str:
    """The account that a command means: the one named, or the only one there is.

    Raises:
        NotFoundError: there is none of that id.
        InvalidError: none was named and there are several, or none.
    """
    known = [account.id for account in accounts(registry)]
    if account_id:
        if account_id not in known:
            raise NotFoundError(f"there is no account {account_id}")
        return account_id
    if len(known) != 1:
        raise InvalidError("say which account is meant" if known else "there is no account yet")
    return known[0]


def new_key_id() -> str:
    """An access key id as AWS's look: 20 characters."""
    return "AKIA" + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16))


def new_secret() -> str:
    """A secret of 240 bits in 40 characters."""
    return secrets.token_urlsafe(30)


def _add_key(registry: Registry, transaction: Transaction, role: Role, access_key_id: str, secret: str) -> NewAccessKey:
    if not re.fullmatch(r"[A-Za-z0-9]{16,128}", access_key_id):
        raise InvalidError("an access key id is 16 to 128 letters and digits")
    if len(secret) < 16:
        raise InvalidError("a secret access key has at least 16 characters")
    if transaction.execute(select(_KEYS.id).where(_KEYS.id == access_key_id)).first() is not None:
        raise AlreadyExistsError(f"access key {access_key_id} exists", access_key_id)
    row = {
        "id": access_key_id,
        "account_id": transaction.account_id,
        "role": role.value,
        "sealed_secret": registry.seal.seal(secret.encode(), _place(access_key_id)),
        "active": True,
        "created_at": transaction.now,
    }
    transaction.execute(schema.access_keys.insert().values(row))
    transaction.record("CreateAccessKey", "access-key", access_key_id, {"role": role.value})
    return NewAccessKey(transaction.account_id, access_key_id, role, secret)


def create_key(registry: Registry, actor: Actor, role: Role) -> NewAccessKey:
    """Make an access key in the actor's account."""
    with registry.database.write(actor) as transaction:
        return _add_key(registry, transaction, role, new_key_id(), new_secret())


def keys(registry: Registry, account_id: str) -> list[AccessKey]:
    """The access keys of an account, oldest first."""
    query = select(schema.access_keys).where(_KEYS.account_id == account_id).order_by(_KEYS.created_at, _KEYS.id)
    with registry.database.read() as connection:
        return [_shown(row) for row in connection.execute(query)]


def _shown(row: Row[Any]) -> AccessKey:
    return AccessKey(row.id, row.account_id, Role(row.role), row.active, row.created_at)


def deactivate_key(registry: Registry, actor: Actor, access_key_id: str) -> None:
    """Let an access key sign nothing any more.

    Raises:
        NotFoundError: there is none of that id in the account.
    """
    _change_key(registry, actor, access_key_id, "DeactivateAccessKey")


def delete_key(registry: Registry, actor: Actor, access_key_id: str) -> None:
    """Remove an access key and its sealed secret.

    Raises:
        NotFoundError: there is none of that id in the account.
    """
    _change_key(registry, actor, access_key_id, "DeleteAccessKey")


def _change_key(registry: Registry, actor: Actor, access_key_id: str, operation: str) -> None:
    mine = (_KEYS.id == access_key_id) & (_KEYS.account_id == actor.account_id)
    with registry.database.write(actor) as transaction:
        if operation == "DeleteAccessKey":
            changed = transaction.execute(delete(schema.access_keys).where(mine))
        else:
            changed = transaction.execute(update(schema.access_keys).where(mine).values(active=False))
        if not changed.rowcount:
            raise NotFoundError(f"there is no access key {access_key_id} in account {actor.account_id}")
        transaction.record(operation, "access-key", access_key_id)


def credentials(registry: Registry, access_key_id: str) -> Credentials | None:
    """What a signature by this key is checked with; None for unknown and inactive keys."""
    with registry.database.read() as connection:
        row = _ACTIVE_KEY.first(connection, {"key": access_key_id})
    if row is None:
        return None
    secret = registry.seal.open(row["sealed_secret"], _place(row["id"])).decode()
    return Credentials(row["account_id"], row["id"], Role(row["role"]), secret)


def changes(
    registry: Registry,
    actor: Actor,
    *,
    after: int = 0,
    limit: int = 100,
    resource_type: str = "",
    resource_id: str = "",
) -> Iterable[dict[str, Any]]:
    """What changed in the actor's account after a revision, in commit order; of a type or of one resource if named."""
    columns = schema.changes.c
    query = select(schema.changes).where(columns.account_id == actor.account_id, columns.revision > after)
    if resource_type:
        query = query.where(columns.resource_type == resource_type)
    if resource_id:
        query = query.where(columns.resource_id == resource_id)
    with registry.database.read() as connection:
        rows = connection.execute(query.order_by(columns.revision).limit(limit)).mappings().all()
    return [dict(row) for row in rows]


def feed_epoch(registry: Registry) -> str:
    """Names the line of revisions: another one after each restore, since revisions may then be given out again."""
    with registry.database.read() as connection:
        return str(connection.execute(select(schema.server.c.epoch)).scalar_one())
