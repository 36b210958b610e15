"""What operators give the registry so that devices can prove themselves: secrets, claim certificates, keys, approvals.

Everything belongs to one replacement and to things of it, and expires. Claim secrets are returned once and kept sealed;
whoever brings them to the devices does so out of band.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from sqlalchemy import Connection, delete, exists, select, update

from keyassay.registry.admission import key_problem, read_certificate
from keyassay.registry.errors import InvalidError, NotFoundError
from keyassay.registry.registry import Page, Registry
from keyassay.replacement import issuing, proofs, units
from keyassay.replacement.proofs import Kind
from keyassay.storage import schema
from keyassay.storage.database import Actor, Transaction, rows_in_chunks

_C = schema.certificates.c
_P = schema.replacement_proofs.c
_R = schema.replacements.c
_U = schema.replacement_units.c

#: things that one call may name
MOST = 1_000
#: seconds that a proof may be valid
SHORTEST, LONGEST = 60, 400 * 86_400
_SECRET_BYTES = 32
_DIGEST = re.compile(r"[0-9a-f]{64}")


def make_secrets(
    registry: Registry, actor: Actor, replacement_id: str, seconds: int, things: Sequence[str] = ()
) -> tuple[list[tuple[str, str]], bool]:
    """Make claim secrets; they are returned here and never again.

    Args:
        registry: where.
        actor: who.
        replacement_id: whose proof is "secret".
        seconds: until they expire.
        things: which; an earlier secret of theirs is good for nothing from now on. Without: the next of those that
            have no valid one.

    Returns:
        (thing, secret in base64), and whether other things still have none.

    Raises:
        InvalidError: another kind of proof, a wrong time, too many things or some that are not in the replacement.
        NotFoundError: no such replacement.
    """
    with registry.database.write(actor) as transaction:
        until = _begin(transaction, replacement_id, Kind.SECRET, seconds)
        if things:
            _check_things(transaction, replacement_id, things)
            chosen, more = sorted(set(things)), False
        else:
            found = _without_secret(transaction, replacement_id)
            chosen, more = found[:MOST], len(found) > MOST
        made = {thing: secrets.token_bytes(_SECRET_BYTES) for thing in chosen}
        _keep_secrets(registry, transaction, replacement_id, made, until)
        if made:
            transaction.record("CreateClaimSecrets", "replacement", replacement_id, {"things": len(made)})
    return [(thing, base64.b64encode(secret).decode()) for thing, secret in made.items()], more


def import_secrets(
    registry: Registry, actor: Actor, replacement_id: str, seconds: int, given: Mapping[str, str]
) -> None:
    """Take claim secrets that the devices have already: base64 of 16 to 64 bytes, of each thing its own.

    Raises:
        InvalidError: as ``make_secrets``; a secret is none, too short, or one of two things.
    """
    decoded = {thing: _secret(thing, text) for thing, text in given.items()}
    if len(set(decoded.values())) != len(decoded):
        raise InvalidError("two things have the same secret: each needs its own")
    with registry.database.write(actor) as transaction:
        until = _begin(transaction, replacement_id, Kind.SECRET, seconds)
        _check_things(transaction, replacement_id, list(decoded))
        _keep_secrets(registry, transaction, replacement_id, decoded, until)
        transaction.record("ImportClaimSecrets", "replacement", replacement_id, {"things": len(decoded)})


def _secret(thing: str, text: str) -> bytes:
    try:
        secret = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not 16 <= len(secret) <= 64:
        raise InvalidError(f"the secret of {thing[:128]!r} is not base64 of 16 to 64 bytes")
    return secret


def add_claim_certificate(
    registry: Registry, actor: Actor, replacement_id: str, seconds: int, pem: str, things: Sequence[str]
) -> str:
    """Let a claim certificate prove requests of some things, of each one.

    Args:
        registry: where.
        actor: who.
        replacement_id: whose proof is "claim-certificate".
        seconds: until it proves nothing more; at the end of its own validity at the latest.
        pem: the certificate; whoever signed it, the operator vouches for it.
        things: that it is bound to.

    Returns:
        Its id among the proofs.

    Raises:
        InvalidError: as ``make_secrets``; it has expired, its key is not accepted, weak, or a certificate's here.
    """
    admitted = read_certificate(pem)
    if problem := key_problem(admitted.certificate.public_key()):
        raise InvalidError(problem)
    _check_sound(admitted.spki)
    with registry.database.write(actor) as transaction:
        until = min(_begin(transaction, replacement_id, Kind.CLAIM_CERTIFICATE, seconds), admitted.not_after)
        if not admitted.not_before <= transaction.now < until:
            raise InvalidError("the claim certificate is not valid now")
        _check_things(transaction, replacement_id, things)
        _check_not_registered(transaction.connection, transaction.account_id, [admitted.spki_digest])
        keys = dict.fromkeys(things, admitted.spki)
        _keep_keys(transaction, replacement_id, Kind.CLAIM_CERTIFICATE, keys, until)
        details = {"claimCertificateId": admitted.id, "things": len(keys)}
        transaction.record("AddClaimCertificate", "replacement", replacement_id, details)
    return admitted.spki_digest.hex()


def register_keys(
    registry: Registry, actor: Actor, replacement_id: str, seconds: int, given: Mapping[str, str]
) -> None:
    """Register other keys that devices hold: RSA, P-256 to P-521 or Ed25519, PEM, of each thing its own.

    Raises:
        InvalidError: as ``make_secrets``; a key is none, weak, a certificate's here, or several things'.
    """
    keys = {thing: _public_key(thing, pem) for thing, pem in given.items()}
    if len(set(keys.values())) != len(keys):
        raise InvalidError("two things have the same key, which proves neither")
    digests = [hashlib.sha256(spki).digest() for spki in keys.values()]
    with registry.database.write(actor) as transaction:
        until = _begin(transaction, replacement_id, Kind.DEVICE_KEY, seconds)
        _check_things(transaction, replacement_id, list(keys))
        _check_not_registered(transaction.connection, transaction.account_id, digests)
        for some in rows_in_chunks([one.hex() for one in digests]):
            others = select(_P.thing_name, _P.id).where(*_of(transaction, replacement_id), _P.id.in_(some))
            for row in transaction.execute(others):
                if hashlib.sha256(keys.get(row.thing_name, b"")).hexdigest() != row.id:
                    raise InvalidError(
                        f"a key given here is already that of {row.thing_name!r}, and would prove neither"
                    )
        _keep_keys(transaction, replacement_id, Kind.DEVICE_KEY, keys, until)
        transaction.record("RegisterDeviceKeys", "replacement", replacement_id, {"things": len(keys)})


def _public_key(thing: str, pem: str) -> bytes:
    try:
        key = load_pem_public_key(pem.encode())
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidError(f"the key of {thing[:128]!r} is no public key in PEM") from None
    if not isinstance(key, ed25519.Ed25519PublicKey):
        problem = key_problem(key)  # type: ignore[arg-type]  # of other kinds it says that they are not accepted
        if problem:
            raise InvalidError(f"the key of {thing[:128]!r} is not accepted: {problem}")
        _check_sound(spki)
    return spki


def _check_sound(spki: bytes) -> None:
    if problem := issuing.weakness(spki):
        raise InvalidError(f"the key proves nothing: {problem}")


def approve(
    registry: Registry, actor: Actor, replacement_id: str, seconds: int, given: Iterable[tuple[str, str]]
) -> None:
    """Approve requests, whether they wait or come later; devices that wait are told.

    Args:
        registry: where.
        actor: who.
        replacement_id: whose proof is "approval".
        seconds: until the approvals expire.
        given: (thing, hexadecimal SHA-256 of the DER of its request), one for each thing.

    Raises:
        InvalidError: as ``make_secrets``; no digest; two requests of a thing.
    """
    chosen = dict(given_once(given))
    with registry.database.write(actor) as transaction:
        until = _begin(transaction, replacement_id, Kind.APPROVAL, seconds)
        _check_things(transaction, replacement_id, list(chosen))
        rows = []
        for some in rows_in_chunks(sorted(chosen)):
            replaced = (_P.kind == Kind.APPROVAL.value) & _P.used_by.is_(None) | (_P.kind == proofs.WAITING)
            here = (*_of(transaction, replacement_id), _P.thing_name.in_(some))
            gone = select(_P.thing_name, _P.id, _P.kind, _P.used_by).where(*here)
            for row in transaction.execute(gone).all():
                if row.kind == Kind.APPROVAL and row.used_by and row.id != chosen[row.thing_name]:
                    raise InvalidError(f"another request of {row.thing_name!r} was approved and has its certificate")
            transaction.execute(
                delete(schema.replacement_proofs).where(
                    *here, replaced, (_P.kind != proofs.WAITING) | _P.id.in_([chosen[one] for one in some])
                )
            )
            kept = set(
                transaction.execute(select(_P.thing_name).where(*here, _P.kind == Kind.APPROVAL.value)).scalars()
            )
            rows += [
                _row(transaction, replacement_id, thing, chosen[thing], Kind.APPROVAL, until)
                for thing in some
                if thing not in kept
            ]
        if rows:
            transaction.execute(schema.replacement_proofs.insert(), rows)
        for thing, digest in chosen.items():
            transaction.record("ApproveRequest", "replacement", replacement_id, {"thing": thing, "csrSha256": digest})
        for some in rows_in_chunks(sorted(chosen)):
            waiting = units.query(transaction.account_id).where(_U.replacement_id == replacement_id)
            for found in transaction.execute(waiting.where(_U.thing_name.in_(some), _U.open)).mappings().all():
                unit = units.read(found)
                if unit.is_served:
                    issuing.notify(transaction, unit)


def given_once(given: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Things with digests, in lower case, each thing once.

    Raises:
        InvalidError: a digest is none, or a thing has two.
    """
    found: dict[str, str] = {}
    for thing, text in given:
        digest = text.lower().replace(":", "")
        if not _DIGEST.fullmatch(digest):
            raise InvalidError("the fingerprint of a request is its SHA-256, 64 hexadecimal digits")
        if found.setdefault(thing, digest) != digest:
            raise InvalidError(f"two requests of {thing[:128]!r} are to be approved: one of them is not its device's")
    return list(found.items())


