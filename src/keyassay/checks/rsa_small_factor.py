"""RSA moduli with a small prime factor.

Weakness: a modulus is the product of two primes of half its size. One with a small factor was damaged in transit or
storage, or made by a generator that does not test its primes; the small factor removes itself from the difficulty, and
often the rest is prime.

Method: the product of all odd primes below the limit against products of many moduli at once: one greatest common
divisor for thousands of keys, and only a group that has something is taken apart. Where the keys of the run are
compared with each other, that product takes part in batch GCD like one more modulus, and small factors fall out of it.

Cost: 20 us a key in fast, up to 90 in standard; next to nothing beside fleet-shared-prime.

Profiles: fast: factors below 2^16. Standard, and every run with fleet-shared-prime: below 2^20.

Mistakes: none: a finding carries the factor. An even modulus is rsa-invalid-modulus.

Blind spots: larger factors need elliptic curves and a budget.

Remedy: see whether the certificate was damaged (its signature then fails); else a new key from another generator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.fleet import SMALL_FACTORS, Fleet
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
    if context.fleet_follows:
        return
    limit = LIMITS[max(context.profile, Profile.FAST)]
    rows = [row for row, n in enumerate(batch.moduli) if n & 1 and n > 1]
    moduli = [batch.moduli[row] for row in rows]
    for position in with_common_factor(moduli, odd_primorial(limit)):
        verdict = _verdict(moduli[position], moduli[position], limit)
        if verdict is not None:
            yield rows[position], verdict


@rsa_small_factor.in_fleet("fleet-shared-prime")
def by_batch_gcd(fleet: Fleet, _context: Context) -> Iterator[tuple[int, Verdict]] | None:
    """What the moduli have in common with the primorial that took part in batch GCD."""
    common = fleet.common_factors
    return None if common is None else _smooth_parts(fleet, common.known)


def _smooth_parts(fleet: Fleet, parts: Mapping[int, int]) -> Iterator[tuple[int, Verdict]]:
    for number, part in parts.items():
        modulus = fleet.rsa_moduli[number]
        verdict = _verdict(modulus, part, SMALL_FACTORS) if modulus & 1 else None
        if verdict is not None:
            for ordinal in fleet.rsa_ordinals[number]:
                yield ordinal, verdict


def _verdict(modulus: int, part: int, limit: int) -> Verdict | None:
    """The least prime factor, looked for in a part of the modulus; none for a prime modulus."""
    factor = least_prime_factor(part, limit)
    if factor is None or factor >= modulus:
        return None
    return Verdict(f"the modulus has a prime factor of only {factor.bit_length()} bits", Factor(factor))
