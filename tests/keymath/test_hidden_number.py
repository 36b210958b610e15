"""Lattices over nonces that are not uniform: made-up signatures whose private key is known."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.keymath import hidden_number as hidden
from keyassay.keymath.curves import named_curves
from keyassay.keymath.generators import GMP_CONGRUENTIAL

ORDERS = {name: int(named_curves()[name].order) for name in ("P-256", "P-384", "P-521", "brainpoolP256r1")}
P256 = ORDERS["P-256"]
seeds = st.integers(0, 2**64)


def lines_of(nonces, d, order, random):
    """Lines (u, t) with k = u + t d."""
    slopes = [random.randrange(1, order) for _ in nonces]
    return [((k - t * d) % order, t) for k, t in zip(nonces, slopes, strict=True)]


def drawn(seed, order):
    """A generator and a private key."""
    random = Random(seed)
    return random, random.randrange(1, order)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("count", [4, 8])
def test_nonces_that_lack_more_bits_than_needed_give_the_private_key(order, count):
    """Nineteen of twenty at the border, as the module says; here four bits beyond it, nine of ten and more."""
    random, size = Random(order + count), order.bit_length()
    bits, fewer = hidden.least_bits(order, count), hidden.least_bits(order, count - 1) + 1
    right = [0] * 4
    for _ in range(10):
        d = random.randrange(1, order)
        short = [random.getrandbits(size - bits - 4) for _ in range(count)]
        lines = lines_of(short, d, order, random)
        right[0] += d in [*hidden.short(lines, order, bits), *hidden.short(lines, order, bits, signed=True)]
        signs = [k * random.choice((1, -1)) for k in short]
        right[1] += d in list(hidden.short(lines_of(signs, d, order, random), order, bits, signed=True))
        start = random.getrandbits(fewer + 3) << (size - fewer - 4)
        alike = [start + random.getrandbits(size - fewer - 4) for _ in range(count)]
        right[2] += d in list(hidden.common_start(lines_of(alike, d, order, random), order, fewer))
        end = random.getrandbits(fewer + 4)
        ends = [(random.getrandbits(size - fewer - 5) << (fewer + 4)) + end for _ in range(count)]
        right[3] += d in list(hidden.common_end(lines_of(ends, d, order, random), order, fewer))
    assert min(right) >= 9


@settings(deadline=None, max_examples=20)
@given(seed=seeds, count=st.integers(3, 9))
def test_what_passes_the_filter_fits_all_lines(seed, count):
    """Few candidates, though the nonces are uniform, and for each of them all nonces would be short."""
    random, d = drawn(seed, P256)
    lines = lines_of([random.randrange(1, P256) for _ in range(count)], d, P256, random)
    bits = hidden.least_bits(P256, count)
    found = list(hidden.short(lines, P256, bits))
    assert len(found) <= 3
    assert d not in found
    bound = 1 << (256 - bits - 1)
    for one in found:
        assert all(min(k, P256 - k) <= 3 * bound for k in ((u + t * one) % P256 for u, t in lines))


@settings(deadline=None, max_examples=5)
@given(seed=seeds)
def test_forty_bits_of_any_structure_are_enough(seed):
    """Bits fixed by a secret multiplier: nothing is short, and all differences are once they are multiplied."""
    random, d = drawn(seed, P256)
    factor = random.randrange(1, P256)
    count = hidden.unknown_needs(P256)
    nonces = [factor * random.getrandbits(216) + 5 for _ in range(count)]
    assert d in list(hidden.unknown_structure(lines_of(nonces, d, P256, random), P256))
    sound = [random.randrange(1, P256) for _ in range(count)]
    assert d not in list(hidden.unknown_structure(lines_of(sound, d, P256, random), P256))


def test_sixteen_bits_at_both_ends_need_six_signatures():
    random, d = drawn(24, P256)
    nonces = [random.getrandbits(16) << 240 | random.getrandbits(16) for _ in range(6)]
    assert d in list(hidden.unknown_structure(lines_of(nonces, d, P256, random), P256))
    tried = next(one for one in hidden.attempts(lines_of(nonces, d, P256, random), P256) if "structure" in one.what)
    assert d in list(tried.run())


@pytest.mark.parametrize(("size", "count"), [(128, 22), (64, 26), (56, 32)])
def test_unknown_generators_of_which_half_a_state_is_seen(size, count):
    """About as many signatures as google/paranoid_crypto states for its own lattice."""
    random, d = drawn(size, P256)
    nonces = gmp_numbers(size, random.getrandbits(size), 256, count)
    assert d in list(hidden.unknown_structure(lines_of(nonces, d, P256, random), P256))


@settings(deadline=None, max_examples=10)
@given(seed=seeds)
def test_bytes_that_come_four_times(seed):
    random, d = drawn(seed, P256)
    shape = hidden.repeated_bytes(256)
    nonces = [int.from_bytes(bytes(b for b in random.randbytes(8) for _ in range(4)), "big") for _ in range(2)]
    assert list(hidden.digits(lines_of(nonces, d, P256, random), P256, shape)) == [d]


def output(generator, seed, count):
    """Words of a generator after a seed: the definition itself."""
    for place in range(count):
        if place:
            seed = (seed * generator.multiplier + generator.increment) % (1 << generator.state)
        yield seed >> generator.low


@pytest.mark.parametrize(
    ("generator", "first_high", "swapped"),
    [
        *((generator, first, False) for generator in hidden.GENERATORS for first in (True, False)),
        pytest.param(hidden.GENERATORS[0], True, True, marks=pytest.mark.slow),
    ],
)
@settings(deadline=None, max_examples=3)
@given(seed=seeds)
def test_words_of_generators(generator, first_high, swapped, seed):
    random, d = drawn(seed, P256)
    shape = hidden.words(generator, 256, first_high=first_high, swapped=swapped)

    def number():
        octets = [
            one.to_bytes(4, "little" if swapped else "big")
            for one in output(generator, random.getrandbits(generator.state), 8)
        ]
        return int.from_bytes(b"".join(octets if first_high else octets[::-1]), "big")

    lines = lines_of([number(), number()], d, P256, random)
    assert d in list(hidden.digits(lines, P256, shape))
    own = number()
    lines = [(0, 1), *lines_of([number()], own, P256, random)]
    assert own in list(hidden.digits(lines, P256, shape))


def gmp_numbers(size, state, bits, count):
    """mpz_urandomb after gmp_randinit_lc_2exp_size: the high half of each state, the first one lowest."""
    numbers = []
    for _ in range(count):
        number = 0
        for place in range(-(-bits * 2 // size)):
            state = (GMP_CONGRUENTIAL[size] * state + 1) % (1 << size)
            number |= (state >> (size // 2)) << (place * (size // 2))
        numbers.append(number % (1 << bits))
    return numbers


@pytest.mark.parametrize(
    ("curve", "size", "count"),
    [
        ("P-256", 32, 2), ("P-256", 40, 2), ("P-256", 64, 2), ("P-256", 128, 3), ("P-256", 196, 5), ("P-256", 200, 6),
        ("P-384", 56, 2), ("P-384", 128, 2), ("P-384", 200, 3), ("P-384", 256, 4), ("P-256", 100, 2), ("P-256", 156, 3), ("P-521", 128, 2), ("P-521", 196, 2),
    ],
)  # fmt: skip
def test_numbers_of_gmp(curve, size, count):
    """As many signatures as google/paranoid_crypto needs, or fewer."""
    order = ORDERS[curve]
    random, d = drawn(size + count, order)
    nonces = gmp_numbers(size, random.getrandbits(size), order.bit_length(), count)
    lines = lines_of(nonces, d, order, random)
    name = f"its nonces are words of GMP's congruential generator of {size} bits, the first word lowest"
    tried = [one for one in hidden.attempts(lines, order) if one.what == name]
    assert any(d in list(one.run()) for one in tried)


def test_two_states_of_java_util_random_are_what_java_makes_of_them():
    """java.util.Random with seed 42: nextInt() gives -1170105035, 234785527 (any Java says so)."""
    generator = hidden.GENERATORS[0]
    state = 42 ^ generator.multiplier
    state = (state * generator.multiplier + generator.increment) % (1 << 48)
    assert list(output(generator, state, 2)) == [-1170105035 % 2**32, 234785527]


@settings(deadline=None, max_examples=5)
@given(seed=seeds)
def test_attempts_name_what_they_find(seed):
    random, d = drawn(seed, P256)
    lines = lines_of([random.getrandbits(120) for _ in range(4)], d, P256, random)
    first = next(one for one in hidden.attempts(lines, P256) if d in list(one.run()))
    assert first.what == "its nonces are short"
    assert list(first.places) == [0, 1, 2, 3]


def test_attempts_end_for_any_number_of_signatures():
    random, d = drawn(3, P256)
    for count in (0, 1, 2, 3, 5, 41):
        lines = lines_of([random.randrange(1, P256) for _ in range(count)], d, P256, random)
        for one in hidden.attempts(lines, P256, low=True):
            assert set(one.places) <= set(range(count))
            assert one.places or not count
