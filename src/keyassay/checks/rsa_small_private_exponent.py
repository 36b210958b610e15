"""RSA keys with a small private exponent.

Weakness: e d = 1 + k phi(N) makes k/d a convergent of the continued fraction of e/N when d is below about N^(1/4)
(Wiener 1990): p and q follow in microseconds. Keys like that come from wishing for fast signatures on small devices.
d = phi(N) - small is the same with another sign, and so is a d that is small modulo lcm(p - 1, q - 1) only. Lattices
reach further (Boneh and Durfee 1999). With the Chinese remainder theorem it is d modulo p - 1 and modulo q - 1 that
make signatures fast: one of them being small gives a factor as well, in time that grows as its square root.

Method: convergents of e/(N + 1 - 2 sqrt(N)) and of e/N, both signs; each gives a candidate for p + q that a square
confirms. They reach d below N^(3/4)/sqrt(e), a quarter of the bits of N if e is as long.

Profile deep goes on with Boneh and Durfee's lattices in the form of Herrmann and May (2010), reduced by LLL, both signs
of d at once. Rows that cannot become short are left out (Bloemer and May 2001), and what is left is chosen to reach as
far as it can with so many rows. The reach follows from the determinant before any work is done. For e as long as N of
1024, 2048 and 4096 bits, d of 277, 554 and 1106 bits are found by the lattice of dimension 18; 281, 560 and 1120 by
dimension 27; 283, 565 and 1129 by 38; 285, 569 and 1137 by 50; 287, 574 and 1146 by 71 (N^0.28). Every key made for a
test fell within these lengths; a bit or two above, no row of the lattice is short enough any more. Roots come from
resultants of the shortest rows modulo a prime.

For d modulo p - 1 of up to 24, 28 and 32 bits, the product of all g^(e d) - g is taken, by a polynomial evaluated at as
many places as it has coefficients, and its greatest common divisor with N.

What runs is decided by the length of e alone: e d is at least phi(N), and at least p for d modulo p - 1. With e = 65537
no private exponent is small, and nothing of all this runs.

Cost: nothing for usual exponents, 1 ms for large ones. Profile deep, CPU seconds for keys of 2048 bits: lattices 0.17,
0.8, 2.8, 11 and 102; products 0.2, 1.1 and 7.5, and up to 320 MB. Keys of 1024 bits take a third.

Profiles: the convergents are the same in all from fast on; lattices and products are deep's. The smallest lattice and
the first product come early, the others with a budget of a minute, the largest lattice with one of ten minutes.

Mistakes: none: a finding carries a factor of N.

Blind spots: d between the reach of the lattices and N^0.292, where theory ends, for dimensions in the hundreds. The
lattices take the primes to differ by a factor below 2, as those of equal length do; for others p + q is outside their
bounds. They cover d modulo lcm(p - 1, q - 1) if p - 1 and q - 1 share nothing but 2; the convergents do in any case.
Exponents longer than N by more than a twentieth get no lattice. Of d modulo p - 1, what is longer than 32 bits: 40
would take minutes and gigabytes; and primes of less than a quarter of the bits of N. Both residues small, up to N^0.12,
would take lattices that are out of reach.

Remedy: a new key with e = 65537.
"""

from __future__ import annotations

import numpy as np

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, Effort, Rows, key_check
from keyassay.findings import Classification, Confidence, Factor, Profile, Severity, Verdict
from keyassay.keymath.factoring import least_private_exponent, wiener
from keyassay.keymath.small_exponent import Lattice, small_residue_factor, why_no_small_residue

#: m, starts of the shifts by powers of y (with as many rows no others reach further), stage, CPU seconds: of keys of
#: 2048 bits, or what those of 1024 bits take, times 5.7, if that is more
LATTICES = (
    (5, (4, 5), 2, 0.3),
    (6, (4, 5), 6, 1.5),
    (7, (4, 5, 7), 6, 5.5),
    (8, (4, 5, 7), 6, 21.0),
    (10, (5, 6, 8, 10), 6, 150.0),
)

#: bits of d modulo p - 1, stage, CPU seconds likewise
RESIDUES = ((24, 2, 1.0), (28, 6, 4.0), (32, 6, 20.0))


@key_check(
    id="rsa-small-private-exponent",
    title="small private exponent",
    applies_to=(RsaPublicKey,),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    version=2,
    references=(
        "Wiener 1990: Cryptanalysis of short RSA secret exponents",
        "Boneh, Durfee 1999: Cryptanalysis of RSA with private key d less than N^0.292",
        "Bloemer, May 2001: Low secret exponent RSA revisited",
        "Herrmann, May 2010: Maximizing small root bounds by linearization",
    ),
    explained_by=("rsa-invalid-modulus", "rsa-invalid-exponent"),
)
def rsa_small_private_exponent(key: RsaPublicKey, _context: Context) -> Verdict | None:
    """Large exponents only."""
    n, e = key.modulus, key.exponent
    if e.bit_length() <= 64 or n.bit_length() < 32 or not n & 1 or e.bit_length() > 2 * n.bit_length():
        return None
    found = wiener(n, e)
    return None if found is None else _small(*found)


def _small(factor: int, d: int, notes: dict[str, str | int] | None = None) -> Verdict:
    bits = abs(d).bit_length()
    says = f"small ({bits} bits)" if d > 0 else f"lcm(p - 1, q - 1) less a small number ({bits} bits)"
    return Verdict(f"the private exponent is {says}", Factor(factor, {"d_bits": bits, **(notes or {})}))


@rsa_small_private_exponent.screen
def large_exponents(batch: RsaBatch, _context: Context) -> Rows:
    """Rows with e above 2^64."""
    return np.array([row for row, key in enumerate(batch.keys) if key.exponent >> 64], dtype=np.intp)


def _declare_lattice(m: int, starts: tuple[int, ...], stage: int, seconds: float) -> None:
    dimension = len(Lattice(3, 3, m, starts).shifts)

    def applies(key: RsaPublicKey) -> str:
        return Lattice(key.modulus, key.exponent, m, starts).why_not()

    def by_lattice(key: RsaPublicKey, effort: Effort) -> Verdict | None:
        n, e = key.modulus, key.exponent
        factor = Lattice(n, e, m, starts).factor(lambda done, total: effort.reached(done, total, "rows"))
        if factor is None:
            return None
        d = least_private_exponent(factor, n // factor, e)
        if d is None:
            return Verdict("the exponent gives a factor of the modulus", Factor(factor))
        return _small(factor, d, {"lattice_dimension": dimension})

    name = f"lattice of dimension {dimension}"
    rsa_small_private_exponent.deeper(name, stage=stage, seconds=seconds, applies=applies)(by_lattice)


def _declare_residue(bits: int, stage: int, seconds: float) -> None:
    def applies(key: RsaPublicKey) -> str:
        return why_no_small_residue(key.modulus, key.exponent, bits)

    def by_product(key: RsaPublicKey, effort: Effort) -> Verdict | None:
        found = small_residue_factor(
            key.modulus, key.exponent, bits, lambda done, total: effort.reached(done, total, "blocks")
        )
        if found is None:
            return None
        factor, d = found
        return Verdict(
            f"the private exponent is small modulo p - 1 ({d.bit_length()} bits)",
            Factor(factor, {"dp_bits": d.bit_length()}),
        )

    name = f"{bits} bits modulo p - 1"
    rsa_small_private_exponent.deeper(name, stage=stage, seconds=seconds, applies=applies)(by_product)


for _lattice in LATTICES:
    _declare_lattice(*_lattice)
for _residue in RESIDUES:
    _declare_residue(*_residue)
