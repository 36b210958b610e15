"""The account's own authority, and what it issues: certificates for requests, and pairs of keys for devices.

An authority's key is sealed at rest and opened for one signature, or it stays in a token, which is asked for each. The
newest active authority issues; older ones stay, since what they issued has to be checked. Keys that are made for
devices are returned once and never stored.

The row of an authority whose key is in a token has its URI in the clear, for people, and sealed, which is what counts:
who can write to the database cannot send the registry to another library or file.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ssl import DER_cert_to_PEM_cert
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID
from sqlalchemy import Connection, RowMapping, select, update

from keyassay.errors import KeyassayError
from keyassay.registry import token_keys
from keyassay.registry.admission import LARGEST_PEM, check_authority, key_problem, read_certificate, read_der
from keyassay.registry.certificates import Registered, add
from keyassay.registry.errors import AlreadyExistsError, BrokenKeyError, InvalidError, NotFoundError
from keyassay.registry.issued import enter
from keyassay.registry.lifecycle import Status
from keyassay.registry.registry import Registry
from keyassay.registry.token_uri import TokenUri
from keyassay.storage import schema
from keyassay.storage.database import Actor, Transaction

_I = schema.issuers.c

#: the end of AWS's own device certificates, and of ours
LAST_MOMENT = datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
#: devices with slow clocks shall find a new certificate valid
_EARLIER = timedelta(minutes=5)
_DEVICE_KEY_BITS = 2_048
_AUTHORITY_USAGE = x509.KeyUsage(
    digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
    data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate just issued, with its key pair if that was made here: the only place where it is seen."""

    registered: Registered
    certificate_pem: str
    public_key_pem: str = ""
    private_key_pem: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Issuer:
    """An authority of an account as lists show it.

    Attributes:
        key_uri: of its key in a token; "" for a key in the database.
    """

    id: str
    subject: str
    not_after: int
    active: bool
    created_at: int
    key_uri: str = ""


def make_issuer(registry: Registry, actor: Actor, *, common_name: str = "") -> Issuer:
    """Make an authority (P-256, until the end of 2049); it issues from now on.

    Args:
        registry: where.
        actor: whose.
        common_name: of its subject.
    """
    with registry.database.write(actor) as transaction:
        return _make(registry, transaction, common_name or f"keyassay {actor.account_id}")


def _make(registry: Registry, transaction: Transaction, common_name: str) -> Issuer:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _self_signed(key, common_name, transaction.now)
    return _enter(registry, transaction, "CreateIssuer", certificate, _pkcs8(key))


