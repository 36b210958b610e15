"""Patterns in the bits of many integers at once: shared zeros, few ones, repeated words, common ends; sparse factors.

Screens are array operations whose limits follow from a stated probability for uniform bits, never from experience.
Matrices hold little-endian bytes, one integer of ``bits`` bits a row, the width a multiple of 8 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from heapq import nsmallest
from itertools import islice
from math import comb
from operator import itemgetter

import gmpy2
import numpy as np
from numpy.typing import NDArray

#: Word widths in bytes whose shared zeros are counted, each base followed by its halves.
_BASES = ((32, (32, 16, 8, 4, 2)), (24, (24, 12, 6)), (28, (28, 14)), (20, (20, 10)))

#: Widths in the order of the columns of ``shared_zeros``.
WIDTHS = tuple(width for _, widths in _BASES for width in widths)


def shared_zeros(matrix: NDArray[np.uint8], bits: int) -> NDArray[np.uint16]:
    """Bits of a word that are zero in all words of a number, for words of each of ``WIDTHS`` bytes.

    Left out are the lowest word of the base width (it holds the tail of a search for primes) and the highest one
    if it is not whole.

    Returns:
        Shape (rows, len(WIDTHS)); 0 in the columns of widths of which fewer than three words are left.
    """
    limbs = matrix.view(np.uint32)
    counts = np.zeros((len(matrix), len(WIDTHS)), dtype=np.uint16)
    column = 0
    for widest, widths in _BASES:
        base = _base(bits, widest)
        last = bits // (8 * base)
        if last < 4:
            column += len(widths)
            continue
        size = base // 4
        share = limbs[:, size : 2 * size].copy()
        for place in range(2 * size, last * size, size):
            share |= limbs[:, place : place + size]
        for width in widths:
            if width < base:
                halves = share.view(np.uint16)
                middle = halves.shape[1] // 2
                share = (halves[:, :middle] | halves[:, middle:]).view(np.uint32 if middle % 2 == 0 else np.uint16)
            if width <= base:
                ones = np.bitwise_count(share).sum(axis=1, dtype=np.uint16)
                counts[:, column] = 8 * width - ones
            column += 1
    return counts


def _base(bits: int, widest: int) -> int:
    """The widest word, or its half and so on, of which a number has at least four."""
    base = widest
    while bits < 4 * 8 * base and base % 8 == 0:
        base //= 2
    return base


@cache
def shared_zeros_limits(bits: int, exponent: int) -> tuple[int, ...]:
    """From how many shared zeros on chance is excluded, for each of ``WIDTHS``.

    A uniform number reaches the limit of one width with probability at most 2^-exponent; limits above the number
    of bits of a word mean that the width tells nothing.
    """
    # A bit is zero in all words with probability 2^-words, independently of the other bits.
    limits: list[int] = []
    for widest, widths in _BASES:
        base = _base(bits, widest)
        words = bits // (8 * base) - 1
        limits.extend(
            _binomial_limit(8 * width, words * (base // width), exponent)
            if words >= 3 and width <= base
            else 8 * width + 1
            for width in widths
        )
    return tuple(limits)


def _binomial_limit(trials: int, log2_of_odds: int, exponent: int) -> int:
    """The least k with C(trials, k) * 2^(-k * log2_of_odds) <= 2^-exponent (a bound of the binomial tail)."""
    for k in range(trials + 1):
        if comb(trials, k) << exponent <= 1 << (k * log2_of_odds):
            return k
    return trials + 1


def ones_at_the_ends(matrix: NDArray[np.uint8]) -> NDArray[np.int64]:
    """One bits in the lowest and highest 1, 2, 4 and 8 words of 64 bits, in all, and in both halves.

    Returns:
        Shape (rows, 11): lowest 1, 2, 4, 8; highest 1, 2, 4, 8; all; lower half; upper half of the words.
    """
    words = np.bitwise_count(matrix.view(np.uint64)).astype(np.float32)
    total = words.shape[1]
    chosen = np.zeros((total, 11), dtype=np.float32)
    for column, count in enumerate((1, 2, 4, 8)):
        chosen[:count, column] = 1
        chosen[max(total - count, 0) :, column + 4] = 1
    chosen[:, 8] = 1
    chosen[: total // 2, 9] = 1
    chosen[total // 2 :, 10] = 1
    ones: NDArray[np.int64] = np.rint(words @ chosen).astype(np.int64)
    return ones


def window_bits(bits: int) -> NDArray[np.int64]:
    """Length in bits of the eleven windows of ``ones_at_the_ends``."""
    total = (bits + 63) // 64
    missing = 64 * total - bits
    low = [64 * min(count, total) for count in (1, 2, 4, 8)]
    high = [64 * min(count, total) - missing for count in (1, 2, 4, 8)]
    half = total // 2
    whole = [bits, 64 * half, 64 * (total - half) - missing]
    lengths = np.array(low + high + whole, dtype=np.int64)
    return np.minimum(lengths, bits)


def lightness(matrix: NDArray[np.uint8], bits: int) -> NDArray[np.float64]:
    """How many standard deviations each window of ``ones_at_the_ends`` has fewer ones than half.

    Returns:
        Shape (rows, 9): the ends and the whole.
    """
    lengths = np.maximum(window_bits(bits)[:9], 1)
    deviations: NDArray[np.float64] = (lengths / 2 - ones_at_the_ends(matrix)[:, :9]) / np.sqrt(lengths / 4)
    return deviations


@cache
def weight_limits(length: int, exponent: int) -> tuple[int, int]:
    """(low, high): a uniform number of ``length`` bits has fewer ones than low with probability <= 2^-exponent.

    Likewise more than high. Exact tails, not the normal approximation.
    """
    total, ways = 0, 1
    for low in range(length + 1):
        total += ways
        if total << exponent > 1 << length:
            return low, length - low
        ways = ways * (length - low) // (low + 1)
    return 0, length


def repeated_words(matrix: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Rows in which an aligned word of 8 bytes comes twice (all words of the width that are whole)."""
    words = np.sort(matrix.view(np.uint64), axis=1)
    return np.asarray((words[:, 1:] == words[:, :-1]).any(axis=1))


