"""Revocation lists of issuers: uploaded by operators or fetched, verified, the newest kept.

A list is verified by the key of an authority that the account has registered or issues with, or of an issuer that the
operator names with the list. Its place is its issuer's name and its source: the address it was fetched from, or for
uploads the key that signed it and the part of the issuer's certificates it is about. Lists of changes (delta) and of
other issuers' certificates (indirect) are not taken, since alone they say too little, or too much. The lists of our own
authorities are in ``status_lists.py``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import warnings
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, delete, func, select, update

from keyassay.registry.admission import Admitted, read_certificate, read_der
from keyassay.registry.errors import CertificateValidationError, InvalidError, LimitError, NotFoundError
from keyassay.registry.registry import Page, Registry, milliseconds
from keyassay.storage import schema
from keyassay.storage.database import Actor, Transaction

_L = schema.revocation_lists.c

#: bytes of a list; more is neither uploaded nor fetched
LARGEST_LIST = 10_000_000
#: lists that an account may hold
LISTS = 1_000


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A list as the account holds it, without its entries.

    Attributes:
        id: 32 hexadecimal digits.
        issuer: its issuer's name (RFC 4514).
        source: where it comes from: "upload/...", or an address.
        this_update, next_update, stored_at: milliseconds since 1970.
        size: bytes.
        entries: revoked certificates; None where they were not counted.
    """

    id: str
    issuer: str
    source: str
    this_update: int
    next_update: int | None
    stored_at: int
    size: int
    entries: int | None = None


@dataclass(frozen=True, slots=True)
class _Read:
    """A list that was read."""

    crl: x509.CertificateRevocationList
    der: bytes
    issuer: bytes
    this_update: int
    next_update: int | None
    number: int | None
    part: str


def decoded(text: str) -> bytes:
    """DER of a list in PEM or in base64.

    Raises:
        InvalidError: it is neither, or too large.
    """
    if len(text) > 2 * LARGEST_LIST:
        raise InvalidError(f"a revocation list has at most {LARGEST_LIST:,} bytes")
    try:
        if "-----BEGIN" in text:
            return der_of(text.encode("ascii"))
        return base64.b64decode("".join(text.split()), validate=True)
    except (ValueError, binascii.Error):
        raise InvalidError("this is no revocation list in PEM or base64") from None


def der_of(data: bytes) -> bytes:
    """DER of a list in PEM or DER, as servers send it.

    Raises:
        InvalidError: it is none.
    """
    if b"-----BEGIN" not in data[:4_096]:
        return data
    try:
        return x509.load_pem_x509_crl(data).public_bytes(Encoding.DER)
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidError("this is no revocation list in PEM") from None


def _read(der: bytes) -> _Read:
    if len(der) > LARGEST_LIST:
        raise InvalidError(f"a revocation list has at most {LARGEST_LIST:,} bytes")
    number, part = None, ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            crl = x509.load_der_x509_crl(der)
            issuer = crl.issuer.public_bytes()
            for extension in crl.extensions:
                value = extension.value
                if isinstance(value, x509.DeltaCRLIndicator):
                    raise InvalidError("a list of changes only (delta) is not taken: upload the whole one")
                if isinstance(value, x509.IssuingDistributionPoint):
                    if value.indirect_crl:
                        raise InvalidError("a list of other issuers' certificates (indirect) is not taken")
                    part = "/" + hashlib.sha256(value.public_bytes()).hexdigest()[:16]
                elif isinstance(value, x509.CRLNumber):
                    number = value.crl_number
                elif extension.critical:
                    raise InvalidError(f"the list has a critical extension {extension.oid.dotted_string}")
            updates = crl.last_update_utc, crl.next_update_utc
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidError("this is no revocation list") from None
    next_update = None if updates[1] is None else milliseconds(updates[1].timestamp())
    return _Read(crl, der, issuer, milliseconds(updates[0].timestamp()), next_update, number, part)


def upload(registry: Registry, actor: Actor, text: str, *, issuer_pem: str | None = None) -> RevocationList:
    """Take a list that an operator has.

    Args:
        registry: where.
        actor: who, and in which account.
        text: the list, PEM or DER in base64.
        issuer_pem: the certificate of its issuer, if the account has not registered it: a root, for instance.

    Raises:
        InvalidError: unreadable, too large, not whole, or older than the one that is there.
        CertificateValidationError: no authority of the account signed it, nor the issuer that was named.
        LimitError: the account holds too many.
    """
    read = _read(decoded(text))
    named = None if issuer_pem is None else read_certificate(issuer_pem)
    with registry.database.write(actor) as transaction:
        signer = _signer(transaction.connection, actor.account_id, read, named)
        return _store(transaction, read, f"upload/{signer.spki_digest.hex()[:16]}{read.part}", "UploadRevocationList")


def enter(registry: Registry, actor: Actor, data: bytes, source: str) -> RevocationList:
    """Take a list that was fetched from an address.

    Raises:
        As ``upload``.
    """
    read = _read(der_of(data))
    with registry.database.write(actor) as transaction:
        _signer(transaction.connection, actor.account_id, read, None)
        return _store(transaction, read, source[:400], "FetchRevocationList")


