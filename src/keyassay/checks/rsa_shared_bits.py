"""RSA keys whose primes share their high bits, their low bits, or some of both.

Weakness: if p and q agree in h high and m low bits, h + m a quarter of the modulus (half of a prime), then (p + q)/2 is
known from above by sqrt(N) and from below by the square root of N in the 2-adic numbers, and nothing is left to guess
(Steinfeld, Zheng 2001). Broken generators that vary only the middle of a template make such keys.

Method: t = the 2-adic root of N less isqrt(N) + 1. Where both halves meet, t has a run of zero bits; every run of 12 or
more is tried, s^2 - N has to be a square. Only N = 1 modulo 8 can have this structure. Primes that share high bits and
fewer than 8 low ones are so close that rsa-close-primes has them.

Cost: 3 us for a quarter of the keys, under 1 us on average; standard 0.1 to 0.2 ms on average.

Profiles: fast: h + m at least n/4 + 7 bits, by runs of zeros. Standard: h + m at least n/4 + 1, trying every place;
nearly all keys with n/4 as well.

Mistakes: none: a finding carries a factor of N.

Blind spots: equal bits in the middle of the primes; fewer than n/4 of them (lattices need 0.2 n known bits of one
prime, another story).

Remedy: a new key from another generator; its siblings are likely to share the same template.
"""

from __future__ import annotations

import numpy as np

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, Rows, key_check
from keyassay.findings import Classification, Confidence, Factor, Profile, Severity, Verdict
from keyassay.keymath.factoring import shared_bits


@key_check(
    id="rsa-shared-bits",
    title="primes share high and low bits",
    applies_to=(RsaPublicKey,),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    references=(
        "Steinfeld, Zheng 2001: An advantage of low-exponent RSA with modulus primes sharing least significant bits",
        "google/paranoid_crypto: CheckLowHammingWeight and CheckHighAndLowBitsEqual",
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
