"""Batch GCD against pairwise gcd, and its arithmetic against gmpy2."""

from __future__ import annotations

from math import gcd
from random import Random

import gmpy2
import numpy as np
import pytest
from gmpy2 import mpz
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.keymath import batch_gcd, fft
from keyassay.keymath.batch_gcd import MemoryLevels, SharedFactor, common_factors, memory_needed, shared_factors


def naive(moduli):
    """Indices that have a proper common factor with a different number, and what some gcd says."""
    found = {}
    for i, x in enumerate(moduli):
        for y in moduli:
            if x > 1 and y > 1 and x != y and 1 < gcd(x, y) < x:
                found[i] = gcd(x, y)
    return found


def assert_right(moduli, found):
    assert set(found) == set(naive(moduli))
    for index, one in found.items():
        assert 1 < one.factor < moduli[index]
        assert moduli[index] % one.factor == 0
        assert moduli[one.partner] != moduli[index]
        assert gcd(moduli[one.partner], moduli[index]) > 1


@pytest.fixture
def arrays(monkeypatch):
    """Make small input go through the arrays."""
    monkeypatch.setattr(batch_gcd, "SMALL", 0)
    monkeypatch.setattr(batch_gcd, "GROUP", 600)


def primes(seed, bits, count):
    random = Random(seed)
    found = set()
    while len(found) < count:
        found.add(int(gmpy2.next_prime(random.getrandbits(bits) | 3 << (bits - 2))))
    return sorted(found, key=lambda p: p * 2654435761 % 2**31)


def semiprimes(seed, bits, count):
    one = primes(seed, bits // 2, 2 * count)
    return [p * q for p, q in zip(one[::2], one[1::2], strict=True)]


tiny = st.lists(st.integers(0, 3000), max_size=40)
mixed = st.lists(
    st.one_of(
        st.integers(-5, 60),
        st.integers(0, 2**40),
        st.builds(lambda a, b: a * b, st.sampled_from(primes(1, 24, 12)), st.sampled_from(primes(1, 24, 12))),
        st.builds(lambda a, b: a**b, st.sampled_from((2, 3, 4, 6, 30)), st.integers(1, 300)),
    ),
    max_size=30,
)


@given(tiny)
def test_small_numbers_agree_with_pairwise_gcd(moduli):
    assert_right(moduli, shared_factors(moduli))


@given(mixed)
def test_mixed_numbers_agree_with_pairwise_gcd(moduli):
    assert_right(moduli, shared_factors(moduli))


@given(mixed)
@settings(max_examples=60)
def test_arrays_agree_with_pairwise_gcd(moduli):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_gcd, "SMALL", 0)
        patch.setattr(batch_gcd, "GROUP", 100)
        assert_right(moduli, shared_factors(moduli))


@given(mixed, st.lists(st.sampled_from((*primes(1, 24, 12), 2, 3, 5)), max_size=4))
def test_what_extras_hold_is_taken_out_first(moduli, extra):
    found = shared_factors(moduli, extra=extra)
    product = 1
    for number in extra:
        product *= number
    for index, modulus in enumerate(moduli):
        if modulus <= 1:
            continue
        if 1 < gcd(modulus, product) < modulus:
            assert index in found
        if index in found and found[index].partner is None:
            assert gcd(found[index].factor, product) > 1
        if index in found and found[index].partner is not None:
            assert gcd(modulus, moduli[found[index].partner]) > 1
    for index, one in found.items():
        assert 1 < one.factor < moduli[index]
        assert moduli[index] % one.factor == 0
    assert set(naive(moduli)) <= set(found) | {i for i, x in enumerate(moduli) if x > 1 and product % x == 0}


