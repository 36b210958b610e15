"""Containers of certificates and private keys: PKCS #7, PKCS #12, JKS, PKCS #8 and kin, reduced to what is public.

Private numbers are read only to be dropped: of a private key its public part goes on, with a notice.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12

from keyassay.certificates import pkcs12, spki
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
    oid_element,
    oid_text,
    tlv,
)
from keyassay.certificates.limits import Limits

JKS_MAGIC = b"\xfe\xed\xfe\xed"
_JKS_CERTIFICATE = b"\0\x05X.509"
JCEKS_MAGIC = b"\xce\xce\xce\xce"
PRIVATE_NOTICE = "private key file: only its public part was read"
_HINT = "give its password by --password-file"
#: iterations of PBKDF2 or N r p of scrypt, a second or two of work
_DERIVATION_WORK = 5_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """One leaf of a container: label and DER, or an error.

    ``primes`` are those of an RSA private key where they could be read, () for other private keys, None for leaves
    that are no private keys.
    """

    label: str = ""
    data: bytes = b""
    notice: str | None = None
    error: str | None = None
    primes: tuple[int, ...] | None = None


def element_size(data: bytes, at: int) -> int | None:
    """Bytes of the DER element at a place, None if there is no complete SEQUENCE."""
    if at >= len(data) or data[at] != SEQUENCE:
        return None
    try:
        _, _, stop = tlv(data, at, len(data))
    except DerError:
        return None
    return stop - at


_PRIVATE_LABELS = {
    "PRIVATE KEY": "pkcs8",
    "ENCRYPTED PRIVATE KEY": "encrypted",
    "RSA PRIVATE KEY": "rsa",
    "EC PRIVATE KEY": "ec",
    "DSA PRIVATE KEY": "dsa",
    "OPENSSH PRIVATE KEY": "openssh",
    "PKCS7": "pkcs7",
    "CMS": "pkcs7",
    "PKCS #7 SIGNED DATA": "pkcs7",
    "PKCS12": "pkcs12",
}


def container_of(data: bytes, label: str) -> str:
    """Which container this is, by label or else by structure; "" for a leaf."""
    if label and label not in _PRIVATE_LABELS:
        return ""
    return _shape(data) or _PRIVATE_LABELS.get(label, "")


def most_bytes(container: str, limits: Limits) -> int:
    """Bytes that a container may have: key stores are read whole, a private key is one item."""
    return limits.file_bytes if container in ("pkcs7", "pkcs12") else limits.item_bytes


def _shape(data: bytes) -> str:
    if data[:6] == b"\x30\x80\x02\x01\x03\x30":
        return "pkcs12"  # indefinite lengths: what opens it reads them
    try:
        start, stop = expect(data, 0, len(data), SEQUENCE, "")
        parts = children(data, start, stop, most=16)
    except DerError:
        return ""
    tags = [part[0] for part in parts]
    if tags[:2] == [OID, 0xA0] and oid_text(data[parts[0][2] : parts[0][3]]) == "1.2.840.113549.1.7.2":
        return "pkcs7"
    if tags[:2] == [INTEGER, SEQUENCE] and len(parts) <= 3 and data[parts[0][2] : parts[0][3]] == b"\x03":
        return "pkcs12"
    if tags[:3] == [INTEGER, SEQUENCE, OCTET_STRING]:
        return "pkcs8"
    if tags == [SEQUENCE, OCTET_STRING]:
        return "encrypted"
    if len(tags) >= 9 and set(tags[:9]) == {INTEGER}:
        return "rsa"
    if tags[:2] == [INTEGER, OCTET_STRING]:
        return "ec"
    if tags == [INTEGER] * 6:
        return "dsa"
    return ""


def unpack(
    container: str, data: bytes, passwords: tuple[bytes, ...], limits: Limits, *, private: bool = False
) -> Iterator[Part]:
    """The leaves of a container; errors are parts.

    Args:
        container: what ``container_of`` said.
        data: its bytes.
        passwords: to try.
        limits: bounds.
        private: private keys are wanted too where their certificate would do, and their primes whatever it takes.
    """
    try:
        if container == "pkcs7":
            yield from _pkcs7(data, limits)
        elif container == "pkcs12":
            yield from _pkcs12(data, passwords, private=private)
        elif container == "pkcs8":
            yield _pkcs8(data)
        elif container == "rsa":
            yield _rsa_private(data, 0, len(data))
        elif container == "dsa":
            yield _dsa_private(data)
        elif container == "ec":
            yield _ec_private(data, 0, len(data), b"")
        elif container == "openssh":
            yield _openssh_private(data, passwords if private else None)
        else:
            yield _encrypted(data, passwords)
    except (DerError, ValueError, IndexError, struct.error) as error:
        yield Part(error=f"damaged {_NAMES.get(container, container)}: {error}")


_NAMES = {
    "pkcs7": "PKCS #7",
    "pkcs12": "PKCS #12",
    "pkcs8": "private key",
    "rsa": "RSA private key",
    "dsa": "DSA private key",
    "ec": "EC private key",
    "openssh": "OpenSSH private key",
    "encrypted": "encrypted private key",
}


def _load(data: bytes, password: bytes | None) -> Part:
    """The public part of a private key that takes arithmetic or a cipher to read.

    Raises:
        DerError: wrong password, damage, or an algorithm that is not supported.
    """
    try:
        # the keys we look for are often ones that a validation would refuse
        key = serialization.load_der_private_key(data, password, unsafe_skip_rsa_key_validation=True)
        return _public(key)
    except Exception as error:  # the library raises several kinds for hostile input
        raise DerError(" ".join(str(error).split())[:200] or type(error).__name__) from error


def _costs_too_much(data: bytes) -> bool:
    """Whether a password-based derivation in the clear part of a structure asks for absurd work.

    Iterations, or scrypt's cost, follow a salt: an INTEGER behind an OCTET STRING (RFC 7292, RFC 8018, RFC 7914).
    """
    waiting = [(0, len(data), 0)]
    budget = 20_000
    while waiting:
        at, end, depth = waiting.pop()
        numbers: list[int] | None = None
        try:
            while at < end:
                budget -= 1
                if budget < 0:
                    return True
                tag, start, at = tlv(data, at, end)
                if tag == INTEGER and numbers is not None:
                    numbers.append(integer(data, start, at))
                    work = numbers[0] if len(numbers) < 3 else numbers[0] * numbers[1] * numbers[2]
                    if work > _DERIVATION_WORK:
                        return True
                elif tag == OCTET_STRING:
                    numbers = []
                if depth < 24 and (tag & 0x20 or (tag == OCTET_STRING and data[start : start + 1] == b"\x30")):
                    waiting.append((start, at, depth + 1))
        except DerError:
            continue
    return False


def _public(key: Any) -> Part:
    """The public part of a private key object."""
    data = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    primes: tuple[int, ...] = ()
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        primes = (numbers.p, numbers.q)
    return Part("PUBLIC KEY", data, PRIVATE_NOTICE, primes=primes)


def _pkcs7(data: bytes, limits: Limits) -> Iterator[Part]:
    """Certificates and CRLs of a SignedData (RFC 5652)."""
    start, stop = expect(data, 0, len(data), SEQUENCE, "PKCS #7")
    _, at = expect(data, start, stop, OID, "content type")
    inner, end = expect(data, at, stop, 0xA0, "content")
    inner, end = expect(data, inner, end, SEQUENCE, "signed data")
    found = 0
    for tag, _, start, finish in children(data, inner, end):
        if tag not in (0xA0, 0xA1):
            continue
        at = start
        while at < finish:
            _, _, after = tlv(data, at, finish)
            if found >= limits.archive_members:
                raise DerError("too many certificates")
            if data[at] == SEQUENCE:
                found += 1
                yield Part("CERTIFICATE" if tag == 0xA0 else "X509 CRL", data[at:after])
            at = after
    if not found:
        yield Part(error="PKCS #7 without certificates")


def _pkcs12(data: bytes, passwords: tuple[bytes, ...], *, private: bool) -> Iterator[Part]:
    if _costs_too_much(data):
        yield Part(error="PKCS #12: deriving its keys asks for absurd work")
        return
    refused = ""
    for password in (*passwords, b"", None):
        try:
            store = load_pkcs12(data, password)
        except Exception as error:  # noqa: BLE001  wrong password, or what the strict parser refuses
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            if "invalid password" in reason.lower():
                continue
            refused = refused or reason
            try:
                found = list(pkcs12.leaves(data, password or b""))
            except DerError:
                continue
            yield from (Part(label, leaf) for label, leaf in found)
            if not found:
                yield Part(error="PKCS #12 without certificates")
            return
        entries = ([store.cert] if store.cert else []) + list(store.additional_certs)
        for entry in entries:
            yield Part("CERTIFICATE", entry.certificate.public_bytes(serialization.Encoding.DER))
        if store.key is not None and (private or not entries):
            yield _public(store.key)
        if not entries and store.key is None:
            yield Part(error="PKCS #12 without certificates")
        return
    if refused:
        yield Part(error=f"PKCS #12: not read: {refused}")
    else:
        yield Part(error=f"PKCS #12: {'no password opens it' if passwords else 'encrypted'}; {_HINT}")


def _rsa_private(data: bytes, at: int, end: int) -> Part:
    start, stop = expect(data, at, end, SEQUENCE, "RSA private key")
    _, after = expect(data, start, stop, INTEGER, "version")
    _, last = expect(data, after, stop, INTEGER, "modulus")
    _, finish = expect(data, last, stop, INTEGER, "exponent")
    numbers = element(SEQUENCE, data[after:finish])  # as they are encoded, which may be worth a remark
    return Part("RSA PUBLIC KEY", numbers, PRIVATE_NOTICE, primes=_primes(data, finish, stop))


def _primes(data: bytes, at: int, end: int) -> tuple[int, ...]:
    """P and q of an RSAPrivateKey (RFC 8017), from its private exponent on; () if they are not there."""
    try:
        _, at = expect(data, at, end, INTEGER, "private exponent")
        first, last = expect(data, at, end, INTEGER, "prime")
        begin, finish = expect(data, last, end, INTEGER, "prime")
        return int.from_bytes(data[first:last], "big"), int.from_bytes(data[begin:finish], "big")
    except DerError:
        return ()


def _dsa_private(data: bytes) -> Part:
    start, stop = expect(data, 0, len(data), SEQUENCE, "DSA private key")
    parts = children(data, start, stop)
    p, q, g, y = (data[part[1] : part[3]] for part in parts[1:5])
    algorithm = element(SEQUENCE, oid_element("1.2.840.10040.4.1"), element(SEQUENCE, p, q, g))
    return Part("PUBLIC KEY", element(SEQUENCE, algorithm, element(0x03, b"\0", y)), PRIVATE_NOTICE, primes=())


def _ec_private(data: bytes, at: int, end: int, parameters: bytes) -> Part:
    """An ECPrivateKey (RFC 5915): the public point it carries, or that of its private number."""
    start, stop = expect(data, at, end, SEQUENCE, "EC private key")
    parts = children(data, start, stop)
    point = b""
    for tag, _, inner, finish in parts[2:]:
        if tag == 0xA0:
            parameters = data[inner:finish]
        elif tag == 0xA1:
            begin, last = expect(data, inner, finish, 0x03, "public key")
            point = data[begin:last]
    if not parameters:
        raise DerError("EC private key without its curve")
    if not point:
        return _load(data[at:end], None)
    algorithm = element(SEQUENCE, oid_element("1.2.840.10045.2.1"), parameters)
    return Part("PUBLIC KEY", element(SEQUENCE, algorithm, element(0x03, point)), PRIVATE_NOTICE, primes=())


def _pkcs8(data: bytes) -> Part:
    start, stop = expect(data, 0, len(data), SEQUENCE, "private key")
    _, at = expect(data, start, stop, INTEGER, "version")
    inner, after = expect(data, at, stop, SEQUENCE, "algorithm")
    first, last = expect(data, inner, after, OID, "algorithm")
    oid = oid_text(data[first:last])
    begin, finish = expect(data, after, stop, OCTET_STRING, "private key")
    if oid == "1.2.840.113549.1.1.1":
        return _rsa_private(data, begin, finish)
    if oid == "1.2.840.10045.2.1":
        _, key_start, key_stop = tlv(data, begin, finish)
        if any(tag == 0xA1 for tag, *_ in children(data, key_start, key_stop)):
            return _ec_private(data, begin, finish, data[last:after])
    try:
        return _load(data, None)
    except DerError:
        name = spki.unsupported_name(oid)
        if not name:
            raise
        return Part(error=f"a private key of the type {name}: not assessed")


def _openssh_private(data: bytes, passwords: tuple[bytes, ...] | None) -> Part:
    """The public key blob that an OpenSSH private key file holds in the clear; primes if there are passwords to try."""
    if not data.startswith(b"openssh-key-v1\0"):
        raise DerError("not an OpenSSH private key")
    at = 15
    for _ in range(3):
        (length,) = struct.unpack_from(">I", data, at)
        at += 4 + length
    at += 4
    (length,) = struct.unpack_from(">I", data, at)
    blob = data[at + 4 : at + 4 + length]
    if len(blob) != length:
        raise DerError("truncated")
    return Part("openssh", blob, PRIVATE_NOTICE, primes=_openssh_primes(data, passwords))


def _openssh_primes(data: bytes, passwords: tuple[bytes, ...] | None) -> tuple[int, ...]:
    if passwords is None or b"ssh-rsa" not in data[:256]:
        return ()
    text = b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + base64.encodebytes(data) + b"-----END OPENSSH PRIVATE KEY-----\n"
    for password in (None, *passwords):
        try:
            return _public(serialization.load_ssh_private_key(text, password)).primes or ()
        except Exception:  # noqa: BLE001, S112  wrong password, or a cipher that is not supported
            continue
    return ()


def _encrypted(data: bytes, passwords: Iterable[bytes]) -> Part:
    if _costs_too_much(data):
        return Part(error="an encrypted private key: deriving its key asks for absurd work")
    tried = False
    for password in passwords:
        tried = True
        try:
            return _load(data, password)
        except DerError:
            continue
    return _locked(tried)


def _locked(tried: bool) -> Part:
    return Part(error=f"an encrypted private key{': no password opens it' if tried else ''}; {_HINT}")


def encrypted_pem(text: bytes, passwords: Iterable[bytes]) -> Part:
    """A private key in OpenSSL's old encrypted form (Proc-Type header)."""
    tried = False
    for password in passwords:
        tried = True
        try:
            key = serialization.load_pem_private_key(text, password, unsafe_skip_rsa_key_validation=True)
            return _public(key)
        except Exception:  # noqa: BLE001, S112  wrong password, or an algorithm that is not supported
            continue
    return _locked(tried)


