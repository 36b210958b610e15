"""Lattices and polynomials: whatever comes out divides N, and planted patterns within the stated reach come out."""

from __future__ import annotations

from random import Random

import gmpy2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.keymath import lattice


def prime(random: Random, size: int) -> int:
    return int(gmpy2.next_prime(random.getrandbits(size) | 3 << (size - 2)))


def repeated(word: int, period: int, size: int) -> int:
    return sum(word << place for place in range(0, size, period)) & (1 << size) - 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 58), st.integers(0, 2**32))
def test_repeated_words_within_reach_are_found(period: int, seed: int) -> None:
    random = Random(seed)
    word = random.getrandbits(period) | 1 << (period - 1)
    p, q = int(gmpy2.next_prime(repeated(word, period, 512) | 1 << 511)), prime(random, 512)
    assert lattice.pattern_factor(p * q) in (p, q)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2**1100), st.sampled_from([1, 3, 2**32 - 1, 2**64 - 1]), st.integers(0, 64))
def test_every_answer_divides(n: int, multiplier: int, balance: int) -> None:
    n |= 1
    factor = lattice.pattern_factor(n, multiplier, balance=balance)
    assert factor is None or (1 < factor < n and n % factor == 0)
    factor = lattice.polynomial_factor(n, 64)
    assert factor is None or (1 < factor < n and n % factor == 0)


def test_sound_keys_have_no_pattern() -> None:
    random = Random(3)
    primes = [prime(random, 512) for _ in range(24)]
    assert not any(lattice.pattern_factor(p * q) for p, q in zip(primes[::2], primes[1::2], strict=True))


@pytest.mark.parametrize("bits", [1024, 2048, 4096])
def test_denominators_stay_within_the_reach(bits: int) -> None:
    found = lattice.multipliers(bits)
    assert list(found) == sorted(set(found))
    assert all(d > 7 and d.bit_length() <= bits // 8 - 18 for d in found)
    assert 2**64 - 1 in found


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([(32, 7), (64, 20), (128, 48)]))
def test_products_of_polynomials_come_apart(seed: int, shape: tuple[int, int]) -> None:
    """N = P(B) Q(B) with random small coefficients: the factors need not be prime."""
    width, coefficient = shape
    random = Random(seed)
    p, q = (sum((random.getrandbits(coefficient) | 1) << place for place in range(0, 512, width)) for _ in range(2))
    factor = lattice.polynomial_factor(p * q, width)
    assert factor is not None
    assert p * q % factor == 0
