"""Factors that many numbers share, in quasi-linear time: batch GCD by a derivative and a scaled remainder tree.

With Z the product of all x_i, D = sum of Z/x_i is built beside the product tree; the fraction D/P of each node goes
down (D. J. Bernstein, "Scaled remainder trees", 2004), and gcd(x_i, D mod x_i) is what x_i shares with the others.
Small nodes are gmpy2's, large ones rows of digits multiplied by ``fft``; then shared factors are split and matched.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Protocol, TypeVar

import gmpy2
import numpy as np
from gmpy2 import mpz
from numpy.typing import NDArray

from keyassay.keymath import fft
from keyassay.keymath.fft import Digits

#: Bits of guard: rows of digits are this much longer than the products of their moduli.
SLACK = 48
#: Bits below which one gmpy2 tree is faster than arrays.
SMALL = 1 << 20
#: Bits of a group, the leaves of the tree of arrays.
GROUP = 50_000
#: The products and derivatives at the top are compared with the same modulo this prime.
CHECK_PRIME = (1 << 61) - 1
#: Places that the search for a proper factor of one modulus may visit where it divides many others.
VISITS = 4_096

Progress = Callable[[float], None]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class SharedFactor:
    """What a modulus N shares.

    Attributes:
        factor: divides N, 1 < factor < N.
        partner: index of another modulus that is different and has a common factor with this one; None if the
            factor came from the extra numbers or the partner is one of the others.
        outside: the partner itself where it is one of the others, else None.
    """

    factor: int
    partner: int | None
    outside: int | None = None


@dataclass(frozen=True, slots=True)
class CommonFactors:
    """What a batch GCD found.

    Attributes:
        shared: index of a modulus to what it shares; moduli that share nothing are not in it.
        known: index to what a modulus has in common with the product of the extra numbers, if that is more than 1;
            it may be the modulus itself.
    """

    shared: dict[int, SharedFactor]
    known: dict[int, int]


class Others(Protocol):
    """Numbers that the moduli are compared with, but not with each other: the moduli of earlier runs, say.

    None of them may equal one of the moduli. They are read block by block: all products once, in order, and where
    something is shared once more, with the members of the blocks concerned.
    """

    @property
    def block_count(self) -> int:
        """How many blocks there are."""

    def products(self) -> Iterator[mpz]:
        """The product of each block."""

    def block(self, number: int) -> Sequence[int]:
        """The numbers of a block."""


class Levels(Protocol):
    """Where the levels of the tree live: each is written once, in order, and read once, in the opposite order."""

    def array(self, name: str, rows: int, width: int) -> Digits:
        """A new level, zeros."""

    def drop(self, name: str) -> None:
        """The level is needed no longer."""

    @property
    def keeps_groups(self) -> bool:
        """Whether products within groups are kept as well (as much memory as five levels) or made again."""


class MemoryLevels:
    """Levels as arrays in memory."""

    keeps_groups = True

    def array(self, name: str, rows: int, width: int) -> Digits:  # noqa: ARG002  names are for files
        return np.zeros((rows, width), dtype=np.int16)

    def drop(self, name: str) -> None:
        """Nothing to do: the array goes with its last reference."""


class FaultyArithmeticError(ArithmeticError):
    """A control sum failed. The result was thrown away and made by gmpy2 alone."""


def shared_factors(
    moduli: Sequence[int],
    *,
    extra: Sequence[int] = (),
    threads: int = 1,
    progress: Progress | None = None,
    levels: Levels | None = None,
) -> dict[int, SharedFactor]:
    """``common_factors`` for those who want to know what is shared, and nothing of others."""
    return common_factors(moduli, extra=extra, threads=threads, progress=progress, levels=levels).shared


def common_factors(
    moduli: Sequence[int],
    *,
    extra: Sequence[int] = (),
    others: Others | None = None,
    threads: int = 1,
    progress: Progress | None = None,
    levels: Levels | None = None,
) -> CommonFactors:
    """Find every modulus that has a factor in common with another one, with an extra number or with one of the others.

    Equal moduli count as one (each of their indices is in the result or none is), so that a key that is merely
    repeated shares nothing. 0, 1 and negative numbers are passed over. Even, tiny, prime and square moduli and any
    mixture of sizes are allowed; a modulus whose every common factor is the modulus itself (a prime or a pq that
    divides a pqr) is not in the result, since no gcd splits it, while the larger one is.

    Args:
        moduli: the numbers, 1 to some ten thousand bits each.
        extra: primorials, products of known primes. What a modulus has in common with these is taken out first: a
            small prime that thousands have is then no shared prime. A modulus made of one extra's primes alone is not
            split unless several extras hold different parts of it.
        others: numbers that the moduli are compared with as well.
        threads: gmpy2 and the transforms run with the interpreter's lock released.
        progress: gets the share done, 0 to 1.
        levels: where the tree's levels live; in memory if left out.

    Returns:
        What is shared, and what the extras hold. Each factor was verified to divide its modulus.
    """
    report = progress or (lambda _share: None)
    first: dict[int, int] = {}
    for index, modulus in enumerate(moduli):
        if modulus > 1:
            first.setdefault(modulus, index)
    distinct = [mpz(modulus) for modulus in first]
    indices = list(first.values())
    extras = [mpz(number) for number in extra if number > 1]
    found: dict[int, SharedFactor] = {}
    known: dict[int, int] = {}
    if distinct and (len(distinct) > 1 or extras or others):
        with _pool(threads) as pool:
            factor = _product(extras)
            common = common_parts(distinct, factor, pool, lambda share: report(0.9 * share), levels, others)
            hits = [place for place, part in enumerate(common) if part > 1]
            explained, held = _explain(distinct, common, hits, extras, factor, others)
            found = {
                indices[place]: replace(one, partner=None if one.partner is None else indices[one.partner])
                for place, one in explained.items()
            }
            known = {indices[place]: int(part) for place, part in held.items()}
    if len(first) < len(moduli):
        for index, modulus in enumerate(moduli):
            if modulus > 1 and first[modulus] in found:
                found[index] = found[first[modulus]]
            if modulus > 1 and first[modulus] in known:
                known[index] = known[first[modulus]]
    report(1.0)
    return CommonFactors(dict(sorted(found.items())), dict(sorted(known.items())))


def shared_parts(
    numbers: Sequence[int], *, others: Others | None = None, threads: int = 1, progress: Progress | None = None
) -> list[mpz]:
    """What each number has in common with the product of all the rest, powers of primes included.

    For numbers of which nearly all share small factors: ``common_factors`` would look for partners of all of them.

    Args:
        numbers: distinct, above 1.
        others: numbers that are part of that product and that nothing is said of.
        threads: as for ``common_factors``, which takes as much memory.
        progress: likewise.
    """
    if not numbers:
        return []
    report = progress or (lambda _share: None)
    with _pool(threads) as pool:
        return common_parts([mpz(number) for number in numbers], mpz(1), pool, report, others=others)


def memory_needed(count: int, bits: int, *, others: bool = False) -> int:
    """Bytes that ``common_factors`` takes at its peak beside the moduli given; levels in memory.

    Measured from 5,000 to 80,000 moduli of 2048 bits, for one thread and two, and rounded up.

    Args:
        count: how many moduli.
        bits: the bits of all together.
        others: whether there are others to compare with (products as long as that of the moduli).
    """
    total = bits + 64 * count
    depth = max(1, (total // GROUP).bit_length()) if total > SMALL else 0
    # Products of each level, within groups and above; the moduli as gmpy2's; two levels of derivatives; transforms.
    each = 14 + depth + (20 if depth else 0) + (6 if others else 0)
    return (64 << 20) + count * 400 + total // 8 * each


class _Pool:
    """``map`` over a thread pool, or plainly where there is one thread."""

    def __init__(self, executor: ThreadPoolExecutor | None) -> None:
        self._executor = executor

    def map(self, function: Callable[[T], R], work: Iterable[T]) -> Iterator[R]:
        """Results in order."""
        return map(function, work) if self._executor is None else self._executor.map(function, work)


@contextmanager
def _pool(threads: int) -> Iterator[_Pool]:
    if threads <= 1:
        yield _Pool(None)
        return
    with ThreadPoolExecutor(threads, initializer=fft.threads_release_gil) as executor:
        yield _Pool(executor)


# What each modulus has in common with the rest


def common_parts(
    moduli: list[mpz],
    factor: mpz,
    pool: _Pool,
    progress: Progress,
    levels: Levels | None = None,
    others: Others | None = None,
) -> list[mpz]:
    """gcd(x_i, factor times the product of the other moduli and of the others), for distinct moduli above 1."""
    if sum(modulus.bit_length() for modulus in moduli) > SMALL:
        try:
            return _Forest(moduli, pool, progress, levels or MemoryLevels()).common_parts(factor, others)
        except FaultyArithmeticError:
            pass
    return _common_parts_exact(moduli, factor, others)


def _common_parts_exact(moduli: list[mpz], factor: mpz, others: Others | None) -> list[mpz]:
    products, derivative = _grow(moduli)
    root = products[-1][0]
    shift = root.bit_length() + SLACK
    (residue,) = _product_modulo(others, [root])
    fraction = ((derivative * factor % root * residue % root) << shift) // root
    return [gmpy2.gcd(x, r) for x, r in zip(moduli, _descend(products, fraction, shift), strict=True)]


def _product_modulo(others: Others | None, moduli: Sequence[mpz]) -> list[mpz]:
    """The product of all the others modulo each of a few large numbers."""
    if others is None:
        return [mpz(1)] * len(moduli)
    whole = _product(moduli)
    residue = mpz(1)
    waiting: list[mpz] = []
    for product in chain(others.products(), (None,)):
        if product is not None:
            waiting.append(product)
            if sum(number.bit_length() for number in waiting) < whole.bit_length():
                continue
        residue = residue * (_product(waiting) % whole) % whole
        waiting = []
    return [residue % modulus for modulus in moduli]


def _grow(leaves: Sequence[mpz]) -> tuple[list[list[mpz]], mpz]:
    """Product tree, leaves first, an odd one out moving up as it is; and the root's derivative."""
    products = [list(leaves)]
    derivatives = [mpz(1)] * len(leaves)
    while len(products[-1]) > 1:
        below = products[-1]
        left, right = below[:-1:2], below[1::2]
        above = [a * b for a, b in zip(left, right, strict=True)]
        slopes = [u * b + v * a for a, b, u, v in zip(left, right, derivatives[:-1:2], derivatives[1::2], strict=True)]
        if len(below) % 2:
            above.append(below[-1])
            slopes.append(derivatives[-1])
        products.append(above)
        derivatives = slopes
    return products, derivatives[0]


