"""Common factors of N - 1: who shares is found with a partner, and is factored within the stated reach."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from random import Random

import gmpy2
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.keymath.factoring import product
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
    for index, one in found.items():
        assert one.partner is not None
        assert one.partner != index
        assert one.divisor % groups[moduli[index]] == 0
        assert (moduli[index] - 1) % one.divisor == (moduli[one.partner] - 1) % one.divisor == 0


def test_a_key_in_two_groups_has_a_partner() -> None:
    """What it has in common with all others together is in common with none of them."""
    random = Random(4)
    r, s = prime(random, 70), prime(random, 70)
    both = common(random, r * s, 200) * common(random, r * s, 200)
    with_r, with_s = (common(random, one, 200) * common(random, one, 200) for one in (r, s))
    found = shared_subprimes([both, with_r, with_s], 64)
    assert set(found) == {0, 1, 2}
    assert all(one.divisor in (r, s) for one in found.values())
    assert {found[1].partner, found[2].partner} == {0}


def test_small_common_factors_count_for_nothing() -> None:
    random = Random(9)
    smooth = int(gmpy2.primorial(500)) // 2
    moduli = [common(random, smooth, 800) * common(random, smooth, 800) for _ in range(2)]
    assert gmpy2.gcd(moduli[0] - 1, moduli[1] - 1).bit_length() > 600
    assert shared_subprimes(moduli, 64) == {}


class Blocks:
    """Others in blocks of three."""

    def __init__(self, numbers: list[int]) -> None:
        self._blocks = [numbers[at : at + 3] for at in range(0, len(numbers), 3)]

    @property
    def block_count(self) -> int:
        return len(self._blocks)

    def products(self) -> Iterator[gmpy2.mpz]:
        return (product([gmpy2.mpz(one) for one in block]) for block in self._blocks)

    def block(self, number: int) -> list[int]:
        return self._blocks[number]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3)), min_size=1, max_size=4),
    st.tuples(st.integers(0, 4), st.integers(0, 9)),
)
def test_others_are_partners_where_no_modulus_is(
    seed: int, groups: list[tuple[int, int]], sound: tuple[int, int]
) -> None:
    """Groups of moduli and others that have an r in common; even numbers among the others change nothing."""
    random = Random(seed)
    moduli: dict[int, tuple[int, int, int]] = {}
    others: list[int] = [prime(random, 140) * 2, 2, 1]
    for inside, outside in groups:
        r = prime(random, 80)
        members = list({common(random, r, 140) * common(random, r, 140) for _ in range(inside + outside)})
        for n in members[:inside]:
            moduli[n] = (r, inside, len(members) - inside)
        others += members[inside:]
    for place, count in enumerate(sound):
        numbers = [prime(random, 140) * prime(random, 140) for _ in range(count)]
        others += numbers if place else []
        moduli.update({n: (0, 0, 0) for n in numbers if not place})
    given_ = list(moduli)
    random.shuffle(given_)
    random.shuffle(others)
    found = shared_subprimes(given_, 64, others=Blocks(others))
    assert {given_[index] for index in found} == {
        n for n, (_, inside, outside) in moduli.items() if inside + outside > 1
    }
    for index, one in found.items():
        r, inside, _ = moduli[given_[index]]
        partner = one.outside if one.partner is None else given_[one.partner]
        assert partner is not None
        assert partner != given_[index]
        assert (one.partner is None) == (inside == 1)
        assert one.divisor % r == 0 == (partner - 1) % one.divisor == (given_[index] - 1) % one.divisor


def test_a_key_that_shares_with_a_modulus_too_little_shares_with_another() -> None:
    """40 bits with one of the run, 70 with each of two of the others: found with one of these."""
    random = Random(12)
    few, r, s = prime(random, 40), prime(random, 70), prime(random, 70)
    key = common(random, few * r * s, 240) * common(random, few * r * s, 240)
    beside = common(random, few, 140) * common(random, few, 140)
    others = [common(random, one, 140) * common(random, one, 140) for one in (r, s)]
    found = shared_subprimes([key, beside], 64, others=Blocks(others))
    assert set(found) == {0}
    assert found[0].partner is None
    assert found[0].outside in others
    assert found[0].divisor in (r, s)