def equal_bytes(matrix: NDArray[np.uint8], count: int) -> NDArray[np.bool_]:
    """Rows in which one byte comes so many times (a power of two and one) in a row."""
    run = matrix[:, 1:] == matrix[:, :-1]
    shift = 1
    while shift < count - 1:
        run = run[:, shift:] & run[:, :-shift]
        shift *= 2
    return np.asarray(run.any(axis=1))


def printable_words(matrix: NDArray[np.uint8], words: int) -> NDArray[np.bool_]:
    """Rows in which so many adjacent aligned words of 8 bytes consist of printable ASCII alone."""
    printable = ((matrix - np.uint8(32)) < np.uint8(95)).view(np.uint64) == 0x0101010101010101
    count = printable.shape[1] - words + 1
    if count < 1:
        return np.zeros(len(matrix), dtype=np.bool_)
    run = printable[:, :count].copy()
    for shift in range(1, words):
        run &= printable[:, shift : shift + count]
    return np.asarray(run.any(axis=1))


#: After so many bits the beam is given up where the lightest state weighs more than this.
_LOOK, _HOPELESS = 128, 30

_State = tuple[int, gmpy2.mpz, gmpy2.mpz, gmpy2.mpz]


def _beam(n: int, states: int) -> Iterator[list[_State]]:
    """Step t yields the lightest ways (weight, p, q, rest) to have N = pq + rest * 2^t, t = 1, 2, ..."""
    beam: list[_State] = [(2, gmpy2.mpz(1), gmpy2.mpz(1), gmpy2.mpz(n - 1) >> 1)]
    bit = gmpy2.mpz(1)
    t = 0
    while beam:
        yield beam
        bit <<= 1
        t += 1
        following: list[_State] = []
        for weight, p, q, rest in beam:
            if rest & 1:
                following.append((weight + 1, p.bit_set(t), q, (rest - q) >> 1))
                if p != q:
                    following.append((weight + 1, p, q.bit_set(t), (rest - p) >> 1))
            else:
                following.append((weight, p, q, rest >> 1))
                following.append((weight + 2, p.bit_set(t), q.bit_set(t), (rest - p - q - bit) >> 1))
        following = [state for state in following if state[3] >= 0]
        beam = following if len(following) <= states else nsmallest(states, following, key=itemgetter(0))


