"""RSA moduli with ROCA's structure, but another generator.

Weakness: primes that are powers of some fixed generator modulo many small primes have as little entropy as RSALib's. If
the exponents of p and q add up to an even number, N is a square modulo every one of those primes, whatever the
generator is.

Method: a table of residues modulo 5 * 7 * 11 * 13 * 17 * 19, then Legendre symbols modulo the 48 primes from 5 to 229
(below 992 bits, where RSALib's form has room for fewer, the 37 primes from 5 to 167).

Cost: 0.1 us a key.

Profiles: the same in all from fast on.

Mistakes: a sound modulus is a square modulo all 48 primes with probability 2^-48, one in 280 million million (2^-47.7
for products of safe primes, 2^-37 below 992 bits): therefore `likely`, and never class broken. Perfect squares are
rsa-invalid-modulus.

Blind spots: half of such keys, those whose exponents add up to an odd number. No factor is computed.

Remedy: find the generator that made it and examine its other keys; two of them with this finding leave no doubt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import PublicKey, RsaPublicKey
from keyassay.checks import Context, Rows, key_check
from keyassay.findings import Classification, Confidence, Evidence, Profile, Severity, Value, Verdict
from keyassay.keymath import residues

LEAST_BITS = 448
MOST_BITS = 16_384
#: fewer keys than this are examined one by one instead of with a table of 1.6 MB
FEW = 64


def primes_of(bits: int) -> tuple[int, ...]:
    """The primes whose Legendre symbols are taken, by the size of the modulus."""
    return residues.first_primes(min(residues.prime_count(bits), 50))[2:]


@dataclass(frozen=True)
class SquareEverywhere(Evidence):
    """N is a square modulo so many primes from 5 on."""

    primes: int

    def proves(self, subject: PublicKey | Item) -> bool:
        if not isinstance(subject, RsaPublicKey) or not LEAST_BITS <= subject.bits <= MOST_BITS:
            return False
        wanted = primes_of(subject.bits)
        return len(wanted) == self.primes and residues.is_square_everywhere(subject.modulus, wanted)

    def describe(self) -> Mapping[str, Value]:
        chosen = residues.first_primes(self.primes + 2)[2:]
        return {
            "square_modulo": f"{self.primes} primes, {chosen[0]} to {chosen[-1]}",
            "false_alarm": f"2^-{self.primes}",
        }


@key_check(
    id="rsa-roca-variant",
    title="ROCA with another generator",
    applies_to=(RsaPublicKey,),
    classification=Classification.WEAK,
    severity=Severity.HIGH,
    confidence=Confidence.LIKELY,
    profile=Profile.FAST,
    references=("google/paranoid_crypto: CheckROCAVariant", "CVE-2017-15361"),
    explained_by=("rsa-roca", "rsa-invalid-modulus", "rsa-small-factor", "rsa-close-primes"),
)
def rsa_roca_variant(key: RsaPublicKey, _context: Context) -> Verdict | None:
    """48 Legendre symbols."""
    if not LEAST_BITS <= key.bits <= MOST_BITS:
        return None
    primes = primes_of(key.bits)
    if not residues.is_square_everywhere(key.modulus, primes):
        return None
    return Verdict("its residues look like ROCA's with another generator", SquareEverywhere(len(primes)))


@rsa_roca_variant.screen
def squares(batch: RsaBatch, _context: Context) -> Rows:
    """Rows that are squares modulo the six smallest primes."""
    if not LEAST_BITS <= batch.bits <= MOST_BITS:
        return np.zeros(0, dtype=np.intp)
    if len(batch) < FEW:
        return np.arange(len(batch))
    modulus = int(np.prod(residues.SQUARE_SIEVE))
    return np.flatnonzero(residues.square_sieve_table()[batch.residues((modulus,))[:, 0]])
