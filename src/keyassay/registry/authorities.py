"""Certificate authorities: register with proof of possession, describe, list, change, delete.

A DEFAULT authority proves that the account holds its key by a verification certificate with the account's registration
code, and belongs to one account alone; an SNI_ONLY one may be registered by several, without proof.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, select, update
from sqlalchemy.exc import IntegrityError

from keyassay.registry.admission import Admitted, check_authority, common_names, is_signed_by, read_certificate
from keyassay.registry.certificates import check_id, remember
from keyassay.registry.errors import (
    AlreadyExistsError,
    CertificateStateError,
    CertificateValidationError,
    InvalidError,
    LimitError,
    NotFoundError,
    RegistrationCodeError,
)
from keyassay.registry.registry import Page, Registry
from keyassay.registry.tags import remove_tags, set_tags
from keyassay.storage import schema
from keyassay.storage.database import Actor, Transaction

_A = schema.authorities.c

DEFAULT, SNI_ONLY = "DEFAULT", "SNI_ONLY"
ACTIVE, INACTIVE = "ACTIVE", "INACTIVE"


@dataclass(frozen=True, slots=True)
class RegisteredAuthority:
    """An authority that was just registered."""

    id: str
    arn: str


def registration_code(registry: Registry, actor: Actor) -> str:
    """The account's registration code, 64 hexadecimal digits; the same until it is deleted."""
    accounts = schema.accounts.c
    query = select(accounts.registration_code).where(accounts.id == actor.account_id)
    with registry.database.read() as connection:
        code: str | None = connection.execute(query).scalar()
    if code:
        return code
    with registry.database.write(actor) as transaction:
        code = transaction.execute(query).scalar()
        if code is None:
            code = secrets.token_hex(32)
            statement = update(schema.accounts).where(accounts.id == actor.account_id)
            transaction.execute(statement.values(registration_code=code))
            transaction.record("GetRegistrationCode", "account", actor.account_id)
    return code


def delete_registration_code(registry: Registry, actor: Actor) -> None:
    """Let the next ``registration_code`` be another one; the present one verifies nothing any more."""
    with registry.database.write(actor) as transaction:
        statement = update(schema.accounts).where(schema.accounts.c.id == actor.account_id)
        transaction.execute(statement.values(registration_code=None))
        transaction.record("DeleteRegistrationCode", "account", actor.account_id)


