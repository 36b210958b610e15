"""Vectors of what profile deep finds by p - 1, p + 1, elliptic curves, many ratios; the same every time.

``rsa.py`` writes the files. Every group draws from a generator of its own, so that one more case changes no other.
"""

from __future__ import annotations

from math import prod
from random import Random

import gmpy2

from keyassay.keymath.ecm import Level, factor_by_curve, sigma_of

HALF = 512  # bits of a prime: 1024-bit keys keep the tests short
DEEP = 'profile = "deep"\nclassification = "broken"\nconfidence = "proven"\n'


def pair(name: str, verdict: str, p: int, q: int) -> str:
    return (
        f'[[case]]\nname = "{name}"\nverdict = "{verdict}"\n{DEEP if verdict == "weak" else ""}'
        f'key = {{ type = "rsa", modulus = "{p * q:x}", exponent = 65537 }}\n'
        f'private = {{ p = "{p:x}", q = "{q:x}" }}\n'
    )


def prime(drawn: Random, bits: int = HALF) -> int:
    """A random prime with its two top bits set."""
    while True:
        found = int(gmpy2.next_prime(drawn.getrandbits(bits) | 3 << (bits - 2)))
        if found.bit_length() == bits:
            return found


def near(drawn: Random, limit: int) -> int:
    """A random prime in the upper half below a limit."""
    return int(gmpy2.next_prime(drawn.randrange(limit // 2, limit - limit // 16)))


def beside_smooth(drawn: Random, side: int, limit: int, parts: tuple[int, ...] = ()) -> int:
    """A prime p of 512 bits, where p - side is 2 times the parts times random primes below a limit."""
    while True:
        known = 2 * prod(parts)
        while HALF - known.bit_length() > 2 * (limit.bit_length() - 3):
            known *= near(drawn, limit)
        # two more primes fill the length
        rest = (HALF - known.bit_length()) // 2
        known *= near(drawn, 1 << rest)
        for _ in range(50):
            p = known * near(drawn, 1 << (HALF - known.bit_length() + 1)) + side
            if p.bit_length() == HALF and p >> (HALF - 2) == 3 and gmpy2.is_prime(p):
                return p


#: what stage 2 of p - 1 to 2^20 reaches: 30030 times its totient
REACH = 30030 * 5760


def smooth_prime() -> list[str]:
    drawn = Random(1974)
    low, high = 1 << 16, 1 << 20
    cases = []

    def weak(name: str, p: int, q: int | None = None) -> None:
        cases.append(pair(name, "weak", p, q or prime(drawn)))

    def not_found(name: str, p: int) -> None:
        cases.append(pair(name, "near-miss", p, prime(drawn)))

    weak("p - 1 smooth to 2^16", beside_smooth(drawn, 1, low))
    r, s = near(drawn, low), near(drawn, low)
    weak("p - 1 smooth to 2^16, with two squares of primes", beside_smooth(drawn, 1, low, (r, r, s, s)))
    weak("p - 1 smooth to 2^16 but for one prime of 20 bits", beside_smooth(drawn, 1, low, (near(drawn, 1 << 20),)))
    weak("p - 1 and q - 1 smooth to 2^16", beside_smooth(drawn, 1, low), beside_smooth(drawn, 1, low))
    both = [beside_smooth(drawn, 1, low, (near(drawn, 1 << 20),)) for _ in range(2)]
    weak("p - 1 and q - 1 smooth to 2^16 but for one prime each", *both)
    r = int(gmpy2.next_prime(drawn.getrandbits(200)))
    shared = [beside_smooth(drawn, 1, low, (r,)) for _ in range(2)]
    weak("p - 1 and q - 1 share a prime of 200 bits, the rest smooth to 2^16", *shared)
    weak("p - 1 smooth to 2^20", beside_smooth(drawn, 1, high))
    weak("p - 1 smooth to 2^20 but for one prime of 27 bits", beside_smooth(drawn, 1, high, (near(drawn, REACH),)))

    def chosen(*parts: int, first: bool = True) -> int:
        """For V_1 = 2/7, V_1^2 - 4 is -3 times a square: good for p + 1 if p = 2 modulo 3. 6/5: if p = 3 modulo 4."""
        while True:
            p = beside_smooth(drawn, -1, low, (*parts, 3 if first else 2))
            if first or p % 12 == 7:
                return p

    weak("p + 1 smooth to 2^16", chosen())
    weak("p + 1 smooth to 2^16, found by the second seed", chosen(first=False))
    weak("p + 1 smooth to 2^16 but for one prime of 22 bits", chosen(near(drawn, 1 << 22)))
    weak("p + 1 and q + 1 smooth to 2^16", chosen(), chosen())

    beyond = int(gmpy2.next_prime(REACH + 30030))
    not_found("p - 1 smooth but for the prime after stage 2", beside_smooth(drawn, 1, high, (beyond,)))
    r, s = (int(gmpy2.next_prime(x)) for x in (1 << 20, (1 << 20) + 100))
    not_found("p - 1 smooth but for two primes above 2^20", beside_smooth(drawn, 1, high, (r, s)))
    not_found("p - 1 smooth but for the square of a prime above 2^20", beside_smooth(drawn, 1, high, (r, r)))
    cases.append(pair("two random primes", "healthy", prime(drawn), prime(drawn)))
    return cases


#: bits of the factor, bounds and numbers of the curves that are to find it
PLANTED = ((40, Level(1_000, 630), range(30)), (52, Level(5_000, 2_730), range(30, 50)),
           (64, Level(15_000, 5_460), range(84, 92)))  # fmt: skip


def small_factor() -> list[str]:
    """Factors that one of the first curves finds, where chance would make the tests long."""
    drawn = Random(1987)
    cases = []
    for bits, level, numbers in PLANTED:
        while True:
            p, q = prime(drawn, bits), prime(drawn, 2 * HALF - bits)
            if any(factor_by_curve(p * q, sigma_of(p * q, number), level, lambda: None) for number in numbers):
                break
        cases.append(pair(f"factor of {bits} bits, by curves to {level.bound}", "weak", p, q))
    cases.append(pair("factor of 200 bits: out of reach", "near-miss", prime(drawn, 200), prime(drawn, 824)))
    return cases


def close_primes() -> list[str]:
    drawn = Random(1643)
    cases = []

    def apart(verdict: str, a: int, b: int, times: float = 0.0) -> None:
        """P near q a/b: aq - bp is so many times the fourth root of abN."""
        q = prime(drawn, 1024) >> 1 if a < 2 * b else prime(drawn, 1024 - (a // b).bit_length())
        q = int(gmpy2.next_prime(q))
        p = int(gmpy2.next_prime((a * q - int(times * int(gmpy2.isqrt(a * q)))) // b))
        distance = f", aq - bp {times:g} fourth roots of abN" if times else ""
        cases.append(pair(f"ratio {a}/{b}{distance}", verdict, p, q))

    apart("weak", 1097, 1051)
    apart("weak", 1093, 1)
    apart("weak", 7, 5, 2.5)
    apart("weak", 1099, 600, 2.5)
    apart("near-miss", 1103, 1051)
    apart("near-miss", 7, 5, 4.5)
    return cases
