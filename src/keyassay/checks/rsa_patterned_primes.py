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

Cost: 1 us a key in fast; 150 to 300 us in standard for RSA-2048; milliseconds in deep. The beam
search costs 0.1 to 0.3 s and runs for one sound key in five million.

Profiles: fast finds sparse primes. standard adds the lattice: repeated words of up to (bits of
N)/12 - 16 bits, 70 at 1024 bits and 150 at 2048, and patterns of 7 bits with 16-bit words swapped
in pairs. deep adds lattices for longer periods and other swaps, for long runs, a wider beam, and a
beam for every key.

Mistakes: none. Every finding carries a factor that was multiplied back. A modulus whose bits are
striking by choice, with sound primes, is not reported here.

Blind spots: words longer than a quarter of the prime, patterns in the middle of both primes, one
sparse prime with a random partner, primes that are sparse in their upper half only.

Remedy: replace the key, and do not trust the random source of the device that made it: test it, and
replace the keys of its siblings.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, batch_check
from keyassay.findings import Classification, Confidence, Factor, Profile, Severity, Verdict
from keyassay.keymath import bits, lattice

#: Standard deviations below half the ones from which the beam search runs: 2e-7 of sound keys.
LIGHT = 5.5

#: Beam states times bits of N that a search may spend, by profile.
BEAM_BUDGET = {Profile.FAST: 200_000, Profile.STANDARD: 800_000, Profile.DEEP: 8_000_000}

#: Weight at 96 bits up to which deep continues the beam of a key that does not look light; sound keys have 24 or more.
DEEP_START = 20


#: Denominator of patterns of 7 bits whose words of 16 bits were swapped in pairs; moduli above SHORT bits show them
#: without knowing it.
SWAPPED = ((1 << 7) - 1) * ((1 << 112) + 1) // ((1 << 16) + 1)
SHORT = 1536


@batch_check(
    id="rsa-patterned-primes",
    title="prime with a bit pattern",
    applies_to=(RsaPublicKey,),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    references=(
        "D. J. Bernstein et al., Factoring RSA keys from certified smart cards, ASIACRYPT 2013",
        "N. Heninger, H. Shacham, Reconstructing RSA private keys from random key bits, CRYPTO 2009",
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
            factor, pattern = _by_lattice(n, context.profile), "repeated words or a long run"
        if factor is None:
            factor, pattern = _by_beam(n, context.profile, light=bool(light[row])), "few one bits"
        if factor is not None:
            yield row, Verdict(f"a prime of this key has a pattern ({pattern})", Factor(factor, {"pattern": pattern}))


def _by_lattice(n: int, profile: Profile) -> int | None:
    factor = lattice.pattern_factor(n)
    if factor is None and n.bit_length() <= SHORT:
        factor = lattice.pattern_factor(n, SWAPPED, balance=SWAPPED.bit_length() + 16, quadratic=False)
    if factor is None and profile >= Profile.DEEP:
        factor = lattice.pattern_factor(n, balance=n.bit_length() // 8, quadratic=False)
        for multiplier in lattice.multipliers(n.bit_length()):
            if factor is not None:
                break
            factor = lattice.pattern_factor(n, multiplier, balance=multiplier.bit_length() + 16, quadratic=False)
    return factor


def _by_beam(n: int, profile: Profile, *, light: bool) -> int | None:
    if not light and (profile < Profile.DEEP or bits.lightest_start(n, 96, 32) > DEEP_START):
        return None
    return bits.sparse_factor(n, max(BEAM_BUDGET[max(profile, Profile.FAST)] // n.bit_length(), 8))
