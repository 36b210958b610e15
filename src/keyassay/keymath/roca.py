"""Factors of moduli made by RSALib (ROCA): divisors in residue classes, a lattice of dimension two per class.

Nemec and others (2017) take p = k M' + (65537^a mod M') for every a and look for k by Coppersmith's method, M' a
divisor of the primorial with few powers of 65537. Where M' exceeds the cube root of N (up to a few bits), Lenstra's
older method does (Divisors in residue classes, 1984): with p = u and q = v modulo M', uv = N modulo M'^2, and (x, y)
short with xu = yv modulo M',

    x p + y q = x u + y v  modulo M'^2,

because p = u + k M' and q = v + l M' give kv + lu = 0 modulo M', and (x, y) is a multiple of (v, u). The left side is
so small that it is one of few numbers, each of which gives p by a quadratic equation. M' has to be longer than for
Coppersmith's method (173 bits instead of 160 at 512), which makes 17 times as many classes, but a class costs a
thousandth.

The lattices {(x, y): xu = yv modulo M'} are not reduced one by one. M' = M0 R: a *root* is a class modulo M0, its
lattice is reduced once; the classes modulo M' above it (*leaves*) have sublattices of index R of it, which take a few
steps of Gauss's reduction in coordinates small enough for floating point, thousands of leaves at a time. What passes
the floating-point test (all that is right does) is decided in integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import gmpy2
import numpy as np
from numpy.typing import NDArray

from keyassay.keymath import residues

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: measured seconds: a root, a leaf, a point of the curve that is looked at (docs/performance.md)
_ROOT = 30e-6
_LEAF = 0.6e-6
_POINT = 0.1e-6
#: R stays below this: its square has to fit 63 bits
_LARGEST_INDEX = 1 << 31
#: leaves that are examined at once: their columns fit a core's cache
_BLOCK = 8192
#: steps of Gauss's reduction. A basis that would need more is still a basis, only with more lines to look at.
_STEPS = 9
_ROUNDS = 8
#: how far from an integer a coordinate may be; the error is below 2^-30 where the lattice is balanced
_TOLERANCE = 2.0**-12
#: discriminants below this, relative to the other terms, may be zero
_TANGENT = 2.0**-20
#: square of the ratio of two basis vectors above which rounding may exceed the tolerance
_LOPSIDED = 2.0**12
#: bits by which a root's short vector may be shorter than usual before floating point gets too coarse
_DEGENERATE_BITS = 20
#: lines per leaf, in proportion to what is usual, above which a leaf is left to integers
_MANY = 1000


@dataclass(frozen=True)
class Plan:
    """How the classes are divided: roots are classes modulo ``root_modulus``, leaves modulo ``modulus``.

    ``order`` and ``root_order`` are the orders of 65537 modulo them, ``primes`` those of the index R.
    """

    bits: int
    modulus: int
    order: int
    root_modulus: int
    root_order: int
    primes: tuple[int, ...]

    @property
    def index(self) -> int:
        """R, the quotient of the moduli."""
        return self.modulus // self.root_modulus

    @property
    def leaves_per_root(self) -> int:
        """Classes modulo the larger modulus above one of the smaller."""
        return self.order // self.root_order

    @property
    def roots(self) -> int:
        """Roots to be examined at most: half of all, since p or q lies there."""
        return self.root_order // 2 + 1

    @property
    def points(self) -> float:
        """Points of the curve to be looked at per leaf, about."""
        return _points(self.bits, math.log2(self.modulus))

    @property
    def seconds(self) -> float:
        """CPU time for all roots on the machine where the constants were measured."""
        return self.roots * (_ROOT + self.leaves_per_root * (_LEAF + _POINT * self.points))


def _points(bits: int, modulus_bits: float) -> float:
    return float(2.0 ** min(bits / 2 - 1.5 * modulus_bits, 512))


@cache
def plan(bits: int, count: int = 0) -> Plan:
    """The cheapest division that was found for moduli of that many bits; ``count`` primes in M if not as RSALib's.

    A beam over the divisors L of the order of 65537 modulo the primorial, from the order downwards; M'(L) is the
    product of the primes whose own order divides L.
    """
    orders = {prime: residues.order(prime) for prime in residues.first_primes(count or residues.prime_count(bits))}
    logs = {prime: math.log2(prime) for prime in orders}
    whole = math.lcm(*orders.values())
    everything = sum(logs.values())
    steps = [prime for prime in residues.first_primes(200) if whole % prime == 0]

    def length(order: int) -> float:
        return sum(logs[prime] for prime, own in orders.items() if order % own == 0)

    best = (math.inf, whole, everything)
    seen = {whole: everything}
    beam = {whole: everything}
    while beam:
        found = {}
        for order in beam:
            for step in steps:
                smaller = order // step
                if order % step == 0 and smaller not in seen and smaller not in found:
                    found[smaller] = length(smaller)
        kept = sorted(found, key=lambda order: (everything - found[order]) / math.log2(whole / order))[:_BEAM]
        beam = {order: found[order] for order in kept if found[order] > bits / 4}
        seen |= beam
        for order, size in beam.items():
            best = min(best, (order * (_LEAF + _POINT * _points(bits, size)), order, size))
    _, order, _ = best
    modulus = math.prod(prime for prime, own in orders.items() if order % own == 0)
    order = math.lcm(*(own for own in orders.values() if order % own == 0))
    return min((_divided(bits, orders, modulus, order, root) for root in _divisors(order)), key=_preference)


#: width of the beam; 30 finds the same as 400 at 512, 1024 and 2048 bits
_BEAM = 60


def _divisors(number: int) -> list[int]:
    found = [1]
    prime = 2
    while number > 1:
        power, more = 1, list(found)
        while number % prime == 0:
            number //= prime
            power *= prime
            more += [divisor * power for divisor in found]
        found = more
        prime += 1
    return found


def _divided(bits: int, orders: dict[int, int], modulus: int, order: int, root: int) -> Plan:
    below = [prime for prime, own in orders.items() if root % own == 0]
    root_modulus = math.prod(below)
    index = modulus // root_modulus
    primes = tuple(prime for prime in orders if index % prime == 0)
    return Plan(bits, modulus, order, root_modulus, math.lcm(*(orders[prime] for prime in below)), primes)


def _preference(division: Plan) -> float:
    return division.seconds if division.index < _LARGEST_INDEX else math.inf


@dataclass(frozen=True)
class _Group:
    """The primes of R whose residues depend on the leaf's number modulo ``period``."""

    period: int
    primes: tuple[int, ...]


