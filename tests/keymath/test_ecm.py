"""The elliptic curve method: laws of the curves on small fields, coverage, and hostile numbers."""

from __future__ import annotations

import hashlib
import time
from math import prod

import gmpy2
import pytest
from gmpy2 import mpz
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from keyassay.keymath.differences import along_powers, at_points, product_modulo
from keyassay.keymath.ecm import (
    Level,
    _stage_two,
    add,
    double,
    factor_by_curve,
    multiplier,
    multiply,
    sigma_of,
    suyama,
)
from keyassay.keymath.factoring import primes_below
from keyassay.keymath.smooth import coprime_residues

PRIMES = st.sampled_from([p for p in primes_below(2000).tolist() if p > 100])
SIGMAS = st.integers(6, 10_000)


def quiet() -> None:
    """No clock."""


def montgomery(sigma: int, p: int) -> tuple[int, int, int]:
    """(A, x, B) of the curve B y^2 = x^3 + A x^2 + x through (x, 1) modulo a prime; assumes that it is one."""
    curve = suyama(sigma)
    assume(curve.under % p and curve.z % p and curve.over % p and (curve.over - curve.under) % p)
    a = int(4 * curve.over * pow(int(curve.under), -1, p) - 2) % p
    x = int(curve.x * pow(int(curve.z), -1, p)) % p
    b = (x**3 + a * x * x + x) % p
    assume(b)
    return a, x, b


def count(a: int, b: int, p: int) -> int:
    """Points of B y^2 = x^3 + A x^2 + x, with the one at infinity."""
    return p + 1 + sum(gmpy2.legendre(b * (x**3 + a * x * x + x), p) for x in range(p))


@settings(deadline=None, max_examples=40)
@given(PRIMES, SIGMAS)
def test_the_order_of_a_curve_is_a_multiple_of_12(p: int, sigma: int) -> None:
    a, _, b = montgomery(sigma, p)
    assert count(a, b, p) % 12 == 0


@settings(deadline=None, max_examples=80)
@given(PRIMES, SIGMAS, st.integers(1, 5000))
def test_the_ladder_agrees_with_affine_arithmetic(p: int, sigma: int, k: int) -> None:
    a, x, b = montgomery(sigma, p)
    start = (x, 1)

    def plus(u: tuple[int, int] | None, v: tuple[int, int] | None) -> tuple[int, int] | None:
        if u is None or v is None:
            return u or v
        if u[0] == v[0]:
            if (u[1] + v[1]) % p == 0:
                return None
            slope = (3 * u[0] ** 2 + 2 * a * u[0] + 1) * pow(2 * b * u[1], -1, p)
        else:
            slope = (v[1] - u[1]) * pow(v[0] - u[0], -1, p)
        x3 = (b * slope * slope - a - u[0] - v[0]) % p
        return x3, (slope * (u[0] - x3) - u[1]) % p

    # the point (x, 1) is on the curve, since B was chosen so
    result, base, rest = None, start, k
    while rest:
        if rest & 1:
            result = plus(result, base)
        base, rest = plus(base, base), rest >> 1
    curve = suyama(sigma)
    big, z = multiply(curve, k, (curve.x, curve.z), mpz(p))
    if result is None:
        assert z % p == 0
    else:
        assert big * pow(int(z), -1, p) % p == result[0]


@settings(deadline=None, max_examples=60)
@given(st.integers(10**9, 10**12).map(lambda x: int(gmpy2.next_prime(x))), SIGMAS, st.integers(3, 10**6))
def test_additions_and_doublings_agree_with_the_ladder(p: int, sigma: int, k: int) -> None:
    montgomery(sigma, p)
    curve, n = suyama(sigma), mpz(p)
    start = (curve.x % n, curve.z % n)
    (x1, z1), (x2, z2), (x3, z3) = (multiply(curve, j, start, n) for j in (k, k + 1, 2 * k + 1))
    assume(z1 and z2 and z3)
    x, z = add((x1, z1), (x2, z2), start, n)
    assert x * z3 % n == x3 * z % n
    x, z = double(curve, (x1, z1), n)
    x3, z3 = multiply(curve, 2 * k, start, n)
    assert x * z3 % n == x3 * z % n


