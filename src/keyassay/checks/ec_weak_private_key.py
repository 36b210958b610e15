"""Elliptic curve keys whose private number is small, repetitive or otherwise lazy.

Weakness: d has to be uniform below the group's order. Test code, truncated buffers, generators without entropy and
human choices give d = 1, a counter, 32 zero bits short of everything, one byte repeated, a hashed password. Whoever
guesses the pattern has the key.

Method: x coordinates (their low 64 bits) are looked up in sorted tables of multiples of the base point; giant steps by
shared inversions extend a table's reach. x(Q) = x(-Q), so every look-up covers d and order - d. Covered: |d| up to
2^20, 16-bit words repeated over the whole length, and a list of some thousand lazy numbers (bytes repeated, counting up
or down, powers of two and their neighbours and complements, well-known hexadecimal words, hashed words and counters,
halves and thirds of the order, the curve's own constants). The same octets as seeds of Ed25519 and X25519 keys. Deep:
|d| up to 2^32, 2^40, 2^44 and 2^48 as far as the budget goes, and d = w c with w below 2^32 for 30 constants c: a
32-bit word repeated, or a window of 32 bits at any byte and zeros elsewhere. Ranges go on where an earlier run of the
same store was.

Cost: with a table of 2^20 entries 0.1 us a key; the table takes 2 s and 12 MB a curve once and is kept in the user's
cache folder. For few keys a smaller table and giant steps see exactly the same: 20 us to 0.2 ms a key. The lazy numbers
take 0.5 s a curve once, and are kept as well. Deep, on P-256: |d| up to 2^32 20 ms, the 30 constants 0.6 s, up to 2^40
5 s, 2^44 75 s, 2^48 20 minutes; 12 MB in all.

Profiles: fast: |d| up to 2^20, repeated words, lazy numbers and seeds. Deep: larger d, the constants.

Mistakes: none: a finding carries d or the seed, and the public key was computed from it.

Blind spots: curves over binary fields, private numbers with more than 48 random bits, words repeated that are longer
than 32 bits, Ed448 and X448.

Remedy: a new key from a sound generator; look for siblings made by the same code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import gmpy2
import numpy as np

from keyassay.certificates.batches import EcBatch, OkpBatch
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import EcPublicKey, OkpPublicKey, PublicKey
from keyassay.checks import Context, Effort, batch_check
from keyassay.findings import (
    Classification,
    Confidence,
    EcPrivateKey,
    Evidence,
    Profile,
    Severity,
    Value,
    Verdict,
)
from keyassay.keymath.curves import (
    Curve,
    StepTable,
    affine,
    multiply,
    named_curve,
    named_curves,
    small_logarithm,
)
from keyassay.keymath.giant_steps import block_count, search_blocks
from keyassay.lists.lazy import lazy_seeds, lazy_table, public_of_seed
from keyassay.lists.tables import is_kept, steps

REACH = 1 << 20
#: deep: private numbers of so many bits, those of fewer bits done before; stage, and CPU seconds of the first block
RANGES = ((32, 0, 2, 0.02), (40, 32, 4, 0.1), (44, 40, 6, 0.1), (48, 44, 7, 0.1))
_LOW = (1 << 64) - 1


def table_size(keys: int, *, at_hand: bool) -> int:
    """Entries of the table that make the whole cheapest for so many keys.

    A table of the whole reach takes two seconds to make, once for all runs, and 15 ms to load; without it a key takes
    some 20 us of giant steps.
    """
    if keys < 1_000:
        return 1 << 14
    return REACH if at_hand or keys >= 5_000 else 1 << 17


@dataclass(frozen=True)
class Seed(Evidence):
    """The seed (Ed25519) or private key (X25519) that gives the public key."""

    seed: bytes

    def proves(self, subject: PublicKey | Item) -> bool:
        return (
            isinstance(subject, OkpPublicKey)
            and subject.type in ("ed25519", "x25519")
            and len(self.seed) == 32
            and public_of_seed(subject.type, self.seed) == subject.encoded
        )

    def describe(self) -> Mapping[str, Value]:
        return {"proof": "private key"}

    def secrets(self) -> Mapping[str, Value]:
        return {"seed": self.seed}


def _repeated_word(order: int) -> list[int]:
    """Factors c so that w c repeats the 16-bit word w over the whole private number."""
    bits = order.bit_length()
    counts = {bits // 16, -(-bits // 16)}
    return [sum(1 << (16 * i) for i in range(count)) for count in sorted(counts)]


def _constants(order: int) -> list[int]:
    """Factors c of deep: w c is a repeated 32-bit word, or a window of 32 bits at a byte border."""
    bits = order.bit_length()
    repeated = {sum(1 << (32 * i) for i in range(count)) for count in (bits // 32, -(-bits // 32)) if count > 1}
    return [*sorted(repeated), *(1 << shift for shift in range(8, bits - 16, 8))]


@batch_check(
    id="ec-weak-private-key",
    title="small or lazy private key",
    applies_to=(EcPublicKey, OkpPublicKey),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    version=2,
    references=(
        "Shanks 1971: baby steps, giant steps",
        "Courtois, Song, Castellucci 2016: Speed optimizations in Bitcoin key recovery attacks",
        "google/paranoid_crypto: CheckWeakECPrivateKey",
    ),
    explained_by=("ec-invalid-point", "ec-debian-openssl", "any-known-key"),
)
def ec_weak_private_key(batch: EcBatch | OkpBatch, context: Context) -> Iterator[tuple[int, Verdict]]:
    """Tables for the whole batch, giant steps where the table is smaller than the reach."""
    if isinstance(batch, OkpBatch):
        yield from _seeds(batch)
        return
    curve = named_curve(batch.curve)
    if curve is None or curve.binary:
        return
    points = [point or affine(curve, key.point) for point, key in zip(batch.points, batch.keys, strict=True)]
    rows = [row for row, point in enumerate(points) if point is not None]
    if not rows:
        return
    size = table_size(max(context.key_count, len(batch)), at_hand=is_kept(curve.name, REACH))
    table = steps(curve.name, size)
    tails = np.array([int(point[0] & _LOW) for point in points if point is not None], dtype=np.uint64)
    found: dict[int, tuple[int, str]] = {}
    if table.size >= REACH:
        for position, index in table.find(tails):
            found[rows[position]] = (index, "small")
    else:
        for row in rows:
            point = points[row]
            assert point is not None
            d = small_logarithm(curve, point, curve.base, table, REACH)
            if d is not None:
                found[row] = (abs(d), "small")
    lazy, numbers = lazy_table(curve.name)
    places = np.searchsorted(lazy, tails)
    places[places == len(lazy)] = 0
    for position in np.flatnonzero(lazy[places] == tails).tolist():
        found.setdefault(rows[position], (numbers[int(places[position])], "of a well-known form"))
    for factor in _repeated_word(curve.order):
        for position, index in steps(curve.name, 65_535, factor).find(tails):
            found.setdefault(rows[position], (index * factor % curve.order, "one 16-bit word repeated"))
    for row, (guess, form) in found.items():
        verdict = _verdict(curve, points[row], guess, form)
        if verdict is not None:
            yield row, verdict


def _verdict(curve: Curve, point: tuple[int, int] | None, guess: int, form: str) -> Verdict | None:
    """The finding if the private key is the guess, or the order less it."""
    for d in (guess % curve.order, -guess % curve.order):
        if multiply(curve, d, curve.base) == point:
            side = "" if d == guess else " counted down from the group's order"
            return Verdict(f"the private key is {form}{side}", EcPrivateKey(int(d), {"form": form + side}))
    return None


# Deep


def _on_prime_curve(key: EcPublicKey | OkpPublicKey) -> str:
    curve = named_curve(key.curve) if isinstance(key, EcPublicKey) else None
    if curve is None:
        return "only keys on curves of the Weierstrass form that have a name"
    return "the curve is over a binary field" if curve.binary else ""


def _declare_range(bits: int, below: int, stage: int, seconds: float) -> None:
    """A step that tries all private numbers between two powers of two, on either end."""

    def small(key: EcPublicKey, effort: Effort) -> Verdict | None:
        curve = named_curves()[key.curve]
        point = affine(curve, key.point)
        if point is None:
            return None
        table = steps(curve.name, REACH)
        first = block_count(table, 1 << below) if below else 0
        total = block_count(table, 1 << bits) - first

        def reached(block: int) -> None:
            effort.reached(block - first, total, "blocks")

        d = search_blocks(curve, point, table, (first + effort.start, first + total), reached)
        return None if d is None else _verdict(curve, point, abs(d), "small")

    name = f"private numbers of up to {bits} bits"
    ec_weak_private_key.deeper(name, stage=stage, seconds=seconds, applies=_on_prime_curve)(small)


for _range in RANGES:
    _declare_range(*_range)


@ec_weak_private_key.deeper("32 bits at any byte", stage=3, seconds=0.2, applies=_on_prime_curve)
def placed(key: EcPublicKey, effort: Effort) -> Verdict | None:
    """A word of 32 bits repeated, or at any byte and zeros elsewhere."""
    curve = named_curves()[key.curve]
    point = affine(curve, key.point)
    if point is None:
        return None
    table = steps(curve.name, REACH)
    constants = _constants(curve.order)
    for place, constant in enumerate(constants[effort.start :], effort.start + 1):
        found = _of_constant(curve, point, table, constant)
        if found is not None:
            return _verdict(curve, point, *found)
        effort.reached(place, len(constants), "places")
    return None


def _of_constant(curve: Curve, point: tuple[int, int], table: StepTable, constant: int) -> tuple[int, str] | None:
    divided = multiply(curve, int(gmpy2.invert(constant, curve.order)), point)
    w = None if divided is None else search_blocks(curve, divided, table, (0, 1))
    if w is None:
        return None
    form = "32 bits and zeros" if constant & (constant - 1) == 0 else "one 32-bit word repeated"
    return int(w * constant % curve.order), form


def _seeds(batch: OkpBatch) -> Iterator[tuple[int, Verdict]]:
    kind = batch.keys[0].type if len(batch) else ""
    if kind not in ("ed25519", "x25519"):
        return
    known = lazy_seeds(kind)
    for row, key in enumerate(batch.keys):
        seed = known.get(key.encoded)
        if seed is not None:
            yield row, Verdict("the private key is of a well-known form", Seed(seed))
