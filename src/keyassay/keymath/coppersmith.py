"""Factors of N of which a part is known: D. Coppersmith's method for one unknown and an unknown divisor.

p = a + b x with a and b known and x small: every polynomial N^(m-i) (x + a/b)^i x^j is a multiple of p^m at the right
x. A short combination of them, found by lattice reduction, is smaller than p^m there, hence zero: x is a root over the
integers (N. Howgrave-Graham, "Finding small roots of univariate modular equations revisited", 1997).
"""

from __future__ import annotations

from math import comb

import gmpy2
from gmpy2 import mpz

#: (m, t): powers of N, and multiples of the highest power of p; the dimension is m + t.
Shape = tuple[int, int]

#: 1 ms at 2048 bits for a fifth of the bits of N; guessing bits is cheaper than larger lattices.
SMALL: Shape = (2, 3)

#: Primes modulo which roots are looked for before they are lifted.
_PRIMES = (1_048_573, 1_048_571, 1_048_559, 1_048_549)


def reach(bits: int, shape: Shape = SMALL) -> int:
    """How many bits of x may be unknown (abs(x) < 2^reach) for a factor of half the bits of N.

    n (d m/2 - m (m + 1)/2) / (d (d - 1)/2) with d = m + t: 0.2 n for (2, 3), n/4 in the limit; less a bit for what the
    lattice's vectors are longer than its determinant says.
    """
    m, t = shape
    d = m + t
    return bits * m * (d - m - 1) // (d * (d - 1)) - 1


def factor_of_form(n: int, offset: int, step: int, bits: int, shape: Shape = SMALL) -> int | None:
    """A factor p = offset + step x of N with abs(x) < 2^bits, p at least the square root of N or a few bits below it.

    ``step`` 1: all bits but the lowest are known; 2^l: the lowest l are.

    Args:
        n: odd, positive.
        offset: a.
        step: b, 1 or more.
        bits: of x; within ``reach`` every such factor is found, up to a bit or two beyond it most are.
        shape: of the lattice.

    Returns:
        A factor between 1 and N, or None.
    """
    modulus = mpz(n)
    common = gmpy2.gcd(step, modulus)
    if common != 1:
        return int(common) if common < modulus else None
    constant = int(offset if step == 1 else offset * gmpy2.invert(step, modulus) % modulus)
    polynomial = _short_polynomial(int(n), constant, bits, shape)
    for root in _integer_roots(polynomial, bits + 2):
        factor = gmpy2.gcd(offset + step * root, modulus)
        if 1 < factor < modulus:
            return int(factor)
    return None


def factor_near(n: int, start: int, bits: int, shape: Shape = SMALL) -> int | None:
    """A factor p of N with start <= p < start + 2^bits: the leading bits of p are known.

    Arguments and result as in ``factor_of_form``; ``bits`` may be one more than ``reach``, since x is taken from the
    middle.
    """
    middle = 1 << bits >> 1
    return factor_of_form(n, start + middle, 1, max(bits - 1, 1), shape)


def factor_ending(n: int, low: int, known: int, bits: int, shape: Shape = SMALL) -> int | None:
    """A factor p = low modulo 2^known of N with ``known + bits`` bits at most: the trailing bits of p are known."""
    middle = 1 << bits >> 1
    return factor_of_form(n, low + (middle << known), 1 << known, max(bits - 1, 1), shape)


def _short_polynomial(n: int, constant: int, bits: int, shape: Shape) -> list[int]:
    """Coefficients, lowest first, of a combination that is small for abs(x) < 2^bits."""
    import flint  # noqa: PLC0415  40 ms that most runs of fast can do without

    m, t = shape
    size = m + t
    entries: list[int] = []
    power_of_n = [1]
    for _ in range(m):
        power_of_n.append(power_of_n[-1] * n)
    for row in range(size):
        power, shift = min(row, m), max(row - m, 0)
        outer, modulus = power_of_n[m - power], power_of_n[power]
        entries.extend([0] * shift)
        entries.extend(
            (comb(power, i) * constant ** (power - i) % modulus if i < power else 1) * outer << (bits * (shift + i))
            for i in range(power + 1)
        )
        entries.extend([0] * (size - shift - power - 1))
    reduced = flint.fmpz_mat(size, size, entries).lll()
    return [int(reduced[0, column]) >> (bits * column) for column in range(size)]


def _integer_roots(coefficients: list[int], bits: int) -> list[int]:
    """Numbers below 2^bits in absolute value among which are all integer roots r with abs(r) < 2^(bits - 1)."""
    import flint  # noqa: PLC0415  40 ms that most runs of fast can do without

    while coefficients and not coefficients[-1]:
        coefficients = coefficients[:-1]
    if len(coefficients) < 2:
        return []
    for prime in _PRIMES:
        starts = flint.nmod_poly([c % prime for c in coefficients], prime).roots()
        if coefficients[-1] % prime and all(times == 1 for _, times in starts):
            return [_lifted(coefficients, int(start), prime, bits) for start, _ in starts]
    # Where far less is unknown than could be, the shortest polynomial has the root several times.
    polynomial = flint.fmpz_poly(coefficients)
    repeated = polynomial.gcd(polynomial.derivative())
    if repeated.degree() < 1:
        return []
    return _integer_roots([int(c) for c in (polynomial // repeated).coeffs()], bits)


def _lifted(coefficients: list[int], start: int, prime: int, bits: int) -> int:
    """The root modulo a power of the prime above 2^bits that a simple root modulo the prime belongs to (Hensel)."""
    slopes = [i * c for i, c in enumerate(coefficients)][1:]
    root, modulus = mpz(start), mpz(prime)
    inverse = gmpy2.invert(_value(slopes, root, modulus), modulus)
    while modulus.bit_length() <= bits:
        modulus *= modulus
        root = (root - _value(coefficients, root, modulus) * inverse) % modulus
        inverse = inverse * (2 - _value(slopes, root, modulus) * inverse) % modulus
    return int(root - modulus if 2 * root > modulus else root)


def _value(coefficients: list[int], x: mpz, modulus: mpz) -> mpz:
    value = mpz(0)
    for coefficient in reversed(coefficients):
        value = (value * x + coefficient) % modulus
    return value