@pytest.mark.parametrize("threads", [1, 2])
def test_planted_pairs_are_found_and_nothing_else(arrays, threads):
    moduli = semiprimes(2, 512, 150)
    shared = primes(3, 256, 7)
    moduli[10] = shared[0] * shared[1]
    moduli[97] = shared[0] * shared[2]
    moduli[50] = shared[3] * shared[4]
    moduli[51] = shared[3] * shared[5]
    shares = []
    found = shared_factors(moduli, threads=threads, progress=shares.append)
    assert {i: (one.factor, one.partner) for i, one in found.items()} == {
        10: (shared[0], 97),
        97: (shared[0], 10),
        50: (shared[3], 51),
        51: (shared[3], 50),
    }
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_triangles_and_cycles_are_split(arrays):
    p = primes(4, 128, 403)
    moduli = [p[i] * p[(i + 1) % 400] for i in range(400)] + [p[400] * p[401], p[401] * p[402], p[402] * p[400]]
    found = shared_factors(moduli)
    assert set(found) == set(range(403))
    for index, one in found.items():
        assert gmpy2.is_prime(one.factor)
        assert moduli[one.partner] % one.factor == 0
        assert one.partner != index


def test_a_star_is_split(arrays):
    p = primes(5, 128, 300)
    moduli = [p[0] * q for q in p[1:]]
    found = shared_factors(moduli)
    assert {one.factor for one in found.values()} == {p[0]}
    assert set(found) == set(range(299))


def test_a_modulus_that_divides_another():
    p, q, r, s = primes(6, 128, 4)
    found = shared_factors([p * q, p * q * r, s])
    assert {i: (one.factor, one.partner) for i, one in found.items()} == {1: (p * q, 0)}
    found = shared_factors([p * q, p * q * r, p, s])
    assert set(found) == {0, 1}
    assert found[0].factor in (p, q)


def test_repeated_moduli_share_nothing_with_themselves():
    p, q, r = primes(7, 128, 3)
    assert shared_factors([p * q, p * q, p * q]) == {}
    found = shared_factors([p * q, p * q, p * r])
    assert set(found) == {0, 1, 2}
    assert found[0] == found[1]
    assert found[0].factor == p
    assert found[0].partner == 2
    assert found[2].partner == 0


def test_nothing_to_compare():
    assert shared_factors([]) == {}
    assert shared_factors([15]) == {}
    assert shared_factors([0, 1, -7, 2, 2]) == {}
    assert shared_factors([15], extra=[6])[0].factor == 3


def test_extras_split_what_they_hold_apart():
    p, q, r, s = primes(8, 128, 4)
    found = shared_factors([p * q, p * r, r * s, 6 * q], extra=[p, q, gmpy2.primorial(100)])
    assert found[0].factor in (p, q)
    assert found[0].partner is None
    assert (found[1].factor, found[1].partner) == (r, 2)
    assert (found[2].factor, found[2].partner) == (r, 1)
    assert found[3].partner is None


class Blocks:
    """Others in blocks of a few."""

    def __init__(self, numbers, size=3):
        self.blocks = [numbers[at : at + size] for at in range(0, len(numbers), size)]
        self.opened = []

    def products(self):
        return (batch_gcd._product([mpz(number) for number in block]) for block in self.blocks)

    def block(self, number):
        self.opened.append(number)
        return self.blocks[number]


@given(mixed, mixed, st.booleans())
def test_others_agree_with_pairwise_gcd(moduli, others, through_arrays):
    others = sorted({number for number in others if number > 1} - set(moduli))
    with pytest.MonkeyPatch.context() as patch:
        if through_arrays:
            patch.setattr(batch_gcd, "SMALL", 0)
            patch.setattr(batch_gcd, "GROUP", 100)
        found = common_factors(moduli, others=Blocks(others)).shared
    assert set(found) == {place for place in naive(moduli + others) if place < len(moduli)}
    for place, one in found.items():
        partner = one.outside if one.partner is None else moduli[one.partner]
        assert 1 < one.factor < moduli[place]
        assert moduli[place] % one.factor == 0
        assert gcd(partner, moduli[place]) > 1
        assert partner != moduli[place]
        assert one.partner is not None or one.outside in others


def test_only_blocks_of_partners_are_opened(arrays):
    moduli, others = semiprimes(18, 256, 40), semiprimes(19, 256, 60)
    p, q, r, s, t, u = primes(20, 128, 6)
    moduli[7], others[31] = p * q, p * r
    moduli[8], moduli[9], others[50] = s * t, t * u, u * s
    blocks = Blocks(others)
    found = common_factors(moduli, others=blocks, extra=[gmpy2.primorial(100)]).shared
    assert blocks.opened == [10, 16]
    assert found[7] == SharedFactor(p, None, p * r)
    assert set(found) == {7, 8, 9}
    assert all(gmpy2.is_prime(one.factor) for one in found.values())