def _signer(connection: Connection, account_id: str, read: _Read, named: Admitted | None) -> Admitted:
    """The authority whose key made the list's signature."""
    known = [named] if named is not None else []
    authorities, issuers = schema.authorities.c, schema.issuers.c
    digest = hashlib.sha256(read.issuer).digest()
    query = select(authorities.der).where(authorities.account_id == account_id, authorities.subject_digest == digest)
    known += [read_der(bytes(der)) for der in connection.execute(query).scalars()]
    query = select(issuers.der).where(issuers.account_id == account_id)
    known += [read_der(bytes(der)) for der in connection.execute(query).scalars()]
    for one in known:
        if one.subject == read.issuer and _signs_lists(one) and _is_signed(read, one):
            return one
    raise CertificateValidationError(
        "no authority of the account signed the list, nor the issuer that was named with it"
        if named is not None
        else "no authority of the account signed the list: name its issuer's certificate with it"
    )


def _signs_lists(authority: Admitted) -> bool:
    try:
        extensions = authority.certificate.extensions
        if not extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
    except (x509.ExtensionNotFound, ValueError):
        return False
    try:
        return extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return True  # old authorities say nothing of what their keys are for


def _is_signed(read: _Read, authority: Admitted) -> bool:
    key: Any = authority.certificate.public_key()
    try:
        return read.crl.is_signature_valid(key)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def _store(transaction: Transaction, read: _Read, source: str, operation: str) -> RevocationList:
    account_id, digest = transaction.account_id, hashlib.sha256(read.issuer).digest()
    if read.this_update > transaction.now + 86_400_000:
        raise InvalidError("the list is dated in the future")
    here = (_L.account_id == account_id) & (_L.issuer_digest == digest) & (_L.source == source)
    present = transaction.execute(select(_L.der).where(here)).scalar()
    row = {
        "der": read.der,
        "this_update": read.this_update,
        "next_update": read.next_update,
        "stored_at": transaction.now,
    }
    made = _shown({**row, "issuer_digest": digest, "source": source, "size": len(read.der)}, read)
    if present is None:
        held = transaction.execute(select(func.count()).where(_L.account_id == account_id)).scalar_one()
        if held >= LISTS:
            raise LimitError(f"an account holds at most {LISTS} revocation lists")
        key = {"account_id": account_id, "issuer_digest": digest, "source": source}
        transaction.execute(schema.revocation_lists.insert().values(**key, **row))
    elif bytes(present) == read.der:
        transaction.execute(update(schema.revocation_lists).where(here).values(stored_at=transaction.now))
        return made
    else:
        if _age(_read(bytes(present))) > _age(read):
            raise InvalidError("a newer list of this issuer is there")
        transaction.execute(update(schema.revocation_lists).where(here).values(row))
    details = {"source": source, "entries": made.entries, "thisUpdate": read.this_update}
    transaction.record(operation, "revocation-list", made.id, details)
    return made


def _age(read: _Read) -> tuple[int, int]:
    return read.this_update, read.number or 0


def _id(issuer_digest: bytes, source: str) -> str:
    return hashlib.sha256(bytes(issuer_digest) + source.encode()).hexdigest()[:32]


def _shown(row: Any, read: _Read | None = None) -> RevocationList:
    return RevocationList(
        _id(row["issuer_digest"], row["source"]),
        "" if read is None else read.crl.issuer.rfc4514_string(),
        row["source"],
        row["this_update"],
        row["next_update"],
        row["stored_at"],
        row["size"],
        None if read is None else len(read.crl),
    )


def listed(
    registry: Registry, actor: Actor, *, token: str | None = None, size: int | None = None
) -> Page[RevocationList]:
    """A page of the account's lists, in the order in which they came."""
    with registry.database.read() as connection:
        page = registry.page(
            connection,
            select(schema.revocation_lists).where(_L.account_id == actor.account_id),
            (_L.stored_at, _L.source),
            scope=(actor.account_id, "revocation-lists"),
            token=token,
            size=min(size or 10, 10),  # each may have ten megabytes
        )
    rows = [_shown({**row, "size": len(row["der"])}, _read(bytes(row["der"]))) for row in page.rows]
    return Page(rows, page.next_token)


def remove(registry: Registry, actor: Actor, list_id: str) -> None:
    """Forget a list.

    Raises:
        NotFoundError: there is none of that id.
    """
    query = select(_L.issuer_digest, _L.source).where(_L.account_id == actor.account_id)
    with registry.database.write(actor) as transaction:
        rows = transaction.execute(query).all()
        for row in rows:
            if _id(row.issuer_digest, row.source) == list_id:
                here = (_L.issuer_digest == row.issuer_digest) & (_L.source == row.source)
                transaction.execute(delete(schema.revocation_lists).where(_L.account_id == actor.account_id, here))
                transaction.record("DeleteRevocationList", "revocation-list", list_id, {"source": row.source})
                return
        raise NotFoundError("there is no such revocation list")
