"""What the account's own authorities issued, and what of it is revoked: the source of their revocation lists and OCSP.

A row is made when a certificate is issued and stays for ever, so that a revoked certificate that was deleted stays
revoked. What an imported authority issued elsewhere is entered when the registry gets to know it: by ``follow``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Boolean, Connection, bindparam, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from keyassay.registry.admission import Admitted, is_signed_by, read_der
from keyassay.registry.lifecycle import Status
from keyassay.registry.registry import Registry
from keyassay.storage import schema
from keyassay.storage.database import Actor, Transaction, rows_in_chunks

_D = schema.issued_certificates.c
_I = schema.issuers.c
_H = schema.changes.c

#: changes of the feed that are read at a time: about 20 ms
_AT_ONCE = 500

#: ``mine``: a registration that proves nothing (SNI_ONLY) revokes only what the account itself issued
_REVOKE = (
    update(schema.issued_certificates)
    .where(
        _D.certificate_id == bindparam("certificate"),
        _D.revoked_at.is_(None),
        or_(bindparam("proven", type_=Boolean), _D.account_id == bindparam("mine")),
    )
    .values(revoked_at=bindparam("at"))
)


def serial_text(serial: int) -> str:
    """How the table keeps a serial number."""
    return f"{serial:x}"


def enter(transaction: Transaction, issuer_id: str, serial: int, certificate_id: str) -> None:
    """Note a certificate that an authority of the account has just issued."""
    _insert(transaction, [_row(transaction.account_id, issuer_id, serial, certificate_id, None)])


def note_revoked(transaction: Transaction, certificate_id: str, mode: str) -> None:
    """Note that a certificate is revoked, if an authority of the registry issued it; for ever.

    Args:
        transaction: that revokes it.
        certificate_id: of the certificate.
        mode: of its registration in the transaction's account: that of a certificate which the account issued or got
            by a transfer is DEFAULT, while anybody may register a stranger's certificate as SNI_ONLY.
    """
    values = {"certificate": certificate_id, "proven": mode == "DEFAULT", "mine": transaction.account_id}
    transaction.execute(_REVOKE, {**values, "at": transaction.now})


def _row(account_id: str, issuer_id: str, serial: int, certificate_id: str, revoked_at: int | None) -> dict[str, Any]:
    return {
        "account_id": account_id,
        "issuer_id": issuer_id,
        "serial": serial_text(serial),
        "certificate_id": certificate_id,
        "revoked_at": revoked_at,
    }


def _insert(transaction: Transaction, rows: Sequence[dict[str, Any]]) -> None:
    """Enter rows that may be there; one that is there is revoked if the new one is."""
    dialect = sqlite if transaction.connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(schema.issued_certificates)
    revoked_at = func.coalesce(_D.revoked_at, statement.excluded.revoked_at)
    keys = [_D.account_id, _D.issuer_id, _D.serial]
    transaction.execute(
        statement.on_conflict_do_update(index_elements=keys, set_={"revoked_at": revoked_at}), list(rows)
    )


def follow(registry: Registry, account_id: str) -> bool:
    """Enter what the account's authorities issued elsewhere, from the next changes of the account's feed.

    Args:
        registry: where.
        account_id: whose.

    Returns:
        Whether there may be more: call it again.
    """
    with registry.database.read() as connection:
        issuers = connection.execute(select(_I.id, _I.der, _I.followed).where(_I.account_id == account_id)).all()
        if not issuers:
            return False
        after = min(row.followed for row in issuers)
        last = connection.execute(select(schema.server.c.revision)).scalar_one()
        query = (
            select(_H.revision, _H.at, _H.resource_id, _H.operation, _H.details)
            .where(_H.account_id == account_id, _H.revision > after, _H.resource_type == "certificate")
            .order_by(_H.revision)
        )
        changes = connection.execute(query.limit(_AT_ONCE)).all()
        more = len(changes) == _AT_ONCE
        # what was committed by now and is not among them is after the last of them, or no certificate's
        reached = changes[-1].revision if more else max(last, changes[-1].revision if changes else 0)
        revoked = {row.resource_id: row.at for row in reversed(changes) if _revokes(row.details)}
        found = _rows_of(connection, account_id, {row.resource_id for row in changes})
    authorities = [(row.id, read_der(bytes(row.der))) for row in issuers]
    rows = []
    for certificate_id, der in found:
        certificate = x509.load_der_x509_certificate(der)
        for issuer_id, authority in authorities:
            if is_issued_by(certificate, authority):
                serial, at = certificate.serial_number, revoked.get(certificate_id)
                rows.append(_row(account_id, issuer_id, serial, certificate_id, at))
                break
    if not changes and reached - after < _AT_ONCE:  # only changes of other things: their number need not be kept
        return False
    with registry.database.write(Actor(account_id, "worker:status-lists")) as transaction:
        if rows:
            _insert(transaction, rows)
        followed = update(schema.issuers).where(_I.account_id == account_id, _I.followed < reached)
        transaction.execute(followed.values(followed=reached))
    return more


def _revokes(details: dict[str, Any]) -> bool:
    status = details.get("status")
    return (status[-1] if isinstance(status, list) and status else status) == Status.REVOKED.value


def _rows_of(connection: Connection, account_id: str, ids: set[str]) -> list[tuple[str, bytes]]:
    """(id, DER) of certificates that the account has or had and that are not in the table."""
    found: dict[str, bytes] = {}
    for table in (schema.certificates, schema.former_certificates):
        for some in rows_in_chunks(sorted(ids)):
            query = select(table.c.id, table.c.der).where(table.c.account_id == account_id, table.c.id.in_(some))
            found.update({row.id: bytes(row.der) for row in connection.execute(query)})
    return list(found.items())


def is_issued_by(certificate: x509.Certificate, authority: Admitted) -> bool:
    """Whether it was this one of several authorities of the same name: quickly by what the certificate says."""
    if certificate.issuer.public_bytes() != authority.subject:
        return False
    try:
        said = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        wanted = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except (x509.ExtensionNotFound, ValueError):
        said = wanted = None
    if said is not None and said != wanted:
        return False
    return is_signed_by(read_der(certificate.public_bytes(Encoding.DER)), authority)