def sparse_factor(n: int, states: int, reached: Callable[[int], None] | None = None) -> int | None:
    """A factor of N if both primes have few one bits: beam search from the low end.

    A state is two numbers p, q with N = pq modulo 2^t; the lightest ``states`` survive each further bit. Finds
    primes of weight 24 of 512 with 100 states, of weight 40 mostly with 1,000. Nothing is known about others.

    Args:
        n: odd, positive.
        states: width of the beam; the cost is about (bits of N) * states microseconds, or the same for 128 bits if
            nothing light has been found by then.
        reached: gets the number of bits done, after each; it may end the search by raising.

    Returns:
        A factor between 1 and N, or None.
    """
    for bit, beam in enumerate(islice(_beam(n, states), n.bit_length() // 2 + 2)):
        # whatever N is, 400 states find a weight of 31 to 36 here; those of sparse primes that are found have less
        if bit == _LOOK and min(state[0] for state in beam) > _HOPELESS:
            return None
        if reached is not None:
            reached(bit + 1)
        for _, p, _, rest in beam:
            if rest == 0 and 1 < p < n and n % p == 0:
                return int(p)
    return None


def lightest_start(n: int, bits: int, states: int) -> int:
    """The least weight of two numbers whose product agrees with N in its low ``bits`` bits, as far as a beam sees.

    Sound keys have 24 or more at 96 bits and 32 states.
    """
    beams = list(islice(_beam(n, states), bits))
    return min((state[0] for state in beams[-1]), default=0) if len(beams) == bits else 0


#: The same from the top, where the search also weighs what is left of N: of sound keys the lightest start of 128 bits
#: weighs 35 and more with 1,000 states.
_HOPELESS_TOP = 32
#: Bits of the remainder that one more one bit is worth.
_BITS_OF_A_ONE = 5


def lightest_tops(
    n: int, length: int, states: int, reached: Callable[[int], None] | None = None
) -> list[tuple[int, int]]:
    """How two primes of equal length with few one bits in their upper part may begin: beam search from the top.

    A state is two numbers P, Q of t bits with P Q 4^s <= N < (P + 1)(Q + 1) 4^s, where s bits of each prime are left;
    those survive that have few ones and leave little of N.

    Args:
        n: positive.
        length: bits of each beginning, at most half of N's.
        states: width of the beam; the cost is about (bits of N) * states microseconds, or that of 128 bits if nothing
            light has been found by then.
        reached: gets the number of bits done, after each; it may end the search by raising.

    Returns:
        Pairs of beginnings with their highest bits set, the likeliest first; none if nothing is light. With 400 states,
        primes with ones in 6 % of their upper bits are among them eight times of nine.
    """
    half = (n.bit_length() + 1) // 2
    modulus = gmpy2.mpz(n)
    # what counts, the weight, and the two numbers
    beam = [(0, 2, gmpy2.mpz(1), gmpy2.mpz(1))]
    for done in range(1, length):
        left = half - 1 - done
        part = modulus >> (2 * left)
        following: list[tuple[int, int, gmpy2.mpz, gmpy2.mpz]] = []
        for _, weight, one, other in beam:
            p, q = one << 1, other << 1
            rest = part - p * q
            for ones, next_p, next_q, next_rest in (
                (0, p, q, rest),
                (1, p + 1, q, rest - q),
                (1, p, q + 1, rest - p),
                (2, p + 1, q + 1, rest - p - q - 1),
            ):
                if 0 <= next_rest <= next_p + next_q and (p != q or next_p >= next_q):
                    score = _BITS_OF_A_ONE * (weight + ones) + next_rest.bit_length()
                    following.append((score, weight + ones, next_p, next_q))
        beam = following if len(following) <= states else nsmallest(states, following, key=itemgetter(0))
        if not beam or (done == _LOOK and min(state[1] for state in beam) > _HOPELESS_TOP):
            return []
        if reached is not None:
            reached(done + 1)
    return [(int(p), int(q)) for _, _, p, q in sorted(beam, key=itemgetter(0))]


#: Each byte with its bits in the opposite order.
_REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"), axis=1)[:, 0]

#: Bits at the ends of numbers that ``common_runs`` compares.
END = 128


def end_of_many(numbers: Sequence[int], *, leading: bool) -> NDArray[np.uint64]:
    """The ``END`` bits at one end of each number, the outermost bit first.

    Args:
        numbers: of ``END`` bits or more each; leading ends only mean something among numbers of one length.
        leading: the highest bits, else the lowest ones in reversed order.

    Returns:
        Shape (len(numbers), 2): the first 64 bits and the next 64.
    """
    if leading:
        ends = [(number >> (number.bit_length() - END)).to_bytes(END // 8, "big") for number in numbers]
        matrix = np.frombuffer(b"".join(ends), dtype=np.uint8)
    else:
        mask = (1 << END) - 1
        ends = [(number & mask).to_bytes(END // 8, "little") for number in numbers]
        matrix = _REVERSED[np.frombuffer(b"".join(ends), dtype=np.uint8)]
    return matrix.view(">u8").astype(np.uint64).reshape(-1, 2)


def common_runs(ends: NDArray[np.uint64], least: int) -> list[tuple[int, int, int]]:
    """Rows that begin like another row, for ``least`` bits at least.

    Args:
        ends: as ``end_of_many`` makes them.
        least: bits, 1 to ``END``.

    Returns:
        (row, the row that it has most in common with, how many rows have ``least`` bits in common with it, itself
        counted), in the order of rows.
    """
    if len(ends) < 2:
        return []
    order = np.lexsort((ends[:, 1], ends[:, 0]))
    differences = ends[order[1:]] ^ ends[order[:-1]]
    # in sorted order the longest common beginning is always that of a neighbour
    common = _leading_zeros(differences[:, 0])
    common += np.where(common == 64, _leading_zeros(differences[:, 1]), 0)
    close = common >= least
    if not close.any():
        return []
    clusters = np.concatenate(([0], np.cumsum(~close)))
    sizes = np.bincount(clusters)
    before, after = np.concatenate(([0], common)), np.concatenate((common, [0]))
    found = []
    for place in np.flatnonzero(sizes[clusters] > 1).tolist():
        partner = place + 1 if after[place] >= before[place] else place - 1
        found.append((int(order[place]), int(order[partner]), int(sizes[clusters[place]])))
    return sorted(found)


def _leading_zeros(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    smeared = values.copy()
    for shift in (1, 2, 4, 8, 16, 32):
        smeared |= smeared >> np.uint64(shift)
    return 64 - np.bitwise_count(smeared).astype(np.int64)