class Search:
    """The search for the factors of one modulus, in ranges of roots.

    Args:
        n: the modulus; a power of 65537 modulo the plan's, or ValueError. Both primes have half of its bits.
        division: how to divide the classes; default the cheapest one.
    """

    def __init__(self, n: int, division: Plan | None = None) -> None:
        """Take the logarithm and make the tables."""
        self.n = gmpy2.mpz(n)
        self.plan = division or plan(n.bit_length())
        below = tuple(p for p in residues.first_primes(225) if self.plan.root_modulus % p == 0)
        c = residues.joint_logarithm(n, below)
        if c is None or residues.joint_logarithm(n, (*below, *self.plan.primes)) is None:
            raise ValueError("the modulus is no power of 65537")
        c %= self.plan.root_order
        #: the exponent of the first root; root number i stands for a = first + i
        self.first = (c + 1) // 2
        self.roots = (c + self.plan.root_order) // 2 - self.first + 1
        half = (n.bit_length() + 1) // 2
        root_of_n = gmpy2.isqrt(self.n)
        #: the least that the smaller prime can be, in units of the root of N
        self._low = max((1 << (half - 1)) / int(root_of_n), int(self.n) / int(root_of_n << half))
        self._prepare()

    def _prepare(self) -> None:
        index, root_order = self.plan.index, self.plan.root_order
        self._crt = {}
        self._tables = {}
        periods: dict[int, list[int]] = {}
        for prime in self.plan.primes:
            own = residues.order(prime)
            periods.setdefault(own // math.gcd(own, root_order), []).append(prime)
            rest = index // prime
            self._crt[prime] = rest * int(gmpy2.invert(rest, prime)) if prime != index else 1
            self._tables[prime] = _PrimeTables(int(self.n), prime, root_order, self.plan)
        self._groups = tuple(_Group(period, tuple(primes)) for period, primes in periods.items())

    def run(self, start: int, count: int) -> int | None:
        """A factor from one of the roots number ``start`` to ``start + count - 1``, or None."""
        count = min(count, self.roots - start)
        size = max(1, _BLOCK // self.plan.leaves_per_root)
        roots = _Roots(self, start)
        for done in range(0, count, size):
            block = roots.take(min(size, count - done))
            for exponent in self._exponents(block):
                factor = self._decide(exponent)
                if factor is not None:
                    return factor
        return None

    def _exponents(self, block: _RootBlock) -> list[int]:
        """The exponents a of all leaves above some roots that floating point cannot rule out."""
        leaves = self.plan.leaves_per_root
        longer, shorter, phases = self._lattices(block)
        low, high = self._low, 1 / self._low
        x, y = shorter
        # On the curve, x p + y q = x t + y/t times the root of N, where t = p / root of N lies in [low, high].
        at_low, at_high = x * low + y * high, x * high + y * low
        least, most = np.minimum(at_low, at_high), np.maximum(at_low, at_high)
        product = x * y
        turns = np.flatnonzero(
            (product > 0) & (np.abs(y) > low * low * np.abs(x)) & (np.abs(x) > low * low * np.abs(y))
        )
        turning = np.copysign(2 * np.sqrt(product[turns]), x[turns])
        least[turns] = np.minimum(least[turns], turning)
        most[turns] = np.maximum(most[turns], turning)
        start = np.ceil(least - phases[0] - _TOLERANCE)
        lines = np.floor(most - phases[0] + _TOLERANCE) - start + 1
        undecided = lines > _MANY * (1 + self.plan.points)
        undecided.reshape(-1, leaves)[block.degenerate] = True
        lines[undecided] = 0
        hits = np.flatnonzero(lines > 0)
        repeats = lines[hits].astype(np.intp)
        leaf = np.repeat(hits, repeats)
        x, y = x[leaf], y[leaf]
        value = phases[0][leaf] + start[leaf] + np.arange(len(leaf)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        square = value * value - 4 * product[leaf]
        margin = _TANGENT * (value * value + 1)
        larger = value + np.copysign(np.sqrt(np.maximum(square, 0)), value)
        other_x, other_y = longer[0][leaf], longer[1][leaf]
        # too close to call: a double root, or a lattice so lopsided that the other coordinate is too coarse
        near = (square < margin) | (other_x**2 + other_y**2 > _LOPSIDED * (x * x + y * y))
        with np.errstate(divide="ignore", invalid="ignore"):
            for t in (larger / (2 * x), 2 * y / larger):
                place = other_x * t + other_y / t - phases[1][leaf]
                near |= np.abs(place - np.rint(place)) < _TOLERANCE
        undecided[leaf[near & (square > -margin)]] = True
        root, number = np.divmod(np.flatnonzero(undecided), leaves)
        return [int(a) + int(i) * self.plan.root_order for a, i in zip(block.exponents[root], number, strict=True)]

    def _lattices(self, block: _RootBlock) -> tuple[Floats, Floats, Floats]:
        """The leaves' reduced bases: of shape (2, leaves), the longer vector, the shorter, and phases.

        phases: (x u + y v) / M'^2 of the shorter vector, in [0, 1), and of the longer, modulo 1 only.
        """
        leaves = self.plan.leaves_per_root
        shape = (len(block.exponents), leaves)
        numbers = np.arange(leaves)
        index = float(self.plan.index)
        # The sublattice in coordinates of the root's basis: (R/b, 0) and (b c, b), where b is the product of the
        # primes modulo which the first coordinate is free.
        c, b = np.zeros(shape), np.ones(shape)
        phase1, phase2 = np.broadcast_to(block.phases[:, :, None], (2, *shape)).copy()
        for group in self._groups:
            which = numbers % group.period
            c_part, b_part, part1, part2 = self._group(group, block)
            c += c_part[:, which]
            b *= b_part[:, which]
            phase1 += part1[:, which]
            phase2 += part2[:, which]
        c *= b
        c -= np.rint(c / index) * index
        x1, y1, x2, y2 = block.columns[:, :, None]
        basis = np.empty((8, *shape))
        basis[2], basis[3], basis[6], basis[7] = index / b, 0, c, b
        basis[0], basis[1] = basis[2] * x1, basis[2] * y1
        basis[4], basis[5] = c * x1 + b * x2, c * y1 + b * y2
        reduced = _reduced(basis.reshape(8, -1))
        phase1, phase2 = phase1.ravel(), phase2.ravel()
        phases = np.stack((reduced[6] * phase1 + reduced[7] * phase2, reduced[2] * phase1 + reduced[3] * phase2))
        phases[0] -= np.floor(phases[0])
        return reduced[0:2], reduced[4:6], phases

    def _group(self, group: _Group, block: _RootBlock) -> tuple[Floats, Floats, Floats, Floats]:
        """What the primes of a group add: c, b and the two phases, a column per leaf number modulo the period."""
        shape = (len(block.exponents), group.period)
        c, b, s1, s2 = np.zeros(shape), np.ones(shape), np.zeros(shape), np.zeros(shape)
        for prime in group.primes:
            table = self._tables[prime]
            square = prime * prime
            place = block.exponents % table.size
            u = table.powers[place][:, None] * table.steps[None, :] % square
            v = table.inverses[place][:, None] * table.back[None, :] % square
            x1, y1 = (block.small[k] % square for k in (0, 1))
            x2, y2 = (block.small[k] % square for k in (2, 3))
            e1 = (x1[:, None] * u - y1[:, None] * v) % prime
            e2 = (x2[:, None] * u - y2[:, None] * v) % prime
            c += (prime - e2) * table.inverse[e1] % prime * float(self._crt[prime])
            b *= np.where(e1 == 0, float(prime), 1.0)
            s1 += (x1[:, None] * u + y1[:, None] * v) % square * table.weight % square / square
            s2 += (x2[:, None] * u + y2[:, None] * v) % square * table.weight % square / square
        return c, b, s1 - np.floor(s1), s2 - np.floor(s2)

    def _decide(self, exponent: int) -> int | None:
        """The factor p = 65537^exponent modulo M' (or q), or None: the whole leaf again, in integers."""
        modulus = gmpy2.mpz(self.plan.modulus)
        square = modulus**2
        u = gmpy2.powmod(residues.GENERATOR, exponent, square)
        v = self.n * gmpy2.invert(u, square) % square
        (x, y), _ = _short(modulus, v * gmpy2.invert(u, modulus) % modulus)
        known = (x * u + y * v) % square
        # All values of x p + y q on the curve, a little more on both sides: root of N times at most 1.5 (|x| + |y|)
        root_of_n = gmpy2.isqrt(self.n)
        bound = 3 * (abs(x) + abs(y)) * root_of_n // 2 + 1
        first = -(bound + known) // square
        for value in range(known + first * square, bound + 1, square):
            discriminant = value * value - 4 * x * y * self.n
            if x and gmpy2.is_square(discriminant if discriminant > 0 else gmpy2.mpz(0)):
                root = gmpy2.isqrt(abs(discriminant))
                for sign in (1, -1):
                    p = gmpy2.gcd((value + sign * root) // 2, self.n)
                    if 1 < p < self.n:
                        return int(min(p, self.n // p))
        return None


def _short(modulus: gmpy2.mpz, ratio: gmpy2.mpz) -> tuple[tuple[gmpy2.mpz, gmpy2.mpz], tuple[gmpy2.mpz, gmpy2.mpz]]:
    """Two short vectors (x, y) with x = y ratio modulo the modulus, a basis of all: Euclid's algorithm to half-way."""
    bound = gmpy2.isqrt(modulus)
    x1, y1, x2, y2 = modulus, gmpy2.mpz(0), ratio, gmpy2.mpz(1)
    while x2 > bound:
        times, rest = divmod(x1, x2)
        x1, y1, x2, y2 = x2, y2, rest, y1 - times * y2
    if x2:
        times, rest = divmod(x1, x2)
        following = y1 - times * y2
        if abs(following) < x1:
            x1, y1 = rest, following
    return (x2, y2), (x1, y1)


def _reduced(basis: Floats) -> Floats:
    """Gauss's reduction of many lattices: of shape (8, lattices), x, y, i, j of the longer vector, then the shorter.

    (x, y) = i (x1, y1) + j (x2, y2). What is not reduced after many rounds stays as it is: a basis all the same.
    """
    result = basis
    rest = np.arange(basis.shape[1])
    for _ in range(_ROUNDS):
        first, second = basis[:4], basis[4:]
        for _ in range(_STEPS):
            times = np.rint((first[0] * second[0] + first[1] * second[1]) / (second[0] ** 2 + second[1] ** 2))
            first -= times * second
            first, second = second, first
        longer = first[0] ** 2 + first[1] ** 2
        shorter = second[0] ** 2 + second[1] ** 2
        swap = longer < shorter
        basis = np.concatenate((np.where(swap, second, first), np.where(swap, first, second)))
        if basis.shape == result.shape:
            result = basis
        else:
            result[:, rest] = basis
        dot = np.abs(basis[0] * basis[4] + basis[1] * basis[5])
        left = np.flatnonzero(dot > 0.51 * np.minimum(longer, shorter))
        if not len(left):
            break
        rest, basis = rest[left], basis[:, left]
    return result


class _PrimeTables:
    """Powers of 65537 modulo the square of a prime of R, and what goes with them."""

    def __init__(self, n: int, prime: int, root_order: int, division: Plan) -> None:
        square = prime * prime
        generator = residues.GENERATOR % square
        own = residues.order(prime)
        period = own // math.gcd(own, root_order)
        powers = [1]
        while (following := powers[-1] * generator % square) != 1:
            powers.append(following)
        self.size = len(powers)
        self.powers = np.array(powers, dtype=np.int64)
        back = np.roll(self.powers[::-1], 1)  # the power -i
        self.inverses = back * (n % square) % square
        places = np.arange(period) * (root_order % self.size) % self.size
        self.steps = self.powers[places]
        self.back = back[places]
        self.inverse = np.array([0, *(int(gmpy2.invert(e, prime)) for e in range(1, prime))], dtype=np.int64)
        self.weight = int(gmpy2.invert((division.modulus // prime) ** 2, square))


@dataclass(frozen=True)
class _RootBlock:
    """Columns over roots.

    ``exponents``: a; ``columns``, of shape (4, roots): x1, y1, x2, y2 of the reduced basis, in units of M'^2 / root of
    N; ``small``: the same modulo R^2; ``phases``, of shape (2, roots): the root's part of (x u + y v) / M'^2 modulo 1;
    ``degenerate``: rows whose lattice is too lopsided for floating point, their columns those of some other lattice.
    """

    exponents: Integers
    columns: Floats
    small: Integers
    phases: Floats
    degenerate: list[int]


class _Roots:
    """Root after root: powers of 65537 and reduced lattices."""

    def __init__(self, search: Search, start: int) -> None:
        self._modulus = gmpy2.mpz(search.plan.root_modulus)
        self._square = self._modulus**2
        self._unit = int(gmpy2.isqrt(search.n)) / search.plan.modulus**2
        self._small = gmpy2.mpz(search.plan.index) ** 2
        self._exponent = search.first + start
        generator = gmpy2.mpz(residues.GENERATOR)
        weight = gmpy2.invert(self._small, self._square)
        u = gmpy2.powmod(generator, self._exponent, self._square)
        v = search.n * gmpy2.invert(u, self._square) % self._square
        self._ratio = v * gmpy2.invert(u, self._modulus) % self._modulus
        self._u, self._v = u * weight % self._square, v * weight % self._square
        self._generator = generator
        self._back = gmpy2.invert(generator, self._square)
        self._step = self._back**2 % self._modulus

    def take(self, count: int) -> _RootBlock:
        """The next roots."""
        modulus, square, small = self._modulus, self._square, self._small
        u, v, ratio = self._u, self._v, self._ratio
        least = gmpy2.isqrt(modulus) >> _DEGENERATE_BITS
        half = gmpy2.isqrt(modulus)
        shift = max(0, square.bit_length() - 64)
        columns, residues_of, phases, degenerate = [], [], [], []
        for row in range(count):
            (x1, y1), (x2, y2) = _short(modulus, ratio)
            if (x1 <= least and abs(y1) <= least) or (x2 <= least and abs(y2) <= least):
                degenerate.append(row)
                x1, y1, x2, y2 = half, gmpy2.mpz(0), gmpy2.mpz(0), half
            columns.append((float(x1), float(y1), float(x2), float(y2)))
            residues_of.append((int(x1 % small), int(y1 % small), int(x2 % small), int(y2 % small)))
            phases.append((float((x1 * u + y1 * v) % square >> shift), float((x2 * u + y2 * v) % square >> shift)))
            u = u * self._generator % square
            v = v * self._back % square
            ratio = ratio * self._step % modulus
        self._u, self._v, self._ratio = u, v, ratio
        exponents = np.arange(self._exponent, self._exponent + count, dtype=np.int64)
        self._exponent += count
        return _RootBlock(
            exponents,
            np.array(columns).T * self._unit,
            np.array(residues_of, dtype=np.int64).T,
            np.array(phases).T / float(square >> shift),
            degenerate,
        )