def _self_signed(key: Any, common_name: str, now: int) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    started = datetime.fromtimestamp(now / 1000, UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(started - _EARLIER)
        .not_valid_after(LAST_MOMENT)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_AUTHORITY_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def make_token_issuer(registry: Registry, actor: Actor, uri: str, *, common_name: str = "") -> Issuer:
    """Make an authority whose key is in a token; it issues from now on.

    Args:
        registry: where.
        actor: whose.
        uri: ``pkcs11:``; of a key that is in the token, or of one that is made there (P-256).
        common_name: of its subject.

    Raises:
        InvalidError: the URI is none, or the key is not accepted.
        AlreadyExistsError: an authority has the key already: a rotation has to name another one.
        SigningUnavailableError: the token cannot be used.
    """
    asked = TokenUri.parse(uri)
    with registry.database.read() as connection:
        taken = {read_der(bytes(der)).spki: issuer for issuer, der in connection.execute(select(_I.id, _I.der))}
    named = token_keys.identify(asked) if asked.names_a_key else None
    if named is not None:
        key = token_keys.public_half(named)
        if problem := key_problem(key):
            raise InvalidError(problem)
        if (issuer_id := taken.get(_spki(key))) is not None:
            raise AlreadyExistsError("an authority has this key already; for a rotation name another one", issuer_id)
    else:
        named, key = token_keys.make_pair(asked, f"keyassay {actor.account_id} {secrets.token_hex(4)}")
    signer = token_keys.key_of(named, key)
    certificate = _self_signed(signer, common_name or f"keyassay {actor.account_id}", time.time_ns() // 1_000_000)
    with registry.database.write(actor) as transaction:
        return _enter(registry, transaction, "CreateIssuer", certificate, str(named))


def import_token_issuer(registry: Registry, actor: Actor, pem: str, uri: str) -> Issuer:
    """Take an authority whose key is in a token and whose certificate was made elsewhere; it issues from now on.

    Args:
        registry: where.
        actor: whose.
        pem: its certificate.
        uri: ``pkcs11:``, of its private key.

    Raises:
        InvalidError: unreadable, there is no such key, or it is not the certificate's.
        CertificateValidationError: no authority, expired.
        AlreadyExistsError: it is there.
        SigningUnavailableError: the token cannot be used.
    """
    admitted = read_certificate(pem)
    check_authority(admitted, time.time_ns() // 1_000_000)
    asked = TokenUri.parse(uri)
    if not asked.names_a_key:
        raise InvalidError("the pkcs11: URI names no key: object=LABEL or id= does")
    named = token_keys.identify(asked)
    if named is None:
        raise InvalidError(f"the token {asked.token_name} has no private key {asked.key_name}")
    try:  # the token's answer has to hold for the certificate's key
        _request(token_keys.key_of(named, admitted.certificate.public_key()), "the key of the certificate?")
    except token_keys.WrongKeyError:
        raise InvalidError("the private key is not the certificate's") from None
    with registry.database.write(actor) as transaction:
        return _enter(registry, transaction, "ImportIssuer", admitted.certificate, str(named))


def request_for_token(uri: str, common_name: str) -> str:
    """A request (PEM) for an authority's certificate, to be signed elsewhere; ``import_token_issuer`` takes what comes.

    Args:
        uri: ``pkcs11:``, of a key that is in the token, or of one that is made there (P-256).
        common_name: of its subject.

    Raises:
        InvalidError: the URI is none or names no key, or the key is not accepted.
        SigningUnavailableError: the token cannot be used.
    """
    asked = TokenUri.parse(uri)
    if not asked.names_a_key:
        raise InvalidError("the pkcs11: URI names no key: object=LABEL or id= does")
    named = token_keys.identify(asked)
    if named is not None:
        key: Any = token_keys.public_half(named)
        if problem := key_problem(key):
            raise InvalidError(problem)
    else:
        named, key = token_keys.make_pair(asked, "")
    return _request(token_keys.key_of(named, key), common_name).public_bytes(Encoding.PEM).decode()


def _request(signer: Any, common_name: str) -> x509.CertificateSigningRequest:
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_AUTHORITY_USAGE, critical=True)
        .sign(signer, hashes.SHA256())
    )


def import_issuer(registry: Registry, actor: Actor, pem: str, key_pem: bytes, password: bytes | None = None) -> Issuer:
    """Take an authority that was made elsewhere; it issues from now on.

    Args:
        registry: where.
        actor: whose.
        pem: its certificate.
        key_pem: its private key.
        password: of the key.

    Raises:
        InvalidError: unreadable, or the key is not the certificate's.
        CertificateValidationError: no authority, expired.
        AlreadyExistsError: it is there.
    """
    admitted = read_certificate(pem)
    try:
        key = load_pem_private_key(key_pem, password)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidError("the private key cannot be read; is there a password?") from None
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise InvalidError("the private key of an authority is RSA or on a curve")
    if _spki(key.public_key()) != _spki(admitted.certificate.public_key()):
        raise InvalidError("the private key is not the certificate's")
    with registry.database.write(actor) as transaction:
        check_authority(admitted, transaction.now)
        return _enter(registry, transaction, "ImportIssuer", admitted.certificate, _pkcs8(key))


def _spki(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _pkcs8(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _enter(
    registry: Registry, transaction: Transaction, operation: str, certificate: x509.Certificate, key: bytes | str
) -> Issuer:
    """Keep an authority with its key (PKCS #8), or the URI of that."""
    der = certificate.public_bytes(Encoding.DER)
    issuer_id = hashlib.sha256(der).hexdigest()
    mine = _I.account_id == transaction.account_id
    if transaction.execute(select(_I.id).where(mine, _I.id == issuer_id)).first() is not None:
        raise AlreadyExistsError("the authority is there already", issuer_id)
    transaction.execute(update(schema.issuers).where(mine).values(active=False))
    key_uri = key if isinstance(key, str) else None
    secret, place = (key, key_place) if isinstance(key, bytes) else (key.encode(), uri_place)
    row = {
        "account_id": transaction.account_id,
        "id": issuer_id,
        "der": der,
        "sealed_key": registry.seal.seal(secret, place(transaction.account_id, issuer_id)),
        "key_reference": key_uri,
        "active": True,
        "created_at": transaction.now,
        "spki_digest": hashlib.sha256(_spki(certificate.public_key())).digest(),
    }
    transaction.execute(schema.issuers.insert().values(row))
    transaction.record(operation, "issuer", issuer_id, {"key": "database" if key_uri is None else "token"})
    return Issuer(
        issuer_id,
        certificate.subject.rfc4514_string(),
        round(certificate.not_valid_after_utc.timestamp() * 1000),
        active=True,
        created_at=transaction.now,
        key_uri=key_uri or "",
    )


def key_place(account_id: str, issuer_id: str) -> str:
    """Where the sealed key of an authority is, for ``Seal``."""
    return f"issuer/{account_id}/{issuer_id}"


def uri_place(account_id: str, issuer_id: str) -> str:
    """Where the sealed URI of an authority's key in a token is, for ``Seal``."""
    return f"issuer-token/{account_id}/{issuer_id}"


def signer_of(registry: Registry, row: RowMapping) -> Any:
    """The private key of an authority, as cryptography's builders take it.

    Args:
        registry: where.
        row: of the authority; its key has to be here (``sealed_key``).

    Raises:
        KeyassayError: what is sealed does not open, or was altered.

    A signature by a key in a token raises SigningUnavailableError where the token cannot be used.
    """
    account_id, issuer_id, sealed = row["account_id"], row["id"], bytes(row["sealed_key"])
    if row["key_reference"] is None:
        return load_der_private_key(registry.seal.open(sealed, key_place(account_id, issuer_id)), None)
    uri = registry.seal.open(sealed, uri_place(account_id, issuer_id)).decode()
    if uri != row["key_reference"]:
        raise KeyassayError(f"the key's name of {uri_place(account_id, issuer_id)} was altered")
    return token_keys.key_of(TokenUri.parse(uri), x509.load_der_x509_certificate(bytes(row["der"])).public_key())


def issuers(registry: Registry, actor: Actor) -> list[Issuer]:
    """The authorities of an account, newest first."""
    query = select(schema.issuers).where(_I.account_id == actor.account_id)
    with registry.database.read() as connection:
        rows = connection.execute(query.order_by(_I.created_at.desc(), _I.id)).mappings().all()
    found = []
    for row in rows:
        admitted = read_der(bytes(row["der"]))
        subject = admitted.certificate.subject.rfc4514_string()
        found.append(
            Issuer(row["id"], subject, admitted.not_after, row["active"], row["created_at"], row["key_reference"] or "")
        )
    return found


def issuer_pem(registry: Registry, actor: Actor, issuer_id: str = "") -> str:
    """PEM of an authority, of the one that issues if none is named.

    Raises:
        NotFoundError: there is none.
    """
    with registry.database.read() as connection:
        row = issuer_row(connection, actor.account_id, issuer_id)
    if row is None:
        raise NotFoundError("there is no such authority")
    return DER_cert_to_PEM_cert(bytes(row["der"]))


def issuer_row(connection: Connection, account_id: str, issuer_id: str = "") -> RowMapping | None:
    """The row of an authority of an account, of the one that issues if none is named; None if there is none."""
    query = select(schema.issuers).where(_I.account_id == account_id)
    query = query.where(_I.id == issuer_id) if issuer_id else query.where(_I.active)
    return connection.execute(query.order_by(_I.created_at.desc()).limit(1)).mappings().first()


def certify_request(registry: Registry, actor: Actor, pem: str, *, set_as_active: bool = False) -> Issued:
    """Issue a certificate for a request; the same request again gives a second certificate.

    The first certificate of an account that has no authority makes one.

    Raises:
        InvalidError: unreadable, its signature does not hold, or its key is not accepted (nor by screening).
    """
    if len(pem) > LARGEST_PEM:
        raise InvalidError(f"a request has at most {LARGEST_PEM} characters")
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key = request.public_key()
        holds = request.is_signature_valid
        subject = request.subject
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, UnicodeEncodeError):
        raise InvalidError("this is no certificate signing request in PEM") from None
    if not holds:
        raise InvalidError("the request's signature does not hold")
    problem = key_problem(key)
    if problem:
        raise InvalidError(problem)
    return _issue(registry, actor, "CreateCertificateFromCsr", subject, key, set_as_active=set_as_active)


def make_keys(registry: Registry, actor: Actor, *, set_as_active: bool = False) -> Issued:
    """Make an RSA-2048 key pair and a certificate for it; the private key is in the result and nowhere else."""
    key = rsa.generate_private_key(65537, _DEVICE_KEY_BITS)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "keyassay device certificate")])
    issued = _issue(registry, actor, "CreateKeysAndCertificate", subject, key.public_key(), set_as_active=set_as_active)
    return Issued(
        issued.registered,
        issued.certificate_pem,
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode(),
    )


