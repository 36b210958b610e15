"""RSA keys whose primes lie close together, in a simple ratio, or at a predictable distance.

Weakness: if p and q are close, (p + q)/2 is hardly above sqrt(N) and Fermat's method of 1643 finds it (CVE-2022-26320:
printers with such keys). If p/q is near a small fraction a/b, the same works on 4abN (Lehman 1974). If q was searched
upwards from p plus a fixed distance, as a misread FIPS 186 bound suggests, N plus the square of half the distance is
nearly a square.

Method: Fermat's rounds are not done one by one. For 15 small moduli a table says in which rounds s^2 - N can be a
square; the rows of bits are ANDed, and the one place in 90,000 that is left is tested. Ratios: one column of a matrix
product for each a/b tells whether 2 sqrt(abN) is next to an integer. Distances: the same sieve on N + d^2. A distance
of which only the leading bits are known: a continued fraction tells the rest.

Cost: 5 to 8 us a key for 16,384 rounds, 202 ratios and 6 distances; 10 times that in standard, with 20 us for the
distance that is half known; half a second to a second of deep's budget.

Profiles: fast: 16,384 rounds, a and b up to 32 (ratios above 2, primes of different length, up to 16), distances
2^(n/2 - k) for k = 2, 3, 100, 128, 160, 256. Standard: 2^17 rounds, a and b up to 128, and distances 2^(n/2 - 100) with
up to 256 low bits unknown (a sixth of N's bits less 12 if that is fewer). Deep: a sixth of N's bits less 12 unknown;
and, within its budget, 2^20 rounds, all k up to n/4 with none or all of these low bits unknown, and all a and b up to
1,100 with the first round of Fermat's method on 4abN in full, so that aq - bp may be 8,000 times as large.

Mistakes: none: a finding carries a factor of N.

Blind spots: primes that share fewer leading bits than R rounds reach: about 2^(n/4 + 1.5) sqrt(R) apart. Half known
distances that are not near a power of two, and one in a million of those that are.

Remedy: a new key from another generator, and its siblings examined: the next prime after another prime is a habit.
"""

from __future__ import annotations

from collections.abc import Iterator

import gmpy2
import numpy as np

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, Effort, batch_check
from keyassay.findings import Classification, Confidence, Factor, Profile, Severity, Value, Verdict
from keyassay.keymath import arrays
from keyassay.keymath.factoring import (
    SIEVE_MODULI,
    about_known_difference,
    close_primes,
    known_difference,
    near_ratio,
    ratio_pairs,
)
from keyassay.keymath.related import any_power_distance, near_any_ratio

ROUNDS = {Profile.FAST: 1 << 14, Profile.STANDARD: 1 << 17, Profile.DEEP: 1 << 17}
RATIOS = {Profile.FAST: 32, Profile.STANDARD: 128, Profile.DEEP: 128}
#: of the deep steps
DEEP_ROUNDS = 1 << 20
_PASS = 1 << 14
DEEP_RATIOS = 1_100
DISTANCES = (2, 3, 100, 128, 160, 256)
#: the least distance that FIPS 186 allows is 2^(ps - 100): taken for the distance, with a random number added
LEAST = 100
UNKNOWN = 256


@batch_check(
    id="rsa-close-primes",
    title="primes close together",
    applies_to=(RsaPublicKey,),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    version=2,
    references=(
        "Fermat 1643, letter to Mersenne",
        "Lehman 1974: Factoring large integers",
        "Boeck 2022: Fermat factorization in the wild",
        "CVE-2022-26320",
    ),
    explained_by=("rsa-invalid-modulus", "rsa-small-factor", "rsa-debian-openssl"),
)
def rsa_close_primes(batch: RsaBatch, context: Context) -> Iterator[tuple[int, Verdict]]:
    """Odd moduli that are no squares, all methods on all of them."""
    if batch.bits < 16:
        return
    profile = max(context.profile, Profile.FAST)
    moduli, roots = batch.moduli, batch.isqrt
    rows = [row for row, n in enumerate(moduli) if n & 1 and roots[row] * roots[row] != n]
    if not rows:
        return
    whole = len(rows) == len(batch)
    chosen = moduli if whole else [moduli[row] for row in rows]
    chosen_roots = roots if whole else [roots[row] for row in rows]
    scaled = batch.isqrt_scaled if whole else [batch.isqrt_scaled[row] for row in rows]
    residues = batch.residues(SIEVE_MODULI)[rows]
    size = (batch.bits + 127) // 128 * 8 + 8
    root_residues = arrays.residues(arrays.byte_matrix(chosen_roots, size), SIEVE_MODULI)
    seen: set[int] = set()
    for row, factor, distance in close_primes(chosen, chosen_roots, residues, root_residues, ROUNDS[profile]):
        if row not in seen:
            seen.add(row)
            yield rows[row], _by_fermat(factor, distance)
    for row, factor, a, b in near_ratio(chosen, scaled, ratio_pairs(RATIOS[profile])):
        if row not in seen:
            seen.add(row)
            yield rows[row], _by_ratio(int(chosen[row]), factor, a, b)
    half = (batch.bits + 1) // 2
    for row, factor, k in known_difference(chosen, np.ascontiguousarray(residues), batch.bits, DISTANCES):
        if row not in seen:
            seen.add(row)
            yield rows[row], _by_distance(factor, half - k)
    unknown = half // 3 - 12
    if profile < Profile.DEEP:
        unknown = min(UNKNOWN, unknown)
    if profile < Profile.STANDARD or unknown <= LEAST:
        return
    for row, n in enumerate(chosen):
        found = None if row in seen else about_known_difference(n, batch.bits, LEAST, unknown)
        if found is not None:
            yield rows[row], _by_half_known_distance(found, half - LEAST, unknown)


