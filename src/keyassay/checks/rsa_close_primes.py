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
distance that is half known.

Profiles: fast: 16,384 rounds, a and b up to 32 (ratios above 2, primes of different length, up to 16), distances
2^(n/2 - k) for k = 2, 3, 100, 128, 160, 256. Standard: 2^17 rounds, a and b up to 128, and distances 2^(n/2 - 100) with
up to 256 low bits unknown (a sixth of N's bits less 12 if that is fewer). Deep: 2^20 rounds, a and b up to 1,024, all k
up to n/4, a sixth of N's bits less 12 unknown.

Mistakes: none: a finding carries a factor of N.

Blind spots: primes that share fewer leading bits than R rounds reach: about 2^(n/4 + 1.5) sqrt(R) apart. Half known
distances other than 2^(n/2 - 100), and one of those in a million.

Remedy: a new key from another generator, and its siblings examined: the next prime after another prime is a habit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, batch_check
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

ROUNDS = {Profile.FAST: 1 << 14, Profile.STANDARD: 1 << 17, Profile.DEEP: 1 << 20}
RATIOS = {Profile.FAST: 32, Profile.STANDARD: 128, Profile.DEEP: 1024}
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
            notes: dict[str, Value] = {"method": "fermat", "rounds": distance}
            yield (
                rows[row],
                Verdict(f"p and q are so close that Fermat finds them in round {distance:,}", Factor(factor, notes)),
            )
    for row, factor, a, b in near_ratio(chosen, scaled, ratio_pairs(RATIOS[profile])):
        if row not in seen:
            seen.add(row)
            q, p = sorted((factor, int(chosen[row]) // factor))
            over, under = _ratio(p, q)
            notes = {"method": "lehman", "a": a, "b": b, "ratio": f"{over}/{under}"}
            yield rows[row], Verdict(f"p/q is very near {over}/{under}", Factor(factor, notes))
    half = (batch.bits + 1) // 2
    exponents = tuple(sorted({*DISTANCES, *range(2, half // 2 + 1)})) if profile >= Profile.DEEP else DISTANCES
    for row, factor, k in known_difference(chosen, np.ascontiguousarray(residues), batch.bits, exponents):
        if row not in seen:
            seen.add(row)
            message = f"p - q is 2^{half - k} and a little: q was searched at a fixed distance from p"
            yield rows[row], Verdict(message, Factor(factor, {"method": "distance", "exponent": half - k}))
    unknown = half // 3 - 12
    if profile < Profile.DEEP:
        unknown = min(UNKNOWN, unknown)
    if profile < Profile.STANDARD or unknown <= LEAST:
        return
    for row, n in enumerate(chosen):
        found = None if row in seen else about_known_difference(n, batch.bits, LEAST, unknown)
        if found is not None:
            message = (
                f"p - q is within 2^{unknown} of 2^{half - LEAST}: q was searched at a distance from p that is known"
            )
            notes = {"method": "distance", "exponent": half - LEAST, "unknown_bits": unknown}
            yield rows[row], Verdict(message, Factor(found, notes))


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
