"""Signatures of certificates as numbers: r, s and the digest of ECDSA and DSA, R and S of EdDSA.

What they have in common with ``keymath.nonces``: a signature is a line k = u + t d modulo the order of the signer's
group, k its nonce and d the private key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import gmpy2
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keyassay.certificates.der import INTEGER, SEQUENCE, DerError, expect
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import DsaPublicKey, EcPublicKey, OkpPublicKey, PublicKey
from keyassay.keymath.curves import add, affine, multiply, named_curve, named_curves
from keyassay.keymath.edwards import group_order

#: dotted OID -> (hash, whether it is DSA)
ALGORITHMS = {
    "1.2.840.10045.4.1": ("sha1", False),
    "1.2.840.10045.4.3.1": ("sha224", False),
    "1.2.840.10045.4.3.2": ("sha256", False),
    "1.2.840.10045.4.3.3": ("sha384", False),
    "1.2.840.10045.4.3.4": ("sha512", False),
    "1.2.840.10040.4.3": ("sha1", True),
    "2.16.840.1.101.3.4.3.1": ("sha224", True),
    "2.16.840.1.101.3.4.3.2": ("sha256", True),
    "2.16.840.1.101.3.4.3.3": ("sha384", True),
    "2.16.840.1.101.3.4.3.4": ("sha512", True),
}
#: dotted OID -> type of key (RFC 8410)
EDWARDS = {"1.3.101.112": "ed25519", "1.3.101.113": "ed448"}

Signer = EcPublicKey | DsaPublicKey | OkpPublicKey


@dataclass(frozen=True, slots=True)
class Signature:
    """r, s and the whole digest as a number with its bits."""

    ordinal: int
    r: int
    s: int
    digest: int
    bits: int
    dsa: bool

    def z(self, order: int) -> int:
        """The digest cut to the order's length (FIPS 186-4, 6.4)."""
        excess = self.bits - order.bit_length()
        return self.digest >> excess if excess > 0 else self.digest

    def equation(self, order: int) -> tuple[int, int]:
        """(s, z): what k is multiplied with, and the digest."""
        return self.s, self.z(order)

    def private(self, k: int, order: int) -> int:
        """The private key, if k is the nonce."""
        return int((self.s * k - self.z(order)) * gmpy2.invert(self.r, order) % order)

    def line(self, key: Signer) -> tuple[int, int]:
        """(u, t) with k = u + t d modulo the order."""
        return self.line_modulo(order_of(key))

    def line_modulo(self, order: int) -> tuple[int, int]:
        """The line for a group of that order."""
        inverse = gmpy2.invert(self.s, order)
        return int(self.z(order) * inverse % order), int(self.r * inverse % order)


@dataclass(frozen=True, slots=True)
class EdwardsSignature:
    """R, S and what was signed."""

    ordinal: int
    kind: str
    r: bytes
    s: int
    signed_part: bytes

    def line(self, key: Signer) -> tuple[int, int]:
        """(u, t) with k = u + t a modulo the order: S = k + h a (RFC 8032, 5.1.6 and 5.2.6)."""
        assert isinstance(key, OkpPublicKey)
        parts = self.r + key.encoded + self.signed_part
        if self.kind == "ed25519":
            digest = hashlib.sha512(parts).digest()
        else:
            digest = hashlib.shake_256(b"SigEd448\0\0" + parts).digest(114)
        order = group_order(self.kind)
        return self.s % order, -int.from_bytes(digest, "little") % order


AnySignature = Signature | EdwardsSignature


def parse(item: Item, ordinal: int) -> Signature | None:
    """The signature on an item, if it is one of ECDSA or DSA with a hash that is known."""
    fields = item.signed
    if fields is None:
        return None
    name, dsa = ALGORITHMS.get(fields.signature_algorithm, ("", False))
    if not name:
        return None
    data = fields.signature
    try:
        start, stop = expect(data, 0, len(data), SEQUENCE, "signature")
        first, after = expect(data, start, stop, INTEGER, "r")
        begin, finish = expect(data, after, stop, INTEGER, "s")
    except DerError:
        return None
    r = int.from_bytes(data[first:after], "big")
    s = int.from_bytes(data[begin:finish], "big")
    if not r or not s or r.bit_length() > 640 or s.bit_length() > 640:
        return None
    digest = hashlib.new(name, fields.signed_part, usedforsecurity=False).digest()
    return Signature(ordinal, r, s, int.from_bytes(digest, "big"), 8 * len(digest), dsa)


def parse_edwards(item: Item, ordinal: int) -> EdwardsSignature | None:
    """The signature on an item, if it is one of Ed25519 or Ed448."""
    fields = item.signed
    kind = "" if fields is None else EDWARDS.get(fields.signature_algorithm, "")
    if fields is None or not kind:
        return None
    half = 32 if kind == "ed25519" else 57
    if len(fields.signature) != 2 * half:
        return None
    r, s = fields.signature[:half], int.from_bytes(fields.signature[half:], "little")
    return EdwardsSignature(ordinal, kind, r, s, fields.signed_part)


def order_of(key: Signer) -> int:
    """Order of the signer's group if it is one that this check computes in, else 0."""
    if isinstance(key, DsaPublicKey):
        return _dsa_order(key.p, key.q, key.g)
    if isinstance(key, OkpPublicKey):
        return group_order(key.type)
    curve = named_curve(key.curve)
    return 0 if curve is None or curve.binary else int(curve.order)


@lru_cache(maxsize=256)
def _dsa_order(p: int, q: int, g: int) -> int:
    sound = 128 <= q.bit_length() <= 512 and p.bit_length() <= 8192 and 1 < g < p > 2
    return q if sound and p & 1 and gmpy2.is_strong_bpsw_prp(q) else 0


def may_sign(algorithm: str, key: PublicKey | None) -> bool:
    """Whether the key is of the type that the signature algorithm asks for."""
    if algorithm in EDWARDS:
        return isinstance(key, OkpPublicKey) and key.type == EDWARDS[algorithm]
    return isinstance(key, DsaPublicKey if ALGORITHMS.get(algorithm, ("", False))[1] else EcPublicKey)


def verifies(key: Signer, signature: AnySignature) -> bool:
    """Whether a signature verifies with a key (FIPS 186-4, 4.7 and 6.4; RFC 8032)."""
    if isinstance(signature, EdwardsSignature):
        if not isinstance(key, OkpPublicKey):
            return False
        size = len(signature.r)
        whole = signature.r + signature.s.to_bytes(size, "little")
        try:
            maker = Ed25519PublicKey if signature.kind == "ed25519" else Ed448PublicKey
            maker.from_public_bytes(key.encoded).verify(whole, signature.signed_part)
        except (InvalidSignature, UnsupportedAlgorithm, ValueError):
            return False
        return True
    order = order_of(key)
    inverse = gmpy2.invert(signature.s, order)
    a, b = signature.z(order) * inverse % order, signature.r * inverse % order
    if isinstance(key, DsaPublicKey):
        return gmpy2.powmod(key.g, a, key.p) * gmpy2.powmod(key.y, b, key.p) % key.p % order == signature.r
    assert isinstance(key, EcPublicKey)
    curve = named_curves()[key.curve]
    point = affine(curve, key.point)
    if point is None:
        return False
    total = add(curve, multiply(curve, int(a), curve.base), multiply(curve, int(b), point))
    return total is not None and total[0] % order == signature.r
