"""Who does a piece of work that only one worker may do, over all processes and machines of a database.

A lease ends by itself, so that a killed worker blocks nothing. A worker that was only slow is told apart by ``fence``,
which rises with every taking: each of its transactions checks the number, and fails once somebody else has the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from keyassay.storage import schema
from keyassay.storage.database import Actor, Database, Transaction

_L = schema.leases.c


class LeaseLostError(Exception):
    """Another worker has the work now; what this transaction did has to be left undone."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A piece of work that was taken.

    Attributes:
        name: of the work ("audit:ACCOUNT:TASK").
        holder: who has it, for people.
        fence: which taking this is.
    """

    name: str
    holder: str
    fence: int


def _actor(holder: str) -> Actor:
    """Leases belong to no account, and are not part of the record of changes."""
    return Actor("", holder)


def take(database: Database, name: str, holder: str, seconds: float) -> Lease | None:
    """Take a piece of work for some seconds; None if another holder has it.

    Args:
        database: where.
        name: of the work.
        holder: who takes it; the same holder does not get it twice.
        seconds: until it ends by itself.

    Raises:
        BusyError: as ``Database.write``.
    """
    with database.write(_actor(holder)) as transaction:
        fence = _put(database, transaction, name, holder, seconds, _L.expires_at <= transaction.now)
    return None if fence is None else Lease(name, holder, fence)


def _put(
    database: Database, transaction: Transaction, name: str, holder: str, seconds: float, where: Any = None
) -> int | None:
    dialect = sqlite if database.is_sqlite else postgresql
    values = {"name": name, "holder": holder, "fence": 1, "expires_at": transaction.now + round(seconds * 1000)}
    changes = {"holder": holder, "fence": _L.fence + 1, "expires_at": values["expires_at"]}
    statement = dialect.insert(schema.leases).values(values)
    statement = statement.on_conflict_do_update(index_elements=[_L.name], set_=changes, where=where)
    fence: int | None = transaction.execute(statement.returning(_L.fence)).scalar()
    return fence


def renew(database: Database, lease: Lease, seconds: float) -> bool:
    """Let a lease end later, counted from now; false if another holder has it."""
    with database.write(_actor(lease.holder)) as transaction:
        statement = update(schema.leases).where(_L.name == lease.name, _L.fence == lease.fence)
        expires_at = transaction.now + round(seconds * 1000)
        return bool(transaction.execute(statement.values(expires_at=expires_at)).rowcount)


def check(transaction: Transaction, lease: Lease) -> None:
    """Make sure that nobody else has the work, until the transaction ends (takers wait for it).

    A lease that has run out and that nobody has taken is good.

    Raises:
        LeaseLostError: another holder has it.
    """
    query = select(_L.fence).where(_L.name == lease.name).with_for_update()
    if transaction.execute(query).scalar() != lease.fence:
        raise LeaseLostError(f"{lease.name} was taken by another worker")


def release(database: Database, lease: Lease) -> None:
    """Let others take the work at once; nothing happens if they have it already.

    The row stays, since the next taking has to have a higher number.
    """
    with database.write(_actor(lease.holder)) as transaction:
        statement = update(schema.leases).where(_L.name == lease.name, _L.fence == lease.fence)
        transaction.execute(statement.values(expires_at=transaction.now))


def announce(database: Database, name: str, holder: str, seconds: float) -> None:
    """Say that a kind of work is done here, for some seconds; unlike a lease, any number may say so at once.

    Args:
        database: where.
        name: of the kind, which nobody takes as a lease.
        holder: who says so, for people.
        seconds: until it holds no more, unless somebody says so again.

    Raises:
        BusyError: as ``Database.write``.
    """
    with database.write(_actor(holder)) as transaction:
        _put(database, transaction, name, holder, seconds)


def is_announced(connection: Connection, name: str, now: int) -> bool:
    """Whether somebody does a kind of work, at a time in milliseconds since 1970."""
    query = select(_L.name).where(_L.name == name, _L.expires_at > now)
    return connection.execute(query).first() is not None


def forget(transaction: Transaction, name: str) -> None:
    """Remove the row of work that is done for good, in the transaction that ends it."""
    transaction.execute(delete(schema.leases).where(_L.name == name))
