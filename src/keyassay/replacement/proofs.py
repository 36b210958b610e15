"""How a device proves that a request for a new certificate is its own: the old key proves nothing any more.

Whoever has computed the old key has the device's session. So each replacement says what else has to be shown: see
``Kind``; docs/threat-model.md says what each one stops. The first request with a valid proof binds the thing: ``bind``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from sqlalchemy import Connection, select, update

from keyassay.registry.errors import InvalidError, RegistryError
from keyassay.registry.registry import Registry
from keyassay.replacement.units import Unit
from keyassay.storage import schema
from keyassay.storage.database import Transaction

_P = schema.replacement_proofs.c

#: begins every message that is signed or authenticated; another version is another message
PREFIX = b"keyassay-replacement-v1"
#: characters of a proof's value in base64: a signature of RSA-16384 fits
LARGEST_VALUE = 4_096
#: stands in for the secret of a thing that has none, so that this cannot be told by the time
_NO_SECRET = b"\0" * 32


class Kind(StrEnum):
    """What a proof is made with."""

    SECRET = "secret"  # noqa: S105  HMAC-SHA256 by the thing's claim secret, which is never sent
    CLAIM_CERTIFICATE = "claim-certificate"  # a signature by a claim certificate that is bound to things
    DEVICE_KEY = "device-key"  # a signature by another key of the device, registered by the operator
    APPROVAL = "approval"  # the operator approved the fingerprint of the request
    OLD_KEY = "old-key"  # the session alone: chosen knowingly


#: kinds that need no session, so that requests may also come over HTTPS
SESSIONLESS = (Kind.SECRET, Kind.CLAIM_CERTIFICATE, Kind.DEVICE_KEY, Kind.APPROVAL)

#: further kinds of rows of the table: the request that a unit is bound to, and requests that wait for an approval;
#: their column ``public_key`` has the DER of the request
REQUEST = "request"
WAITING = "waiting"


class UnprovenError(RegistryError):
    """The proof is missing, wrong, expired, or of another kind than the replacement asks for: it is not said which."""

    def __init__(self) -> None:
        super().__init__("the proof does not hold, or is not the one that the replacement asks for")


class NotApprovedError(RegistryError):
    """Nobody has approved this request yet."""

    def __init__(self) -> None:
        super().__init__("the request waits for an operator's approval")


def check_settings(settings: Mapping[str, Any]) -> None:
    """Make sure that a replacement says how its devices prove themselves.

    Args:
        settings: ``proof``, one of ``Kind``; ``trustOldKey`` is true if and only if that is old-key.

    Raises:
        InvalidError: it does not, or trusts the old key without saying so.
    """
    if settings.get("proof") not in set(Kind):
        raise InvalidError(f"how devices prove themselves has to be chosen: {', '.join(Kind)}")
    if (settings["proof"] == Kind.OLD_KEY) != bool(settings.get("trustOldKey")):
        raise InvalidError("that the old key proves anything has to be said by trustOldKey, and by nothing else")


def message(account_id: str, replacement_id: str, thing_name: str, csr_der: bytes) -> bytes:
    """What is signed or authenticated; no part can hold the separator, so that no two requests share a message."""
    parts = (
        PREFIX,
        account_id.encode(),
        replacement_id.encode(),
        thing_name.encode(),
        hashlib.sha256(csr_der).digest(),
    )
    return b"\0".join(parts)


def secret_place(account_id: str, replacement_id: str, thing_name: str, proof_id: str) -> str:
    """Where a sealed claim secret is, for ``Seal``."""
    return f"replacement-proof/{account_id}/{replacement_id}/{thing_name}/{proof_id}"


def verify(
    registry: Registry, connection: Connection, unit: Unit, csr_der: bytes, proof: Mapping[str, Any], now: int
) -> str:
    """Check the proof of a request.

    Args:
        registry: opens secrets.
        connection: of a read or a transaction.
        unit: that the request is about; its replacement says which kind is asked for.
        csr_der: the request.
        proof: as it came: {"kind": text, "value": base64}.
        now: milliseconds since 1970.

    Returns:
        The id of what proved it; "" for old-key.

    Raises:
        UnprovenError: it does not hold.
        NotApprovedError: the kind is approval, and there is none.
    """
    kind = Kind(unit.settings["proof"])
    if proof.get("kind") != kind:
        raise UnprovenError
    if kind is Kind.OLD_KEY:
        return ""
    digest = hashlib.sha256(csr_der).hexdigest()
    query = select(_P.id, _P.sealed_secret, _P.public_key).where(
        _P.account_id == unit.account_id,
        _P.replacement_id == unit.replacement_id,
        _P.thing_name == unit.thing_name,
        _P.kind == kind.value,
        _P.expires_at > now,
    )
    if kind is Kind.APPROVAL:
        found = connection.execute(query.where(_P.id == digest)).first()
        if found is None:
            raise NotApprovedError
        return digest
    value = _decoded(proof.get("value"))
    signed = message(unit.account_id, unit.replacement_id, unit.thing_name, csr_der)
    accepted = ""
    rows = connection.execute(query.order_by(_P.id)).all()
    if kind is Kind.SECRET:
        for row in rows:
            place = secret_place(unit.account_id, unit.replacement_id, unit.thing_name, row.id)
            if authentic(registry.seal.open(bytes(row.sealed_secret), place), signed, value):
                accepted = row.id
        if not rows:
            authentic(_NO_SECRET, signed, value)
    else:
        accepted = next((row.id for row in rows if signature_holds(bytes(row.public_key), value, signed)), "")
    if not accepted:
        raise UnprovenError
    return accepted


def forget_secrets(transaction: Transaction, replacement_id: str) -> None:
    """Remove the claim secrets of a replacement that has ended: what proved which request stays known."""
    its = (_P.account_id == transaction.account_id) & (_P.replacement_id == replacement_id)
    statement = update(schema.replacement_proofs).where(its, _P.kind == Kind.SECRET.value)
    transaction.execute(statement.values(sealed_secret=None, expires_at=transaction.now))


def verify_nothing(csr_der: bytes, proof: Mapping[str, Any]) -> None:
    """Take about the time of ``verify`` for a thing that does not exist, and raise.

    Raises:
        UnprovenError: always.
    """
    authentic(_NO_SECRET, message("", "", "", csr_der), _decoded(proof.get("value")))
    raise UnprovenError


def _decoded(value: object) -> bytes:
    """The bytes of a proof; empty, which proves nothing, if it has none."""
    if not isinstance(value, str) or len(value) > LARGEST_VALUE:
        return b""
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return b""


def authentic(secret: bytes, signed: bytes, value: bytes) -> bool:
    """Whether a value is the HMAC-SHA256 of a message, in constant time."""
    return hmac.compare_digest(hmac.digest(secret, signed, "sha256"), value)


def signature_holds(spki: bytes, signature: bytes, signed: bytes) -> bool:
    """Whether the key made the signature: RSA (PSS or PKCS #1 v1.5) and ECDSA with SHA-256, or Ed25519.

    Args:
        spki: subject public key info, DER.
        signature: ECDSA's is DER (X9.62), PSS may have a salt of any length.
        signed: the message.
    """
    try:
        key = load_der_public_key(spki)
        if isinstance(key, rsa.RSAPublicKey):
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)
            return any(_rsa_holds(key, signature, signed, one) for one in (padding.PKCS1v15(), pss))
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, signed)
        else:
            return False
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _rsa_holds(key: rsa.RSAPublicKey, signature: bytes, signed: bytes, how: padding.PKCS1v15 | padding.PSS) -> bool:
    try:
        key.verify(signature, signed, how, hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def bound_to(connection: Connection, unit: Unit) -> str | None:
    """The digest of the request that a unit is bound to; None before the first valid one."""
    query = select(_P.used_by).where(
        _P.account_id == unit.account_id,
        _P.replacement_id == unit.replacement_id,
        _P.thing_name == unit.thing_name,
        _P.id == unit.request_id,
    )
    return connection.execute(query).scalar() or unit.csr_digest


def bind(transaction: Transaction, unit: Unit, csr_der: bytes, proof_id: str) -> None:
    """Bind a unit to a request whose proof holds; an operator who tries it again (another request id) begins anew.

    Args:
        transaction: in which ``bound_to`` said None.
        unit: that the request is about.
        csr_der: the request.
        proof_id: from ``verify``.
    """
    digest = hashlib.sha256(csr_der).hexdigest()
    here = {"account_id": unit.account_id, "replacement_id": unit.replacement_id, "thing_name": unit.thing_name}
    used = {"used_by": digest, "used_at": transaction.now}
    transaction.execute(
        schema.replacement_proofs.insert().values(
            **here, id=unit.request_id, kind=REQUEST, public_key=csr_der, expires_at=0, **used
        )
    )
    if proof_id:
        its = [_P[name] == value for name, value in here.items()]
        transaction.execute(update(schema.replacement_proofs).where(*its, _P.id == proof_id).values(**used))
