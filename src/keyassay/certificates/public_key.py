"""Public keys as plain frozen numbers, exactly as the encoding gave them, sound or not.

Nothing here judges a key: an even modulus, e = 1 or a point off its curve are representable, since those are
what the checks look for. How encodings become keys: ``decoding``; how thousands of keys are looked at: ``batches``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import gmpy2


@dataclass(frozen=True)
class RsaPublicKey:
    """RSA: modulus N and public exponent e (RFC 8017), any non-negative integers."""

    modulus: int
    exponent: int

    type = "rsa"

    @property
    def bits(self) -> int:
        """Length of the modulus in bits."""
        return self.modulus.bit_length()

    @cached_property
    def n(self) -> gmpy2.mpz:
        """The modulus as a gmpy2 integer, made once."""
        return gmpy2.mpz(self.modulus)


@dataclass(frozen=True)
class ExplicitParameters:
    """Curve parameters spelled out in a key (X9.62 ``ECParameters``).

    ``field`` is "prime" (``p`` is the prime) or "binary" (``p`` is the reduction polynomial as a bit string).
    ``generator`` holds the octets of the base point, ``cofactor`` is None where it was left out.
    """

    field: str
    p: int
    a: int
    b: int
    generator: bytes
    order: int
    cofactor: int | None


@dataclass(frozen=True)
class EcPublicKey:
    """Elliptic curve (RFC 5480).

    ``curve`` is the field's usual name ("P-256", "secp256k1", "brainpoolP256r1", "sect283k1", ...), a dotted
    OID where the curve is unknown to us, or "explicit" where ``parameters`` spells it out.
    ``point`` holds the octets of the BIT STRING (SEC 1, 2.3.3) as they came, also when they encode no point.
    """

    curve: str
    point: bytes
    parameters: ExplicitParameters | None = None

    type = "ec"


@dataclass(frozen=True)
class OkpPublicKey:
    """Edwards and Montgomery keys (RFC 8410): ``type`` is ed25519, ed448, x25519 or x448."""

    type: str
    encoded: bytes


@dataclass(frozen=True)
class DsaPublicKey:
    """DSA (FIPS 186): domain parameters p, q, g and the public value y."""

    p: int
    q: int
    g: int
    y: int

    type = "dsa"

    @property
    def bits(self) -> int:
        """Length of p in bits."""
        return self.p.bit_length()


@dataclass(frozen=True)
class UnsupportedPublicKey:
    """A key that was read but that no check can look at.

    ``algorithm`` is a short name ("ML-DSA-44", "GOST R 34.10-2012") or the dotted OID; ``type`` is what the
    JSON shows. ``reason`` is a sentence for the report.
    """

    type: str
    algorithm: str
    reason: str


PublicKey = RsaPublicKey | EcPublicKey | OkpPublicKey | DsaPublicKey | UnsupportedPublicKey


def bare_number(key: PublicKey) -> bytes:
    """The octets that a key is recognised by, whatever form it comes in.

    Returns:
        The modulus (RSA) or y (DSA), big-endian without leading zero; the x coordinate, padded as in the key; the raw
        octets of Edwards and Montgomery keys; empty where there is no such number.
    """
    if isinstance(key, RsaPublicKey):
        return key.modulus.to_bytes((key.modulus.bit_length() + 7) // 8, "big")
    if isinstance(key, DsaPublicKey):
        return key.y.to_bytes((key.y.bit_length() + 7) // 8, "big")
    if isinstance(key, OkpPublicKey):
        return key.encoded
    if isinstance(key, EcPublicKey) and key.point[:1] in (b"\x02", b"\x03"):
        return key.point[1:]
    if isinstance(key, EcPublicKey) and key.point[:1] in (b"\x04", b"\x06", b"\x07"):
        return key.point[1 : 1 + len(key.point) // 2]
    return b""