def register(
    registry: Registry,
    actor: Actor,
    pem: str,
    *,
    verification_pem: str | None = None,
    mode: str | None = None,
    set_as_active: bool = False,
    auto_registration: bool = False,
    registration_config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> RegisteredAuthority:
    """Register an authority.

    Args:
        registry: where.
        actor: who.
        pem: its certificate.
        verification_pem: signed by its key, common name the registration code; for mode DEFAULT.
        mode: DEFAULT or SNI_ONLY.
        set_as_active: ACTIVE instead of INACTIVE.
        auto_registration: devices with its certificates are registered at their first connection.
        registration_config: kept as it is given.
        tags: names and values.

    Raises:
        InvalidError: unreadable input, or a verification certificate missing or given in vain.
        CertificateValidationError: the certificate is none of an authority, expired, too small a key; or the
            verification certificate was signed by another key.
        RegistrationCodeError: its common name is not the registration code.
        AlreadyExistsError: the account has it, or for DEFAULT another account.
        LimitError: too many authorities of that subject.
    """
    mode = mode or DEFAULT
    admitted = read_certificate(pem)
    if mode == SNI_ONLY and verification_pem is not None:
        raise InvalidError("an authority of mode SNI_ONLY has no verification certificate")
    if mode == DEFAULT and verification_pem is None:
        raise InvalidError("an authority of mode DEFAULT needs a verification certificate")
    verification = read_certificate(verification_pem) if verification_pem is not None else None
    with registry.database.write(actor) as transaction:
        check_authority(admitted, transaction.now)
        if verification is not None:
            _check_possession(transaction, admitted, verification)
        _check_room(registry, transaction, admitted, mode)
        status = ACTIVE if set_as_active else INACTIVE
        row = {
            "account_id": actor.account_id,
            "id": admitted.id,
            "status": status,
            "mode": mode,
            "der": admitted.der,
            "subject_digest": hashlib.sha256(admitted.subject).digest(),
            "spki_digest": admitted.spki_digest,
            "auto_registration": auto_registration,
            "registration_config": dict(registration_config) if registration_config else None,
            "not_before": admitted.not_before,
            "not_after": admitted.not_after,
            "created_at": transaction.now,
            "modified_at": transaction.now,
            "customer_version": 1,
            "generation_id": str(uuid.uuid4()),
        }
        try:
            transaction.execute(schema.authorities.insert().values(row))
        except IntegrityError:  # another account was quicker
            raise AlreadyExistsError("the authority is registered in another account", admitted.id) from None
        set_tags(registry, transaction, f"cacert/{admitted.id}", tags or {})
        transaction.record("RegisterCACertificate", "ca", admitted.id, {"status": status, "mode": mode})
    return RegisteredAuthority(admitted.id, registry.arn(actor.account_id, f"cacert/{admitted.id}"))


def _check_possession(transaction: Transaction, admitted: Admitted, verification: Admitted) -> None:
    """The verification certificate was signed by the authority's key and names the account's registration code."""
    accounts = schema.accounts.c
    code = transaction.execute(select(accounts.registration_code).where(accounts.id == transaction.account_id)).scalar()
    if not is_signed_by(verification, admitted):
        raise CertificateValidationError("the verification certificate was not signed by the authority")
    if verification.not_after < transaction.now:
        raise CertificateValidationError("the verification certificate has expired")
    if code is None or not any(
        secrets.compare_digest(name.encode(), code.encode()) for name in common_names(verification)
    ):
        raise RegistrationCodeError("the verification certificate's common name is not the registration code")


def _check_room(registry: Registry, transaction: Transaction, admitted: Admitted, mode: str) -> None:
    account_id = transaction.account_id
    rows = transaction.execute(select(_A.account_id, _A.mode).where(_A.id == admitted.id)).all()
    if any(row.account_id == account_id for row in rows):
        arn = registry.arn(account_id, f"cacert/{admitted.id}")
        raise AlreadyExistsError("the authority is registered already", admitted.id, arn)
    if any(DEFAULT in (mode, row.mode) for row in rows):
        raise AlreadyExistsError("the authority is registered in another account", admitted.id)
    same_subject = (_A.account_id == account_id) & (_A.subject_digest == hashlib.sha256(admitted.subject).digest())
    count = transaction.execute(select(func.count()).where(same_subject)).scalar_one()
    if count >= registry.limits.authorities_of_a_subject:
        raise LimitError(
            f"an account holds at most {registry.limits.authorities_of_a_subject} authorities of a subject"
        )


def find(connection: Connection, account_id: str, authority_id: str) -> RowMapping:
    """The row of an authority of an account.

    Raises:
        NotFoundError: there is none.
    """
    query = select(schema.authorities).where(_A.account_id == account_id, _A.id == authority_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError("there is no such certificate of an authority")
    return row


def describe(registry: Registry, actor: Actor, authority_id: str) -> RowMapping:
    """All columns of an authority.

    Raises:
        InvalidError, NotFoundError: no id, no such authority.
    """
    check_id(authority_id)
    with registry.database.read() as connection:
        return find(connection, actor.account_id, authority_id)


def listed(
    registry: Registry,
    actor: Actor,
    *,
    token: str | None = None,
    size: int | None = None,
    ascending: bool = False,
) -> Page[dict[str, Any]]:
    """A page of authorities by creation date."""
    query = select(_A.id, _A.status, _A.created_at).where(_A.account_id == actor.account_id)
    scope = (actor.account_id, "authorities")
    with registry.database.read() as connection:
        return registry.page(
            connection, query, (_A.created_at, _A.id), scope=scope, token=token, size=size, ascending=ascending
        )


def change(
    registry: Registry,
    actor: Actor,
    authority_id: str,
    *,
    status: str | None = None,
    auto_registration: bool | None = None,
    registration_config: Mapping[str, Any] | None = None,
    remove_auto_registration: bool = False,
) -> None:
    """Change what is given; its device certificates stay as they are.

    Raises:
        InvalidError: no id, or contradictory wishes.
        NotFoundError: no such authority.
    """
    check_id(authority_id)
    if remove_auto_registration and (auto_registration or registration_config):
        raise InvalidError("removeAutoRegistration contradicts the other settings of auto registration")
    with registry.database.write(actor) as transaction:
        row = find(transaction.connection, actor.account_id, authority_id)
        wishes: dict[str, Any] = {}
        if status is not None:
            wishes["status"] = status
        if auto_registration is not None:
            wishes["auto_registration"] = auto_registration
        if registration_config is not None:
            wishes["registration_config"] = dict(registration_config)
        if remove_auto_registration:
            wishes |= {"auto_registration": False, "registration_config": None}
        changes = {name: value for name, value in wishes.items() if row[name] != value}
        if not changes:
            return
        _write(transaction, row, changes)
        told = {name: [row[name], value] for name, value in changes.items() if name != "registration_config"}
        transaction.record("UpdateCACertificate", "ca", authority_id, told)


def deactivate(transaction: Transaction, operation: str, authority_id: str) -> bool:
    """Make an authority INACTIVE inside a transaction; true if it was not.

    Raises:
        NotFoundError: there is none of that id.
    """
    row = find(transaction.connection, transaction.account_id, authority_id)
    if row["status"] == INACTIVE:
        return False
    _write(transaction, row, {"status": INACTIVE})
    transaction.record(operation, "ca", authority_id, {"status": [row["status"], INACTIVE]})
    return True


def _write(transaction: Transaction, row: RowMapping, changes: Mapping[str, Any]) -> None:
    statement = update(schema.authorities).where(_A.account_id == row["account_id"], _A.id == row["id"])
    counted = {"modified_at": transaction.now, "customer_version": row["customer_version"] + 1}
    transaction.execute(statement.values({**changes, **counted}))


def remove(registry: Registry, actor: Actor, authority_id: str) -> None:
    """Delete an inactive authority; the certificates that it signed stay.

    Raises:
        CertificateStateError: it is active.
        InvalidError, NotFoundError: no id, no such authority.
    """
    check_id(authority_id)
    with registry.database.write(actor) as transaction:
        row = find(transaction.connection, actor.account_id, authority_id)
        if row["status"] != INACTIVE:
            raise CertificateStateError("an authority that is active cannot be deleted: deactivate it first")
        transaction.execute(delete(schema.authorities).where(_A.account_id == actor.account_id, _A.id == authority_id))
        remember(transaction, row)
        remove_tags(transaction, f"cacert/{authority_id}")
        transaction.record("DeleteCACertificate", "ca", authority_id)
