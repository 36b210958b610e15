"""RSA keys of which one prime p has a smooth neighbour: p - 1 or p + 1 is a product of small primes.

Weakness: who knows a multiple of p - 1 finds p, whatever its size (Pollard 1974), and likewise with p + 1 (Williams
1982). A multiple of all smooth numbers is quickly made. Random primes of 1024 bits are never that smooth; primes built
as 2 r s ... + 1 from small pieces, by a program that is proud of its provable primes, or by somebody who wanted a back
door, are.

Method: 3^E - 1 and N have p in common, where E is the product of N - 1 (what p - 1 and q - 1 share is in it, however
large) and of all primes below a bound, those below 2^16 squared and smaller ones to higher powers. Then one larger
prime is forgiven: all a^(mD) - a^j at once, by one product of polynomials. p + 1 in the same way with Lucas's sequence,
where the first seed is good for p = 2 modulo 3, the second for p = 3 modulo 4: three of four. If both primes fall at
once, powers of other numbers part them.

Cost: seconds a key, see below; nothing in fast and standard.

Profiles: deep only. Seconds at 1024, 2048 and 4096 bits on a busy machine: p - 1 to 2^16 and one prime to 1.1 million
0.25, 0.5, 1.6; p + 1 to 2^16 and 5 million, one seed 0.5, 1, 4.5; p - 1 on to 2^20 and one prime to 170 million 1.7,
3.6, 13. With more time the other seed, p + 1 to 2^20, and p - 1 to 2^24. A step that runs out of time has tried all
below the bound that its report names.

Mistakes: none: a finding carries a factor of N.

Blind spots: two primes above the bound in p - 1 and in p + 1; a smooth p + 1 if p = 1 modulo 12; squares of primes
above 2^16.

Remedy: a new key from a generator that draws its primes at random.
"""

from __future__ import annotations

from collections.abc import Callable

import gmpy2

from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import Context, Effort, key_check
from keyassay.findings import Classification, Confidence, Factor, Profile, Severity, Value, Verdict
from keyassay.keymath.smooth import SEEDS, PowerSearch, p_plus_1

#: Above this many bits one product of polynomials of stage 2 would take seconds: a quarter of the primes then.
_LARGE = 4608
_CACHE = "rsa-smooth-prime"
#: Random p - 1 and q - 1 have fewer bits in common.
_SHARED = 64


@key_check(
    id="rsa-smooth-prime",
    title="prime with a smooth neighbour",
    applies_to=(RsaPublicKey,),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.DEEP,
    references=(
        "Pollard 1974: Theorems on factorization and primality testing",
        "Williams 1982: A p + 1 method of factoring",
        "Montgomery, Silverman 1990: An FFT extension to the p - 1 factoring algorithm",
    ),
    explained_by=("rsa-invalid-modulus", "rsa-small-factor"),
)
def rsa_smooth_prime(_key: RsaPublicKey, _context: Context) -> Verdict | None:
    """Nothing without a budget: all is in the deep steps."""
    return None


def _odd(key: RsaPublicKey) -> str:
    return "" if key.modulus & 1 and key.modulus > 3 else "the modulus is even or tiny"


def _search(key: RsaPublicKey, effort: Effort) -> PowerSearch:
    """The power of this key as far as the last step took it: bounds rise from step to step."""
    kept = effort.context.cache.get(_CACHE)
    if not isinstance(kept, PowerSearch) or kept.n != key.modulus:
        kept = effort.context.cache[_CACHE] = PowerSearch(key.modulus)
    return kept


def _width(key: RsaPublicKey, width: int) -> int:
    return width if key.bits <= _LARGE else min(width, 6930)


def _power_step(bound: int, width: int) -> Callable[[RsaPublicKey, Effort], Verdict | None]:
    def run(key: RsaPublicKey, effort: Effort) -> Verdict | None:
        search = _search(key, effort)
        factor = search.stage_one(bound, effort.reached)
        if factor is None:
            factor = search.stage_two(_width(key, width), effort.reached)
        if factor is not None:
            return _verdict(key, factor, "p - 1", bound)
        effort.done, effort.total, effort.unit = 2, 2, "stages"
        return None

    return run


def _lucas_step(seed: int, bound: int, width: int) -> Callable[[RsaPublicKey, Effort], Verdict | None]:
    def run(key: RsaPublicKey, effort: Effort) -> Verdict | None:
        factor = p_plus_1(key.modulus, SEEDS[seed], bound, _width(key, width), effort.reached)
        if factor is not None:
            return _verdict(key, factor, "p + 1", bound)
        effort.done, effort.total, effort.unit = 2, 2, "stages"
        return None

    return run


def _verdict(key: RsaPublicKey, factor: int, method: str, bound: int) -> Verdict:
    notes: dict[str, Value] = {"method": method, "bound": bound}
    shared = gmpy2.gcd(factor - 1, key.modulus // factor - 1)
    if method == "p - 1" and shared.bit_length() > _SHARED:
        notes["shared_bits"] = shared.bit_length()
        what = f"p - 1 is smooth but for what it shares with q - 1, {shared.bit_length()} bits"
    else:
        what = "p - 1 is smooth" if method == "p - 1" else "p + 1 or p - 1 is smooth"
    return Verdict(f"{what}: the {method} method finds p with a bound of {bound:,}", Factor(factor, notes))


# The seconds are those of the first piece: each piece of the exponent is followed by a look at what it has found.
for _name, _stage, _bound, _widths in (
    ("p - 1 to 2^16", 4, 1 << 16, 2310),
    ("p - 1 to 2^20", 5, 1 << 20, 30030),
    ("p - 1 to 2^24", 7, 1 << 24, 60060),
):
    rsa_smooth_prime.deeper(_name, stage=_stage, seconds=0.02, applies=_odd)(_power_step(_bound, _widths))

for _name, _stage, _seed, _bound, _widths in (
    ("p + 1 to 2^16, seed 2/7", 4, 0, 1 << 16, 6930),
    ("p + 1 to 2^16, seed 6/5", 5, 1, 1 << 16, 6930),
    ("p + 1 to 2^20, seed 2/7", 6, 0, 1 << 20, 30030),
    ("p + 1 to 2^20, seed 6/5", 7, 1, 1 << 20, 30030),
):
    rsa_smooth_prime.deeper(_name, stage=_stage, seconds=0.06, applies=_odd)(_lucas_step(_seed, _bound, _widths))