def _issue(
    registry: Registry,
    actor: Actor,
    operation: str,
    subject: x509.Name,
    key: CertificatePublicKeyTypes,
    *,
    set_as_active: bool,
) -> Issued:
    examined = registry.examine(_spki(key))
    signed = sign_ahead(registry, actor.account_id, subject, key)
    with registry.database.write(actor) as transaction:
        status = Status.ACTIVE if set_as_active else Status.INACTIVE
        try:
            return issue(registry, transaction, operation, subject, key, status, examined, signed)
        except BrokenKeyError as error:  # the API knows no other error for requests
            raise InvalidError(error.message) from None


def sign_ahead(
    registry: Registry, account_id: str, subject: x509.Name, key: CertificatePublicKeyTypes
) -> Signed | None:
    """Sign a certificate before the transaction that enters it (``issue``): a token takes its time.

    Args:
        registry: where.
        account_id: whose authority signs.
        subject: of the certificate.
        key: that was accepted (``key_problem``), and that its holder has proved to have.

    Returns:
        None if the account has no authority yet.

    Raises:
        SigningUnavailableError: the authority's key is in a token that cannot be used.
    """
    with registry.database.read() as connection:
        row = issuer_row(connection, account_id)
    return None if row is None else _sign(registry, row, subject, key)


