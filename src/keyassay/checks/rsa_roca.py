"""ROCA: keys from Infineon's RSALib (CVE-2017-15361).

Weakness: RSALib chose primes of the form k M + (65537^a mod M), M the product of the first primes, so that the primes
have a small part of the entropy they need and Coppersmith's method finds them: 512 bits in about 2 CPU hours, 1024 in
97 days, 2048 in 140 years of one core, all of it parallel (Nemec and others 2017). Millions of TPMs, smart cards and
tokens had such keys. `keyassay prove --attack` factors those of 512 bits in minutes.

Method: N is then a power of 65537 modulo M. A table of residues modulo 43 * 97 * 127 lets 8 in 100,000 sound keys pass;
for those the logarithm is taken modulo every prime of M, and all of them have to be the same number.

Cost: 0.2 us a key.

Profiles: the same in all, `aws` included.

Mistakes: a random modulus passes with probability below 2^-150 (39 primes, to 991 bits), 2^-300 (71, to 1983 bits) and
less for larger ones: M is the whole primorial of the size.

Blind spots: another generator than 65537 (rsa-roca-variant). The factors are not computed by a scan: the fingerprint
is the finding. `keyassay prove FILE --attack` computes them where a CPU day or two are enough: to 576 bits. For every
power of 65537 modulo a divisor M' of M it takes p to be that power, and needs a lattice of dimension two (divisors in
residue classes, Lenstra 1984), where Coppersmith's method needs one of dimension five at least. At 512 bits these are
551,350,800 powers modulo 173 bits, of which half are tried at most. Larger keys are refused, with what they would cost.

Remedy: update the firmware where there is an update, make a new key elsewhere, revoke this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import PublicKey, RsaPublicKey
from keyassay.checks import REASON_PREFIX, Context, Rows, key_check
from keyassay.findings import Classification, Confidence, Evidence, Factor, Profile, Severity, Step, Value, Verdict
from keyassay.keymath import residues

LEAST_BITS = 448


@dataclass(frozen=True)
class DiscreteLogarithm(Evidence):
    """x with 65537^x = N modulo the product of the first ``primes`` primes."""

    primes: int
    x: int

    def proves(self, subject: PublicKey | Item) -> bool:
        if not isinstance(subject, RsaPublicKey):
            return False
        modulus = residues.primorial(self.primes)
        return pow(residues.GENERATOR, self.x, modulus) == subject.modulus % modulus

    def describe(self) -> Mapping[str, Value]:
        return {
            "generator": residues.GENERATOR,
            "primes": self.primes,
            "discrete_logarithm": self.x,
            "false_alarm": f"2^-{residues.false_alarm_bits(self.primes)}",
        }

    def steps(self, subject: PublicKey | Item) -> list[Step]:
        assert isinstance(subject, RsaPublicKey)
        modulus = residues.primorial(self.primes)
        return [
            Step(f"M is the product of the first {self.primes} primes, {modulus.bit_length()} bits"),
            Step(f"x = {self.x}"),
            Step(
                "65537 to the power of x is N modulo M (prints True)",
                f"python3 -c 'print(pow(65537, {self.x}, {modulus:#x}) == {subject.modulus:#x} % {modulus:#x})'",
            ),
            Step(f"A random number is such a power with probability 2^-{residues.false_alarm_bits(self.primes)}"),
        ]


@dataclass(frozen=True)
class RocaFactor(Factor):
    """The factor p of a ROCA key, and the logarithm that shows why it was found: x with 65537^x = p modulo M.

    M is the product of the first ``primes`` primes.
    """

    primes: int = 0
    x: int | None = None

    def proves(self, subject: PublicKey | Item) -> bool:
        if self.x is not None:
            modulus = residues.primorial(self.primes)
            if pow(residues.GENERATOR, self.x, modulus) != self.factor % modulus:
                return False
        return super().proves(subject)

    def secrets(self) -> Mapping[str, Value]:
        return {**super().secrets(), **({} if self.x is None else {"discrete_logarithm": self.x})}

    def steps(self, subject: PublicKey | Item) -> list[Step]:
        steps = super().steps(subject)
        if self.x is None:
            return steps
        modulus = residues.primorial(self.primes)
        return [
            *steps,
            Step(
                f"65537 to the power of {self.x} is p modulo the product of the first {self.primes} primes, "
                "as with all primes of RSALib (prints True)",
                f"python3 -c 'print(pow(65537, {self.x}, {modulus:#x}) == {self.factor:#x} % {modulus:#x})'",
            ),
        ]


def factored(modulus: int, factor: int, classes: int) -> Verdict:
    """What is said of a ROCA key whose factor was found; ``classes`` is the length in bits of the divisor of M."""
    count = residues.prime_count(modulus.bit_length())
    x = residues.joint_logarithm(factor, residues.first_primes(count))
    notes: Mapping[str, Value] = {"generator": residues.GENERATOR, "primes": count, "classes_modulo_bits": classes}
    return Verdict(
        "made by Infineon's RSALib (ROCA): its primes were found by searching their residue classes",
        RocaFactor(factor, notes, count, x),
        confidence=Confidence.PROVEN,
    )


@key_check(
    id="rsa-roca",
    title="ROCA",
    applies_to=(RsaPublicKey,),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.CERTAIN,
    profile=Profile.FAST,
    references=(
        "CVE-2017-15361",
        "Nemec, Sys, Svenda, Klinec, Matyas 2017: The return of Coppersmith's attack",
    ),
    reason_code=REASON_PREFIX + "CVE-2017-15361",
    explained_by=("rsa-invalid-modulus",),
)
def rsa_roca(key: RsaPublicKey, _context: Context) -> Verdict | None:
    """The joint logarithm over the primorial of the size."""
    bits = key.bits
    if not LEAST_BITS <= bits <= 16_384:
        return None
    count = residues.prime_count(bits)
    x = residues.joint_logarithm(key.modulus, residues.first_primes(count))
    if x is None or key.modulus == 1:
        return None
    return Verdict(
        "made by Infineon's RSALib (ROCA): its primes can be found by Coppersmith's method", DiscreteLogarithm(count, x)
    )


@rsa_roca.screen
def powers(batch: RsaBatch, _context: Context) -> Rows:
    """Rows whose residue modulo 43 * 97 * 127 is a power of 65537."""
    if not LEAST_BITS <= batch.bits <= 16_384:
        return np.zeros(0, dtype=np.intp)
    modulus = residues.SIEVE[0] * residues.SIEVE[1] * residues.SIEVE[2]
    return np.flatnonzero(residues.sieve_table()[batch.residues((modulus,))[:, 0]])
