"""RSA moduli with a small prime factor.

Weakness: a modulus is the product of two primes of half its size. One with a small factor was damaged in transit or
storage, or made by a generator that does not test its primes; the small factor removes itself from the difficulty, and
often the rest is prime.

Method: the product of all odd primes below the limit against products of many moduli at once: one greatest common
divisor for thousands of keys, and only a group that has something is taken apart.

Cost: 10 to 20 us a key.

Profiles: fast: factors below 2^16. Standard: below 2^20.

Mistakes: none: a finding carries the factor. An even modulus is rsa-invalid-modulus.

Blind spots: larger factors need elliptic curves and a budget.

Remedy: see whether the certificate was damaged (its signature then fails); else a new key from another generator.
"""

from __future__ import annotations

from collections.abc import Iterator

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, batch_check
from keyassay.findings import Classification, Confidence, Factor, Profile, Severity, Verdict
from keyassay.keymath.factoring import least_prime_factor, odd_primorial, with_common_factor

LIMITS = {Profile.FAST: 1 << 16, Profile.STANDARD: 1 << 20, Profile.DEEP: 1 << 20}


@batch_check(
    id="rsa-small-factor",
    title="small prime factor",
    applies_to=(RsaPublicKey,),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    references=("Heninger, Durumeric, Wustrow, Halderman 2012: Mining your Ps and Qs",),
    explained_by=("rsa-invalid-modulus",),
)
def rsa_small_factor(batch: RsaBatch, context: Context) -> Iterator[tuple[int, Verdict]]:
    """Odd moduli in chains of products."""
    limit = LIMITS[max(context.profile, Profile.FAST)]
    rows = [row for row, n in enumerate(batch.moduli) if n & 1 and n > 1]
    moduli = [batch.moduli[row] for row in rows]
    for position in with_common_factor(moduli, odd_primorial(limit)):
        factor = least_prime_factor(int(moduli[position]), limit)
        if factor is not None and factor < moduli[position]:
            yield (
                rows[position],
                Verdict(f"the modulus is divisible by {factor}", Factor(factor, {"factor_is": factor})),
            )
