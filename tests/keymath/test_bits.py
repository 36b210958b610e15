"""The laws that the bit screens state: limits are true bounds, columns count what they say."""

from __future__ import annotations

import re
from math import comb
from random import Random

import gmpy2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.keymath import arrays, bits

RANDOM = Random(20260921)


def matrix_of(numbers: list[int], size: int) -> np.ndarray:
    return arrays.byte_matrix(numbers, (size + 63) // 64 * 8)


@given(st.integers(1, 2**1100 - 1))
def test_windows_count_their_bits(n: int) -> None:
    size = n.bit_length()
    matrix = matrix_of([n], size)
    words = matrix.shape[1] // 8
    ones = bits.ones_at_the_ends(matrix)[0]
    lengths = bits.window_bits(size)
    for column, count in enumerate((1, 2, 4, 8)):
        assert ones[column] == (n & (1 << 64 * count) - 1).bit_count()
        assert ones[column + 4] == (n >> 64 * max(words - count, 0)).bit_count()
    assert ones[8] == n.bit_count() == ones[9] + ones[10]
    assert (ones <= lengths).all()
    assert lengths[8] == size == lengths[9] + lengths[10]


@given(st.integers(2**1023, 2**1024 - 1), st.sampled_from([8, 16, 32, 4]))
def test_planted_zeros_are_all_counted(n: int, width: int) -> None:
    """Whatever the lowest word of the base width holds, zeros in all other words are seen."""
    zeros = (1 << (4 * width)) - 1
    for place in range(32, 1024 // 8, width):
        n &= ~(zeros << (8 * place))
    counted = bits.shared_zeros(matrix_of([n], 1024), 1024)[0]
    assert counted[bits.WIDTHS.index(width)] >= 4 * width


def test_limits_of_shared_zeros_are_tail_bounds() -> None:
    limits = dict(zip(bits.WIDTHS, bits.shared_zeros_limits(2048, 30), strict=True))
    for width, words in ((32, 7), (8, 28), (24, 9), (28, 8), (20, 11)):
        odds = 2.0**-words
        tail = sum(
            comb(8 * width, k) * odds**k * (1 - odds) ** (8 * width - k) for k in range(limits[width], 8 * width + 1)
        )
        assert tail < 2**-30
    numbers = [RANDOM.getrandbits(2048) | 1 << 2047 for _ in range(2000)]
    counted = bits.shared_zeros(matrix_of(numbers, 2048), 2048)
    assert not (counted >= np.array(bits.shared_zeros_limits(2048, 30))).any()


def test_weight_limits_are_exact() -> None:
    for length in (64, 500, 2048):
        low, high = bits.weight_limits(length, 20)
        below = sum(comb(length, k) for k in range(low))
        assert below << 20 <= 1 << length < (below + comb(length, low)) << 20
        assert low + high == length


@given(st.binary(min_size=256, max_size=256), st.integers(0, 31), st.integers(0, 31))
def test_repeated_words_are_those_that_a_set_finds(octets: bytes, one: int, two: int) -> None:
    octets = octets[: 8 * one] + octets[8 * two : 8 * two + 8] + octets[8 * one + 8 :]
    words = [octets[place : place + 8] for place in range(0, 256, 8)]
    matrix = np.frombuffer(octets, dtype=np.uint8).reshape(1, -1)
    assert bits.repeated_words(matrix)[0] == (len(set(words)) < len(words))


@settings(deadline=None, max_examples=200)
@given(octets=st.binary(min_size=40, max_size=64), place=st.integers(0, 31), length=st.integers(0, 12))
def test_equal_bytes_in_a_row_are_those_that_a_pattern_finds(octets: bytes, place: int, length: int) -> None:
    octets = octets[:place] + octets[place : place + 1] * length + octets[place + length :]
    matrix = np.frombuffer(octets, dtype=np.uint8).reshape(1, -1)
    expected = re.search(rb"(.)\1{8}", octets, re.DOTALL) is not None
    assert bits.equal_bytes(matrix, 9).tolist() == [expected]


def test_text_is_seen_where_it_stands() -> None:
    for offset in range(9):
        octets = b"\xff" * (40 + offset) + b"a sentence of forty-eight octets, if you count it" + b"\xff" * 200
        matrix = np.frombuffer(octets[:256], dtype=np.uint8).reshape(1, -1)
        assert bits.printable_words(matrix, 5)[0]
        assert not bits.printable_words(matrix, 7)[0]


def sparse_prime(size: int, weight: int) -> int:
    while True:
        n = 1 | 1 << (size - 1) | sum(1 << place for place in RANDOM.sample(range(1, size - 1), weight - 2))
        if gmpy2.is_prime(n):
            return n


def test_beam_finds_sparse_primes_and_nothing_else() -> None:
    p, q = sparse_prime(256, 10), sparse_prime(256, 10)
    assert bits.sparse_factor(p * q, 400) in (p, q)
    assert bits.lightest_start(p * q, 96, 32) <= 20
    p, q = (int(gmpy2.next_prime(RANDOM.getrandbits(256) | 3 << 254)) for _ in range(2))
    assert bits.sparse_factor(p * q, 50) is None
    assert bits.lightest_start(p * q, 96, 32) > 20
    for n in (1, 3, 9, 2**64 - 1):
        factor = bits.sparse_factor(n, 10)
        assert factor is None or 1 < factor < n


def sound_moduli(count: int, size: int) -> np.ndarray:
    """Products of two random odd numbers with their two top bits set: what a screen sees of sound keys."""
    random = Random(size)
    half = size // 2
    top = 3 << (half - 2) | 1
    numbers = [(random.getrandbits(half) | top) * (random.getrandbits(half) | top) for _ in range(count)]
    return matrix_of(numbers, size)


def light_above(random: Random, size: int, free: int, ones: int) -> int:
    """A prime with so many ones above its free low bits."""
    while True:
        places = random.sample(range(free, size - 1), ones - 1)
        found = 1 << (size - 1) | sum(1 << place for place in places) | random.getrandbits(free) | 1
        if gmpy2.is_prime(found):
            return found


def test_light_beginnings_are_found_and_sound_ones_given_up() -> None:
    random = Random(64)
    found = 0
    for _ in range(6):
        p, q = (light_above(random, 512, 200, 20) for _ in "pq")
        tops = bits.lightest_tops(p * q, 307, 200)
        assert all(one * other << 410 <= p * q for one, other in tops)
        found += {p >> 205, q >> 205} in [set(pair) for pair in tops]
    assert found >= 4
    for _ in range(20):
        p, q = (int(gmpy2.next_prime(random.getrandbits(512) | 3 << 510)) for _ in "pq")
        done: list[int] = []
        assert bits.lightest_tops(p * q, 307, 100, done.append) == []
        assert max(done) == 128


@pytest.mark.parametrize("size", [1024, 2048])
def test_sound_moduli_pass_the_limits_of_shared_zeros_as_rarely_as_stated(size: int) -> None:
    """At 2^-6 a width: a limit that were no bound would show among 12,000 moduli."""
    matrix = sound_moduli(12_000, size)
    for columns in (matrix, ~matrix):
        counted = bits.shared_zeros(columns, size)
        rates = (counted >= np.array(bits.shared_zeros_limits(size, 6))).mean(axis=0)
        assert (rates <= 2.0**-6 + 0.005).all()
        assert rates.max() > 2.0**-9  # and the bound is not idle


@pytest.mark.parametrize("size", [1024, 2048])
def test_sound_moduli_have_as_many_ones_as_stated(size: int) -> None:
    matrix = sound_moduli(12_000, size)
    ones = bits.ones_at_the_ends(matrix)
    for column, length in enumerate(bits.window_bits(size).tolist()):
        low, high = bits.weight_limits(length, 6)
        # forced bits at both ends move the mean by one, at the top by one and a half
        assert (ones[:, column] < low - 2).mean() <= 2.0**-6 + 0.005
        assert (ones[:, column] > high + 2).mean() <= 2.0**-6 + 0.005
        assert ((ones[:, column] < low) | (ones[:, column] > high)).mean() > 2.0**-9


def test_sound_moduli_are_light_as_rarely_as_the_normal_distribution_says() -> None:
    """The screen of sparse primes, at 3 standard deviations instead of 5.5: 0.13 % a window, nine windows."""
    light = bits.lightness(sound_moduli(12_000, 2048), 2048)
    rates = (light > 3).mean(axis=0)
    assert (rates < 0.0013 + 0.0015).all()
    assert (light.max(axis=1) > 5.5).sum() == 0


def test_sound_moduli_are_printable_as_rarely_as_stated() -> None:
    """(95/256)^(8 words) at each place."""
    matrix = sound_moduli(20_000, 2048)
    expected = 1 - (1 - (95 / 256) ** 8) ** 32
    measured = bits.printable_words(matrix, 1).mean()
    assert abs(measured - expected) < 6 * (expected / 20_000) ** 0.5
    assert not bits.repeated_words(matrix).any()


def common_bits(one: int, other: int) -> int:
    """Equal leading bits of two numbers of 128 bits, by text."""
    pairs = zip(format(one, "0128b"), format(other, "0128b"), strict=True)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), 128)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 127), st.integers(0, 2**128 - 1)), max_size=12),
    st.integers(1, 128),
)
def test_common_runs_are_those_of_all_pairs(parts: list[tuple[int, int, int]], least: int) -> None:
    """Numbers that leave one of four stems at some bit, beside the comparison of each with each."""
    stems = [Random(stem).getrandbits(128) for stem in range(4)]
    numbers = list(dict.fromkeys(stems[stem] ^ rest >> free for stem, free, rest in parts))
    ends = np.array([(n >> 64, n & 2**64 - 1) for n in numbers], dtype=np.uint64).reshape(-1, 2)
    found = {row: (partner, together) for row, partner, together in bits.common_runs(ends, least)}
    for row, number in enumerate(numbers):
        others = {place: common_bits(number, n) for place, n in enumerate(numbers) if place != row}
        if max(others.values(), default=0) < least:
            assert row not in found
            continue
        partner, together = found[row]
        assert others[partner] == max(others.values())
        assert together == 1 + sum(common >= least for common in others.values())


@given(st.lists(st.integers(2**199, 2**200 - 1), max_size=6))
def test_ends_are_read_from_outside(numbers: list[int]) -> None:
    leading = bits.end_of_many(numbers, leading=True).tolist()
    trailing = bits.end_of_many(numbers, leading=False).tolist()
    for number, first, last in zip(numbers, leading, trailing, strict=True):
        text = format(number, "b")
        assert f"{first[0]:064b}{first[1]:064b}" == text[:128]
        assert f"{last[0]:064b}{last[1]:064b}" == text[::-1][:128]
