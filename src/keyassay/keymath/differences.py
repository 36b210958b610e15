"""Products of all differences r - s of two sets of numbers modulo N, by polynomials: what second stages are made of.

The product over r of (x - r) is a polynomial; its values at all s cost little more than some products of polynomials
of that degree. Where the s are powers of one number, a single product does (Bluestein 1970); else the values come down
a tree (Bostan, Lecerf, Schost 2003: multipoint evaluation transposed). N need not be prime: nothing is inverted but
powers of one number and polynomials with constant term 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gmpy2
from gmpy2 import mpz

#: Called between products of polynomials; may raise.
Alive = Callable[[], None]

#: Products of polynomials of low degree between two calls of ``alive``.
_FEW = 64


def along_powers(n: int, roots: Sequence[int], ratio: int, count: int, alive: Alive) -> list[mpz]:
    """For each m < count, the product over all roots r of (h^m - r), up to a unit modulo N.

    With the coefficients f_i and i m = C(i + m, 2) - C(i, 2) - C(m, 2), the value at h^m is up to a unit the sum of
    (f_i h^-C(i, 2)) h^C(i + m, 2).

    Args:
        n: N, odd, above 1.
        roots: r_1, r_2, ..., at least one.
        ratio: h, invertible modulo N.
        count: how many powers of h, from h^0 on.
        alive: called between the products.

    Returns:
        Numbers below N.
    """
    modulus = mpz(n)
    ring = _ring(n)
    # the product of (1 - r x) has the coefficients in the opposite order: just what the convolution wants
    reversed_product = _tree(ring, n, roots, alive)[-1][0]
    degree = len(roots)
    coefficients = [mpz(int(one)) for one in reversed_product.coeffs()]
    coefficients += [mpz(0)] * (degree + 1 - len(coefficients))
    inverse = gmpy2.invert(ratio, modulus)
    scale = _triangular(inverse, degree + 1, modulus)
    alive()
    scaled = [int(one * by % modulus) for one, by in zip(coefficients, reversed(scale), strict=True)]
    powers = [int(one) for one in _triangular(mpz(ratio), degree + count, modulus)]
    alive()
    convolved = ring(scaled) * ring(powers)
    alive()
    return [mpz(int(convolved[degree + m])) for m in range(count)]


def at_points(n: int, roots: Sequence[int], points: Sequence[int], alive: Alive) -> list[mpz]:
    """For each point s, the product over all roots r of (s - r) modulo N.

    Args:
        n: N, above 1.
        roots: at least one.
        points: at least one; as many as roots is the best use.
        alive: called between the products.
    """
    ring = _ring(n)
    # s^degree F(1/s) reversed: the value at s is the coefficient of x^degree in R(x)/(1 - s x), where R is the product
    # of (1 - r x)
    length = len(roots) + 1
    numerator = _tree(ring, n, roots, alive)[-1][0]
    levels = _tree(ring, n, points, alive)
    count = len(points)
    top = numerator.mul_low(levels[-1][0].inverse_series_trunc(max(length, count)), max(length, count))
    alive()
    # coefficients length - count to length - 1, those below 0 being 0
    row = [top.right_shift(length - count) if length >= count else top.truncate(length).left_shift(count - length)]
    row[0] = row[0].truncate(count)
    sizes = [[1] * count]
    while len(sizes[-1]) > 1:
        below = sizes[-1]
        sizes.append([sum(below[i : i + 2]) for i in range(0, len(below), 2)])
    for level, size in zip(levels[-2::-1], sizes[-2::-1], strict=True):
        down = []
        for place, series in enumerate(row):
            left, right = 2 * place, 2 * place + 1
            if right == len(level):
                down.append(series)
                continue
            whole = size[left] + size[right]
            down.append(series.mul_low(level[right], whole).right_shift(size[right]))
            down.append(series.mul_low(level[left], whole).right_shift(size[left]))
            if place % _FEW == 0 or whole > _FEW:
                alive()
        row = down
    return [mpz(int(series[0])) for series in row]


def _ring(n: int) -> Any:
    import flint  # noqa: PLC0415  40 ms that most runs can do without

    return flint.fmpz_mod_poly_ctx(flint.fmpz_mod_ctx(int(n)))


def _tree(ring: Any, n: int, numbers: Sequence[int], alive: Alive) -> list[list[Any]]:
    """Products of (1 - number x), leaves first: each level multiplies neighbours of the one before."""
    modulus = int(n)
    levels = [[ring([1, -int(number) % modulus]) for number in numbers]]
    while len(levels[-1]) > 1:
        below = levels[-1]
        above = []
        for place in range(0, len(below) - 1, 2):
            above.append(below[place] * below[place + 1])
            if place % _FEW == 0 or above[-1].length() > _FEW:
                alive()
        levels.append(above + below[len(below) // 2 * 2 :])
    return levels


def _triangular(base: mpz, count: int, n: mpz) -> list[mpz]:
    """base^C(k, 2) modulo N, for k < count."""
    found, power, running = [], mpz(1), mpz(1)
    for _ in range(count):
        found.append(running)
        running = running * power % n
        power = power * base % n
    return found


def product_modulo(values: Sequence[int], n: int) -> mpz:
    """Product of numbers modulo N."""
    running = mpz(1)
    for value in values:
        running = running * value % n
    return running
