"""Lenstra's method with elliptic curves: prime factors of 40 to 80 bits, whatever the size of N.

Curves of Suyama's family in Montgomery's form, of order divisible by 12; a ladder over the product of all prime powers
up to a bound B1; then one more prime up to B2. Sources: Lenstra 1987; Montgomery 1987; Zimmermann and Dodson 2006.

Suyama's numbers of a curve are ratios of polynomials in a small sigma. Kept as ratios of small integers, they cost
next to nothing in the ladder: 8 multiplications modulo N a bit instead of 10.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import gmpy2
from gmpy2 import mpz

from keyassay.keymath.differences import Alive, at_points, product_modulo
from keyassay.keymath.factoring import primes_below, product
from keyassay.keymath.smooth import coprime_residues

#: (X : Z); the coordinate y is not needed.
Point = tuple[mpz, mpz]

#: Bits of the ladder between two looks at the clock: 5 ms at 2048 bits, 0.1 s at 16,384.
_BITS = 256
#: Additions between two looks at the clock.
_FEW = 64


@dataclass(frozen=True, slots=True)
class Level:
    """How hard one curve tries.

    Attributes:
        bound: B1; all prime powers up to it are in the multiplier.
        width: D of the second stage, a multiple of 6 below twice B1; it reaches primes up to D times half its totient.
    """

    bound: int
    width: int


@dataclass(frozen=True, slots=True)
class Curve:
    """B y^2 = x^3 + A x^2 + x with (A + 2)/4 = over/under, and a point x/z on it; integers, none reduced modulo N."""

    over: mpz
    under: mpz
    x: mpz
    z: mpz


def sigma_of(n: int, index: int) -> int:
    """Suyama's sigma for a curve of N: 20 bits of SHA-256 over "N in hex:index", so that a run can be repeated."""
    digest = hashlib.sha256(f"{n:x}:{index}".encode()).digest()
    return 6 + int.from_bytes(digest[:4], "big") % (1 << 20)


