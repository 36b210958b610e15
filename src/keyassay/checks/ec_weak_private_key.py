"""Elliptic curve keys whose private number is small, repetitive or otherwise lazy.

Weakness: d has to be uniform below the group's order. Test code, truncated buffers, generators without entropy and
human choices give d = 1, a counter, 32 zero bits short of everything, one byte repeated, a hashed password. Whoever
guesses the pattern has the key.

Method: x coordinates (their low 64 bits) are looked up in sorted tables of multiples of the base point; giant steps by
shared inversions extend a table's reach. x(Q) = x(-Q), so every look-up covers d and order - d. Covered: |d| up to
2^20 (fast and up), 16-bit words repeated over the whole length, and a list of about 2,000 lazy numbers (bytes repeated,
counting up or down, powers of two and their neighbours, well-known hexadecimal words, hashed words, halves and
thirds of the order, coordinates of the base point). Deep: |d| up to 2^32.

Cost: with a table of 2^20 entries 0.1 us a key; the table takes 2 s and 12 MB a curve once and is kept in the user's
cache folder. For few keys a smaller table and giant steps see exactly the same: 20 us to 0.2 ms a key. Deep: 10 ms.

Profiles: fast: |d| up to 2^20. Standard adds repeated words and the lazy list. Deep: |d| up to 2^32.

Mistakes: none: a finding carries d, and dG = Q was computed.

Blind spots: curves over binary fields, private numbers with more than 32 random bits, seeds of Ed25519 keys (small
numbers do not occur there).

Remedy: a new key from a sound generator; look for siblings made by the same code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from keyassay.certificates.batches import EcBatch
from keyassay.certificates.public_key import EcPublicKey
from keyassay.checks import Context, batch_check
from keyassay.findings import Classification, Confidence, EcPrivateKey, Profile, Severity, Verdict
from keyassay.keymath.curves import (
    Curve,
    multiply,
    multiply_many,
    named_curve,
    named_curves,
    read_point,
    root,
    small_logarithm,
)
from keyassay.lists.tables import steps

REACH = 1 << 20
DEEP_REACH = 1 << 32
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


def table_size(keys: int) -> int:
    """Entries of the table that make the whole cheapest for so many keys."""
    if keys < 1_000:
        return 1 << 14
    return 1 << 17 if keys < 50_000 else 1 << 20


def lazy_numbers(order: int) -> list[int]:
    """Private numbers that people and broken code choose, below the order, each once."""
    size = (order.bit_length() + 7) // 8
    found: list[int] = []

    def take(octets: bytes) -> None:
        for width in {32, size}:
            for number in (octets[:width].ljust(width, b"\0"), octets[:width].rjust(width, b"\0")):
                found.extend((int.from_bytes(number, "big"), int.from_bytes(number, "little")))

    for byte in range(256):
        take(bytes([byte]) * size)
        take(bytes((byte + i) & 255 for i in range(size)))
        take(bytes((byte - i) & 255 for i in range(size)))
        for width in (1, 4, 32):
            take(hashlib.sha256(byte.to_bytes(width, "big")).digest())
    for exponent in range(order.bit_length()):
        found.extend(((1 << exponent) - 1, 1 << exponent, (1 << exponent) + 1))
    for pattern in ("deadbeef", "cafebabe", "12345678", "0123456789abcdef", "a5a5", "5a5a", "55aa", "0102030405060708"):
        word = bytes.fromhex(pattern)
        take(word * (size // len(word) + 1))
        take(word)
    for text in ("", *_WORDS):
        raw = text.encode()
        if raw:
            take(raw)
            take(raw * (size // len(raw) + 1))
        for name in ("md5", "sha1", "sha256", "sha384", "sha512"):
            take(hashlib.new(name, raw, usedforsecurity=False).digest())
    found.extend(((order + 1) // 2, (order - 1) // 2, order // 3))
    return sorted({number % order for number in found} - {0})


@cache
def _lazy_table(name: str) -> tuple[NDArray[np.uint64], list[int]]:
    """Sorted tails of the lazy numbers' points, and the numbers in that order."""
    curve = named_curves()[name]
    numbers = [*lazy_numbers(curve.order), int(curve.gx % curve.order), int(curve.gy % curve.order)]
    points = multiply_many(curve, numbers, curve.base)
    tails = np.array([0 if point is None else int(point[0] & _LOW) for point in points], dtype=np.uint64)
    order = np.argsort(tails, kind="stable")
    return tails[order], [numbers[place] for place in order.tolist()]


def _repeated_word(order: int) -> list[int]:
    """Factors c so that w c repeats the 16-bit word w over the whole private number."""
    bits = order.bit_length()
    counts = {bits // 16, -(-bits // 16)}
    return [sum(1 << (16 * i) for i in range(count)) for count in sorted(counts)]


def _affine(curve: Curve, key: EcPublicKey) -> tuple[int, int] | None:
    reading = read_point(curve, key.point)
    if reading.problem:
        return None
    if reading.point is not None:
        return reading.point
    if curve.binary:
        return None
    return root(curve, int.from_bytes(key.point[1:], "big"), key.point[0] & 1)


@batch_check(
    id="ec-weak-private-key",
    title="small or lazy private key",
    applies_to=(EcPublicKey,),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    references=(
        "Shanks 1971: baby steps, giant steps",
        "Courtois, Song, Castellucci 2016: Speed optimizations in Bitcoin key recovery attacks",
        "google/paranoid_crypto: CheckWeakECPrivateKey",
    ),
    explained_by=("ec-invalid-point", "ec-debian-openssl", "any-known-key"),
)
def ec_weak_private_key(batch: EcBatch, context: Context) -> Iterator[tuple[int, Verdict]]:
    """Tables for the whole batch, giant steps where the table is smaller than the reach."""
    curve = named_curve(batch.curve)
    if curve is None or curve.binary:
        return
    points = [_affine(curve, key) for key in batch.keys]
    rows = [row for row, point in enumerate(points) if point is not None]
    if not rows:
        return
    deep = context.profile >= Profile.DEEP
    reach = DEEP_REACH if deep else REACH
    table = steps(curve.name, max(table_size(max(context.key_count, len(batch))), 1 << 20 if deep else 0))
    tails = np.array([int(point[0] & _LOW) for point in points if point is not None], dtype=np.uint64)
    found: dict[int, tuple[int, str]] = {}
    if table.size >= reach:
        for position, index in table.find(tails):
            found[rows[position]] = (index, "small")
    else:
        for row in rows:
            point = points[row]
            assert point is not None
            d = small_logarithm(curve, point, curve.base, table, reach)
            if d is not None:
                found[row] = (abs(d), "small")
    if context.profile >= Profile.STANDARD:
        lazy, numbers = _lazy_table(curve.name)
        places = np.searchsorted(lazy, tails)
        places[places == len(lazy)] = 0
        for position in np.flatnonzero(lazy[places] == tails).tolist():
            found.setdefault(rows[position], (numbers[int(places[position])], "of a well-known form"))
        for factor in _repeated_word(curve.order):
            for position, index in steps(curve.name, 65_535, factor).find(tails):
                found.setdefault(rows[position], (index * factor % curve.order, "one 16-bit word repeated"))
    for row, (guess, form) in found.items():
        for d in (guess, curve.order - guess):
            if multiply(curve, d, curve.base) == points[row]:
                side = "" if d == guess else " counted down from the group's order"
                message = f"the private key is {form}{side}"
                yield row, Verdict(message, EcPrivateKey(int(d), {"form": form + side}))
                break
