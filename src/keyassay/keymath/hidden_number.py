"""Private keys from nonces that are not uniform: the hidden number problem, by lattices. Integers in, integers out.

A signature is a line (u, t): its nonce is k = u + t d modulo the order, d the private key. If all nonces lie near one
number, agree in their first or last bits, or are built from few digits, then a short vector of a lattice tells d
(Boneh, Venkatesan 1996; Howgrave-Graham, Smart 2001; Breitner, Heninger 2019). What comes out are candidates that
fit all lines given: whoever asks proves them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING

import gmpy2

from keyassay.keymath.generators import GMP_CONGRUENTIAL

if TYPE_CHECKING:
    from flint import fmpz_mat

Line = tuple[int, int]

#: Bits beyond the order's bits by the number of lines: in front, and for each line, since LLL does not find the very
#: shortest vector. Measured on P-256, P-384 and P-521 for 3 to 84 lines: nineteen of twenty keys are found with them.
_SPARE, _GROWING = 0.5, 0.025
#: Lines of the lattice for unknown structure: what their number leaves a short vector is 20 bits and more. With fewer
#: lines only what is nearly nothing but structure is found.
_UNKNOWN_LEAST = 6
_UNKNOWN = 24
_UNKNOWN_LONG = 32
#: Rows of the reduced lattice that are candidates whatever their length.
_ALWAYS = 2


def least_bits(order: int, count: int) -> int:
    """Bits that the nonces of so many signatures have to lack, for a lattice to find the private key."""
    return int(order.bit_length() / count + _SPARE + _GROWING * count) + 1


def _reduced(matrix: Sequence[Sequence[int]]) -> fmpz_mat:
    import flint  # noqa: PLC0415  40 ms that most runs can do without

    return flint.fmpz_mat([[int(entry) for entry in row] for row in matrix]).lll(False, 0.999, 0.501)


def _near(lines: Sequence[Line], order: int, centre: int, bound: int) -> Iterator[int]:
    """Every d that a short vector gives, for which each u + t d is within 2 ``bound`` of ``centre`` modulo the order.

    d is eliminated by the first line: x = k0 - centre, and every other k - centre = C x + A.
    """
    lines = [(u % order, t % order) for u, t in lines if t % order]
    if len(lines) < 2:
        return
    (u0, t0), others = lines[0], lines[1:]
    inverse = int(gmpy2.invert(t0, order))
    width = len(others)
    rows = [[order if i == j else 0 for j in range(width + 2)] for i in range(width)]
    slopes = [t * inverse % order for _, t in others]
    rows.append([*slopes, 1, 0])
    offset = (u0 - centre) % order
    rows.append([
        *((u - centre - slope * offset) % order for (u, _), slope in zip(others, slopes, strict=True)), 0, bound
    ])  # fmt: skip
    reduced = _reduced(rows)
    tried: set[int] = set()
    for row in range(width + 2):
        mark = int(reduced[row, width + 1])
        if abs(mark) != bound:
            continue
        x = int(reduced[row, width]) * (1 if mark > 0 else -1)
        d = (x - offset) * inverse % order
        if d in tried:
            continue
        tried.add(d)
        rests = ((u + t * d - centre) % order for u, t in lines)
        if all(min(rest, order - rest) <= 2 * bound for rest in rests):
            yield int(d)


def short(lines: Sequence[Line], order: int, bits: int, *, signed: bool = False) -> Iterator[int]:
    """Candidates for d if every nonce lacks its ``bits`` leading bits.

    Args:
        lines: of one signer.
        order: of the group, prime.
        bits: how many.
        signed: the nonce or the order less it: signers that make s the smaller of s and order - s.
    """
    bound = 1 << max(order.bit_length() - bits - (not signed), 1)
    return _near(lines, order, 0 if signed else bound, bound)


def common_start(lines: Sequence[Line], order: int, bits: int) -> Iterator[int]:
    """Candidates for d if the nonces agree in their ``bits`` leading bits."""
    u0, t0 = lines[0]
    differences = [(u - u0, t - t0) for u, t in lines[1:]]
    return _near(differences, order, 0, 1 << max(order.bit_length() - bits, 1))


def common_end(lines: Sequence[Line], order: int, bits: int) -> Iterator[int]:
    """Candidates for d if the nonces agree in their ``bits`` trailing bits."""
    half = int(gmpy2.invert(1 << bits, order))
    return common_start([(u * half % order, t * half % order) for u, t in lines], order, bits)


def unknown_structure(lines: Sequence[Line], order: int) -> Iterator[int]:
    """Candidates for d if some number f makes all f (k - k') short: bits fixed anywhere, generators of few words.

    The lattice of all x U + y T modulo the order, U and T the lines' differences from the first one: where its
    shortest vector is not one that chance makes, d = y/x. The two shortest are taken in any case.
    """
    u0, t0 = lines[0]
    differences = [((u - u0) % order, (t - t0) % order) for u, t in lines[1:]]
    (a, b), (c, d) = differences[:2]
    determinant = (a * d - b * c) % order
    if not determinant:
        return
    inverse = int(gmpy2.invert(determinant, order))
    width = len(differences)
    # two combinations of U and T that begin with (1, 0) and (0, 1)
    first = [(u * d - t * c) * inverse % order for u, t in differences]
    second = [(t * a - u * b) * inverse % order for u, t in differences]
    rows = [first, second, *([order if i == j else 0 for j in range(width)] for i in range(2, width))]
    reduced = _reduced(rows)
    expected = order.bit_length() * (width - 2) / width
    for row in range(width):
        # generators with a truncated output make vectors that are hardly shorter than chance does: a candidate is cheap
        if row >= _ALWAYS and max(abs(int(reduced[row, j])) for j in range(width)).bit_length() > expected - 4:
            continue
        # the row is x U + y T
        g, h = int(reduced[row, 0]), int(reduced[row, 1])
        x, y = (g * d - h * b) * inverse % order, (h * a - g * c) * inverse % order
        if x:
            yield int(y * gmpy2.invert(x, order) % order)


def unknown_needs(order: int) -> int:
    """Signatures that ``unknown_structure`` takes."""
    return _UNKNOWN if order.bit_length() <= 256 else _UNKNOWN_LONG


# Nonces made of digits


@dataclass(frozen=True)
class Digits:
    """A way to make a nonce: k = sum of weight times digit, the digits from a lattice moved to ``origin``.

    Attributes:
        name: for people.
        sizes: bits of each digit.
        weights: of each digit in k.
        basis: rows that span the differences of what the digits may be; as many as digits.
        origin: digits that are possible but for their range.
    """

    name: str
    sizes: tuple[int, ...]
    weights: tuple[int, ...]
    basis: tuple[tuple[int, ...], ...]
    origin: tuple[int, ...]

    @cached_property
    def centred(self) -> tuple[int, ...]:
        """The origin as seen from the middle of the ranges."""
        return tuple(one - (1 << size >> 1) for one, size in zip(self.origin, self.sizes, strict=True))

    @cached_property
    def scales(self) -> tuple[int, ...]:
        """What makes the ranges of all digits equally long."""
        return tuple(1 << (max(self.sizes) - size) for size in self.sizes)

    @cached_property
    def steps(self) -> list[tuple[list[int], int]]:
        """Short vectors that span ``basis``, scaled, and what each adds to the nonce: reduced once for all keys."""
        scaled = _reduced([[a * b for a, b in zip(row, self.scales, strict=True)] for row in self.basis])
        rows = [[int(scaled[i, j]) for j in range(len(self.sizes))] for i in range(len(self.basis))]
        return [(row, self.number([a // b for a, b in zip(row, self.scales, strict=True)])) for row in rows]

    def number(self, digits: Sequence[int]) -> int:
        """The nonce."""
        return sum(weight * digit for weight, digit in zip(self.weights, digits, strict=True))


def digits(lines: Sequence[Line], order: int, shape: Digits) -> Iterator[int]:
    """Candidates for d if all nonces are made in this way, each from digits of its own.

    Two lines suffice where the digits of both together have well below as many free bits as the order. The line
    (0, 1) stands for a private key that was made like a nonce.
    """
    (u0, t0), others = lines[0], lines[1:]
    inverse = gmpy2.invert(t0, order)
    slopes = [int(t * inverse % order) for _, t in others]
    count, width = len(shape.sizes), len(shape.sizes) * len(lines)
    largest = max(shape.sizes)
    scales = shape.scales
    heavy = 1 << (largest + width // 2)
    mark = 1 << largest >> 1
    rows: list[list[int]] = []

    def ties(line: int, value: int) -> list[int]:
        """What a change of one nonce does to the equations k - C k0 = u - C u0."""
        if line == 0:
            return [-slope * value % order * heavy for slope in slopes]
        return [value % order * heavy if i == line - 1 else 0 for i in range(len(others))]

    for line in range(len(lines)):
        for scaled, change in shape.steps:
            row = [0] * width
            row[line * count : (line + 1) * count] = scaled
            rows.append([*row, *ties(line, change), 0])
    rows += [
        [*[0] * width, *(order * heavy if i == j else 0 for j in range(len(others))), 0] for i in range(len(others))
    ]
    start = shape.number(shape.origin)
    gaps = [(start - u - slope * (start - u0)) % order * heavy for (u, _), slope in zip(others, slopes, strict=True)]
    middle = [a * b for a, b in zip(shape.centred, scales, strict=True)]
    rows.append([*middle * len(lines), *gaps, mark])
    reduced = _reduced(rows)
    tried: set[int] = set()
    for place in range(len(rows)):
        end = int(reduced[place, len(rows) - 1])
        if abs(end) != mark or any(int(reduced[place, width + i]) for i in range(len(others))):
            continue
        sign = 1 if end > 0 else -1
        found = [sign * int(reduced[place, j]) // scales[j] + (1 << shape.sizes[j] >> 1) for j in range(count)]
        d = int((shape.number(found) - u0) * inverse % order)
        if d not in tried and all(0 <= digit < 1 << size for digit, size in zip(found, shape.sizes, strict=True)):
            tried.add(d)
            yield d


@cache
def repeated_bytes(bits: int) -> Digits:
    """Each byte four times: what the firmware of some security chips made of its random numbers (Cr50, 2021)."""
    count = bits // 32
    identity = tuple(tuple(int(i == j) for j in range(count)) for i in range(count))
    weights = tuple(0x01010101 << (32 * j) for j in range(count))
    return Digits("each byte of its nonces comes four times", (8,) * count, weights, identity, (0,) * count)


@dataclass(frozen=True)
class Generator:
    """A linear congruential generator s' = multiplier s + increment modulo 2^state, of which a word is s >> low.

    Words follow each other in a number at a distance of ``every`` bits.
    """

    name: str
    multiplier: int
    increment: int
    state: int
    low: int
    every: int = 32


GENERATORS = (
    Generator("java.util.Random or mrand48", 0x5DEECE66D, 0xB, 48, 16),
    Generator("lrand48", 0x5DEECE66D, 0xB, 48, 17),
    Generator("Knuth's MMIX generator", 6364136223846793005, 1442695040888963407, 64, 32),
    Generator("the generator of Numerical Recipes", 1664525, 1013904223, 32, 0),
)

#: GMP's, of which each step gives half a state. Three that nobody asks for by a round number of bits are left out.
GMP_GENERATORS = tuple(
    Generator(f"GMP's congruential generator of {size} bits", multiplier, 1, size, size // 2, size // 2)
    for size, multiplier in GMP_CONGRUENTIAL.items()
    if size not in {34, 36, 38}
)


@cache
def words(generator: Generator, bits: int, *, first_high: bool, swapped: bool) -> Digits:
    """Nonces of successive words of a generator.

    Args:
        generator: which.
        bits: of the nonce. The highest bits of the last word are left out where they do not fit.
        first_high: the first word has the highest place.
        swapped: the bytes of each word in reversed order, as java.math.BigInteger does.
    """
    every = generator.every
    count = -(-bits // every)
    size = generator.state - generator.low
    whole: list[tuple[int, int, int | None]] = [(0, size, 0)]
    if swapped:
        whole = [(8 * i, 8, 24 - 8 * i) for i in range(4)]
    cut = bits - every * (count - 1)  # what of the word fits that has the highest place
    highest = [(0, cut, 0), (cut, size - cut, None)] if cut < min(size, every) else whole
    words_pieces = [whole] * count
    words_pieces[0 if first_high else -1] = highest
    last = generator.low > 0  # the bits below the word are a digit of their own; else its first piece takes over
    total = sum(map(len, words_pieces)) + last * count
    modulus = 1 << generator.state
    sizes: list[int] = []
    weights: list[int] = []
    basis: list[list[int]] = []
    origin: list[int] = []
    powers, states = [1], [0]
    for _ in range(count - 1):
        powers.append(powers[-1] * generator.multiplier % modulus)
        states.append((states[-1] * generator.multiplier + generator.increment) % modulus)

    def unit(place: int, value: int) -> list[int]:
        return [value if place == other else 0 for other in range(total)]

    ones = [0] * total
    for j, pieces in enumerate(words_pieces):
        base = len(sizes)
        place = base + len(pieces) if last else base
        shift = every * (count - 1 - j if first_high else j)
        for i, (start, piece, put) in enumerate(pieces):
            sizes.append(piece)
            weights.append(0 if put is None else 1 << (shift + put))
            origin.append(0)
            if base + i != place:
                row = unit(base + i, 1)
                row[place] = -(1 << (generator.low + start))
                basis.append(row)
        if last:
            sizes.append(generator.low)
            weights.append(0)
            origin.append(0)
        origin[place] = states[j]
        ones[place] = powers[j]
        if j:
            basis.append(unit(place, modulus))
    basis.append(ones)
    order = ", the first word highest" if first_high else ", the first word lowest"
    name = f"its nonces are words of {generator.name}{', bytes swapped' if swapped else order}"
    return Digits(name, tuple(sizes), tuple(weights), tuple(map(tuple, basis)), tuple(origin))


# What is tried for one signer


@dataclass(frozen=True)
class Attempt:
    """One lattice: which lines it takes, and what follows if it finds something.

    Attributes:
        what: in words.
        places: of the lines; empty for the private key alone.
        run: gives candidates for d. Up to some five seconds at a time.
    """

    what: str
    places: Sequence[int]
    run: Callable[[], Iterator[int]]


#: Lines of the largest lattice that is tried in all ways.
_MOST = 40
#: By bits of the order, the largest lattice for short nonces: its lines, and how many bits the nonces have to lack.
#: P-521 with nonces of 512 bits is CVE-2024-31497.
_MOST_SHORT = ((256, 60, 6), (384, 60, 9), (521, 66, 9))
#: Windows of successive signatures, for signers of whose nonces some are sound, and from one window to the next.
_WINDOWS = ((4, 1), (10, 3))
#: Digits of a lattice for numbers of GMP.
_MOST_DIGITS = 106
_SHORT_NONCES = "its nonces are short"
_BEGIN_ALIKE, _END_ALIKE = "its nonces begin alike", "its nonces end alike"


def attempts(lines: Sequence[Line], order: int, *, low: bool = False) -> Iterator[Attempt]:
    """What to try on the signatures of one signer, the likeliest and cheapest first.

    Args:
        lines: in order of issue, different from each other.
        order: of the group, prime.
        low: every s is the smaller of s and order - s, so that half of the nonces have changed sign.
    """
    count = len(lines)
    if count >= 3:
        yield from _lattices(lines, order, range(min(count, _MOST)))
    for one in range(count - 1):
        yield from _of_digits(lines, order, (one, one + 1), (repeated_bytes,))
    own = (*lines, (0, 1))
    yield from _of_digits(own, order, (0, count), (repeated_bytes,))
    if count >= _UNKNOWN_LEAST:
        yield _structured(lines, order, range(min(count, unknown_needs(order))))
    for makers in (_plain_words(), _swapped_words()):
        for pair in dict.fromkeys([(0, 1), (count - 2, count - 1)]) if count > 1 else ():
            yield from _of_digits(lines, order, pair, makers)
        # the private key itself may come from the generator
        yield from _of_digits(own, order, (0, count), makers)
    yield from _of_gmp(lines, order)
    if count > unknown_needs(order):
        yield _structured(lines, order, range(min(count, 2 * unknown_needs(order))))
    bits = order.bit_length()
    for size, most, lacking in _MOST_SHORT:
        if bits <= size and count >= most:
            longest = range(most)
            chosen = _chosen(lines, longest)
            yield Attempt(_SHORT_NONCES, longest, partial(short, chosen, order, lacking, signed=low))
            yield Attempt(_BEGIN_ALIKE, longest, partial(common_start, chosen, order, lacking + 1))
            yield Attempt(_END_ALIKE, longest, partial(common_end, chosen, order, lacking + 1))
            break
    for size, step in _WINDOWS:
        if count > size:
            for start in range(0, count - size + 1, step):
                yield from _lattices(lines, order, range(start, start + size))


def _structured(lines: Sequence[Line], order: int, places: Sequence[int]) -> Attempt:
    chosen = _chosen(lines, places)
    return Attempt("its nonces have a structure in common", places, partial(unknown_structure, chosen, order))


def _chosen(lines: Sequence[Line], places: Sequence[int]) -> list[Line]:
    return [lines[place] for place in places]


def _lattices(lines: Sequence[Line], order: int, places: Sequence[int]) -> Iterator[Attempt]:
    """Short nonces, nonces that agree in front or behind."""
    chosen = _chosen(lines, places)
    bits = least_bits(order, len(places))
    yield Attempt(_SHORT_NONCES, places, lambda: short(chosen, order, bits))
    # also finds nonces that are shorter still, which for the first lattice all lie at the far end
    yield Attempt(_SHORT_NONCES, places, lambda: short(chosen, order, bits, signed=True))
    if len(places) > 3:
        fewer = least_bits(order, len(places) - 1) + 1  # differences have a sign
        yield Attempt(_BEGIN_ALIKE, places, lambda: common_start(chosen, order, fewer))
        yield Attempt(_END_ALIKE, places, lambda: common_end(chosen, order, fewer))


_Maker = Callable[[int], Digits]


@cache
def _plain_words() -> tuple[_Maker, ...]:
    return tuple(
        partial(words, generator, first_high=first_high, swapped=False)
        for generator in GENERATORS
        for first_high in (True, False)
    )


@cache
def _swapped_words() -> tuple[_Maker, ...]:
    return (partial(words, GENERATORS[0], first_high=True, swapped=True),)


def _of_digits(lines: Sequence[Line], order: int, places: Sequence[int], makers: Sequence[_Maker]) -> Iterator[Attempt]:
    """Nonces made of digits, where the order is as long as whole words."""
    bits = order.bit_length()
    if bits % 32 or not 160 <= bits <= 384:
        return
    chosen = _chosen(lines, places)
    for maker in makers:
        shape = maker(bits)
        known = [place for place in places if lines[place] != (0, 1)]
        yield Attempt(shape.name, known, partial(digits, chosen, order, shape))


def _of_gmp(lines: Sequence[Line], order: int) -> Iterator[Attempt]:
    """Numbers of GMP's congruential generators: as many lines as the unknown states need, the first and the last."""
    bits, count = order.bit_length(), len(lines)
    for generator in GMP_GENERATORS:
        # each line tells as many bits as the order has and brings a state; d is unknown, too
        need = next((many for many in range(2, 8) if many * (bits - generator.state) - bits >= 8 * many), 8)
        if need > min(count, 7) or 2 * need * bits // generator.every > _MOST_DIGITS:
            continue
        shape = words(generator, bits, first_high=False, swapped=False)
        last = tuple(range(count - need, count))
        for places in dict.fromkeys((tuple(range(need)), last) if need <= 3 else (last,)):
            yield Attempt(shape.name, places, partial(digits, _chosen(lines, places), order, shape))
