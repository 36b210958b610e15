"""Curves on which logarithms are easy: singular, anomalous, of small order or small embedding degree.

Whoever spells a curve out in a key chooses it; these are the choices that give private keys away. Curves here are over
prime fields, points affine pairs; every answer has to be confirmed by multiplication.
"""

from __future__ import annotations

from dataclasses import replace

import gmpy2

from keyassay.keymath.curves import Curve, add, equation, multiples, multiply

#: Embedding degrees that are looked at; the field with which a pairing links the curve has so many times its bits.
MOST_DEGREE = 100


def cusp_logarithm(curve: Curve, base: tuple[int, int], point: tuple[int, int]) -> int | None:
    """D modulo p with d base = point on y^2 = x^3, where (x, y) -> x/y leads to addition modulo p.

    Returns:
        d, or None where a coordinate is 0.
    """
    p = curve.p
    if 0 in (base[0] % p, base[1] % p, point[1] % p):
        return None
    one, other = (x * gmpy2.invert(y, p) % p for x, y in (base, point))
    return int(other * gmpy2.invert(one, p) % p)


def anomalous_logarithm(curve: Curve, base: tuple[int, int], point: tuple[int, int]) -> int | None:
    """D with d base = point on a curve of p points over GF(p), by lifting to numbers modulo p^2 (Smart 1999).

    Returns:
        d, or None if three lifts in a row say nothing.
    """
    p = curve.p
    for turn in range(1, 4):
        lifted = replace(curve, p=p * p, a=curve.a + p * turn, b=curve.b + p * turn * turn)
        images = [_formal_logarithm(lifted, p, one) for one in (base, point)]
        if images[0] and images[1] is not None:
            return int(images[1] * gmpy2.invert(images[0], p) % p)
    return None


def _formal_logarithm(lifted: Curve, p: int, point: tuple[int, int]) -> int | None:
    x, y = point
    if y % p == 0:
        return None
    left, right = equation(lifted, x, y)
    root = (y + (right - left) * gmpy2.invert(2 * y, lifted.p)) % lifted.p  # Hensel: the same point modulo p
    other = multiply(lifted, p - 1, (x, root))
    if other is None or (other[0] - x) % p or (other[1] - root) % p == 0:
        return None
    return int((other[0] - x) // p * gmpy2.invert(other[1] - root, p) % p)


def small_order_logarithm(curve: Curve, base: tuple[int, int], point: tuple[int, int]) -> int | None:
    """D with d base = point by baby steps and giant steps (Shanks): 2 us times the root of twice the order."""
    order = int(curve.order)
    count = max(int(gmpy2.isqrt(order // 2)), 1)
    width = 2 * count + 1
    places: dict[int, int] = {}
    for index, one in enumerate(multiples(curve, base, min(count, max((order - 1) // 2, 1))), start=1):
        places.setdefault(int(one[0]), index)
    stride = multiply(curve, -width, base)
    rest: tuple[int, int] | None = point
    for turn in range(order // width + 2):
        if rest is None:
            return turn * width % order
        index = places.get(int(rest[0]), 0)
        if index:
            for d in (turn * width + index, turn * width - index):
                if multiply(curve, d % order, base) == point:
                    return d % order
        rest = add(curve, rest, stride)
    return None


def embedding_degree(p: int, order: int) -> int | None:
    """The least k up to ``MOST_DEGREE`` with order dividing p^k - 1: pairings lead to GF(p^k) (Menezes and others)."""
    power = 1
    for k in range(1, MOST_DEGREE + 1):
        power = power * p % order
        if power == 1:
            return k
    return None
