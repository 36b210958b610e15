"""Handing a certificate over to another account: offered by the source, accepted or rejected by the target.

While it is offered both see PENDING_TRANSFER and nobody can change it; the source may cancel. Accepting moves the
certificate with its history; both accounts get a record of every step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, select

from keyassay.registry.activation import check_activation
from keyassay.registry.admission import read_der
from keyassay.registry.certificates import check_id, find, remember, touch
from keyassay.registry.errors import (
    BrokenKeyError,
    CertificateStateError,
    InvalidError,
    NotFoundError,
    TransferCompletedError,
    TransferConflictError,
)
from keyassay.registry.lifecycle import TRANSFERABLE, Status
from keyassay.registry.registry import Page, Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor, Transaction

_C = schema.certificates.c
_E = schema.ended_transfers.c
_PENDING = Status.PENDING_TRANSFER.value


def offer(registry: Registry, actor: Actor, certificate_id: str, target: str, message: str | None = None) -> str:
    """Offer a certificate to an account.

    Args:
        registry: where.
        actor: the source.
        certificate_id: which.
        target: 12 digits. Whether there is such an account is not told.
        message: for the target.

    Returns:
        The ARN that the certificate has once the target accepts.

    Raises:
        InvalidError: no id, or the target is the source.
        NotFoundError: no such certificate.
        CertificateStateError: it is not INACTIVE.
        TransferConflictError: policies or things are attached.
    """
    check_id(certificate_id)
    if target == actor.account_id:
        raise InvalidError("a certificate cannot be transferred to its own account")
    with registry.database.write(actor, target) as transaction:
        row = find(transaction.connection, actor.account_id, certificate_id)
        if Status(row["status"]) not in TRANSFERABLE:
            raise CertificateStateError(
                f"a certificate that is {row['status']} cannot be transferred: only INACTIVE ones"
            )
        _nothing_attached(transaction, certificate_id)
        touch(
            transaction,
            row,
            status=_PENDING,
            transfer_target=target,
            transfer_message=message,
            transferred_at=transaction.now,
            accepted_at=None,
            rejected_at=None,
            reject_reason=None,
        )
        _record(transaction, "TransferCertificate", certificate_id, actor.account_id, target)
    return registry.arn(target, f"cert/{certificate_id}")


def _nothing_attached(transaction: Transaction, certificate_id: str) -> None:
    policies, principals = schema.policy_attachments.c, schema.thing_principals.c
    target = f"cert/{certificate_id}"
    mine = policies.account_id == transaction.account_id
    if transaction.execute(select(policies.target).where(mine, policies.target == target).limit(1)).first() is not None:
        raise TransferConflictError("policies are attached to the certificate: detach them first")
    mine = (principals.account_id == transaction.account_id) & (principals.certificate_id == certificate_id)
    if transaction.execute(select(principals.thing_name).where(mine).limit(1)).first() is not None:
        raise TransferConflictError("things are attached to the certificate: detach them first")


def _record(transaction: Transaction, operation: str, certificate_id: str, source: str, target: str) -> None:
    """Both sides get to know what happened."""
    for account_id in (source, target):
        details = {"from": source, "to": target}
        transaction.record(operation, "certificate", certificate_id, details, account_id=account_id)


def _offered(connection: Connection, certificate_id: str, *, source: str = "", target: str = "") -> RowMapping | None:
    query = select(schema.certificates).where(_C.id == certificate_id, _C.status == _PENDING)
    query = query.where(_C.account_id == source) if source else query.where(_C.transfer_target == target)
    return connection.execute(query).mappings().first()


def _explain(connection: Connection, actor: Actor, certificate_id: str) -> Exception:
    """Why there is no transfer to end: it has ended, the certificate is not on its way, or there is none."""
    ended = select(_E.certificate_id).where(
        _E.certificate_id == certificate_id,
        (_E.source_account == actor.account_id) | (_E.target_account == actor.account_id),
    )
    mine = select(_C.status, _C.account_id).where(_C.id == certificate_id, _C.account_id == actor.account_id)
    row = connection.execute(mine).first()
    if connection.execute(ended).first() is not None and (row is None or row.status != _PENDING):
        return TransferCompletedError("the transfer was accepted already")
    if row is None:
        return NotFoundError("there is no such certificate")
    return InvalidError("the certificate is not being transferred to this account")


def _offered_to(registry: Registry, actor: Actor, certificate_id: str) -> RowMapping:
    """The row that is on its way to the actor."""
    check_id(certificate_id)
    with registry.database.read() as connection:
        row = _offered(connection, certificate_id, target=actor.account_id)
        if row is None:
            raise _explain(connection, actor, certificate_id)
    return row


@contextmanager
def _ending(registry: Registry, actor: Actor, row: RowMapping) -> Iterator[tuple[Transaction, RowMapping]]:
    """A transaction of both sides with that row, as it is then."""
    certificate_id = row["id"]
    with registry.database.write(actor, row["account_id"]) as transaction:
        again = _offered(transaction.connection, certificate_id, target=actor.account_id)
        if again is None or again["account_id"] != row["account_id"]:
            raise _explain(transaction.connection, actor, certificate_id)
        yield transaction, again


def accept(registry: Registry, actor: Actor, certificate_id: str, *, set_as_active: bool = False) -> None:
    """Take a certificate that was offered to the actor's account; its key is screened as at a registration.

    Raises:
        NotFoundError, InvalidError, TransferCompletedError: nothing is offered, or the account has it already.
        InvalidError: screening refuses the key; or the certificate registered itself, was never ACTIVE and may not be
            now, since its key is broken.
    """
    offered = _offered_to(registry, actor, certificate_id)
    admitted = read_der(bytes(offered["der"]))
    examined = registry.examine(admitted.spki)
    with _ending(registry, actor, offered) as (transaction, row):
        own = select(_C.id).where(_C.account_id == actor.account_id, _C.id == certificate_id)
        if transaction.execute(own).first() is not None:
            raise InvalidError("the certificate is registered in this account already")
        if set_as_active and not registry.activate_broken:
            try:
                check_activation(transaction, row)
            except CertificateStateError as error:  # the API knows no other error for transfers
                raise InvalidError(error.message) from None
        source = row["account_id"]
        remember(transaction, row)
        touch(
            transaction,
            row,
            account_id=actor.account_id,
            previous_owner=source,
            status=(Status.ACTIVE if set_as_active else Status.INACTIVE).value,
            transfer_target=None,
            accepted_at=transaction.now,
        )
        transaction.execute(delete(schema.ended_transfers).where(_E.certificate_id == certificate_id))
        ended = {
            "certificate_id": certificate_id,
            "source_account": source,
            "target_account": actor.account_id,
            "accepted_at": transaction.now,
        }
        transaction.execute(schema.ended_transfers.insert().values(ended))
        _record(transaction, "AcceptCertificateTransfer", certificate_id, source, actor.account_id)
        if registry.screening is not None:
            try:
                registry.screening.record(transaction, certificate_id, admitted.subject, examined)
            except BrokenKeyError as error:
                raise InvalidError(error.message) from None


def reject(registry: Registry, actor: Actor, certificate_id: str, reason: str | None = None) -> None:
    """Give an offered certificate back to its source, with a reason.

    Raises:
        NotFoundError, InvalidError, TransferCompletedError: nothing is offered.
    """
    with _ending(registry, actor, _offered_to(registry, actor, certificate_id)) as (transaction, row):
        touch(
            transaction,
            row,
            status=Status.INACTIVE.value,
            transfer_target=None,
            rejected_at=transaction.now,
            reject_reason=reason,
        )
        _record(transaction, "RejectCertificateTransfer", certificate_id, row["account_id"], actor.account_id)


def cancel(registry: Registry, actor: Actor, certificate_id: str) -> None:
    """Take an offer back.

    Raises:
        NotFoundError, InvalidError, TransferCompletedError: the account offers no such certificate.
    """
    check_id(certificate_id)
    with registry.database.read() as connection:
        row = _offered(connection, certificate_id, source=actor.account_id)
        if row is None:
            raise _explain(connection, actor, certificate_id)
    with registry.database.write(actor, row["transfer_target"]) as transaction:
        again = _offered(transaction.connection, certificate_id, source=actor.account_id)
        if again is None:
            raise _explain(transaction.connection, actor, certificate_id)
        target = again["transfer_target"]
        touch(
            transaction,
            again,
            status=Status.INACTIVE.value,
            transfer_target=None,
            transfer_message=None,
            transferred_at=None,
        )
        _record(transaction, "CancelCertificateTransfer", certificate_id, actor.account_id, target)


def outgoing(
    registry: Registry, actor: Actor, *, token: str | None = None, size: int | None = None, ascending: bool = False
) -> Page[dict[str, Any]]:
    """A page of the certificates that the account offers, by the date of the offer."""
    columns = (_C.id, _C.transfer_target, _C.transferred_at, _C.transfer_message, _C.created_at)
    query = select(*columns).where(_C.account_id == actor.account_id, _C.status == _PENDING)
    with registry.database.read() as connection:
        return registry.page(
            connection,
            query,
            (_C.transferred_at, _C.id),
            scope=(actor.account_id, "outgoing"),
            token=token,
            size=size,
            ascending=ascending,
        )
