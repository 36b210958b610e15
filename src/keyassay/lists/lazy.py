"""Lazy private numbers and seeds: what people and broken code choose instead of random bits, and their public keys.

Numbers become points of a curve (private keys, nonces), strings of 32 bytes become Ed25519 and X25519 keys. The tables
are made once and kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from keyassay.keymath.curves import Curve, multiply_many, named_curves
from keyassay.lists.tables import kept

_LOW = (1 << 64) - 1
_WORDS = [
    "empty",
    "test",
    "password",
    "secret",
    "key",
    "private",
    "admin",
    "root",
    "1234",
    "12345678",
    "default",
    "changeme",
    "device",
    "iot",
    "foo",
    "bar",
    "hello",
    "world",
    "qwerty",
    "letmein",
    "keyassay",
    "example",
    "null",
    "none",
]


def lazy_octets(size: int) -> Iterator[bytes]:
    """Strings that people and broken code take for a private key, each of up to ``size`` bytes or cut to it."""
    for byte in range(256):
        yield bytes([byte]) * size
        yield bytes((byte + i) & 255 for i in range(size))
        yield bytes((byte - i) & 255 for i in range(size))
        for width in (1, 4, 32):
            counter = byte.to_bytes(width, "big")
            yield hashlib.sha256(counter).digest()
            yield hashlib.sha512(counter).digest()
    for pattern in ("deadbeef", "cafebabe", "12345678", "0123456789abcdef", "a5a5", "5a5a", "55aa", "0102030405060708"):
        word = bytes.fromhex(pattern)
        yield word * (size // len(word) + 1)
        yield word
    for text in ("", *_WORDS):
        raw = text.encode()
        if raw:
            yield raw
            yield raw * (size // len(raw) + 1)
        for name in ("md5", "sha1", "sha256", "sha384", "sha512"):
            yield hashlib.new(name, raw, usedforsecurity=False).digest()


def _widths(octets: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Each string cut to the size, or filled up with zeros on either side."""
    for one in octets:
        yield one[:size].ljust(size, b"\0")
        yield one[:size].rjust(size, b"\0")


def lazy_numbers(curve: Curve) -> list[int]:
    """Private numbers that people and broken code choose, below the order, each once."""
    order = int(curve.order)
    bits = order.bit_length()
    size = (bits + 7) // 8
    found = {int(curve.gx), int(curve.gy), int(curve.b), (order + 1) // 2, (order - 1) // 2, order // 3}
    for width in {32, size}:
        for octets in _widths(lazy_octets(size), width):
            found |= {int.from_bytes(octets, "big"), int.from_bytes(octets, "little")}
    ones = (1 << bits) - 1
    for exponent in range(bits):
        power = 1 << exponent
        found |= {power - 1, power, power + 1, ones ^ power, ones ^ (power - 1)}
    # longer strings (P-521 has 7 bits too many) are cut to the order's bits, as generators do
    return sorted({(number & ones) % order for number in found} - {0})


@cache
def lazy_table(name: str) -> tuple[NDArray[np.uint64], list[int]]:
    """Sorted tails of the lazy numbers' points, and the numbers in that order."""
    curve = named_curves()[name]
    numbers = lazy_numbers(curve)
    described = hashlib.sha256(repr((name, numbers)).encode()).hexdigest()

    def make() -> NDArray[np.uint64]:
        points = multiply_many(curve, numbers, curve.base)
        return np.array([0 if point is None else int(point[0] & _LOW) for point in points], dtype=np.uint64)

    tails = kept(f"lazy-{name}", described, make)
    order = np.argsort(tails, kind="stable")
    return tails[order], [numbers[place] for place in order.tolist()]


def public_of_seed(kind: str, seed: bytes) -> bytes:
    """The public key of a seed of 32 bytes; ``kind`` is ed25519 or x25519."""
    if kind == "ed25519":
        return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return X25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


@cache
def lazy_seeds(kind: str) -> dict[bytes, bytes]:
    """Public key -> seed, for the lazy strings of 32 bytes, in both byte orders."""
    seeds = sorted({seed for one in _widths(lazy_octets(32), 32) for seed in (one, one[::-1])})

    def make() -> NDArray[np.uint64]:
        octets = b"".join([public_of_seed(kind, seed) for seed in seeds])
        return np.frombuffer(octets, dtype="<u8").astype(np.uint64)

    octets = kept(f"lazy-{kind}", hashlib.sha256(b"".join(seeds)).hexdigest(), make).astype("<u8").tobytes()
    return {octets[32 * place : 32 * place + 32]: seed for place, seed in enumerate(seeds)}
