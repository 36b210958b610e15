"""Primes from a well-known generator that nobody seeded.

Weakness: the primes come from a public random generator in its initial state, or with a constant
seed such as 0, 1 or 42: a forgotten call, or a test setting that went into production. Everybody
who starts the same generator gets the same primes.

Method: the first outputs of GMP's Mersenne Twister and congruential generators, of java.util.Random
and of Python's random are remade. The highest 62 bits of a modulus are those of the product of the
two outputs that its primes were searched from, whatever the search, so one sorted table of products
of pairs finds the two outputs of a key. The primes then lie within 2^16 above them, which a product
and one greatest common divisor decide. Programs that draw until an output is prime are covered by a
shipped table of the places of the first three primes in each stream. Deep looks for a single prime
above any of these outputs as well, for keys whose other prime comes from elsewhere: p = s + t and
N = s q0 + r make t a fraction's inverse, so that no candidate is multiplied out.

Cost: 0.3 us a key, 20 ms once for each size of modulus. Deep: 20 ms a key.

Profiles: fast finds keys of which both primes come from the stream, deep those with one such prime.

Mistakes: none. A match in the table happens by chance to one key in 2^44, and only a factor of N
makes a finding.

Blind spots: seeds other than the constants named here, outputs after the first 24, moduli other
than 1024, 2048, 3072 and 4096 bits, generators that are not public, primes combined from outputs of
other lengths than their own; one prime of which another than the first 24 outputs was taken since
it was the first that is prime.

Remedy: replace the key with one from the operating system's random source. Keys made by the same
program share their primes: replace them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import gmpy2
import numpy as np
from numpy.typing import NDArray

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, Effort, batch_check
from keyassay.findings import Classification, Confidence, Factor, Profile, Severity, Value, Verdict
from keyassay.keymath.factoring import factor_above
from keyassay.lists.recipes.unseeded import (
    GENERATORS,
    PRIME_BITS,
    TWEAKS,
    Origin,
    first_outputs,
    listed_places,
    tweaked,
)

#: Outputs of each stream whose pairs are in the table.
OUTPUTS = 24

#: Highest bits of a product that are compared.
TOP_BITS = 62

#: Bits that a modulus may be short of twice a prime's: programs that force no high bit leave such.
SHORT = 16

#: How far above its output a prime is looked for.
REACH_BITS = 16
REACH = 1 << REACH_BITS


@dataclass(frozen=True)
class UnseededPrimes(Factor):
    """A factor, and the outputs that the primes were searched from (secret: they are the seed)."""

    origins: tuple[Origin, ...] = ()

    def secrets(self) -> Mapping[str, Value]:
        origins: list[Value] = [
            {"generator": origin.generator, "tweak": origin.tweak, "output": origin.place + 1}
            for origin in self.origins
        ]
        return {**super().secrets(), "outputs": origins}


@dataclass(frozen=True)
class _Table:
    """Products of pairs of outputs of one stream: their highest bits, sorted, and the numbers of the two origins.

    ``tops`` are at most 4 below the exact ones.
    """

    tops: NDArray[np.int64]
    pairs: NDArray[np.int32]
    origins: list[Origin]

    def pair(self, place: int) -> tuple[Origin, Origin]:
        """The origins of the product at that place."""
        one, two = self.pairs[place].tolist()
        return self.origins[one], self.origins[two]


def _prime_bits(bits: int) -> int | None:
    """Length of the primes of a modulus, where it is one of those that are looked at."""
    return next((size for size in PRIME_BITS if 2 * size - SHORT < bits <= 2 * size), None)


def _table(prime_bits: int) -> _Table:
    shift = prime_bits - TOP_BITS
    streams: dict[tuple[str, str], list[tuple[int, Origin]]] = {}
    for origin, top in listed_places(prime_bits):
        streams.setdefault((origin.generator, origin.tweak), []).append((top >> (96 - TOP_BITS), origin))
    groups = list(streams.values())
    for generator in GENERATORS:
        outputs = first_outputs(generator, prime_bits, OUTPUTS)
        groups.extend(
            [(tweaked(output, prime_bits, tweak) >> shift, Origin(generator, tweak, place))
             for place, output in enumerate(outputs)]
            for tweak in TWEAKS
        )  # fmt: skip
    pairs: list[NDArray[np.intp]] = []
    first = 0
    for group in groups:
        pairs.append(np.column_stack(np.triu_indices(len(group), 1)) + first)
        first += len(group)
    indices = np.concatenate(pairs)
    starts = np.array([start for group in groups for start, _ in group], dtype=np.int64)
    high, low = starts >> 31, starts & (2**31 - 1)
    one, two = indices[:, 0], indices[:, 1]
    products = high[one] * high[two] + ((high[one] * low[two] + low[one] * high[two]) >> 31)
    order = np.argsort(products, kind="stable")
    return _Table(products[order], indices[order].astype(np.int32), [origin for group in groups for _, origin in group])


def _factor_above(n: int, start: int) -> int | None:
    """The factor of N among the odd numbers from ``start`` to ``start + REACH``."""
    modulus = gmpy2.mpz(n)
    first = start | 1
    for block in range(first, first + REACH, 1024):
        product = gmpy2.mpz(1)
        for number in range(block, block + 1024, 2):
            product = product * number % modulus
        if gmpy2.gcd(product, modulus) > 1:
            for number in range(block, block + 1024, 2):
                factor = gmpy2.gcd(number, modulus)
                if 1 < factor < modulus:
                    return int(factor)
    return None


@batch_check(
    id="rsa-unseeded-prng",
    title="generator without a seed",
    applies_to=(RsaPublicKey,),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    version=2,
    references=(
        "GMP 6.3 manual, section 9 (Random Number Functions)",
        "Java SE API, java.util.Random and java.math.BigInteger",
        "M. Matsumoto, T. Nishimura, Mersenne Twister, ACM TOMACS 8, 1998",
        "CWE-337: Predictable Seed in Pseudo-Random Number Generator",
    ),
    explained_by=("rsa-invalid-modulus",),
)
def check(batch: RsaBatch, context: Context) -> Iterator[tuple[int, Verdict]]:
    """One sorted look-up of the highest bits; the factor for those that are found."""
    prime_bits = _prime_bits(batch.bits)
    if prime_bits is None:
        return
    name = f"rsa-unseeded-prng {prime_bits}"
    table: _Table | None = context.cache.get(name)
    if table is None:
        table = context.cache[name] = _table(prime_bits)
    shift = 2 * prime_bits - TOP_BITS
    tops = np.array([int(n >> shift) for n in batch.moduli], dtype=np.int64)
    begins = np.searchsorted(table.tops, tops - 6, side="left")
    ends = np.searchsorted(table.tops, tops + 1, side="right")
    for row in np.flatnonzero(begins < ends).tolist():
        n = int(batch.moduli[row])
        for place in range(int(begins[row]), min(int(ends[row]), int(begins[row]) + 8)):
            pair = table.pair(place)
            factor = _factor_above(n, pair[0].start(prime_bits)) if n & 1 else None
            if factor is not None:
                yield (
                    row,
                    Verdict(
                        "both primes come from a well-known random generator without a seed",
                        UnseededPrimes(factor, {"reach_bits": REACH_BITS}, pair),
                    ),
                )
                break


def _applies(key: RsaPublicKey) -> str:
    return "" if _prime_bits(key.bits) and key.modulus & 1 else "not of 1024, 2048, 3072 or 4096 bits, or even"


@check.deeper("one prime above an output", stage=3, seconds=0.02, applies=_applies)
def single_prime(key: RsaPublicKey, effort: Effort) -> Verdict | None:
    """One prime from the first outputs, the other from anywhere."""
    prime_bits = _prime_bits(key.bits)
    assert prime_bits is not None
    n = key.n
    for done, generator in enumerate(GENERATORS):
        effort.reached(done, len(GENERATORS), "generators")
        for place, output in enumerate(first_outputs(generator, prime_bits, OUTPUTS)):
            tried: set[int] = set()
            for tweak in TWEAKS:
                start = tweaked(output, prime_bits, tweak)
                if start in tried or start.bit_length() < 4 * REACH_BITS:
                    continue
                tried.add(start)
                factor = factor_above(n, gmpy2.mpz(start), REACH_BITS)
                if factor is not None:
                    return Verdict(
                        "a prime comes from a well-known random generator without a seed",
                        UnseededPrimes(factor, {"reach_bits": REACH_BITS}, (Origin(generator, tweak, place),)),
                    )
    effort.done = effort.total = len(GENERATORS)
    return None
