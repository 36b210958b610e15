"""Factors of N = pq whose primes carry a pattern: short vectors of three-dimensional lattices, and polynomials.

Nothing about the pattern has to be guessed where it is short enough; every answer is a factor that divides N.
"""

from __future__ import annotations

from functools import cache

import gmpy2

#: Bits by which a shortest vector must be shorter than expected. Uniform keys: 2^-15 at 5 bits.
_CANDIDATE = 5
_CERTAIN = 12

#: A search for primes leaves a tail of about this many bits behind the pattern.
_TAIL = 11


def pattern_factor(n: int, multiplier: int = 1, *, balance: int = 32, quadratic: bool = True) -> int | None:
    """A factor of N if one prime p has d p = a w + c with small a, c, d, where w = 2^(half the bits of N).

    Words of k bits repeated through p (d = 2^k - 1), words swapped in pairs, runs of zeros or ones below the top
    (d = 1, 2, ...), primes near a fraction of w. With N = u w + v, eliminating the other prime gives
    (cd) u - (ad) v = c g modulo w: a short vector of the lattice (2^s, 0, u), (0, 2^(s+11), v), (0, 0, w).
    Without knowing d, words of up to (bits of N)/12 - 16 bits are found (70 at 1024 bits, 150 at 2048).

    Args:
        n: odd, positive.
        multiplier: d if it is known: reaches patterns with d up to (bits of N)/8 - 18 bits.
        balance: s; the larger, the larger c may be in proportion to a.
        quadratic: where the vector is far too short for chance but gives no factor, both primes carry the
            pattern: try the second lattice.

    Returns:
        A factor between 1 and N, or None.
    """
    half = (n.bit_length() + 1) // 2
    if half < 64:
        return None
    w = 1 << half
    u, v = n >> half, n & (w - 1)
    if multiplier != 1:
        u, v = u * multiplier & (w - 1), v * multiplier & (w - 1)
    scale_x, scale_y = balance, balance + _TAIL
    import flint  # noqa: PLC0415  40 ms that most runs of fast can do without

    lattice = flint.fmpz_mat(3, 3, [1 << scale_x, 0, u, 0, 1 << scale_y, v, 0, 0, w])
    reduced = lattice.lll(False, 0.75)
    rows = [[int(reduced[i, j]) for j in range(3)] for i in range(2)]
    expected = (half + scale_x + scale_y) / 3
    shortest = min(max(abs(entry) for entry in row).bit_length() for row in rows)
    if shortest > expected - _CANDIDATE:
        return None
    (x1, y1), (x2, y2) = ((row[0] >> scale_x, row[1] >> scale_y) for row in rows)
    modulus = gmpy2.mpz(n)
    for i in range(9):
        for j in range(-8, 9):
            if i or j > 0:
                x, y = i * x1 + j * x2, i * y1 + j * y2
                factor = gmpy2.gcd(modulus, x - y * w)
                if 1 < factor < modulus:
                    return int(factor)
    if quadratic and shortest <= expected - _CERTAIN:
        return _quadratic_factor(n, w)
    return None


def _quadratic_factor(n: int, w: int) -> int | None:
    """A factor if both primes are near fractions of w: N times a small number is a small quadratic form in w."""
    import flint  # noqa: PLC0415  40 ms that most runs of fast can do without

    lattice = flint.fmpz_mat(3, 3, [1, 0, -w * w % n, 0, 1, -w % n, 0, 0, n])
    reduced = lattice.lll(False, 0.99)
    for i in range(3):
        x, y, z = (int(reduced[i, j]) for j in range(3))
        square = y * y - 4 * x * z
        if x == 0 or square < 0 or not gmpy2.is_square(square):
            continue
        root = gmpy2.isqrt(square)
        for sign in (root, -root):
            factor = gmpy2.gcd(n, 2 * x * w + y + sign)
            if 1 < factor < n:
                return int(factor)
    return None


@cache
def multipliers(bits: int) -> tuple[int, ...]:
    """Denominators d of common patterns in primes of N of ``bits`` bits, for ``pattern_factor``, smallest first.

    Words of 2^i and 2^i - 1 bits, and words of b bits swapped in pairs (pattern of k bits, k odd):
    d = (2^k - 1)(2^(kb) + 1)/(2^b + 1); as long as d stays within the lattice's reach.
    """
    reach = bits // 8 - 18
    found = {(1 << k) - 1 for i in range(3, 11) for k in (1 << i, (1 << i) - 1)}
    for b in (8, 16, 32, 64):
        for k in range(3, 64, 2):
            if k * b - b + k > reach:
                break
            found.add(((1 << k) - 1) * ((1 << (k * b)) + 1) // ((1 << b) + 1))
    return tuple(sorted(d for d in found if d.bit_length() <= reach))


def polynomial_factor(n: int, width: int) -> int | None:
    """A factor of N = P(B) Q(B), B = 2^width, where P and Q have coefficients well below the root of B.

    N in balanced digits to base B is then the product of the two polynomials, and factoring over the integers is
    quick. The product's highest bit, forced by key generators, overflows a digit unless it is shifted to a border of
    digits: 4^t N is tried too, t the shift.

    Args:
        n: odd, positive.
        width: length of a digit in bits, at least 8. Numbers of more than 160 digits are left alone: the time to
            factor a hostile polynomial has no other bound.

    Returns:
        A factor between 1 and N, or None.
    """
    half = (n.bit_length() + 1) // 2
    if width < 8 or n.bit_length() > 160 * width:
        return None
    import flint  # noqa: PLC0415  40 ms that most runs of fast can do without

    for shift in sorted({0, -(half - 1) % width}):
        polynomial = flint.fmpz_poly(_balanced_digits(n << (2 * shift), width))
        if polynomial.degree() < 2:
            continue
        _, factors = polynomial.factor()
        if len(factors) < 2 and all(power == 1 for _, power in factors):
            continue
        for part, _ in factors:
            value = abs(int(part(1 << width)))
            factor = int(gmpy2.gcd(n, value))
            if 1 < factor < n:
                return factor
    return None


def _balanced_digits(n: int, width: int) -> list[int]:
    """Digits of n to base 2^width in -2^(width-1)..2^(width-1)-1, lowest first."""
    digits = []
    half, base = 1 << (width - 1), 1 << width
    while n:
        digit = n & (base - 1)
        if digit >= half:
            digit -= base
        digits.append(digit)
        n = (n - digit) >> width
    return digits
