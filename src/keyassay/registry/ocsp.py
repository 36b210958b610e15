"""Answers about single certificates that the account's own authorities issued (OCSP, RFC 6960), signed by those.

An answer is what the tables say at that moment: good, revoked, or unknown for what was never issued. A request may ask
about several certificates, and about other authorities' ones, which are unknown. Anybody may ask, so that a request
is read by a bounded walk over its bytes, and nothing of it but certificate ids and the nonce gets into the answer.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Connection, RowMapping, bindparam, select

from keyassay.certificates.der import (
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    DerError,
    children,
    element,
    expect,
    integer,
    oid_text,
    tlv,
)
from keyassay.registry.errors import NotFoundError
from keyassay.registry.issued import serial_text
from keyassay.registry.issuing import issuer_row, signer_of
from keyassay.registry.registry import Registry
from keyassay.registry.status_lists import not_active
from keyassay.storage import schema

_D = schema.issued_certificates.c

#: bytes of a request, certificates that it may ask about, bytes of a nonce (RFC 9654)
LARGEST_REQUEST, MOST_SINGLES, LONGEST_NONCE = 16_384, 64, 128
#: seconds that an answer is good for; whoever records one can show it for as long, unless a nonce is asked for
LASTS = 600

_HASHES = {
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
# contents of object identifiers
_BASIC = bytes.fromhex("2b0601050507300101")
_NONCE = bytes.fromhex("2b0601050507300102")
_ECDSA_SHA256 = element(SEQUENCE, element(OID, bytes.fromhex("2a8648ce3d040302")))
_RSA_SHA256 = element(SEQUENCE, element(OID, bytes.fromhex("2a864886f70d01010b")), b"\x05\x00")

_ENUMERATED, _BOOLEAN, _BIT_STRING, _GENERALIZED_TIME = 0x0A, 0x01, 0x03, 0x18
_MALFORMED, _INTERNAL, _LATER = 1, 2, 3

# Built once, and for one serial number: a list of them would be put into the statement anew each time.
_STATE = select(_D.revoked_at).where(
    _D.account_id == bindparam("account"), _D.issuer_id == bindparam("issuer"), _D.serial == bindparam("serial")
)
_STATE_WITH_HOLD = _STATE.add_columns(not_active().label("held"))


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back.

    Attributes:
        der: an OCSPResponse.
        may_be_kept: it is an answer to the question alone, and not to this asker (no nonce, no error).
    """

    der: bytes
    may_be_kept: bool = False


def failure(status: int) -> Answer:
    """An answer that says only that there is none."""
    return Answer(element(SEQUENCE, element(_ENUMERATED, bytes([status]))))


#: of a request that is none; of a server that cannot answer, or not now
MALFORMED, INTERNAL_ERROR, TRY_LATER = failure(_MALFORMED), failure(_INTERNAL), failure(_LATER)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request: the certificate ids as they were sent with what is in them, and the nonce's extension."""

    singles: list[tuple[bytes, str, bytes, bytes, int]]
    nonce: bytes


@dataclass(frozen=True)
class _Authority:
    """What is needed of an authority; its key stays sealed, or in its token."""

    name: bytes
    key: bytes
    by_key: bytes
    row: RowMapping

    def digests(self, algorithm: str) -> tuple[bytes, bytes]:
        return _digests(self.name, self.key, algorithm)


@lru_cache(maxsize=1_024)
def _digests(name: bytes, key: bytes, algorithm: str) -> tuple[bytes, bytes]:
    return hashlib.new(algorithm, name).digest(), hashlib.new(algorithm, key).digest()


