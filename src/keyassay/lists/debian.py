"""From a hit in a Debian list to proof: make that one key again and compare it whole.

``find_rsa`` and ``find_ec`` take many keys at once; a hit costs a few milliseconds, everything else next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from numpy.typing import NDArray

from keyassay.errors import KeyassayError
from keyassay.keymath.curves import multiply, multiply_many, named_curves
from keyassay.lists import lookup
from keyassay.lists.format import KINDS, SHIPPED, Kind, block_names
from keyassay.lists.recipes.debian_openssl import (
    USUAL,
    VARIANTS,
    Stream,
    Variant,
    ec_secret,
    rsa_key_from_hints,
    rsa_keys,
)

#: the library's classes for the curves that it has; it is not asked for others
_LIBRARY: dict[str, type[ec.EllipticCurve]] = {
    "P-224": ec.SECP224R1,
    "P-256": ec.SECP256R1,
    "P-384": ec.SECP384R1,
    "P-521": ec.SECP521R1,
    "secp256k1": ec.SECP256K1,
}


@dataclass(frozen=True, slots=True)
class RsaHit:
    """A modulus that a stream makes: p and q by regeneration, and the hints that make it quick."""

    row: int
    kind: Kind
    stream: Stream
    p: int
    q: int
    blocks: tuple[int, int]


@dataclass(frozen=True, slots=True)
class EcHit:
    """A point whose x coordinate a stream makes: the private key is ``d`` or the order less ``d``."""

    row: int
    kind: Kind
    stream: Stream
    d: int


@cache
def curves() -> dict[str, str]:
    """Curve name -> kind of its list."""
    return {kind.curve: kind.name for kind in SHIPPED.values() if kind.curve}


@cache
def sizes() -> dict[int, str]:
    """Modulus bits -> kind of its list."""
    return {kind.bits: kind.name for kind in SHIPPED.values() if kind.bits}


def _with_variants(kind: str) -> list[Kind]:
    """The kind, and its variants, whose lists are there if somebody made them."""
    return [KINDS[kind], *(KINDS[f"{kind}-{variant}"] for variant in VARIANTS)]


def coordinate_bytes(curve: str) -> int:
    """Bytes of a padded x coordinate on a listed curve."""
    return named_curves()[curve].field_bytes


def curve_order(curve: str) -> int:
    """Order of a listed curve's base point."""
    return int(named_curves()[curve].order)


def ec_key(curve: str, stream: Stream, variant: Variant = USUAL) -> tuple[int, int, int]:
    """The private key and the public point (d, x, y) that a stream makes on a curve."""
    d = ec_secret(stream, curve_order(curve), variant)
    if curve in _LIBRARY:
        numbers = ec.derive_private_key(d, _LIBRARY[curve]()).public_key().public_numbers()
        return d, numbers.x, numbers.y
    found = named_curves()[curve]
    point = multiply(found, d, found.base)
    assert point is not None  # d is neither 0 nor the order
    return d, int(point[0]), int(point[1])


def ec_coordinates(curve: str, streams: Iterable[Stream], variant: Variant = USUAL) -> list[int]:
    """The x coordinates that streams make on a curve: as ``ec_key``, by other code, and several times as fast."""
    found = named_curves()[curve]
    secrets = [ec_secret(stream, int(found.order), variant) for stream in streams]
    return [int(point[0]) for point in multiply_many(found, secrets, found.base) if point is not None]


def gap(kind: str) -> str:
    """What is missing of the list of a kind, in a few words ("debian-rsa-4096: 95 of 96 blocks"); "" if nothing is."""
    try:
        found = lookup.merged(kind)
    except KeyassayError as error:
        return f"{KINDS[kind].list_name} was not looked at: {error}"
    blocks, complete = (0, len(block_names(kind))) if found is None else (found.blocks, found.complete_blocks)
    return f"{KINDS[kind].list_name}: {blocks} of {complete} blocks" if blocks < complete else ""


def find_rsa(bits: int, moduli: Sequence[int], digests: NDArray[np.uint64]) -> Iterator[RsaHit]:
    """Moduli of ``bits`` bits that are Debian keys; ``digests`` are the first 8 bytes of their SHA-256."""
    kind = sizes().get(bits)
    if kind is None:
        return
    for one in _with_variants(kind):
        for hit in lookup.find_many(one.name, digests):
            stream = Stream.of(hit.stream)
            assert hit.blocks is not None
            key = rsa_key_from_hints(stream, bits, hit.blocks, one.variant)
            if key.modulus == moduli[hit.row]:
                yield RsaHit(hit.row, one, stream, key.first, key.second, hit.blocks)


def find_ec(curve: str, coordinates: Sequence[bytes], digests: NDArray[np.uint64]) -> Iterator[EcHit]:
    """Points that are Debian keys, by padded x coordinates; ``digests`` are the first 8 bytes of their SHA-256."""
    kind = curves().get(curve)
    if kind is None:
        return
    for one in _with_variants(kind):
        for hit in lookup.find_many(one.name, digests):
            stream = Stream.of(hit.stream)
            d, x, _ = ec_key(curve, stream, one.variant)
            if x.to_bytes(coordinate_bytes(curve), "big") == coordinates[hit.row]:
                yield EcHit(hit.row, one, stream, d)


def rsa_key_of(bits: int, stream: Stream, modulus: int) -> tuple[int, int] | None:
    """Factors p and q if the stream makes this modulus, without hints (tens of milliseconds); else None."""
    for key in rsa_keys(stream, bits).values():
        if key.modulus == modulus:
            return key.first, key.second
    return None
