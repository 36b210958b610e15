"""From a hit in a Debian list to proof: make that one key again and compare it whole.

``find_rsa`` and ``find_ec`` take many keys at once; a hit costs a few milliseconds, everything else next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from numpy.typing import NDArray

from keyassay.errors import KeyassayError
from keyassay.lists import lookup
from keyassay.lists.format import KINDS
from keyassay.lists.recipes.debian_openssl import Stream, ec_secret, rsa_key_from_hints, rsa_keys

#: curve name -> class of the library that multiplies points, order of the base point, bytes of a coordinate
_CURVES: dict[str, tuple[type[ec.EllipticCurve], int, int]] = {
    "P-256": (ec.SECP256R1, 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551, 32),
    "P-384": (
        ec.SECP384R1,
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
        48,
    ),
    "P-521": (
        ec.SECP521R1,
        2**521 - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
        66,
    ),
    "secp256k1": (ec.SECP256K1, 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141, 32),
}


@dataclass(frozen=True, slots=True)
class RsaHit:
    """A modulus that a stream makes: p and q by regeneration, and the hints that make it quick."""

    row: int
    list_name: str
    stream: Stream
    p: int
    q: int
    blocks: tuple[int, int]


@dataclass(frozen=True, slots=True)
class EcHit:
    """A point whose x coordinate a stream makes: the private key is ``d`` or the order less ``d``."""

    row: int
    list_name: str
    stream: Stream
    d: int


@cache
def curves() -> dict[str, str]:
    """Curve name -> kind of its list."""
    return {kind.curve: kind.name for kind in KINDS.values() if kind.curve}


@cache
def sizes() -> dict[int, str]:
    """Modulus bits -> kind of its list."""
    return {kind.bits: kind.name for kind in KINDS.values() if kind.bits}


def coordinate_bytes(curve: str) -> int:
    """Bytes of a padded x coordinate on a listed curve."""
    return _CURVES[curve][2]


def curve_order(curve: str) -> int:
    """Order of a listed curve's base point."""
    return _CURVES[curve][1]


def ec_key(curve: str, stream: Stream) -> tuple[int, int, int]:
    """The private key and the public point (d, x, y) that a stream makes on a curve."""
    shape, order, _ = _CURVES[curve]
    d = ec_secret(stream, order)
    numbers = ec.derive_private_key(d, shape()).public_key().public_numbers()
    return d, numbers.x, numbers.y


def gap(kind: str) -> str:
    """What is missing of the list of a kind, in a few words; "" if it is complete."""
    try:
        found = lookup.merged(kind)
    except KeyassayError as error:
        return f"{KINDS[kind].list_name} was not looked at: {error}"
    if found is None:
        return f"{KINDS[kind].list_name} is missing"
    if found.blocks < found.complete_blocks:
        return f"{KINDS[kind].list_name} has {found.blocks} of {found.complete_blocks} blocks"
    return ""


def find_rsa(bits: int, moduli: Sequence[int], digests: NDArray[np.uint64]) -> Iterator[RsaHit]:
    """Moduli of ``bits`` bits that are Debian keys; ``digests`` are the first 8 bytes of their SHA-256."""
    kind = sizes().get(bits)
    if kind is None:
        return
    for hit in lookup.find_many(kind, digests):
        stream = Stream.of(hit.stream)
        assert hit.blocks is not None
        key = rsa_key_from_hints(stream, bits, hit.blocks)
        if key.modulus == moduli[hit.row]:
            yield RsaHit(hit.row, KINDS[kind].list_name, stream, key.first, key.second, hit.blocks)


def find_ec(curve: str, coordinates: Sequence[bytes], digests: NDArray[np.uint64]) -> Iterator[EcHit]:
    """Points that are Debian keys, by padded x coordinates; ``digests`` are the first 8 bytes of their SHA-256."""
    kind = curves().get(curve)
    if kind is None:
        return
    for hit in lookup.find_many(kind, digests):
        stream = Stream.of(hit.stream)
        d, x, _ = ec_key(curve, stream)
        if x.to_bytes(coordinate_bytes(curve), "big") == coordinates[hit.row]:
            yield EcHit(hit.row, KINDS[kind].list_name, stream, d)


def rsa_key_of(bits: int, stream: Stream, modulus: int) -> tuple[int, int] | None:
    """Factors p and q if the stream makes this modulus, without hints (tens of milliseconds); else None."""
    for key in rsa_keys(stream, bits).values():
        if key.modulus == modulus:
            return key.first, key.second
    return None
