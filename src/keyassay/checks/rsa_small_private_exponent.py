"""RSA keys with a small private exponent.

Weakness: e d = 1 + k phi(N) makes k/d a convergent of the continued fraction of e/N when d is below about N^(1/4)
(Wiener 1990): p and q follow in microseconds. Keys like that come from wishing for fast signatures on small devices.
d = phi(N) - small is the same with another sign.

Method: convergents of e/(N + 1 - 2 sqrt(N)) and of e/N, both signs; each gives a candidate for p + q that a square
confirms. Runs only where e is so large that d can be small: e d > phi(N).

Cost: nothing for usual exponents, 1 ms for large ones.

Profiles: the same in all from fast on.

Mistakes: none: a finding carries a factor of N.

Blind spots: d between N^(1/4) and N^0.292, which lattices reach with a budget; small d modulo p - 1.

Remedy: a new key with e = 65537.
"""

from __future__ import annotations

import numpy as np

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, Rows, key_check
from keyassay.findings import Classification, Confidence, Factor, Profile, Severity, Verdict
from keyassay.keymath.factoring import wiener


@key_check(
    id="rsa-small-private-exponent",
    title="small private exponent",
    applies_to=(RsaPublicKey,),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    references=("Wiener 1990: Cryptanalysis of short RSA secret exponents", "Verheul, van Tilborg 1997"),
    explained_by=("rsa-invalid-modulus", "rsa-invalid-exponent"),
)
def rsa_small_private_exponent(key: RsaPublicKey, _context: Context) -> Verdict | None:
    """Large exponents only."""
    n, e = key.modulus, key.exponent
    if e.bit_length() <= 64 or n.bit_length() < 32 or not n & 1 or e.bit_length() > 2 * n.bit_length():
        return None
    found = wiener(n, e)
    if found is None:
        return None
    factor, d = found
    kind = "phi less a small number" if d < 0 else "small"
    return Verdict(
        f"the private exponent is {kind} ({abs(d).bit_length()} bits)", Factor(factor, {"d_bits": abs(d).bit_length()})
    )


@rsa_small_private_exponent.screen
def large_exponents(batch: RsaBatch, _context: Context) -> Rows:
    """Rows with e above 2^64."""
    return np.array([row for row, key in enumerate(batch.keys) if key.exponent >> 64], dtype=np.intp)
