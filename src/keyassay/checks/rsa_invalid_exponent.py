"""RSA public exponents that no sound key has.

Weakness: with e = 1 encryption does nothing and everybody signs; e = 0 likewise. An even e is never invertible modulo
the even number phi(N): no private key exists. e of the modulus' size or more was not made by any standard's rules.

Method: comparisons.

Cost: nothing.

Profiles: the same in all.

Mistakes: none, these are definitions. e = 3 is sound with proper padding and is no finding. e above 2^256, which FIPS
186-5 does not allow, is a notice.

Blind spots: whether e shares a factor with phi(N), which only the owner can tell.

Remedy: a new key with e = 65537.
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


def contradiction(key: RsaPublicKey) -> tuple[str, bool]:
    """(what is wrong with an exponent, whether it breaks the key); ("", False) for a sound one."""
    e, n = key.exponent, key.modulus
    if e < 2:
        return f"e = {e}: no secret is needed", True
    if not e & 1:
        return "e is even and can't be invertible", True
    if e >= n > 2:
        return "e is not smaller than the modulus", False
    if e.bit_length() > 256:
        return f"e has {e.bit_length()} bits", False
    return "", False


@dataclass(frozen=True)
class InvalidExponent(Evidence):
    """The contradiction in words; verified by looking again."""

    statement: str
    exponent: int

    def proves(self, subject: PublicKey | Item) -> bool:
        return isinstance(subject, RsaPublicKey) and contradiction(subject)[0] == self.statement != ""

    def describe(self) -> Mapping[str, Value]:
        return {"contradiction": self.statement, "exponent": self.exponent}


@key_check(
    id="rsa-invalid-exponent",
    title="unsound public exponent",
    applies_to=(RsaPublicKey,),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    references=("RFC 8017, 3.1", "FIPS 186-5, 5.4"),
    any_size=True,
)
def rsa_invalid_exponent(key: RsaPublicKey, _context: Context) -> Verdict | None:
    """Four comparisons."""
    statement, broken = contradiction(key)
    if not statement:
        return None
    evidence = InvalidExponent(statement, key.exponent)
    if broken:
        return Verdict(statement, evidence)
    return Verdict(statement, evidence, Classification.NOTICE, Severity.LOW, Confidence.CERTAIN)


@rsa_invalid_exponent.screen
def unusual(batch: RsaBatch, _context: Context) -> Rows:
    """All but e = 65537 under a modulus that is larger."""
    usual = 65537
    rows = [row for row, key in enumerate(batch.keys) if key.exponent != usual or batch.bits < 18]
    return np.array(rows, dtype=np.intp)