def waiting(
    registry: Registry, actor: Actor, replacement_id: str, *, token: str | None = None, size: int | None = None
) -> Page[dict[str, Any]]:
    """A page of the requests that wait for an approval, by thing: thing, digest, when it came, kind of key.

    Raises:
        NotFoundError: no such replacement.
        InvalidError: a foreign token.
    """
    with registry.database.read() as connection:
        _settings(connection, actor.account_id, replacement_id)
        query = select(_P.thing_name, _P.id, _P.used_at, _P.public_key).where(
            _P.account_id == actor.account_id,
            _P.replacement_id == replacement_id,
            _P.kind == proofs.WAITING,
            _P.expires_at > time.time_ns() // 1_000_000,
        )
        scope = (actor.account_id, "waiting-requests", replacement_id)
        page = registry.page(connection, query, (_P.thing_name, _P.id), scope=scope, token=token, size=size)
    rows = []
    for row in page.rows:
        key: Any = x509.load_der_x509_csr(bytes(row["public_key"])).public_key()
        rows.append({
            "thing": row["thing_name"],
            "digest": row["id"],
            "at": row["used_at"],
            "key": _named(key),
        })  # fmt: skip
    return Page(rows, page.next_token)


def _named(key: Any) -> str:
    curve = getattr(key, "curve", None)
    return curve.name if curve is not None else f"RSA-{key.key_size}"


