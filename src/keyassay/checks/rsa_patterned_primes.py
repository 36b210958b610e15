"""A prime with a pattern: repeated words, long runs, few one bits.

Weakness: the prime's bits follow a rule instead of chance: one word repeated through it, words
swapped in pairs, a long run of zeros or ones below the top, a number close to a simple fraction of
a power of two, or two primes with few one bits. Faulty or stuck random sources and test doubles
leave such primes. Whoever guesses the kind of pattern has the key.

Method: all patterns but the last make a multiple of the prime, d p = a w + c, fall close to a
multiple of w = 2^(half the bits of N), with small a, c and d. The other prime can be eliminated,
which leaves a vector in a three-dimensional lattice that is far shorter than chance gives; lattice
reduction finds it without knowing d. Few one bits show in the number of ones at the ends of N; the
primes then come from a beam search that starts at the lowest bits and keeps the lightest pairs.
Either way the result is a factor that divides N.

Deep adds lattices of five dimensions that find p where all of it but the lowest fifth of the bits of
N is a repeated word (Coppersmith's method), one for each word; and a beam from the top that ends
there too, for primes with few one bits in their upper part alone.

Cost: 1 us a key in fast; 150 to 300 us in standard for RSA-2048. The beam search costs 0.1 to 0.3 s
and runs for one sound key in five million. Deep, at 2048 bits: 0.01 s
for longer periods; 0.3 s for the short words and 0.6 s for those below set bits; 36 s for those of
16 bits, in parts that a later run takes up; the beams 0.04 and 2 s where nothing light shows in the
first 128 bits, as in nearly all sound keys, else 0.3 and 14 s; that from the top 0.15 s, else 1 s.

Profiles: fast finds sparse primes. standard adds the lattice: repeated words of up to (bits of
N)/12 - 16 bits, 70 at 1024 bits and 150 at 2048, and patterns of 7 bits with 16-bit words swapped
in pairs. deep adds lattices for longer periods, other swaps, and long runs; words of 1 to 8 bits,
then of 16, repeated down to a free tail of a fifth of the bits of N, the short ones also below top
bits that the generator has set; and beams of 100 and 2,000 states for every key, and one of 400
from the top. Of keys whose primes both have ones in 2 to 4 % of their bits nearly all are found, of
6 to 8 % half; of those with ones in 6 % of the upper three quarters eight of nine.

Mistakes: none. Every finding carries a factor that was multiplied back. A modulus whose bits are
striking by choice, with sound primes, is not reported here.

Blind spots: words longer than a quarter of the prime, patterns in the middle of both primes, one
sparse prime with a random partner, primes that are sparse in their upper half only and no further.

Remedy: replace the key, and do not trust the random source of the device that made it: test it, and
replace the keys of its siblings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, Effort, batch_check
from keyassay.findings import Classification, Confidence, Factor, Profile, Severity, Verdict
from keyassay.keymath import bits, coppersmith, lattice

#: Standard deviations below half the ones from which the beam search runs: 2e-7 of sound keys.
LIGHT = 5.5

#: Beam states times bits of N that the search of a light key may spend, by profile.
BEAM_BUDGET = {Profile.FAST: 200_000, Profile.STANDARD: 800_000}

#: Denominator of patterns of 7 bits whose words of 16 bits were swapped in pairs; moduli above SHORT bits show them
#: without knowing it.
SWAPPED = ((1 << 7) - 1) * ((1 << 112) + 1) // ((1 << 16) + 1)
SHORT = 1536

#: Width of the beam from the top, and how many of its pairs of beginnings get lattices.
TOP_STATES, TOPS_TRIED = 400, 50


@batch_check(
    id="rsa-patterned-primes",
    title="prime with a bit pattern",
    applies_to=(RsaPublicKey,),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    version=2,
    references=(
        "D. J. Bernstein et al., Factoring RSA keys from certified smart cards, ASIACRYPT 2013",
        "N. Heninger, H. Shacham, Reconstructing RSA private keys from random key bits, CRYPTO 2009",
        "D. Coppersmith, Small solutions to polynomial equations, and low exponent RSA vulnerabilities, 1997",
    ),
    explained_by=("rsa-invalid-modulus", "rsa-close-primes", "rsa-small-factor", "rsa-polynomial-modulus"),
)
def check(batch: RsaBatch, context: Context) -> Iterator[tuple[int, Verdict]]:
    """Sparse primes by weight and beam; repeated words by lattice."""
    if batch.bits < 128:
        return
    light = bits.lightness(batch.matrix, batch.bits).max(axis=1) > LIGHT
    wide = context.profile >= Profile.STANDARD
    for row in range(len(batch)) if wide else np.flatnonzero(light).tolist():
        n = int(batch.moduli[row])
        if n & 1 == 0:
            continue
        factor, pattern = None, "few one bits"
        if wide:
            factor, pattern = _by_lattice(n), "repeated words or a long run"
        if factor is None and light[row]:
            factor, pattern = _by_beam(n, context.profile), "few one bits"
        verdict = _found(factor, pattern)
        if verdict is not None:
            yield row, verdict


def _by_lattice(n: int) -> int | None:
    factor = lattice.pattern_factor(n)
    if factor is None and n.bit_length() <= SHORT:
        factor = lattice.pattern_factor(n, SWAPPED, balance=SWAPPED.bit_length() + 16, quadratic=False)
    return factor


def _by_beam(n: int, profile: Profile) -> int | None:
    budget = BEAM_BUDGET[min(max(profile, Profile.FAST), Profile.STANDARD)]
    return bits.sparse_factor(n, max(budget // n.bit_length(), 8))


def _applies(key: RsaPublicKey) -> str:
    return "" if key.bits >= 128 and key.modulus & 1 else "the modulus is even or shorter than 128 bits"


def _found(factor: int | None, pattern: str) -> Verdict | None:
    if factor is None:
        return None
    return Verdict(f"a prime of this key has a pattern ({pattern})", Factor(factor, {"pattern": pattern}))


@check.deeper("long periods and runs", stage=3, seconds=0.008, applies=_applies)
def long_periods(key: RsaPublicKey, effort: Effort) -> Verdict | None:
    """The lattice of three dimensions with known denominators, and one for runs of ones or zeros."""
    n = key.modulus
    multipliers = lattice.multipliers(n.bit_length())
    total = len(multipliers) + 1
    factor = lattice.pattern_factor(n, balance=n.bit_length() // 8, quadratic=False)
    for done, multiplier in enumerate(multipliers, 1):
        if factor is not None:
            break
        effort.reached(done, total, "denominators")
        factor = lattice.pattern_factor(n, multiplier, balance=multiplier.bit_length() + 16, quadratic=False)
    effort.done = total
    return _found(factor, "repeated words or a long run")


@check.deeper("few one bits, 100 states", stage=3, seconds=0.15, applies=_applies)
def narrow_beam(key: RsaPublicKey, effort: Effort) -> Verdict | None:
    """A narrow beam for every key, light or not; most sound keys are given up at 128 bits."""
    return _sparse(key, effort, 100)


@check.deeper("few one bits, 2,000 states", stage=5, seconds=3.5, applies=_applies)
def wide_beam(key: RsaPublicKey, effort: Effort) -> Verdict | None:
    """The same, wider."""
    return _sparse(key, effort, 2_000)


def _sparse(key: RsaPublicKey, effort: Effort, states: int) -> Verdict | None:
    half = (key.bits + 1) // 2
    return _found(
        bits.sparse_factor(key.modulus, states, lambda done: effort.reached(min(done, half), half, "bits")),
        "few one bits",
    )


@check.deeper("few one bits above a free tail", stage=3, seconds=0.1, applies=_applies)
def light_tops(key: RsaPublicKey, effort: Effort) -> Verdict | None:
    """A beam from the top to where a lattice finds the rest of a prime, whatever its bits are."""
    tail = coppersmith.reach(key.bits) + 1
    length = (key.bits + 1) // 2 - tail
    tops = bits.lightest_tops(key.modulus, length, TOP_STATES, lambda done: effort.reached(done, length, "bits"))
    for start in dict.fromkeys(one for pair in tops[:TOPS_TRIED] for one in pair):
        effort.reached(length, length, "bits")
        factor = coppersmith.factor_near(key.modulus, start << tail, tail)
        if factor is not None:
            return _found(factor, "few one bits above a free tail")
    effort.done = effort.total = length
    return None


@check.deeper("words of up to 8 bits and a free tail", stage=3, seconds=0.3, applies=_applies)
def short_words(key: RsaPublicKey, effort: Effort) -> Verdict | None:
    """Every word of 1 to 8 bits that begins with a one."""
    starts = _short_words((key.bits + 1) // 2, 0)
    return _by_words(key, effort, len(starts), starts.__getitem__)


@check.deeper("words of up to 8 bits under set top bits", stage=5, seconds=0.6, applies=_applies)
def short_words_under_set_bits(key: RsaPublicKey, effort: Effort) -> Verdict | None:
    """Every word of 1 to 8 bits, with the highest bit or the two highest ones set by the generator."""
    half = (key.bits + 1) // 2
    natural = set(_short_words(half, 0))
    starts = [start for set_bits in (1, 2) for start in _short_words(half, set_bits) if start not in natural]
    return _by_words(key, effort, len(starts), starts.__getitem__)


@check.deeper("words of 16 bits and a free tail", stage=7, seconds=1.0, applies=_applies)
def long_words(key: RsaPublicKey, effort: Effort) -> Verdict | None:
    """Every word of 16 bits that begins with a one."""
    half = (key.bits + 1) // 2
    return _by_words(key, effort, 1 << 15, lambda number: _written(1 << 15 | number, 16, half))


@lru_cache(maxsize=32)
def _short_words(size: int, set_bits: int) -> tuple[int, ...]:
    """Words of 1 to 8 bits, repeated to ``size`` bits; the highest ``set_bits`` are then set, and the first is one."""
    top = ((1 << set_bits) - 1) << (size - set_bits)
    written = (_written(word, period, size) | top for period in range(1, 9) for word in range(1 << period))
    return tuple(dict.fromkeys(number for number in written if number.bit_length() == size))


def _written(word: int, period: int, size: int) -> int:
    """A word of ``period`` bits repeated from the top down, ``size`` bits in all."""
    times = -(-size // period)
    return word * (((1 << (period * times)) - 1) // ((1 << period) - 1)) >> (period * times - size)


def _by_words(key: RsaPublicKey, effort: Effort, count: int, start_of: Callable[[int], int]) -> Verdict | None:
    """One lattice for each way in which a prime may begin, all of it but the tail."""
    tail = coppersmith.reach(key.bits) + 1
    for number in range(effort.start, count):
        if number % 16 == 0 or number == effort.start:
            effort.reached(number, count, "words")
        factor = coppersmith.factor_near(key.modulus, start_of(number) >> tail << tail, tail)
        if factor is not None:
            return _found(factor, "repeated words over a free tail")
    effort.done = effort.total = count
    return None
