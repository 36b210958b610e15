"""DSA keys with a small private value, or one with a single bit set.

Weakness: x has to be uniform below q. Truncated buffers and generators without entropy give small numbers, and whoever
counts finds them.

Method: baby steps and giant steps on y and on 1/y (for q - x): g^i for i up to 2^8 in a table, giant steps of g^(2^9)
on both sides; single bits and their complements by repeated squaring.

Cost: 1 ms a key of 2048 bits for 2^16; 20 ms for 2^24 and 0.3 s for 2^32 with a table made once for the parameters.

Profiles: x up to 2^16 and single bits in standard, 2^32 in deep.

Mistakes: none: a finding carries x, and g^x = y was computed.

Blind spots: anything with more random bits than that.

Remedy: replace DSA by Ed25519 or P-256.
"""

from __future__ import annotations

from functools import lru_cache

import gmpy2
from gmpy2 import mpz

from keyassay.certificates.public_key import DsaPublicKey
from keyassay.checks import Context, key_check
from keyassay.findings import Classification, Confidence, DsaPrivateKey, Profile, Severity, Verdict

_LOW = (1 << 64) - 1


@lru_cache(maxsize=8)
def _baby_steps(p: int, g: int, count: int) -> dict[int, int]:
    table: dict[int, int] = {}
    value = mpz(1)
    for index in range(count):
        table.setdefault(int(value & _LOW), index)
        value = value * g % p
    return table


def small_logarithm(p: int, g: int, y: int, bits: int) -> int | None:
    """X below 2^bits with g^x = y, by baby steps (2^(bits/2) of them, kept for the parameters) and giant steps."""
    count = 1 << ((bits + 1) // 2)
    table = _baby_steps(p, g, count)
    stride = gmpy2.powmod(gmpy2.invert(g, p), count, p)
    value = mpz(y)
    for giant in range(1 << (bits // 2)):
        index = table.get(int(value & _LOW))
        if index is not None and gmpy2.powmod(g, giant * count + index, p) == y:
            return giant * count + index
        value = value * stride % p
    return None


@key_check(
    id="dsa-weak-private-key",
    title="small DSA private value",
    applies_to=(DsaPublicKey,),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.STANDARD,
    references=("Shanks 1971: baby steps, giant steps", "FIPS 186-4, appendix B.1"),
    explained_by=("dsa-invalid-domain",),
)
def dsa_weak_private_key(key: DsaPublicKey, context: Context) -> Verdict | None:
    """Both ends of the range, then single bits."""
    p, q, g, y = key.p, key.q, key.g, key.y
    if p.bit_length() > 8192 or q.bit_length() > 1024 or p < 5 or not 1 < g < p or not 1 < y < p:
        return None
    if gmpy2.gcd(g, p) != 1 or gmpy2.gcd(y, p) != 1:
        return None
    bits = 32 if context.profile >= Profile.DEEP else 16
    for end, value in ((False, y), (True, int(gmpy2.invert(y, p)))):
        x = small_logarithm(p, g, value, bits)
        if x is None:
            power = mpz(g)
            for exponent in range(q.bit_length()):
                if power == value:
                    x = 1 << exponent
                    break
                power = power * power % p
        if x:
            private = q - x if end else x
            evidence = DsaPrivateKey(private)
            if evidence.proves(key):
                where = "counted down from q" if end else "small or a single bit"
                return Verdict(f"the private value is {where}", evidence)
    return None
