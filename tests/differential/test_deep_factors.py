"""Second opinions on the vectors of p - 1, p + 1 and elliptic curves: sympy and plain Python say that they are what we say.

What makes a key weak is stated anew here, by complete factorings of p - 1 and p + 1; sympy's own p - 1 method finds the
same primes. A curve that found a factor is written down in Weierstrass's form, in plain Python, and its point has the
order that the bounds promise.
"""

from __future__ import annotations

from functools import cache
from math import gcd

import pytest
from sympy import factorint, isprime
from sympy.ntheory.factor_ import pollard_pm1

from keyassay.keymath.ecm import Level, factor_by_curve, sigma_of, suyama
from vectors_of_checks import Case, cases_of

pytestmark = pytest.mark.slow

WEAK = [case for case in cases_of("rsa-smooth-prime") if case.verdict == "weak"]
MISSED = [case for case in cases_of("rsa-smooth-prime") if case.verdict == "near-miss"]
PLANTED = [
    case for case in cases_of("rsa-small-factor") if case.verdict == "weak" and case.name.startswith("factor of")
]
BOUNDS = {1_000: (630, 0, 30), 5_000: (2_730, 30, 54), 15_000: (5_460, 84, 100)}


@cache
def parts(number: int) -> dict[int, int]:
    """Prime factors with exponents; what trial division to 2^21 leaves is prime or has primes of our making."""
    found = factorint(number, limit=1 << 21, use_rho=False, use_pm1=False, use_ecm=False)
    return {int(prime): int(exponent) for prime, exponent in found.items()}


def smooth(order: int, shared: int, bound: int, reach: int) -> bool:
    """Whether E of the method and one prime to the reach contain the order."""
    order //= gcd(order, shared)
    left = [prime for prime, exponent in parts(order).items() if prime >= bound or (exponent > 2 and prime > 1024)]
    single = all(exponent == 1 for prime, exponent in parts(order).items() if prime >= 1 << 16)
    return single and (not left or (len(left) == 1 and isprime(left[0]) and left[0] < reach))


@pytest.mark.parametrize("case", WEAK + MISSED, ids=str)
def test_vectors_are_as_smooth_as_they_say(case: Case) -> None:
    p, q = case.private["p"], case.private["q"]
    assert isprime(p)
    assert isprime(q)
    found = smooth(p - 1, p * q - 1, 1 << 20, 30_030 * 5_760) or smooth(p + 1, 1, 1 << 16, 6_930 * 720)
    assert found is (case.verdict == "weak")


def test_sympy_finds_a_smooth_prime_too() -> None:
    """Its p - 1 method knows no squares of primes above the root of the bound: a p without, beside a random prime."""
    p = next(case for case in WEAK if case.name == "p - 1 and q - 1 smooth to 2^16").private["p"]
    [sound] = [case for case in cases_of("rsa-smooth-prime") if case.verdict == "healthy"]
    assert pollard_pm1(p * sound.private["q"], B=1 << 16) == p


@pytest.mark.parametrize("case", PLANTED, ids=str)
def test_the_curve_has_the_order_that_found_the_factor(case: Case) -> None:
    """The first curve that finds p: the point's order there is smooth, by the group law in Weierstrass's form."""
    bound = int(case.name.rpartition(" ")[2])
    width, first, count = BOUNDS[bound]
    n = case.items[0].key.modulus
    p = min(case.private.values())
    assert isprime(p)
    numbers = (number for number in range(first, first + count))
    sigma = next(
        sigma for number in numbers if factor_by_curve(n, sigma := sigma_of(n, number), Level(bound, width), bool)
    )
    curve = suyama(sigma)
    a = int(4 * curve.over * pow(int(curve.under), -1, p) - 2) % p
    x = int(curve.x * pow(int(curve.z), -1, p)) % p
    b = pow(x**3 + a * x * x + x, -1, p)  # B = 1/b: with y = 1, of B y^2 = x^3 + A x^2 + x
    # u = x/B + A/(3B), v = y/B: v^2 = u^3 + c u + d
    shift = a * b * pow(3, -1, p) % p
    c = (b * b * (3 - a * a) * pow(3, -1, p)) % p
    start = ((x * b + shift) % p, b)

    def plus(u: tuple[int, int] | None, v: tuple[int, int] | None) -> tuple[int, int] | None:
        if u is None or v is None:
            return u or v
        if u[0] == v[0] and (u[1] + v[1]) % p == 0:
            return None
        slope = (3 * u[0] ** 2 + c) * pow(2 * u[1], -1, p) if u == v else (v[1] - u[1]) * pow(v[0] - u[0], -1, p)
        third = (slope * slope - u[0] - v[0]) % p
        return third, (slope * (u[0] - third) - u[1]) % p

    def times(k: int, point: tuple[int, int] | None) -> tuple[int, int] | None:
        result = None
        while k:
            if k & 1:
                result = plus(result, point)
            point, k = plus(point, point), k >> 1
        return result

    point: tuple[int, int] | None = start
    for prime in range(2, bound + 1):
        if isprime(prime):
            power = prime
            while power * prime <= bound:
                power *= prime
            point = times(power * {2: 64, 3: 9}.get(prime, 1), point)
    if point is not None:  # one prime more: m D and j of the point have the same x
        babies = {found[0]: j for j in range(1, width // 2) if gcd(j, width) == 1 and (found := times(j, point))}
        giant, running = times(width, point), None
        m = 0
        for _ in babies:
            m += 1
            running = plus(running, giant)
            if running is None or running[0] in babies:
                break
        j = 0 if running is None else babies[running[0]]
        order = next(r for r in (m * width - j, m * width + j) if times(r, point) is None)
        assert isprime(order)
        assert bound < order < width * (len(babies) + 1)
