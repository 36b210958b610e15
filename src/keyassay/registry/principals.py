"""Principals: which certificates are attached to which things.

A certificate may be attached to several things, unless an attachment is exclusive: then it is the only one.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, select, update

from keyassay.registry import certificates, things
from keyassay.registry.errors import InvalidError
from keyassay.registry.lifecycle import Status
from keyassay.registry.registry import Page, Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor

_P = schema.thing_principals.c


def _certificate_id(registry: Registry, actor: Actor, arn: str) -> str:
    return certificates.check_id(registry.resource(actor, arn, "cert"))


def attach(registry: Registry, actor: Actor, thing_name: str, arn: str, *, exclusive: bool | None = None) -> None:
    """Attach a certificate to a thing; again is no error.

    Args:
        registry: where.
        actor: who.
        thing_name: the thing.
        arn: of the certificate.
        exclusive: the thing is to be the certificate's only one; None leaves an attachment that is there as it is,
            and makes one that is not exclusive.

    Raises:
        NotFoundError: no such thing or certificate.
        InvalidError: no ARN of a certificate of the account, the certificate is being transferred, or this or another
            attachment would have to be the only one and is not.
    """
    certificate_id = _certificate_id(registry, actor, arn)
    account_id = actor.account_id
    with registry.database.write(actor) as transaction:
        things.find(transaction.connection, account_id, thing_name)
        row = certificates.find(transaction.connection, account_id, certificate_id)
        if row["status"] == Status.PENDING_TRANSFER.value:
            raise InvalidError("the certificate is being transferred to another account")
        its = (_P.account_id == account_id) & (_P.certificate_id == certificate_id)
        here = its & (_P.thing_name == thing_name)
        present = transaction.execute(select(_P.exclusive).where(here)).scalar()
        if present is not None and exclusive in (None, present):
            return
        # an exclusive attachment is the only one, so that any one tells
        others = select(_P.exclusive).where(its, _P.thing_name != thing_name).limit(1)
        other = transaction.execute(others).scalar()
        if other is not None and (exclusive or other):
            problem = "is attached to other things" if exclusive else "belongs exclusively to another thing"
            raise InvalidError(f"the certificate {problem}: detach it first")
        values = {"exclusive": bool(exclusive), "attached_at": transaction.now}
        if present is not None:
            transaction.execute(update(schema.thing_principals).where(here).values(exclusive=bool(exclusive)))
        else:
            key = {"account_id": account_id, "thing_name": thing_name, "certificate_id": certificate_id}
            transaction.execute(schema.thing_principals.insert().values(**key, **values))
        details = {"thing": thing_name, "exclusive": bool(exclusive)}
        transaction.record("AttachThingPrincipal", "certificate", certificate_id, details)


def detach(registry: Registry, actor: Actor, thing_name: str, arn: str) -> None:
    """Detach a certificate from a thing; if it is not attached nothing happens.

    Raises:
        NotFoundError: no such thing or certificate.
        InvalidError: no ARN of a certificate of the account.
    """
    certificate_id = _certificate_id(registry, actor, arn)
    with registry.database.write(actor) as transaction:
        things.find(transaction.connection, actor.account_id, thing_name)
        certificates.find(transaction.connection, actor.account_id, certificate_id)
        here = (_P.account_id == actor.account_id) & (_P.certificate_id == certificate_id)
        here &= _P.thing_name == thing_name
        if transaction.execute(delete(schema.thing_principals).where(here)).rowcount:
            transaction.record("DetachThingPrincipal", "certificate", certificate_id, {"thing": thing_name})


def of_thing(
    registry: Registry,
    actor: Actor,
    thing_name: str,
    *,
    exclusive: bool | None = None,
    token: str | None = None,
    size: int | None = None,
) -> Page[dict[str, Any]]:
    """A page of the certificates of a thing by id; all, or those attached in one of the two ways.

    Raises:
        NotFoundError: no such thing.
        InvalidError: a foreign token.
    """
    query = select(_P.certificate_id, _P.exclusive)
    query = query.where(_P.account_id == actor.account_id, _P.thing_name == thing_name)
    if exclusive is not None:
        query = query.where(_P.exclusive == exclusive)
    scope = (actor.account_id, "principals of", thing_name, exclusive)
    with registry.database.read() as connection:
        things.find(connection, actor.account_id, thing_name)
        return registry.page(connection, query, (_P.certificate_id,), scope=scope, token=token, size=size)


def of_certificate(
    registry: Registry,
    actor: Actor,
    arn: str,
    *,
    exclusive: bool | None = None,
    token: str | None = None,
    size: int | None = None,
) -> Page[dict[str, Any]]:
    """A page of the things of a certificate by name; all, or those attached in one of the two ways.

    Raises:
        NotFoundError: no such certificate.
        InvalidError: no ARN of a certificate of the account, or a foreign token.
    """
    certificate_id = _certificate_id(registry, actor, arn)
    query = select(_P.thing_name, _P.exclusive)
    query = query.where(_P.account_id == actor.account_id, _P.certificate_id == certificate_id)
    if exclusive is not None:
        query = query.where(_P.exclusive == exclusive)
    scope = (actor.account_id, "things of", certificate_id, exclusive)
    with registry.database.read() as connection:
        certificates.find(connection, actor.account_id, certificate_id)
        return registry.page(connection, query, (_P.thing_name,), scope=scope, token=token, size=size)


def things_of(connection: Connection, account_id: str, certificate_id: str) -> list[str]:
    """Names of all things of a certificate, for what is done to each of them."""
    query = select(_P.thing_name).where(_P.account_id == account_id, _P.certificate_id == certificate_id)
    return list(connection.execute(query.order_by(_P.thing_name)).scalars())