def suyama(sigma: int) -> Curve:
    """Suyama's curve: u = sigma^2 - 5, v = 4 sigma, (A + 2)/4 = (v - u)^3 (3u + v)/(16 u^3 v), x = u^3, z = v^3."""
    u, v = mpz(sigma * sigma - 5), mpz(4 * sigma)
    over, under = (v - u) ** 3 * (3 * u + v), 16 * u**3 * v
    common = gmpy2.gcd(over, under)
    x, z = u**3, v**3
    shared = gmpy2.gcd(x, z)
    return Curve(over // common, under // common, x // shared, z // shared)


def double(curve: Curve, point: Point, n: mpz) -> Point:
    """2P."""
    x, z = point
    a, b = x + z, x - z
    a, b = a * a % n, b * b % n
    c = a - b
    scaled = b * curve.under
    return a * scaled % n, c * (scaled + curve.over * c) % n


def add(p: Point, q: Point, difference: Point, n: mpz) -> Point:
    """P + Q, where P - Q is known."""
    u, v = (p[0] - p[1]) * (q[0] + q[1]), (p[0] + p[1]) * (q[0] - q[1])
    a, b = (u + v) % n, (u - v) % n
    return difference[1] * (a * a % n) % n, difference[0] * (b * b % n) % n


def multiply(curve: Curve, k: int, point: Point, n: mpz, alive: Alive = lambda: None) -> Point:
    """KP for k > 0, by Montgomery's ladder.

    Args:
        curve: the curve.
        k: the multiplier.
        point: P; its coordinates multiply in every step, so small ones are quicker.
        n: the modulus.
        alive: called every 256 bits; may raise.
    """
    over, under = curve.over, curve.under
    x0, z0 = point
    if k == 1:
        return x0 % n, z0 % n
    x, z = x0 % n, z0 % n
    xx, zz = double(curve, point, n)
    bits = bin(k)[3:]
    for start in range(0, len(bits), _BITS):
        for bit in bits[start : start + _BITS]:
            plus, minus = x + z, x - z
            plus2, minus2 = xx + zz, xx - zz
            u, v = minus * plus2, plus * minus2
            a, b = u + v, u - v
            a, b = a % n, b % n
            if bit == "1":
                x, z = z0 * (a * a) % n, x0 * (b * b) % n
                plus2, minus2 = plus2 * plus2 % n, minus2 * minus2 % n
                c = plus2 - minus2
                minus2 = minus2 * under
                xx, zz = plus2 * minus2 % n, c * (minus2 + over * c) % n
            else:
                xx, zz = z0 * (a * a) % n, x0 * (b * b) % n
                plus, minus = plus * plus % n, minus * minus % n
                c = plus - minus
                minus = minus * under
                x, z = plus * minus % n, c * (minus + over * c) % n
        alive()
    return x, z


@lru_cache(maxsize=8)
def multiplier(bound: int) -> mpz:
    """Product of all prime powers up to a bound, with 2^6 and 3^2 more: orders are multiples of 12."""
    powers = [mpz(64 * 9)]
    for r in primes_below(bound + 1).tolist():
        power = r
        while power * r <= bound:
            power *= r
        powers.append(mpz(power))
    return product(powers)


def factor_by_curve(n: int, sigma: int, level: Level, alive: Alive) -> int | None:
    """A proper factor of N that one curve finds, or None.

    Args:
        n: odd, above 1.
        sigma: of the curve, above 5.
        level: bounds.
        alive: called at least once a second at the sizes of keys; may raise.
    """
    modulus = mpz(n)
    curve = suyama(sigma)
    start = (curve.x, curve.z)
    bad = gmpy2.gcd(curve.under * curve.z, modulus)
    if bad > 1:
        return int(bad) if bad < modulus else None
    point = multiply(curve, multiplier(level.bound), start, modulus, alive)
    common = gmpy2.gcd(point[1], modulus)
    if common == 1:
        common = _stage_two(curve, point, level.width, modulus, alive)
    return int(common) if 1 < common < modulus else None


def _stage_two(curve: Curve, point: Point, width: int, n: mpz, alive: Alive) -> mpz:
    """What N has in common with the product of all x(m D Q) - x(j Q): one prime more, m D + j or m D - j."""
    small = {1: point, 2: double(curve, point, n)}
    small[3] = add(small[2], point, point, n)
    small[5] = add(small[3], small[2], point, n)
    small[6] = double(curve, small[3], n)
    # along 1, 7, 13, ... and 5, 11, 17, ...: Q and -Q are the same here
    multiples = {1: point, 5: small[5]}
    for k in range(7, width // 2 + 1, 2):
        if k % 3:
            multiples[k] = add(multiples[k - 6], small[6], multiples[abs(k - 12)], n)
    alive()
    babies = [multiples[j] for j in coprime_residues(width).tolist() if 2 * j < width]
    giant = multiply(curve, width, point, n)
    giants = [giant, double(curve, giant, n)]
    while len(giants) < len(babies):
        giants.append(add(giants[-1], giant, giants[-2], n))
        if len(giants) % _FEW == 0:
            alive()
    common, affine = _affine([*babies, *giants], n)
    if common > 1:
        return common
    alive()
    values = at_points(n, affine[: len(babies)], affine[len(babies) :], alive)
    return gmpy2.gcd(product_modulo(values, n), n)


def _affine(points: Sequence[Point], n: mpz) -> tuple[mpz, list[mpz]]:
    """The x/z of all points by one inversion; or, if that fails, what N and some z have in common, and nothing."""
    products = [mpz(1)]
    for _, z in points:
        products.append(products[-1] * z % n)
    common = gmpy2.gcd(products[-1], n)
    if common > 1:
        # all of N: take the first z that has something
        if common == n:
            common = next((part for _, z in points if (part := gmpy2.gcd(z, n)) > 1), common)
        return common, []
    inverse = gmpy2.invert(products[-1], n)
    found = []
    for (x, z), before in zip(reversed(points), reversed(products[:-1]), strict=True):
        found.append(x * before % n * inverse % n)
        inverse = inverse * z % n
    found.reverse()
    return common, found