def _descend(products: list[list[mpz]], fraction: mpz, shift: int) -> list[mpz]:
    """Remainders of a number R modulo the leaves, from R / root: ``fraction`` / 2^shift, its integer part dropped.

    The error at the root is at most 8 / 2^shift and shift is ``SLACK`` more than the root's bits. Each level adds at
    most 2 units in the last place, so that rounding at the leaves is right with 40 bits to spare.
    """
    row = [(fraction, shift)]
    for below, above in zip(products[-2::-1], products[:0:-1], strict=True):
        down: list[tuple[mpz, int]] = []
        for place, (value, places) in enumerate(row[: len(above)]):
            if 2 * place + 1 == len(below):
                down.append((value, places))
                continue
            left, right = below[2 * place], below[2 * place + 1]
            for child, sibling in ((left, right), (right, left)):
                keep = min(places, child.bit_length() + SLACK)
                down.append((gmpy2.f_mod_2exp(value * sibling, places) >> (places - keep), keep))
        row = down
    half = mpz(1)
    return [
        (value * leaf + (half << (places - 1))) >> places
        for leaf, (value, places) in zip(products[0], row, strict=True)
    ]


class _Forest:
    """The tree over groups of moduli: inside groups gmpy2, above them rows of digits, 2^height groups of one width.

    Level t holds products of 2^t groups as rows of ``width`` 2^t digits. The root is never formed: the left half
    needs only frac(D_left P_right / P_left), the right one likewise.
    """

    def __init__(self, moduli: list[mpz], pool: _Pool, progress: Progress, levels: Levels) -> None:
        self._moduli = moduli
        self._pool = pool
        self._levels = levels
        bits = np.array([modulus.bit_length() for modulus in moduli], dtype=np.int64)
        before = np.cumsum(bits) - bits
        total = int(bits.sum())
        self._height, self._width, self._bounds = min(
            (_layout(before, bits, total, height) for height in _heights(total)),
            key=lambda layout: layout[1] << layout[0],
        )
        self._steps = 2 * self._height + 4
        self._done = 0
        self._progress = progress
        self._trees: list[list[list[mpz]] | None] = []

    def _advance(self) -> None:
        self._done += 1
        self._progress(min(1.0, self._done / self._steps))

    def common_parts(self, factor: mpz, others: Others | None) -> list[mpz]:
        """See the function of that name.

        Raises:
            FaultyArithmeticError: a control sum failed.
        """
        products, slopes = self._climb()
        fractions = self._turn(products.pop(), slopes, factor, others)
        del slopes
        for level in range(self._height - 2, -1, -1):
            fractions = self._lower(level, products.pop(), fractions)
            self._levels.drop(f"product-{level}")
            self._advance()
        found = [part for group in self._pool.map(self._finish, enumerate(fractions)) for part in group]
        self._levels.drop("fraction-0" if self._height > 1 else "fraction-top")
        self._advance()
        return found

    def _group(self, number: int) -> list[mpz]:
        return self._moduli[self._bounds[number] : self._bounds[number + 1]]

    def _climb(self) -> tuple[list[Digits], Digits]:
        """Products of all levels below the root, and the derivatives of the highest of these."""
        count = 1 << self._height
        product = self._levels.array("product-0", count, self._width)
        slope = self._levels.array("slope-0", count, self._width)
        self._trees = [None] * count

        def plant(number: int) -> None:
            if not self._group(number):
                product[number, 0] = 1
                return
            tree, derivative = _grow(self._group(number))
            product[number] = fft.to_digits(tree[-1][0], self._width)
            slope[number] = fft.to_digits(derivative, self._width)
            if self._levels.keeps_groups:
                self._trees[number] = tree

        _all(self._pool.map(plant, range(count)))
        self._advance()
        products = [product]
        for level in range(1, self._height):
            rows, width = count >> level, self._width << level
            above = self._levels.array(f"product-{level}", rows, width)
            slopes_above = self._levels.array(f"slope-{level}", rows, width)
            below, slopes = products[-1], slope

            def join(
                rows: slice,
                below: Digits = below,
                slopes: Digits = slopes,
                above: Digits = above,
                slopes_above: Digits = slopes_above,
            ) -> None:
                pairs = slice(2 * rows.start, 2 * rows.stop)
                _join(below[pairs], slopes[pairs], above[rows], slopes_above[rows])

            _all(self._pool.map(join, self._batches(rows, width)))
            self._levels.drop(f"slope-{level - 1}")
            products.append(above)
            slope = slopes_above
            self._advance()
        return products, slope

    @staticmethod
    def _batches(rows: int, width: int) -> list[slice]:
        """Rows (of digits) whose transforms fit into the cache together."""
        step = max(1, 65_536 // width)
        return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]

    def _turn(self, product: Digits, slope: Digits, factor: mpz, others: Others | None) -> Digits:
        """The fractions of the two halves, D_left P_right factor / P_left and likewise, after control sums."""
        halves = [fft.from_digits(row) for row in product]
        slopes = [fft.from_digits(row) for row in slope]
        self._check(halves, slopes)
        fractions = self._levels.array("fraction-top", 2, product.shape[1])
        places = fft.DIGIT_BITS * product.shape[1]
        residues = _product_modulo(others, halves)

        def divide(side: int) -> None:
            own, other = halves[side], halves[1 - side]
            # A primorial is short beside the product of a fleet: multiplied here it costs next to nothing.
            value = slopes[side] * (factor if factor < own else factor % own) * other
            if others is not None:
                value = value % own * residues[side]
            quotient = (value << places) // own
            fractions[side] = _fraction_digits(quotient, product.shape[1])

        _all(self._pool.map(divide, range(2)))
        self._levels.drop(f"slope-{self._height - 1}")
        self._levels.drop(f"product-{self._height - 1}")
        self._advance()
        return fractions

    def _check(self, halves: list[mpz], slopes: list[mpz]) -> None:
        product, slope = 1, 0
        for modulus in self._moduli:
            residue = int(modulus % CHECK_PRIME)
            slope = (slope * residue + product) % CHECK_PRIME
            product = product * residue % CHECK_PRIME
        left, right, slope_left, slope_right = (int(number % CHECK_PRIME) for number in (*halves, *slopes))
        if product != left * right % CHECK_PRIME or slope != (slope_left * right + slope_right * left) % CHECK_PRIME:
            raise FaultyArithmeticError("a product tree failed its control sum")

    def _lower(self, level: int, products: Digits, fractions: Digits) -> Digits:
        below = self._levels.array(f"fraction-{level}", len(products), products.shape[1])

        def split(rows: slice) -> None:
            pairs = slice(2 * rows.start, 2 * rows.stop)
            _split(fractions[rows], products[pairs], below[pairs])

        _all(self._pool.map(split, self._batches(len(fractions), fractions.shape[1])))
        self._levels.drop(f"fraction-{level + 1 if level + 2 < self._height else 'top'}")
        return below

    def _finish(self, numbered: tuple[int, Digits]) -> list[mpz]:
        """From a group's fraction to the common parts of its moduli."""
        number, row = numbered
        group = self._group(number)
        if not group:
            return []
        tree = self._trees[number] or _grow(group)[0]
        self._trees[number] = None
        places = fft.DIGIT_BITS * self._width
        root = tree[-1][0]
        fraction = gmpy2.f_mod_2exp(fft.from_digits(row), places)
        # fraction * root is an integer but for rounding: anything else means that some product above was wrong.
        shift = root.bit_length() + SLACK
        near = gmpy2.f_mod_2exp(fraction * root + (mpz(1) << (places - 17)), places)
        if near >> (places - 16):
            raise FaultyArithmeticError("a remainder is no integer")
        fraction >>= places - shift
        return [gmpy2.gcd(x, r) for x, r in zip(group, _descend(tree, fraction, shift), strict=True)]


