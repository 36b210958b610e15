"""Common factors of N - 1: who shares is found with a partner, and is factored within the stated reach."""

from __future__ import annotations

from math import prod
from random import Random

import gmpy2
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.keymath.subprimes import factor_by_subprime, rough_part, shared_subprimes


def prime(random: Random, size: int) -> int:
    return int(gmpy2.next_prime(random.getrandbits(size) | 3 << (size - 2)))


def common(random: Random, r: int, size: int) -> int:
    while True:
        found = 2 * r * (random.getrandbits(size - r.bit_length() - 1) | 1 << (size - r.bit_length() - 2)) + 1
        if gmpy2.is_prime(found):
            return found


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(66, 120))
def test_primes_with_a_common_factor_come_apart(seed: int, size: int) -> None:
    random = Random(seed)
    r = prime(random, size)
    p, q = common(random, r, 128), common(random, r, 128)
    if p != q:
        assert factor_by_subprime(p * q, r) in (p, q)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2**300), st.integers(1, 2**160))
def test_every_answer_divides(n: int, r: int) -> None:
    n, r = n | 1, r | 1
    for number in (n, 2 * r * n + 1, (2 * r * n + 1) ** 2):
        factor = factor_by_subprime(number, r)
        assert factor is None or (1 < factor < number and number % factor == 0)


@given(st.lists(st.sampled_from([2, 3, 5, 1_048_573]), max_size=12), st.sampled_from([1, 1_048_583, 2**61 - 1]))
def test_the_rough_part_is_what_small_primes_leave(small: list[int], large: int) -> None:
    assert rough_part(prod(small) * large) == large


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(2, 4), min_size=1, max_size=3), st.integers(0, 6))
def test_groups_are_found_and_nobody_else(seed: int, sizes: list[int], sound: int) -> None:
    """Keys of several groups, shuffled among sound ones; each partner is of the same group."""
    random = Random(seed)
    groups: dict[int, int] = {}
    for size in sizes:
        r = prime(random, 80)
        for _ in range(size):
            groups[common(random, r, 140) * common(random, r, 140)] = r
    moduli = [*groups, *(prime(random, 140) * prime(random, 140) for _ in range(sound))]
    random.shuffle(moduli)
    found = shared_subprimes(moduli, 64)
    assert {moduli[index] for index in found} == set(groups)
    for index, (r, partner) in found.items():
        assert partner != index
        assert r % groups[moduli[index]] == 0
        assert (moduli[index] - 1) % r == (moduli[partner] - 1) % r == 0


def test_a_key_in_two_groups_has_a_partner() -> None:
    """What it has in common with all others together is in common with none of them."""
    random = Random(4)
    r, s = prime(random, 70), prime(random, 70)
    both = common(random, r * s, 200) * common(random, r * s, 200)
    with_r, with_s = (common(random, one, 200) * common(random, one, 200) for one in (r, s))
    found = shared_subprimes([both, with_r, with_s], 64)
    assert set(found) == {0, 1, 2}
    assert all(one in (r, s) for one, _ in found.values())
    assert {found[1][1], found[2][1]} == {0}


def test_small_common_factors_count_for_nothing() -> None:
    random = Random(9)
    smooth = int(gmpy2.primorial(500)) // 2
    moduli = [common(random, smooth, 800) * common(random, smooth, 800) for _ in range(2)]
    assert gmpy2.gcd(moduli[0] - 1, moduli[1] - 1).bit_length() > 600
    assert shared_subprimes(moduli, 64) == {}
