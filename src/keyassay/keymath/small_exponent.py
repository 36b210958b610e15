"""Factors of N where the private exponent d is small beyond continued fractions: lattices; products for d mod p - 1.

The lattice is Boneh and Durfee's (Eurocrypt 1999) in the form of Herrmann and May (PKC 2010): linearized, square and
triangular, so that its determinant, and with it the reach, is known before any work is done. Of its rows those are left
out that could not be short: shifts of low degree, as Bloemer and May did (CaLC 2001).

Notation: e d = 1 + k phi(N), p + q = centre - 2y. With A = (N + 1 - centre)/2, phi = 2 (A + y), so that
1 + x (A + y) = 0 modulo e for x = 2k; a d below 0 makes x negative, a d that fits modulo lcm(p-1, q-1) = phi/2
alone makes it odd. With u = 1 + xy, f = u + Ax is linear in u and x.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import comb, floor, log2
from typing import Any

import gmpy2
from gmpy2 import mpz

#: told how far the work is: (done, total); may raise whatever ends it
Progress = Callable[[int, int], None]

#: primes may differ by this factor: those of equal length do by less than 2
BALANCED = 2

#: e may be longer than N by a twentieth: the lattice's numbers grow with it
_LONGEST = 1.05

#: the prime of the resultants has so many bits more than y
_SPARE_BITS = 64

#: LLL's delta, as usual, and its bound of coefficients: 0.51 takes half as long again, and rows are no shorter here
_DELTA, _ETA = 0.99, 0.6

#: so many of the shortest rows are looked at for the root
_ROWS = 5

#: coefficients of one block of the product are at most this many bits together (D = 2^14 at 2048 bits)
_BLOCK_BITS = 1 << 25


def _nothing(_done: int, _total: int) -> None:
    """Progress that nobody follows."""


@dataclass(frozen=True)
class Lattice:
    """The lattice of one key and one shape: what it reaches, its rows, and what their reduction yields.

    Attributes:
        n: the modulus, odd.
        e: the public exponent.
        m: the rows are multiples of e^m.
        starts: for y, y^2, ..., the least power of f that is shifted by it, up to m: at least 1, and rising.
        ratio: p/q is at most this.
    """

    n: int
    e: int
    m: int
    starts: tuple[int, ...]
    ratio: int = BALANCED

    @cached_property
    def shifts(self) -> list[tuple[int, int, int]]:
        """Exponents (i, j, k) of the rows x^i y^j f^k e^(m-k): x-shifts by i + k, then y-shifts by j.

        With every xy written as u - 1, y^j f^k has monomials of the y-shifts by lower powers of y, from power k - j of
        f on, and of x-shifts of the degrees k - j to k. Those of lower degrees share no column with any other row:
        they would reach N^0.25.
        """
        m = self.m
        along_x = [(i, 0, total - i) for total in range(self.starts[0] - 1, m + 1) for i in range(total, -1, -1)]
        return along_x + [(0, j, k) for j, start in enumerate(self.starts, 1) for k in range(start, m + 1)]

    @cached_property
    def columns(self) -> list[tuple[int, int, int]]:
        """Exponents (a, b, c) of the monomials u^a x^b y^c: row i's last one is the i-th."""
        return [(k, i, j) for i, j, k in self.shifts]

    @cached_property
    def centre(self) -> int:
        """The middle of where p + q can be, of the parity that makes A whole."""
        low, high = self._sums
        middle = (low + high) // 2
        return middle + (self.n + 1 - middle) % 2

    @cached_property
    def _sums(self) -> tuple[int, int]:
        """Bounds of p + q: 2 sqrt(N), and (sqrt(r) + 1/sqrt(r)) sqrt(N) = (r + 1) sqrt(N/r) for the ratio r."""
        ratio = self.ratio
        return 2 * int(gmpy2.isqrt(self.n)), (ratio + 1) * (int(gmpy2.isqrt(self.n // ratio)) + 1)

    @cached_property
    def y_bound(self) -> int:
        """Y: abs(y) is at most this."""
        low, high = self._sums
        return (high - low) // 4 + 2

    @cached_property
    def _x_bits(self) -> float:
        """log2 X at which LLL's rows are, by all experience, just short enough.

        A reduced row is as long as 1.02^dim det^(1/dim), its 1-norm at most sqrt(dim) times that, and has to stay
        below e^m. The diagonal is e^(m-k) U^k X^i Y^j, U = XY. All keys fall at this size, and none a bit or two above:
        then no row is short, and smaller d are missed too.
        """
        log_e, log_y, dimension = log2(self.e), log2(self.y_bound), len(self.shifts)
        spent = sum(k * log_e - (k + j) * log_y for _, j, k in self.shifts)
        spent -= dimension * (dimension * log2(1.02) + log2(dimension) / 2)
        return spent / sum(i + k for i, _, k in self.shifts)

    @cached_property
    def x_bound(self) -> int:
        """X: abs(x) is at most this."""
        whole = max(floor(self._x_bits) - 52, 0)
        return int(2.0 ** (self._x_bits - whole)) << whole

    @property
    def reach(self) -> int:
        """Every abs(d) of so many bits is within the bounds: abs(d) = abs(x) phi/2e. 0 or less: none is."""
        return floor(self._x_bits - 1 + log2(self.n) - log2(self.e))

    def why_not(self) -> str:
        """The reason why the lattice can find nothing, or "". Takes microseconds."""
        n, e = self.n, self.e
        if n < 1 << 255 or not n & 1:
            return "the modulus is even or has fewer than 256 bits"
        if e < 3 or not e & 1:
            return "the exponent is even or below 3"
        e_bits, n_bits = e.bit_length(), n.bit_length()
        if e_bits > n_bits * _LONGEST:
            return "the exponent is longer than the modulus"
        # k d < sqrt(N) is what continued fractions need; that e d is at least phi says less, for such e
        if e_bits < n_bits // 2 or self.reach <= (3 * n_bits - 2 * e_bits) // 4:
            return f"continued fractions reach further for an exponent of {e_bits} bits"
        return ""

    def row(self, shift: tuple[int, int, int]) -> dict[tuple[int, int, int], int]:
        """Coefficients of x^i y^j f^k e^(m-k), by monomials u^a x^b y^c: every xy is u - 1."""
        i, j, k = shift
        a_constant = (self.n + 1 - self.centre) // 2
        found: dict[tuple[int, int, int], int] = {}
        for power in range(k + 1):
            # C(k, power) u^(k - power) (A x)^power x^i y^j
            coefficient = comb(k, power) * a_constant**power * self.e ** (self.m - k)
            pairs = min(i + power, j)
            for ones in range(pairs + 1):
                monomial = (k - power + ones, i + power - pairs, j - pairs)
                term = coefficient * comb(pairs, ones) * (-1) ** (pairs - ones)
                found[monomial] = found.get(monomial, 0) + term
        return found

    @cached_property
    def scales(self) -> list[int]:
        """U^a X^b Y^c by column: the most that the monomials can be."""
        x, y = self.x_bound, self.y_bound
        return [int(mpz(x * y + 1) ** a * mpz(x) ** b * mpz(y) ** c) for a, b, c in self.columns]

    @cached_property
    def basis(self) -> list[list[int]]:
        """The rows, columns scaled: square, and lower triangular."""
        rows = []
        for shift in self.shifts:
            coefficients = self.row(shift)
            rows.append(
                [coefficients.get(column, 0) * scale for column, scale in zip(self.columns, self.scales, strict=True)]
            )
        return rows

    def short_rows(self, progress: Progress = _nothing) -> list[list[int]]:
        """Coefficients by column of combinations that vanish at the root over the integers, shortest first.

        Reduces the x-shifts degree by degree, then one power of y after the other: as fast as all at once, and
        there are places to stop. A row with the 1-norm below e^m is, at the root, a multiple of e^m below e^m.
        """
        import flint  # noqa: PLC0415  40 ms that most runs can do without

        basis, dimension = self.basis, len(self.basis)
        ends = [place for place in range(3, dimension) if self._group(place) != self._group(place - 1)] + [dimension]
        reduced: list[list[Any]] = []
        for end in ends:
            widened = [row + [0] * (end - len(row)) for row in reduced]
            lattice = flint.fmpz_mat(widened + [row[:end] for row in basis[len(reduced) : end]])
            reduced = lattice.lll(False, _DELTA, _ETA).tolist()
            progress(end, dimension)
        modulus = self.e**self.m
        norms = [(sum(abs(int(entry)) for entry in row), row) for row in reduced]
        short = sorted((pair for pair in norms if pair[0] < modulus), key=lambda pair: pair[0])
        return [[int(entry) // scale for entry, scale in zip(row, self.scales, strict=True)] for _, row in short]

    def _group(self, place: int) -> tuple[int, int]:
        i, j, k = self.shifts[place]
        return (j, 0) if j else (0, i + k)

    def factor(self, progress: Progress = _nothing) -> int | None:
        """A factor of N between 1 and N, or None. Takes time as ``short_rows`` does."""
        rows = self.short_rows(progress)[:_ROWS]
        for place in range(1, len(rows)):
            ys = self._common_roots(rows[place - 1], rows[place:])
            if ys is None:
                continue
            for y in ys:
                total = self.centre - 2 * y
                square = total * total - 4 * self.n
                if square >= 0 and gmpy2.is_square(square):
                    factor = (total - int(gmpy2.isqrt(square))) // 2
                    if 1 < factor < self.n and self.n % factor == 0:
                        return factor
            return None
        return None

    def _common_roots(self, first: list[int], others: list[list[int]]) -> list[int] | None:
        """The y of common roots of rows: resultants with ``first`` in x, modulo a prime above 2Y, and their gcd.

        None if ``first`` has a factor in common with each of the others, so that all resultants vanish.
        """
        import flint  # noqa: PLC0415  40 ms that most runs can do without

        prime = int(gmpy2.next_prime(mpz(1) << (self.y_bound.bit_length() + _SPARE_BITS)))
        field: Any = flint.fmpz_mod_poly_ctx(prime)
        common = field([])
        one = self._by_powers_of_x(first, field)
        for other in others:
            common = common.gcd(self._resultant(one, self._by_powers_of_x(other, field), field, prime))
            # a third row tells the root from what two have in common by chance; of sound keys nothing is left
            if 0 <= common.degree() <= 1:
                break
        if common.degree() < 0:
            return None
        found = [int(root) for root, _ in common.roots()] if common.degree() else []
        return [root - prime if root > prime // 2 else root for root in found]

    def _by_powers_of_x(self, row: list[int], field: Any) -> list[Any]:
        """The polynomial in x and y (u written out) as polynomials in y, by powers of x."""
        powers: dict[int, dict[int, int]] = {}
        for (a, b, c), coefficient in zip(self.columns, row, strict=True):
            for pairs in range(a + 1):
                column = powers.setdefault(b + pairs, {})
                column[c + pairs] = column.get(c + pairs, 0) + comb(a, pairs) * coefficient
        found = []
        for power in range(max(powers) + 1):
            column = powers.get(power, {})
            found.append(field([column.get(exponent, 0) for exponent in range(max(column, default=0) + 1)]))
        return found

    @staticmethod
    def _resultant(one: list[Any], other: list[Any], field: Any, prime: int) -> Any:
        """The resultant in x, a polynomial in y, from its values at degree + 1 places, by Newton's interpolation."""
        degrees = [max(part.degree() for part in polynomial) for polynomial in (one, other)]
        places = (len(other) - 1) * degrees[0] + (len(one) - 1) * degrees[1] + 1
        differences = []
        for place in range(places):
            at_x = [field([part(place) for part in polynomial]) for polynomial in (one, other)]
            differences.append(int(at_x[0].resultant(at_x[1])))
        inverses = [0] + [pow(step, -1, prime) for step in range(1, places)]
        for order in range(1, places):
            for place in range(places - 1, order - 1, -1):
                differences[place] = (differences[place] - differences[place - 1]) * inverses[order] % prime
        result = field([])
        for place in range(places - 1, -1, -1):
            result = result * field([-place, 1]) + field([differences[place]])
        return result


def why_no_small_residue(n: int, e: int, bits: int) -> str:
    """The reason why d modulo p - 1 cannot be of that many bits, or "".

    e d = 1 + k (p - 1) with k at least 1 makes d at least p/e. A prime of a quarter of N's bits is allowed for.
    """
    if n < 1 << 255 or not n & 1:
        return "the modulus is even or has fewer than 256 bits"
    if e < 3 or not e & 1:
        return "the exponent is even or below 3"
    if e.bit_length() < n.bit_length() // 4 - bits:
        return f"with an exponent of {e.bit_length()} bits every private one is longer, modulo p - 1 too"
    if e.bit_length() > 2 * n.bit_length():
        return "the exponent is much longer than the modulus"
    return ""


def small_residue_factor(n: int, e: int, bits: int, progress: Progress = _nothing) -> tuple[int, int] | None:
    """A factor p of N if d modulo p - 1 is below 2^bits: a product of all g^(e d) - g, a square root of them at a time.

    Such d are odd, d = 1 + 2 (i + jD). F(z) = product of (h^i z - g) over i < D, where h = g^2e, comes by doubling:
    F_2k(z) = F_k(z) F_k(h^k z). Its values at g^e w^j, w = h^D, come for D many j at a time by one product of
    polynomials, since ij = C(i+j, 2) - C(i, 2) - C(j, 2) (Bluestein).

    Args:
        n: the modulus, odd.
        e: the public exponent.
        bits: how long d may be modulo p - 1, at least 4; the time grows as its square root does.
        progress: told blocks.

    Returns:
        (factor, d modulo p - 1), or None. Takes up to 320 MB, most of it inside the product of polynomials.
    """
    import flint  # noqa: PLC0415  40 ms that most runs can do without

    half = max(min((bits - 2) // 2, (_BLOCK_BITS // n.bit_length()).bit_length() - 1), 1)
    size, blocks = 1 << half, 1 << max(bits - 1 - 2 * half, 0)
    modulus, g = mpz(n), mpz(2)
    ring: Any = flint.fmpz_mod_poly_ctx(n)
    start = gmpy2.powmod(g, e, modulus)
    h = start * start % modulus
    progress(0, blocks)
    polynomial, turn = ring([-2, 1]), h
    for _ in range(half):
        polynomial *= ring(_scaled([int(c) for c in polynomial.coeffs()], mpz(1), turn, modulus))
        turn = turn * turn % modulus
    w = turn  # h^D
    inverse = gmpy2.invert(w, modulus)
    progress(0, blocks)
    # w^C(k, 2), and f_i (g^e)^i w^-C(i, 2) from the highest to the lowest
    squares = ring(_triangular(2 * size, w, modulus))
    weights = _triangular(size + 1, inverse, modulus)
    scaled = _scaled([int(c) for c in polynomial.coeffs()], mpz(1), start, modulus)
    block_turn = gmpy2.powmod(w, size, modulus)
    for block in range(blocks):
        factors = [int(c * weight % modulus) for c, weight in zip(scaled, weights, strict=True)]
        product = ring(factors[::-1]).mul_low(squares, 2 * size)
        values = product.right_shift(size).coeffs()
        found = _split(n, e, values, block * size, size)
        if found is not None:
            return found
        scaled = _scaled(scaled, mpz(1), block_turn, modulus)
        progress(block + 1, blocks)
    return None


def _scaled(coefficients: list[int], first: mpz, ratio: mpz, modulus: mpz) -> list[int]:
    """Coefficients of f(ratio z), times ``first``."""
    found, power = [], first
    for coefficient in coefficients:
        found.append(int(coefficient * power % modulus))
        power = power * ratio % modulus
    return found


def _triangular(count: int, base: mpz, modulus: mpz) -> list[int]:
    """Powers of the base with the exponents C(i, 2)."""
    found, power, step = [], mpz(1), mpz(1)
    for _ in range(count):
        found.append(int(power))
        power, step = power * step % modulus, step * base % modulus
    return found


def _split(n: int, e: int, values: list[Any], first: int, size: int) -> tuple[int, int] | None:
    """The factor among values of F at places from ``first`` on, and the exponent that belongs to it."""
    modulus, together = mpz(n), mpz(1)
    numbers = [mpz(int(value)) for value in values]
    for number in numbers:
        together = together * number % modulus
    if gmpy2.gcd(together, modulus) == 1:
        return None
    for place, number in enumerate(numbers, first):
        if gmpy2.gcd(number, modulus) == 1:
            continue
        # both primes may have fallen at one place: then they part here, or d is the same modulo both
        d = 1 + 2 * place * size
        power = gmpy2.powmod(2, e * d, modulus)
        step = gmpy2.powmod(2, 2 * e, modulus)
        for _ in range(size):
            factor = gmpy2.gcd(power - 2, modulus)
            if 1 < factor < modulus:
                return int(factor), d
            power, d = power * step % modulus, d + 2
    return None
