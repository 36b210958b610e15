"""RSA keys whose primes share their high bits, their low bits, or some of both.

Weakness: if p and q agree in h high and m low bits, h + m a quarter of the modulus (half of a prime), then (p + q)/2 is
known from above by sqrt(N) and from below by the square root of N in the 2-adic numbers, and nothing is left to guess
(Steinfeld, Zheng 2001). Broken generators that vary only the middle of a template make such keys.

A template may also serve many keys: once one of them is factored, its siblings are.

Method: t = the 2-adic root of N less isqrt(N) + 1. Where both halves meet, t has a run of zero bits; every run of 12 or
more is tried, s^2 - N has to be a square. Only N = 1 modulo 8 can have this structure. Primes that share high bits and
fewer than 8 low ones are so close that rsa-close-primes has them.

Cost: 3 us for a quarter of the keys, under 1 us on average; standard 0.1 to 0.2 ms on average. Deep:
1 ms a beginning and 9 ms an ending at 2048 bits, a third of a second at most.

Profiles: fast: h + m at least n/4 + 7 bits, by runs of zeros. Standard: h + m at least n/4 + 1, trying every place;
nearly all keys with n/4 as well. Deep: where factors of other keys of the run are known, the 0.3 n bits with which they
begin or end are tried on the key: p follows if it begins or ends alike (Coppersmith's method). The 80 most frequent
beginnings and the 20 most frequent endings are tried, no more.

Mistakes: none: a finding carries a factor of N.

Blind spots: equal bits in the middle of the primes; fewer than n/4 of them. Of siblings, those whose prime has fewer
than 0.3 n bits in common with a known one at either end.

Remedy: a new key from another generator; its siblings are likely to share the same template.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, Effort, Rows, key_check
from keyassay.findings import Classification, Confidence, Factor, Profile, Severity, Verdict
from keyassay.keymath import coppersmith
from keyassay.keymath.factoring import shared_bits

#: Beginnings and endings of known primes that are tried on a key, the most frequent ones. An ending costs ten times
#: as much, and is less likely: searches for primes change the last bits.
BEGINNINGS, ENDINGS = 80, 20


@key_check(
    id="rsa-shared-bits",
    title="primes share high and low bits",
    applies_to=(RsaPublicKey,),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    version=2,
    references=(
        "Steinfeld, Zheng 2001: An advantage of low-exponent RSA with modulus primes sharing least significant bits",
        "google/paranoid_crypto: CheckLowHammingWeight and CheckHighAndLowBitsEqual",
        "D. Coppersmith, Small solutions to polynomial equations, and low exponent RSA vulnerabilities, 1997",
    ),
    explained_by=("rsa-invalid-modulus", "rsa-small-factor", "rsa-close-primes"),
)
def rsa_shared_bits(key: RsaPublicKey, context: Context) -> Verdict | None:
    """N = 1 modulo 8 only."""
    n = key.n
    if n & 7 != 1 or key.bits < 64:
        return None
    import gmpy2  # noqa: PLC0415  the few rows that reach this have no shared column

    found = shared_bits(n, gmpy2.isqrt(n), exact=context.profile >= Profile.STANDARD)
    if found is None:
        return None
    factor, place = found
    return Verdict("p and q share so many high and low bits that both follow", Factor(factor, {"joint_bit": place}))


@rsa_shared_bits.screen
def one_modulo_eight(batch: RsaBatch, _context: Context) -> Rows:
    """A quarter of the keys."""
    return (
        np.flatnonzero(batch.matrix[:, 0] & 7 == 1) if len(batch) and batch.bits >= 64 else np.zeros(0, dtype=np.intp)
    )


@rsa_shared_bits.deeper(
    "ends of known primes",
    stage=1,
    seconds=0.002,
    applies=lambda key: "" if key.bits >= 128 and key.modulus & 1 else "the modulus is even or shorter than 128 bits",
    uses_known_primes=True,
)
def ends_of_known_primes(key: RsaPublicKey, effort: Effort) -> Verdict | None:
    """One lattice for each way in which known primes begin or end."""
    half = (key.bits + 1) // 2
    tail = coppersmith.reach(key.bits) + 1
    known = half - tail
    name = f"ends of known primes, {known} bits"
    made = effort.context.cache.get(name)
    if made is None or made[0] is not effort.known_primes:
        made = effort.context.cache[name] = effort.known_primes, frequent_ends(effort.known_primes, known)
    beginnings, endings = made[1]
    total = len(beginnings) + len(endings)
    for done, bits in enumerate((*beginnings, *endings)):
        effort.reached(done, total, "ends")
        leading = done < len(beginnings)
        if leading:
            factor = coppersmith.factor_near(key.modulus, bits << tail, tail)
        else:
            factor = coppersmith.factor_ending(key.modulus, bits, known, tail)
        if factor is not None:
            does = "begins" if leading else "ends"
            notes = {"known_bits": known, "end": "leading" if leading else "trailing"}
            return Verdict(
                f"a prime of it {does} with the same {known} bits as one of another key", Factor(factor, notes)
            )
    effort.done = effort.total = total
    return None


def frequent_ends(primes: Sequence[int], bits: int) -> tuple[list[int], list[int]]:
    """The most frequent beginnings and endings of ``bits`` bits among primes that are as long at least."""
    long = [prime for prime in dict.fromkeys(primes) if prime.bit_length() >= bits]
    beginnings = Counter(prime >> (prime.bit_length() - bits) for prime in long)
    endings = Counter(prime & ((1 << bits) - 1) for prime in long)
    return [one for one, _ in beginnings.most_common(BEGINNINGS)], [one for one, _ in endings.most_common(ENDINGS)]