@pytest.mark.parametrize("width", [30, 42, 210])
def test_stage_two_covers_every_prime_to_its_reach(width: int) -> None:
    """A point of order r shows for every prime r from D/2 to D times half its totient: small curves have them all."""
    reach = width * len(coprime_residues(width)) // 2
    wanted = {r for r in primes_below(min(reach, 260)).tolist() if 2 * r > width and width % r}
    other = 2**127 - 1
    for p in (int(gmpy2.next_prime(3000 + 60 * i)) for i in range(400)):
        if not wanted:
            break
        sigma = 6 + p % 37
        curve = suyama(sigma)
        if not (curve.under % p and curve.z % p and curve.over % p and (curve.over - curve.under) % p):
            continue
        a = int(4 * curve.over * pow(int(curve.under), -1, p) - 2) % p
        x = int(curve.x * pow(int(curve.z), -1, p)) % p
        order = count(a, (x**3 + a * x * x + x) % p, p)
        r = max(q for q in primes_below(order + 1).tolist() if order % q == 0)
        if r not in wanted:
            continue
        n = mpz(p * other)
        point = multiply(curve, order // r, (curve.x, curve.z), n)
        if point[1] % p:
            assert _stage_two(curve, point, width, n, quiet) == p, r
            wanted.discard(r)
    assert len(wanted) < 15


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 10**10).map(lambda x: 2 * x + 1), st.integers(0, 50))
def test_only_proper_divisors_are_returned(n: int, index: int) -> None:
    factor = factor_by_curve(n, sigma_of(n, index), Level(50, 90), quiet)
    assert factor is None or (1 < factor < n and n % factor == 0)


def test_the_multiplier_has_all_prime_powers() -> None:
    assert all(multiplier(500) % number == 0 for number in range(1, 501))


def test_sigma_is_repeatable_and_the_curves_differ() -> None:
    digest = hashlib.sha256(b"3039:7").digest()
    assert sigma_of(12345, 7) == 6 + int.from_bytes(digest[:4], "big") % 2**20
    assert len({sigma_of(12345, index) for index in range(400)}) > 395
    assert all(6 <= sigma_of(7, index) < 6 + (1 << 20) for index in range(50))


def test_factors_of_40_bits_fall_to_40_curves() -> None:
    found = 0
    for i in range(12):
        n = int(gmpy2.next_prime(3 << 38 | i << 20)) * (2**607 - 1)
        found += any(factor_by_curve(n, sigma_of(n, index), Level(500, 630), quiet) for index in range(40))
    assert found >= 8  # nine of ten are expected


NUMBERS = st.lists(st.integers(0, 10**9), min_size=1, max_size=40)


@settings(deadline=None)
@given(NUMBERS, NUMBERS, st.integers(1, 10**8).map(lambda x: 2 * x + 1))
def test_values_at_points_are_products_of_differences(roots: list[int], points: list[int], n: int) -> None:
    expected = [product_modulo([point - root for root in roots], n) % n for point in points]
    assert at_points(n, roots, points, quiet) == expected


@settings(deadline=None)
@given(NUMBERS, st.integers(2, 10**6), st.integers(1, 50), st.integers(1, 10**8).map(lambda x: 2 * x + 1))
def test_values_along_powers_are_products_up_to_units(roots: list[int], ratio: int, count: int, n: int) -> None:
    assume(gmpy2.gcd(ratio, n) == 1)
    values = along_powers(n, roots, ratio, count, quiet)
    for m, value in enumerate(values):
        expected = product_modulo([pow(ratio, m, n) - root for root in roots], n)
        assert gmpy2.gcd(value, n) == gmpy2.gcd(expected, n)


class OverError(Exception):
    """The time is over."""


@pytest.mark.parametrize(
    "n",
    [2**16383 + 12345, 3**10337, 15, 9, 2**1279 - 1, prod(range(3, 900, 2)), (2**521 - 1) ** 3],
    ids=["16384 bits", "a power", "15", "9", "a prime", "smooth", "a cube"],
)
@pytest.mark.parametrize("level", [Level(500, 630), Level(11_000, 2_310)], ids=["500", "11,000"])
def test_hostile_numbers_end_at_the_deadline(n: int, level: Level) -> None:
    started = time.process_time()

    def alive() -> None:
        if time.process_time() > started + 0.2:
            raise OverError

    try:
        factor = factor_by_curve(n, sigma_of(n, 0), level, alive)
    except OverError:
        factor = None
    assert factor is None or (1 < factor < n and n % factor == 0)
    assert time.process_time() - started < 3