def jks(data: bytes, passwords: tuple[bytes, ...], limits: Limits) -> Iterator[Part]:
    """Certificates of a Java key store (JKS or JCEKS): they are stored in the clear, and without a password.

    Where a password is given the store's integrity digest is checked with it.
    """
    try:
        yield from _jks(data, passwords, limits)
    except (struct.error, IndexError, DerError) as error:
        yield Part(error=f"damaged Java key store: {error}")


def _jks(data: bytes, passwords: tuple[bytes, ...], limits: Limits) -> Iterator[Part]:
    version, count = struct.unpack_from(">II", data, 4)
    if version not in (1, 2):
        raise DerError(f"version {version}")
    at = 12

    def text() -> None:
        nonlocal at
        (length,) = struct.unpack_from(">H", data, at)
        at += 2 + length

    def certificate() -> bytes:
        nonlocal at
        if version == 2:
            text()
        (length,) = struct.unpack_from(">I", data, at)
        at += 4 + length
        if at > len(data):
            raise DerError("a length exceeds the file")
        return data[at - length : at]

    found = 0
    for _ in range(min(count, limits.archive_members)):
        (tag,) = struct.unpack_from(">I", data, at)
        at += 4
        text()
        at += 8
        if tag == 1:
            (length,) = struct.unpack_from(">I", data, at)
            at += 4 + length
            (chain,) = struct.unpack_from(">I", data, at)
            at += 4
            if chain > 64:
                raise DerError(f"a chain of {chain} certificates")
            for number in range(chain):
                found += 1
                yield Part("CERTIFICATE", certificate(), primes=None if number else ())
        elif tag == 2:
            found += 1
            yield Part("CERTIFICATE", certificate())
        elif tag == 3:
            # a serialized Java object, whose end only Java knows: what follows it is found by its marks
            yield Part(error="a secret key: not assessed")
            for leaf in _marked_certificates(data, at):
                found += 1
                yield Part("CERTIFICATE", leaf)
            break
        else:
            raise DerError(f"an entry of unknown kind {tag}")
    contents, digest = data[:-20], data[-20:]
    if passwords and not any(_jks_digest(contents, one) == digest for one in passwords):
        yield Part(error="Java key store: its integrity digest fits none of the passwords")
    if not found:
        yield Part(error="Java key store without certificates")


def _marked_certificates(data: bytes, at: int) -> Iterator[bytes]:
    """Certificates behind the type that a Java key store writes before each of them."""
    while (at := data.find(_JKS_CERTIFICATE, at)) >= 0:
        at += len(_JKS_CERTIFICATE) + 4
        length = int.from_bytes(data[at - 4 : at], "big")
        if element_size(data[at : at + length], 0) == length:
            yield data[at : at + length]
            at += length


def _jks_digest(contents: bytes, password: bytes) -> bytes:
    """The digest that ends a Java key store (its format fixes SHA-1 and the phrase)."""
    secret = password.decode("utf-8", "replace").encode("utf-16-be")
    return hashlib.sha1(secret + b"Mighty Aphrodite" + contents).digest()
