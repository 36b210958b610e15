"""A modulus that is a polynomial with small coefficients.

Weakness: both primes have few random bits in each of their words and zeros in the rest, as when a
generator hands out one random byte where four or eight were asked for. Read as a polynomial in the
word size B, the modulus is then the product of two polynomials with small coefficients, and
polynomials, unlike integers, are factored in milliseconds.

Method: the words of such a modulus share zero bits. The words of every key are combined by OR, for
word sizes of 2 to 32 bytes, and the zeros that are left are counted; where chance leaves that many
in fewer than one of a billion keys, N is written in balanced digits to base B and factored over the
integers. A factor evaluated at B and the greatest common divisor with N give a prime. Where key
generators force the highest bits, a shift brings them to a border of words.

Cost: 1 us a key; 1 to 20 ms for the few that pass the screen.

Profiles: fast does all of it.

Mistakes: none. The finding carries a factor that was multiplied back. Moduli with zeros by design
and sound primes give no factor and are left to rsa-implausible-modulus.

Blind spots: coefficients longer than half a word (the product's digits then overlap), word sizes
other than 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28 and 32 bytes and those that divide them, moduli of
more than 160 words.

Remedy: replace the key, and find out why the generator gave so few random bits: other keys of the
same device or library are of the same kind.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, batch_check
from keyassay.findings import Classification, Confidence, Factor, Profile, Severity, Verdict
from keyassay.keymath import bits, lattice

#: One word size reports a sound key with probability at most 2^-30: only for the factorization that follows.
SCREEN_EXPONENT = 30

#: Word sizes tried on one key.
SIZES_TRIED = 5


@batch_check(
    id="rsa-polynomial-modulus",
    title="modulus is a polynomial",
    applies_to=(RsaPublicKey,),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    references=(
        "A. K. Lenstra, H. W. Lenstra, L. Lovász, Factoring polynomials, Math. Ann. 261, 1982",
        "H. Böck, badkeys: rsapoly, 2025",
    ),
    explained_by=("rsa-invalid-modulus",),
)
def check(batch: RsaBatch, _context: Context) -> Iterator[tuple[int, Verdict]]:
    """Shared zeros of words, then factorization over the integers."""
    if batch.bits < 128:
        return
    zeros = batch.column("shared zeros of words", lambda: bits.shared_zeros(batch.matrix, batch.bits))
    hits = zeros >= np.array(bits.shared_zeros_limits(batch.bits, SCREEN_EXPONENT))
    for row in np.flatnonzero(hits.any(axis=1)).tolist():
        n = int(batch.moduli[row])
        if n & 1 == 0:
            continue
        for width in sorted(width for width, hit in zip(bits.WIDTHS, hits[row], strict=True) if hit)[:SIZES_TRIED]:
            factor = lattice.polynomial_factor(n, 8 * width)
            if factor is not None:
                yield (
                    row,
                    Verdict(
                        f"the modulus is a product of two polynomials in 2^{8 * width} with small coefficients",
                        Factor(factor, {"word_bits": 8 * width}),
                    ),
                )
                break