def _odd(key: RsaPublicKey) -> str:
    """The base function has a square's root already, if it is one."""
    return (
        "" if key.modulus & 1 and key.bits >= 16 and not gmpy2.is_square(key.n) else "the modulus is even or a square"
    )


@rsa_close_primes.deeper("Fermat, 2^20 rounds", stage=3, seconds=0.1, applies=_odd)
def more_rounds(key: RsaPublicKey, effort: Effort) -> Verdict | None:
    """Fermat's method as above, for one key, with a look at the clock between the passes of the sieve."""
    first = gmpy2.isqrt(key.n)
    for done in range(0, DEEP_ROUNDS, _PASS):
        effort.reached(done, DEEP_ROUNDS, "rounds")
        root = first + done
        residues, roots = (np.array([[int(x % m) for m in SIEVE_MODULI]], dtype=np.int64) for x in (key.n, root))
        for _, factor, distance in close_primes([key.n], [root], residues, roots, _PASS):
            return _by_fermat(factor, done + distance)
    effort.done = DEEP_ROUNDS
    return None


@rsa_close_primes.deeper("all distances 2^k", stage=3, seconds=0.1, applies=_odd)
def more_distances(key: RsaPublicKey, effort: Effort) -> Verdict | None:
    """From a quarter of N's bits up to half of them."""
    half = (key.bits + 1) // 2
    found = any_power_distance(key.n, range(half - half // 2, half - 1), effort.reached)
    return None if found is None else _by_distance(*found)


@rsa_close_primes.deeper("half known distances near all 2^k", stage=3, seconds=0.02, applies=_odd)
def more_half_known_distances(key: RsaPublicKey, effort: Effort) -> Verdict | None:
    """As about 2^(n/2 - 100) above, as far as the powers are longer than what is unknown."""
    half = (key.bits + 1) // 2
    unknown = half // 3 - 12
    total = half - 1 - unknown
    for done, k in enumerate(range(2, max(total, 2))):
        if done % 16 == 0:
            effort.reached(done, total, "distances")
        found = about_known_difference(key.n, key.bits, k, unknown)
        if found is not None:
            return _by_half_known_distance(found, half - k, unknown)
    effort.done = effort.total = max(total, 0)
    return None


@rsa_close_primes.deeper("ratios to 1,100", stage=5, seconds=0.05, applies=_odd)
def more_ratios(key: RsaPublicKey, effort: Effort) -> Verdict | None:
    """All fractions, and a thousand times as far from each as the screen of standard reaches."""
    found = near_any_ratio(key.n, DEEP_RATIOS, effort.reached, effort.start + 1)
    return None if found is None else _by_ratio(key.modulus, *found)


def _by_fermat(factor: int, distance: int) -> Verdict:
    notes: dict[str, Value] = {"method": "fermat", "rounds": distance}
    return Verdict(f"p and q are so close that Fermat finds them in round {distance:,}", Factor(factor, notes))


def _by_ratio(modulus: int, factor: int, a: int, b: int) -> Verdict:
    q, p = sorted((factor, modulus // factor))
    over, under = _ratio(p, q)
    notes: dict[str, Value] = {"method": "lehman", "a": a, "b": b, "ratio": f"{over}/{under}"}
    return Verdict(f"p/q is very near {over}/{under}", Factor(factor, notes))


def _by_distance(factor: int, exponent: int) -> Verdict:
    message = f"p - q is 2^{exponent} and a little: q was searched at a fixed distance from p"
    return Verdict(message, Factor(factor, {"method": "distance", "exponent": exponent}))


def _by_half_known_distance(factor: int, exponent: int, unknown: int) -> Verdict:
    message = f"p - q is within 2^{unknown} of 2^{exponent}: q was searched at a distance from p that is known"
    return Verdict(message, Factor(factor, {"method": "distance", "exponent": exponent, "unknown_bits": unknown}))


def _ratio(p: int, q: int) -> tuple[int, int]:
    """The simplest fraction that p/q is near to in its first 60 bits, by continued fractions."""
    a, b = p, q
    h0, h1, k0, k1 = 0, 1, 1, 0
    while b:
        quotient = a // b
        a, b = b, a - quotient * b
        h0, h1 = h1, quotient * h1 + h0
        k0, k1 = k1, quotient * k1 + k0
        if abs(h1 * q - k1 * p) << 40 < p:
            break
    return h1, k1