# What all of them share


def _settings(connection: Connection, account_id: str, replacement_id: str) -> Mapping[str, Any]:
    query = select(_R.settings).where(_R.account_id == account_id, _R.id == replacement_id)
    found: Mapping[str, Any] | None = connection.execute(query).scalar()
    if found is None:
        raise NotFoundError("there is no such replacement")
    return found


def _begin(transaction: Transaction, replacement_id: str, kind: Kind, seconds: int) -> int:
    """When proofs of a kind expire, if the replacement asks for them."""
    if not SHORTEST <= seconds <= LONGEST:
        raise InvalidError(f"proofs are valid for {SHORTEST} to {LONGEST} seconds")
    asked = _settings(transaction.connection, transaction.account_id, replacement_id)["proof"]
    if asked != kind:
        raise InvalidError(f"devices of this replacement prove themselves by {asked}")
    return transaction.now + 1_000 * seconds


def _of(transaction: Transaction, replacement_id: str) -> tuple[Any, Any]:
    return _P.account_id == transaction.account_id, _P.replacement_id == replacement_id


def _check_things(transaction: Transaction, replacement_id: str, things: Sequence[str]) -> None:
    """Make sure that things are in the replacement."""
    if not 1 <= len(things) <= MOST:
        raise InvalidError(f"1 to {MOST} things are named at once")
    known: set[str] = set()
    for some in rows_in_chunks(list(things)):
        query = select(_U.thing_name).where(
            _U.account_id == transaction.account_id, _U.replacement_id == replacement_id, _U.thing_name.in_(some)
        )
        known.update(transaction.execute(query).scalars())
    if unknown := sorted(set(things) - known):
        raise InvalidError(f"the thing {unknown[0][:128]!r} is not in the replacement")


