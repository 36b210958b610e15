"""Factors p of N whose neighbour p - 1 or p + 1 is a product of small primes: Pollard's and Williams's methods.

Both raise something to a large exponent E modulo N, and p shows in a greatest common divisor if p - 1 (p + 1) divides
E. A second stage forgives one larger prime. Sources: Pollard 1974; Williams 1982; Montgomery and Silverman 1990.

What takes time reports after each piece of work, by a function ``reached(done, total, unit)`` that may raise to end it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import gmpy2
import numpy as np
from gmpy2 import mpz
from numpy.typing import NDArray

from keyassay.keymath.differences import Alive, along_powers, at_points, product_modulo
from keyassay.keymath.factoring import primes_below, product

#: (done, total, unit), called at least once a second at the sizes of keys
Reached = Callable[[int, int, str], None]

#: The unit of reports in stage 1: "10,007 of 65,536 as the bound of stage 1".
BOUND = "as the bound of stage 1"

#: Bits of exponent between two reports: 15 ms at 2048 bits, half a second at 16,384.
_PIECE = 1 << 13
#: (primes below, powers up to): smooth numbers have squares of primes that are not tiny, and stage 2 forgives but one
_POWERS = ((1 << 10, 1 << 64), (1 << 16, 1 << 34))
#: Exponents up to here are kept: 200 KB.
_KEPT = 1 << 20


def prime_power(r: int) -> int:
    """The power of a prime r that goes into the exponent."""
    for below, limit in _POWERS:
        if r < below:
            power = r
            while power * r <= limit:
                power *= r
            return power
    return r


def _pieces(start: int, bound: int) -> Iterator[tuple[int, mpz]]:
    """The exponent of the primes from ``start`` to below ``bound`` in pieces: (primes below this are in, piece)."""
    rising = primes_below(bound)
    rising = rising[np.searchsorted(rising, start) :]
    powers: list[mpz] = []
    bits = 0
    for r in rising.tolist():
        power = mpz(prime_power(r))
        powers.append(power)
        bits += power.bit_length()
        if bits >= _PIECE:
            yield r + 1, product(powers)
            powers, bits = [], 0
    if powers:
        yield bound, product(powers)


@lru_cache(maxsize=4)
def _kept_pieces(start: int, bound: int) -> tuple[tuple[int, mpz], ...]:
    return tuple(_pieces(start, bound))


def exponent_pieces(start: int, bound: int) -> Iterator[tuple[int, mpz]]:
    """As ``_pieces``, from memory if they are not too many."""
    return iter(_kept_pieces(start, bound)) if bound <= _KEPT else _pieces(start, bound)


def _proper(factor: mpz, n: mpz) -> int | None:
    return int(factor) if 1 < factor < n else None


class PowerSearch:
    """Pollard's p - 1 method on one N: a power that goes on from bound to bound.

    3^(N - 1) is where it begins: that takes what p - 1 and q - 1 have in common into the exponent, however large it is.
    """

    def __init__(self, n: int) -> None:
        """N: odd, above 3."""
        self.n = mpz(n)
        #: 3^E
        self.power = mpz(3)
        #: primes below this are in E; 0 before N - 1 is
        self.bound = 0
        self._exhausted = False

    def stage_one(self, bound: int, reached: Reached) -> int | None:
        """A factor p such that (p - 1)/gcd(p - 1, N - 1) divides the exponent of primes below the bound; or None."""
        n = self.n
        if self._exhausted:
            return None
        if not self.bound:
            if n % 3 == 0:
                return 3
            self.power = gmpy2.powmod(self.power, n - 1, n)
            self.bound = 2
            common = gmpy2.gcd(self.power - 1, n)
            if common > 1:
                return self._answer(common, (), reached)
        for below, piece in exponent_pieces(self.bound, bound):
            self.power = gmpy2.powmod(self.power, piece, n)
            self.bound = below
            common = gmpy2.gcd(self.power - 1, n)
            if common > 1:
                return self._answer(common, (), reached)
            reached(below, bound, BOUND)
        return None

    def stage_two(self, width: int, reached: Reached) -> int | None:
        """A factor p such that one more prime is in p - 1, below about ``width`` times its totient; or None.

        Args:
            width: D, a product of small primes. The primes r = m D - j, with j below D and coprime to it, are covered
                together by one product of all a^(mD) - a^j.
            reached: for reports.
        """
        n = self.n
        if self._exhausted or self.power < 2:
            return None
        common = gmpy2.gcd(self.power, n)
        if common > 1:
            return _proper(common, n)
        residues = coprime_residues(width)
        steps = int(np.max(np.diff(residues, append=width + 1)))
        gaps = [mpz(1)]
        for _ in range(steps):
            gaps.append(gaps[-1] * self.power % n)
        roots, running, at = [], mpz(1), 0
        for j in residues.tolist():
            running = running * gaps[j - at] % n
            at = j
            roots.append(running)
        ratio = gmpy2.powmod(self.power, width, n)
        values = along_powers(n, roots, ratio, len(roots) + 1, lambda: reached(1, 2, "stages"))
        common = gmpy2.gcd(product_modulo(values, n), n)
        if common < n:
            return _proper(common, n)
        # both p and q, each by a prime of its own: one value at a time, then one difference at a time
        for m, value in enumerate(values):
            reached(1, 2, "stages")
            common = gmpy2.gcd(value, n)
            if 1 < common < n:
                return int(common)
            if common == n:
                point = gmpy2.powmod(ratio, m, n)
                for j, root in zip(residues.tolist(), roots, strict=True):
                    common = gmpy2.gcd(point - root, n)
                    if 1 < common < n:
                        return int(common)
                    if common == n and m * width > j:
                        return self._answer(common, (mpz(m * width - j),), reached)
        return None

    def _answer(self, common: mpz, more: tuple[mpz, ...], reached: Reached) -> int | None:
        """The factor, or where all of N fell at once, one by random powers as in the test of Miller and Rabin.

        E is a multiple of the orders of 3; nearly always of those of all x. Of E = 2^s t the odd part is taken first;
        the squarings after it lead to 1 modulo one factor before the other with chance 1/2 at least.
        """
        n = self.n
        if common < n:
            return int(common)
        self._exhausted = True
        for x in (5, 7, 11, 13):
            power = mpz(x)
            twos = 0
            exponents = (piece for _, piece in exponent_pieces(2, self.bound)) if self.bound > 2 else iter(())
            for part in (n - 1, *more, *exponents):
                low = gmpy2.bit_scan1(part) or 0
                twos += low
                power = gmpy2.powmod(power, part >> low, n)
                reached(self.bound, self.bound, BOUND)
            for _ in range(twos + 1):
                common = gmpy2.gcd(power - 1, n)
                if common > 1:
                    break
                power = power * power % n
            if 1 < common < n:
                return int(common)
        return None


def coprime_residues(width: int) -> NDArray[np.int64]:
    """The numbers below ``width`` that are coprime to it, rising."""
    numbers = np.arange(width, dtype=np.int64)
    chosen: NDArray[np.int64] = numbers[np.gcd(numbers, width) == 1]
    return chosen


def lucas(v: mpz, k: mpz, n: mpz) -> mpz:
    """V_k(v, 1) modulo n, for k > 0: a^k + a^-k where a + 1/a = v."""
    x, y = v, (v * v - 2) % n
    for bit in bin(k)[3:]:
        if bit == "1":
            x, y = (x * y - v) % n, (y * y - 2) % n
        else:
            x, y = (x * x - 2) % n, (x * y - v) % n
    return x


#: Williams's seeds: V_1 = 2/7 is good for p + 1 if p = 2 modulo 3, 6/5 if p = 3 modulo 4, and else for p - 1.
SEEDS = ((2, 7), (6, 5))


def p_plus_1(n: int, seed: tuple[int, int], bound: int, width: int, reached: Reached) -> int | None:
    """A factor p such that p + 1 (or p - 1, as the seed falls) is smooth but for one larger prime (Williams 1982).

    Args:
        n: odd, above 3.
        seed: numerator and denominator of V_1.
        bound: of the primes of stage 1.
        width: D of stage 2, a product of 2, 3 and others, below twice the bound; reaches primes up to D times half its
            totient.
        reached: for reports.

    Returns:
        A proper factor, or None.
    """
    modulus = mpz(n)
    numerator, denominator = seed
    common = gmpy2.gcd(modulus, denominator)
    if common > 1:
        return _proper(common, modulus)
    v = numerator * gmpy2.invert(denominator, modulus) % modulus
    for below, piece in exponent_pieces(2, bound):
        v = lucas(v, piece, modulus)
        common = gmpy2.gcd(v - 2, modulus)
        if common == modulus:
            return _split_lucas(modulus, below, reached)
        if common > 1:
            return int(common)
        reached(below, bound, BOUND)
    return _lucas_stage_two(modulus, v, width, lambda: reached(1, 2, "stages"))


def _split_lucas(n: mpz, bound: int, reached: Reached) -> int | None:
    """A factor where p and q fell in the same piece: other seeds, the odd part of the exponent first, then doubling."""
    for seed in (5, 7, 9, 11, 13, 17, 19, 23):
        v, twos, common = mpz(seed) % n, 0, n
        for _, piece in exponent_pieces(2, bound):
            low = gmpy2.bit_scan1(piece) or 0
            twos += low
            v = lucas(v, piece >> low, n)
            reached(bound, bound, BOUND)
        for _ in range(twos + 1):
            common = gmpy2.gcd(v - 2, n)
            if common > 1:
                break
            v = (v * v - 2) % n
        if 1 < common < n:
            return int(common)
    return None


def _lucas_stage_two(n: mpz, v: mpz, width: int, alive: Alive) -> int | None:
    """One prime more: V_(mD) = V_j modulo p if it is mD + j or mD - j."""
    residues = [j for j in coprime_residues(width).tolist() if 2 * j < width]
    # V_(k + 6) = V_k V_6 - V_(k - 6), along 1, 7, 13, ... and 5, 11, 17, ..., and V_-k = V_k
    one, five, six = (lucas(v, mpz(k), n) for k in (1, 5, 6))
    multiples = {1: one, 5: five}
    for k in range(7, width // 2 + 1, 2):
        if k % 3:
            multiples[k] = (multiples[k - 6] * six - multiples[abs(k - 12)]) % n
    roots = [multiples[j] for j in residues]
    alive()
    giant = lucas(v, mpz(width), n)
    points, last = [giant], mpz(2)
    while len(points) < len(roots):
        last, now = points[-1], (points[-1] * giant - last) % n
        points.append(now)
    alive()
    values = at_points(n, roots, points, alive)
    common = gmpy2.gcd(product_modulo(values, n), n)
    if common == n:
        common = next((part for value in values if 1 < (part := gmpy2.gcd(value, n)) < n), n)
    return _proper(common, n)
