"""Factors with a known part: all within the stated reach are found, nothing else is ever said."""

from __future__ import annotations

from random import Random

import gmpy2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.keymath import coppersmith

SHAPES = [(1, 2), (2, 3), (4, 4), (6, 6)]


def prime(random: Random, size: int) -> int:
    return int(gmpy2.next_prime(random.getrandbits(size) | 3 << (size - 2)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(SHAPES), st.integers(0, 40))
def test_leading_bits_within_reach_give_the_factor(seed: int, shape: tuple[int, int], less: int) -> None:
    """To the last bit of the formula, since the unknown part is centred."""
    random = Random(seed)
    p, q = prime(random, 256), prime(random, 256)
    n = p * q
    unknown = coppersmith.reach(n.bit_length(), shape) + 1 - less
    assert coppersmith.factor_near(n, p >> unknown << unknown, unknown, shape) in (p, q)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(SHAPES))
def test_trailing_bits_within_reach_give_the_factor(seed: int, shape: tuple[int, int]) -> None:
    random = Random(seed)
    p, q = prime(random, 256), prime(random, 256)
    n = p * q
    unknown = coppersmith.reach(n.bit_length(), shape)
    known = 256 - unknown
    assert coppersmith.factor_ending(n, p % (1 << known), known, unknown, shape) in (p, q)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 2**20))
def test_any_step_that_is_known_will_do(seed: int, step: int) -> None:
    """p = a modulo any number: the form of primes made from a product of small ones."""
    random = Random(seed)
    p, q = prime(random, 256), prime(random, 256)
    n = p * q
    step = (step << 140) | 1
    quotient, offset = divmod(p, step)
    unknown = coppersmith.reach(n.bit_length())
    assert quotient.bit_length() <= unknown or coppersmith.factor_of_form(n, offset, step, unknown) in (None, p, q)
    bits = min(unknown, max(quotient.bit_length(), 1))
    if quotient.bit_length() <= bits:
        assert coppersmith.factor_of_form(n, offset, step, bits) in (p, q)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 2**700),
    st.integers(0, 2**400),
    st.sampled_from([1, 3, 2**100, 2**61 - 1, 3**80]),
    st.integers(1, 160),
    st.sampled_from([(1, 2), (2, 3), (4, 4)]),
)
def test_every_answer_divides(n: int, offset: int, step: int, bits: int, shape: tuple[int, int]) -> None:
    """Whatever N is: small, a square, a multiple of the step."""
    n |= 1
    for number in (n, n * n, n * step | 1):
        factor = coppersmith.factor_of_form(number, offset, step, bits, shape)
        assert factor is None or (1 < factor < number and number % factor == 0)


def test_beyond_the_reach_nothing_follows() -> None:
    """A fifth of the bits and 12 more: the lattice has no vector that is short enough."""
    random = Random(8)
    for _ in range(8):
        p, q = prime(random, 256), prime(random, 256)
        unknown = coppersmith.reach(512) + 13
        assert coppersmith.factor_near(p * q, p >> unknown << unknown, unknown) is None


def test_reach_grows_towards_a_quarter() -> None:
    """The figures of the literature: n/6, n/5, 3n/14, 5n/22, 9n/38 bits."""
    bits = 175_560
    shares = [(1, 6), (1, 5), (3, 14), (5, 22), (9, 38)]
    assert [coppersmith.reach(bits, shape) + 1 for shape in [*SHAPES, (10, 10)]] == [bits * a // b for a, b in shares]


@pytest.mark.parametrize("low", [True, False])
def test_the_larger_prime_of_an_unbalanced_modulus_is_found(low: bool) -> None:
    """The reach is stated for half the bits of N; a longer prime is found as well."""
    random = Random(5)
    p, q = prime(random, 300), prime(random, 212)
    unknown = coppersmith.reach(512)
    if low:
        factor = coppersmith.factor_ending(p * q, p % (1 << 300 - unknown), 300 - unknown, unknown)
    else:
        factor = coppersmith.factor_near(p * q, p >> unknown << unknown, unknown)
    assert factor in (p, q)