def _without_secret(transaction: Transaction, replacement_id: str) -> list[str]:
    """Things that are being replaced and have no valid secret, one more than fits into an answer."""
    its = (
        exists()
        .where(*_of(transaction, replacement_id), _P.thing_name == _U.thing_name)
        .where(_P.kind == Kind.SECRET.value, _P.expires_at > transaction.now)
    )
    query = (
        select(_U.thing_name)
        .distinct()
        .where(
            _U.account_id == transaction.account_id,
            _U.replacement_id == replacement_id,
            _U.open,
            _U.thing_name != "",
            ~its,
        )
    )
    return list(transaction.execute(query.order_by(_U.thing_name).limit(MOST + 1)).scalars())


def _row(
    transaction: Transaction, replacement_id: str, thing: str, proof_id: str, kind: Kind, until: int, **more: Any
) -> dict[str, Any]:
    here = {"account_id": transaction.account_id, "replacement_id": replacement_id, "thing_name": thing}
    return {**here, "id": proof_id, "kind": kind.value, "expires_at": until, **more}


def _keep_secrets(
    registry: Registry, transaction: Transaction, replacement_id: str, given: Mapping[str, bytes], until: int
) -> None:
    rows = []
    for thing, secret in given.items():
        proof_id = secrets.token_hex(16)
        place = proofs.secret_place(transaction.account_id, replacement_id, thing, proof_id)
        sealed = registry.seal.seal(secret, place)
        rows.append(_row(transaction, replacement_id, thing, proof_id, Kind.SECRET, until, sealed_secret=sealed))
    for some in rows_in_chunks(sorted(given)):
        old = (*_of(transaction, replacement_id), _P.kind == Kind.SECRET.value, _P.thing_name.in_(some))
        transaction.execute(delete(schema.replacement_proofs).where(*old))
    if rows:
        transaction.execute(schema.replacement_proofs.insert(), rows)


def _keep_keys(
    transaction: Transaction, replacement_id: str, kind: Kind, keys: Mapping[str, bytes], until: int
) -> None:
    """Keep a key of each thing; the same key again gets the new end, another one joins it."""
    for things in rows_in_chunks(sorted(keys)):
        ids = {thing: hashlib.sha256(keys[thing]).hexdigest() for thing in things}
        here = (*_of(transaction, replacement_id), _P.thing_name.in_(things), _P.id.in_(set(ids.values())))
        present = set(transaction.execute(select(_P.thing_name).where(*here)).scalars())
        transaction.execute(update(schema.replacement_proofs).where(*here).values(expires_at=until))
        rows = [
            _row(transaction, replacement_id, thing, ids[thing], kind, until, public_key=keys[thing])
            for thing in things
            if thing not in present
        ]
        if rows:
            transaction.execute(schema.replacement_proofs.insert(), rows)


def _check_not_registered(connection: Connection, account_id: str, digests: Sequence[bytes]) -> None:
    """Make sure that no key is one of a certificate: that is what is being replaced."""
    for some in rows_in_chunks(list(digests)):
        query = select(_C.id).where(_C.account_id == account_id, _C.spki_digest.in_(some))
        found = connection.execute(query.limit(1)).scalar()
        if found is not None:
            raise InvalidError(f"the key is that of certificate {found}: a proof needs another one")
