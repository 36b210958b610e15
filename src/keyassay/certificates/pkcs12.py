"""PKCS #12 where the strict parser gives up: the bags of certificates and CRLs, decrypted and cut out (RFC 7292).

``keystores`` comes here when a store holds something that the strict parser refuses (an explicit default in one
certificate, a private key that fails its validation), since just such keys are looked for. Private keys stay closed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from keyassay.certificates.der import (
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    DerError,
    children,
    expect,
    integer,
    oid_text,
    tlv,
)

_DATA, _ENCRYPTED = "1.2.840.113549.1.7.1", "1.2.840.113549.1.7.6"
_BAG = "1.2.840.113549.1.12.10.1."
#: bag -> PEM label of what it holds
_LABELS = {_BAG + "3": "CERTIFICATE", _BAG + "4": "X509 CRL"}
_PBES2, _PBKDF2 = "1.2.840.113549.1.5.13", "1.2.840.113549.1.5.12"
_HMAC = {f"1.2.840.113549.2.{number}": name for number, name in zip(
    range(7, 12), ("sha1", "sha224", "sha256", "sha384", "sha512"), strict=True
)}  # fmt: skip
_AES = {f"2.16.840.1.101.3.4.1.{number}": size for number, size in ((2, 16), (22, 24), (42, 32))}
_3DES = "1.2.840.113549.3.7"
#: RFC 7292, appendix C: encryption with three keys and with two
_LEGACY_3DES = {"1.2.840.113549.1.12.1.3": 24, "1.2.840.113549.1.12.1.4": 16}
#: bags of one store, and depth of bags in bags
_MOST, _DEPTH = 100_000, 4


def leaves(data: bytes, password: bytes) -> Iterator[tuple[str, bytes]]:
    """Certificates and CRLs of a store whose password is known.

    The caller has bounded the work of the key derivation and checked the password.

    Args:
        data: DER of a PFX.
        password: in UTF-8.

    Yields:
        (PEM label, DER).

    Raises:
        DerError: malformed, or encrypted in a way that is not supported.
    """
    start, stop = expect(data, 0, len(data), SEQUENCE, "PKCS #12")
    _, at = expect(data, start, stop, INTEGER, "version")
    safes = _content(data, at, stop, password)
    start, stop = expect(safes, 0, len(safes), SEQUENCE, "authenticated safe")
    for _, at, _, end in children(safes, start, stop, most=_MOST):
        yield from _bags(_content(safes, at, end, password), 0)


def _content(data: bytes, at: int, end: int, password: bytes) -> bytes:
    """The octets of a ContentInfo, decrypted if need be."""
    start, stop = expect(data, at, end, SEQUENCE, "content")
    first, last = expect(data, start, stop, OID, "content type")
    kind = oid_text(data[first:last])
    start, stop = expect(data, last, stop, 0xA0, "content")
    if kind == _DATA:
        first, last = expect(data, start, stop, OCTET_STRING, "content")
        return data[first:last]
    if kind != _ENCRYPTED:
        raise DerError(f"content of type {kind} is not supported")
    start, stop = expect(data, start, stop, SEQUENCE, "encrypted data")
    _, at = expect(data, start, stop, INTEGER, "version")
    start, stop = expect(data, at, stop, SEQUENCE, "encrypted content")
    _, at = expect(data, start, stop, OID, "content type")
    begin, at = expect(data, at, stop, SEQUENCE, "encryption algorithm")
    first, last = expect(data, at, stop, 0x80, "encrypted octets")
    return _decrypt(data, begin, at, data[first:last], password)


def _bags(data: bytes, depth: int) -> Iterator[tuple[str, bytes]]:
    start, stop = expect(data, 0, len(data), SEQUENCE, "bags")
    for tag, _, inner, end in children(data, start, stop, most=_MOST):
        if tag != SEQUENCE:
            raise DerError("a bag is malformed")
        first, last = expect(data, inner, end, OID, "bag type")
        kind = oid_text(data[first:last])
        begin, finish = expect(data, last, end, 0xA0, "bag")
        if kind in _LABELS:
            begin, finish = expect(data, begin, finish, SEQUENCE, "bag")
            _, at = expect(data, begin, finish, OID, "type of certificate")
            begin, finish = expect(data, at, finish, 0xA0, "certificate")
            first, last = expect(data, begin, finish, OCTET_STRING, "certificate")
            yield _LABELS[kind], data[first:last]
        elif kind == _BAG + "6" and depth < _DEPTH:
            yield from _bags(data[begin:finish], depth + 1)


def _decrypt(data: bytes, at: int, end: int, octets: bytes, password: bytes) -> bytes:
    """Decrypt with the algorithm at a place (contents of an AlgorithmIdentifier)."""
    first, last = expect(data, at, end, OID, "algorithm")
    name = oid_text(data[first:last])
    start, stop = expect(data, last, end, SEQUENCE, "parameters")
    cipher: algorithms.AES | TripleDES
    if name in _LEGACY_3DES:
        first, last = expect(data, start, stop, OCTET_STRING, "salt")
        _, begin, finish = tlv(data, last, stop)
        salt, rounds = data[first:last], integer(data, begin, finish)
        cipher = TripleDES(derived(password, salt, rounds, 1, _LEGACY_3DES[name]))
        vector = derived(password, salt, rounds, 2, 8)
    elif name == _PBES2:
        begin, finish = expect(data, start, stop, SEQUENCE, "key derivation")
        first, last = expect(data, finish, stop, SEQUENCE, "encryption")
        low, after = expect(data, first, last, OID, "encryption")
        scheme = oid_text(data[low:after])
        size = 24 if scheme == _3DES else _AES.get(scheme, 0)
        if not size:
            raise DerError(f"encryption {scheme} is not supported")
        low, high = expect(data, after, last, OCTET_STRING, "initial vector")
        key = _pbkdf2(data, begin, finish, password, size)
        cipher = TripleDES(key) if scheme == _3DES else algorithms.AES(key)
        vector = data[low:high]
    else:
        raise DerError(f"encryption {name} is not supported")
    if len(vector) * 8 != cipher.block_size or not octets or len(octets) % len(vector):
        raise DerError("the encrypted octets are malformed")
    opener = Cipher(cipher, modes.CBC(vector)).decryptor()
    plain = opener.update(octets) + opener.finalize()
    padding = plain[-1]
    if not 0 < padding <= len(vector) or plain[-padding:] != bytes([padding]) * padding:
        raise DerError("the encrypted octets are damaged")
    return plain[:-padding]


def _pbkdf2(data: bytes, at: int, end: int, password: bytes, size: int) -> bytes:
    first, last = expect(data, at, end, OID, "key derivation")
    if oid_text(data[first:last]) != _PBKDF2:
        raise DerError(f"key derivation {oid_text(data[first:last])} is not supported")
    start, stop = expect(data, last, end, SEQUENCE, "key derivation")
    first, last = expect(data, start, stop, OCTET_STRING, "salt")
    salt = data[first:last]
    begin, finish = expect(data, last, stop, INTEGER, "iterations")
    rounds = integer(data, begin, finish)
    hash_name = "sha1"
    for tag, _, low, high in children(data, finish, stop):
        if tag == SEQUENCE:
            first, last = expect(data, low, high, OID, "hash")
            hash_name = _HMAC.get(oid_text(data[first:last]), "")
    if rounds < 1 or not hash_name:
        raise DerError("the key derivation is not supported")
    return hashlib.pbkdf2_hmac(hash_name, password, salt, rounds, size)


def derived(password: bytes, salt: bytes, rounds: int, purpose: int, size: int) -> bytes:
    """Octets from a password (RFC 7292, appendix B.2, with SHA-1).

    Args:
        password: in UTF-8; the derivation takes it as UTF-16 with a zero behind.
        salt: octets.
        rounds: iterations.
        purpose: 1 for keys, 2 for initial vectors, 3 for message authentication.
        size: octets wanted.

    Raises:
        DerError: the parameters have no meaning.
    """
    if rounds < 1 or not salt or len(salt) > 1024:
        raise DerError("the key derivation is malformed")
    block = 64
    text = password.decode("utf-8", "replace").encode("utf-16-be") + b"\0\0"

    def filled(octets: bytes) -> bytes:
        return (octets * (-(-block // len(octets)) + 1))[: -(-len(octets) // block) * block]

    state = filled(salt) + filled(text)
    out = b""
    while len(out) < size:
        part = hashlib.sha1(bytes([purpose]) * block + state).digest()
        for _ in range(rounds - 1):
            part = hashlib.sha1(part).digest()
        out += part
        step = int.from_bytes(filled(part)[:block], "big") + 1
        state = b"".join(
            ((int.from_bytes(state[at : at + block], "big") + step) % (1 << 8 * block)).to_bytes(block, "big")
            for at in range(0, len(state), block)
        )
    return out[:size]
