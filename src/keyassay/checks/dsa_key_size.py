"""DSA keys below today's accepted sizes.

Weakness: discrete logarithms modulo a p of 1024 bits are within reach of large organisations (768 bits were done in
2016, and one precomputation serves all keys with the same p); subgroups below 224 bits fall to square-root attacks in
2^112 steps. A p of special form, nearly all of whose words of 32 bits are small numbers, is worth far fewer bits than
it has: the special number field sieve takes logarithms modulo such a p. FIPS 186-5 no longer approves DSA for signing
at all.

Method: the bit lengths of p and q; p in balanced digits to the base 2^32.

Cost: 20 us a key.

Profiles: the same in all.

Mistakes: none: sizes are counted. A random p has three quarters of its digits within 255 of zero with probability below
2^-1000.

Blind spots: whether p was made with a hidden trapdoor.

Remedy: replace DSA by Ed25519 or P-256.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keyassay.certificates.item import Item
from keyassay.certificates.public_key import DsaPublicKey, PublicKey
from keyassay.checks import Context, key_check
from keyassay.findings import Classification, Confidence, Evidence, Profile, Severity, Value, Verdict


@dataclass(frozen=True)
class DsaSize(Evidence):
    """Bits of p and q."""

    p_bits: int
    q_bits: int

    def proves(self, subject: PublicKey | Item) -> bool:
        return (
            isinstance(subject, DsaPublicKey)
            and (subject.p.bit_length(), subject.q.bit_length()) == (self.p_bits, self.q_bits)
            and (self.p_bits < 2048 or self.q_bits < 224)
        )

    def describe(self) -> Mapping[str, Value]:
        return {"p_bits": self.p_bits, "q_bits": self.q_bits}


def sparse_words(p: int) -> int:
    """How many words of 32 bits of p are within 255 of zero, with a carry into the next; 0 if fewer than 3 in 4."""
    rest, small, words = p, 0, 0
    while rest:
        digit = rest & 0xFFFFFFFF
        digit -= (digit >> 31) << 32
        small += abs(digit) < 256
        words += 1
        rest = (rest - digit) >> 32
    return small if words >= 16 and 4 * small >= 3 * words else 0


@dataclass(frozen=True)
class SparsePrime(Evidence):
    """How many words of p are small."""

    small_words: int

    def proves(self, subject: PublicKey | Item) -> bool:
        return (
            isinstance(subject, DsaPublicKey)
            and subject.p.bit_length() <= 16_384
            and sparse_words(subject.p) == self.small_words > 0
        )

    def describe(self) -> Mapping[str, Value]:
        return {"small_words_of_32_bits": self.small_words}


@key_check(
    id="dsa-key-size",
    title="DSA key too small",
    applies_to=(DsaPublicKey,),
    classification=Classification.WEAK,
    severity=Severity.HIGH,
    confidence=Confidence.CERTAIN,
    profile=Profile.FAST,
    references=("NIST SP 800-57 part 1", "FIPS 186-5"),
    explained_by=("dsa-invalid-domain",),
)
def dsa_key_size(key: DsaPublicKey, _context: Context) -> Verdict | None:
    """Two comparisons."""
    p_bits, q_bits = key.p.bit_length(), key.q.bit_length()
    if p_bits >= 2048 and q_bits >= 224:
        small = sparse_words(key.p) if p_bits <= 16_384 else 0
        if small:
            return Verdict(
                "nearly all words of p are small: the special number field sieve applies", SparsePrime(small)
            )
        return None
    return Verdict(f"DSA with {p_bits} and {q_bits} bits", DsaSize(p_bits, q_bits))
