"""Device certificates: register, describe, list, change their status, delete.

Transfers between accounts are in ``transfers.py``, issuing in ``issuing.py``, the table of statuses in
``lifecycle.py``. An id is the SHA-256 of the certificate's DER.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from keyassay.registry.activation import check_activation
from keyassay.registry.admission import Admitted, check_device, is_signed_by, read_certificate, read_der
from keyassay.registry.errors import (
    AlreadyExistsError,
    CertificateConflictError,
    CertificateStateError,
    CertificateValidationError,
    DeleteConflictError,
    InvalidError,
    LimitError,
    NotFoundError,
)
from keyassay.registry.issued import note_revoked
from keyassay.registry.lifecycle import DELETABLE, Status, check_update, wanted
from keyassay.registry.registry import Page, Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor, Transaction
from keyassay.storage.prepared import Prepared

_C = schema.certificates.c
_ID = re.compile(r"[0-9a-f]{64}")
_LISTED = (_C.id, _C.account_id, _C.status, _C.mode, _C.created_at, _C.transfer_target)


_MINE = _C.account_id == bindparam("account")
_FIND = Prepared(select(schema.certificates).where(_MINE, _C.id == bindparam("id")))
_FIND_INCOMING = Prepared(
    select(schema.certificates)
    .where(
        _MINE | ((_C.transfer_target == bindparam("account")) & (_C.status == Status.PENDING_TRANSFER.value)),
        _C.id == bindparam("id"),
    )
    .order_by(_MINE.desc())  # the account's own before one that comes in
)
_ENTERED = (
    "account_id",
    "id",
    "status",
    "mode",
    "der",
    "spki_digest",
    "ca_certificate_id",
    "not_before",
    "not_after",
    "created_at",
    "modified_at",
    "customer_version",
    "generation_id",
)
#: enters nothing if the account has the certificate: one statement less than to ask before
_ENTER = {
    dialect.__name__.rpartition(".")[2]: Prepared(
        dialect.insert(schema.certificates).on_conflict_do_nothing().returning(_C.id), _ENTERED
    )
    for dialect in (sqlite, postgresql)
}
# Built once: putting a statement together takes longer than running it.
_CHANGE_STATUS = (
    update(schema.certificates)
    .where(_C.account_id == bindparam("account"), _C.id == bindparam("certificate"))
    .values(status=bindparam("new_status"), modified_at=bindparam("now"), customer_version=_C.customer_version + 1)
)
_A = schema.authorities.c
_AUTHORITY_NAMED = select(schema.authorities).where(_A.account_id == bindparam("account"), _A.id == bindparam("named"))
_AUTHORITIES_OF_NAME = select(schema.authorities).where(
    _A.account_id == bindparam("account"), _A.subject_digest == bindparam("subject")
)


@dataclass(frozen=True, slots=True)
class Registered:
    """A certificate that was just registered."""

    id: str
    arn: str


def check_id(certificate_id: str) -> str:
    """The id, if it has an id's form.

    Raises:
        InvalidError: it has not.
    """
    if not _ID.fullmatch(certificate_id):
        raise InvalidError("a certificate id is 64 hexadecimal digits in lower case")
    return certificate_id


def initial_status(status: str | None, set_as_active: bool | None) -> Status:
    """The status that a registration asks for: INACTIVE unless something else is said.

    Raises:
        InvalidError: no such status, or the two contradict each other.
    """
    if status is None:
        return Status.ACTIVE if set_as_active else Status.INACTIVE
    chosen = wanted(status)
    if set_as_active and chosen is not Status.ACTIVE:
        raise InvalidError(f"setAsActive contradicts status {status}")
    return chosen


def register(
    registry: Registry,
    actor: Actor,
    pem: str,
    *,
    authority_pem: str | None = None,
    status: str | None = None,
    set_as_active: bool | None = None,
) -> Registered:
    """Register a certificate that a registered authority signed.

    Args:
        registry: where.
        actor: who, and in which account.
        pem: the certificate.
        authority_pem: the authority, where several might have signed it.
        status: ACTIVE, INACTIVE or REVOKED.
        set_as_active: the older way to say ACTIVE.

    Raises:
        InvalidError: unreadable input.
        CertificateValidationError: expired, too small a key, no registered authority signed it.
        CertificateConflictError: several authorities could have signed it and none was named.
        CertificateStateError: the authority is not active.
        AlreadyExistsError: the account has this certificate.
    """
    chosen = initial_status(status, set_as_active)
    admitted = read_certificate(pem)
    named = read_certificate(authority_pem).id if authority_pem is not None else None
    examined = registry.examine(admitted.spki)
    with registry.database.write(actor) as transaction:
        return register_signed(registry, transaction, "RegisterCertificate", admitted, chosen, examined, named=named)


def register_signed(
    registry: Registry,
    transaction: Transaction,
    operation: str,
    admitted: Admitted,
    status: Status,
    examined: object,
    *,
    named: str | None = None,
) -> Registered:
    """The same inside a transaction.

    Args:
        registry: where.
        transaction: of the account.
        operation: for the record of changes.
        admitted: the certificate.
        status: its first status.
        examined: what ``registry.examine(admitted.spki)`` said before the transaction.
        named: id of the authority, where several might have signed it.

    Raises:
        As ``register``.
    """
    check_device(admitted, transaction.now)
    authority = _authority_of(transaction, admitted, named)
    if authority["status"] != Status.ACTIVE:
        raise CertificateStateError("the authority that signed the certificate is not active")
    mode, authority_id = authority["mode"], authority["id"]
    return add(registry, transaction, operation, admitted, status, mode, examined, authority_id=authority_id)


def register_without_authority(registry: Registry, actor: Actor, pem: str, *, status: str | None = None) -> Registered:
    """Register a certificate of any issuer; devices have to send the server name (mode SNI_ONLY).

    Raises:
        As ``register``, but for the authority.
    """
    chosen = initial_status(status, None)
    admitted = read_certificate(pem)
    examined = registry.examine(admitted.spki)
    with registry.database.write(actor) as transaction:
        check_device(admitted, transaction.now)
        return add(registry, transaction, "RegisterCertificateWithoutCA", admitted, chosen, "SNI_ONLY", examined)


def add(
    registry: Registry,
    transaction: Transaction,
    operation: str,
    admitted: Admitted,
    status: Status,
    mode: str,
    examined: object,
    *,
    authority_id: str | None = None,
) -> Registered:
    """Enter a certificate that passed its checks, inside a transaction.

    Args:
        registry: where.
        transaction: of the account.
        operation: for the record of changes.
        admitted: the certificate.
        status: its first status.
        mode: DEFAULT or SNI_ONLY.
        examined: what ``registry.examine(admitted.spki)`` said before the transaction.
        authority_id: the registered authority that signed it.

    Raises:
        AlreadyExistsError: the account has it.
        LimitError: the account may hold no more.
        BrokenKeyError: screening refuses it.
    """
    account_id = transaction.account_id
    arn = registry.arn(account_id, f"cert/{admitted.id}")
    if registry.limits.certificates < 10_000_000:  # counting millions would cost more than it protects
        held = transaction.execute(select(func.count()).where(_C.account_id == account_id)).scalar_one()
        if held >= registry.limits.certificates:
            raise LimitError(f"an account holds at most {registry.limits.certificates} certificates")
    row = {
        "account_id": account_id,
        "id": admitted.id,
        "status": status.value,
        "mode": mode,
        "der": admitted.der,
        "spki_digest": admitted.spki_digest,
        "ca_certificate_id": authority_id,
        "not_before": admitted.not_before,
        "not_after": admitted.not_after,
        "created_at": transaction.now,
        "modified_at": transaction.now,
        "customer_version": 1,
        "generation_id": str(uuid.uuid4()),
    }
    connection = transaction.connection
    if _ENTER[connection.dialect.name].first(connection, row) is None:
        raise AlreadyExistsError("the certificate is registered already", admitted.id, arn)
    if status is Status.REVOKED:
        note_revoked(transaction, admitted.id, mode)
    transaction.record(operation, "certificate", admitted.id, {"status": status.value})
    if registry.screening is not None:
        registry.screening.record(transaction, admitted.id, admitted.subject, examined)
    return Registered(admitted.id, arn)


def _authority_of(transaction: Transaction, admitted: Admitted, named: str | None) -> RowMapping:
    """The registered authority that signed a certificate."""
    if named is not None:
        found = transaction.execute(_AUTHORITY_NAMED, {"account": transaction.account_id, "named": named})
    else:
        subject = hashlib.sha256(admitted.issuer).digest()
        found = transaction.execute(_AUTHORITIES_OF_NAME, {"account": transaction.account_id, "subject": subject})
    signers = [row for row in found.mappings().all() if is_signed_by(admitted, read_der(bytes(row["der"])))]
    if not signers:
        what = "the named authority" if named is not None else "no registered authority"
        problem = "is not registered here or did not sign" if named is not None else "signed"
        raise CertificateValidationError(f"{what} {problem} the certificate")
    if len(signers) > 1:
        raise CertificateConflictError(
            "several registered authorities could have signed it: name one by caCertificatePem"
        )
    return signers[0]


def find(connection: Connection, account_id: str, certificate_id: str, *, incoming: bool = False) -> dict[str, Any]:
    """The row of a certificate of an account.

    Args:
        connection: of a read, or a transaction's.
        account_id: the account.
        certificate_id: 64 hexadecimal digits.
        incoming: also one that is on its way to the account.

    Raises:
        NotFoundError: there is none.
    """
    statement = _FIND_INCOMING if incoming else _FIND
    row = statement.first(connection, {"account": account_id, "id": certificate_id})
    if row is None:
        raise NotFoundError("there is no such certificate")
    return row


def describe(registry: Registry, actor: Actor, certificate_id: str) -> dict[str, Any]:
    """All columns of a certificate; also of one that is being transferred to the account.

    Raises:
        InvalidError: no id.
        NotFoundError: no such certificate.
    """
    check_id(certificate_id)
    with registry.database.read() as connection:
        return find(connection, actor.account_id, certificate_id, incoming=True)


def listed(
    registry: Registry,
    actor: Actor,
    *,
    authority_id: str | None = None,
    token: str | None = None,
    size: int | None = None,
    ascending: bool = False,
) -> Page[dict[str, Any]]:
    """A page of certificates by creation date, with incoming transfers; or those of one authority."""
    account_id = actor.account_id
    if authority_id is not None:
        query = select(*_LISTED).where(_C.account_id == account_id, _C.ca_certificate_id == authority_id)
    else:
        incoming = select(*_LISTED).where(
            _C.transfer_target == account_id, _C.status == Status.PENDING_TRANSFER.value, _C.account_id != account_id
        )
        with registry.database.read() as connection:
            has_incoming = connection.execute(incoming.limit(1)).first() is not None
        query = select(*_LISTED).where(_C.account_id == account_id)
        if has_incoming:  # rare, and an index answers the common case
            query = select(*_LISTED).where(
                (_C.account_id == account_id)
                | ((_C.transfer_target == account_id) & (_C.status == Status.PENDING_TRANSFER.value))
            )
    with registry.database.read() as connection:
        return registry.page(
            connection,
            query,
            (_C.created_at, _C.id),
            scope=(account_id, "certificates", authority_id or ""),
            token=token,
            size=size,
            ascending=ascending,
        )


def set_status(registry: Registry, actor: Actor, certificate_id: str, new_status: str) -> None:
    """Change the status of a certificate; nothing happens if it has it.

    Raises:
        InvalidError: no id, or a status that cannot be asked for.
        NotFoundError: no such certificate.
        CertificateStateError: the present status does not allow it, or the certificate registered itself and its key
            is broken.
    """
    check_id(certificate_id)
    new = wanted(new_status)
    with registry.database.write(actor) as transaction:
        if new is Status.ACTIVE and not registry.activate_broken:
            check_activation(transaction, find(transaction.connection, transaction.account_id, certificate_id))
        change_status(transaction, "UpdateCertificate", certificate_id, new)


def change_status(transaction: Transaction, operation: str, certificate_id: str, new: Status) -> bool:
    """The same inside a transaction; true if something changed.

    Raises:
        NotFoundError, CertificateStateError: as above.
    """
    row = find(transaction.connection, transaction.account_id, certificate_id)
    present = Status(row["status"])
    if not check_update(present, new):
        return False
    values = {"account": row["account_id"], "certificate": row["id"], "new_status": new.value, "now": transaction.now}
    transaction.execute(_CHANGE_STATUS, values)
    if new is Status.REVOKED:
        note_revoked(transaction, certificate_id, row["mode"])
    transaction.record(operation, "certificate", certificate_id, {"status": [present.value, new.value]})
    return True


def touch(transaction: Transaction, row: RowMapping | Mapping[str, Any], **values: Any) -> None:
    """Change columns of a certificate, with its date and its customer version."""
    statement = update(schema.certificates).where(_C.account_id == row["account_id"], _C.id == row["id"])
    changed = {"modified_at": transaction.now, "customer_version": row["customer_version"] + 1, **values}
    transaction.execute(statement.values(changed))


def remove(registry: Registry, actor: Actor, certificate_id: str, *, force: bool = False) -> None:
    """Delete a certificate that is inactive or revoked and to which nothing is attached.

    Args:
        registry: where.
        actor: who.
        certificate_id: which.
        force: detach its policies first; things always have to be detached before.

    Raises:
        CertificateStateError: it is active or being transferred.
        DeleteConflictError: something is attached.
        NotFoundError, InvalidError: as above.
    """
    check_id(certificate_id)
    account_id = actor.account_id
    attached = schema.policy_attachments.c
    its_policies = (attached.account_id == account_id) & (attached.target == f"cert/{certificate_id}")
    principals = schema.thing_principals.c
    with registry.database.write(actor) as transaction:
        row = find(transaction.connection, account_id, certificate_id)
        if Status(row["status"]) not in DELETABLE:
            raise CertificateStateError(f"a certificate that is {row['status']} cannot be deleted: deactivate it first")
        its_things = (principals.account_id == account_id) & (principals.certificate_id == certificate_id)
        if transaction.execute(select(principals.thing_name).where(its_things).limit(1)).first() is not None:
            raise DeleteConflictError("things are attached to the certificate: detach them first")
        if transaction.execute(select(attached.policy_name).where(its_policies).limit(1)).first() is not None:
            if not force:
                raise DeleteConflictError("policies are attached to the certificate: detach them first")
            transaction.execute(delete(schema.policy_attachments).where(its_policies))
        transaction.execute(delete(schema.certificates).where(_C.account_id == account_id, _C.id == certificate_id))
        remember(transaction, row)
        transaction.record("DeleteCertificate", "certificate", certificate_id)


def remember(transaction: Transaction, row: RowMapping | Mapping[str, Any]) -> None:
    """Keep a certificate (or an authority) that leaves the account: audits compare with its key for ever."""
    held = schema.former_certificates
    here = (held.c.account_id == row["account_id"]) & (held.c.id == row["id"])
    if transaction.execute(select(held.c.id).where(here)).first() is None:
        kept = {name: row[name] for name in ("account_id", "id", "der", "spki_digest")}
        transaction.execute(held.insert().values(**kept, left_at=transaction.now))
