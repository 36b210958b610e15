"""DSA keys whose parameters or public value cannot be those of a sound key.

Weakness: if p is composite, q does not divide p - 1, g does not have order q, or y is not a power of g, then either the
discrete logarithm is easy or signatures prove nothing: parameters like these have been planted to forge (g = 1 accepts
any signature).

Method: p and q prime, q divides p - 1, 1 < g < p - 1 and g^q = 1, 1 < y < p - 1 and y^q = 1 modulo p.

Cost: 5 ms for a set of parameters (once a run for shared ones), 0.3 ms a key of 2048 bits.

Profiles: sizes and ranges in fast; primality and orders from standard, for p up to 4096 bits.

Mistakes: none, these are definitions; primes are tested by Baillie, Pomerance, Selfridge and Wagstaff's test, to which
no composite that passes is known, and which calls no prime composite.

Blind spots: a p with a hidden number field sieve trapdoor; parameters above 4096 bits.

Remedy: replace DSA by Ed25519 or P-256.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import gmpy2

from keyassay.certificates.item import Item
from keyassay.certificates.public_key import DsaPublicKey, PublicKey
from keyassay.checks import Context, key_check
from keyassay.findings import Classification, Confidence, Evidence, Profile, Severity, Value, Verdict

MOST_BITS = 16_384
#: above this a test of primality costs a second and more
ARITHMETIC_BITS = 4096


@lru_cache(maxsize=256)
def _domain(p: int, q: int, g: int) -> str:
    if not gmpy2.is_strong_bpsw_prp(q):
        return "q is not prime"
    if (p - 1) % q:
        return "q does not divide p - 1"
    if gmpy2.powmod(g, q, p) != 1:
        return "g does not have order q"
    if not gmpy2.is_strong_bpsw_prp(p):
        return "p is not prime"
    return ""


def contradiction(key: DsaPublicKey, *, arithmetic: bool = True) -> str:
    """What is wrong with a key, "" if nothing."""
    p, q, g, y = key.p, key.q, key.g, key.y
    if max(number.bit_length() for number in (p, q, g, y)) > MOST_BITS:
        return "a number of absurd size"
    if p < 5 or not p & 1 or q < 3:
        return "p or q is no odd prime"
    if not 1 < g < p - 1:
        return "g is trivial"
    if not 1 < y < p - 1:
        return "the public value is trivial"
    if not arithmetic or max(p.bit_length(), q.bit_length()) > ARITHMETIC_BITS:
        return ""
    return _domain(p, q, g) or ("" if gmpy2.powmod(y, q, p) == 1 else "the public value is no power of g")


@dataclass(frozen=True)
class DsaContradiction(Evidence):
    """The contradiction in words; verified by computing again."""

    statement: str

    def proves(self, subject: PublicKey | Item) -> bool:
        return isinstance(subject, DsaPublicKey) and contradiction(subject) == self.statement

    def describe(self) -> Mapping[str, Value]:
        return {"contradiction": self.statement}


@key_check(
    id="dsa-invalid-domain",
    title="unsound DSA parameters",
    applies_to=(DsaPublicKey,),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    references=("FIPS 186-4, appendix A", "NIST SP 800-89", "RFC 2785"),
)
def dsa_invalid_domain(key: DsaPublicKey, context: Context) -> Verdict | None:
    """Shared parameters are tested once."""
    statement = contradiction(key, arithmetic=context.profile >= Profile.STANDARD)
    return Verdict(f"{statement}: no sound private key", DsaContradiction(statement)) if statement else None