class Responder:
    """Answers for all authorities of a registry.

    Args:
        registry: where.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        #: rows of authorities never change; as many as there are
        self._authorities: dict[tuple[str, str], _Authority] = {}

    def answer(self, account_id: str, issuer_id: str, request: bytes) -> Answer:
        """Answer a request.

        Args:
            account_id: whose authority is asked.
            issuer_id: which.
            request: an OCSPRequest, DER.

        Raises:
            NotFoundError: there is no such authority.
            SigningUnavailableError: its key is in a token that cannot be used.
        """
        authority = self._authority(account_id, issuer_id)
        try:
            asked = _read(request)
        except DerError:
            return MALFORMED
        serials = [
            serial_text(serial)
            for _, algorithm, name, key, serial in asked.singles
            if algorithm and (name, key) == authority.digests(algorithm) and serial >= 0
        ]
        with self._registry.database.read() as connection:
            states = self._states(connection, account_id, issuer_id, serials)
        seconds = int(time.time())
        now, until = _time(seconds), element(0xA0, _time(seconds + LASTS))
        responses = b"".join(
            element(SEQUENCE, identifier, self._state(authority, states, algorithm, name, key, serial), now, until)
            for identifier, algorithm, name, key, serial in asked.singles
        )
        extensions = element(0xA1, element(SEQUENCE, asked.nonce)) if asked.nonce else b""
        signed = element(SEQUENCE, authority.by_key, now, element(SEQUENCE, responses), extensions)
        return Answer(self._sign(authority, signed), may_be_kept=not asked.nonce)

    def _authority(self, account_id: str, issuer_id: str) -> _Authority:
        known = self._authorities.get((account_id, issuer_id))
        if known is not None:
            return known
        with self._registry.database.read() as connection:
            row = issuer_row(connection, account_id, issuer_id)
        if row is None or row["sealed_key"] is None:
            raise NotFoundError("there is no such authority")
        certificate = x509.load_der_x509_certificate(bytes(row["der"]))
        spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        start, stop = expect(spki, 0, len(spki), SEQUENCE, "key")
        _, _, first, last = children(spki, start, stop)[1]
        key = spki[first + 1 : last]  # without the count of unused bits
        name = certificate.subject.public_bytes()
        by_key = element(0xA2, element(OCTET_STRING, hashlib.sha1(key, usedforsecurity=False).digest()))
        made = _Authority(name, key, by_key, row)
        self._authorities[account_id, issuer_id] = made
        return made

    def _states(
        self, connection: Connection, account_id: str, issuer_id: str, serials: list[str]
    ) -> Mapping[str, tuple[int | None, bool]]:
        """(when it was revoked or None, whether it is on hold) of those that were issued."""
        statement = _STATE_WITH_HOLD if self._registry.hold_inactive else _STATE
        found = {}
        for serial in set(serials):
            values = {"account": account_id, "issuer": issuer_id, "serial": serial}
            row = connection.execute(statement, values).first()
            if row is not None:
                found[serial] = (row[0], len(row) > 1 and bool(row[1]))
        return found

    def _state(
        self,
        authority: _Authority,
        states: Mapping[str, tuple[int | None, bool]],
        algorithm: str,
        name: bytes,
        key: bytes,
        serial: int,
    ) -> bytes:
        """CertStatus in DER."""
        mine = algorithm and (name, key) == authority.digests(algorithm) and serial >= 0
        state = states.get(serial_text(serial)) if mine else None
        if state is None:
            return b"\x82\x00"
        revoked_at, held = state
        if revoked_at is not None:
            return element(0xA1, _time(revoked_at // 1000))
        if held:
            on_hold = element(0xA0, element(_ENUMERATED, b"\x06"))
            return element(0xA1, _time(int(time.time())), on_hold)
        return b"\x80\x00"

    def _sign(self, authority: _Authority, signed: bytes) -> bytes:
        signer = signer_of(self._registry, authority.row)
        if isinstance(signer, rsa.RSAPrivateKey):
            signature, algorithm = signer.sign(signed, padding.PKCS1v15(), hashes.SHA256()), _RSA_SHA256
        else:
            signature, algorithm = signer.sign(signed, ec.ECDSA(hashes.SHA256())), _ECDSA_SHA256
        basic = element(SEQUENCE, signed, algorithm, element(_BIT_STRING, b"\x00", signature))
        whole = element(SEQUENCE, element(OID, _BASIC), element(OCTET_STRING, basic))
        return element(SEQUENCE, element(_ENUMERATED, b"\x00"), element(0xA0, whole))


def _time(seconds: int) -> bytes:
    """GeneralizedTime of seconds since 1970."""
    year, month, day, hour, minute, second, *_ = time.gmtime(seconds)
    return element(_GENERALIZED_TIME, b"%04d%02d%02d%02d%02d%02dZ" % (year, month, day, hour, minute, second))


def _read(data: bytes) -> _Asked:
    """A request.

    Raises:
        DerError: it is none, or beyond the bounds.
    """
    if len(data) > LARGEST_REQUEST:
        raise DerError("a request that is too large")
    start, stop = expect(data, 0, len(data), SEQUENCE, "request")
    parts = children(data, start, stop, 2)  # a signature is not looked at
    if stop != len(data) or not parts or parts[0][0] != SEQUENCE:
        raise DerError("no request")
    _, _, start, stop = parts[0]
    asked: list[tuple[bytes, str, bytes, bytes, int]] = []
    nonce = b""
    seen: set[int] = set()
    for tag, _, first, last in children(data, start, stop, 4):
        if tag in seen or tag not in (0xA0, 0xA1, 0xA2, SEQUENCE):
            raise DerError("an unknown part of a request")
        seen.add(tag)
        if tag == SEQUENCE:
            asked = [_certificate(data, *one) for one in children(data, first, last, MOST_SINGLES)]
        elif tag == 0xA0 and data[first:last] != b"\x02\x01\x00":
            raise DerError("another version")
        elif tag == 0xA2:
            nonce = _nonce(data, *expect(data, first, last, SEQUENCE, "extensions"))
    if not asked:
        raise DerError("a request about nothing")
    return _Asked(asked, nonce)


def _certificate(data: bytes, tag: int, _: int, first: int, last: int) -> tuple[bytes, str, bytes, bytes, int]:
    """(certificate id as it stands, hash or "", hash of the name, hash of the key, serial number)."""
    if tag != SEQUENCE:
        raise DerError("no question")
    identifier, begin, end = first, *expect(data, first, last, SEQUENCE, "certificate id")
    parts = children(data, begin, end, 4)
    if [one[0] for one in parts] != [SEQUENCE, OCTET_STRING, OCTET_STRING, INTEGER]:
        raise DerError("no certificate id")
    for tag_of_extensions, _, inner, stop in children(data, end, last, 1):
        if tag_of_extensions != 0xA0:
            raise DerError("no extensions of a question")
        _refuse_critical(data, *expect(data, inner, stop, SEQUENCE, "extensions"))
    algorithm, name, key, serial = ((inner, stop) for _, _, inner, stop in parts)
    at, to = expect(data, *algorithm, OID, "hash")
    if serial[1] - serial[0] > 64:
        raise DerError("a serial number that is too long")
    return (
        data[identifier:end],
        _HASHES.get(oid_text(data[at:to]), ""),
        data[slice(*name)],
        data[slice(*key)],
        integer(data, *serial),
    )


def _extensions(data: bytes, start: int, stop: int) -> list[tuple[bytes, bool, bytes, bytes]]:
    """(identifier, critical, value, the whole extension) of each."""
    found = []
    for tag, begin, first, last in children(data, start, stop, 16):
        if tag != SEQUENCE:
            raise DerError("no extension")
        parts = children(data, first, last, 3)
        tags = [one[0] for one in parts]
        if tags not in ([OID, OCTET_STRING], [OID, _BOOLEAN, OCTET_STRING]):
            raise DerError("no extension")
        critical = len(parts) == 3 and data[parts[1][2] : parts[1][3]] != b"\x00"
        found.append((data[slice(*parts[0][2:])], critical, data[slice(*parts[-1][2:])], data[begin:last]))
    return found


def _refuse_critical(data: bytes, start: int, stop: int) -> None:
    if any(critical for _, critical, _, _ in _extensions(data, start, stop)):
        raise DerError("a critical extension that nobody knows")


def _nonce(data: bytes, start: int, stop: int) -> bytes:
    """The extension with the nonce, b"" if there is none; old clients send it without the inner OCTET STRING."""
    nonce = b""
    for identifier, critical, value, whole in _extensions(data, start, stop):
        if identifier == _NONCE:
            length = len(value)
            if value[:1] == bytes([OCTET_STRING]):
                _, inner, end = tlv(value, 0, len(value))
                length = end - inner
            if nonce or not 1 <= length <= LONGEST_NONCE:
                raise DerError("a nonce that is too long")
            nonce = whole
        elif critical:
            raise DerError("a critical extension that nobody knows")
    return nonce
