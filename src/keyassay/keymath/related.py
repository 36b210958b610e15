"""Related primes of one key at a time, beyond what the screens of ``factoring`` look at: many ratios and distances."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import gmpy2
import numpy as np
from gmpy2 import mpz

from keyassay.keymath.factoring import SIEVE_MODULI

#: (done, total, unit); may raise
Reached = Callable[[int, int, str], None]


def near_any_ratio(n: int, limit: int, reached: Reached, start: int = 1) -> tuple[int, int, int] | None:
    """A factor of N if p/q is near a/b, for all coprime b < a up to a limit, primes of any length.

    s = aq + bp satisfies s^2 - 4abN = (aq - bp)^2, and is odd if ab is even, else s = ab + N modulo 4 (Lehman 1974).
    The first such s above 2 sqrt(abN) is tried: it is the right one if abs(aq - bp) < 2.8 (abN)^(1/4), and for odd ab
    if it is below 4 (abN)^(1/4). The screen of all fractions at once reaches 2^-13 of that.

    Args:
        n: odd, above 1.
        limit: of a.
        reached: called after each a with (a, limit, unit).
        start: the first a.

    Returns:
        (factor, a, b), or None.
    """
    modulus = mpz(n)
    four = 4 * modulus
    low = int(modulus & 3)
    for a in range(max(start, 2), limit + 1):
        part = four * a
        for b in range(1, a):
            if gmpy2.gcd(a, b) != 1:
                continue
            d = part * b
            s = gmpy2.isqrt(d) + 1
            if a * b & 1:
                s += (a * b + low - int(s & 3)) & 3
            elif not s & 1:
                s += 1
            rest = s * s - d
            if gmpy2.is_square(rest):
                factor = gmpy2.gcd(s + gmpy2.isqrt(rest), modulus)
                if 1 < factor < modulus:
                    return int(factor), a, b
        reached(a, limit, "as the numerator")
    return None


#: Places behind each distance: longer gaps of primes are rare.
_GAP = 4_096


def any_power_distance(n: int, exponents: Iterable[int], reached: Reached) -> tuple[int, int] | None:
    """A factor of N if p - q = 2^k + 2t with 0 <= t < 4,096, for one of many k: N + ((p - q)/2)^2 is a square.

    For each of 15 small moduli the rows of bits "N + (2^(k - 1) + t)^2 can be a square" are made for all residues of
    2^(k - 1), and gathered by k: half a megabyte for 1,000 k, 10 ms.

    Args:
        n: odd, above 1.
        exponents: the k, each at least 1.
        reached: called with (k tried, all k, unit); a number made for it passes the sieve everywhere.

    Returns:
        (factor, k), or None.
    """
    chosen = list(exponents)
    if not chosen:
        return None
    passed = np.full((len(chosen), _GAP // 8), 255, dtype=np.uint8)
    for m in SIEVE_MODULI:
        squares = np.zeros(m, dtype=bool)
        squares[np.arange(m) ** 2 % m] = True
        places = np.arange(m)[:, None] + np.arange(_GAP)
        rows = np.packbits(squares[(int(n % m) + places * places) % m], axis=1)
        passed &= rows[[pow(2, k - 1, m) for k in chosen]]
    modulus = mpz(n)
    before = -1
    for row, byte in zip(*(place.tolist() for place in np.nonzero(passed)), strict=True):
        if row != before:
            reached(before := row, len(chosen), "distances")
        bits = np.unpackbits(passed[row, byte])
        for t in (8 * byte + np.flatnonzero(bits)).tolist():
            d = (mpz(1) << (chosen[row] - 1)) + t
            total = modulus + d * d
            if gmpy2.is_square(total):
                factor = gmpy2.isqrt(total) - d
                if 1 < factor < modulus:
                    return int(factor), chosen[row]
    reached(len(chosen), len(chosen), "distances")
    return None
