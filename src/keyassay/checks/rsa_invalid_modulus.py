"""RSA moduli that cannot be the product of two sound primes.

Weakness: an even modulus, a prime, a power, zero or one, or one of absurd size has no sound private key, or one that
anybody computes. Moduli of 512 bits and less are factored for a few dollars (Valenta and others 2015: 75 dollars, four
hours), 330 bits on a laptop in an hour.

Method: parity; bit length; integer roots (squares and, behind a sieve of residues, cubes, fifth and seventh powers; all
powers in standard); a base-2 test for primality in deep.

Cost: below a microsecond a key; 9 us more in standard, 1.2 ms more in deep.

Profiles: fast: all but primality and powers above the seventh whose exponent has no smaller prime factor. Standard: all
powers. Deep: primality.

Mistakes: none, these are definitions; primality is confirmed by further bases. Sizes are counted.

Blind spots: primes as moduli outside deep.

Remedy: find out what made it: a damaged file, a test, or an encoder that mixed fields up; then a new key.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import gmpy2
import numpy as np
from numpy.typing import NDArray

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.item import Item
from keyassay.certificates.limits import DEFAULT_LIMITS
from keyassay.certificates.public_key import PublicKey, RsaPublicKey
from keyassay.checks import Context, batch_check
from keyassay.findings import Classification, Confidence, Evidence, Profile, Severity, Value, Verdict
from keyassay.keymath.residues import power_table

FACTORABLE_BITS = 512
#: exponent -> primes modulo which a number has to be such a power
_POWER_SIEVES = {3: (7, 13, 19, 31), 5: (11, 31, 41), 7: (29, 43, 71)}
_POWER_MODULI = tuple(math.prod(primes) for primes in _POWER_SIEVES.values())


def root_of_power(n: int) -> tuple[int, int] | None:
    """(root, exponent) if n above 1 is a perfect power, with the least prime exponent, else None."""
    number = gmpy2.mpz(n)
    exponent = gmpy2.mpz(2)
    while gmpy2.is_power(number) and exponent < number.bit_length():
        root, exact = gmpy2.iroot(number, int(exponent))
        if exact:
            return int(root), int(exponent)
        exponent = gmpy2.next_prime(exponent)
    return None


def contradiction(key: RsaPublicKey, *, primality: bool = True) -> str:
    """What is wrong with a modulus, "" if nothing is."""
    n = key.modulus
    bits = n.bit_length()
    if bits > DEFAULT_LIMITS.modulus_bits:
        return f"{bits:,} bits: no sound key is larger than {DEFAULT_LIMITS.modulus_bits:,}"
    if n < 2:
        return f"the modulus is {n}"
    if not n & 1:
        return "the modulus is even"
    power = root_of_power(n)
    if power is not None:
        return f"the modulus is a perfect power with exponent {power[1]}"
    if bits <= FACTORABLE_BITS:
        return f"{bits} bits are factored for a few dollars"
    if primality and gmpy2.powmod(2, n - 1, n) == 1 and gmpy2.is_prime(n):
        return "the modulus is prime"
    return ""


@dataclass(frozen=True)
class InvalidModulus(Evidence):
    """The contradiction in words; verified by examining the modulus again."""

    statement: str
    bits: int
    root: int = 0

    def proves(self, subject: PublicKey | Item) -> bool:
        return isinstance(subject, RsaPublicKey) and contradiction(subject) == self.statement

    def describe(self) -> Mapping[str, Value]:
        return {"contradiction": self.statement, "bits": self.bits}

    def secrets(self) -> Mapping[str, Value]:
        return {"root": self.root} if self.root else {}


@batch_check(
    id="rsa-invalid-modulus",
    title="unsound modulus",
    applies_to=(RsaPublicKey,),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    references=(
        "RFC 8017, 3.1",
        "Valenta, Cohney, Liao, Fried, Bodduluri, Heninger 2015: Factoring as a service",
        "CA/Browser Forum Baseline Requirements, 6.1.6",
    ),
    any_size=True,
)
def rsa_invalid_modulus(batch: RsaBatch, context: Context) -> Iterator[tuple[int, Verdict]]:
    """Whole batches by size, rows by parity and roots."""
    deep = context.profile >= Profile.DEEP
    if batch.bits > DEFAULT_LIMITS.modulus_bits or batch.bits <= FACTORABLE_BITS:
        rows = list(range(len(batch)))
    else:
        suspicious = batch.matrix[:, 0] & 1 == 0
        residues = batch.residues(_POWER_MODULI)
        for column, table in enumerate(_tables()):
            suspicious |= table[residues[:, column]]
        # odd squares are 1 modulo 8
        for row in np.flatnonzero(batch.matrix[:, 0] & 7 == 1).tolist():
            suspicious[row] |= gmpy2.is_square(batch.moduli[row])
        if context.profile >= Profile.STANDARD:
            suspicious |= np.array([gmpy2.is_power(n) for n in batch.moduli])
        rows = list(range(len(batch))) if deep else np.flatnonzero(suspicious).tolist()
    for row in rows:
        key = batch.key(row)
        statement = contradiction(key, primality=deep)
        if statement:
            power = root_of_power(key.modulus) if statement.startswith("the modulus is a perfect") else None
            evidence = InvalidModulus(statement, batch.bits, power[0] if power else 0)
            certain = Confidence.CERTAIN if "dollars" in statement or "larger than" in statement else None
            yield row, Verdict(statement, evidence, confidence=certain)


@cache
def _tables() -> tuple[NDArray[np.bool_], ...]:
    """The sieves' tables, in the order of ``_POWER_MODULI``."""
    return tuple(power_table(exponent, primes) for exponent, primes in _POWER_SIEVES.items())