def _all(results: Iterable[None]) -> None:
    """Wait for all of them, letting errors through."""
    for _ in results:
        pass


def _heights(total: int) -> range:
    """Heights of the tree that make groups of about ``GROUP`` bits."""
    nearest = max(1, (total // GROUP).bit_length() - 1)
    return range(max(1, nearest - 1), nearest + 2)


def _layout(before: NDArray[np.int64], bits: NDArray[np.int64], total: int, height: int) -> tuple[int, int, list[int]]:
    """Height, width in digits and bounds of 2^height groups of about the same number of bits."""
    count = 1 << height
    starts = np.searchsorted(before.astype(np.float64) * count / total, np.arange(count + 1))
    starts[-1] = len(bits)
    ends = np.append(before, total)[starts]
    most = int(np.diff(ends).max())
    return height, fft.smooth_length(-(-(most + SLACK) // fft.DIGIT_BITS)), starts.tolist()


def _join(products: Digits, slopes: Digits, above: Digits, slopes_above: Digits) -> None:
    """One level up: P = P_l P_r and D = D_l P_r + D_r P_l, for rows 2i and 2i + 1."""
    ring = fft.ring(products.shape[1])
    try:
        p = ring.forward(products)
        d = ring.forward(slopes)
        crossed = d[0::2] * p[1::2]
        right = d[1::2]
        right *= p[0::2]
        crossed += right
        fft.carried(ring.backward(crossed), slopes_above)
        crossed = p[0::2] * p[1::2]
        fft.carried(ring.backward(crossed), above)
    except fft.RoundingError:
        width = above.shape[1]
        for row in range(len(above)):
            a, b = (fft.from_digits(products[2 * row + side]) for side in (0, 1))
            u, v = (fft.from_digits(slopes[2 * row + side]) for side in (0, 1))
            above[row] = fft.to_digits(a * b, width)
            slopes_above[row] = fft.to_digits(u * b + v * a, width)


def _split(fractions: Digits, products: Digits, below: Digits) -> None:
    """One level down: f_l = frac(f P_r) and f_r = frac(f P_l), the upper half of their digits."""
    width = products.shape[1]
    ring = fft.ring(width)
    try:
        f = ring.forward(fractions)
        p = ring.forward(products)
        p[0::2] *= f
        p[1::2] *= f
        high = ring.backward(p, high_only=True)
        fft.carried(high[1::2], below[0::2])
        fft.carried(high[0::2], below[1::2])
    except fft.RoundingError:
        places = fft.DIGIT_BITS * width
        for row, digits in enumerate(fractions):
            fraction = fft.from_digits(digits)
            for side in (0, 1):
                value = fraction * fft.from_digits(products[2 * row + 1 - side])
                below[2 * row + side] = _fraction_digits(value >> places, width)


def _fraction_digits(value: mpz, width: int) -> Digits:
    """Balanced digits of a number modulo 2^(16 width)."""
    places = fft.DIGIT_BITS * width
    value = gmpy2.f_mod_2exp(value, places)
    # the largest number of balanced digits is 0x7fff...7fff
    if value >= (mpz(1) << places) - fft.halves(width):
        value -= mpz(1) << places
    return fft.to_digits(value, width)


# Splitting and matching what was found


@dataclass(slots=True)
class _Query:
    """Where in the tree a number that shares is looked for.

    ``value`` has a factor in common with another leaf than ``leaf``. At first (``inside``) the search follows the
    leaf's own way down, asking its siblings; a sibling that shares ends that, and the search goes on inside it.
    """

    leaf: int
    value: mpz
    inside: bool

    def is_below(self, level: int, node: int) -> bool:
        """Whether this node is on the leaf's own way down."""
        return self.inside and self.leaf >> level == node


def _explain(
    moduli: list[mpz], common: list[mpz], hits: list[int], extras: list[mpz], factor: mpz, others: Others | None
) -> tuple[dict[int, SharedFactor], dict[int, mpz]]:
    """Proper factors and partners of the moduli that share something, and what the extras hold of each."""
    found: dict[int, SharedFactor] = {}
    held: dict[int, mpz] = {}
    shared: dict[int, mpz] = {}
    residues = _remainders(factor, [moduli[place] for place in hits]) if extras else [mpz(1)] * len(hits)
    for place, residue in zip(hits, residues, strict=True):
        part = gmpy2.gcd(moduli[place], residue)
        rest = common[place]
        if part > 1:
            held[place] = part
            rest = _without(rest, part)
            if part < moduli[place]:
                found[place] = SharedFactor(int(part), None)
        if rest > 1:
            shared[place] = rest
    found.update(_split_by_extras(moduli, [place for place in held if place not in found], extras))
    places = list(shared)
    outside = _sharing(others, list(shared.values())) if others is not None and shared else []
    numbers = [moduli[place] for place in places] + [number for number, _ in outside]
    for place, part, partner in _match(numbers, [*shared.values(), *(part for _, part in outside)]):
        if place >= len(places):
            continue
        if partner < len(places):
            found[places[place]] = SharedFactor(int(part), places[partner])
        else:
            found[places[place]] = SharedFactor(int(part), None, int(numbers[partner]))
    for place, one in found.items():
        if not 1 < one.factor < moduli[place] or moduli[place] % one.factor:
            raise AssertionError("a factor does not divide its modulus")
    return found, held


def _sharing(others: Others, parts: list[mpz]) -> list[tuple[mpz, mpz]]:
    """Those of the others that have a factor in common with the parts, and what.

    All of them up to ``VISITS``; beyond, one for each prime is enough, since they serve as partners only.
    """
    wanted = _product(parts)
    found: list[tuple[mpz, mpz]] = []
    for number, product in enumerate(others.products()):
        if gmpy2.gcd(product % wanted, wanted) == 1:
            continue
        members = [mpz(member) for member in others.block(number)]
        for member, residue in zip(members, _remainders(wanted, members), strict=True):
            part = gmpy2.gcd(member, residue)
            if part > 1:
                found.append((member, part))
        if len(found) > VISITS:
            wanted = _without(wanted, _product([part for _, part in found]))
            if wanted == 1:
                break
    return found


def _without(number: mpz, part: mpz) -> mpz:
    """The number without all primes of ``part``."""
    while (divisor := gmpy2.gcd(number, part)) > 1:
        number //= divisor
    return number


def _split_by_extras(moduli: list[mpz], whole: list[int], extras: list[mpz]) -> dict[int, SharedFactor]:
    """Proper factors of moduli that divide the product of the extras, by descending the tree of the extras."""
    found: dict[int, SharedFactor] = {}
    if not whole or len(extras) < 2:
        return found
    pending = [(extras, whole)]
    while pending:
        numbers, places = pending.pop()
        if not places or len(numbers) < 2:
            continue
        middle = len(numbers) // 2
        for half in (numbers[:middle], numbers[middle:]):
            deeper = []
            open_places = [place for place in places if place not in found]
            residues = _remainders(_product(half), [moduli[place] for place in open_places])
            for place, residue in zip(open_places, residues, strict=True):
                part = gmpy2.gcd(moduli[place], residue)
                if part == moduli[place]:
                    deeper.append(place)
                elif part > 1:
                    found[place] = SharedFactor(part, None)
            pending.append((half, deeper))
    return found


def _match(moduli: list[mpz], common: list[mpz]) -> list[tuple[int, mpz, int]]:
    """Place, proper factor and partner's place, for moduli and what each has in common with the others.

    Where the common part is the whole modulus (both primes shared, as in pq, qr, rp), a tree over the common parts
    in scattered order is descended: half of such moduli find a proper factor at its root, half of the rest below,
    and so on. Partners are then found by equal factors, and what is left by descending the tree again.
    """
    if not common:
        return []
    order = sorted(range(len(common)), key=lambda place: (common[place] * 0x9E3779B97F4A7C15 >> 32) % CHECK_PRIME)
    tree = _Matcher([common[place] for place in order])
    factors: dict[int, mpz] = {}
    partners: dict[int, int] = {}
    position = {place: leaf for leaf, place in enumerate(order)}
    open_leaves: list[_Query] = []
    for place, part in enumerate(common):
        if part < moduli[place]:
            factors[place] = part
        else:
            open_leaves.append(_Query(position[place], part, inside=True))
    for leaf, part, _ in tree.search(open_leaves, proper=True):
        factors[order[leaf]] = part
    # Equal factors, or a factor and another's cofactor: nearly all partners are found here.
    owners: dict[mpz, list[int]] = {}
    for place, part in factors.items():
        for value in {part, moduli[place] // part}:
            holders = owners.setdefault(value, [])
            if len(holders) < 2:
                holders.append(place)
    missing: list[_Query] = []
    for place, part in factors.items():
        for value in (part, moduli[place] // part):
            other = next((one for one in owners[value] if one != place), None)
            if other is not None and value > 1:
                partners[place] = other
                factors[place] = value
                break
        else:
            missing.append(_Query(position[place], part, inside=True))
    for leaf, _, partner in tree.search(missing, proper=False):
        partners[order[leaf]] = order[partner]
    return [(place, part, partners[place]) for place, part in factors.items() if place in partners]


class _Matcher:
    """A product tree of common parts in which numbers look for a leaf that they share a factor with."""

    def __init__(self, leaves: list[mpz]) -> None:
        self._leaves = leaves
        self._levels = _grow_products(leaves)

    def search(self, queries: list[_Query], proper: bool) -> Iterator[tuple[int, mpz, int]]:
        """Leaf, factor and partner leaf of each query that succeeds.

        With ``proper`` only a part of the query's value counts, any does otherwise; and then the partner's leaf is
        not looked for (it is -1), since a factor was all that was wanted.
        """
        done: set[int] = set()
        visits: dict[int, int] = {}
        # Nodes from the root down; each is examined once, with all queries that got there.
        waiting: dict[tuple[int, int], list[_Query]] = {(len(self._levels) - 1, 0): list(queries)}
        agenda = [(-(len(self._levels) - 1), 0)]

        def send(level: int, node: int, query: _Query) -> None:
            if (level, node) not in waiting:
                waiting[level, node] = []
                heapq.heappush(agenda, (-level, node))
            waiting[level, node].append(query)

        while agenda:
            negative, node = heapq.heappop(agenda)
            level = -negative
            arrived = [query for query in waiting.pop((level, node)) if query.leaf not in done]
            if not arrived:
                continue
            if level == 0:
                if not proper:
                    for query in arrived:
                        if query.leaf != node:
                            done.add(query.leaf)
                            yield query.leaf, query.value, node
                continue
            below = self._levels[level - 1]
            gone: set[int] = set()
            for child in (2 * node, 2 * node + 1):
                if child >= len(below):
                    continue
                asking = [query for query in arrived if not query.is_below(level - 1, child)]
                if proper:
                    asking = [query for query in asking if query.leaf not in done]
                else:
                    asking = [query for query in asking if query.leaf not in gone]
                residues = _remainders(below[child], [query.value for query in asking])
                for query, residue in zip(asking, residues, strict=True):
                    part = gmpy2.gcd(query.value, residue)
                    if part == 1:
                        continue
                    if proper and part < query.value:
                        done.add(query.leaf)
                        yield query.leaf, part, -1
                        continue
                    if proper:
                        visits[query.leaf] = visits.get(query.leaf, 0) + 1
                        if visits[query.leaf] == 64 and gmpy2.is_prime(query.value):
                            done.add(query.leaf)
                        if visits[query.leaf] > VISITS:
                            continue
                    gone.add(query.leaf)
                    send(level - 1, child, _Query(query.leaf, part, inside=False))
            for query in arrived:
                if query.inside and (proper or query.leaf not in gone):
                    send(level - 1, query.leaf >> (level - 1), query)


# Plain trees


def _grow_products(leaves: Sequence[mpz]) -> list[list[mpz]]:
    levels = [list(leaves)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        above = [a * b for a, b in zip(below[:-1:2], below[1::2], strict=True)]
        levels.append(above + below[len(below) // 2 * 2 :])
    return levels


def _product(numbers: Sequence[mpz]) -> mpz:
    return _grow_products(numbers)[-1][0] if numbers else mpz(1)


def _remainders(value: mpz, moduli: Sequence[mpz]) -> list[mpz]:
    """The value modulo each of the moduli."""
    if len(moduli) < 2:
        return [value % modulus for modulus in moduli]
    levels = _grow_products(moduli)
    row = [value % levels[-1][0]]
    for below in levels[-2::-1]:
        row = [row[place // 2] % modulus for place, modulus in enumerate(below)]
    return row