def test_one_partner_is_enough_where_thousands_share(monkeypatch):
    monkeypatch.setattr(batch_gcd, "VISITS", 10)
    p = primes(21, 64, 120)
    blocks = Blocks([p[0] * q for q in p[1:100]] + [p[100] * p[101]])
    found = common_factors([p[0] * p[110], p[100] * p[111]], others=blocks).shared
    assert {place: one.factor for place, one in found.items()} == {0: p[0], 1: p[100]}
    assert len(blocks.opened) < 10


def test_what_the_extras_hold_is_told_apart():
    p, q, r = primes(22, 64, 3)
    smooth = 3 * 5 * 7 * 11
    found = common_factors([3 * p, 15 * q * r, smooth, q, p * r, smooth], extra=[gmpy2.primorial(100)])
    assert found.known == {0: 3, 1: 15, 2: smooth, 5: smooth}
    assert found.shared[0] == SharedFactor(p, 4)
    assert found.shared[1].partner in (3, 4)
    assert 2 not in found.shared


def test_a_small_factor_that_all_have_is_linear_work(arrays, monkeypatch):
    moduli = [3 * n for n in semiprimes(9, 256, 400)]
    visits = 0
    original = batch_gcd._remainders

    def counted(value, numbers):
        nonlocal visits
        visits += len(numbers)
        return original(value, numbers)

    monkeypatch.setattr(batch_gcd, "_remainders", counted)
    found = shared_factors(moduli)
    assert {one.factor for one in found.values()} == {3}
    assert len(found) == 400
    assert visits <= 400
    assert all(one.partner is None for one in shared_factors(moduli, extra=[gmpy2.primorial(1000)]).values())


def test_numbers_that_divide_many_others_stay_bounded(arrays, monkeypatch):
    """500 divisors of every one of 500 numbers: pairs are quadratic, visits are capped."""
    monkeypatch.setattr(batch_gcd, "VISITS", 20)
    p = primes(10, 40, 40)
    product = 1
    for prime in p:
        product *= prime
    divisors = [p[i] * p[i + 1] for i in range(0, 40, 2)]
    moduli = divisors + [product * q for q in primes(11, 60, 100)]
    found = shared_factors(moduli)
    assert set(found) == set(range(20, 120))


def test_sizes_from_one_bit_to_16384(arrays):
    p = primes(12, 64, 2)
    random = Random(12)
    large = [int(gmpy2.next_prime(random.getrandbits(600))) * p[0] << 9000, (1 << 16384) - 1, p[0] * p[1], 2, 3, 1, 0]
    found = shared_factors(large)
    assert_right(large, found)


def test_levels_are_dropped_once_each_and_never_reused(arrays):
    events = []

    class Watched(MemoryLevels):
        keeps_groups = False

        def array(self, name, rows, width):
            events.append(("array", name))
            return super().array(name, rows, width)

        def drop(self, name):
            events.append(("drop", name))

    moduli = semiprimes(13, 512, 120)
    assert shared_factors(moduli, levels=Watched()) == {}
    made = [name for kind, name in events if kind == "array"]
    dropped = [name for kind, name in events if kind == "drop"]
    assert len(set(made)) == len(made)
    assert len(set(dropped)) == len(dropped)
    assert set(dropped) == set(made)
    for name in made:
        assert events.index(("array", name)) < events.index(("drop", name))


def test_a_rounding_error_is_answered_by_exact_arithmetic(arrays, monkeypatch):
    moduli = semiprimes(14, 512, 100)
    p = primes(15, 256, 3)
    moduli[20], moduli[80] = p[0] * p[1], p[0] * p[2]
    conversions = []
    original = fft.from_digits

    def counted(digits):
        conversions[-1] += 1
        return original(digits)

    monkeypatch.setattr(fft, "from_digits", counted)
    conversions.append(0)
    expected = shared_factors(moduli)
    assert set(expected) == {20, 80}
    monkeypatch.setattr(fft, "TOLERANCE", 0.0)
    conversions.append(0)
    assert shared_factors(moduli) == expected
    assert conversions[1] > 2 * conversions[0]


