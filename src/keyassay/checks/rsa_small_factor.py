"""RSA moduli with a small prime factor.

Weakness: a modulus is the product of two primes of half its size. One with a small factor was damaged in transit or
storage, or made by a generator that does not test its primes; the small factor removes itself from the difficulty, and
often the rest is prime.

Method: the product of all odd primes below the limit against products of many moduli at once: one greatest common
divisor for thousands of keys, and only a group that has something is taken apart. Where the keys of the run are
compared with each other, that product takes part in batch GCD like one more modulus, and small factors fall out of it.
Larger factors by elliptic curves (Lenstra 1987): each curve finds a prime p if the number of its points modulo p
is a product of small primes and one that may be larger, and every curve has another number. Curves are chosen by a
digest of N and their number: the same key meets the same curves.

Cost: 20 us a key in fast, up to 90 in standard; next to nothing beside fleet-shared-prime. Deep: see below.

Profiles: fast: factors below 2^16. Standard, and every run with fleet-shared-prime: below 2^20. Deep, as far as its
budget goes: 30 curves with the bound 1,000 and one larger prime to 45,000, 54 with 5,000 and 780,000, 100 with 15,000
and 3 million, 240 with 70,000 and 86 million (above 4,608 bits the last three with a second bound of 550,000).

Mistakes: none: a finding carries the factor. An even modulus is rsa-invalid-modulus.

Blind spots: deep finds factors of more than 40 bits by chance only, see the table; beyond 90 bits hardly ever.

Remedy: see whether the certificate was damaged (its signature then fails); else a new key from another generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import gmpy2

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.fleet import SMALL_FACTORS, Fleet
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, Effort, batch_check
from keyassay.findings import Classification, Confidence, Factor, Profile, Severity, Value, Verdict
from keyassay.keymath.ecm import Level, factor_by_curve, sigma_of
from keyassay.keymath.factoring import least_prime_factor, odd_primorial, with_common_factor

#: Profile deep: stage, CPU seconds of a curve at 2048 bits, curves, bounds. A level with those before it finds nine of
#: ten factors of 40, 52, 64 and 80 bits; bounds and numbers are those that do so in the least time.
CURVES = (
    (4, 0.04, 30, Level(1_000, 630)),
    (5, 0.15, 54, Level(5_000, 2_730)),
    (6, 0.45, 100, Level(15_000, 5_460)),
    (7, 2.3, 240, Level(70_000, 30_030)),
)
#: Beyond this many bits the largest second stage would take more than a second between two looks at the clock.
_LARGE = 4608
#: A prime of that many bits is nothing that an honest key has, if longer than 512 bits.
_SMALL = 160

LIMITS = {Profile.FAST: 1 << 16, Profile.STANDARD: 1 << 20, Profile.DEEP: 1 << 20}


@batch_check(
    id="rsa-small-factor",
    title="small prime factor",
    applies_to=(RsaPublicKey,),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    version=3,
    references=(
        "Heninger, Durumeric, Wustrow, Halderman 2012: Mining your Ps and Qs",
        "Lenstra 1987: Factoring integers with elliptic curves",
        "Montgomery 1987: Speeding the Pollard and elliptic curve methods of factorization",
    ),
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


def _odd(key: RsaPublicKey) -> str:
    return "" if key.modulus & 1 and key.modulus > 3 else "the modulus is even or tiny"


def _curves(first: int, count: int, level: Level) -> Callable[[RsaPublicKey, Effort], Verdict | None]:
    """A deep step: the curves of one level, numbered through all levels."""

    def run(key: RsaPublicKey, effort: Effort) -> Verdict | None:
        bounds = level if key.bits <= _LARGE else Level(level.bound, min(level.width, 2_310))
        for number in range(effort.start, count):
            effort.reached(number, count, "curves")
            sigma = sigma_of(key.modulus, first + number)
            factor = factor_by_curve(key.n, sigma, bounds, partial(effort.reached, number, count, "curves"))
            if factor is not None:
                return _by_curve(key.modulus, factor, sigma, bounds)
        effort.done, effort.total, effort.unit = count, count, "curves"
        return None

    return run


def _by_curve(modulus: int, factor: int, sigma: int, level: Level) -> Verdict:
    factor = min(factor, modulus // factor)
    if factor.bit_length() <= _SMALL and gmpy2.is_strong_bpsw_prp(factor):
        message = f"the modulus has a prime factor of only {factor.bit_length()} bits"
    else:
        message = f"an elliptic curve finds a factor of {factor.bit_length()} bits"
    notes: dict[str, Value] = {"method": "ecm", "sigma": sigma, "bound": level.bound}
    return Verdict(message, Factor(factor, notes))


_first = 0
for _stage, _seconds, _count, _level in CURVES:
    rsa_small_factor.deeper(f"ECM, {_count} curves to {_level.bound:,}", stage=_stage, seconds=_seconds, applies=_odd)(
        _curves(_first, _count, _level)
    )
    _first += _count