def issue(
    registry: Registry,
    transaction: Transaction,
    operation: str,
    subject: x509.Name,
    key: CertificatePublicKeyTypes,
    status: Status,
    examined: object,
    signed: Signed | None = None,
) -> Issued:
    """Issue and register a certificate inside a transaction; an account without an authority gets one.

    Args:
        registry: where.
        transaction: of the account.
        operation: for the record of changes.
        subject: of the certificate.
        key: that was accepted (``key_problem``), and that its holder has proved to have.
        status: of the certificate.
        examined: what ``registry.examine`` said of the key before the transaction.
        signed: a certificate that was signed before; it counts if its authority still issues.

    Raises:
        BrokenKeyError: screening refuses the key.
        SigningUnavailableError: the authority's key is in a token that cannot be used.
    """
    row = issuer_row(transaction.connection, transaction.account_id)
    if row is None:
        _make(registry, transaction, f"keyassay {transaction.account_id}")
        row = issuer_row(transaction.connection, transaction.account_id)
        assert row is not None
    if signed is None or signed.issuer_id != row["id"]:
        signed = _sign(registry, row, subject, key)
    pem = signed.certificate.public_bytes(Encoding.PEM).decode()
    admitted = read_certificate(pem)
    enter(transaction, row["id"], signed.certificate.serial_number, admitted.id)
    registered = add(registry, transaction, operation, admitted, status, "DEFAULT", examined)
    return Issued(registered, pem)


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate that an authority has signed and that is not entered yet."""

    issuer_id: str
    certificate: x509.Certificate


def _sign(registry: Registry, row: RowMapping, subject: x509.Name, key: CertificatePublicKeyTypes) -> Signed:
    """A device certificate by the authority of ``row``."""
    authority = x509.load_der_x509_certificate(bytes(row["der"]))
    started = datetime.now(UTC).replace(microsecond=0)
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=False, crl_sign=False, content_commitment=False,
        key_encipherment=isinstance(key, rsa.RSAPublicKey), data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(started - _EARLIER, authority.not_valid_before_utc))
        .not_valid_after(min(LAST_MOMENT, authority.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(authority_identifier(authority), critical=False)
    )
    if registry.public_url:
        public = public_addresses(registry, row["account_id"], row["id"])
        ocsp = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(public.ocsp))
        builder = builder.add_extension(x509.CRLDistributionPoints([point_of(public.complete)]), critical=False)
        builder = builder.add_extension(x509.FreshestCRL([point_of(public.delta)]), critical=False)
        builder = builder.add_extension(x509.AuthorityInformationAccess([ocsp]), critical=False)
    return Signed(row["id"], builder.sign(signer_of(registry, row), hashes.SHA256()))


@dataclass(frozen=True, slots=True)
class PublicAddresses:
    """Where an authority's revocation lists and its OCSP responder are."""

    complete: str
    delta: str
    ocsp: str


def public_addresses(registry: Registry, account_id: str, issuer_id: str) -> PublicAddresses:
    """The addresses of an authority, below the registry's public one."""
    base = f"{registry.public_url.rstrip('/')}/{account_id}/{issuer_id}"
    return PublicAddresses(f"{base}.crl", f"{base}.delta.crl", f"{base}/ocsp")


def point_of(url: str) -> x509.DistributionPoint:
    """An address as certificates and lists name it."""
    return x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)


def authority_identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """How what an authority signs names its key."""
    try:
        identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        key: Any = authority.public_key()
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