@pytest.mark.parametrize("victim", ["product", "slope", "fraction"])
def test_wrong_digits_are_noticed_and_answered_by_gmpy2(arrays, monkeypatch, victim):
    moduli = semiprimes(16, 512, 100)
    p = primes(17, 256, 3)
    moduli[20], moduli[80] = p[0] * p[1], p[0] * p[2]
    original = batch_gcd._join if victim != "fraction" else batch_gcd._split

    def wrong(*arrays):
        original(*arrays)
        target = {"product": 2, "slope": 3, "fraction": 2}[victim]
        arrays[target][0, -40] ^= 4

    monkeypatch.setattr(batch_gcd, original.__name__, wrong)
    exact = []
    original_exact = batch_gcd._common_parts_exact

    def watched(*given):
        exact.append(1)
        return original_exact(*given)

    monkeypatch.setattr(batch_gcd, "_common_parts_exact", watched)
    assert set(shared_factors(moduli)) == {20, 80}
    assert exact


def test_memory_needed_grows_with_the_work():
    assert memory_needed(1000, 2048_000) < memory_needed(80_000, 80_000 * 2048) < memory_needed(80_000, 80_000 * 4096)
    # measured: 720 MB for 80,000 moduli of 2048 bits with one thread, 965 MB with two
    assert 0.97e9 < memory_needed(80_000, 80_000 * 2048) < 1.3e9


# Arithmetic


@pytest.mark.parametrize("points", [32, 48, 80, 1024, 5120, 15360, 40960, 41472, 65536])
def test_products_agree_with_gmpy2(points):
    random = Random(points)
    for _ in range(3):
        a, b = (random.getrandbits(random.randrange(1, 16 * points - 2)) for _ in range(2))
        assert fft.product(a, b, points) == mpz(a) * b
    full = (1 << (16 * points - 2)) - 1
    assert fft.product(full, full, points) == mpz(full) ** 2
    sevens = int.from_bytes(b"\xff\x7f" * points, "little")
    assert fft.product(sevens, sevens, points) == mpz(sevens) ** 2


@given(st.integers(1, 200), st.data())
def test_digits_are_a_bijection(width, data):
    limit = (mpz(1) << (16 * width)) - fft.halves(width) - 1
    number = data.draw(st.integers(-int(fft.halves(width)), int(limit)))
    digits = fft.to_digits(mpz(number), width)
    assert digits.dtype == np.int16
    assert fft.from_digits(digits) == number


@given(st.integers(1, 40), st.integers(1, 3), st.integers(0, 2**32))
def test_carrying_keeps_the_number(width, rows, seed):
    values = np.random.default_rng(seed).integers(-(2**45), 2**45, (rows, width)).astype(np.float64)
    values[:, ::3] = 32768.0
    values[:, 1::3] = -32769.0
    expected = [sum(int(v) << (16 * j) for j, v in enumerate(row)) % (1 << 16 * width) for row in values]
    out = np.empty(values.shape, dtype=np.int16)
    fft.carried(values, out)
    assert [int(fft.from_digits(row)) % (1 << 16 * width) for row in out] == expected


@pytest.mark.parametrize("width", [16_384, 50_000])
def test_long_chains_of_carries_arrive(width):
    values = np.full((2, width), 32767.0)
    values[:, 0] = 32768.0
    expected = sum(int(v) << (16 * j) for j, v in enumerate(values[0]))
    out = np.empty(values.shape, dtype=np.int16)
    fft.carried(values, out)
    for row in out:
        assert fft.from_digits(row) % (mpz(1) << 16 * width) == expected


def test_a_coefficient_between_integers_is_refused():
    for wrong in (0.2, -0.2, np.nan):
        values = np.zeros((2, 100))
        values[1, 70] = wrong
        with pytest.raises(fft.RoundingError):
            fft.carried(values, np.empty(values.shape, dtype=np.int16))


@given(st.integers(1, 10**7))
def test_smooth_lengths_are_long_enough_and_not_much_longer(length):
    size = fft.smooth_length(length)
    assert size >= length
    assert size % 32 == 0
    assert size <= max(32, 1.34 * length) + 32
